//! An engine with one request of each kind that a server has to deal with.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use overstory_node::commit::Commits;
use overstory_node::engine::{
    Begun, Engine, Flow, LegacySink, LegacyStep, LegacyStream, NeoRequest, NeoStream, Peer, Produced, SinkStep,
    Support, Unsettled, Violation,
};
use overstory_node::stats::RequestSpec;
use overstory_node::wake::Waker;
use overstory_swarm::neo::Replies;
use overstory_swarm::wire::Reader;
use tokio::sync::Notify;

pub(crate) const ECHO: u8 = 1;
/// `u64` batches, `u32` their size: like GetAll.
pub(crate) const FLOOD: u8 = 2;
/// Waits until somebody sends [`FIRE`], then sends one byte each time.
pub(crate) const WAIT: u8 = 3;
pub(crate) const FIRE: u8 = 4;
/// `u32`: a reply of so many bytes.
pub(crate) const BIG: u8 = 5;
/// Makes a change; answers with a byte.
pub(crate) const PUSH: u8 = 6;

pub(crate) const SUSPEND: u8 = 1;
pub(crate) const RESUME: u8 = 2;
pub(crate) const STOP: u8 = 3;
pub(crate) const ACK: u8 = 4;
pub(crate) const STARTED: u8 = 5;
pub(crate) const BATCH: u8 = 7;
pub(crate) const FINISHED: u8 = 8;

/// Legacy requests, by the first of four bytes.
pub(crate) const L_ECHO: u8 = 1;
/// `u64`: so many bytes in 16 KiB pieces.
pub(crate) const L_FLOOD: u8 = 2;
/// Answers when [`Toy::later`] is notified.
pub(crate) const L_LATER: u8 = 3;
/// Items `u8` length and bytes; an empty one ends it. Answers with the sum of the lengths in a byte.
pub(crate) const L_SINK: u8 = 4;
/// `u64`: so many bytes follow and are thrown away.
pub(crate) const L_DISCARD: u8 = 5;
/// As [`L_FLOOD`], but the answer cannot be made to its end.
pub(crate) const L_BREAK: u8 = 20;
/// Sends a byte each time somebody sends [`FIRE`].
pub(crate) const L_LISTEN: u8 = 6;
/// Makes a change.
pub(crate) const L_PUSH: u8 = 7;
/// Items as those of [`L_SINK`], each a change that takes a place of [`Toy::room`]. Answers with a byte.
pub(crate) const L_STORE: u8 = 8;

#[derive(Default)]
pub(crate) struct Toy {
    pub(crate) echoes: Cell<usize>,
    pub(crate) produced: Cell<usize>,
    pub(crate) streams: Rc<Cell<usize>>,
    pub(crate) later: Rc<Notify>,
    /// Whether replies wait for changes.
    pub(crate) keeps: Cell<bool>,
    pub(crate) journal: Rc<Journal>,
    fired: Rc<Cell<u64>>,
    waiting: RefCell<Vec<Waker>>,
}

/// What changes.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) commits: Commits,
    /// Changes that were settled.
    pub(crate) settled: Cell<u64>,
    /// Whether nothing can be settled.
    pub(crate) broken: Cell<bool>,
    pub(crate) stored: RefCell<Vec<u8>>,
    room: Cell<usize>,
    blocked: RefCell<Vec<Waker>>,
}

impl Journal {
    /// Lets so many items more be stored.
    pub(crate) fn make_room(&self, items: usize) {
        self.room.set(self.room.get() + items);
        self.blocked.take().iter().for_each(Waker::wake);
    }
}

impl Toy {
    pub(crate) fn fire(&self) {
        self.fired.set(self.fired.get() + 1);
        self.waiting.borrow().iter().for_each(Waker::wake);
    }

    fn waiter(&self, waker: &Waker) -> Waiter {
        self.waiting.borrow_mut().push(waker.clone());
        Waiter { fired: Rc::clone(&self.fired), seen: self.fired.get(), _alive: Alive::new(&self.streams) }
    }
}

/// Counts the streams that are there.
struct Alive(Rc<Cell<usize>>);

impl Alive {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

const fn spec(code: u8, name: &'static str) -> RequestSpec {
    RequestSpec { code, name, tracked: true, timed: true }
}

impl Engine for Toy {
    const LEGACY_REQUESTS: &'static [RequestSpec] = &[spec(L_ECHO, "Echo"), spec(L_FLOOD, "Other")];
    const NEO_REQUESTS: &'static [RequestSpec] = &[
        spec(ECHO, "Echo"),
        spec(FLOOD, "Flood"),
        spec(WAIT, "Wait"),
        spec(FIRE, "Fire"),
        spec(BIG, "Big"),
        spec(PUSH, "Push"),
    ];
    const ACTIONS: &'static [&'static str] = &[];

    fn legacy(&self, _: &Peer, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
        let Some((code, rest)) = input.split_first_chunk::<4>() else { return LegacyStep::Need(4) };
        let mut reader = Reader::new(rest);
        let argument = reader.u64();
        let ok = 200_i32.to_le_bytes();
        match (code[0], argument) {
            (L_LATER, _) => {
                let later = Rc::clone(&self.later);
                let reply = Box::pin(async move {
                    later.notified().await;
                    ok.to_vec()
                });
                LegacyStep::Later { consumed: 4, request: 1, reply }
            }
            (L_SINK, _) => {
                out.extend_from_slice(&ok);
                LegacyStep::Sink { consumed: 4, request: 1, sink: Box::new(Sum(0)) }
            }
            (L_PUSH, _) => {
                self.journal.commits.changed();
                out.extend_from_slice(&ok);
                LegacyStep::Done { consumed: 4, request: 0 }
            }
            (L_STORE, _) => {
                out.extend_from_slice(&ok);
                let sink = Store { journal: Rc::clone(&self.journal), waker: waker.clone() };
                LegacyStep::Sink { consumed: 4, request: 1, sink: Box::new(sink) }
            }
            (L_LISTEN, _) => {
                out.extend_from_slice(&ok);
                LegacyStep::Stream { consumed: 4, request: 1, stream: Box::new(self.waiter(waker)) }
            }
            (L_ECHO | L_FLOOD | L_DISCARD | L_BREAK, Err(_)) => LegacyStep::Need(12),
            (L_ECHO, Ok(length)) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some(body) = reader.rest().get(..length) else {
                    return LegacyStep::Need(length.saturating_add(12));
                };
                out.extend_from_slice(&ok);
                out.extend_from_slice(body);
                self.echoes.set(self.echoes.get() + 1);
                LegacyStep::Done { consumed: 12 + length, request: 0 }
            }
            (code @ (L_FLOOD | L_BREAK), Ok(left)) => {
                out.extend_from_slice(&ok);
                let stream = Box::new(Pieces { left, breaks: code == L_BREAK, _alive: Alive::new(&self.streams) });
                LegacyStep::Stream { consumed: 12, request: 1, stream }
            }
            (L_DISCARD, Ok(length)) => {
                out.extend_from_slice(&410_i32.to_le_bytes());
                let there = reader.rest().len().min(usize::try_from(length).unwrap_or(usize::MAX));
                LegacyStep::Discard { consumed: 12 + there, more: length - there as u64, request: 1 }
            }
            _ => LegacyStep::Close { reason: "unknown command" },
        }
    }

    fn supports(&self, code: u8, version: u8) -> Support {
        match (code, version) {
            (ECHO..=PUSH, 0) => Support::Yes(usize::from(code - 1)),
            (ECHO..=PUSH, _) => Support::UnknownVersion,
            _ => Support::UnknownCode,
        }
    }

    fn neo(&self, request: NeoRequest<'_>, out: &mut Replies<'_>) -> Begun {
        let mut reader = Reader::new(request.payload);
        match request.code {
            ECHO => {
                self.echoes.set(self.echoes.get() + 1);
                out.bytes(request.payload);
            }
            FLOOD => {
                let (Ok(left), Ok(size)) = (reader.u64(), reader.u32()) else { return Begun::Done };
                out.byte(STARTED);
                let alive = Alive::new(&self.streams);
                return Begun::Stream(Box::new(Flood { left, size, suspended: false, finished: false, _alive: alive }));
            }
            WAIT => return Begun::Stream(Box::new(self.waiter(request.waker))),
            FIRE => self.fire(),
            BIG => {
                let size = reader.u32().unwrap_or_default() as usize;
                self.produced.set(self.produced.get() + size);
                out.message(|out| out.resize(out.len() + size, 0));
            }
            PUSH => {
                self.journal.commits.changed();
                out.byte(1);
            }
            _ => {}
        }
        Begun::Done
    }

    fn commits(&self) -> Option<&Commits> {
        self.keeps.get().then_some(&self.journal.commits)
    }

    fn settle(&self) -> Result<(), Unsettled> {
        if self.journal.broken.get() {
            return Err(Unsettled);
        }
        self.journal.settled.set(self.journal.commits.made());
        Ok(())
    }
}

struct Flood {
    left: u64,
    size: u32,
    suspended: bool,
    finished: bool,
    _alive: Alive,
}

impl NeoStream for Flood {
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation> {
        match payload {
            [ACK] if self.finished => return Ok(Flow::Done),
            [SUSPEND | RESUME | STOP] if self.finished => return Ok(Flow::Continue),
            [SUSPEND] => self.suspended = true,
            [RESUME] => self.suspended = false,
            [STOP] => {
                out.byte(ACK);
                return Ok(Flow::Done);
            }
            _ => return Err(Violation("unknown control")),
        }
        out.byte(ACK);
        Ok(Flow::Continue)
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if self.suspended || self.finished {
            return Produced::Idle;
        }
        if self.left == 0 {
            self.finished = true;
            out.byte(FINISHED);
            return Produced::Idle;
        }
        self.left -= 1;
        let size = self.size as usize;
        out.message(|out| {
            out.push(BATCH);
            out.resize(out.len() + size, 0);
        });
        Produced::More
    }
}

struct Waiter {
    fired: Rc<Cell<u64>>,
    seen: u64,
    _alive: Alive,
}

impl Waiter {
    fn fired(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, self.fired.get());
        before != self.seen
    }
}

impl NeoStream for Waiter {
    fn message(&mut self, _: &[u8], _: &mut Replies<'_>) -> Result<Flow, Violation> {
        Ok(Flow::Done)
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if self.fired() {
            out.byte(1);
        }
        Produced::Idle
    }
}

impl LegacyStream for Waiter {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        if self.fired() {
            out.push(1);
        }
        Produced::Idle
    }
}

struct Pieces {
    left: u64,
    breaks: bool,
    _alive: Alive,
}

impl LegacyStream for Pieces {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        let piece = self.left.min(16 << 10);
        self.left -= piece;
        out.resize(out.len() + usize::try_from(piece).unwrap(), 0);
        match self.left {
            0 if self.breaks => Produced::Failed,
            0 => Produced::Done,
            _ => Produced::More,
        }
    }
}

struct Sum(u8);

impl LegacySink for Sum {
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> SinkStep {
        match input {
            [] => SinkStep::More { consumed: 0, need: 1 },
            [0, ..] => {
                out.push(self.0);
                SinkStep::Done { consumed: 1 }
            }
            [length, rest @ ..] if rest.len() < usize::from(*length) => {
                SinkStep::More { consumed: 0, need: 1 + usize::from(*length) }
            }
            [length, ..] => {
                self.0 += length;
                SinkStep::More { consumed: 1 + usize::from(*length), need: 1 }
            }
        }
    }
}

struct Store {
    journal: Rc<Journal>,
    waker: Waker,
}

impl LegacySink for Store {
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> SinkStep {
        let Some((length, rest)) = input.split_first() else { return SinkStep::More { consumed: 0, need: 1 } };
        if *length == 0 {
            out.push(1);
            return SinkStep::Done { consumed: 1 };
        }
        let size = 1 + usize::from(*length);
        let Some(item) = rest.get(..size - 1) else { return SinkStep::More { consumed: 0, need: size } };
        let journal = &self.journal;
        let Some(room) = journal.room.get().checked_sub(1) else {
            journal.blocked.borrow_mut().push(self.waker.clone());
            return SinkStep::Blocked { consumed: 0 };
        };
        journal.room.set(room);
        journal.stored.borrow_mut().extend_from_slice(item);
        journal.commits.changed();
        SinkStep::More { consumed: size, need: 1 }
    }
}

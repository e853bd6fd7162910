//! The client's half of a neo connection without I/O: which requests run, in what state each is, what to send.
//!
//! Knows when each request ends, so that a caller only sees its messages. Ends a GetAll or a Mirror properly (the
//! acknowledgements of protocol §2.4, §2.6), keeps to one change of state in flight (§2.7) and to the credit of a
//! Consume and a GetRange (§2.5, §2.6).

use overstory_swarm::neo::dht::{self, Control};
use overstory_swarm::neo::dls::{self, GetRangeControl};
use overstory_swarm::neo::dmq::{self, ConsumeControl, PopReply};
use overstory_swarm::neo::frame::{self, FrameError, Kind, MAX_BODY, Step};
use overstory_swarm::neo::{
    MAX_ACTIVE_REQUESTS, Replies, SUPPORTED, UNSUPPORTED_CODE, UNSUPPORTED_VERSION, split_body,
};

use super::table::Table;

/// Messages that the streaming requests have in common.
const ACK: u8 = Control::Ack.code();
const STARTED: u8 = 5;
const ERROR: u8 = 6;

/// A message for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A message of a request that goes on.
    Item(&'a [u8]),
    /// The last message of a request.
    Last(&'a [u8]),
    /// The value that a Get or a Pop asked for; the request is over.
    Value(&'a [u8]),
    /// The request was stopped as asked for.
    Stopped,
    /// The node does not know the request.
    Unsupported,
}

/// Something that a node must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("an authentication message after the authentication")]
    Authentication,
    #[error("unexpected message in a {0}")]
    Message(&'static str),
}

/// What a request is, as far as its messages are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One byte.
    Single,
    Get,
    Pop,
    Channels,
    GetAll,
    Mirror,
    Update,
    HashRange,
    Consume,
    /// A GetRange of a dls.
    Range,
    /// Two numbers.
    Timestamps,
}

/// The first message of a request, of whichever node.
pub(crate) trait Opening {
    /// What follows it.
    fn shape(&self) -> Shape;
    /// The request's name.
    fn name(&self) -> &'static str;
    /// Whether it begins suspended.
    fn suspended(&self) -> bool {
        false
    }
    /// Appends code, version and what follows.
    fn encode(&self, out: &mut Vec<u8>);
}

impl Opening for dht::Request<'_> {
    #[inline]
    fn shape(&self) -> Shape {
        match self {
            Self::Put { .. } | Self::Exists { .. } | Self::Remove { .. } | Self::RemoveChannel { .. } => Shape::Single,
            Self::Get { .. } => Shape::Get,
            Self::GetChannels => Shape::Channels,
            Self::GetAll(_) => Shape::GetAll,
            Self::Mirror { .. } => Shape::Mirror,
            Self::Update { .. } => Shape::Update,
            Self::GetHashRange => Shape::HashRange,
        }
    }

    #[inline]
    fn name(&self) -> &'static str {
        dht::Request::name(self)
    }

    #[inline]
    fn suspended(&self) -> bool {
        match self {
            Self::GetAll(all) => all.start_suspended,
            Self::Mirror { start_suspended, .. } => *start_suspended,
            _ => false,
        }
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        dht::Request::encode(self, out);
    }
}

impl Opening for dmq::Request<'_> {
    #[inline]
    fn shape(&self) -> Shape {
        match self {
            Self::Push { .. } => Shape::Single,
            Self::Pop { .. } => Shape::Pop,
            Self::Consume { .. } => Shape::Consume,
        }
    }

    #[inline]
    fn name(&self) -> &'static str {
        dmq::Request::name(self)
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        dmq::Request::encode(self, out);
    }
}

impl Opening for dls::Request<'_> {
    #[inline]
    fn shape(&self) -> Shape {
        match self {
            Self::Put { .. } => Shape::Single,
            Self::GetRange { .. } => Shape::Range,
            Self::GetTimestampRange => Shape::Timestamps,
        }
    }

    #[inline]
    fn name(&self) -> &'static str {
        dls::Request::name(self)
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        dls::Request::encode(self, out);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has come yet.
    New,
    /// Supported.
    Running,
    /// The value comes next.
    Value,
}

/// The suspending, resuming and stopping of one request.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    started: bool,
    suspended: bool,
    pending: Option<Control>,
    /// The caller wants it suspended.
    held: bool,
    /// The caller has enough for now.
    full: bool,
    stop: bool,
    /// A GetRange's batch has no answer yet: the node waits for one, and for nothing at other times.
    owed: bool,
}

impl Flow {
    /// What to send now: one at a time.
    fn next(&mut self) -> Option<Control> {
        if !self.started || self.pending.is_some() {
            return None;
        }
        let wanted = self.held || self.full;
        let control = match (self.stop, wanted, self.suspended) {
            (true, ..) => Control::Stop,
            (_, true, false) => Control::Suspend,
            (_, false, true) => Control::Resume,
            _ => return None,
        };
        self.pending = Some(control);
        Some(control)
    }
}

#[derive(Debug)]
struct Entry<T> {
    shape: Shape,
    stage: Stage,
    flow: Flow,
    name: &'static str,
    tag: T,
}

/// One connection's requests. `T` is what the caller keeps of each.
#[derive(Debug)]
pub(crate) struct Core<T> {
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    table: Table<Entry<T>>,
    /// The node takes the Stop of a GetRange at any time.
    pub(crate) listens: bool,
}

impl<T> Core<T> {
    pub(crate) fn new() -> Self {
        Self { out: Vec::new(), table: Table::new(MAX_ACTIVE_REQUESTS), listens: false }
    }

    /// Whether no further request can begin before one ends.
    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.table.is_full()
    }

    #[inline]
    pub(crate) const fn in_flight(&self) -> usize {
        self.table.len()
    }

    /// Begins a request; gives its id, or none when too many run.
    #[inline]
    pub(crate) fn begin(&mut self, request: &impl Opening, tag: T) -> Option<u64> {
        let (shape, suspended) = (request.shape(), request.suspended());
        let flow = Flow { suspended, held: suspended, ..Flow::default() };
        let id = self.table.insert(Entry { shape, stage: Stage::New, flow, name: request.name(), tag })?;
        Replies::new(&mut self.out, id).message(|out| request.encode(out));
        Some(id)
    }

    /// Sends a further message of a request; nothing if it is over.
    pub(crate) fn send(&mut self, id: u64, write: impl FnOnce(&mut Vec<u8>)) {
        if self.table.get_mut(id).is_some() {
            Replies::new(&mut self.out, id).message(write);
        }
    }

    /// Suspends or resumes a GetAll or a Mirror for the caller.
    pub(crate) fn hold(&mut self, id: u64, held: bool) {
        self.change(id, &[Shape::GetAll, Shape::Mirror], |flow| flow.held = held);
    }

    /// Says that the caller can take more of a GetAll or a Mirror, or not for now.
    pub(crate) fn full(&mut self, id: u64, full: bool) {
        self.change(id, &[Shape::GetAll, Shape::Mirror], |flow| flow.full = full);
    }

    /// Ends a GetAll, a Mirror, a Consume or a GetRange; [`Event::Stopped`] tells when, unless it ends by itself before.
    /// A Consume whose batch has come takes it over by this. A GetRange is told so as the answer to a batch, unless the
    /// node listens at other times too.
    pub(crate) fn stop(&mut self, id: u64) {
        self.change(id, &[Shape::GetAll, Shape::Mirror, Shape::Consume, Shape::Range], |flow| flow.stop = true);
    }

    /// Takes the batch of a Consume or of a GetRange over and lets the node send the next one.
    pub(crate) fn go_on(&mut self, id: u64) {
        let code = match self.table.get_mut(id) {
            // After a Stop nothing else may be said.
            Some(Entry { flow: Flow { stop: true, .. }, .. }) => return,
            Some(Entry { shape: Shape::Consume, .. }) => ConsumeControl::Continue.code(),
            Some(Entry { shape: Shape::Range, flow: flow @ Flow { owed: true, .. }, .. }) => {
                flow.owed = false;
                GetRangeControl::Continue.code()
            }
            _ => return,
        };
        Replies::new(&mut self.out, id).byte(code);
    }

    fn change(&mut self, id: u64, of: &[Shape], change: impl FnOnce(&mut Flow)) {
        if let Some(entry) = self.table.get_mut(id)
            && of.contains(&entry.shape)
        {
            change(&mut entry.flow);
            if entry.shape != Shape::Range || entry.flow.owed || self.listens {
                pump(entry.shape, &mut entry.flow, id, &mut self.out);
            }
        }
    }

    /// Ends everything without an answer: the connection is gone.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.out.clear();
        self.table.drain().map(|entry| entry.tag)
    }

    /// Takes what has arrived; says how much of it is done with. `on` says whether the caller has enough for now.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        mut on: impl FnMut(&mut T, Event<'_>) -> bool,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        loop {
            match frame::next(input.get(at..).unwrap_or_default(), MAX_BODY)? {
                Step::Need(_) => return Ok(at),
                Step::Message { kind: Kind::Request, body, consumed } => {
                    at += consumed;
                    // Shorter than an id is an error of the frame already.
                    if let Ok((id, payload)) = split_body(body) {
                        self.message(id, payload, &mut on)?;
                    }
                }
                Step::Message { .. } => return Err(Violation::Authentication),
            }
        }
    }

    #[inline]
    fn message(
        &mut self,
        id: u64,
        payload: &[u8],
        on: &mut impl FnMut(&mut T, Event<'_>) -> bool,
    ) -> Result<(), Violation> {
        // A message for a request that is over is thrown away: it was on its way when the request ended.
        let Some(entry) = self.table.get_mut(id) else { return Ok(()) };
        let event = match (entry.stage, payload) {
            (Stage::New, [SUPPORTED]) => {
                entry.stage = Stage::Running;
                return Ok(());
            }
            (Stage::New, [UNSUPPORTED_CODE | UNSUPPORTED_VERSION]) => Event::Unsupported,
            (Stage::Running, [_]) if entry.shape == Shape::Single => Event::Last(payload),
            (Stage::Running, [2]) if entry.shape == Shape::Get => {
                entry.stage = Stage::Value;
                return Ok(());
            }
            (Stage::Running, [_]) if entry.shape == Shape::Get => Event::Last(payload),
            (Stage::Running, _) if entry.shape == Shape::Pop => match PopReply::decode(payload) {
                Ok(PopReply::Popped(value)) => Event::Value(value),
                Ok(_) => Event::Last(payload),
                Err(_) => return Err(Violation::Message(entry.name)),
            },
            (Stage::Running, payload) if entry.shape == Shape::Timestamps => Event::Value(payload),
            (Stage::Value, _) => {
                let value = overstory_swarm::neo::dht::value(payload).map_err(|_| Violation::Message("Get"))?;
                Event::Value(value)
            }
            (Stage::Running, [code, ..]) => match progress(entry, id, *code, payload, &mut self.out)? {
                Some(event) => event,
                None => return Ok(()),
            },
            _ => return Err(Violation::Message(entry.name)),
        };
        let full = on(&mut entry.tag, event);
        if !matches!(event, Event::Item(_)) {
            self.table.remove(id);
        } else if full && !entry.flow.full && matches!(entry.shape, Shape::GetAll | Shape::Mirror) {
            entry.flow.full = true;
            pump(entry.shape, &mut entry.flow, id, &mut self.out);
        }
        Ok(())
    }
}

/// Takes a message of a request that has several.
fn progress<'a, T>(
    entry: &mut Entry<T>,
    id: u64,
    code: u8,
    payload: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<Option<Event<'a>>, Violation> {
    let flow = &mut entry.flow;
    Ok(Some(match (entry.shape, code) {
        (Shape::HashRange, _) => Event::Item(payload),
        (Shape::Channels, 2) => Event::Item(payload),
        (Shape::Channels, _) => Event::Last(payload),
        // The value, to which the caller answers.
        (Shape::Update, 5) => Event::Item(payload),
        (Shape::Update, _) => Event::Last(payload),
        (Shape::GetAll | Shape::Mirror, STARTED) | (Shape::Consume, 1) if !flow.started => {
            flow.started = true;
            pump(entry.shape, flow, id, out);
            Event::Item(payload)
        }
        (Shape::GetAll | Shape::Mirror, ACK) => match flow.pending.take() {
            Some(Control::Stop) => Event::Stopped,
            Some(control) => {
                flow.suspended = control == Control::Suspend;
                pump(entry.shape, flow, id, out);
                return Ok(None);
            }
            None => return Err(Violation::Message(entry.name)),
        },
        // Failed, or the channel was removed.
        (Shape::GetAll | Shape::Mirror, ERROR) | (Shape::Consume, 2 | 5) => Event::Last(payload),
        (Shape::Consume, 3) if flow.started => Event::Item(payload),
        (Shape::Consume, 4) if flow.pending.is_some() => Event::Stopped,
        // All records, or the channel is gone: the node waits for the acknowledgement.
        (Shape::GetAll, 8) | (Shape::Mirror, 10) if flow.started => {
            Replies::new(out, id).byte(ACK);
            Event::Last(payload)
        }
        (Shape::GetAll, 7) | (Shape::Mirror, 7..=9 | 11) if flow.started => Event::Item(payload),
        (Shape::Range, 1) if !flow.started => {
            flow.started = true;
            return Ok(None);
        }
        // Refused before it began.
        (Shape::Range, 3) if !flow.started && payload.len() == 1 => Event::Last(payload),
        (Shape::Range, 3) if flow.started && !flow.owed && payload.len() > 1 => {
            flow.owed = true;
            pump(entry.shape, flow, id, out);
            Event::Item(payload)
        }
        (Shape::Range, 4) if flow.pending.is_some() => Event::Stopped,
        (Shape::Range, 5) if flow.started => {
            Replies::new(out, id).byte(GetRangeControl::Ack.code());
            Event::Last(payload)
        }
        (Shape::Range, 7) => Event::Last(payload),
        _ => return Err(Violation::Message(entry.name)),
    }))
}

fn pump(shape: Shape, flow: &mut Flow, id: u64, out: &mut Vec<u8>) {
    if let Some(control) = flow.next() {
        let code = match shape {
            Shape::Consume => ConsumeControl::Stop.code(),
            Shape::Range => GetRangeControl::Stop.code(),
            _ => control.code(),
        };
        Replies::new(out, id).byte(code);
    }
}

#[cfg(test)]
mod tests;

//! The client's half of a neo connection without I/O: which requests run, in what state each is, what to send.
//!
//! Knows when each request ends, so that a caller only sees its messages. Ends a GetAll or a Mirror properly (the
//! acknowledgements of protocol §2.4) and keeps to one change of state in flight (§2.7).

use overstory_swarm::neo::dht::{Control, Request};
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
    /// The value that a Get asked for; the request is over.
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
enum Shape {
    /// One byte.
    Single,
    Get,
    Channels,
    GetAll,
    Mirror,
    Update,
    HashRange,
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
}

impl<T> Core<T> {
    pub(crate) fn new() -> Self {
        Self { out: Vec::new(), table: Table::new(MAX_ACTIVE_REQUESTS) }
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
    pub(crate) fn begin(&mut self, request: &Request<'_>, tag: T) -> Option<u64> {
        let (shape, suspended) = match request {
            Request::Put { .. } | Request::Exists { .. } | Request::Remove { .. } | Request::RemoveChannel { .. } => {
                (Shape::Single, false)
            }
            Request::Get { .. } => (Shape::Get, false),
            Request::GetChannels => (Shape::Channels, false),
            Request::GetAll(all) => (Shape::GetAll, all.start_suspended),
            Request::Mirror { start_suspended, .. } => (Shape::Mirror, *start_suspended),
            Request::Update { .. } => (Shape::Update, false),
            Request::GetHashRange => (Shape::HashRange, false),
        };
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
        self.change(id, |flow| flow.held = held);
    }

    /// Says that the caller can take more, or not for now.
    pub(crate) fn full(&mut self, id: u64, full: bool) {
        self.change(id, |flow| flow.full = full);
    }

    /// Ends a GetAll or a Mirror; [`Event::Stopped`] tells when, unless it ends by itself before.
    pub(crate) fn stop(&mut self, id: u64) {
        self.change(id, |flow| flow.stop = true);
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Flow)) {
        if let Some(entry) = self.table.get_mut(id)
            && matches!(entry.shape, Shape::GetAll | Shape::Mirror)
        {
            change(&mut entry.flow);
            pump(&mut entry.flow, id, &mut self.out);
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
        } else if full && !entry.flow.full {
            entry.flow.full = true;
            pump(&mut entry.flow, id, &mut self.out);
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
        (Shape::GetAll | Shape::Mirror, STARTED) if !flow.started => {
            flow.started = true;
            pump(flow, id, out);
            Event::Item(payload)
        }
        (Shape::GetAll | Shape::Mirror, ACK) => match flow.pending.take() {
            Some(Control::Stop) => Event::Stopped,
            Some(control) => {
                flow.suspended = control == Control::Suspend;
                pump(flow, id, out);
                return Ok(None);
            }
            None => return Err(Violation::Message(entry.name)),
        },
        (Shape::GetAll | Shape::Mirror, ERROR) => Event::Last(payload),
        // All records, or the channel is gone: the node waits for the acknowledgement.
        (Shape::GetAll, 8) | (Shape::Mirror, 10) if flow.started => {
            Replies::new(out, id).byte(ACK);
            Event::Last(payload)
        }
        (Shape::GetAll, 7) | (Shape::Mirror, 7..=9 | 11) if flow.started => Event::Item(payload),
        _ => return Err(Violation::Message(entry.name)),
    }))
}

fn pump(flow: &mut Flow, id: u64, out: &mut Vec<u8>) {
    if let Some(control) = flow.next() {
        Replies::new(out, id).byte(control.code());
    }
}

#[cfg(test)]
mod tests;

//! Legacy requests that go on: Consume sends, Produce and ProduceMulti take.

use std::rc::Rc;

use overstory_node::engine::{LegacySink, LegacyStream, Produced, SinkStep};
use overstory_node::wake::Waker;
use overstory_swarm::legacy::Need;
use overstory_swarm::legacy::reply;
use overstory_swarm::wire::put_end;

use super::consume::Place;
use super::core::{Core, Sunk};
use crate::disk::QueueId;

/// A stream hands over about so much at a time.
const TURN: usize = 64 << 10;

/// Consume: records as they come, until the channel is removed.
pub(super) struct Consume {
    place: Place,
}

impl Consume {
    pub(super) fn new(core: &Rc<Core>, queue: QueueId, waker: &Waker) -> Self {
        Self { place: Place::new(core, queue, waker) }
    }
}

impl LegacyStream for Consume {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        if self.place.removed() {
            put_end(out);
            return Produced::Done;
        }
        let end = out.len().saturating_add(TURN);
        while let Some(left) = end.checked_sub(out.len()).filter(|left| *left > 0) {
            // This protocol has no word for "taken over": what is sent is consumed.
            match self.place.take(left, out) {
                Some(taken) => self.place.accept(taken),
                None => return Produced::Idle,
            }
        }
        Produced::More
    }
}

/// Produce and ProduceMulti: values until an empty one.
pub(super) struct Produce {
    core: Rc<Core>,
    channels: Box<[Box<str>]>,
    waker: Waker,
}

impl Produce {
    pub(super) fn new(core: &Rc<Core>, channels: &[&str], waker: &Waker) -> Self {
        let channels = channels.iter().map(|name| Box::from(*name)).collect();
        Self { core: Rc::clone(core), channels, waker: waker.clone() }
    }
}

impl LegacySink for Produce {
    fn take(&mut self, input: &[u8], _: &mut Vec<u8>) -> SinkStep {
        let channels: Vec<&str> = self.channels.iter().map(AsRef::as_ref).collect();
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let (value, length) = match reply::item(rest, &self.core.limits) {
                Ok(Need::More(need)) => return SinkStep::More { consumed, need },
                Ok(Need::Done { value: None, consumed: length }) => {
                    return SinkStep::Done { consumed: consumed.saturating_add(length) };
                }
                Ok(Need::Done { value: Some(value), consumed: length }) => (value, length),
                Err(error) => return SinkStep::Close { reason: error.reason() },
            };
            match self.core.sink(&channels, value, &self.waker) {
                Sunk::Pushed => {}
                Sunk::Blocked => return SinkStep::Blocked { consumed },
                // Nothing answers the values of a Produce: only the end of the connection tells that this one is lost.
                Sunk::Never => return SinkStep::Close { reason: "a record of a Produce is larger than its queue" },
                Sunk::Failed => return SinkStep::Close { reason: "the records of a Produce cannot be written" },
            }
            consumed = consumed.saturating_add(length);
        }
    }
}

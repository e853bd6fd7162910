//! Who is told when the hash range changes (neo GetHashRange).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::rc::Rc;

use overstory_node::engine::{Flow, NeoStream, Produced, Violation};
use overstory_node::wake::Waker;
use overstory_swarm::key::HashRange;
use overstory_swarm::neo::Replies;

/// Events that wait for one client at most. A client that reads nothing through this many is told the newest range only.
const MAX_EVENTS: usize = 4096;

/// First byte of the messages that follow the range.
mod event {
    pub(super) const NEW_NODE: u8 = 1;
    pub(super) const CHANGE_HASH_RANGE: u8 = 2;
}

/// What clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RangeEvent {
    /// This node has another range.
    Change(HashRange),
    /// Another node has this range; the address is that of its neo port.
    NewNode(SocketAddrV4, HashRange),
}

impl RangeEvent {
    /// Writes the message.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let range = match self {
            Self::Change(range) => {
                out.push(event::CHANGE_HASH_RANGE);
                range
            }
            Self::NewNode(address, range) => {
                out.push(event::NEW_NODE);
                out.extend_from_slice(&address.ip().octets());
                out.extend_from_slice(&address.port().to_be_bytes());
                range
            }
        };
        out.extend_from_slice(&range.min().to_le_bytes());
        out.extend_from_slice(&range.max().to_le_bytes());
    }
}

struct RangeQueue {
    events: RefCell<VecDeque<RangeEvent>>,
    waker: Waker,
}

/// The clients that are told.
#[derive(Default)]
pub(super) struct RangeWatchers {
    queues: RefCell<Vec<Rc<RangeQueue>>>,
}

impl RangeWatchers {
    /// Tells everybody.
    pub(super) fn tell(&self, events: &[RangeEvent]) {
        for queue in self.queues.borrow().iter() {
            let mut waiting = queue.events.borrow_mut();
            if waiting.len() + events.len() > MAX_EVENTS {
                waiting.clear();
            }
            waiting.extend(events);
            drop(waiting);
            queue.waker.wake();
        }
    }

    /// Begins a GetHashRange, whose first message is on its way.
    pub(super) fn watch(self: &Rc<Self>, waker: &Waker) -> RangeStream {
        let queue = Rc::new(RangeQueue { events: RefCell::default(), waker: waker.clone() });
        self.queues.borrow_mut().push(Rc::clone(&queue));
        RangeStream { queue, watchers: Rc::clone(self) }
    }
}

/// A GetHashRange that goes on for as long as its connection.
pub(super) struct RangeStream {
    queue: Rc<RangeQueue>,
    watchers: Rc<RangeWatchers>,
}

impl NeoStream for RangeStream {
    fn message(&mut self, _: &[u8], _: &mut Replies<'_>) -> Result<Flow, Violation> {
        // The published node ends the request, says nothing and keeps the connection (protocol §10.1.6).
        Ok(Flow::Done)
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        while let Some(event) = self.queue.events.borrow_mut().pop_front() {
            out.message(|out| event.encode(out));
        }
        Produced::Idle
    }
}

impl Drop for RangeStream {
    fn drop(&mut self) {
        self.watchers.queues.borrow_mut().retain(|queue| !Rc::ptr_eq(queue, &self.queue));
    }
}

//! The requests of a connection that go on, and the turns they take.
//!
//! # Late messages
//!
//! A client may send a message for a request that the node has just ended: the two crossed (protocol §2.2). Taken for
//! a new request such a message would be a protocol error, and all requests of the connection would go with it. So ids
//! that ended within the last second are remembered, [`REMEMBERED`] at most, and messages for them are dropped.
//!
//! The published node closes the connection for a second Ack after GetAll (`dht-neo-getall-late-control`). That is
//! the defect which §2.2 recommends to avoid, so here the connection stays; what the recording shows before it, that
//! a control between Finished and the first Ack is ignored, is the stream's own affair, since it is not over before
//! that Ack. A one-byte message for an id that never was is dropped for the same reason: it cannot be told from one
//! that came later than a second.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use overstory_swarm::neo::Replies;
use slab::Slab;

use crate::engine::{Flow, NeoStream, Produced};
use crate::server::connection::{Closed, Step};
use crate::stats::NodeStats;
use crate::wake::Board;

/// How long an id is remembered.
const MEMORY: Duration = Duration::from_secs(1);

/// How many ids are remembered.
const REMEMBERED: usize = 1024;

/// The requests that go on.
pub(super) struct Streams {
    entries: Slab<Entry>,
    by_id: HashMap<u64, usize>,
    /// Who may produce, in turn.
    ring: VecDeque<usize>,
    ended: Ended,
    stats: Rc<NodeStats>,
    board: Rc<Board>,
}

struct Entry {
    id: u64,
    /// Index of its counters.
    index: usize,
    stream: Box<dyn NeoStream>,
    /// When it began, if that is counted.
    began: Option<Instant>,
    /// It is in the ring.
    queued: bool,
}

impl Streams {
    pub(super) fn new(stats: Rc<NodeStats>, board: Rc<Board>) -> Self {
        let (entries, by_id, ring, ended) = (Slab::new(), HashMap::new(), VecDeque::new(), Ended::default());
        Self { entries, by_id, ring, ended, stats, board }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry that the next stream will have.
    #[inline]
    pub(super) fn next_slot(&self) -> usize {
        self.entries.vacant_key()
    }

    pub(super) fn find(&self, id: u64) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Whether a request with this id ended a moment ago.
    #[inline]
    pub(super) fn ended_lately(&mut self, id: u64) -> bool {
        !self.ended.order.is_empty() && self.ended.contains(id, Instant::now())
    }

    /// Takes over a request that goes on, in the entry that [`Self::next_slot`] named.
    pub(super) fn begin(&mut self, id: u64, index: usize, stream: Box<dyn NeoStream>, began: Option<Instant>) {
        if let Some(counters) = self.stats.neo.get(index) {
            counters.begin();
        }
        let slot = self.entries.insert(Entry { id, index, stream, began, queued: true });
        self.by_id.insert(id, slot);
        self.ring.push_back(slot);
    }

    /// Gives a message of the client to a stream.
    pub(super) fn message(&mut self, slot: usize, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Closed> {
        let Some(entry) = self.entries.get_mut(slot) else { return Ok(()) };
        match entry.stream.message(payload, &mut Replies::new(out, entry.id)).map_err(Closed::violation)? {
            Flow::Continue => self.queue(slot),
            Flow::Done => self.end(slot),
        }
        Ok(())
    }

    /// Lets the next stream in turn append to `out`.
    pub(super) fn produce(&mut self, out: &mut Vec<u8>) -> Step {
        if self.board.any() {
            let board = Rc::clone(&self.board);
            board.drain(|slot| self.queue(slot));
        }
        while let Some(slot) = self.ring.pop_front() {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            entry.queued = false;
            let made = out.len();
            match entry.stream.produce(&mut Replies::new(out, entry.id)) {
                Produced::More => {
                    self.queue(slot);
                    return Step::Part;
                }
                Produced::Idle if out.len() == made => continue,
                Produced::Idle => {}
                Produced::Done => self.end(slot),
                Produced::Failed => return Step::Failed,
            }
            return Step::Some;
        }
        Step::Nothing
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        for entry in std::mem::take(&mut self.entries) {
            self.count(&entry.1);
        }
        self.by_id.clear();
        self.ring.clear();
    }

    fn queue(&mut self, slot: usize) {
        if let Some(entry) = self.entries.get_mut(slot)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.ring.push_back(slot);
        }
    }

    fn end(&mut self, slot: usize) {
        if let Some(entry) = self.entries.try_remove(slot) {
            self.by_id.remove(&entry.id);
            self.ended.add(entry.id, Instant::now());
            self.count(&entry);
            if entry.queued {
                self.ring.retain(|queued| *queued != slot);
            }
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries.shrink_to_fit();
            self.by_id = HashMap::new();
            self.ring = VecDeque::new();
        }
    }

    fn count(&self, entry: &Entry) {
        if let Some(counters) = self.stats.neo.get(entry.index) {
            counters.end(entry.began.map_or(Duration::ZERO, |began| began.elapsed()));
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The ids that ended a moment ago.
#[derive(Debug, Default)]
struct Ended {
    order: VecDeque<(Instant, u64)>,
    ids: HashSet<u64>,
}

impl Ended {
    fn add(&mut self, id: u64, now: Instant) {
        self.forget(now, REMEMBERED - 1);
        if self.ids.insert(id) {
            self.order.push_back((now, id));
        }
    }

    fn contains(&mut self, id: u64, now: Instant) -> bool {
        self.forget(now, REMEMBERED);
        self.ids.contains(&id)
    }

    fn forget(&mut self, now: Instant, keep: usize) {
        while let Some((at, id)) = self.order.front().copied()
            && (now.saturating_duration_since(at) > MEMORY || self.order.len() > keep)
        {
            self.order.pop_front();
            self.ids.remove(&id);
        }
        if self.order.is_empty() && self.order.capacity() > 64 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_remembered_for_a_second_and_not_without_bound() {
        let (mut ended, start) = (Ended::default(), Instant::now());
        ended.add(7, start);
        assert!(ended.contains(7, start + MEMORY));
        assert!(!ended.contains(8, start));
        assert!(!ended.contains(7, start + MEMORY + Duration::from_millis(1)));
        for id in 0..5000 {
            ended.add(id, start);
        }
        assert_eq!(ended.ids.len(), REMEMBERED);
        assert_eq!(ended.order.len(), REMEMBERED);
        assert!(ended.contains(4999, start) && !ended.contains(0, start));
    }
}

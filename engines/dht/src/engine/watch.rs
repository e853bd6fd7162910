//! Who is told of the changes of a channel: queues of keys, bounded, one per Listen or Mirror.
//!
//! A change queues its key only; the value is read when the change is sent, so that a queue costs the same whatever
//! is stored, and a client that lags gets the newest value. Nothing is coalesced: a key that changed twice is queued
//! twice, as the published node does (a recorded conversation shows it).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use overstory_node::wake::Waker;
use overstory_swarm::key::Key;

/// Changes that wait for a Listen at most (protocol §3.1); further ones are discarded with a warning.
pub const LISTEN_QUEUE: usize = 32_768;

/// Changes that wait for a Mirror at most (protocol §2.4); further ones are told as one `UpdateOverflow`.
pub const MIRROR_QUEUE: usize = 262_144;

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It was put or updated.
    Put(Key),
    /// It was removed.
    Removed(Key),
}

/// What a queue has for its client next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A change.
    Change(Change),
    /// Changes were lost at this place.
    Overflow,
}

/// The changes that one client waits for.
#[derive(Debug)]
pub(super) struct Queue {
    changes: RefCell<VecDeque<Change>>,
    /// Changes that were queued ever: the place behind the last one.
    queued: Cell<u64>,
    /// Changes that were taken ever.
    taken: Cell<u64>,
    /// The place behind which changes were lost first, and have not been told of yet.
    lost_at: Cell<Option<u64>>,
    /// The place of the last loss after that one.
    lost_again_at: Cell<Option<u64>>,
    limit: usize,
    deletions: bool,
    ended: Cell<bool>,
    waker: Waker,
}

impl Queue {
    fn new(limit: usize, deletions: bool, waker: Waker) -> Self {
        Self {
            changes: RefCell::default(),
            queued: Cell::new(0),
            taken: Cell::new(0),
            lost_at: Cell::new(None),
            lost_again_at: Cell::new(None),
            limit,
            deletions,
            ended: Cell::new(false),
            waker,
        }
    }

    /// Whether the channel was removed: what was queued is void.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Takes the next change, or the notice that some were lost, at the place where they were lost.
    pub(super) fn next(&self) -> Option<Next> {
        if self.lost_at.get() == Some(self.taken.get()) {
            self.lost_at.set(self.lost_again_at.take());
            return Some(Next::Overflow);
        }
        let change = self.changes.borrow_mut().pop_front()?;
        self.taken.set(self.taken.get() + 1);
        Some(Next::Change(change))
    }

    /// Queues a change; false if it was lost.
    fn push(&self, change: Change) -> bool {
        if matches!(change, Change::Removed(_)) && !self.deletions {
            return true;
        }
        let mut changes = self.changes.borrow_mut();
        let fits = changes.len() < self.limit;
        if fits {
            changes.push_back(change);
            self.queued.set(self.queued.get() + 1);
        } else {
            // Two places are enough: that of the first loss, and that of the last one if the client went on meanwhile.
            let place = self.queued.get();
            match self.lost_at.get() {
                None => self.lost_at.set(Some(place)),
                Some(first) if first != place => self.lost_again_at.set(Some(place)),
                Some(_) => {}
            }
        }
        drop(changes);
        self.waker.wake();
        fits
    }

    fn end(&self) {
        self.changes.take();
        self.lost_at.set(None);
        self.lost_again_at.set(None);
        self.ended.set(true);
        self.waker.wake();
    }
}

/// The queues of all channels.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    channels: RefCell<HashMap<Box<str>, Vec<Rc<Queue>>>>,
    /// Queues in all, so that a put costs nothing while nobody watches.
    count: Cell<usize>,
}

impl Watchers {
    /// Begins to watch a channel, existing or not.
    pub(super) fn watch(self: &Rc<Self>, channel: &str, limit: usize, deletions: bool, waker: &Waker) -> Watch {
        let queue = Rc::new(Queue::new(limit, deletions, waker.clone()));
        self.channels.borrow_mut().entry(channel.into()).or_default().push(Rc::clone(&queue));
        self.count.set(self.count.get() + 1);
        Watch { queue, channel: channel.into(), watchers: Rc::clone(self) }
    }

    /// Queues keys of a listener (legacy Listen).
    pub(super) fn listen(self: &Rc<Self>, channel: &str, waker: &Waker) -> Watch {
        self.watch(channel, LISTEN_QUEUE, false, waker)
    }

    /// Queues changes of a mirror (neo Mirror).
    pub(super) fn mirror(self: &Rc<Self>, channel: &str, waker: &Waker) -> Watch {
        self.watch(channel, MIRROR_QUEUE, true, waker)
    }

    /// Tells everybody who watches the channel. Returns how many queues were full.
    #[inline]
    pub(super) fn tell(&self, channel: &str, change: Change) -> usize {
        if self.count.get() == 0 { 0 } else { self.tell_all(channel, change) }
    }

    #[cold]
    fn tell_all(&self, channel: &str, change: Change) -> usize {
        let channels = self.channels.borrow();
        let Some(queues) = channels.get(channel) else { return 0 };
        queues.iter().filter(|queue| !queue.push(change)).count()
    }

    /// Tells everybody who watches the channel that it was removed, and forgets them.
    pub(super) fn end(&self, channel: &str) {
        let Some(queues) = self.channels.borrow_mut().remove(channel) else { return };
        self.count.set(self.count.get().saturating_sub(queues.len()));
        queues.iter().for_each(|queue| queue.end());
    }

    fn forget(&self, channel: &str, queue: &Rc<Queue>) {
        let mut channels = self.channels.borrow_mut();
        let Some(queues) = channels.get_mut(channel) else { return };
        let before = queues.len();
        queues.retain(|other| !Rc::ptr_eq(other, queue));
        self.count.set(self.count.get().saturating_sub(before - queues.len()));
        if queues.is_empty() {
            channels.remove(channel);
        }
    }
}

/// One client's view of a channel's changes; dropping it ends it.
#[derive(Debug)]
pub(super) struct Watch {
    queue: Rc<Queue>,
    channel: Box<str>,
    watchers: Rc<Watchers>,
}

impl Watch {
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.forget(&self.channel, &self.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(watch: &Watch) -> Vec<Next> {
        std::iter::from_fn(|| watch.queue().next()).collect()
    }

    fn put(key: u64) -> Next {
        Next::Change(Change::Put(Key(key)))
    }

    #[test]
    fn changes_come_in_order_and_are_not_coalesced() {
        let watchers = Rc::new(Watchers::default());
        let mirror = watchers.mirror("a", &Waker::noop());
        let listener = watchers.listen("a", &Waker::noop());
        for change in [Change::Put(Key(1)), Change::Put(Key(1)), Change::Removed(Key(1))] {
            watchers.tell("a", change);
        }
        watchers.tell("b", Change::Put(Key(9)));
        assert_eq!(drain(&mirror), [put(1), put(1), Next::Change(Change::Removed(Key(1)))]);
        assert_eq!(drain(&listener), [put(1), put(1)]);
        assert_eq!(mirror.queue().next(), None);
    }

    #[test]
    fn a_loss_is_told_once_and_where_it_happened() {
        let watchers = Rc::new(Watchers::default());
        let watch = watchers.watch("a", 2, true, &Waker::noop());
        for key in 0..5 {
            watchers.tell("a", Change::Put(Key(key)));
        }
        assert_eq!(drain(&watch), [put(0), put(1), Next::Overflow]);
        watchers.tell("a", Change::Put(Key(7)));
        assert_eq!(drain(&watch), [put(7)]);
    }

    #[test]
    fn a_second_loss_is_told_after_what_was_queued_before_it() {
        let watchers = Rc::new(Watchers::default());
        let watch = watchers.watch("a", 2, true, &Waker::noop());
        for key in 0..3 {
            watchers.tell("a", Change::Put(Key(key)));
        }
        assert_eq!(watch.queue().next(), Some(put(0)));
        for key in 3..6 {
            watchers.tell("a", Change::Put(Key(key)));
        }
        assert_eq!(drain(&watch), [put(1), Next::Overflow, put(3), Next::Overflow]);
    }

    #[test]
    fn a_removed_channel_ends_its_watches_and_only_those() {
        let watchers = Rc::new(Watchers::default());
        let (ended, other) = (watchers.mirror("a", &Waker::noop()), watchers.mirror("b", &Waker::noop()));
        watchers.tell("a", Change::Put(Key(1)));
        watchers.end("a");
        assert!(ended.queue().ended() && !other.queue().ended());
        assert_eq!(drain(&ended), []);
        drop(ended);
        watchers.tell("b", Change::Put(Key(1)));
        assert_eq!(drain(&other), [put(1)]);
        drop(other);
        assert_eq!((watchers.count.get(), watchers.channels.borrow().len()), (0, 0));
    }
}

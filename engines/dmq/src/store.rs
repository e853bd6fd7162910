//! The queues of a node: channels, subscribers, consumers, what is in memory and what is on disk (protocol §3.2).
//!
//! A channel has one queue while nobody has subscribed to it, and one for each subscriber from then on: the first one takes
//! the queue over with its records. How a queue keeps its order over memory and disk is told in `queue.rs`.
//!
//! At the start: [`Store::new`], [`Store::recover`], then [`crate::load::load`]. At the end, once consumers have given back
//! what they had: [`crate::dump::dump`].

mod look;
pub mod names;
mod queue;
mod setup;
mod taking;
#[cfg(test)]
mod tests;
mod totals;
mod turns;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use slab::Slab;

use overstory_node::wake::Waker;

use crate::disk::{Disk, DiskError, QueueId};
pub(crate) use queue::Unsaved;
use queue::{Place, Queue};
pub use totals::{ChannelTotals, QueueTotals};

/// How much of a queue may be in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes, where no prefix says otherwise.
    pub default: u64,
    /// Bytes for the channels whose name begins with this; at most one matches.
    pub by_prefix: Vec<(String, u64)>,
}

impl Sizes {
    /// The size of each queue of a channel, in bytes.
    #[must_use]
    pub fn of(&self, channel: &str) -> u64 {
        let of_prefix = self.by_prefix.iter().find(|(prefix, _)| channel.starts_with(prefix.as_str()));
        of_prefix.map_or(self.default, |(_, size)| *size)
    }
}

/// How queues behave.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Their sizes.
    pub sizes: Sizes,
    /// Whether what was taken comes back until it is accepted.
    pub redeliver: bool,
}

/// A consumer of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConsumerId(u32);

impl ConsumerId {
    const fn key(self) -> usize {
        self.0 as usize
    }
}

/// Records that were taken together, in the order of the queue.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what was taken is accepted or given back"]
pub struct Taken {
    /// Whose.
    pub queue: QueueId,
    /// The number of the first one in the queue.
    pub from: u64,
    /// The number behind the last one.
    pub to: u64,
    /// Their bytes, without lengths.
    pub bytes: u64,
}

/// What a pop did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Popped {
    /// A record was taken.
    Taken,
    /// There is none.
    Empty,
    /// The channel has subscribers.
    Subscribed,
    /// There is no such channel.
    Missing,
}

/// Why a record was not pushed: no queue got it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A queue is full; [`Store::when_room`] tells when it is not any more.
    #[error("queue {queue} is full")]
    Full {
        /// The first such queue.
        queue: QueueId,
    },
    /// The record is larger than a queue may be.
    #[error("the record is larger than the queue")]
    TooLarge,
    /// The disk is full or fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why records that are brought back were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// No queue can have the name.
    #[error("not the name of a queue")]
    BadName,
    /// The disk is full or fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// All queues of a node; for one thread.
///
/// Names of channels and subscribers were checked by the caller ([`names`]).
pub struct Store {
    options: Options,
    disk: Option<Box<dyn Disk>>,
    channels: HashMap<Rc<str>, Channel>,
    /// The names of the channels in their order.
    names: BTreeSet<Rc<str>>,
    queues: Slab<Queue>,
    /// Where a queue is in `queues`.
    ids: HashMap<QueueId, usize, BuildHasherDefault<IdHasher>>,
    next_id: QueueId,
    /// What the disk said where no result could carry it.
    problem: Option<DiskError>,
}

/// A channel has at least one queue.
struct Channel {
    subscribed: bool,
    /// Places in `Store::queues`, in the order in which they were made.
    queues: Vec<usize>,
}

impl Store {
    /// Without queues. `disk` stands behind them, or nothing.
    #[must_use]
    pub fn new(options: Options, disk: Option<Box<dyn Disk>>) -> Self {
        Self {
            options,
            disk,
            channels: HashMap::new(),
            names: BTreeSet::new(),
            queues: Slab::new(),
            ids: HashMap::default(),
            next_id: 1,
            problem: None,
        }
    }

    /// Appends a record to all queues of a channel, which is made if it is not there; wakes a consumer of each. Returns in
    /// how many queues it is.
    ///
    /// # Errors
    /// See [`PushError`]: no queue has got the record then, unless a disk fails in the middle of it.
    pub fn push(&mut self, channel: &str, record: &[u8]) -> Result<u64, PushError> {
        if let Some(Channel { queues, .. }) = self.channels.get(channel)
            && let &[key] = queues.as_slice()
            && let Some(queue) = self.queues.get_mut(key)
        {
            let place = queue.place(record, self.disk.is_some())?;
            if let Some(disk) = self.disk.as_deref_mut()
                && (place == Place::Disk || disk.keeps_all())
            {
                disk.reserve(1, record.len() as u64)?;
            }
            queue.push(record, place, self.disk.as_deref_mut())?;
            return Ok(1);
        }
        self.push_all(&[channel], record)
    }

    /// Appends a record to all queues of several channels: in all of them or in none. A channel that comes twice gets
    /// the record twice. Returns how many queues got it.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn push_all(&mut self, channels: &[&str], record: &[u8]) -> Result<u64, PushError> {
        let mut made = Vec::new();
        let result = self.push_planned(channels, record, &mut made);
        if result.is_err() {
            for channel in made {
                self.remove_channel(channel);
            }
        }
        result
    }

    fn push_planned<'a>(
        &mut self,
        channels: &[&'a str],
        record: &[u8],
        made: &mut Vec<&'a str>,
    ) -> Result<u64, PushError> {
        let mut keys = Vec::with_capacity(channels.len());
        for channel in channels {
            if !self.channels.contains_key(*channel) {
                self.create_channel(channel)?;
                made.push(channel);
            }
            keys.extend(self.channels.get(*channel).into_iter().flat_map(|channel| &channel.queues));
        }
        let places = self.plan(&keys, record)?;
        if let Some(disk) = self.disk.as_deref_mut() {
            let on_disk = |place: &&Place| **place == Place::Disk || disk.keeps_all();
            let records = places.iter().filter(on_disk).count();
            if records > 0 {
                disk.reserve(records, record.len() as u64 * records as u64)?;
            }
        }
        let count = keys.len() as u64;
        for (key, place) in keys.into_iter().zip(places) {
            if let Some(queue) = self.queues.get_mut(key) {
                queue.push(record, place, self.disk.as_deref_mut())?;
            }
        }
        Ok(count)
    }

    /// Where a record goes in each of these queues, one of which may come twice.
    fn plan(&mut self, keys: &[usize], record: &[u8]) -> Result<Vec<Place>, PushError> {
        let disk = self.disk.is_some();
        let mut planned = Ok(Vec::with_capacity(keys.len()));
        for &key in keys {
            let (Ok(places), Some(queue)) = (&mut planned, self.queues.get_mut(key)) else { break };
            match queue.plan(record, disk) {
                Ok(place) => places.push(place),
                Err(error) => planned = Err(error),
            }
        }
        for &key in keys {
            if let Some(queue) = self.queues.get_mut(key) {
                queue.forget_plan();
            }
        }
        planned
    }

    /// Whether what was taken comes back until it is accepted.
    #[must_use]
    pub fn redelivers(&self) -> bool {
        self.options.redeliver
    }

    /// Makes a channel without subscribers, if it is not there.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn create_channel(&mut self, channel: &str) -> Result<(), DiskError> {
        if !self.channels.contains_key(channel) {
            self.make_queue(channel, channel, false)?;
        }
        Ok(())
    }

    /// Makes a subscriber of a channel and the channel, if they are not there; the first one takes over the records of
    /// the channel. Returns its queue.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn subscribe(&mut self, channel: &str, subscriber: &str) -> Result<QueueId, DiskError> {
        let key = self.subscriber(channel, subscriber)?;
        Ok(self.queues.get(key).map_or(0, |queue| queue.id))
    }

    /// [`Self::subscribe`], returning the place of the queue.
    fn subscriber(&mut self, channel: &str, subscriber: &str) -> Result<usize, DiskError> {
        let name = names::of_subscriber(subscriber, channel);
        let Some(known) = self.channels.get_mut(channel) else { return self.make_queue(channel, &name, true) };
        if known.subscribed {
            let of_name = |key: &&usize| self.queues.get(**key).is_some_and(|queue| *queue.name == name);
            return match known.queues.iter().find(of_name) {
                Some(&key) => Ok(key),
                None => self.make_queue(channel, &name, true),
            };
        }
        let key = known.queues.first().copied().unwrap_or_default();
        if let Some(queue) = self.queues.get_mut(key) {
            if let Some(disk) = self.disk.as_deref_mut() {
                disk.rename(queue.id, &name)?;
            }
            queue.name = name.into();
        }
        known.subscribed = true;
        Ok(key)
    }

    /// Makes a queue; nothing is made if the disk fails.
    fn make_queue(&mut self, channel: &str, name: &str, subscribed: bool) -> Result<usize, DiskError> {
        let id = self.free_id();
        if let Some(disk) = self.disk.as_deref_mut() {
            disk.create(id, name)?;
        }
        let queue = Queue::new(id, name, self.options.sizes.of(channel));
        Ok(self.insert(channel, queue, subscribed))
    }

    fn insert(&mut self, channel: &str, queue: Queue, subscribed: bool) -> usize {
        let id = queue.id;
        let key = self.queues.insert(queue);
        self.ids.insert(id, key);
        if let Some(known) = self.channels.get_mut(channel) {
            known.subscribed |= subscribed;
            known.queues.push(key);
        } else {
            let name: Rc<str> = channel.into();
            self.names.insert(Rc::clone(&name));
            self.channels.insert(name, Channel { subscribed, queues: vec![key] });
        }
        key
    }

    /// A number that no queue has.
    fn free_id(&mut self) -> QueueId {
        while self.next_id == 0 || self.ids.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// Removes a channel with its subscribers and records; false if it is not there. Its consumers and blocked producers
    /// are woken and find that [`Self::is_removed`].
    pub fn remove_channel(&mut self, channel: &str) -> bool {
        let Some(removed) = self.channels.remove(channel) else { return false };
        self.names.remove(channel);
        for key in removed.queues {
            let Some(mut queue) = self.queues.try_remove(key) else { continue };
            self.ids.remove(&queue.id);
            if let Some(Err(error)) = self.disk.as_deref_mut().map(|disk| disk.remove(queue.id)) {
                self.note(error);
            }
            queue.wake_everybody();
        }
        true
    }

    /// Whether a queue is gone.
    #[must_use]
    pub fn is_removed(&self, queue: QueueId) -> bool {
        !self.ids.contains_key(&queue)
    }

    /// Calls the waker once when records of this queue were taken, or the queue is gone, for a producer that found it full. It
    /// may be full again by then. Where many wait it takes an eighth of the queue to be free.
    pub fn when_room(&mut self, queue: QueueId, waker: Waker) {
        match self.queue_mut(queue) {
            Some(queue) => queue.when_room(waker),
            None => waker.wake(),
        }
    }

    /// Brings to the files what has to be there before replies are sent ([`Disk::settle`]).
    ///
    /// # Errors
    /// See [`DiskError`]; also what the disk said since the last call where no result could carry it: to reads and
    /// releases of [`Self::pop`] and [`Self::take`], and to removals. Their replies are not to be sent.
    pub fn settle(&mut self) -> Result<(), DiskError> {
        let Some(disk) = self.disk.as_deref_mut() else { return Ok(()) };
        let settled = disk.settle();
        self.problem.take().map_or(settled, Err)
    }

    /// Keeps what the disk said for [`Self::settle`].
    fn note(&mut self, error: DiskError) {
        tracing::debug!(%error, "the disk behind the queues failed");
        self.problem.get_or_insert(error);
    }

    #[inline]
    fn queue_mut(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.queues.get_mut(*self.ids.get(&id)?)
    }
}

/// Spreads the numbers of queues, which are counted and not chosen by clients.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

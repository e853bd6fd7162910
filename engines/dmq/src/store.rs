//! The queues of a node: channels, subscribers, consumers, what is in memory and what is on disk (protocol §3.2).

pub mod names;
mod totals;

use std::ops::ControlFlow;
use std::time::Instant;

use overstory_node::inspect::Finding;
use overstory_node::wake::Waker;

use crate::disk::{Disk, DiskError, QueueId, RecoveredQueue};
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

/// All queues of a node; for one thread.
pub struct Store {
    options: Options,
    disk: Option<Box<dyn Disk>>,
}

#[expect(unused_variables, reason = "signatures first")]
#[expect(missing_docs, reason = "signatures first")]
#[expect(clippy::missing_errors_doc, clippy::must_use_candidate, reason = "signatures first")]
impl Store {
    pub fn new(options: Options, disk: Option<Box<dyn Disk>>) -> Self {
        Self { options, disk }
    }
    /// Whether what was taken comes back until it is accepted.
    pub fn redelivers(&self) -> bool {
        self.options.redeliver
    }
    /// Appends records of a `.rq` file (u64 length and bytes each) to a queue; before `recover`, unless the disk keeps all.
    pub fn load(&mut self, name: &str, records: &[u8]) -> Result<(), DiskError> {
        unimplemented!()
    }
    pub fn recover(&mut self, queues: Vec<RecoveredQueue>) -> Result<(), DiskError> {
        unimplemented!()
    }
    pub fn import(&mut self, name: &str, record: &[u8]) -> Result<(), DiskError> {
        unimplemented!()
    }
    pub fn push(&mut self, channel: &str, record: &[u8]) -> Result<u64, PushError> {
        unimplemented!()
    }
    pub fn push_all(&mut self, channels: &[&str], record: &[u8]) -> Result<u64, PushError> {
        unimplemented!()
    }
    pub fn pop(&mut self, channel: &str, take: &mut dyn FnMut(&[u8])) -> Popped {
        unimplemented!()
    }
    /// Creates the channel and the subscriber's queue where they are not there. Both names were checked.
    pub fn subscribe(&mut self, channel: &str, subscriber: &str) -> Result<QueueId, DiskError> {
        unimplemented!()
    }
    pub fn join(&mut self, queue: QueueId, waker: Waker) -> ConsumerId {
        unimplemented!()
    }
    /// Says that the consumer found nothing: it is woken in its turn.
    pub fn wait(&mut self, queue: QueueId, consumer: ConsumerId) {
        unimplemented!()
    }
    pub fn leave(&mut self, queue: QueueId, consumer: ConsumerId) {
        unimplemented!()
    }
    pub fn take(&mut self, queue: QueueId, consumer: ConsumerId, max_bytes: usize, out: &mut Vec<u8>) -> Option<Taken> {
        unimplemented!()
    }
    pub fn accept(&mut self, taken: Taken) {
        unimplemented!()
    }
    pub fn give_back(&mut self, taken: Taken, records: &[u8]) {
        unimplemented!()
    }
    /// Wakes a producer, once, when records of this queue were taken.
    pub fn when_room(&mut self, queue: QueueId, waker: Waker) {
        unimplemented!()
    }
    /// Makes the channel where it is not there.
    pub fn create_channel(&mut self, channel: &str) -> Result<(), DiskError> {
        unimplemented!()
    }
    pub fn remove_channel(&mut self, channel: &str) -> bool {
        unimplemented!()
    }
    pub fn is_removed(&self, queue: QueueId) -> bool {
        unimplemented!()
    }
    /// Shows the channels behind `after` in name order.
    pub fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
        unimplemented!()
    }
    pub fn channel_count(&self) -> usize {
        unimplemented!()
    }
    pub fn channel_totals(&self, channel: &str) -> Option<ChannelTotals> {
        unimplemented!()
    }
    /// Shows the queues behind `after` (a queue's name), by channel and then by subscriber.
    pub fn queues(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, QueueTotals) -> ControlFlow<()>) {
        unimplemented!()
    }
    pub fn queue_name(&self, queue: QueueId) -> Option<&str> {
        unimplemented!()
    }
    pub fn totals(&self) -> QueueTotals {
        unimplemented!()
    }
    /// Bytes that the records and queues take in memory.
    pub fn memory(&self) -> u64 {
        unimplemented!()
    }
    /// Notes which queues had records taken since the last call, for `waiting_since`: about once a second.
    pub fn observe(&mut self, now: Instant) {
        unimplemented!()
    }
    /// Also gives back what went wrong with the disk since the last call where no result could say so (take, pop, remove).
    pub fn settle(&mut self) -> Result<(), DiskError> {
        unimplemented!()
    }
    pub fn disk_findings(&self, findings: &mut Vec<Finding>) {
        unimplemented!()
    }
    pub fn bytes_on_disk(&self) -> u64 {
        unimplemented!()
    }
}

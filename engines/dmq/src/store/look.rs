//! What the store tells of itself.

use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use overstory_node::inspect::Finding;

use super::names::QueueName;
use super::{Channel, ChannelTotals, QueueTotals, Store};
use crate::disk::QueueId;

impl Store {
    /// How many channels there are.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// What a channel holds; `None` if it is not there.
    #[must_use]
    pub fn channel_totals(&self, channel: &str) -> Option<ChannelTotals> {
        self.channels.get(channel).map(|channel| self.sum(channel))
    }

    fn sum(&self, channel: &Channel) -> ChannelTotals {
        let mut sum = ChannelTotals { subscribed: channel.subscribed, ..ChannelTotals::default() };
        for queue in channel.queues.iter().filter_map(|key| self.queues.get(*key)) {
            let totals = queue.totals();
            sum.records += totals.records_memory + totals.records_overflow;
            sum.bytes += totals.bytes_memory + totals.bytes_overflow;
            sum.queues += 1;
        }
        sum
    }

    /// Shows the channels behind `after` (all from the first when `None`) in the order of their names, until `visit`
    /// breaks.
    pub fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
        let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        for name in self.names.range::<str, _>(behind) {
            if let Some(channel) = self.channels.get(name)
                && visit(name, self.sum(channel)).is_break()
            {
                return;
            }
        }
    }

    /// Shows the queues behind the one named `after` (all from the first when `None`), by channel and then by
    /// subscriber, until `visit` breaks.
    pub fn queues(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, QueueTotals) -> ControlFlow<()>) {
        let after = after.and_then(QueueName::parse).map(|name| (name.channel, name.subscriber));
        let from = (after.map_or(Bound::Unbounded, |(channel, _)| Bound::Included(channel)), Bound::Unbounded);
        for name in self.names.range::<str, _>(from) {
            let Some(channel) = self.channels.get(name) else { continue };
            let mut queues: Vec<_> = channel.queues.iter().filter_map(|key| self.queues.get(*key)).collect();
            let key = |name| QueueName::parse(name).map(|name| (name.channel, name.subscriber));
            queues.sort_by(|one, other| key(&one.name).cmp(&key(&other.name)));
            for queue in queues.into_iter().filter(|queue| after.is_none() || key(&queue.name) > after) {
                if visit(&queue.name, queue.totals()).is_break() {
                    return;
                }
            }
        }
    }

    /// A queue's name; `None` if it is gone.
    #[must_use]
    pub fn queue_name(&self, queue: QueueId) -> Option<&str> {
        Some(&self.queues.get(*self.ids.get(&queue)?)?.name)
    }

    /// What a queue holds; `None` if it is gone.
    #[must_use]
    pub fn queue_totals(&self, queue: QueueId) -> Option<QueueTotals> {
        Some(self.queues.get(*self.ids.get(&queue)?)?.totals())
    }

    /// What all queues hold. Takes some nanoseconds for each.
    #[must_use]
    pub fn totals(&self) -> QueueTotals {
        let mut totals = QueueTotals::default();
        self.queues.iter().for_each(|(_, queue)| totals.add(&queue.totals()));
        totals
    }

    /// Bytes that records and queues take in memory. Takes some nanoseconds for each queue.
    #[must_use]
    pub fn memory(&self) -> u64 {
        // A channel: its name, shared, and its places in both maps and in the list of queues.
        let channels = self.names.iter().map(|name| name.len() as u64 + CHANNEL).sum::<u64>();
        let spare = (self.queues.capacity() - self.queues.len()) * size_of::<super::Queue>();
        channels + spare as u64 + self.queues.iter().map(|(_, queue)| queue.memory()).sum::<u64>()
    }

    /// Notes which queues had records taken since the last call, for [`QueueTotals::waiting_since`]: about once a second.
    /// Where records are left it wakes the next consumer, too: the one that was woken may not come for long, because its
    /// client does not read.
    pub fn observe(&mut self, now: Instant) {
        self.queues.iter_mut().for_each(|(_, queue)| queue.observe(now));
    }

    /// Adds what is wrong with the disk.
    pub fn disk_findings(&self, findings: &mut Vec<Finding>) {
        if let Some(disk) = &self.disk {
            disk.findings(findings);
        }
    }

    /// Bytes that the files of the disk take.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.bytes_on_disk())
    }
}

/// Bytes that a channel takes beside its name and its queues.
const CHANNEL: u64 = 200;

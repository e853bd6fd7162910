//! How much the queues hold.

use std::time::Instant;

/// What a channel holds, in all of its queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelTotals {
    /// Records, in memory and on disk.
    pub records: u64,
    /// Their bytes: 8 more each in memory, as published.
    pub bytes: u64,
    /// Its queues.
    pub queues: usize,
    /// Whether it has subscribers.
    pub subscribed: bool,
}

/// What a queue holds. A record counts in memory or on disk, never in both; those that were taken and not accepted yet
/// count nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// Records in memory.
    pub records_memory: u64,
    /// Their bytes, 8 more each: what counts against the limit.
    pub bytes_memory: u64,
    /// Records that are on disk only.
    pub records_overflow: u64,
    /// Their bytes.
    pub bytes_overflow: u64,
    /// Bytes that may be in memory.
    pub limit: u64,
    /// Consumers that have joined.
    pub consumers: usize,
    /// Since when records wait without any being taken; as exact as [`super::Store::observe`] is called.
    pub waiting_since: Option<Instant>,
}

impl QueueTotals {
    /// How full the memory is, in whole percent, rounded down; above 100 where more was loaded than the limit allows.
    #[must_use]
    pub fn percent(&self) -> u64 {
        self.bytes_memory.saturating_mul(100).checked_div(self.limit).unwrap_or(0)
    }

    /// Adds another queue's figures; its `waiting_since` counts if it is earlier.
    pub fn add(&mut self, other: &Self) {
        self.records_memory += other.records_memory;
        self.bytes_memory += other.bytes_memory;
        self.records_overflow += other.records_overflow;
        self.bytes_overflow += other.bytes_overflow;
        self.limit += other.limit;
        self.consumers += other.consumers;
        self.waiting_since = match (self.waiting_since, other.waiting_since) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

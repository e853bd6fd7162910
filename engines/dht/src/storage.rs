//! The records of a node: channels of key and value, in memory, for one thread.
//!
//! Records lie packed in [segments](segment) of 64 KiB, each with a sorted index, in the order of a fixed hash of
//! the keys. Memory is taken and given back page by page; no operation moves more than a few segments, whatever the
//! size of the store. Why so: `docs/adr/dht-storage.md`.

mod channel;
mod heap;
mod mix;
mod pages;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, ControlFlow, Range};

use overstory_swarm::key::Key;

pub use channel::Channel;
use channel::NoRoom;
use heap::Heap;
pub use pages::lock_memory;

/// Segments of a removed channel that are given back at once, and with one call of [`Store::tidy`].
const TIDY: usize = 64;
/// Segments that are given back with each put, while there are any.
const TIDY_WITH_PUT: usize = 1;

/// The channels and records of a node.
#[derive(Debug, Default)]
pub struct Store {
    channels: HashMap<Box<str>, Channel>,
    /// The names of the channels in their order.
    names: BTreeSet<Box<str>>,
    /// How much all channels hold.
    totals: Totals,
    heap: Heap,
    size_limit: u64,
    /// Removed channels whose memory is still to be given back.
    removed: Vec<Channel>,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes of keys (8 each) and values.
    pub bytes: u64,
}

/// Why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// There is no record behind the last one that was visited.
    End,
    /// The visitor broke off.
    Stopped,
}

/// The memory for records is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the records would take more than {limit} bytes of memory")]
pub struct Full {
    /// The limit in bytes.
    pub limit: u64,
}

/// A record for [`Store::put_many`].
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    hash: u64,
    at: usize,
    length: usize,
}

impl Entry {
    /// A record whose value is these bytes of those that come with the entries.
    #[must_use]
    #[inline]
    pub fn new(key: Key, value: Range<usize>) -> Self {
        Self { hash: mix::hash(key), at: value.start, length: value.len() }
    }

    /// What grows in the order of a scan.
    #[must_use]
    #[inline]
    pub fn order(&self) -> u64 {
        self.hash
    }

    /// Copies the value to the end of other bytes, in which it lies from now on.
    pub fn copy(&mut self, from: &[u8], to: &mut Vec<u8>) {
        let at = to.len();
        to.extend_from_slice(self.value(from));
        self.at = at;
    }

    /// Its value.
    #[must_use]
    #[inline]
    pub fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at..self.at + self.length]
    }
}

impl Store {
    /// Makes an empty store; `size_limit` is in bytes of [`Store::memory`], 0 for none.
    #[must_use]
    pub fn new(size_limit: u64) -> Self {
        Self { size_limit, ..Self::default() }
    }

    /// The value of a key.
    #[must_use]
    #[inline]
    pub fn get(&self, channel: &str, key: Key) -> Option<&[u8]> {
        self.channels.get(channel)?.get(&self.heap, mix::hash(key))
    }

    /// Whether the key is stored.
    #[must_use]
    pub fn contains(&self, channel: &str, key: Key) -> bool {
        self.get(channel, key).is_some()
    }

    /// Stores a value, in place of the one that was there; makes the channel.
    ///
    /// A value that is not longer than the one it replaces is always stored.
    ///
    /// # Errors
    /// [`Full`] when [`Store::memory`] would pass the limit, or the system has no more memory; no record changed then.
    pub fn put(&mut self, channel: &str, key: Key, value: &[u8]) -> Result<(), Full> {
        self.put_hash(channel, mix::hash(key), value, self.size_limit)
    }

    /// [`Store::put`] with another limit, 0 for none.
    fn put_hash(&mut self, channel: &str, hash: u64, value: &[u8], limit: u64) -> Result<(), Full> {
        if !self.removed.is_empty() {
            self.give_back(TIDY_WITH_PUT);
        }
        loop {
            let allowed = match limit {
                0 => u64::MAX,
                limit => limit.saturating_sub(self.heap.memory()),
            };
            let stored = match self.channels.get_mut(channel) {
                Some(stored) => stored,
                None => {
                    self.names.insert(channel.into());
                    self.channels.entry(channel.into()).or_default()
                }
            };
            let before = (stored.len(), stored.bytes());
            match stored.put(&mut self.heap, allowed, hash, value) {
                Ok(()) => {
                    self.totals.records = self.totals.records + stored.len() - before.0;
                    self.totals.bytes = self.totals.bytes + stored.bytes() - before.1;
                    return Ok(());
                }
                Err(NoRoom::Limit) if !self.removed.is_empty() => self.give_back(TIDY_WITH_PUT),
                Err(_) => return Err(Full { limit }),
            }
        }
    }

    /// Stores many records, quickly if they come in the order of a scan; makes the channel.
    ///
    /// For what was stored before: the limit does not bind it, so that records that found room once are not lost because
    /// they lie less densely now. Puts find the room that is left in it then. Returns how many were not stored because the system has no more memory. Not for use
    /// while requests wait: it takes about a millisecond for ten thousand records.
    pub fn put_many(&mut self, channel: &str, entries: &[Entry], bytes: &[u8]) -> u64 {
        self.create_channel(channel);
        let mut refused = 0;
        let mut rest = entries;
        while !rest.is_empty() {
            let Some(stored) = self.channels.get_mut(channel) else { return refused };
            let before = (stored.len(), stored.bytes());
            let extended = stored.extend(&mut self.heap, rest, bytes);
            self.totals.records += stored.len() - before.0;
            self.totals.bytes += stored.bytes() - before.1;
            let (done, behind) = rest.split_at(extended.until);
            for entry in &done[extended.stored..] {
                refused += u64::from(self.put_hash(channel, entry.hash, entry.value(bytes), 0).is_err());
            }
            rest = behind;
        }
        refused
    }

    /// Removes a record; returns the length of its value.
    pub fn remove(&mut self, channel: &str, key: Key) -> Option<usize> {
        let length = self.channels.get_mut(channel)?.remove(&mut self.heap, mix::hash(key))?;
        self.totals.records -= 1;
        self.totals.bytes -= length as u64 + 8;
        Some(length)
    }

    /// Makes the channel unless it is there.
    pub fn create_channel(&mut self, channel: &str) {
        if !self.channels.contains_key(channel) {
            self.names.insert(channel.into());
            self.channels.insert(channel.into(), Channel::default());
        }
    }

    /// Removes the channel with its records; false when there is none.
    ///
    /// The memory of a big one is given back bit by bit: see [`Store::tidy`].
    pub fn remove_channel(&mut self, channel: &str) -> bool {
        let Some(removed) = self.channels.remove(channel) else { return false };
        self.names.remove(channel);
        self.totals.records -= removed.len();
        self.totals.bytes -= removed.bytes();
        self.removed.push(removed);
        self.give_back(TIDY);
        true
    }

    /// Gives back some of the memory of removed channels, in some tenths of a millisecond; whether there is more to do.
    ///
    /// Every put does a little of it; call it when the node has nothing else to do.
    pub fn tidy(&mut self) -> bool {
        self.give_back(TIDY);
        self.heap.trim();
        !self.removed.is_empty()
    }

    fn give_back(&mut self, segments: usize) {
        for _ in 0..segments {
            let Some(channel) = self.removed.last_mut() else { return };
            if !channel.drop_last(&mut self.heap) {
                self.removed.pop();
            }
        }
    }

    /// The names of the channels, sorted.
    #[must_use]
    pub fn channel_names(&self) -> Vec<String> {
        self.names.iter().map(|name| name.to_string()).collect()
    }

    /// The names behind `after` (from the first on without), in their order.
    pub fn names_after(&self, after: Option<&str>) -> impl Iterator<Item = &str> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.names.range::<str, _>((from, Bound::Unbounded)).map(|name| &**name)
    }

    /// A channel, if it is there.
    #[must_use]
    pub fn channel(&self, channel: &str) -> Option<&Channel> {
        self.channels.get(channel)
    }

    /// Number of channels.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// How much is stored in all channels together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes of memory allocated for records: pages of segments, long values, and the nodes above the segments.
    ///
    /// Memory of removed channels counts until it is given back.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.heap.memory()
    }

    /// The limit in bytes of [`Store::memory`]; 0: none.
    #[must_use]
    pub fn size_limit(&self) -> u64 {
        self.size_limit
    }

    /// Visits the records of a channel behind `after` (from the first on without) until the visitor breaks off.
    ///
    /// The order depends on the keys alone and is the same after a restart. `after` need not be stored: a scan in
    /// parts, each resumed behind the last key that was visited, visits every record that was there all the time once,
    /// whatever was stored and removed in between. A channel that is not there has no records.
    pub fn scan(
        &self,
        channel: &str,
        after: Option<Key>,
        visit: &mut dyn FnMut(Key, &[u8]) -> ControlFlow<()>,
    ) -> Scan {
        match self.channels.get(channel) {
            Some(channel) => channel.scan(&self.heap, after.map(mix::hash), visit),
            None => Scan::End,
        }
    }
}

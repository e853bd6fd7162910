//! The records of a node: channels of key and value, in memory, for one thread.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, ControlFlow};

use overstory_swarm::key::Key;

/// The channels and records of a node.
#[derive(Debug, Default)]
pub struct Store {
    channels: HashMap<Box<str>, Channel>,
    size_limit: u64,
}

/// One channel.
#[derive(Debug, Default)]
pub struct Channel {
    records: BTreeMap<u64, (Key, Box<[u8]>)>,
    bytes: u64,
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

impl Store {
    /// Makes an empty store; `size_limit` is in bytes of [`Store::memory`], 0 for none.
    #[must_use]
    pub fn new(size_limit: u64) -> Self {
        Self { channels: HashMap::new(), size_limit }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, channel: &str, key: Key) -> Option<&[u8]> {
        self.channels.get(channel)?.records.get(&mix(key)).map(|(_, value)| &**value)
    }

    /// Whether the key is stored.
    #[must_use]
    pub fn contains(&self, channel: &str, key: Key) -> bool {
        self.get(channel, key).is_some()
    }

    /// Stores a value, in place of the one that was there; makes the channel.
    ///
    /// # Errors
    /// [`Full`] when the limit would be passed; nothing changed then.
    pub fn put(&mut self, channel: &str, key: Key, value: &[u8]) -> Result<(), Full> {
        let old = self.get(channel, key).map(<[u8]>::len);
        if self.size_limit != 0 && old.is_none_or(|old| old < value.len()) && self.memory() + 8 + value.len() as u64 > self.size_limit {
            return Err(Full { limit: self.size_limit });
        }
        self.create_channel(channel);
        if let Some(stored) = self.channels.get_mut(channel) {
            stored.bytes = stored.bytes + value.len() as u64 + 8 - old.map_or(0, |old| old as u64 + 8);
            stored.records.insert(mix(key), (key, value.into()));
        }
        Ok(())
    }

    /// Removes a record; returns the length of its value.
    pub fn remove(&mut self, channel: &str, key: Key) -> Option<usize> {
        let channel = self.channels.get_mut(channel)?;
        let (_, value) = channel.records.remove(&mix(key))?;
        channel.bytes -= value.len() as u64 + 8;
        Some(value.len())
    }

    /// Makes the channel unless it is there.
    pub fn create_channel(&mut self, channel: &str) {
        if !self.channels.contains_key(channel) {
            self.channels.insert(channel.into(), Channel::default());
        }
    }

    /// Removes the channel with its records; false when there is none.
    ///
    /// The memory of a big one is given back bit by bit: see [`Store::tidy`].
    pub fn remove_channel(&mut self, channel: &str) -> bool {
        self.channels.remove(channel).is_some()
    }

    /// Gives back some of the memory of removed channels, for at most about half a millisecond; whether there is more to do.
    ///
    /// Every put does a little of it; call it when the node has nothing else to do.
    pub fn tidy(&mut self) -> bool {
        false
    }

    /// The names of the channels, sorted.
    #[must_use]
    pub fn channel_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.channels.keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
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
        self.channels.values().fold(Totals::default(), |sum, channel| Totals {
            records: sum.records + channel.len(),
            bytes: sum.bytes + channel.bytes(),
        })
    }

    /// Bytes of memory allocated for records.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.channels.values().map(Channel::memory).sum()
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
    pub fn scan(&self, channel: &str, after: Option<Key>, visit: &mut dyn FnMut(Key, &[u8]) -> ControlFlow<()>) -> Scan {
        let Some(channel) = self.channels.get(channel) else { return Scan::End };
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(mix(key)));
        for (key, value) in channel.records.range((from, Bound::Unbounded)).map(|(_, record)| record) {
            if visit(*key, value).is_break() {
                return Scan::Stopped;
            }
        }
        Scan::End
    }
}

impl Channel {
    /// Number of records.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a count for statistics")]
    pub fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// Bytes of keys (8 each) and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory allocated for the records.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.bytes + 24 * self.len()
    }
}

/// Spreads keys; bijective and the same for ever.
fn mix(key: Key) -> u64 {
    let x = (key.0 ^ key.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

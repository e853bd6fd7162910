//! Which buckets there are: all of all channels, in memory, in order; and on disk as a [`Log`] of the node's own.
//!
//! A request asks the [`Catalogue`], never a directory. Writes, checkpoints and removals are told to the [`Log`] by the
//! thread that performs them; [`crate::recovery::open`] makes both from what is found at a start. Format of the file:
//! `docs/formats/catalogue.md`; why it is so: `docs/adr/logfiles-durability.md`.

mod anew;
mod entries;
mod log;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;

use overstory_swarm::channel::{self, BadChannelName};

use crate::bucket::{BucketNumber, KeyRange};
use crate::format::Format;

use state::State;

pub(crate) use entries::Write;
pub(crate) use log::{FILE, Was, due_at};
pub use log::{Log, Synced, Written};

/// A channel, as long as the process runs. That of a removed channel is not given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(u32);

/// What is known of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// How the file is written; none when it has fewer than 16 bytes, or has not been looked into ([`Entry::counted`]).
    pub format: Option<Format>,
    /// Whether records and bytes are those of the whole file. If not they are those of the records that came since the
    /// node found the file, and nobody has checked how it ends.
    pub counted: bool,
    /// Bytes of the file that hold whole records.
    pub length: u64,
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

impl Entry {
    /// A bucket without a file, or with an empty one.
    pub const EMPTY: Self = Self { format: None, counted: true, length: 0, records: 0, bytes: 0 };
}

impl Default for Entry {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What a channel, or all of them, hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Buckets.
    pub buckets: u64,
    /// Buckets that are not [`Entry::counted`].
    pub uncounted: u64,
    /// Records; exact when all buckets are counted.
    pub records: u64,
    /// Bytes of values; exact when all buckets are counted.
    pub bytes: u64,
}

impl Totals {
    fn gain(&mut self, entry: &Entry) {
        self.buckets = self.buckets.saturating_add(1);
        self.uncounted = self.uncounted.saturating_add(u64::from(!entry.counted));
        self.records = self.records.saturating_add(entry.records);
        self.bytes = self.bytes.saturating_add(entry.bytes);
    }

    fn lose(&mut self, entry: &Entry) {
        self.buckets = self.buckets.saturating_sub(1);
        self.uncounted = self.uncounted.saturating_sub(u64::from(!entry.counted));
        self.records = self.records.saturating_sub(entry.records);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
    }
}

/// All buckets of all channels, in memory: about 80 bytes each. Belongs to the node's thread.
#[derive(Debug, Default)]
pub struct Catalogue {
    channels: Vec<Option<Channel>>,
    names: BTreeMap<Box<str>, ChannelId>,
    totals: Totals,
}

#[derive(Debug)]
struct Channel {
    name: Box<str>,
    buckets: BTreeMap<BucketNumber, Entry>,
    totals: Totals,
}

impl Catalogue {
    /// The channel of a name.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<ChannelId> {
        self.names.get(name).copied()
    }

    /// The channel of a name, a new one without buckets if there was none.
    ///
    /// # Errors
    /// [`BadChannelName`].
    pub fn create(&mut self, name: &str) -> Result<ChannelId, BadChannelName> {
        if let Some(id) = self.channel(name) {
            return Ok(id);
        }
        channel::check(name.as_bytes())?;
        let id = ChannelId(u32::try_from(self.channels.len()).map_err(|_| BadChannelName)?);
        self.channels.push(Some(Channel { name: name.into(), buckets: BTreeMap::new(), totals: Totals::default() }));
        self.names.insert(name.into(), id);
        Ok(id)
    }

    /// The name of a channel; of a removed one it is empty.
    #[must_use]
    pub fn name(&self, id: ChannelId) -> &str {
        self.get(id).map_or("", |channel| &channel.name)
    }

    /// Forgets a channel; gives the buckets that it had, in order.
    pub fn remove(&mut self, id: ChannelId) -> Vec<BucketNumber> {
        let Some(channel) = self.channels.get_mut(id.0 as usize).and_then(Option::take) else { return Vec::new() };
        self.names.remove(&channel.name);
        for entry in channel.buckets.values() {
            self.totals.lose(entry);
        }
        channel.buckets.into_keys().collect()
    }

    /// What is known of a bucket.
    #[must_use]
    pub fn entry(&self, id: ChannelId, number: BucketNumber) -> Option<Entry> {
        self.get(id)?.buckets.get(&number).copied()
    }

    /// Says what is known of a bucket from now on. Nothing happens for a removed channel.
    pub fn set(&mut self, id: ChannelId, number: BucketNumber, entry: Entry) {
        let Some(channel) = self.channels.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if let Some(old) = channel.buckets.insert(number, entry) {
            channel.totals.lose(&old);
            self.totals.lose(&old);
        }
        channel.totals.gain(&entry);
        self.totals.gain(&entry);
    }

    /// Counts records that came into a bucket; its length in the file is told by [`Catalogue::set`] when they are there.
    pub fn add(&mut self, id: ChannelId, number: BucketNumber, records: u64, bytes: u64) {
        let Some(channel) = self.channels.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let entry = channel.buckets.entry(number).or_insert_with(|| {
            channel.totals.gain(&Entry::EMPTY);
            self.totals.gain(&Entry::EMPTY);
            Entry::EMPTY
        });
        for (records_now, bytes_now) in [
            (&mut entry.records, &mut entry.bytes),
            (&mut channel.totals.records, &mut channel.totals.bytes),
            (&mut self.totals.records, &mut self.totals.bytes),
        ] {
            *records_now = records_now.saturating_add(records);
            *bytes_now = bytes_now.saturating_add(bytes);
        }
    }

    /// Counts what was in a bucket before this process found it, as far as `length`, when that has been looked into.
    /// Nothing happens for a bucket that is counted.
    pub fn counted(&mut self, id: ChannelId, number: BucketNumber, found: &Entry) {
        let Some(entry) = self.entry(id, number).filter(|entry| !entry.counted) else { return };
        let entry = Entry {
            format: entry.format.or(found.format),
            counted: true,
            length: entry.length,
            records: entry.records.saturating_add(found.records),
            bytes: entry.bytes.saturating_add(found.bytes),
        };
        self.set(id, number, entry);
    }

    /// Forgets a bucket; the channel stays, also when it was the last one.
    pub fn forget(&mut self, id: ChannelId, number: BucketNumber) -> Option<Entry> {
        let channel = self.channels.get_mut(id.0 as usize)?.as_mut()?;
        let entry = channel.buckets.remove(&number)?;
        channel.totals.lose(&entry);
        self.totals.lose(&entry);
        Some(entry)
    }

    /// The first bucket that may have keys of a range and comes after another one.
    #[must_use]
    pub fn next(&self, id: ChannelId, range: KeyRange, after: Option<BucketNumber>) -> Option<(BucketNumber, Entry)> {
        let buckets = &self.get(id)?.buckets;
        let low = match after {
            Some(after) if after >= range.first_bucket() => Bound::Excluded(after),
            _ => Bound::Included(range.first_bucket()),
        };
        // A map refuses a range whose start is behind its end.
        let mut rest = buckets.range((low, Bound::Unbounded));
        rest.next().filter(|(number, _)| **number <= range.last_bucket()).map(|(number, entry)| (*number, *entry))
    }

    /// The last bucket that comes before another one.
    #[must_use]
    pub fn previous(&self, id: ChannelId, before: Option<BucketNumber>) -> Option<(BucketNumber, Entry)> {
        let high = before.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.get(id)?.buckets.range((Bound::Unbounded, high));
        rest.next_back().map(|(number, entry)| (*number, *entry))
    }

    /// The channels in the order of their names, from behind a name on.
    pub fn channels<'a>(&'a self, after: Option<&str>) -> impl Iterator<Item = (ChannelId, &'a str)> + use<'a> {
        let low = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.names.range::<str, _>((low, Bound::Unbounded)).map(|(name, id)| (*id, &**name))
    }

    /// How many channels there are.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.names.len()
    }

    /// What all channels hold.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// What a channel holds; nothing for a removed one.
    #[must_use]
    pub fn channel_totals(&self, id: ChannelId) -> Totals {
        self.get(id).map_or_else(Totals::default, |channel| channel.totals)
    }

    /// What was found at a start.
    pub(crate) fn of(state: State) -> Self {
        let mut catalogue = Self::default();
        let mut channels: Vec<_> = state.channels.into_values().collect();
        channels.sort_by(|one, other| one.name.cmp(&other.name));
        for found in channels {
            let Ok(id) = catalogue.create(&found.name) else { continue };
            let Some(Some(channel)) = catalogue.channels.get_mut(id.0 as usize) else { continue };
            for entry in found.buckets.values() {
                channel.totals.gain(entry);
                catalogue.totals.gain(entry);
            }
            channel.buckets = found.buckets;
        }
        catalogue
    }

    fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.channels.get(id.0 as usize)?.as_ref()
    }
}

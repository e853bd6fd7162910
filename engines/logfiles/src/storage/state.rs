//! What the node's thread knows, and the way of a record into a write buffer and on to the writer.

mod apply;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use overstory_node::commit::Commits;
use tokio::time::Instant;

use super::buckets::{Bucket, Buckets, Flying};
use super::{PutError, StorageOptions, SyncMode};
use crate::bucket::BucketNumber;
use crate::catalogue::{Catalogue, ChannelId, Entry};
use crate::record;
use crate::rewrites::{AsOf, Rewrites};
use crate::writer::{Chunk, Figures, Handle, Job, Key, Place, Source, Trouble};

/// What a chunk on its way counts beside its bytes.
const OVERHEAD: usize = 512;
/// The bytes that could be written in the time that a chunk takes, however small it is.
const EFFORT: usize = 4096;
/// Buckets of a channel that cannot be written, from which on no new ones of it are begun.
const MANY_BAD: usize = 64;
/// How long a group takes at most on a disk that is well.
const GROUP: Duration = Duration::from_secs(1);

pub(super) struct State {
    pub(super) options: StorageOptions,
    pub(super) dir: Arc<Path>,
    pub(super) catalogue: Catalogue,
    places: HashMap<ChannelId, Place>,
    pub(super) buckets: Buckets,
    /// The bucket of the last put.
    last: Option<Last>,
    pub(super) writer: Option<Handle>,
    /// Why no record is taken.
    refuses: Option<PutError>,
    pub(super) trouble: Option<Trouble>,
    pub(super) sync_failed: Option<String>,
    stopping: bool,
    /// Bytes of the chunks on their way, and what they cost.
    pub(super) flying: usize,
    pub(super) chunks: usize,
    /// Of the chunks that wait for buckets that cannot be written; others do not wait for these.
    waiting: usize,
    /// Buckets that cannot be written, and why.
    pub(super) bad: BTreeMap<Key, String>,
    /// Replies wait until the writer has caught up.
    pub(super) behind: bool,
    /// Buckets with something in their buffers: since the last tick, and since before it.
    young: Vec<Source>,
    old: Vec<Source>,
    /// Since when a group is being made durable.
    group: Option<Instant>,
    /// When the last checkpoint was asked for, and the time up to which everything is durable by the last one that is done.
    checkpoint_asked: Instant,
    durable_up_to: Instant,
    /// The drive was told that there is something to do.
    woken: bool,
    pub(super) figures: Figures,
    pub(super) rewrites: Arc<Rewrites>,
    /// How many rewrites the catalogue knows.
    rewritten: u64,
}

struct Last {
    channel: Arc<str>,
    number: BucketNumber,
    at: usize,
}

impl State {
    pub(super) fn new(options: StorageOptions, dir: Arc<Path>, catalogue: Catalogue) -> Self {
        Self {
            options,
            dir,
            catalogue,
            places: HashMap::new(),
            buckets: Buckets::default(),
            last: None,
            writer: None,
            refuses: None,
            trouble: None,
            sync_failed: None,
            stopping: false,
            flying: 0,
            chunks: 0,
            waiting: 0,
            bad: BTreeMap::new(),
            behind: false,
            young: Vec::new(),
            old: Vec::new(),
            group: None,
            checkpoint_asked: Instant::now(),
            durable_up_to: Instant::now(),
            woken: false,
            figures: Figures::default(),
            rewrites: Arc::default(),
            rewritten: 0,
        }
    }

    /// Takes a record. True: the drive has to be woken.
    #[inline]
    pub(super) fn put(&mut self, commits: &Commits, channel: &str, key: u64, value: &[u8]) -> Result<bool, PutError> {
        if let Some(refuses) = self.refuses {
            return Err(refuses);
        }
        if !record::is_valid(key, value.len()) {
            return Err(PutError::Invalid);
        }
        if self.flying >= self.options.queue_bytes.saturating_mul(2) {
            return Err(PutError::Overloaded);
        }
        let number = BucketNumber::of(key);
        let at = match &self.last {
            Some(last) if last.number == number && &*last.channel == channel => last.at,
            _ => self.find(channel, number)?,
        };
        let limit = self.options.write_buffer_size;
        let Some(mut bucket) = self.buckets.get_mut(at) else { return Err(PutError::Failed) };
        if bucket.buffer.len() + record::size(bucket.framing, value.len()) > limit && !bucket.buffer.is_empty() {
            self.seal(at);
            let Some(same) = self.buckets.get_mut(at) else { return Err(PutError::Failed) };
            bucket = same;
        }
        if bucket.buffer.is_empty() {
            bucket.framing = bucket.format.framing();
        }
        record::put(bucket.framing, key, value, &mut bucket.buffer);
        bucket.records += 1;
        bucket.value_bytes += value.len() as u64;
        let is_full = bucket.buffer.len() >= limit;
        if !bucket.listed {
            bucket.listed = true;
            self.young.push(Source { at, serial: bucket.serial });
        }
        if is_full {
            self.seal(at);
        }
        if self.options.sync == SyncMode::Always || self.behind {
            commits.changed();
        }
        // In `always` mode the end of a group looks for the next one.
        Ok(!self.woken && self.group.is_none() && !std::mem::replace(&mut self.woken, true))
    }

    /// The bucket of a key, opened if it is not.
    fn find(&mut self, channel: &str, number: BucketNumber) -> Result<usize, PutError> {
        let id = match self.catalogue.channel(channel) {
            Some(id) => id,
            None => self.catalogue.create(channel).map_err(|_| PutError::Invalid)?,
        };
        let key = Key { channel: id, number };
        let there = self.buckets.find(key);
        if !self.bad.is_empty() && (self.bad.contains_key(&key) || (there.is_none() && self.is_bad(id))) {
            return Err(PutError::Bucket);
        }
        let at = there.unwrap_or_else(|| self.open(key));
        self.buckets.use_now(at);
        while self.buckets.open() > self.options.open_files.max(1)
            && let Some(longest_unused) = self.buckets.let_go()
        {
            self.seal(longest_unused);
            self.drop_if_done(longest_unused);
        }
        let channel = self.place(id).name;
        self.last = Some(Last { channel, number, at });
        Ok(at)
    }

    /// Whether a channel has so many buckets that cannot be written that others will be no better.
    fn is_bad(&self, id: ChannelId) -> bool {
        self.all_bad_of(id).nth(MANY_BAD - 1).is_some()
    }

    fn all_bad_of(&self, id: ChannelId) -> impl Iterator<Item = (&Key, &String)> {
        let (first, last) = (BucketNumber::of(0), BucketNumber::of(u64::MAX));
        self.bad.range(Key { channel: id, number: first }..=Key { channel: id, number: last })
    }

    /// The first bucket of a channel that cannot be written, and why.
    pub(super) fn bad_of(&self, id: ChannelId) -> Option<(&Key, &String)> {
        self.all_bad_of(id).next()
    }

    fn open(&mut self, key: Key) -> usize {
        let place = self.place(key.channel);
        let entry = self.catalogue.entry(key.channel, key.number);
        if entry.is_none() {
            self.catalogue.set(key.channel, key.number, Entry::EMPTY);
        }
        let format = entry.and_then(|entry| entry.format).unwrap_or_else(|| self.options.format(&place.name));
        self.buckets.insert(key, place, format)
    }

    pub(super) fn place(&mut self, id: ChannelId) -> Place {
        let (catalogue, dir) = (&self.catalogue, &self.dir);
        let make = || {
            let name = catalogue.name(id);
            Place { id, name: Arc::from(name), dir: Arc::from(dir.join(name)) }
        };
        self.places.entry(id).or_insert_with(make).clone()
    }

    /// Which files the catalogue is of.
    pub(super) fn as_of(&self) -> AsOf {
        AsOf::new(Arc::clone(&self.rewrites), self.rewritten)
    }

    pub(super) fn give(&self, job: Job) {
        if let Some(writer) = &self.writer {
            writer.give(job);
        }
    }

    /// What the writer has before it, as bytes: by it replies wait, so that what was answered is written soon.
    fn effort(&self) -> usize {
        self.flying.max(self.chunks * EFFORT)
    }

    /// Hands a buffer to the writer.
    pub(super) fn seal(&mut self, at: usize) {
        let limit = self.options.write_buffer_size;
        let Some(bucket) = self.buckets.get_mut(at).filter(|bucket| !bucket.buffer.is_empty()) else { return };
        let bytes: Arc<[u8]> = Arc::from(bucket.buffer.as_slice());
        // One that was not nearly filled is given back.
        if bucket.buffer.len() < limit / 2 || bucket.buffer.capacity() > limit.saturating_mul(2) {
            bucket.buffer = Vec::new();
        } else {
            bucket.buffer.clear();
        }
        let (records, value_bytes) = (std::mem::take(&mut bucket.records), std::mem::take(&mut bucket.value_bytes));
        let (framing, key) = (bucket.framing, bucket.key);
        let cost = bytes.len() + OVERHEAD;
        let waits =
            !self.bad.is_empty() && self.bad.contains_key(&key) && self.waiting + cost <= self.options.queue_bytes;
        *(if waits { &mut self.waiting } else { &mut self.flying }) += cost;
        self.chunks += usize::from(!waits);
        let chunk = Chunk {
            place: bucket.place.clone(),
            number: key.number,
            source: Source { at, serial: bucket.serial },
            entry: self.catalogue.entry(key.channel, key.number).unwrap_or(Entry::EMPTY),
            format: bucket.format,
            framing,
            bytes: Arc::clone(&bytes),
            records,
            value_bytes,
        };
        bucket.flying.push_back(Flying { framing, bytes, records, value_bytes, waits });
        self.behind |= self.effort() > self.options.queue_bytes;
        self.give(Job::Write(Box::new(chunk)));
    }

    /// Hands all buffers to the writer that have something in them.
    pub(super) fn seal_all(&mut self) {
        self.old.append(&mut self.young);
        self.seal_old();
    }

    /// Time goes on: what was put before the last tick is handed to the writer. True: there is more for the next one.
    pub(super) fn tick(&mut self) -> bool {
        self.seal_old();
        self.old = std::mem::take(&mut self.young);
        !self.old.is_empty()
    }

    fn seal_old(&mut self) {
        for source in std::mem::take(&mut self.old) {
            if let Some(bucket) = self.buckets.of(source) {
                bucket.listed = false;
                self.seal(source.at);
            }
        }
    }

    /// Begins what is due. True: buffers wait for a tick.
    pub(super) fn turn(&mut self, commits: &Commits) -> bool {
        if self.options.sync == SyncMode::Always && self.group.is_none() && commits.made() > commits.durable() {
            self.group = Some(Instant::now());
            self.seal_all();
            self.give(Job::Sync { commit: commits.made() });
        }
        let waits = !self.young.is_empty() || !self.old.is_empty();
        // The tick that comes looks for what is put until then.
        self.woken = waits && self.options.sync == SyncMode::Interval;
        waits
    }

    fn drop_if_done(&mut self, at: usize) {
        if let Some(bucket) = self.buckets.remove_if_done(at) {
            self.is_dropped(at);
            self.give(Job::Release(bucket.key));
        }
    }

    fn is_dropped(&mut self, at: usize) {
        if self.last.as_ref().is_some_and(|last| last.at == at) {
            self.last = None;
        }
    }

    /// Forgets a bucket's buffer and what is on its way: they belong to something that was removed.
    fn discard(&mut self, at: usize) {
        if let Some(bucket) = self.buckets.remove(at) {
            bucket.flying.iter().for_each(|chunk| self.is_done(chunk));
            self.is_dropped(at);
        }
    }

    /// A chunk is not on its way any more.
    fn is_done(&mut self, chunk: &Flying) {
        let of = if chunk.waits { &mut self.waiting } else { &mut self.flying };
        *of = of.saturating_sub(chunk.bytes.len() + OVERHEAD);
        self.chunks = self.chunks.saturating_sub(usize::from(!chunk.waits));
    }

    /// Buckets that cannot be written: how many, the first of them by name and why, and records that wait for them.
    pub(super) fn bad_buckets(&self) -> Option<(usize, String, u64)> {
        let (key, why) = self.bad.first_key_value()?;
        let first = format!("{}/{} cannot be written: {why}", self.catalogue.name(key.channel), key.number);
        let open = self.bad.keys().filter_map(|key| self.buckets.get(self.buckets.find(*key)?));
        Some((self.bad.len(), first, open.map(|bucket| bucket.pending().0).sum()))
    }

    /// Asks for a checkpoint.
    pub(super) fn checkpoint(&mut self) {
        self.checkpoint_asked = Instant::now();
        self.give(Job::Checkpoint);
    }

    /// How much later than promised the oldest record becomes durable that is not yet.
    pub(super) fn late(&self) -> Duration {
        match self.options.sync {
            SyncMode::Always => self.group.map_or(Duration::ZERO, |since| since.elapsed().saturating_sub(GROUP)),
            SyncMode::Interval => self.durable_up_to.elapsed().saturating_sub(self.options.checkpoint),
        }
    }

    /// Whether records are taken.
    fn judge(&mut self) {
        let sync_failed = self.options.sync == SyncMode::Always && self.sync_failed.is_some();
        self.refuses = match &self.trouble {
            _ if self.stopping || sync_failed => Some(PutError::Failed),
            Some(Trouble { full: true, .. }) => Some(PutError::NoSpace),
            Some(Trouble { full: false, .. }) => Some(PutError::Failed),
            None => None,
        };
    }

    /// No record is taken any more.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.judge();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Closes a bucket if everything of it is in its file. False: it is not.
    pub(super) fn close_if_written(&mut self, key: Key) -> bool {
        let Some(at) = self.buckets.find(key) else { return true };
        let written = self.buckets.get(at).is_some_and(Bucket::is_written);
        if written && self.buckets.remove(at).is_some() {
            self.is_dropped(at);
            self.give(Job::Release(key));
        }
        written
    }

    /// Forgets a bucket with all that is on its way into it. Gives the serial number up to which that is.
    pub(super) fn forget_bucket(&mut self, key: Key) -> Option<u64> {
        let before = self.buckets.next_serial();
        let at = self.buckets.find(key);
        if let Some(at) = at {
            self.discard(at);
        }
        self.bad.remove(&key);
        let known = self.catalogue.forget(key.channel, key.number).is_some();
        (known || at.is_some()).then_some(before)
    }

    /// Forgets a channel with all that is on its way into it.
    pub(super) fn forget_channel(&mut self, id: ChannelId) -> Place {
        let place = self.place(id);
        let open: Vec<usize> =
            self.buckets.iter().filter(|(_, bucket)| bucket.key.channel == id).map(|(at, _)| at).collect();
        for at in open {
            self.discard(at);
        }
        self.bad.retain(|key, _| key.channel != id);
        self.places.remove(&id);
        self.catalogue.remove(id);
        place
    }
}

//! Buckets whose files cannot be opened or written while those of others can: what is for them waits, and is tried again
//! every [`Setup::retry`](super::Setup::retry).
//!
//! What is wrong with the whole disk, or with the log, is none of this: the queue stands still then.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Chunk, Done, Key, Place, Trouble, Writer};
use crate::bucket::BucketNumber;
use crate::catalogue::Entry;

/// Buckets that are tried again at once.
const AT_ONCE: usize = 256;
/// Buckets that are named when the node stops.
const NAMED: usize = 20;

/// A bucket that cannot be written.
#[derive(Debug)]
pub(super) struct Bad {
    place: Place,
    number: BucketNumber,
    entry: Entry,
    why: String,
    /// What waits, in order.
    chunks: VecDeque<Box<Chunk>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct BadBuckets {
    buckets: BTreeMap<Key, Bad>,
    /// Where the next try begins.
    cursor: Option<Key>,
    retry_at: Option<Instant>,
}

impl BadBuckets {
    pub(super) fn has(&self, key: Key) -> bool {
        !self.buckets.is_empty() && self.buckets.contains_key(&key)
    }

    /// When the next try is due.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Records that wait.
    pub(super) fn records(&self) -> u64 {
        self.buckets.values().map(Bad::records).sum()
    }
}

impl Bad {
    fn records(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.records).sum()
    }
}

/// Why a chunk was not written.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is the bucket's.
    Bucket(String),
    /// Nothing can be written.
    All(Trouble),
}

impl Fault {
    /// What a call on a bucket's file has failed with.
    pub(super) fn of(place: &Place, number: BucketNumber, error: &io::Error) -> Self {
        if is_of_all(error) {
            Self::All(Trouble::new(&format!("writing {}/{number}", place.name), error))
        } else {
            Self::Bucket(error.to_string())
        }
    }

    pub(super) fn log(error: &io::Error) -> Self {
        Self::All(Trouble::new("writing the catalogue", error))
    }
}

/// Whether an error says something of the disk or the process, and not of one file.
pub(super) fn is_of_all(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let files = [Errno::EMFILE as i32, Errno::ENFILE as i32];
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | OutOfMemory)
        || error.raw_os_error().is_some_and(|code| files.contains(&code))
}

/// Whether a directory could not even be opened.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory)
}

impl Writer {
    /// A bucket whose file could not be opened at the start: the node knows.
    pub(super) fn was_bad(&mut self, place: Place, number: BucketNumber, entry: Entry, why: String) {
        let key = Key { channel: place.id, number };
        self.bad.buckets.insert(key, Bad { place, number, entry, why, chunks: VecDeque::new() });
        self.bad.retry_at = Some(Instant::now() + self.setup.retry);
    }

    /// Sets a bucket aside that cannot be written, and says so.
    pub(super) fn set_aside(&mut self, place: &Place, number: BucketNumber, entry: Entry, why: String) {
        let key = Key { channel: place.id, number };
        if self.bad.has(key) {
            return;
        }
        tracing::error!(target: "node.storage", channel = &*place.name, bucket = %number, why, "a bucket cannot be written");
        self.out.push(Done::Bad { key, why: why.clone() });
        self.was_bad(place.clone(), number, entry, why);
        // What was on its way into it is not durable when the group is.
        self.lost = true;
    }

    /// Has a chunk wait with its bucket.
    pub(super) fn park(&mut self, chunk: Box<Chunk>) {
        if let Some(bad) = self.bad.buckets.get_mut(&chunk.key()) {
            bad.chunks.push_back(chunk);
            self.lost = true;
        }
    }

    /// Forgets buckets that are removed, with what waits for them.
    pub(super) fn forget_bad(&mut self, place: &Place, number: Option<BucketNumber>) {
        let goes = |key: &Key| key.channel == place.id && number.is_none_or(|number| number == key.number);
        let keys: Vec<Key> = self.bad.buckets.keys().filter(|key| goes(key)).copied().collect();
        for key in keys {
            self.bad.buckets.remove(&key);
            self.out.push(Done::Mended(key));
        }
    }

    /// Tries again, if it is time.
    pub(super) fn retry_if_due(&mut self) -> Result<(), Trouble> {
        if self.bad.retry_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        let from = self.bad.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let keys: Vec<Key> =
            self.bad.buckets.range((from, Bound::Unbounded)).take(AT_ONCE).map(|(key, _)| *key).collect();
        self.bad.cursor = keys.last().copied().filter(|_| keys.len() == AT_ONCE);
        let retried = self.retry(keys);
        // What stops everything is waited for by who stands still.
        let pause = if retried.is_ok() { self.setup.retry } else { Duration::ZERO };
        self.bad.retry_at = (!self.bad.buckets.is_empty()).then(|| Instant::now() + pause);
        retried
    }

    fn retry(&mut self, keys: Vec<Key>) -> Result<(), Trouble> {
        for key in keys {
            let Some(mut bad) = self.bad.buckets.remove(&key) else { continue };
            match self.write_bad(key, &mut bad) {
                Ok(()) => {
                    tracing::info!(target: "node.storage", channel = &*bad.place.name, bucket = %bad.number, "a bucket is written again");
                    self.out.push(Done::Mended(key));
                }
                Err(Fault::Bucket(why)) => {
                    if bad.why != why {
                        let (channel, bucket) = (&*bad.place.name, bad.number);
                        tracing::error!(target: "node.storage", channel, %bucket, why, "a bucket cannot be written");
                        self.out.push(Done::Bad { key, why: why.clone() });
                        bad.why = why;
                    }
                    self.bad.buckets.insert(key, bad);
                }
                Err(Fault::All(trouble)) => {
                    self.bad.buckets.insert(key, bad);
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }

    fn write_bad(&mut self, key: Key, bad: &mut Bad) -> Result<(), Fault> {
        self.look_at(&bad.place, bad.number, bad.entry)?;
        // Its names have to become durable as well.
        let slot = bad.place.dir.join(bad.number.slot().to_string());
        for dir in [&*slot, &*bad.place.dir] {
            if let Err(error) = self.disk.sync_dir(dir) {
                if !is_closed(&error) {
                    self.cannot_sync(&error);
                }
                return Err(Fault::of(&bad.place, bad.number, &error));
            }
        }
        self.log.sync_touched().map_err(|error| Fault::log(&error))?;
        if bad.chunks.is_empty() {
            // What is in it may be known only now. The node releases it if it has nothing for it.
            let entry = self.states.get(&key).map(|state| state.entry);
            self.out.push(Done::Changed { key, entry });
        }
        while let Some(chunk) = bad.chunks.front() {
            self.write(chunk).map_err(|error| Fault::of(&bad.place, bad.number, &error))?;
            bad.chunks.pop_front();
        }
        Ok(())
    }

    /// The node stops: tries all once more. Gives what is lost.
    pub(super) fn last_try(&mut self) -> Option<String> {
        let keys = self.bad.buckets.keys().copied().collect();
        let retried = self.retry(keys);
        let (mut named, mut count) = (Vec::new(), 0);
        for bad in self.bad.buckets.values().filter(|bad| !bad.chunks.is_empty()) {
            let (records, why) = (bad.records(), &bad.why);
            let what = format!("{}/{}: {why} ({records} records)", bad.place.name, bad.number);
            tracing::error!(target: "node.storage", what, "records are lost");
            count += 1;
            if named.len() < NAMED {
                named.push(what);
            }
        }
        let trouble = retried.err().map(|trouble| format!("; {}", trouble.text)).unwrap_or_default();
        let more =
            if count > named.len() { format!(", and {} more buckets", count - named.len()) } else { String::new() };
        let records = self.bad.records();
        (count > 0).then(|| format!("{records} records are lost: {}{more}{trouble}", named.join(", ")))
    }
}

//! The buckets that have a write buffer, or chunks on their way to the file: a bounded number of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::format::Format;
use crate::read::Tail;
use crate::record::Framing;
use crate::writer::{Key, Place, Source};

/// A bucket that is being written to.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) key: Key,
    pub(super) place: Place,
    pub(super) serial: u64,
    /// Of the file, or of one that will be made.
    pub(super) format: Format,
    /// How the records in the buffer follow each other.
    pub(super) framing: Framing,
    pub(super) buffer: Vec<u8>,
    /// Records in the buffer.
    pub(super) records: u64,
    /// Bytes of their values.
    pub(super) value_bytes: u64,
    /// Chunks that the writer has and that are not known to be in the file, oldest first.
    pub(super) flying: VecDeque<Flying>,
    /// It is in a list of buckets whose buffers are to be written.
    pub(super) listed: bool,
    /// When it was used the last time; none: it goes when its last chunk is written.
    used: Option<u64>,
}

/// A chunk on its way.
#[derive(Debug)]
pub(super) struct Flying {
    pub(super) framing: Framing,
    pub(super) bytes: Arc<[u8]>,
    pub(super) records: u64,
    pub(super) value_bytes: u64,
    /// It counts among those that wait for a bucket that cannot be written.
    pub(super) waits: bool,
}

impl Bucket {
    /// Whether everything is in the file.
    pub(super) fn is_written(&self) -> bool {
        self.buffer.is_empty() && self.flying.is_empty()
    }

    /// Records and bytes of values that are not in the file.
    pub(super) fn pending(&self) -> (u64, u64) {
        self.flying.iter().fold((self.records, self.value_bytes), |(records, bytes), chunk| {
            (records + chunk.records, bytes + chunk.value_bytes)
        })
    }

    /// What is not in the file.
    pub(super) fn tail(&self) -> Vec<Tail> {
        let flying = self.flying.iter().map(|chunk| Tail { framing: chunk.framing, bytes: Arc::clone(&chunk.bytes) });
        let buffer =
            (!self.buffer.is_empty()).then(|| Tail { framing: self.framing, bytes: Arc::from(self.buffer.as_slice()) });
        flying.chain(buffer).collect()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    slots: Vec<Option<Bucket>>,
    free: Vec<usize>,
    places: HashMap<Key, usize>,
    /// Those that stay open, by their last use.
    order: BTreeMap<u64, usize>,
    clock: u64,
    serials: u64,
}

impl Buckets {
    /// How many stay open.
    pub(super) fn open(&self) -> usize {
        self.order.len()
    }

    pub(super) fn find(&self, key: Key) -> Option<usize> {
        self.places.get(&key).copied()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&Bucket> {
        self.slots.get(at)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Bucket> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// The bucket that a source stands for, unless that is gone.
    pub(super) fn of(&mut self, source: Source) -> Option<&mut Bucket> {
        self.get_mut(source.at).filter(|bucket| bucket.serial == source.serial)
    }

    /// Serial numbers of buckets that come are not below this.
    pub(super) fn next_serial(&self) -> u64 {
        self.serials
    }

    pub(super) fn insert(&mut self, key: Key, place: Place, format: Format) -> usize {
        let bucket = Bucket {
            key,
            place,
            serial: self.serials,
            format,
            framing: format.framing(),
            buffer: Vec::new(),
            records: 0,
            value_bytes: 0,
            flying: VecDeque::new(),
            listed: false,
            used: None,
        };
        self.serials += 1;
        let at = self.free.pop().unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(Some(bucket));
        } else {
            self.slots[at] = Some(bucket);
        }
        self.places.insert(key, at);
        at
    }

    /// Says that a bucket is used now; it stays open.
    pub(super) fn use_now(&mut self, at: usize) {
        let Some(bucket) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        self.clock += 1;
        if let Some(before) = bucket.used.replace(self.clock) {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, at);
    }

    /// The one that was not used for the longest time does not stay open.
    pub(super) fn let_go(&mut self) -> Option<usize> {
        let (_, at) = self.order.pop_first()?;
        if let Some(bucket) = self.get_mut(at) {
            bucket.used = None;
        }
        Some(at)
    }

    /// Takes a bucket out if it does not stay open and has nothing left.
    pub(super) fn remove_if_done(&mut self, at: usize) -> Option<Bucket> {
        let done = self.get(at).is_some_and(|bucket| bucket.used.is_none() && bucket.is_written());
        if done { self.remove(at) } else { None }
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Bucket> {
        let bucket = self.slots.get_mut(at)?.take()?;
        if let Some(used) = bucket.used {
            self.order.remove(&used);
        }
        self.places.remove(&bucket.key);
        self.free.push(at);
        if self.places.is_empty() {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
        Some(bucket)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        self.slots.iter().enumerate().filter_map(|(at, bucket)| Some((at, bucket.as_ref()?)))
    }
}

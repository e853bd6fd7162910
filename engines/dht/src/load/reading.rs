//! Reads a dump on a thread of its own, a few batches ahead, or in place if it is small.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use overstory_swarm::key::{HashRange, Key};

use crate::storage::Entry;
use crate::tcm::{Item, Reader, Reason, TcmError};

/// Bytes of values after which a batch of records that are read one by one is complete.
const BATCH_BYTES: usize = 512 * 1024;
/// Records after which it is.
const BATCH_RECORDS: usize = 8192;
/// Bytes of a dump up to which it is read without a thread.
const SMALL: u64 = 128 * 1024;
/// Batches there are at most: one is filled, one is used, the others wait.
const BATCHES: usize = 4;

/// Which records are to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Those with keys of this range.
    pub(super) range: HashRange,
    /// The others, too.
    pub(super) foreign: bool,
}

/// Records of a dump, in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Holds the values.
    pub(super) bytes: Vec<u8>,
    /// The records that are to be stored.
    pub(super) entries: Vec<Entry>,
    /// Records with keys of the range.
    pub(super) in_range: u64,
    /// Others, whether they are to be stored or not.
    pub(super) out_of_range: u64,
    /// The first of the others.
    pub(super) foreign: Option<Key>,
    /// What was passed over: why, and how many bytes.
    pub(super) rejected: Vec<(Reason, u64)>,
    /// How far the dump is read.
    pub(super) offset: u64,
}

impl Batch {
    fn clear(&mut self) {
        self.entries.clear();
        self.rejected.clear();
        (self.in_range, self.out_of_range, self.foreign) = (0, 0, None);
    }

    #[inline]
    fn add(&mut self, wanted: Wanted, key: Key, value: Range<usize>) {
        if wanted.range.contains(key) {
            self.in_range += 1;
        } else {
            self.out_of_range += 1;
            self.foreign = self.foreign.or(Some(key));
            if !wanted.foreign {
                return;
            }
        }
        self.entries.push(Entry::new(key, value));
    }

    /// Reads until the batch is complete; whether the dump goes on.
    fn fill(&mut self, reader: &mut Reader<File>, wanted: Wanted) -> Result<bool, TcmError> {
        // What was read before an error is used; the error comes again where the next record is asked for.
        let _again = reader.read_ahead();
        let before = reader.offset();
        reader.run(|key, value| self.add(wanted, key, value));
        let mut more = true;
        if reader.offset() == before || !reader.exchange(&mut self.bytes) {
            more = self.fill_singly(reader, wanted)?;
        }
        self.offset = reader.offset();
        // As the dumps of another program come: with its neighbours a record is stored quicker. Of those with the same
        // key the last one stays the last.
        if !self.entries.is_sorted_by_key(Entry::order) {
            self.entries.sort_by_key(Entry::order);
        }
        Ok(more)
    }

    /// Reads on where something is amiss, or the dump ends.
    fn fill_singly(&mut self, reader: &mut Reader<File>, wanted: Wanted) -> Result<bool, TcmError> {
        self.bytes.clear();
        for entry in &mut self.entries {
            entry.copy(reader.buffer(), &mut self.bytes);
        }
        while self.bytes.len() < BATCH_BYTES && self.entries.len() + self.rejected.len() < BATCH_RECORDS {
            match reader.next_item()? {
                Item::Record { key, value } => {
                    let at = self.bytes.len();
                    self.bytes.extend_from_slice(value);
                    self.add(wanted, key, at..self.bytes.len());
                }
                Item::Rejected { length, reason, .. } => self.rejected.push((reason, length)),
                Item::End => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A dump that is being read.
#[derive(Debug)]
pub(super) enum Reading {
    /// A small one, which is not worth a thread.
    Here {
        /// The dump, unless it is read to its end.
        reader: Option<Reader<File>>,
        wanted: Wanted,
        batch: Batch,
        error: Option<TcmError>,
    },
    /// One that a thread reads.
    Thread {
        full: Receiver<Batch>,
        empty: SyncSender<Batch>,
        batch: Option<Batch>,
        thread: JoinHandle<Option<TcmError>>,
    },
}

impl Reading {
    pub(super) fn start(mut reader: Reader<File>, wanted: Wanted) -> io::Result<Self> {
        if reader.size() <= SMALL {
            return Ok(Self::Here { reader: Some(reader), wanted, batch: Batch::default(), error: None });
        }
        let (fill, full) = sync_channel::<Batch>(BATCHES);
        let (give, empty) = sync_channel::<Batch>(BATCHES);
        for _ in 0..BATCHES {
            let _room = give.try_send(Batch::default());
        }
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            while let Ok(mut batch) = empty.recv() {
                batch.clear();
                let filled = batch.fill(&mut reader, wanted);
                if fill.send(batch).is_err() {
                    return None;
                }
                match filled {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(error),
                }
            }
            None
        })?;
        Ok(Self::Thread { full, empty: give, batch: None, thread })
    }

    /// The next batch, until there are no more.
    pub(super) fn next_batch(&mut self) -> Option<&Batch> {
        match self {
            Self::Here { reader, wanted, batch, error } => {
                batch.clear();
                match batch.fill(reader.as_mut()?, *wanted) {
                    Ok(true) => {}
                    Ok(false) => *reader = None,
                    Err(problem) => (*reader, *error) = (None, Some(problem)),
                }
                Some(batch)
            }
            Self::Thread { full, empty, batch, .. } => {
                if let Some(batch) = batch.take() {
                    let _thread_over = empty.try_send(batch);
                }
                *batch = full.recv().ok();
                batch.as_ref()
            }
        }
    }

    /// What ended the reading before the dump's end.
    pub(super) fn finish(self) -> Option<TcmError> {
        match self {
            Self::Here { error, .. } => error,
            Self::Thread { full, empty, thread, .. } => {
                drop((full, empty));
                thread.join().unwrap_or_else(|_panic| {
                    Some(TcmError::Io { offset: 0, source: io::Error::other("the reading thread ended") })
                })
            }
        }
    }
}

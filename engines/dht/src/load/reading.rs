//! Reads a dump on a thread of its own, a few batches ahead.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use overstory_swarm::key::Key;

use crate::tcm::{Item, Reader, Reason, TcmError};

/// Bytes of values after which a batch is complete.
const BATCH_BYTES: usize = 512 * 1024;
/// Records after which a batch is complete.
const BATCH_RECORDS: usize = 8192;
/// Batches there are at most: one is filled, one is used, the others wait.
const BATCHES: usize = 4;

/// Records of a dump, in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    values: Vec<u8>,
    /// Keys, and the lengths of their values.
    keys: Vec<(Key, usize)>,
    /// What was passed over: why, and how many bytes.
    pub(super) rejected: Vec<(Reason, u64)>,
    /// How far the dump is read.
    pub(super) offset: u64,
}

impl Batch {
    pub(super) fn records(&self) -> impl Iterator<Item = (Key, &[u8])> {
        let mut rest = &*self.values;
        self.keys.iter().map(move |&(key, length)| {
            let (value, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            (key, value)
        })
    }

    fn clear(&mut self) {
        self.values.clear();
        self.keys.clear();
        self.rejected.clear();
    }

    /// Reads until the batch is complete; whether the dump goes on.
    fn fill(&mut self, reader: &mut Reader<File>) -> Result<bool, TcmError> {
        let mut more = true;
        while more && self.values.len() < BATCH_BYTES && self.keys.len() + self.rejected.len() < BATCH_RECORDS {
            match reader.next_item()? {
                Item::Record { key, value } => {
                    self.values.extend_from_slice(value);
                    self.keys.push((key, value.len()));
                }
                Item::Rejected { length, reason, .. } => self.rejected.push((reason, length)),
                Item::End => more = false,
            }
        }
        self.offset = reader.offset();
        Ok(more)
    }
}

/// A dump that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    full: Receiver<Batch>,
    empty: Option<SyncSender<Batch>>,
    batch: Option<Batch>,
    thread: JoinHandle<Option<TcmError>>,
}

impl Reading {
    pub(super) fn start(mut reader: Reader<File>) -> io::Result<Self> {
        let (fill, full) = sync_channel::<Batch>(BATCHES);
        let (give, empty) = sync_channel::<Batch>(BATCHES);
        for _ in 0..BATCHES {
            let _room = give.try_send(Batch::default());
        }
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            while let Ok(mut batch) = empty.recv() {
                batch.clear();
                let filled = batch.fill(&mut reader);
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
        Ok(Self { full, empty: Some(give), batch: None, thread })
    }

    /// The next batch, until there are no more.
    pub(super) fn next_batch(&mut self) -> Option<&Batch> {
        if let (Some(batch), Some(empty)) = (self.batch.take(), &self.empty) {
            let _thread_over = empty.try_send(batch);
        }
        self.batch = self.full.recv().ok();
        self.batch.as_ref()
    }

    /// What ended the reading before the dump's end.
    pub(super) fn finish(mut self) -> Option<TcmError> {
        self.empty = None;
        drop(self.full);
        self.thread.join().unwrap_or_else(|_panic| {
            Some(TcmError::Io { offset: 0, source: io::Error::other("the reading thread ended") })
        })
    }
}

//! The disk overflow: records that find no room in memory, in the published files.
//!
//! The files are described in `docs/formats/overflow.md`, why they are kept like this in `docs/adr/queue-overflow.md`
//! (protocol §3.2). `overflow.dat` holds the records of all queues in the order in which they came, those of one queue
//! chained by the distance from each to the next; `ofchannels.csv` names the ends of each chain. `overflow.positions`
//! is not a published file: it tells what changed since the index was written, so that a process that was killed finds
//! each queue where it was.

use std::io;
use std::path::{Path, PathBuf};

use overstory_node::inspect::Finding;

use crate::disk::{Disk, DiskError, QueueId, Read, RecoveredQueue};

/// How an overflow is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// So many bytes are allocated ahead at a time.
    pub preallocate: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { preallocate: 16 * 1024 * 1024 }
    }
}

/// What was found when an overflow was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The queues, by number.
    pub queues: Vec<RecoveredQueue>,
    /// What is damaged or was not expected, one line each, at most some hundred.
    pub problems: Vec<String>,
}

/// Why an overflow cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses it.
    #[error("{}: another process uses these files", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The overflow of a node: all its queues, in one directory.
#[derive(Debug)]
pub struct Overflow {}

impl Overflow {
    /// Opens the overflow in `dir`, which exists, and finds out what is in it.
    ///
    /// # Errors
    /// See [`OpenError`]. Damaged files are no error: what can be read is recovered, a copy of the file kept in
    /// `dir/damaged`, and [`Recovered::problems`] tells of it.
    pub fn open(dir: &Path, options: &Options) -> Result<(Self, Recovered), OpenError> {
        let _ = (dir, options);
        Ok((Self {}, Recovered::default()))
    }

    /// Writes the index, `ofchannels.csv`, on a thread of its own; called each `write_index_ms`. What went wrong in the
    /// last call is told by the next one and by [`Disk::findings`].
    ///
    /// # Errors
    /// The index could not be written, or the records that it speaks of.
    pub fn save_index(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    /// Writes what is left and the index, as the last thing of a clean stop. Without records no file stays.
    ///
    /// # Errors
    /// That failed; the next start finds the records all the same, from what is in the files.
    pub fn close(self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl Disk for Overflow {
    fn keeps_all(&self) -> bool {
        false
    }
    fn create(&mut self, _queue: QueueId, _name: &str) -> Result<(), DiskError> {
        Ok(())
    }
    fn rename(&mut self, _queue: QueueId, _name: &str) -> Result<(), DiskError> {
        Ok(())
    }
    fn remove(&mut self, _queue: QueueId) -> Result<(), DiskError> {
        Ok(())
    }
    fn reserve(&mut self, _records: usize, _bytes: u64) -> Result<(), DiskError> {
        Ok(())
    }
    fn append(&mut self, _queue: QueueId, _record: &[u8]) -> Result<(), DiskError> {
        Ok(())
    }
    fn read(&mut self, _queue: QueueId, _from: u64, _max: usize, _out: &mut Vec<u8>) -> Result<Read, DiskError> {
        Ok(Read::default())
    }
    fn release(&mut self, _queue: QueueId, _from: u64, _to: u64) -> Result<(), DiskError> {
        Ok(())
    }
    fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
    fn bytes_on_disk(&self) -> u64 {
        0
    }
    fn findings(&self, _findings: &mut Vec<Finding>) {}
}

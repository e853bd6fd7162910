//! What stands behind the queues in memory: records on disk.
//!
//! There are two: the overflow takes what finds no room in memory, in the published files; the journal takes every
//! record and makes it durable. A node has one of them or none.
//!
//! The records of a queue are numbered from 0 in the order of [`Disk::append`], those that were found at the start
//! first; numbers have no gaps and are not kept over a restart.

#[cfg(test)]
pub(crate) mod contract;

use std::io;

use overstory_node::inspect::Finding;

/// A queue, as all parts know it. Numbers grow with each queue that is made, from 1, as in the published files.
pub type QueueId = u32;

/// Records of queues on disk. All calls come from the node's thread.
pub trait Disk {
    /// Whether every record comes here with its push (the journal), or only what finds no room in memory.
    fn keeps_all(&self) -> bool;

    /// Says that there is a queue of this name (`channel` or `subscriber@channel`) without records. What follows about
    /// the queue may use the number only.
    ///
    /// # Errors
    /// See [`DiskError`].
    fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError>;

    /// Gives a queue another name; its records stay.
    ///
    /// # Errors
    /// See [`DiskError`].
    fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError>;

    /// Forgets a queue and its records.
    ///
    /// # Errors
    /// See [`DiskError`]. In memory it is forgotten all the same.
    fn remove(&mut self, queue: QueueId) -> Result<(), DiskError>;

    /// Makes sure that the next `records` appended records of `bytes` bytes in all find room. Called once before each
    /// push, so that a push to several queues is done in all of them or in none.
    ///
    /// # Errors
    /// [`DiskError::Full`] when there is no room; the push is refused and nothing has changed.
    fn reserve(&mut self, records: usize, bytes: u64) -> Result<(), DiskError>;

    /// Appends a record, for which room was reserved. It need not be in a file before [`Self::settle`].
    ///
    /// # Errors
    /// See [`DiskError`]; not [`DiskError::Full`].
    fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError>;

    /// Appends the records from number `from` on to `out`, each as a u64 length and its bytes: as many whole records as
    /// fit into `max` bytes, and at least one.
    ///
    /// # Errors
    /// See [`DiskError`]. Records that cannot be read are no error: they are reported and passed over, [`Read::lost`].
    fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError>;

    /// Says that the records `from..to` are not needed any more. The overflow is told of them in order without gaps, the
    /// journal of any, once each.
    ///
    /// # Errors
    /// See [`DiskError`].
    fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError>;

    /// Writes what came since the last call to the files, such that it survives the end of the process. Called before
    /// the replies to it are sent, and cheap when there is nothing to write. (The journal, by
    /// [`overstory_node::commit::Commits`], lets the replies to pushes wait until it is durable, too.)
    ///
    /// # Errors
    /// See [`DiskError`]: the replies are not sent then.
    fn settle(&mut self) -> Result<(), DiskError>;

    /// Bytes that the files take.
    fn bytes_on_disk(&self) -> u64;

    /// Adds what is wrong: writes that failed, records that could not be read.
    fn findings(&self, findings: &mut Vec<Finding>);
}

/// What [`Disk::read`] read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// So many records from `from` on could not be read and are gone; the others follow them.
    pub lost: u64,
    /// So many were appended to `out`. Not 0, unless all that was left is lost.
    pub records: u64,
}

/// A queue that was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredQueue {
    /// Its number; new queues get higher ones.
    pub queue: QueueId,
    /// Its name.
    pub name: String,
    /// Its records.
    pub records: u64,
    /// Their bytes, without lengths.
    pub bytes: u64,
}

/// Why something could not be brought to disk or read from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no room.
    #[error("no room on disk: {0}")]
    Full(#[source] io::Error),
    /// A file cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A write failed before; nothing is taken any more.
    #[error("writing has failed before; nothing more is taken until the node is restarted")]
    Failed,
}

//! The journal: every record of every queue in one log on disk, durable before its push is answered.
//!
//! The log is a row of preallocated segment files, described in `docs/formats/queue-journal.md`; why it is made like
//! this, and why what is released stays released, in `docs/adr/queue-journal.md`. One thread makes groups of entries
//! durable while the node's thread goes on and gathers the next group. In memory is an index of two to three bytes per
//! record.

mod closed;
mod files;
mod format;
mod groups;
mod index;
mod keep;
mod log;
mod moving;
mod reading;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod told;
mod worker;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use overstory_node::commit::Commits;
use overstory_node::inspect::Finding;

use crate::disk::{Disk, DiskError, QueueId, Read, RecoveredQueue};
use log::Log;

/// How long what was only released waits for a write to the disk that nobody else causes.
const LAZY: Duration = Duration::from_secs(1);

/// How a journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of a segment file in bytes; at least 64 KiB. A push that needs more gets a larger segment of its own.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 * 1024 * 1024 }
    }
}

/// What was found when a journal was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The queues, by number.
    pub queues: Vec<RecoveredQueue>,
    /// What is damaged, with file and offset, and where a copy of it is kept. One line each, at most some hundred.
    pub problems: Vec<String>,
    /// Bytes of entries that a crash cut short; nothing in them was acknowledged.
    pub unfinished: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses it.
    #[error("{}: another process uses this journal", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A segment has a format of a later version.
    #[error("{}: written by a later version (format {version}); nothing was changed", .path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

/// All queues' records, on disk. Belongs to the node's thread.
#[derive(Debug)]
pub struct Journal {
    log: Rc<RefCell<Log>>,
}

/// The half of a journal that the node's program keeps: see [`run`].
#[derive(Debug, Clone)]
pub struct Driver {
    log: Rc<RefCell<Log>>,
}

impl Journal {
    /// Opens the journal in `dir/journal`, makes it if there is none, and reads its index. Damaged segments are kept in
    /// `dir/damaged`. Appends, creations, renames and removals count as changes of `commits`.
    ///
    /// To bring its records elsewhere: open it, read, release, and [`Driver::sync_now`].
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is no error, see [`Recovered::problems`].
    pub fn open(dir: &Path, options: &Options, commits: Rc<Commits>) -> Result<(Self, Recovered), OpenError> {
        let (log, recovered) = Log::open(dir, options, commits, Box::new(files::System))?;
        Ok((Self { log: Rc::new(RefCell::new(log)) }, recovered))
    }

    /// What [`run`] needs; the program spawns it on the node's thread.
    #[must_use]
    pub fn driver(&self) -> Driver {
        Driver { log: Rc::clone(&self.log) }
    }
}

impl Driver {
    /// Makes everything durable before it returns: after an import, and as the last thing at the end of the program.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn sync_now(&self) -> Result<(), DiskError> {
        self.log.borrow_mut().sync_now()
    }

    /// The last thing of an orderly stop: makes everything durable, and notes what has to be there at the next start.
    ///
    /// # Errors
    /// See [`DiskError`]. That the note cannot be written is none.
    pub fn close(&self) -> Result<(), DiskError> {
        let mut log = self.log.borrow_mut();
        log.sync_now()?;
        log.note_closed();
        Ok(())
    }

    /// Bytes of memory that the index takes, about.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.log.borrow().memory()
    }
}

/// Tells [`Commits`] what has become durable, starts the next group of what came meanwhile, and moves records out of
/// old segments. Never ends by itself: spawn it on the node's thread and drop it with the node.
pub async fn run(driver: Driver) {
    loop {
        let done = tokio::time::timeout(LAZY, poll_fn(|cx| driver.log.borrow_mut().poll_done(cx))).await;
        match done {
            Ok(Some(done)) => driver.log.borrow_mut().finished(done),
            Ok(None) => return,
            Err(_elapsed) => driver.log.borrow_mut().idle(),
        }
        while driver.log.borrow_mut().tidy() {
            tokio::task::yield_now().await;
            // A long move keeps no reply waiting.
            driver.log.borrow_mut().take_done();
        }
    }
}

impl Disk for Journal {
    fn keeps_all(&self) -> bool {
        true
    }

    fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.log.borrow_mut().create(queue, name)
    }

    fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.log.borrow_mut().rename(queue, name)
    }

    fn remove(&mut self, queue: QueueId) -> Result<(), DiskError> {
        self.log.borrow_mut().remove(queue)
    }

    fn reserve(&mut self, records: usize, bytes: u64) -> Result<(), DiskError> {
        self.log.borrow_mut().reserve(records, bytes)
    }

    fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
        self.log.borrow_mut().append(queue, record)
    }

    fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError> {
        self.log.borrow_mut().read(queue, from, max, out)
    }

    fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError> {
        self.log.borrow_mut().release(queue, from, to)
    }

    fn settle(&mut self) -> Result<(), DiskError> {
        self.log.borrow_mut().settle()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.log.borrow().bytes_on_disk()
    }

    fn findings(&self, findings: &mut Vec<Finding>) {
        self.log.borrow().findings(findings);
    }
}

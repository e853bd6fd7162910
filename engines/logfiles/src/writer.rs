//! The thread that writes: everything that changes a bucket's file goes through its one queue, in order.
//!
//! The node's thread gives it [`Job`]s and never waits; what became of them comes back as [`Done`]. Writes are performed
//! in runs: the log says durably which buckets are touched, once for all buckets of a run, then they are written.
//!
//! While the disk is full or the log cannot be written the queue stands still: the write is repeated every
//! [`Setup::retry`], after what it left in the file was cut off. Only the removal of channels and buckets overtakes it,
//! since that makes room. A bucket whose own file cannot be opened or written is set aside with what is for it (`bad`), and
//! the others go on.

mod bad;
mod due;
mod files;
mod queue;
mod rewrite;
mod run;
mod sync;
mod syncers;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::bucket::BucketNumber;
use crate::catalogue::{ChannelId, Entry, Log};
use crate::disk::Disk;
use crate::record::Framing;
use crate::recovery::Missing;
use crate::rewrites::{AsOf, Rewrites};

pub(crate) use queue::Queue;
pub(crate) use run::Writer;

/// Messages that wait for the node's thread at most; the writer waits then.
const DONE: usize = 64;

/// A bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) channel: ChannelId,
    pub(crate) number: BucketNumber,
}

/// A channel, as the writer needs it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) id: ChannelId,
    pub(crate) name: Arc<str>,
    pub(crate) dir: Arc<Path>,
}

/// Something that could not be written, or not be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unwritten(pub(crate) String);

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Unwritten>>;

/// Records for a bucket.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) place: Place,
    pub(crate) number: BucketNumber,
    /// Which of the node's write buffers it comes from.
    pub(crate) source: Source,
    /// What the node knows of the bucket; the writer knows better if it has the bucket at hand.
    pub(crate) entry: Entry,
    /// How a new file begins.
    pub(crate) format: crate::format::Format,
    pub(crate) framing: Framing,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) records: u64,
    pub(crate) value_bytes: u64,
}

impl Chunk {
    pub(crate) const fn key(&self) -> Key {
        Key { channel: self.place.id, number: self.number }
    }
}

/// A write buffer of the node: its place among them, and a number that no other one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) at: usize,
    pub(crate) serial: u64,
}

/// What the writer does.
#[derive(Debug)]
pub(crate) enum Job {
    Write(Box<Chunk>),
    /// The node has forgotten a bucket of which nothing is under way.
    Release(Key),
    /// Make durable what was written; `commit` is the number that is reached then.
    Sync {
        commit: u64,
    },
    Checkpoint,
    /// What the thread that makes files durable for a checkpoint has done.
    Durable(Box<due::Durable>),
    RemoveChannel {
        place: Place,
        answer: Answer<()>,
    },
    /// Chunks whose sources have serial numbers below `before` are of the bucket that goes.
    RemoveBucket {
        place: Place,
        number: BucketNumber,
        before: u64,
        answer: Answer<()>,
    },
    Replace {
        place: Place,
        number: BucketNumber,
        as_of: AsOf,
        expected: u64,
        file: PathBuf,
        entry: Entry,
        answer: Answer<bool>,
    },
    TakeFront {
        place: Place,
        number: BucketNumber,
        as_of: AsOf,
        front: Entry,
        answer: Answer<()>,
    },
    /// Look again what is in a bucket.
    Rescan {
        place: Place,
        number: BucketNumber,
        entry: Entry,
        answer: Answer<()>,
    },
    /// A bucket that nobody had looked into has been counted.
    Counted {
        place: Place,
        number: BucketNumber,
        entry: Entry,
    },
    Flush(Answer<()>),
    /// Make durable what was written, by a checkpoint, and say so.
    Settle(Answer<()>),
    Close(Answer<()>),
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Done {
    Wrote {
        key: Key,
        source: Source,
        entry: Entry,
    },
    /// What the bucket is now; none if there is none any more.
    Changed {
        key: Key,
        entry: Option<Entry>,
    },
    /// A file was found to be shorter than it was.
    Missing(Missing),
    /// How many rewrites there were, the changes of which were told before.
    Rewrote(u64),
    /// Everything up to this is durable; when it is `lost`, but for what was for buckets that cannot be written.
    Synced {
        commit: u64,
        lost: bool,
    },
    /// A bucket cannot be written, its records wait.
    Bad {
        key: Key,
        why: String,
    },
    /// It can be again, or is gone.
    Mended(Key),
    /// How it is with writing from now on.
    Trouble(Option<Trouble>),
    /// Something could not be made durable, whatever comes later.
    SyncFailed(String),
    /// Bytes that are written but not durable, and open files.
    Figures(Figures),
    Answer(Answer<()>, Result<(), Unwritten>),
    AnswerBool(Answer<bool>, Result<bool, Unwritten>),
}

/// Figures of the writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) unsynced_bytes: u64,
    pub(crate) open_files: u64,
    pub(crate) touched: u64,
    /// Checkpoints that were written, or needed not be.
    pub(crate) checkpoints: u64,
}

/// Why nothing is written at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The disk is full.
    pub(crate) full: bool,
    pub(crate) text: String,
}

impl Trouble {
    fn new(what: &str, error: &io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self { full, text: format!("{what}: {error}") }
    }
}

/// How the writer works.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) rewrites: Arc<Rewrites>,
    pub(crate) always: bool,
    pub(crate) open_files: usize,
    pub(crate) level: i32,
    pub(crate) retry: Duration,
    pub(crate) dir: PathBuf,
}

/// What the node's thread has of the writer. Dropping it ends the thread after what it does at the moment: as if the
/// process had been killed.
#[derive(Debug)]
pub(crate) struct Handle {
    queue: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Handle {
    /// Starts the thread.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        log: Log,
        setup: Setup,
        unsynced: Vec<(Place, BucketNumber, Entry, Option<String>)>,
    ) -> io::Result<(Self, mpsc::Receiver<Vec<Done>>)> {
        let (done, receiver) = mpsc::channel(DONE);
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(disk, log, setup, Arc::clone(&queue), done, unsynced)?;
        let thread = std::thread::Builder::new().name("logfiles-writer".into()).spawn(move || writer.run())?;
        Ok((Self { queue, thread: Some(thread) }, receiver))
    }

    pub(crate) fn give(&self, job: Job) {
        self.queue.push(job);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.abandon();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

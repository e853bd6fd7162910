//! Answers ranges of keys with batches, made by threads of their own.
//!
//! ```text
//! node's thread                            reading threads
//!   Scan::poll ──── views of buckets ────▶  queue of jobs: each in turn makes one batch
//!        ▲  ▲                                  │ open, read ahead, walk, filter, encode
//!        │  └───────────── batches ────────────┤ two per job and ReadsOptions::ready_bytes for all,
//!        └── Waker ◀── Reads::drive ◀──────────┘ then the job waits for its client
//! ```
//!
//! A request goes from bucket to bucket and holds one file, one window of it and the batches that are ready, however
//! much it asks for: views come in portions. A thread never waits for a client. What is damaged is told and passed, so
//! that a request fails only if the node itself has no memory or files left, and then says so.

mod batch;
mod bucket;
mod buffers;
mod job;
mod pool;
pub mod view;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use overstory_node::wake::Waker;

use crate::bucket::Ranges;
use crate::damages::Damage;
use crate::disk::Disk;
use crate::filter::Filter;

pub use batch::{Batch, EMPTY_BATCH, Shape};
use job::place;
use pool::{Pool, Slot};
pub use view::{After, AsOf, BucketView, Tail, Views};

/// Views that are fetched at a time.
const PORTION: usize = 64;
/// The same, until it is known whether they have records that are only in memory.
const PART: usize = 2;
/// Bytes of such records from which on no more views are fetched.
const TAILS: usize = 256 << 10;

/// How requests are read.
#[derive(Debug, Clone, Copy)]
pub struct ReadsOptions {
    /// Threads, 1 or more.
    pub threads: usize,
    /// Bytes of batches that are ready, and of windows and of copies of write buffers of requests that wait, for all
    /// requests. Above, a request makes a batch only when its client asks for it.
    pub ready_bytes: usize,
    /// Files that requests keep open while they wait.
    pub open_files: usize,
}

impl Default for ReadsOptions {
    /// Two threads for each processor, 4 to 20: some of them wait for the disk.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self { threads: (processors * 2).clamp(4, 20), ready_bytes: 64 << 20, open_files: 256 }
    }
}

/// What is read.
#[derive(Debug)]
pub struct ReadRequest {
    /// The channel; one that does not exist has no records.
    pub channel: Arc<str>,
    /// The keys.
    pub ranges: Ranges,
    /// The values.
    pub filter: Filter,
    /// How they are sent.
    pub shape: Shape,
    /// Whether batches are compressed, where that makes them smaller.
    pub compress: bool,
}

/// What the readers found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// A part of a bucket cannot be read.
    Damage(Damage),
    /// A request left out records because a match was given up at its limit; told when the request is over.
    Undecided {
        /// The channel.
        channel: Arc<str>,
        /// How many records.
        records: u64,
    },
    /// A request failed.
    Failed {
        /// The channel.
        channel: Arc<str>,
        /// Why, in words.
        why: String,
    },
}

/// The readers of a node; a handle for its thread.
#[derive(Clone)]
pub struct Reads {
    pool: Rc<Pool>,
}

impl Reads {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(disk: Arc<dyn Disk>, options: ReadsOptions) -> io::Result<Self> {
        Ok(Self { pool: Rc::new(Pool::start(disk, options)?) })
    }

    /// Begins to read. The waker is used when [`Scan::poll`] has something after it had nothing.
    #[must_use]
    pub fn start(&self, views: Rc<dyn Views>, request: ReadRequest, waker: Waker) -> Scan {
        let (channel, ranges) = (Arc::clone(&request.channel), request.ranges);
        let slot = self.pool.add(request, waker);
        let mut scan = Scan { pool: Rc::clone(&self.pool), slot, views, channel, ranges, fetched: Vec::new() };
        scan.feed();
        scan
    }

    /// Wakes the requests that have something, and gives away what the readers found; until it is dropped. One for each
    /// node, on its thread.
    pub async fn drive(&self, mut sink: impl FnMut(Told)) {
        let shared = self.pool.shared();
        loop {
            shared.news.notified().await;
            for slot in shared.take_woken() {
                self.pool.wake(slot);
            }
            shared.take_told().into_iter().for_each(&mut sink);
        }
    }

    /// How much is going on.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.pool.usage()
    }
}

/// How much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Requests that are being answered.
    pub requests: usize,
    /// Bytes of batches that are ready, and of windows and copies of write buffers of requests that wait.
    pub ready_bytes: usize,
    /// Files that are open.
    pub files: usize,
}

/// What a request has for its client.
#[derive(Debug)]
pub enum Next {
    /// The next records.
    Batch(Batch),
    /// Nothing yet; the waker says when to ask again.
    Wait,
    /// There are no more.
    End,
    /// It cannot be answered to its end. What was given is right.
    Failed,
}

/// A request that is being answered; dropped, it is cancelled.
pub struct Scan {
    pool: Rc<Pool>,
    slot: Slot,
    views: Rc<dyn Views>,
    channel: Arc<str>,
    ranges: Ranges,
    fetched: Vec<BucketView>,
}

impl Scan {
    /// The next batch, if it is ready.
    pub fn poll(&mut self) -> Next {
        let next = self.slot.poll(&self.pool);
        self.feed();
        next
    }

    /// How many records were left out because a match was given up at its limit; known at the end.
    #[must_use]
    pub fn undecided(&self) -> u64 {
        self.slot.undecided()
    }

    /// Hands over views where they are running short.
    fn feed(&mut self) {
        let Some((after, round)) = self.slot.wants_views(&self.pool) else { return };
        let (mut last, mut all, mut tails) = (after, false, 0);
        while !all && self.fetched.len() < PORTION && tails < TAILS {
            let (had, most) = (self.fetched.len(), PORTION - self.fetched.len());
            let most = if had > 0 && tails == 0 { most } else { most.min(PART) };
            self.views.views(&self.channel, &self.ranges, last, most, &mut self.fetched);
            all = self.fetched.len() < had + most;
            last = self.fetched.last().map(|view| place(&self.ranges, view.number)).or(last);
            tails +=
                self.fetched.iter().skip(had).flat_map(|view| &view.tail).map(|tail| tail.bytes.len()).sum::<usize>();
        }
        self.slot.give_views(&self.pool, round, &mut self.fetched, last, all);
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.slot.cancel(&self.pool);
    }
}

#[cfg(test)]
mod tests;

//! A dump in progress, as the node's thread sees it.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use overstory_swarm::key::Key;

use super::chunk::Chunk;
use super::data_dir::DataDir;
use super::writer::{self, Job, Notify, Told};
use super::{CHUNKS, ChannelDump, DumpError, DumpOptions, Outcome};
use crate::storage::{Scan, Store};
use crate::tcm::Writer;

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Calls again, after others had their turn.
    Again,
    /// Calls again when it was notified: the disk is behind.
    Wait,
    /// Calls [`Dumper::finish`].
    Done,
}

/// A dump in progress.
#[derive(Debug)]
pub struct Dumper {
    dir: DataDir,
    names: VecDeque<String>,
    current: Option<Current>,
    /// Channels whose end is not told yet.
    committing: VecDeque<(String, u64)>,
    done: Vec<ChannelDump>,
    free: Vec<Chunk>,
    jobs: Option<SyncSender<Job>>,
    told: Receiver<Told>,
    thread: Option<JoinHandle<()>>,
}

/// The channel that is being encoded.
#[derive(Debug)]
struct Current {
    channel: String,
    failed: Arc<AtomicBool>,
    after: Option<Key>,
    records: u64,
    /// Bytes that were encoded.
    bytes: u64,
    /// What did not fit into the last buffer.
    spill: Vec<u8>,
    /// There are no more records; the end mark is encoded.
    ended: bool,
    /// Everything was sent.
    complete: bool,
}

impl Dumper {
    /// Begins a dump of `names`; `notify` is called on another thread whenever a [`Step::Wait`] is over.
    #[must_use]
    pub fn start(names: Vec<String>, dir: &DataDir, options: DumpOptions, notify: Notify) -> Self {
        // Room for every buffer and a beginning and an end of each channel in flight: sending never blocks.
        let (jobs, take_jobs) = sync_channel(CHUNKS * 4);
        let (tell, told) = sync_channel(CHUNKS * 4);
        let writer_dir = dir.clone();
        let thread = std::thread::Builder::new()
            .name("dump".into())
            .spawn(move || writer::run(&writer_dir, options, &take_jobs, &tell, &notify));
        let mut dumper = Self {
            dir: dir.clone(),
            names: names.into(),
            current: None,
            committing: VecDeque::new(),
            done: Vec::new(),
            free: (0..CHUNKS).map(|_| Chunk::new()).collect(),
            jobs: Some(jobs),
            told,
            thread: None,
        };
        match thread {
            Ok(thread) => dumper.thread = Some(thread),
            Err(error) => {
                // Nothing can be written: every channel fails with the cause.
                let kind = error.kind();
                for channel in std::mem::take(&mut dumper.names) {
                    let source = io::Error::new(kind, error.to_string());
                    let error = DumpError { what: "start the thread that writes", path: dir.file(&channel), source };
                    dumper.done.push(ChannelDump { channel, records: 0, bytes: 0, outcome: Outcome::Failed(error) });
                }
            }
        }
        dumper
    }

    /// Encodes the next slice: at most one buffer, some tenths of a millisecond.
    pub fn step(&mut self, store: &Store) -> Step {
        loop {
            match self.told.try_recv() {
                Ok(told) => self.hear(told),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.writer_died();
                    return Step::Done;
                }
            }
        }
        if self.current.is_none() {
            // A file at a time is brought to the disk while the next one is encoded.
            if self.committing.len() >= 2 {
                return Step::Wait;
            }
            match self.names.pop_front() {
                Some(name) => self.begin(store, name),
                None if self.committing.is_empty() => return Step::Done,
                None => return Step::Wait,
            }
        }
        let Some(current) = &mut self.current else { return Step::Again };
        if current.failed.load(Ordering::Acquire) || store.channel(&current.channel).is_none() {
            self.end(Job::Abort);
            return Step::Again;
        }
        if current.complete {
            self.end(Job::Commit);
            return Step::Again;
        }
        let Some(mut chunk) = self.free.pop() else { return Step::Wait };
        current.encode(store, &mut chunk);
        self.send(Job::Write(chunk));
        Step::Again
    }

    /// Waits on this thread for what [`Step::Wait`] waits for.
    pub fn wait(&mut self) {
        match self.told.recv() {
            Ok(told) => self.hear(told),
            Err(_) => self.writer_died(),
        }
    }

    /// Ends the dump and tells how the channels went.
    #[must_use]
    pub fn finish(mut self) -> Vec<ChannelDump> {
        std::mem::take(&mut self.done)
    }

    fn begin(&mut self, store: &Store, channel: String) {
        if store.channel(&channel).is_none() {
            self.done.push(ChannelDump { channel, records: 0, bytes: 0, outcome: Outcome::Removed });
            return;
        }
        self.dir.begin(&channel);
        let failed = Arc::new(AtomicBool::new(false));
        self.send(Job::Begin { channel: channel.clone(), failed: Arc::clone(&failed) });
        let mut spill = Vec::new();
        Writer::begin(&mut spill);
        self.current =
            Some(Current { channel, failed, after: None, records: 0, bytes: 0, spill, ended: false, complete: false });
    }

    fn end(&mut self, job: Job) {
        if let Some(current) = self.current.take() {
            self.committing.push_back((current.channel, current.records));
            self.send(job);
        }
    }

    fn send(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // When the thread is gone the next step finds out.
            let _sent = jobs.send(job);
        }
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Free(chunk) => self.free.push(chunk),
            Told::Over(bytes, outcome) => {
                if let Some((channel, records)) = self.committing.pop_front() {
                    self.done.push(ChannelDump { channel, records, bytes, outcome });
                }
            }
        }
    }

    /// The writing thread panicked: what is not written fails.
    fn writer_died(&mut self) {
        let current = self.current.take().map(|current| current.channel);
        let committing = std::mem::take(&mut self.committing).into_iter().map(|(channel, _)| channel);
        let names = std::mem::take(&mut self.names);
        for channel in committing.chain(current).chain(names) {
            self.dir.end(&channel);
            let source = io::Error::other("the writing thread ended");
            let error = DumpError { what: "write", path: self.dir.file(&channel), source };
            self.done.push(ChannelDump { channel, records: 0, bytes: 0, outcome: Outcome::Failed(error) });
        }
    }
}

impl Drop for Dumper {
    /// Gives up the unfinished file. A file that is being brought to the disk is not waited for unless all is told.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if self.committing.is_empty()
            && self.current.is_none()
            && let Some(thread) = self.thread.take()
        {
            let _ended = thread.join();
        }
    }
}

impl Current {
    /// Fills the buffer; only the last one of a file is not full.
    fn encode(&mut self, store: &Store, chunk: &mut Chunk) {
        let rest = chunk.push(&self.spill).len();
        self.spill.drain(..self.spill.len() - rest);
        if !self.ended && !chunk.is_full() {
            let Self { after, records, spill, .. } = self;
            let scan = store.scan(&self.channel, *after, &mut |key, value| {
                *after = Some(key);
                if value.is_empty() {
                    return ControlFlow::Continue(());
                }
                *records += 1;
                spill.extend_from_slice(chunk.push(&Writer::head(key, value.len())));
                spill.extend_from_slice(chunk.push(value));
                if chunk.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if scan == Scan::End {
                self.ended = true;
                let mut tail = Vec::new();
                let before = self.bytes + (chunk.bytes().len() + self.spill.len()) as u64;
                Writer::finish(&mut tail, before);
                self.spill.extend_from_slice(chunk.push(&tail));
            }
        }
        self.bytes += chunk.bytes().len() as u64;
        self.complete = self.ended && self.spill.is_empty();
    }
}

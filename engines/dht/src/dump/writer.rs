//! The thread that writes what the node's thread encodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use super::chunk::Chunk;
use super::data_dir::DataDir;
use super::file::TempFile;
use super::{DumpError, DumpOptions, Outcome};

/// What the writing thread is told.
#[derive(Debug)]
pub(super) enum Job {
    /// A channel begins; the flag is set when its file cannot be written.
    Begin { channel: String, failed: Arc<AtomicBool> },
    /// What comes next in the file.
    Write(Chunk),
    /// The file is complete.
    Commit,
    /// The file is given up.
    Abort,
}

/// What the writing thread tells.
#[derive(Debug)]
pub(super) enum Told {
    /// A buffer is free again.
    Free(Chunk),
    /// A channel is over: its file's bytes and how it went.
    Over(u64, Outcome),
}

/// Called when something was told.
pub(super) type Notify = Arc<dyn Fn() + Send + Sync>;

/// Runs until the node's thread hangs up; begins when a dump that was given up before has ended.
pub(super) fn run(dir: &DataDir, options: DumpOptions, jobs: &Receiver<Job>, told: &SyncSender<Told>, notify: &Notify) {
    let _alone = dir.write_alone();
    let mut current: Option<Current> = None;
    while let Ok(job) = jobs.recv() {
        let tell = match job {
            Job::Begin { channel, failed } => {
                current = Some(Current::begin(dir, channel, failed, options));
                continue;
            }
            Job::Write(mut chunk) => {
                if let Some(current) = &mut current {
                    current.write(&chunk);
                }
                chunk.clear();
                Told::Free(chunk)
            }
            Job::Commit => match current.take() {
                Some(current) => current.commit(dir),
                None => continue,
            },
            Job::Abort => match current.take() {
                Some(current) => current.abort(dir),
                None => continue,
            },
        };
        if told.send(tell).is_err() {
            break;
        }
        notify();
    }
    if let Some(current) = current {
        current.abort(dir);
        notify();
    }
}

struct Current {
    channel: String,
    file: Result<TempFile, DumpError>,
    bytes: u64,
    failed: Arc<AtomicBool>,
}

impl Current {
    fn begin(dir: &DataDir, channel: String, failed: Arc<AtomicBool>, options: DumpOptions) -> Self {
        let file = TempFile::create(dir, &channel, options);
        failed.store(file.is_err(), Ordering::Release);
        Self { channel, file, bytes: 0, failed }
    }

    fn write(&mut self, chunk: &Chunk) {
        let Ok(file) = &mut self.file else { return };
        match file.write(chunk.bytes()) {
            Ok(()) => self.bytes += chunk.bytes().len() as u64,
            Err(error) => {
                self.failed.store(true, Ordering::Release);
                // The unfinished file goes at once, so that its space is free again.
                self.file = Err(error);
            }
        }
    }

    fn commit(self, dir: &DataDir) -> Told {
        let outcome = match self.file.and_then(TempFile::commit) {
            Ok(true) => Outcome::Written,
            Ok(false) => Outcome::Removed,
            Err(error) => Outcome::Failed(error),
        };
        dir.end(&self.channel);
        Told::Over(self.bytes, outcome)
    }

    fn abort(self, dir: &DataDir) -> Told {
        dir.end(&self.channel);
        Told::Over(self.bytes, self.file.map_or_else(Outcome::Failed, |_dropped| Outcome::Removed))
    }
}

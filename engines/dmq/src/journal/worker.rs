//! Threads that wait for the disk, so that the node's thread need not.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::Sender;

use super::files::Files;
use super::segment::{self, Fresh};

/// More than are ever under way.
pub(super) const JOBS: usize = 8;

/// Something that waits for the disk.
#[derive(Debug)]
pub(super) enum Job {
    /// Make these files durable.
    Sync { files: Vec<(u64, Arc<File>)>, group: Group },
    /// Make a segment that can be used at once.
    Prepare { serial: u64, size: u64 },
    /// Remove a segment for good.
    Remove { serial: u64 },
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Done {
    Synced { group: Group, result: io::Result<()> },
    Prepared(io::Result<Fresh>),
    Removed { serial: u64, result: io::Result<()> },
}

/// What is durable once a group is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Bytes appended.
    pub(super) upto: u64,
    /// Changes.
    pub(super) commit: u64,
    /// Segment and offset.
    pub(super) mark: (u64, u64),
}

/// A thread; ended and waited for when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads work on.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) names: Arc<File>,
    pub(super) files: Box<dyn Files>,
}

impl Worker {
    pub(super) fn start(name: &str, place: Place, done: Sender<Done>) -> io::Result<Self> {
        let (jobs, todo) = sync_channel(JOBS);
        let work = move || {
            while let Ok(job) = todo.recv() {
                if done.blocking_send(place.perform(job)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// False if the thread has ended before its time.
    pub(super) fn is_there(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// False if the thread is not there any more.
    pub(super) fn give(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Place {
    fn perform(&self, job: Job) -> Done {
        match job {
            Job::Sync { files, group } => Done::Synced { group, result: self.sync(&files) },
            Job::Prepare { serial, size } => {
                Done::Prepared(segment::make_durable(&self.dir, serial, size, &*self.files, &self.names))
            }
            Job::Remove { serial } => Done::Removed { serial, result: self.remove(serial) },
        }
    }

    fn sync(&self, files: &[(u64, Arc<File>)]) -> io::Result<()> {
        files.iter().try_for_each(|(serial, file)| self.files.sync(file, *serial))
    }

    /// The directory is durable before the next segment goes: an older one never comes back without a newer one.
    fn remove(&self, serial: u64) -> io::Result<()> {
        match fs::remove_file(segment::path(&self.dir, serial)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.names.sync_all()
    }
}

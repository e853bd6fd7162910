//! The directory of a node's files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

/// What the name of a channel's file ends with.
pub const SUFFIX: &str = ".tcm";
/// What the name of the file before that ends with.
pub const BACKUP_SUFFIX: &str = ".tcm.backup";
/// What the name of a file that is being written ends with.
pub const DUMPING_SUFFIX: &str = ".dumping";
/// Where files of removed channels go.
pub const DELETED: &str = "deleted";
/// Where files stay from which not everything could be loaded; made when it is needed.
pub const DAMAGED: &str = "damaged";

/// The directory of a node's files; clones share their knowledge of the dump that is running.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: Arc<Path>,
    /// The channels that are being dumped, and whether they were removed since.
    in_flight: Arc<Mutex<HashMap<String, bool>>>,
    /// Held by the dump that writes. One that was given up may still bring a file to the disk, and must not put it in
    /// the place of a newer one.
    writing: Arc<Mutex<()>>,
    pub(super) seam: Arc<dyn Seam>,
}

/// A step of writing a file, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileStep {
    /// The temporary file is made.
    Create,
    /// Part of it is written.
    Write,
    /// It is brought to the disk.
    Sync,
    /// The old file gets a second name.
    Link,
    /// That name becomes `.tcm.backup`.
    Backup,
    /// The new file takes its place.
    Rename,
    /// The directory is brought to the disk.
    SyncDir,
}

/// Where tests break in.
pub trait Seam: Send + Sync + std::fmt::Debug {
    /// Called before each step; an error takes the place of the step.
    ///
    /// # Errors
    /// Those that a test wants to see.
    fn before(&self, _step: FileStep) -> io::Result<()> {
        Ok(())
    }

    /// Whether the process is to be thought of as killed: nothing is cleaned up.
    fn killed(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct NoSeam;
impl Seam for NoSeam {}

impl DataDir {
    /// Opens the directory; makes it and `deleted/` in it unless they are there.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path.join(DELETED))?;
        Ok(Self { path: path.into(), in_flight: Arc::default(), writing: Arc::default(), seam: Arc::new(NoSeam) })
    }

    /// The same directory with a seam.
    #[cfg(test)]
    pub(super) fn with_seam(&self, seam: Arc<dyn Seam>) -> Self {
        Self { seam, ..self.clone() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a channel. The name has been checked.
    #[must_use]
    pub fn file(&self, channel: &str) -> PathBuf {
        self.path.join(format!("{channel}{SUFFIX}"))
    }

    /// The channel's file before that.
    #[must_use]
    pub fn backup_file(&self, channel: &str) -> PathBuf {
        self.path.join(format!("{channel}{BACKUP_SUFFIX}"))
    }

    /// When the newest dump in the directory was written; nothing if there is none.
    #[must_use]
    pub fn newest(&self) -> Option<SystemTime> {
        let entries = fs::read_dir(&self.path).ok()?.flatten();
        let dumps = entries.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes()));
        let written =
            |entry: fs::DirEntry| fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?.modified().ok();
        dumps.filter_map(written).max()
    }

    /// Moves the files of a removed channel to `deleted/`; one that is just being written is given up.
    ///
    /// Returns whether there was a file. The directory is brought to the disk in the background.
    ///
    /// # Errors
    /// A file is there and cannot be moved.
    pub fn move_to_deleted(&self, channel: &str) -> io::Result<bool> {
        let mut in_flight = self.lock();
        if let Some(removed) = in_flight.get_mut(channel) {
            *removed = true;
        }
        let deleted = self.path.join(DELETED);
        let mut any = false;
        for suffix in [SUFFIX, BACKUP_SUFFIX] {
            let name = format!("{channel}{suffix}");
            match fs::rename(self.path.join(&name), deleted.join(&name)) {
                Ok(()) => any = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        drop(in_flight);
        if any {
            let path = Arc::clone(&self.path);
            let sync = move || {
                for directory in [path.join(DELETED), path.to_path_buf()] {
                    if let Err(error) = File::open(&directory).and_then(|directory| directory.sync_all()) {
                        tracing::warn!(directory = %directory.display(), %error, "cannot bring the directory to the disk");
                    }
                }
            };
            // Without a thread the next dump does it.
            let _detached = std::thread::Builder::new().name("dir-sync".into()).spawn(sync);
        }
        Ok(any)
    }

    /// Waits until no other dump writes.
    pub(super) fn write_alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other process puts a dump in its place here, and keeps the others waiting while it is held.
    pub(super) fn keep_others_out(&self) -> Option<Flock<File>> {
        let directory = File::open(&self.path).ok()?;
        // Where directories cannot be locked there is one process less that could know better.
        Flock::lock(directory, FlockArg::LockExclusive).ok()
    }

    pub(super) fn begin(&self, channel: &str) {
        self.lock().insert(channel.to_owned(), false);
    }

    pub(super) fn end(&self, channel: &str) {
        self.lock().remove(channel);
    }

    /// Runs `replace` unless the channel was removed since [`Self::begin`]; it cannot be removed meanwhile.
    pub(super) fn replace<T>(&self, channel: &str, replace: impl FnOnce() -> T) -> Option<T> {
        let in_flight = self.lock();
        (!in_flight.get(channel).copied().unwrap_or(false)).then(replace)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

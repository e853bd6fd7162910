//! What a start makes of the data directory: the [`Catalogue`], and the [`Log`] that goes on from it.
//!
//! * After an orderly stop the catalogue's file is trusted; only directories whose names have changed are read.
//! * After the end of the process, in the same boot of the machine, a touched bucket is read from what the log knows of it
//!   to its end. Whole records stay, a part of one is cut off.
//! * After a power cut only what is proved stays in a touched bucket: what was durable at the last checkpoint, writes
//!   whose checksum the log has, and blocks of format 2.
//! * Without a usable catalogue all directories are read. The buckets of a `checkpoint.dat` are read from the offset there
//!   on; how many records the others have is found out later, by [`crate::retention`].
//!
//! What is cut off is kept in `.damaged/`. Why it is so: `docs/adr/logfiles-durability.md`.

mod bucket;
mod directories;
mod missing;
mod tail;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bucket::BucketNumber;
use crate::catalogue::state::{self, End, State};
use crate::catalogue::{Catalogue, Entry, Log, Was, due_at};
use crate::checkpoint;
use crate::disk::Disk;

pub use bucket::{Settled, settle};
pub(crate) use bucket::{format, path};
use directories::Directories;
pub use missing::Missing;
pub(crate) use missing::{GONE, Lost, SHORTER, share};

/// The directory in the data directory for what was cut off or could not be used. No channel has its name.
pub const DAMAGED: &str = ".damaged";
/// What the directory of a removed channel is called, with something behind it, until its files are gone.
pub const REMOVED: &str = ".removed-";
/// Problems that are told one by one.
const MAX_PROBLEMS: usize = 100;

/// What a start needs to know.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The identity of this boot of the machine (`/proc/sys/kernel/random/boot_id`); empty if it is not known, which is
    /// taken for another one each time.
    pub boot_id: String,
}

/// What a start has made.
pub struct Opened {
    /// All buckets.
    pub catalogue: Catalogue,
    /// The log, for the thread that writes.
    pub log: Log,
    /// Buckets that a process of this boot has written to, and that are not durable yet. They count as touched; the first
    /// checkpoint has to make them durable and name them.
    pub unsynced: Vec<Unsynced>,
    /// What happened.
    pub report: OpenReport,
}

/// A bucket that is not durable yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsynced {
    /// The channel.
    pub channel: Box<str>,
    /// The bucket.
    pub number: BucketNumber,
    /// What is in it.
    pub entry: Entry,
    /// Why its file could not be read; the entry is what was known of it before.
    pub trouble: Option<String>,
}

/// What a start found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// How the last process ended.
    pub end: LastEnd,
    /// Buckets that were read because they were being written to.
    pub recovered: u64,
    /// Buckets that were found in the directories only; they are not counted yet.
    pub found: u64,
    /// What was cut off.
    pub cut: Vec<Cut>,
    /// What is gone from the ends of files: at most 100, the others are among the problems.
    pub missing: Vec<Missing>,
    /// Files and directories that are left alone, because their names are none of a channel or slot.
    pub strange: u64,
    /// Files of a published system's cron (`275.gz`), which retention takes in.
    pub archives: u64,
    /// What an operator should know: at most 100 lines, and one that says how many more there are.
    pub problems: Vec<String>,
    more_problems: u64,
}

impl OpenReport {
    pub(crate) fn missing(&mut self, missing: Missing) {
        if self.missing.len() < MAX_PROBLEMS {
            self.missing.push(missing);
        } else {
            self.problem(missing.to_string());
        }
    }

    pub(crate) fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
            self.problems.truncate(MAX_PROBLEMS);
            self.problems.push(format!("{} more problems of this kind", self.more_problems));
        }
    }
}

/// How the last process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastEnd {
    /// There was none: an empty directory, or one of a published node.
    #[default]
    None,
    /// In order.
    Clean,
    /// It was killed; the machine went on.
    Killed,
    /// With the machine.
    PowerCut,
    /// Nobody knows: the catalogue was damaged.
    Unknown,
}

/// Bytes that were cut from the end of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The channel.
    pub channel: Box<str>,
    /// The bucket.
    pub number: BucketNumber,
    /// Where they began.
    pub offset: u64,
    /// How many they were.
    pub bytes: u64,
    /// Where they are now; none if they could not be kept.
    pub kept: Option<PathBuf>,
}

/// A start that cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be read or written.
    #[error("{}", .path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The catalogue was written by a later version of the node. Nothing was changed.
    #[error("{} has version {version}, which this node does not know", .path.display())]
    Newer {
        /// The catalogue.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// Reads what is in a data directory, and makes one if there is none.
///
/// # Errors
/// [`OpenError`]. Damage is none, in a bucket or in the catalogue: it is in the report.
pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    disk.create_dirs(dir).map_err(at(dir))?;
    let mut report = OpenReport::default();
    let loaded = load(&*disk, dir, &mut report)?;
    let boot = options.boot_id.as_bytes();
    let (mut state, mut was) = loaded.map_or_else(|| (State::default(), None), |(state, was)| (state, Some(was)));
    if was.is_some() {
        report.end = match state.closed {
            true => LastEnd::Clean,
            false if !boot.is_empty() && state.boot == boot => LastEnd::Killed,
            false => LastEnd::PowerCut,
        };
    }
    let mut directories =
        Directories { disk: &*disk, dir, state: &mut state, report: &mut report, changed: Vec::new(), differs: false };
    directories.read().map_err(at(dir))?;
    let (changed, differs) = (directories.changed, directories.differs);
    was.iter_mut().for_each(|was| was.changed.clone_from(&changed));
    // One of a published node, which has written to buckets that this one takes for known, or knows nothing of.
    let foreign = matches!(report.end, LastEnd::None | LastEnd::Clean | LastEnd::Unknown);
    if foreign {
        bucket::published(&*disk, dir, &mut state, &mut report);
    }
    let differs = differs || report.recovered > 0;
    if differs {
        // Whoever wrote these files may not have made them durable, and the log says that they are.
        if let Err(error) = disk.sync_all(dir) {
            report.problem(format!("{}: what was found cannot be made durable: {error}", dir.display()));
        }
    }
    let unsynced = bucket::recover(&*disk, dir, &mut state, &mut report);
    state.closed = false;
    state.boot = boot.to_vec();
    let log = resume(&disk, dir, &state, was, differs).map_err(at(&dir.join(crate::catalogue::FILE)))?;
    if foreign {
        remove_leftovers(&*disk, dir, &mut report);
    }
    let catalogue = Catalogue::of(state);
    Ok(Opened { catalogue, log, unsynced, report })
}

/// What the catalogue's file says, and where it ends; none if there is none that can be used.
fn load(disk: &dyn Disk, dir: &Path, report: &mut OpenReport) -> Result<Option<(State, Was)>, OpenError> {
    let path = dir.join(crate::catalogue::FILE);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let why = match state::load(&*file) {
        Ok((state, end, End::Good | End::Torn)) => {
            let touched = state.touched.keys().copied().collect();
            return Ok(Some((state, Was { end, touched, changed: Vec::new() })));
        }
        Ok((_, _, End::Newer(version))) => return Err(OpenError::Newer { path, version }),
        Ok((_, end, End::Damaged)) => format!("damaged at {end}"),
        Err(error) => error.to_string(),
    };
    report.end = LastEnd::Unknown;
    let aside = bucket::free_name(disk, dir, "catalogue").and_then(|aside| {
        disk.rename(&path, &aside)?;
        Ok(aside)
    });
    let place = aside.map_or_else(|error| format!("not kept: {error}"), |aside| aside.display().to_string());
    report.problem(format!("the catalogue cannot be used ({why}); all directories are read again. It is now {place}"));
    Ok(None)
}

/// The log: what it was, if that holds but for what was written to, or written anew.
fn resume(disk: &Arc<dyn Disk>, dir: &Path, state: &State, was: Option<Was>, differs: bool) -> io::Result<Log> {
    match was {
        Some(was) if !differs && was.end < due_at(state.size()) => Log::resume(Arc::clone(disk), dir, state, &was),
        // What was found is found again at the next start, if there is no room for it now.
        Some(was) => {
            Log::anew(Arc::clone(disk), dir, state).or_else(|_| Log::resume_full(Arc::clone(disk), dir, state, &was))
        }
        None => Log::anew(Arc::clone(disk), dir, state),
    }
}

/// What published nodes and interrupted writes have left.
fn remove_leftovers(disk: &dyn Disk, dir: &Path, report: &mut OpenReport) {
    if let Err(error) = checkpoint::remove(disk, dir) {
        report.problem(format!("{}: {error}", dir.join(checkpoint::FILE).display()));
    }
}

/// Removes what is left of removed channels. For a thread that may wait long.
///
/// # Errors
/// The disk's.
pub fn sweep(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for named in disk.list(dir)? {
        if named.is_dir && named.name.starts_with(REMOVED) {
            remove_all(disk, &dir.join(&named.name))?;
        }
    }
    Ok(())
}

/// Removes a directory with everything in it. Somebody else may be doing the same.
fn remove_all(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    for named in disk.list(dir)? {
        let path = dir.join(&named.name);
        gone(if named.is_dir { remove_all(disk, &path) } else { disk.remove(&path) })?;
    }
    gone(disk.remove_dir(dir))
}

//! Loads the `.rq` files of a data directory at the start of a node (`docs/formats/rq.md`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::persistence::staging;
use crate::rq::{Reader, SUFFIX, UNFINISHED_SUFFIX};
use crate::store::names::QueueName;
use crate::store::{ImportError, Store};

/// Where damaged files stay.
pub const DAMAGED: &str = "damaged";

/// Bytes that are read before they go to the store, unless a record is larger.
const PIECE: usize = 64 * 1024;

/// Names that a file in [`DAMAGED`] may have beside its own.
const NAMES: usize = 10_000;

/// What became of one file.
#[derive(Debug)]
pub struct FileReport {
    /// The queue.
    pub queue: String,
    /// The file.
    pub path: PathBuf,
    /// Records that were loaded.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is wrong with it; none for a good file.
    pub damage: Option<String>,
    /// Where a damaged file stays; `None` if it could not be brought there: then it stays where it is.
    pub kept: Option<PathBuf>,
}

/// What a load did.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// The files that were read.
    pub files: Vec<FileReport>,
    /// Names that were left alone, and why.
    pub ignored: Vec<(PathBuf, &'static str)>,
    /// Records that were loaded.
    pub records: u64,
}

/// Why a node must not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk behind the store, which keeps all records, does not take them.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Loads every `.rq` file into the store, after [`Store::recover`]. All files stay until [`LoadReport::delete_loaded`].
///
/// Of a damaged file the records that can be read are loaded; the file gets a second name in [`DAMAGED`]. How large a
/// queue may be does not count here.
///
/// # Errors
/// See [`LoadError`]. A file that cannot be read is none: see the report.
pub fn load(dir: &Path, store: &mut Store) -> Result<LoadReport, LoadError> {
    let mut report = LoadReport::default();
    for queue in find(dir, &mut report)? {
        let path = dir.join(format!("{queue}{SUFFIX}"));
        let mut file = FileReport { queue, path, records: 0, bytes: 0, damage: None, kept: None };
        load_file(&mut file, store)?;
        if file.damage.is_some() {
            file.kept = keep(dir, &file.path).ok();
        }
        report.records += file.records;
        report.files.push(file);
    }
    Ok(report)
}

/// Whether there are files that [`load`] loads.
pub(crate) fn has_files(dir: &Path) -> Result<bool, LoadError> {
    Ok(!find(dir, &mut LoadReport::default())?.is_empty())
}

impl LoadReport {
    /// Deletes the files that were loaded, as the published node does, once their records are as safe as the node's
    /// mode makes them. A damaged file is deleted if it stays elsewhere. Returns those that could not be deleted: their
    /// records would come again.
    pub fn delete_loaded(&self) -> Vec<(PathBuf, io::Error)> {
        let loaded = self.files.iter().filter(|file| file.damage.is_none() || file.kept.is_some());
        let delete = |path: &PathBuf| fs::remove_file(path).err().map(|error| (path.clone(), error));
        let mut failed: Vec<_> = loaded.filter_map(|file| delete(&file.path)).collect();
        if let Some(dir) = self.files.first().and_then(|file| file.path.parent())
            && let Err(error) = File::open(dir).and_then(|dir| dir.sync_all())
        {
            failed.push((dir.to_owned(), error));
        }
        failed
    }
}

/// The queues that have a file, in the order of their names.
fn find(dir: &Path, report: &mut LoadReport) -> Result<Vec<String>, LoadError> {
    let failed = |source| LoadError::Directory { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(queue) = name.strip_suffix(SUFFIX) {
            // Follows links: a file may lie elsewhere.
            if QueueName::parse(queue).is_none() {
                report.ignored.push((path, "not the name of a queue"));
            } else if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
                report.ignored.push((path, "not a file"));
            } else {
                found.push(queue.to_owned());
            }
        } else if name.ends_with(UNFINISHED_SUFFIX) {
            report.ignored.push((path, "an unfinished dump"));
        } else if !is_ours(name) {
            report.ignored.push((path, "unknown"));
        }
    }
    // As the node makes them: those without subscribers first.
    found.sort_by(|one, other| (one.contains('@'), one).cmp(&(other.contains('@'), other)));
    report.ignored.sort();
    Ok(found)
}

/// Whether a file or directory belongs to another part of the node.
fn is_ours(name: &str) -> bool {
    name == overstory_node::data_lock::FILE
        || name == DAMAGED
        || name == "journal"
        || staging::is_ours(name)
        || name.starts_with("dump.pending")
        || name.starts_with("overflow.")
        || name.starts_with("ofchannels.csv")
}

fn load_file(file: &mut FileReport, store: &mut Store) -> Result<(), LoadError> {
    let mut piece = Vec::new();
    let mut reader = match Reader::open(&file.path) {
        Ok(reader) => reader,
        Err(error) => {
            file.damage = Some(error.to_string());
            return Ok(());
        }
    };
    file.bytes = reader.size();
    loop {
        piece.clear();
        let read = reader.read(PIECE, &mut piece);
        // An error may come behind whole records.
        let records = crate::ring::records(&piece).count() as u64;
        match store.load(&file.queue, &piece) {
            Ok(()) => file.records += records,
            Err(ImportError::BadName) => {}
            Err(ImportError::Disk(error)) => return Err(error.into()),
        }
        match read {
            Ok(0) => file.damage = reader.damage().map(|damage| damage.to_string()),
            Ok(_) => continue,
            Err(error) => file.damage = Some(error.to_string()),
        }
        return Ok(());
    }
}

/// Gives a file a second name in [`DAMAGED`], which no other file has.
fn keep(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let damaged = dir.join(DAMAGED);
    fs::create_dir_all(&damaged)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // What a link leads to, not the link.
    let source = fs::canonicalize(path)?;
    let inode = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let ours = inode(&source)?;
    for number in 0..NAMES {
        let kept = damaged.join(if number == 0 { name.to_owned() } else { format!("{name}.{number}") });
        if inode(&kept).is_ok_and(|other| other == ours) {
            return Ok(kept);
        }
        match fs::hard_link(&source, &kept) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            // No links here: another file system.
            Err(_) if fs::symlink_metadata(&kept).is_ok() => continue,
            Err(_) => {
                fs::copy(&source, &kept).inspect_err(|_| drop(fs::remove_file(&kept)))?;
                File::open(&kept)?.sync_all()?;
            }
        }
        File::open(&damaged)?.sync_all()?;
        File::open(dir)?.sync_all()?;
        return Ok(kept);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Moves a file that is in the way of another one to [`DAMAGED`].
pub(crate) fn move_away(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let kept = keep(dir, path)?;
    fs::remove_file(path)?;
    Ok(kept)
}

#[cfg(test)]
mod tests;

//! Loads the `.rq` files of a data directory at the start of a node.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::store::Store;

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
    /// Where a damaged file lies now; `None` if it could not be moved.
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

/// Loads every `.rq` file; they stay until [`LoadReport::delete_loaded`]. Without a disk, or with the overflow, before
/// [`Store::recover`]; with the journal after it.
///
/// # Errors
/// See [`LoadError`]. A file that cannot be read is none: see the report.
#[expect(unused_variables, reason = "signatures first")]
pub fn load(dir: &Path, store: &mut Store) -> Result<LoadReport, LoadError> {
    unimplemented!()
}

impl LoadReport {
    /// Deletes the files that were loaded, as the published node does: once their records are as safe as the node's
    /// mode makes them (with the journal: when it has committed them). Returns those that could not be deleted.
    pub fn delete_loaded(&self) -> Vec<(PathBuf, io::Error)> {
        unimplemented!()
    }
}

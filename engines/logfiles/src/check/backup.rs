//! Keeps what is cut off or replaced.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::find::Bucket;
use super::owner;

/// The directory in a data directory; it is hidden, and so no channel.
const DIRECTORY: &str = ".damaged";
/// How many backups of one name there may be.
const MAX: usize = 10_000;

/// Where backups are made.
pub(super) struct Backups {
    dir: Option<PathBuf>,
}

impl Backups {
    /// In a directory, or in each data directory.
    pub(super) const fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Copies `length` bytes of a bucket from an offset on, and makes them durable. Never over an older backup.
    ///
    /// # Errors
    /// The copy is not there as a whole.
    pub(super) fn save(&self, bucket: &Bucket, label: &str, offset: u64, length: u64) -> io::Result<PathBuf> {
        let base = self.dir.clone().unwrap_or_else(|| bucket.data_dir.join(DIRECTORY));
        let dir = base.join(&bucket.channel).join(bucket.number.slot().to_string());
        let name = format!("{}.{label}", bucket.number.file_name());
        // In a data directory it is the node's; elsewhere it is the caller's.
        let owner = self.dir.is_none().then_some(&*bucket.data_dir);
        let saved = make_dirs(&dir, owner).and_then(|()| copy(&bucket.path, &dir, &name, offset, length, owner));
        saved.map_err(|error| {
            io::Error::new(error.kind(), format!("not changed: no backup in {}: {error}", dir.display()))
        })
    }
}

/// Makes a directory and those above it that are missing.
fn make_dirs(dir: &Path, owner: Option<&Path>) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => owner.map_or(Ok(()), |owner| owner::give(dir, owner)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(dir.parent().ok_or(error)?, owner)?;
            make_dirs(dir, owner)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        failed => failed,
    }
}

fn copy(from: &Path, dir: &Path, name: &str, offset: u64, length: u64, owner: Option<&Path>) -> io::Result<PathBuf> {
    let (path, mut to) = create(dir, name)?;
    let copied = File::open(from).and_then(|mut from| {
        from.seek(SeekFrom::Start(offset))?;
        if io::copy(&mut from.take(length), &mut to)? != length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has changed"));
        }
        owner.map_or(Ok(()), |owner| owner::give(&path, owner))?;
        to.sync_all()?;
        // The directories above may be new as well: three of them belong to the backup.
        dir.ancestors().take(4).try_for_each(|dir| File::open(dir)?.sync_all())
    });
    match copied {
        Ok(()) => Ok(path),
        Err(error) => {
            // What is there is no backup.
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// A file that was not there before.
fn create(dir: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    for number in 0..MAX {
        let path = dir.join(if number == 0 { name.to_owned() } else { format!("{name}.{number}") });
        match File::options().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return Ok((path, created?)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many older backups"))
}

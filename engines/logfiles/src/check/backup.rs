//! Keeps what is cut off or replaced.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::find::{self, Bucket};
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

    /// Copies `length` bytes of a bucket from an offset on, and makes them durable. Never over an older backup, and in a
    /// data directory never behind a link.
    ///
    /// # Errors
    /// The copy is not there as a whole.
    pub(super) fn save(&self, bucket: &Bucket, label: &str, offset: u64, length: u64) -> io::Result<PathBuf> {
        let base = self.dir.clone().unwrap_or_else(|| bucket.data_dir.join(DIRECTORY));
        let slot = bucket.number.slot().to_string();
        let name = format!("{}.{label}", bucket.number.file_name());
        let below = [&*bucket.channel, &slot];
        let (dirs, owner) = match &self.dir {
            // Elsewhere it is the caller's, who has chosen the place.
            Some(dir) => (fs::create_dir_all(dir).and_then(|()| directories(dir, &below, None)), None),
            // In a data directory it is the node's.
            None => {
                let below = [DIRECTORY, below[0], below[1]];
                (directories(&bucket.data_dir, &below, Some(&bucket.data_dir)), Some(&*bucket.data_dir))
            }
        };
        let saved = dirs.and_then(|dirs| copy(&bucket.path, &dirs, &name, offset, length, owner));
        let dir = base.join(&bucket.channel).join(slot);
        match saved {
            Ok(name) => Ok(dir.join(name)),
            Err(error) => {
                let text = format!("not changed: no backup in {}: {error}", dir.display());
                Err(io::Error::new(error.kind(), text))
            }
        }
    }
}

/// Why backups must not be made in a directory: it is among the channels of a data directory that is checked. The node
/// and this program would find the backups there.
pub(super) fn refusal(dir: &Path, paths: &[PathBuf]) -> Option<String> {
    let real = real(dir);
    let data_dir = paths
        .iter()
        .filter_map(|path| find::data_dir(path))
        .find(|data_dir| real.strip_prefix(data_dir).is_ok_and(|below| !below.starts_with(DIRECTORY)))?;
    Some(format!(
        "--backup-dir {}: backups do not go among the channels of the data directory {}; name a directory outside of it, or none for its {DIRECTORY}",
        dir.display(),
        data_dir.display()
    ))
}

/// Where a directory is, or would be made, without links in its name.
fn real(dir: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    // Without a current directory only what is absolute can be told.
    for component in std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf()).components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            component => real.push(component),
        }
        // What is not there is no link.
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

/// Opens directories in each other, and makes those that are missing. The first is taken as it is named, of the others
/// none may be a link.
fn directories(base: &Path, names: &[&str], owner: Option<&Path>) -> io::Result<Vec<File>> {
    let mut dirs = vec![File::open(base)?];
    for name in names {
        let Some(dir) = dirs.last() else { break };
        let is_new = match mkdirat(dir, *name, Mode::from_bits_truncate(0o777)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match openat(dir, *name, flags, Mode::empty()) {
            Ok(next) => File::from(next),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{name} is no directory")));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(owner) = owner.filter(|_| is_new) {
            owner::give_file(&next, owner)?;
        }
        dirs.push(next);
    }
    Ok(dirs)
}

/// Copies into the last of the directories; the name.
fn copy(from: &Path, dirs: &[File], name: &str, offset: u64, length: u64, owner: Option<&Path>) -> io::Result<String> {
    let dir = dirs.last().ok_or(io::ErrorKind::NotFound)?;
    let (name, mut to) = create(dir, name)?;
    let from = File::options().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(from);
    let copied = from.and_then(|mut from| {
        from.seek(SeekFrom::Start(offset))?;
        if io::copy(&mut from.take(length), &mut to)? != length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has changed"));
        }
        owner.map_or(Ok(()), |owner| owner::give_file(&to, owner))?;
        to.sync_all()?;
        // The directories above may be new as well.
        dirs.iter().rev().try_for_each(File::sync_all)
    });
    match copied {
        Ok(()) => Ok(name),
        Err(error) => {
            // What is there is no backup.
            let _ = unlinkat(dir, &*name, UnlinkatFlags::NoRemoveDir);
            Err(error)
        }
    }
}

/// A file that was not there before.
fn create(dir: &File, name: &str) -> io::Result<(String, File)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    for number in 0..MAX {
        let name = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
        match openat(dir, &*name, flags, Mode::from_bits_truncate(0o666)) {
            Err(Errno::EEXIST) => {}
            created => return Ok((name, File::from(created?))),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many older backups"))
}

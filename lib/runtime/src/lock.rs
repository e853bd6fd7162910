//! Files that one process at a time may hold.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A lock file held by this process until it is dropped or the process ends. The file tells the holder's pid.
#[derive(Debug)]
pub struct FileLock {
    _file: Flock<File>,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("held by process {}", holder.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    Held {
        /// The process that wrote its pid into the file.
        holder: Option<u32>,
    },
    /// The file cannot be opened, locked or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FileLock {
    /// Takes the lock at `path` if nobody has it.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it.
    pub fn try_acquire(path: &Path) -> Result<Self, LockError> {
        Self::lock(path, FlockArg::LockExclusiveNonblock)
    }

    /// Takes the lock at `path`, waiting for its holder.
    ///
    /// # Errors
    /// The file cannot be opened, locked or written.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        Self::lock(path, FlockArg::LockExclusive)
    }

    fn lock(path: &Path, how: FlockArg) -> Result<Self, LockError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)?;
        match Flock::lock(file, how) {
            Ok(mut file) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // The pid only makes the message better.
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
                Err(LockError::Held { holder: text.trim().parse().ok() })
            }
            Err((_, errno)) => Err(LockError::Io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::try_acquire(&path).unwrap();
        match FileLock::try_acquire(&path) {
            Err(LockError::Held { holder }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        FileLock::acquire(&path).unwrap();
    }
}

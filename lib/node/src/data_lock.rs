//! Keeps a second node out of a data directory, whatever its configuration and its pid file are called.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

/// The file that is locked, for whoever looks through the directory. The directory itself is not locked: dumps and their
/// tools do that among themselves.
pub const FILE: &str = ".lock";

/// A data directory that this process alone uses.
#[derive(Debug)]
pub(crate) struct DataLock(#[expect(dead_code, reason = "the lock is held as long as it is open")] Option<File>);

impl DataLock {
    /// Locks the directory, which is made if it is not there. What is no directory is for the engine to tell, and a
    /// file system that has no locks is used without.
    ///
    /// # Errors
    /// Another process uses it.
    pub(crate) fn acquire(dir: &Path) -> io::Result<Self> {
        let open = || File::options().create(true).append(true).open(dir.join(FILE));
        let Ok(file) = fs::create_dir_all(dir).and_then(|()| open()) else { return Ok(Self(None)) };
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::other(format!("data directory {}: another node uses it", dir.display())))
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(target: "node.main", dir = %dir.display(), %error, "cannot lock the data directory");
                Ok(Self(None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("a/data");
        let first = DataLock::acquire(&dir).unwrap();
        let error = DataLock::acquire(&dir).unwrap_err().to_string();
        assert!(error.contains("a/data") && error.contains("another node"), "{error}");
        drop(first);
        assert!(DataLock::acquire(&dir).is_ok());
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(DataLock::acquire(&place.path().join("file")).is_ok());
    }
}

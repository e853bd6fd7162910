//! `[PidLock] path`: a file with `<pid>\n` that one process at a time can hold, removed at its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// A pid file that this process holds by an fcntl lock.
///
/// The lock belongs to the process: any descriptor of the file that is closed in it gives the lock up, so nothing else
/// in this process opens the file.
#[derive(Debug)]
pub(crate) struct PidLock {
    path: PathBuf,
    _file: File,
}

impl PidLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// Another process has it (the error says which), or the file cannot be written.
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("pid file {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(at)?;
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EACCES | Errno::EAGAIN) => {
                let mut pid = String::new();
                // The number only makes the message better.
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
                return Err(at(io::Error::other(format!("held by process {}", pid.trim()))));
            }
            Err(errno) => return Err(at(errno.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(at)?;
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for PidLock {
    fn drop(&mut self) {
        // Removed before the lock is given up. It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

fn whole_file() -> libc::flock {
    let (kind, whence) = (libc::F_WRLCK, libc::SEEK_SET);
    // Small constants of the C library, which declares them wider than the structure's fields.
    let small = |constant: i32| i16::try_from(constant).unwrap_or_default();
    libc::flock { l_type: small(kind), l_whence: small(whence), l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_file_holds_the_pid_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.pid");
        fs::write(&path, "123456 left behind by a crash").unwrap();
        let lock = PidLock::acquire(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn an_error_names_the_file() {
        let error = PidLock::acquire(Path::new("/nowhere/x.pid")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x.pid"), "{error}");
    }
}

//! The file system of the machine.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::{Disk, File, Named, Stat};

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        regular(path, fs::File::options().read(true))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        regular(path, fs::File::options().read(true).write(true).create(true).truncate(false))
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::syncfs(fs::File::open(path)?)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Named>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let kind = entry.file_type()?;
                names.push(Named { name, is_dir: kind.is_dir(), is_file: kind.is_file() });
            }
        }
        Ok(names)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let metadata = fs::symlink_metadata(path)?;
        let (is_dir, is_file) = (metadata.is_dir(), metadata.is_file());
        Ok(Stat { length: metadata.len(), modified: metadata.modified()?, is_dir, is_file })
    }
}

/// Opens a regular file: what a symbolic link points to is somebody else's, and a pipe or a device is no file.
fn regular(path: &Path, options: &mut fs::OpenOptions) -> io::Result<Arc<dyn File>> {
    // Without waiting for who writes to a pipe; regular files do not know of it.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = options.custom_flags(flags.bits()).open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::ELOOP as i32 => no_file("a symbolic link"),
        _ => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(no_file("no regular file"));
    }
    Ok(Arc::new(SystemFile(file)))
}

fn no_file(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"))
}

struct SystemFile(fs::File);

impl File for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn will_read(&self, offset: u64, length: u64) {
        if let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) {
            // A hint: a system that does not take it reads all the same.
            let _ = posix_fadvise(&self.0, offset, length, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }
}

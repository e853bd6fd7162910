//! The few things that are done with files: the seam that tests look through.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Zeros are written in pieces of this size where nothing can be allocated without.
const ZEROS: usize = 64 * 1024;

/// A file that is read and written at offsets.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    #[cfg(test)]
    name: String,
}

impl DiskFile {
    /// Opens a file, which is made when it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        #[cfg(test)]
        let name = seam::name(path);
        #[cfg(test)]
        seam::note(|| seam::Op::Open { name: name.clone() });
        Ok(Self {
            file,
            #[cfg(test)]
            name,
        })
    }

    /// Locks it against other processes; `false` when one of them has done so.
    pub(super) fn lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads up to `buffer.len()` bytes, fewer only at the end of the file.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        seam::write(&self.name, offset, bytes)?;
        self.file.write_all_at(bytes, offset)
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        seam::note(|| seam::Op::SetLen { name: self.name.clone(), len });
        self.file.set_len(len)
    }

    /// Sees to it that writes to `from..to`, behind what was written, find room.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] and [`io::ErrorKind::QuotaExceeded`] among others.
    pub(super) fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        if to <= from {
            return Ok(());
        }
        #[cfg(test)]
        seam::allocate(&self.name, to)?;
        loop {
            let (at, len) = (signed(from)?, signed(to - from)?);
            #[cfg(test)]
            if seam::without_fallocate() {
                return self.write_zeros(from, to);
            }
            match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                // This file system cannot: what was written once can be written again, as far as that can be known.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return self.write_zeros(from, to),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS];
        let mut at = from;
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(ZEROS).min(ZEROS);
            self.file.write_all_at(zeros.get(..len).unwrap_or_default(), at)?;
            at += len as u64;
        }
        Ok(())
    }

    /// Gives the space of `from..to` back to the file system; the bytes read as zeros then. Where that cannot be done
    /// the space stays taken.
    pub(super) fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        if to <= from {
            return Ok(());
        }
        #[cfg(test)]
        seam::note(|| seam::Op::Punch { name: self.name.clone(), from, to });
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, flags, signed(from)?, signed(to - from)?) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Where the file next has data, at `offset` or behind it; `offset` itself where that cannot be told.
    pub(super) fn next_data(&self, offset: u64, end: u64) -> u64 {
        let Ok(at) = signed(offset) else { return offset };
        match nix::unistd::lseek(&self.file, at, nix::unistd::Whence::SeekData) {
            Ok(found) => u64::try_from(found).unwrap_or(offset).clamp(offset, end.max(offset)),
            Err(Errno::ENXIO) => end.max(offset),
            Err(_) => offset,
        }
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Another handle to the same file.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            #[cfg(test)]
            name: self.name.clone(),
        })
    }

    /// The name under which it is known from now on, after it was renamed.
    pub(super) fn renamed(self, path: &Path) -> Self {
        let _ = path;
        Self {
            file: self.file,
            #[cfg(test)]
            name: seam::name(path),
        }
    }
}

fn signed(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// Renames a file over another one.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    seam::note(|| seam::Op::Rename { from: seam::name(from), to: seam::name(to) });
    fs::rename(from, to)
}

/// Removes a file; that it is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    seam::note(|| seam::Op::Remove { name: seam::name(path) });
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes renames and removals in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
pub(super) mod seam;

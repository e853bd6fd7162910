//! The system calls of the journal, behind a seam: tests count them, let them fail, and know what was durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// What the journal asks of the system where tests look closely.
pub(super) trait Files: Send + Sync + std::fmt::Debug {
    /// Writes all of it.
    fn write(&self, file: &File, serial: u64, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes what was written to the file durable.
    fn sync(&self, file: &File, serial: u64) -> io::Result<()>;

    /// Gives the file this size, such that writing within it needs no more room.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;

    /// A handle for another thread.
    fn share(&self) -> Box<dyn Files>;
}

/// The system itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct System;

impl Files for System {
    fn write(&self, file: &File, _serial: u64, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File, _serial: u64) -> io::Result<()> {
        file.sync_data()
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let length = i64::try_from(bytes).map_err(|_too_large| io::Error::from(io::ErrorKind::FileTooLarge))?;
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, length) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP) => return fill(file, bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn share(&self) -> Box<dyn Files> {
        Box::new(Self)
    }
}

/// Takes the room by writing zeros, where the file system cannot be asked for it.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 256 * 1024];
    let mut at = 0;
    while at < bytes {
        let piece = zeros.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

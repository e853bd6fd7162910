//! The file system, as far as the node needs it: a seam, so that tests can take a disk that forgets what was not synced,
//! fills up or fails.
//!
//! All paths are absolute or relative to the process; a [`Disk`] does not know the data directory.

pub mod sim;
mod system;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use system::SystemDisk;

/// A file system. Its calls may wait for a disk: they do not belong on the node's thread, except at its start and end.
pub trait Disk: Send + Sync + 'static {
    /// Opens a regular file for reading. Where a symbolic link points to is not followed.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::NotFound`] when there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a regular file for reading and writing, and makes it if there is none. A symbolic link is not followed.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Makes a directory and those above it that are missing.
    ///
    /// # Errors
    /// The system's.
    fn create_dirs(&self, path: &Path) -> io::Result<()>;

    /// Makes durable which names are in a directory.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes durable all that was written to the file system of a directory, by whomever, with its names.
    ///
    /// # Errors
    /// The system's.
    fn sync_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, over another one if that exists.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::DirectoryNotEmpty`].
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a directory, in any order; without `.` and `..`.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, path: &Path) -> io::Result<Vec<Named>>;

    /// Size and time of a file or directory, or of a symbolic link itself.
    ///
    /// # Errors
    /// The system's.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
}

/// An open file. Its calls may wait for a disk.
#[expect(clippy::len_without_is_empty, reason = "a length is asked from the disk, with errors")]
pub trait File: Send + Sync {
    /// Reads at an offset, as many bytes as are there and fit; 0 at the end.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// The system's; any part of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Its length.
    ///
    /// # Errors
    /// The system's.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends it.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes durable what was written, with the length.
    ///
    /// # Errors
    /// The system's: what was written before may be lost, whatever a later call says.
    fn sync(&self) -> io::Result<()>;

    /// Says that a part is about to be read from front to back, as a hint.
    fn will_read(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name; one that is no UTF-8 is left out by [`Disk::list`].
    pub name: String,
    /// Whether it is a directory; a symbolic link to one is none.
    pub is_dir: bool,
    /// Whether it is a regular file; a symbolic link to one is none.
    pub is_file: bool,
}

/// What is known of a file or directory without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes of a file.
    pub length: u64,
    /// When it was changed; of a directory, when a name in it was.
    pub modified: SystemTime,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is a regular file.
    pub is_file: bool,
}

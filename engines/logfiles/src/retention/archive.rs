//! Archives of buckets (`275.gz`) that the cron of a published system has made. Its nodes do not see them any more.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use crate::bucket::{BucketNumber, Slot};
use crate::disk::{Disk, File};

use super::worker::Pieces;

/// What an archive is called, behind the name of its bucket.
const SUFFIX: &str = ".gz";
/// Bytes that are written until somebody else has a turn.
const PIECE: usize = 8 << 20;
const BUFFER: usize = 256 << 10;
/// Bytes of a bucket that is taken out of an archive, at most.
const MAX_BYTES: u64 = 64 << 30;

/// The directories of a channel's slots.
pub(super) fn slots(disk: &dyn Disk, channel: &Path) -> io::Result<Vec<Slot>> {
    let named = disk.list(channel)?;
    let mut slots: Vec<_> = named.iter().filter(|one| one.is_dir).filter_map(|one| Slot::parse(&one.name)).collect();
    slots.sort_unstable();
    Ok(slots)
}

/// The buckets of a slot of which there are archives.
pub(super) fn in_slot(disk: &dyn Disk, channel: &Path, slot: Slot) -> io::Result<Vec<BucketNumber>> {
    let named = disk.list(&channel.join(slot.to_string()))?;
    let archives = named.iter().filter(|one| !one.is_dir).filter_map(|one| one.name.strip_suffix(SUFFIX));
    let mut numbers: Vec<_> = archives.filter_map(|name| slot.bucket(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where the archive of a bucket is.
pub(super) fn path(bucket: &Path) -> PathBuf {
    bucket.with_extension("gz")
}

/// An archive on its way into a file.
pub(super) struct Unpack {
    archive: MultiGzDecoder<Front>,
    target: Arc<dyn File>,
    buffer: Vec<u8>,
    pub(super) length: u64,
}

impl Unpack {
    pub(super) fn new(disk: &dyn Disk, archive: &Path, to: &Path) -> io::Result<Self> {
        let front = Front { file: disk.open(archive)?, offset: 0 };
        let target = disk.create(to)?;
        target.set_len(0)?;
        Ok(Self { archive: MultiGzDecoder::new(front), target, buffer: vec![0; BUFFER], length: 0 })
    }
}

impl Pieces for Unpack {
    fn piece(&mut self) -> io::Result<bool> {
        let mut written = 0;
        while written < PIECE {
            let read = self.archive.read(&mut self.buffer)?;
            let part = self.buffer.get(..read).filter(|part| !part.is_empty());
            let Some(part) = part else { return Ok(true) };
            self.target.write_all_at(part, self.length)?;
            self.length += read as u64;
            written += read;
            if self.length > MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 GiB are in it"));
            }
        }
        Ok(false)
    }
}

/// A file from its front to its end.
struct Front {
    file: Arc<dyn File>,
    offset: u64,
}

impl Read for Front {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

//! A bounded queue of records in files: what it took survives the process, and is read back in order.
//!
//! A spool is a directory of segments, to which records are appended and which are removed as a whole once all their
//! records are released. The form of the files is in `docs/formats/spool.md`. What the spool promises:
//!
//! - after [`Spool::append`] returned, its records are on the disk (one `fdatasync` for all of them);
//! - a record cut short by a crash, which can only be the last one, is removed when the spool is opened;
//! - a record that the disk has changed is noticed by its checksum, kept aside in a file `damaged-*`, logged, and
//!   passed over: all others are still read;
//! - after a crash the records read again are those whose release was not written down yet.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::lock::{FileLock, LockError};
use segment::{Found, Segment};

/// The largest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 << 20;
/// What each record costs in the file beside its payload, in bytes.
pub const RECORD_OVERHEAD: usize = segment::RECORD_HEADER;

const CURSOR: &str = "cursor";
const LOCK: &str = "lock";

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Another process uses it.
    #[error("the spool {path} is in use: {source}", path = path.display())]
    InUse {
        /// Its directory.
        path: PathBuf,
        /// Who holds it.
        source: LockError,
    },
    /// A file cannot be read or written.
    #[error("the spool {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; later records have greater ones.
    pub sequence: u64,
    /// When it was appended, in the milliseconds that were passed to [`Spool::append`].
    pub at_ms: i64,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// The spool of one process.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    /// Oldest first; the last one is appended to.
    segments: VecDeque<Segment>,
    /// Everything up to this number is released.
    released: u64,
    next_sequence: u64,
    /// Records that were not released, damaged ones not counted.
    records: u64,
    /// Where [`Self::read`] goes on: a segment by its first number, and an offset in it.
    position: Option<(u64, u64)>,
    cursor: File,
    _lock: FileLock,
}

impl Spool {
    /// Opens the spool in `dir`, making it if need be, and checks every record that it holds.
    ///
    /// # Errors
    /// Another process has it open, or its files cannot be read or written.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, SpoolError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(at(dir))?;
        let lock = FileLock::try_acquire(&dir.join(LOCK))
            .map_err(|source| SpoolError::InUse { path: dir.to_owned(), source })?;
        let cursor_path = dir.join(CURSOR);
        let cursor = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&cursor_path)
            .map_err(at(&cursor_path))?;
        let mut released = read_cursor(&cursor).unwrap_or(0);

        let mut segments = VecDeque::new();
        let mut records = 0;
        let mut last = released;
        let firsts = segment::list(dir).map_err(at(dir))?;
        for (index, first) in firsts.iter().enumerate() {
            let path = segment::path(dir, *first);
            let (segment, found) =
                Segment::open(dir, *first, released, index + 1 == firsts.len()).map_err(at(&path))?;
            // A cursor that lost its file must not let numbers be given twice.
            last = last.max(found.last_sequence).max(first.saturating_sub(1));
            records += found.unreleased;
            segments.push_back(segment);
        }
        if records == 0 {
            released = last;
        }
        let mut spool = Self {
            dir: dir.to_owned(),
            max_bytes,
            segment_bytes: (max_bytes / 8).clamp(4096, 8 << 20),
            segments,
            released,
            next_sequence: last + 1,
            records,
            position: None,
            cursor,
            _lock: lock,
        };
        spool.drop_released()?;
        Ok(spool)
    }

    /// Appends as many of `payloads`, from the first on, as the bound allows, and says how many; they are on the disk
    /// then. `at_ms` is the present time.
    ///
    /// # Errors
    /// The disk is full or failing: none of them is in the spool.
    pub fn append<P: AsRef<[u8]>>(&mut self, payloads: &[P], at_ms: i64) -> Result<usize, SpoolError> {
        let mut taken = 0;
        let mut total = self.bytes();
        while taken < payloads.len() {
            if self.segments.back().is_none_or(|last| last.bytes() >= self.segment_bytes) {
                let segment = Segment::create(&self.dir, self.next_sequence)
                    .map_err(|source| SpoolError::Io { path: self.dir.clone(), source })?;
                total += segment.bytes();
                self.segments.push_back(segment);
            }
            let Some(last) = self.segments.back_mut() else { break };
            let mut block = Vec::new();
            let (mut count, mut sequence) = (0, self.next_sequence);
            for payload in &payloads[taken..] {
                let payload = payload.as_ref();
                let bytes = (payload.len() + RECORD_OVERHEAD) as u64;
                let in_block = block.len() as u64;
                if payload.len() > MAX_RECORD_BYTES
                    || total + in_block + bytes > self.max_bytes
                    || (count > 0 && last.bytes() + in_block >= self.segment_bytes)
                {
                    break;
                }
                segment::encode(&mut block, sequence, at_ms, payload);
                (count, sequence) = (count + 1, sequence + 1);
            }
            if count == 0 {
                break;
            }
            let path = last.path().to_owned();
            last.append(&block).map_err(|source| SpoolError::Io { path, source })?;
            total += block.len() as u64;
            taken += count;
            self.records += count as u64;
            self.next_sequence = sequence;
        }
        Ok(taken)
    }

    /// Reads on after what was read last: at most `max_records` of together about `max_bytes`, but at least one if
    /// there is one.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Record>, SpoolError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < max_records && bytes < max_bytes {
            let Some((segment, offset)) = self.reading_at() else { break };
            let first = segment.first();
            let found =
                segment.next(offset).map_err(|source| SpoolError::Io { path: segment.path().to_owned(), source })?;
            match found {
                Found::Record { record, end } => {
                    self.position = Some((first, end));
                    if record.sequence > self.released {
                        bytes += record.payload.len();
                        records.push(record);
                    }
                }
                Found::Damage { end } => {
                    let news = segment.set_aside(&self.dir, offset, end);
                    self.records = self.records.saturating_sub(u64::from(news));
                    self.position = Some((first, end));
                }
                Found::End => match self.segments.iter().find(|segment| segment.first() > first) {
                    Some(next) => self.position = Some((next.first(), segment::HEADER as u64)),
                    None => break,
                },
            }
        }
        Ok(records)
    }

    fn reading_at(&self) -> Option<(&Segment, u64)> {
        let (first, offset) = match self.position {
            Some(position) => position,
            None => (self.segments.front()?.first(), segment::HEADER as u64),
        };
        // The segment that was read last may be gone; then the oldest one follows it.
        match self.segments.iter().find(|segment| segment.first() >= first)? {
            segment if segment.first() == first => Some((segment, offset)),
            segment => Some((segment, segment::HEADER as u64)),
        }
    }

    /// Lets [`Self::read`] start over with the oldest record that is not released.
    pub const fn rewind(&mut self) {
        self.position = None;
    }

    /// Releases every record up to and including `sequence`; `count` of them had been read. Whole segments are
    /// removed, and the new beginning is written down without waiting for the disk.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn release(&mut self, sequence: u64, count: u64) -> Result<(), SpoolError> {
        if sequence > self.released {
            self.released = sequence;
            self.records = self.records.saturating_sub(count);
            write_cursor(&self.cursor, sequence)
                .map_err(|source| SpoolError::Io { path: self.dir.join(CURSOR), source })?;
            self.drop_released()?;
        }
        Ok(())
    }

    fn drop_released(&mut self) -> Result<(), SpoolError> {
        loop {
            let end = self.segments.get(1).map_or(self.next_sequence, Segment::first);
            match self.segments.front() {
                Some(first) if end <= self.released + 1 => {
                    let path = first.path().to_owned();
                    fs::remove_file(&path).map_err(|source| SpoolError::Io { path, source })?;
                    self.segments.pop_front();
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether every record is released.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.released + 1 >= self.next_sequence
    }

    /// How many intact records are not released.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.records
    }

    /// What the segments take on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// The number of the last record that was released.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// The number that the next appended record gets.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
}

/// The cursor: the last released number and its checksum. One that is cut or changed counts as missing.
fn read_cursor(file: &File) -> Option<u64> {
    let mut bytes = [0; 12];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (number, sum) = bytes.split_at(8);
    (crc32fast::hash(number).to_le_bytes() == sum).then(|| u64::from_le_bytes(number.try_into().unwrap_or_default()))
}

fn write_cursor(file: &File, released: u64) -> io::Result<()> {
    let mut bytes = [0; 12];
    let number = released.to_le_bytes();
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&crc32fast::hash(&number).to_le_bytes());
    file.write_all_at(&bytes, 0)
}

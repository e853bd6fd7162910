//! Reads a dump, record by record, in bounded memory, and goes on behind what is damaged.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use overstory_swarm::key::Key;

use super::{BLOCK, VERSION};

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// Bytes that [`Reader::read_ahead`] reads at a time.
const AHEAD: usize = 1024 * 1024;

/// The longest key that is taken for a key of the wrong length rather than for damage.
const MAX_ODD_KEY: u64 = 64;

/// What precedes every key that writers of the format write.
const KEY_MARK: [u8; 8] = 16u64.to_le_bytes();

/// Where a dump comes from.
pub trait Source {
    /// Reads at an offset; 0 at the end.
    ///
    /// # Errors
    /// Those of the medium.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How long it is, in bytes.
    ///
    /// # Errors
    /// Those of the medium.
    fn size(&self) -> io::Result<u64>;
}

impl Source for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Source for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A dump that cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcmError {
    /// The medium failed.
    #[error("cannot read at offset {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// It is shorter than the version number, 8 bytes.
    #[error("the file has {size} bytes, less than the 8 of the version number")]
    TooShort {
        /// Its bytes.
        size: u64,
    },
    /// It is of another version, or no dump.
    #[error("unsupported version {found} (only {VERSION} is)")]
    Version {
        /// The version it tells.
        found: u64,
    },
}

/// Why something in a dump is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The key is neither 16 hexadecimal digits nor 8 bytes.
    BadKey,
    /// The value is empty.
    EmptyValue,
    /// The value is longer than the reader's limit.
    TooLarge,
    /// No record stands there: bytes were changed or lost.
    Damaged,
    /// The file ends within a record, or without the end mark.
    Cut,
}

/// What a dump holds at one place.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole record.
    Record {
        /// Its key.
        key: Key,
        /// Its value, not empty.
        value: &'a [u8],
    },
    /// Something that is passed over.
    Rejected {
        /// Where it begins in the file.
        offset: u64,
        /// How many bytes are passed over.
        length: u64,
        /// Why.
        reason: Reason,
    },
    /// The end of the dump.
    End,
}

/// Reads a dump.
///
/// A record counts as whole only if what follows it is one too, the end mark, or the end of the file. Behind damage the
/// reader looks for the next whole record. Its memory is bounded by the limit on values.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    size: u64,
    limit: u64,
    at: u64,
    done: bool,
    buffer: Vec<u8>,
    /// The place in the file of the buffer's first byte.
    start: u64,
    /// Bytes of the buffer that are filled.
    filled: usize,
}

impl<S: Source> Reader<S> {
    /// Opens a dump; values longer than `limit` bytes are rejected.
    ///
    /// # Errors
    /// The dump is empty, of another version, or cannot be read.
    pub fn new(source: S, limit: usize) -> Result<Self, TcmError> {
        let size = source.size().map_err(|source| TcmError::Io { offset: 0, source })?;
        let mut reader =
            Self { source, size, limit: limit as u64, at: 8, done: false, buffer: Vec::new(), start: 0, filled: 0 };
        match reader.number(0)? {
            None if size == 0 => Err(TcmError::Empty),
            None => Err(TcmError::TooShort { size }),
            Some(VERSION) => Ok(reader),
            Some(found) => Err(TcmError::Version { found }),
        }
    }

    /// How far it has read, in bytes.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// How long the dump is, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of its buffer.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next record, or what stands in its place.
    ///
    /// # Errors
    /// The medium failed; the dump cannot be read further.
    pub fn next_item(&mut self) -> Result<Item<'_>, TcmError> {
        if self.done {
            return Ok(Item::End);
        }
        let at = self.at;
        let Some(key_length) = self.number(at)? else {
            return Ok(self.cut(at));
        };
        if key_length == 0 {
            return self.end_mark(at);
        }
        if key_length > MAX_ODD_KEY {
            return self.damaged(at);
        }
        let value_at = at + 8 + key_length + 8;
        let Some(length) = self.number(value_at - 8)? else {
            return self.damaged(at);
        };
        let Some(end) = value_at.checked_add(length).filter(|&end| end <= self.size) else {
            return self.damaged(at);
        };
        let wanted = usize::try_from(end - at).ok().filter(|_| length <= self.limit);
        if let Some(wanted) = wanted {
            // With what follows, so that it need not be read for itself.
            self.window(at, wanted + 8)?;
        }
        if !self.follows(end)? {
            return self.damaged(at);
        }
        self.at = end;
        let rejected = |reason| Item::Rejected { offset: at, length: end - at, reason };
        if length > self.limit {
            return Ok(rejected(Reason::TooLarge));
        }
        let key_length = usize::try_from(key_length).unwrap_or(usize::MAX);
        let value_length = usize::try_from(length).unwrap_or(usize::MAX);
        let record = self.window(at, key_length.saturating_add(value_length).saturating_add(16))?;
        let Some((key, value)) = record.get(8..).and_then(|rest| rest.split_at_checked(key_length)) else {
            return Ok(rejected(Reason::Cut));
        };
        let key = match key.len() {
            8 => key.try_into().ok().map(|raw| Key(u64::from_le_bytes(raw))),
            _ => Key::from_hex16(key),
        };
        let Some(key) = key else { return Ok(rejected(Reason::BadKey)) };
        match value.get(8..) {
            Some(value) if !value.is_empty() => Ok(Item::Record { key, value }),
            _ => Ok(rejected(Reason::EmptyValue)),
        }
    }

    /// Reads so much that [`Self::run`] finds many records.
    ///
    /// # Errors
    /// See [`Self::next_item`].
    pub fn read_ahead(&mut self) -> Result<(), TcmError> {
        if !self.done {
            self.refill(self.at, AHEAD)?;
        }
        Ok(())
    }

    /// Visits the next records, those that are read already and with which nothing is amiss: the key, and the place of
    /// the value in the buffer that [`Self::exchange`] gives away. What they are is the same as with
    /// [`Self::next_item`], which goes on behind them.
    pub fn run(&mut self, mut visit: impl FnMut(Key, Range<usize>)) {
        let Some(from) = self.at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok()) else { return };
        let Some(buffer) = self.buffer.get(..self.filled) else { return };
        let mut at = from;
        while let Some((head, rest)) = buffer.get(at..).and_then(|rest| rest.split_first_chunk::<32>()) {
            let (mark, key) = head.split_at(8);
            let (key, length) = key.split_at(16);
            let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            let Some(length) = usize::try_from(length).ok().filter(|_| (1..=self.limit).contains(&length)) else {
                break;
            };
            let follows = rest.get(length..).and_then(|rest| rest.first_chunk()).map(|next| u64::from_le_bytes(*next));
            if mark != KEY_MARK || !matches!(follows, Some(0 | 8 | 16)) {
                break;
            }
            let Some(key) = Key::from_hex16(key) else { break };
            let value = at + head.len();
            at = value + length;
            visit(key, value..at);
        }
        self.at += (at - from) as u64;
    }

    /// Gives away the buffer with the records that were just visited, and takes the other for what follows, if that is
    /// the smaller part. Whether it did.
    pub fn exchange(&mut self, other: &mut Vec<u8>) -> bool {
        let done = self.at.checked_sub(self.start).and_then(|done| usize::try_from(done).ok());
        let Some((done, rest)) = done.and_then(|done| Some((done, self.buffer.get(done..self.filled)?))) else {
            return false;
        };
        if rest.len() > done {
            return false;
        }
        if other.len() < rest.len() {
            other.resize(rest.len(), 0);
        }
        other[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
        self.start = self.at;
        std::mem::swap(&mut self.buffer, other);
        true
    }

    /// The bytes that were read and not given away, in which the places of [`Self::run`] lie.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// The end mark: nothing but zeros follow it.
    fn end_mark(&mut self, at: u64) -> Result<Item<'_>, TcmError> {
        let mut place = at + 8;
        while place < self.size {
            let window = self.window(place, BLOCK)?;
            if window.iter().any(|&byte| byte != 0) {
                return self.damaged(at);
            }
            place += window.len().max(1) as u64;
        }
        self.at = self.size;
        self.done = true;
        Ok(Item::End)
    }

    fn cut(&mut self, at: u64) -> Item<'static> {
        self.done = true;
        self.at = self.size;
        Item::Rejected { offset: at, length: self.size - at.min(self.size), reason: Reason::Cut }
    }

    /// Goes to the next whole record behind `at`.
    fn damaged(&mut self, at: u64) -> Result<Item<'_>, TcmError> {
        let mut place = at + 1;
        loop {
            let window = self.window(place, CHUNK / 2)?;
            if window.len() < KEY_MARK.len() {
                return Ok(self.cut(at));
            }
            let Some(found) = memchr::memmem::find(window, &KEY_MARK) else {
                place += (window.len() - (KEY_MARK.len() - 1)) as u64;
                continue;
            };
            place += found as u64;
            if self.is_record(place)? {
                self.at = place;
                return Ok(Item::Rejected { offset: at, length: place - at, reason: Reason::Damaged });
            }
            place += 1;
        }
    }

    /// Whether a record with a key of the written form stands at `at`.
    fn is_record(&mut self, at: u64) -> Result<bool, TcmError> {
        let head = self.window(at, 24)?;
        if head.get(8..24).is_none_or(|key| Key::from_hex16(key).is_none()) {
            return Ok(false);
        }
        let Some(length) = self.number(at + 24)? else { return Ok(false) };
        match (at + 32).checked_add(length) {
            Some(end) if end <= self.size => self.follows(end),
            _ => Ok(false),
        }
    }

    /// Whether what stands at `at` can follow a record: another one, the end mark, or the end of the file.
    fn follows(&mut self, at: u64) -> Result<bool, TcmError> {
        match self.number(at)? {
            None | Some(0 | 8 | 16) => Ok(true),
            // A key of the wrong length only if a value fits behind it.
            Some(length) if length <= MAX_ODD_KEY => {
                let value_at = at + 8 + length + 8;
                let value = self.number(value_at - 8)?;
                Ok(value.and_then(|value| value_at.checked_add(value)).is_some_and(|end| end <= self.size))
            }
            Some(_) => Ok(false),
        }
    }

    fn number(&mut self, at: u64) -> Result<Option<u64>, TcmError> {
        let bytes = self.window(at, 8)?;
        Ok(bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)))
    }

    /// The `count` bytes at `at`, or less at the end of the file.
    fn window(&mut self, at: u64, count: usize) -> Result<&[u8], TcmError> {
        let from = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let from = match from {
            Some(from) if from.saturating_add(count) <= self.filled => from,
            _ => self.refill(at, count)?,
        };
        let until = from.saturating_add(count).min(self.filled);
        Ok(self.buffer.get(from..until).unwrap_or_default())
    }

    /// Makes `at` the buffer's beginning; returns 0, the place of `at` in it.
    fn refill(&mut self, at: u64, count: usize) -> Result<usize, TcmError> {
        let kept = match at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok()) {
            Some(from) if from < self.filled => {
                self.buffer.copy_within(from..self.filled, 0);
                self.filled - from
            }
            _ => 0,
        };
        self.start = at;
        self.filled = kept;
        let left = self.size.saturating_sub(at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(count.max(CHUNK));
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.filled < wanted {
            let offset = self.start + self.filled as u64;
            match self.source.read_at(&mut self.buffer[self.filled..wanted], offset) {
                Ok(0) => {
                    // Somebody shortened it.
                    self.size = offset;
                    break;
                }
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TcmError::Io { offset, source }),
            }
        }
        Ok(0)
    }
}

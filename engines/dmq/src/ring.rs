//! Records in memory, first in first out.
//!
//! They lie one behind the other as they go over the wire (u64 length, bytes), so that many are taken with one copy. The
//! memory is a list of chunks: each new one is as large as all that is held then, from [`FIRST`] to [`CHUNK`] bytes, so
//! that a queue of few records takes little and a large one few steps. A record of more than an eighth of [`CHUNK`] has
//! a chunk of its own.
//!
//! Bounds: the chunks take at most a sixteenth more than the records, and 2 x [`CHUNK`] on top for the first and the last
//! one; an empty ring keeps [`KEPT`] bytes at most.

use std::collections::VecDeque;

/// Bytes of the first chunk.
pub const FIRST: usize = 128;

/// Bytes of a chunk at most, unless it is one record.
pub const CHUNK: usize = 64 * 1024;

/// Bytes of the chunk that an empty ring keeps, at most.
pub const KEPT: usize = 4 * 1024;

/// Bytes that a record costs beside its own.
pub const RECORD_OVERHEAD: u64 = HEAD as u64;

/// Bytes of a record's length.
const HEAD: usize = 8;

/// A first-in first-out list of records.
#[derive(Debug, Default)]
pub struct Ring {
    /// The chunks before the last one; none is empty.
    full: VecDeque<Vec<u8>>,
    /// Where records are appended.
    last: Vec<u8>,
    /// Bytes of the first chunk that are done with.
    head: usize,
    records: u64,
    bytes: u64,
    /// Bytes of all chunks.
    memory: u64,
}

impl Ring {
    /// An empty one, without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records in it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of the records, [`RECORD_OVERHEAD`] more each.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory + (self.full.capacity() * size_of::<Vec<u8>>()) as u64
    }

    /// Appends a record.
    #[inline]
    pub fn push(&mut self, record: &[u8]) {
        let cost = HEAD + record.len();
        if self.last.capacity() - self.last.len() < cost {
            self.grow(cost);
        }
        self.last.extend_from_slice(&(record.len() as u64).to_le_bytes());
        self.last.extend_from_slice(record);
        self.records += 1;
        self.bytes += cost as u64;
    }

    /// Appends records that are in the ring's form already, without copying them. Nothing but whole records may be in
    /// `chunk`: one, or several of at most [`CHUNK`] bytes in all.
    pub fn push_chunk(&mut self, mut chunk: Vec<u8>, records: u64) {
        if records == 0 {
            return;
        }
        self.records += records;
        self.bytes += chunk.len() as u64;
        trim(&mut chunk);
        self.memory += chunk.capacity() as u64;
        self.close_last();
        self.last = chunk;
    }

    /// The first record.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<&[u8]> {
        split(self.front_chunk()).map(|(record, _)| record)
    }

    /// Removes the first record; returns what it cost.
    #[inline]
    pub fn pop(&mut self) -> Option<u64> {
        let cost = (HEAD + self.front()?.len()) as u64;
        self.remove(1, cost);
        Some(cost)
    }

    /// Moves records from the front to the end of `out`, as they are: as many as fit into `max` bytes, and at least one.
    pub fn take(&mut self, max: usize, out: &mut Vec<u8>) -> Moved {
        let mut moved = Moved::default();
        while !self.is_empty() {
            let chunk = self.front_chunk();
            let room = if moved.records == 0 { max } else { max.saturating_sub(bytes_of(moved.bytes)) };
            let (records, bytes) = whole_records(chunk, room, moved.records == 0);
            if records == 0 {
                break;
            }
            out.extend_from_slice(chunk.get(..bytes).unwrap_or(chunk));
            self.remove(records, bytes as u64);
            moved.records += records;
            moved.bytes += bytes as u64;
        }
        moved
    }

    /// The records, first to last, in pieces of whole records.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let first = self.head;
        let all = self.full.iter().map(Vec::as_slice).chain([self.last.as_slice()]);
        let begun =
            all.enumerate().map(move |(index, chunk)| if index == 0 { chunk.get(first..) } else { Some(chunk) });
        begun.flatten().filter(|chunk| !chunk.is_empty())
    }

    /// The records, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks().flat_map(records)
    }

    /// Removes all records and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// What is left of the first chunk.
    #[inline]
    fn front_chunk(&self) -> &[u8] {
        self.full.front().unwrap_or(&self.last).get(self.head..).unwrap_or_default()
    }

    /// Removes records from the front, which are in the first chunk.
    #[inline]
    fn remove(&mut self, records: u64, bytes: u64) {
        self.records -= records;
        self.bytes -= bytes;
        self.head += bytes_of(bytes);
        if self.head >= self.full.front().unwrap_or(&self.last).len() {
            self.drop_first();
        }
    }

    /// Gives back the first chunk, all of which is done with.
    fn drop_first(&mut self) {
        self.head = 0;
        if let Some(first) = self.full.pop_front() {
            self.memory -= first.capacity() as u64;
            if self.full.is_empty() {
                self.full = VecDeque::new();
            } else if self.full.capacity() > 64 && self.full.len() < self.full.capacity() / 4 {
                self.full.shrink_to(self.full.len() * 2);
            }
        } else if self.last.capacity() > KEPT {
            self.memory -= self.last.capacity() as u64;
            self.last = Vec::new();
        } else {
            self.last.clear();
        }
    }

    /// Makes room for a record of this cost in the last chunk.
    #[cold]
    fn grow(&mut self, cost: usize) {
        let size = if cost > CHUNK / 8 {
            cost
        } else {
            // In steps of powers of two; what is held is at least as much as the chunk that is full now.
            let held = bytes_of(self.bytes).min(CHUNK);
            held.next_power_of_two().clamp(FIRST, CHUNK).max(cost)
        };
        self.close_last();
        self.last = Vec::with_capacity(size);
        self.memory += self.last.capacity() as u64;
    }

    /// Puts the last chunk behind the full ones; nothing is in its place then.
    fn close_last(&mut self) {
        let mut last = std::mem::take(&mut self.last);
        self.memory -= last.capacity() as u64;
        if last.is_empty() {
            return;
        }
        trim(&mut last);
        self.memory += last.capacity() as u64;
        self.full.push_back(last);
    }
}

/// What [`Ring::take`] moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Records.
    pub records: u64,
    /// Their bytes, [`RECORD_OVERHEAD`] more each.
    pub bytes: u64,
}

/// The records in a piece of memory that holds them one behind the other, each as a u64 length and its bytes; ends at the
/// first one that is not whole.
pub fn records(mut piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (record, rest) = split(piece)?;
        piece = rest;
        Some(record)
    })
}

/// The first record of a piece, and what follows it.
#[inline]
fn split(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = piece.split_first_chunk::<HEAD>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// How many records are at the beginning of a piece within `max` bytes, and their bytes; at least one if `one`.
#[inline]
pub(crate) fn whole_records(piece: &[u8], max: usize, one: bool) -> (u64, usize) {
    let (mut count, mut rest) = (0_u64, piece);
    while let Some((_, behind)) = split(rest) {
        if piece.len() - behind.len() > max && !(one && count == 0) {
            break;
        }
        count += 1;
        rest = behind;
    }
    (count, piece.len() - rest.len())
}

/// Gives back what of a chunk will not be used, if it is worth it.
fn trim(chunk: &mut Vec<u8>) {
    if chunk.capacity() - chunk.len() > chunk.len() / 16 {
        chunk.shrink_to_fit();
    }
}

/// Bytes in memory fit into a `usize`.
#[inline]
fn bytes_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

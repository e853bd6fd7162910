//! The index of a file in format 2: where its blocks are and which keys they have, for those who read only some of them.
//!
//! ```text
//! "OVSINDEX" | offset u64 | entries u32 | crc32 of the entries | crc32 of this header so far |
//! entries: {block's offset u64, min key u64, max key u64} ... | offset of the index u64 | crc32 of that | "OVSTRAIL"
//! ```
//!
//! It is looked for at the end of the file only. Blocks may be appended behind it: then it is passed over.

use std::io;

use super::{BLOCK_HEADER, BlockHeader, Fields};
use crate::bucket::KeyRange;
use crate::disk::File;
use crate::format::HEADER;

const INDEX_HEADER: usize = 28;
const MAGIC: [u8; 8] = *b"OVSINDEX";
const ENTRY: usize = 24;
const TRAILER: usize = 20;
const TRAILER_MAGIC: [u8; 8] = *b"OVSTRAIL";
/// A file of more blocks gets no index.
const MAX_ENTRIES: usize = 1 << 18;

/// A block in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the block begins in the file.
    pub offset: u64,
    /// The lowest and the highest of its keys.
    pub keys: KeyRange,
}

/// The blocks of a file, all of them, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    entries: Vec<Entry>,
}

impl Index {
    /// Adds all blocks that are in a part of the file, as the encoder made it for this offset.
    pub fn add(&mut self, mut offset: u64, mut blocks: &[u8]) {
        while let Ok(header) = BlockHeader::read(blocks, offset) {
            self.entries.push(Entry { offset, keys: header.keys });
            offset += header.size() as u64;
            blocks = blocks.get(header.size()..).unwrap_or_default();
        }
    }

    /// The blocks.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds the index to the end of a buffer whose byte `out.len()` will be at `offset` of the file. Nothing is added if
    /// there are no blocks, or more than an index holds (262,144).
    pub fn write(&self, offset: u64, out: &mut Vec<u8>) {
        if self.entries.len() > MAX_ENTRIES || self.entries.is_empty() {
            return;
        }
        let mut entries = Vec::with_capacity(self.entries.len() * ENTRY);
        for entry in &self.entries {
            for field in [entry.offset, entry.keys.low, entry.keys.high] {
                entries.extend_from_slice(&field.to_le_bytes());
            }
        }
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.entries.len()).unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&entries);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&offset.to_le_bytes()).to_le_bytes());
        out.extend_from_slice(&TRAILER_MAGIC);
    }

    /// Reads the index at the end of a file of this length. None if there is no intact one: the blocks' headers say the
    /// same.
    ///
    /// # Errors
    /// The file's.
    pub fn read(file: &dyn File, length: u64) -> io::Result<Option<Self>> {
        let Some(at) = length.checked_sub(TRAILER as u64).filter(|at| *at >= HEADER as u64) else { return Ok(None) };
        let mut trailer = [0; TRAILER];
        if !read_all(file, &mut trailer, at)? {
            return Ok(None);
        }
        let offset = Fields(&trailer).u64();
        let mut header = [0; INDEX_HEADER];
        if trailer[12..] != TRAILER_MAGIC || offset >= at || !read_all(file, &mut header, offset)? {
            return Ok(None);
        }
        let Some(header) = IndexHeader::read(&header, offset) else { return Ok(None) };
        if offset.checked_add(header.size() as u64) != Some(length) {
            return Ok(None);
        }
        let mut index = vec![0; header.size()];
        let intact = read_all(file, &mut index, offset)? && header.is_intact(&index, offset);
        let entries = index.get(INDEX_HEADER..index.len() - TRAILER).unwrap_or_default();
        Ok(if intact { Self::parse(entries, offset) } else { None })
    }

    /// The entries, if they begin with the first block of the file, are in order, and in front of the index.
    fn parse(entries: &[u8], end: u64) -> Option<Self> {
        let mut index = Self { entries: Vec::with_capacity(entries.len() / ENTRY) };
        let mut next = HEADER as u64;
        for entry in entries.chunks_exact(ENTRY) {
            let mut fields = Fields(entry);
            let offset = fields.u64();
            let keys = KeyRange::new(fields.u64(), fields.u64())?;
            let is_next = if index.entries.is_empty() { offset == next } else { offset >= next };
            if !is_next || offset >= end {
                return None;
            }
            next = offset + BLOCK_HEADER as u64;
            index.entries.push(Entry { offset, keys });
        }
        Some(index)
    }
}

/// The header of an index, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexHeader {
    entries: u32,
    crc: u32,
}

impl IndexHeader {
    /// Reads the header that is at an offset of a file.
    pub(crate) fn read(bytes: &[u8], offset: u64) -> Option<Self> {
        let header: &[u8; INDEX_HEADER] = bytes.first_chunk()?;
        let (checked, crc) = header.split_last_chunk::<4>()?;
        let mut fields = Fields(checked.strip_prefix(&MAGIC)?);
        let good = crc32fast::hash(checked) == u32::from_le_bytes(*crc) && fields.u64() == offset;
        let (entries, crc) = (fields.u32(), fields.u32());
        (good && entries > 0 && entries as usize <= MAX_ENTRIES).then_some(Self { entries, crc })
    }

    /// The bytes of the whole index.
    pub(crate) const fn size(self) -> usize {
        INDEX_HEADER + self.entries as usize * ENTRY + TRAILER
    }

    /// Whether the bytes of an index of this header at this offset are as they were written.
    pub(crate) fn is_intact(self, index: &[u8], offset: u64) -> bool {
        let Some(rest) = index.get(INDEX_HEADER..self.size()) else { return false };
        let Some((entries, trailer)) = rest.split_last_chunk::<TRAILER>() else { return false };
        let offset = offset.to_le_bytes();
        crc32fast::hash(entries) == self.crc
            && trailer[..8] == offset
            && trailer[8..12] == crc32fast::hash(&offset).to_le_bytes()
            && trailer[12..] == TRAILER_MAGIC
    }
}

/// Whether the file had as many bytes there.
fn read_all(file: &dyn File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buffer.is_empty() {
        let read = file.read_at(buffer, offset)?;
        if read == 0 {
            return Ok(false);
        }
        offset += read as u64;
        buffer = buffer.get_mut(read..).unwrap_or_default();
    }
    Ok(true)
}

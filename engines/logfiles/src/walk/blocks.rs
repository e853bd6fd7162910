//! The blocks of format 2.

use zstd::bulk::Decompressor;

use super::{Damage, Search, Shape, Step, Walker, to_usize};
use crate::bucket::{KeyRange, Ranges};
use crate::format::v2::{BLOCK_HEADER, BlockHeader, Index, IndexHeader};
use crate::record::{Framing, Head};

/// What a decompressor takes of the memory.
const DECOMPRESSOR: usize = 160 << 10;

/// The block whose records are given, and what is known of the others.
#[derive(Default)]
pub(super) struct Blocks {
    content: Vec<u8>,
    /// Where the next record begins in the content.
    at: usize,
    /// The records that are still to come from it.
    records: u32,
    /// The records of the block, and those at its front that were given before its content was given up.
    total: u32,
    given: u32,
    /// The block in the file: offset and bytes.
    block: (u64, u64),
    zstd: Option<Decompressor<'static>>,
    index: Option<Index>,
    /// The first entry of the index that is not passed yet.
    entry: usize,
}

impl Blocks {
    pub(super) fn set_index(&mut self, index: Index) {
        self.index = Some(index);
    }

    /// The next block at or behind an offset that has keys of the ranges; `end` if none has, the offset itself if the
    /// index does not say.
    fn jump(&mut self, offset: u64, end: u64, ranges: &Ranges) -> u64 {
        let Some(index) = &self.index else { return offset };
        let entries = index.entries().get(self.entry..).unwrap_or_default();
        let passed = entries.iter().take_while(|entry| entry.offset < offset || !meets(ranges, entry.keys)).count();
        self.entry += passed;
        entries.get(passed).map_or(end, |entry| entry.offset)
    }

    /// What it takes of the memory, about.
    pub(super) fn memory(&self) -> usize {
        self.content.capacity() + if self.zstd.is_some() { DECOMPRESSOR } else { 0 }
    }

    /// Gives up the content; where the block is in the file, if it is needed again.
    pub(super) fn slim(&mut self) -> Option<u64> {
        self.zstd = None;
        self.content = Vec::new();
        self.at = 0;
        let pending = std::mem::take(&mut self.records);
        (pending > 0).then(|| {
            self.given = self.total - pending;
            self.block.0
        })
    }

    /// Has no block any more.
    fn clear(&mut self) {
        self.content.clear();
        (self.at, self.records, self.given) = (0, 0, 0);
    }

    /// Makes the content of a block ready; false if it is not what the header says.
    fn load(&mut self, header: &BlockHeader, stored: &[u8]) -> bool {
        self.content.clear();
        self.at = 0;
        (self.records, self.total) = (header.records, header.records);
        if crc32fast::hash(stored) != header.crc {
            return false;
        }
        if !header.compressed {
            self.content.extend_from_slice(stored);
            return true;
        }
        if self.zstd.is_none() {
            self.zstd = Decompressor::new().ok();
        }
        let Some(zstd) = &mut self.zstd else { return false };
        // The length was checked against the limit of a block: this is all that is ever taken.
        let length = header.plain as usize;
        self.content.reserve_exact(length);
        zstd.decompress_to_buffer(stored, &mut self.content).is_ok_and(|written| written == length)
    }
}

/// Whether a range of keys has one that is asked for.
fn meets(ranges: &Ranges, keys: KeyRange) -> bool {
    ranges.iter().any(|range| range.low <= keys.high && keys.low <= range.high)
}

impl Walker {
    /// None: what comes next is something else, or the next block.
    pub(super) fn blocks_in(&mut self, rest: &[u8], out: &mut impl FnMut(u64, &[u8]) -> bool) -> Option<Step> {
        let Shape::Blocks(blocks) = &mut self.shape else { return Some(Step::End) };
        if blocks.at < blocks.content.len() || blocks.records > 0 {
            return self.content(out);
        }
        let left = self.end - self.offset;
        if left == 0 {
            return Some(Step::End);
        }
        if !self.all {
            let next = blocks.jump(self.offset, self.end, &self.ranges);
            if next > self.offset && next <= self.end {
                self.offset = next;
                return None;
            }
        }
        let wanted = to_usize(left.min(BLOCK_HEADER as u64));
        if rest.len() < wanted {
            return Some(Step::Need(wanted));
        }
        match BlockHeader::read(rest, self.offset) {
            Ok(header) => self.block(&header, rest),
            Err(_) => self.other(rest),
        }
    }

    fn block(&mut self, header: &BlockHeader, rest: &[u8]) -> Option<Step> {
        let Shape::Blocks(blocks) = &mut self.shape else { return Some(Step::End) };
        let (offset, size) = (self.offset, header.size());
        if size as u64 > self.end - offset {
            self.search = Some(Search::new(offset, "a block reaches over the end of the file"));
            return None;
        }
        if !self.number.holds(header.keys.low) || !self.number.holds(header.keys.high) {
            return Some(self.pass(size, "a block's keys do not belong to the bucket"));
        }
        if !self.all && !meets(&self.ranges, header.keys) {
            self.offset += size as u64;
            return None;
        }
        let Some(stored) = rest.get(BLOCK_HEADER..size) else { return Some(Step::Need(size)) };
        if !blocks.load(header, stored) {
            blocks.clear();
            return Some(self.pass(size, "the checksum of a block is wrong"));
        }
        blocks.block = (offset, size as u64);
        self.offset += size as u64;
        None
    }

    /// An index, or damage.
    fn other(&mut self, rest: &[u8]) -> Option<Step> {
        let Some(header) = IndexHeader::read(rest, self.offset) else {
            self.search = Some(Search::new(self.offset, "the header of a block is wrong"));
            return None;
        };
        let size = header.size();
        if size as u64 > self.left() {
            self.search = Some(Search::new(self.offset, "an index reaches over the end of the file"));
            return None;
        }
        let Some(index) = rest.get(..size) else { return Some(Step::Need(size)) };
        if !header.is_intact(index, self.offset) {
            return Some(self.pass(size, "the checksum of an index is wrong"));
        }
        self.offset += size as u64;
        None
    }

    /// Reports what is here and goes on behind it.
    fn pass(&mut self, size: usize, why: &'static str) -> Step {
        let damage = Damage { offset: self.offset, bytes: size as u64, why };
        self.offset += damage.bytes;
        Step::Damaged(damage)
    }

    /// The records of the block that is loaded.
    fn content(&mut self, out: &mut impl FnMut(u64, &[u8]) -> bool) -> Option<Step> {
        let (number, all, ranges) = (self.number, self.all, self.ranges);
        let Shape::Blocks(blocks) = &mut self.shape else { return Some(Step::End) };
        let mut rest = blocks.content.get(blocks.at..).unwrap_or_default();
        while let Some(head) = Head::read(Framing::Plain, rest) {
            let space = (rest.len() - Framing::Plain.head()) as u64;
            if head.fault(number, space).is_some() || blocks.records == 0 {
                break;
            }
            let (record, behind) = rest.split_at(Framing::Plain.head() + to_usize(head.length));
            if blocks.given > 0 {
                blocks.given -= 1;
            } else if (all || ranges.holds(head.key)) && !out(head.key, &record[Framing::Plain.head()..]) {
                blocks.at = blocks.content.len() - rest.len();
                return Some(Step::Paused);
            }
            blocks.records -= 1;
            rest = behind;
        }
        let whole = rest.is_empty() && blocks.records == 0;
        blocks.clear();
        let (offset, bytes) = blocks.block;
        let why = "the content of a block is not the records that its header tells of";
        (!whole).then_some(Step::Damaged(Damage { offset, bytes, why }))
    }
}

//! Goes through the records of a bucket, whatever its format and its damages: the one reader of the node, of its recovery
//! and of the checker.
//!
//! It does no input or output: it is given a window of the file's bytes and says which it wants next. What can be told
//! of damage and what cannot is written down in `docs/formats/bucket.md`.

mod blocks;
mod file;
mod records;
mod search;
#[cfg(test)]
mod tests;

use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::format::v2::Index;
use crate::format::{Format, HEADER};
use crate::record::Framing;

use blocks::Blocks;
pub use file::{MAX_DAMAGES, Summary, Window, read_file};
use search::Search;

/// A part of a file that cannot be read. The records in it are lost, all others are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes, up to where reading goes on.
    pub bytes: u64,
    /// What is wrong at its beginning, in words.
    pub why: &'static str,
}

/// How far a [`Walker`] came with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It wants a window that begins at [`Walker::offset`] and has at least as many bytes, which the file has. At most
    /// about 17 MiB, where two of the largest records follow each other in a damaged file; 56 bytes as a rule.
    Need(usize),
    /// The visitor did not take a record; the next call begins with it.
    Paused,
    /// A damage was found and passed: go on with a window at [`Walker::offset`].
    Damaged(Damage),
    /// There is nothing more.
    End,
}

/// Where the walk through a bucket is.
pub struct Walker {
    number: BucketNumber,
    offset: u64,
    end: u64,
    ranges: Ranges,
    /// All keys of the bucket are in the ranges.
    all: bool,
    shape: Shape,
    /// The front of the file is still to be looked at.
    front: bool,
    /// Something is damaged, and where reading can go on is not found yet.
    search: Option<Search>,
    /// What cannot be read, from `end` on.
    gap: Option<Gap>,
}

/// A part that cannot be read.
struct Gap {
    /// Where it ends.
    to: u64,
    /// The end of the file.
    end: u64,
}

enum Shape {
    Plain,
    V1,
    Blocks(Box<Blocks>),
}

impl Walker {
    /// Begins with a file of a known format and length: bytes behind this length do not count.
    #[must_use]
    pub fn new(format: Format, number: BucketNumber, length: u64) -> Self {
        let shape = match format {
            Format::Plain => Shape::Plain,
            Format::V1 => Shape::V1,
            Format::V2 => Shape::Blocks(Box::default()),
        };
        Self {
            number,
            offset: 0,
            end: length,
            ranges: Ranges::one(KeyRange::ALL),
            all: true,
            shape,
            front: true,
            search: None,
            gap: None,
        }
    }

    /// Begins with records alone, as they are on their way into a file.
    #[must_use]
    pub fn records(framing: Framing, number: BucketNumber, length: u64) -> Self {
        let format = match framing {
            Framing::Plain => Format::Plain,
            Framing::V1 => Format::V1,
        };
        Self { front: false, ..Self::new(format, number, length) }
    }

    /// Begins at the offset of a record or block, behind the header.
    #[must_use]
    pub fn starting_at(mut self, offset: u64) -> Self {
        self.offset = offset.min(self.end);
        self.front &= offset == 0;
        self
    }

    /// Gives only records with keys in these ranges. Damage outside of them need not be seen.
    #[must_use]
    pub fn with_ranges(mut self, ranges: Ranges) -> Self {
        let (first, last) = (self.number.first_key(), self.number.last_key());
        self.all = ranges.iter().any(|range| range.holds(first) && range.holds(last));
        self.ranges = ranges;
        self
    }

    /// Goes from block to block with the file's index, for which it must have been read. Nothing for the other formats.
    #[must_use]
    pub fn with_index(mut self, index: Index) -> Self {
        if let Shape::Blocks(blocks) = &mut self.shape {
            blocks.set_index(index);
        }
        self
    }

    /// Gives up the memory that a paused walk holds, a block of format 2. The next call wants the window at
    /// [`offset`](Self::offset) again, which may be further in front than before, and goes on behind the same record.
    pub fn slim(&mut self) {
        if let Shape::Blocks(blocks) = &mut self.shape
            && let Some(offset) = blocks.slim()
        {
            self.offset = offset;
        }
    }

    /// The memory that it holds, a block of format 2, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        match &self.shape {
            Shape::Plain | Shape::V1 => 0,
            Shape::Blocks(blocks) => blocks.memory(),
        }
    }

    /// Says that the disk does not give the bytes from an offset, not in front of [`offset`](Self::offset), to another
    /// one. They are a damage: the next record behind them is looked for.
    pub fn leave_out(&mut self, from: u64, to: u64) {
        let end = self.gap.take().map_or(self.end, |gap| gap.end);
        self.gap = Some(Gap { to: to.clamp(from, end), end });
        self.end = from.clamp(self.offset, end);
    }

    /// Where the bytes end that windows may have: the file's end, or what is left out.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Where the next window begins in the file. It may be behind the end of the last one.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The format: the one it began with, or, where the front of the file was so damaged that it looked like a plain one,
    /// the one that was found later.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.shape {
            Shape::Plain => Format::Plain,
            Shape::V1 => Format::V1,
            Shape::Blocks(_) => Format::V2,
        }
    }

    /// Gives the records of a window that begins at [`offset`](Self::offset) to the visitor, in the order of writing. The
    /// visitor says false if it does not take one.
    pub fn next(&mut self, window: &[u8], out: &mut impl FnMut(u64, &[u8]) -> bool) -> Step {
        let begin = self.offset;
        loop {
            let passed = to_usize(self.offset - begin);
            let rest = window.get(passed..).unwrap_or_default();
            let rest = rest.get(..to_usize(self.left())).unwrap_or(rest);
            let step = if self.front {
                self.front(rest)
            } else if let Some(search) = self.search.take() {
                self.search(rest, search)
            } else {
                match self.shape {
                    Shape::Plain => self.records_in::<false>(rest, out),
                    Shape::V1 => self.records_in::<true>(rest, out),
                    Shape::Blocks(_) => self.blocks_in(rest, out),
                }
            };
            match (step, self.gap.take_if(|_| step == Some(Step::End))) {
                (_, Some(Gap { to, end })) => {
                    self.search = Some(Search::behind(self.end, "it cannot be read"));
                    (self.offset, self.end) = (to, end);
                }
                (Some(step), None) => return step,
                (None, None) => {}
            }
        }
    }

    /// The header of the file, or what is in its place.
    fn front(&mut self, rest: &[u8]) -> Option<Step> {
        if self.end < HEADER as u64 {
            // Nothing was ever written, it was cut to nothing, or it cannot be read.
            self.front = false;
            if self.gap.is_some() {
                self.end = self.offset;
            }
            self.offset = self.end;
            return None;
        }
        if rest.len() < HEADER {
            return Some(Step::Need(HEADER));
        }
        self.front = false;
        let header = self.format().header();
        self.offset = header.len() as u64;
        if rest.starts_with(header) {
            return None;
        }
        Some(Step::Damaged(Damage { offset: 0, bytes: self.offset, why: "the header of the file is wrong" }))
    }

    /// The bytes that are left of the file.
    const fn left(&self) -> u64 {
        self.end - self.offset
    }

    #[inline]
    fn wants(&self, key: u64) -> bool {
        self.all || self.ranges.holds(key)
    }
}

/// A number of bytes that a window may have, or more than any has.
#[inline]
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

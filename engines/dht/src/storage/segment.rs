//! A segment: the records of a range of hashes, in one slot.
//!
//! ```text
//!  0                 capacity * 4                             end            SLOT
//!  +-------+-------+-+-------------+--------+---------+-------+--------------+
//!  | entry | entry | | record      | record | garbage | record| never written|
//!  +-------+-------+-+-------------+--------+---------+-------+--------------+
//!  entry   u32: tag (16 bits), place of the record (16 bits); sorted by the records' hashes
//!  record  hash u64, length u16, value; bit 15 of the length: the value lies elsewhere, these 8 bytes say where
//! ```
//!
//! The tag is the hash's distance from `origin`, shifted and capped: it grows with the hash, and hashes that share
//! a tag are told apart by the records themselves. So any hashes are in order, and those that spread are found at once.

use std::ops::Range;

use super::pages::{Bytes, PAGE, SLOT, Slot, pages_of};

/// What a record takes besides its value and its entry.
pub(super) const HEAD: usize = 10;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 4;
/// The longest value that lies in the segment.
pub(super) const INLINE: usize = 16 * 1024;
/// Marks the length of a value that lies elsewhere.
const ELSEWHERE: u16 = 0x8000;
/// Entries that are looked at one after the other before the search halves.
const NEAR: usize = 24;
/// The first segment of a channel has room for so many entries.
const FIRST_CAPACITY: usize = 256;

/// Where the records of a slot are.
#[derive(Debug)]
pub(super) struct Segment {
    origin: u64,
    /// No record has a higher hash.
    last: u64,
    pub(super) slot: Slot,
    end: u32,
    garbage: u32,
    count: u16,
    capacity: u16,
    pages: u8,
    shift: u8,
    /// Whether values may lie elsewhere.
    elsewhere: bool,
}

/// A value in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// The number of a value that lies elsewhere.
    Elsewhere(u64),
}

impl Stored<'_> {
    fn length(&self) -> u16 {
        match self {
            Self::Inline(value) => u16::try_from(value.len()).unwrap_or(u16::MAX >> 1),
            Self::Elsewhere(_) => 8 | ELSEWHERE,
        }
    }

    /// Bytes that the record takes in the segment.
    pub(super) fn size(&self) -> usize {
        HEAD + usize::from(self.length() & !ELSEWHERE)
    }
}

impl Segment {
    /// A segment without records; `record` is what the first one will take.
    pub(super) fn empty(slot: Slot, record: usize) -> Self {
        let capacity = capacity_for(1, record).min(FIRST_CAPACITY);
        Self {
            origin: 0,
            last: 0,
            slot,
            end: u32_of(capacity * ENTRY),
            garbage: 0,
            count: 0,
            capacity: u16_of(capacity),
            pages: 0,
            shift: 48,
            elsewhere: false,
        }
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Pages of the slot that take memory.
    pub(super) fn pages(&self) -> usize {
        usize::from(self.pages)
    }

    pub(super) fn has_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Bytes of the records, without garbage and entries.
    pub(super) fn live(&self) -> usize {
        self.end as usize - usize::from(self.capacity) * ENTRY - self.garbage as usize
    }

    /// Whether a good part of it is garbage.
    pub(super) fn is_wasteful(&self) -> bool {
        self.garbage as usize >= PAGE && self.garbage > self.end / 4
    }

    /// Whether it is nearly empty.
    pub(super) fn is_sparse(&self) -> bool {
        self.live() + self.count() * ENTRY < SLOT / 4
    }

    /// Whether a record of `size` bytes can be appended.
    pub(super) fn has_room(&self, size: usize, new: bool) -> bool {
        (!new || self.count < self.capacity) && self.end as usize + size <= SLOT
    }

    /// Pages that appending `size` bytes would take in addition.
    pub(super) fn growth(&self, size: usize) -> usize {
        pages_of(self.end as usize + size).saturating_sub(self.pages())
    }

    /// Whether writing the records anew makes good room for one of `size` bytes more.
    pub(super) fn worth_compacting(&self, size: usize) -> bool {
        let live = self.live() + size;
        capacity_for(self.count() + 1, live) * ENTRY + live <= SLOT / 8 * 7
    }

    #[inline]
    fn tag(&self, hash: u64) -> u32 {
        u32::try_from(hash.saturating_sub(self.origin) >> self.shift).unwrap_or(u32::MAX).min(0xffff)
    }

    /// The position of the hash, or that at which it belongs.
    #[inline]
    pub(super) fn find(&self, bytes: &Bytes, hash: u64) -> Result<usize, usize> {
        let count = self.count();
        if hash > self.last {
            // Records that come in their order, as from a dump, are appended without a search.
            return Err(count);
        }
        let tag = self.tag(hash);
        // Where it would be if the hashes were spread evenly.
        let mut at = (tag as usize * count) >> 16;
        let mut near = NEAR;
        if at < count && tag_at(bytes, at) < tag {
            at += 1;
            while at < count && tag_at(bytes, at) < tag {
                near -= 1;
                if near == 0 {
                    at = lower_bound(at..count, |at| tag_at(bytes, at) < tag);
                    break;
                }
                at += 1;
            }
        } else {
            while at > 0 && tag_at(bytes, at - 1) >= tag {
                near -= 1;
                if near == 0 {
                    at = lower_bound(0..at, |at| tag_at(bytes, at) < tag);
                    break;
                }
                at -= 1;
            }
        }
        let mut near = 4;
        while at < count {
            let entry = entry_at(bytes, at);
            if entry >> 16 != tag {
                break;
            }
            let found = hash_at(bytes, place(entry));
            if found == hash {
                return Ok(at);
            }
            if found > hash {
                break;
            }
            at += 1;
            near -= 1;
            if near == 0 {
                let end = lower_bound(at..count, |at| tag_at(bytes, at) <= tag);
                at = lower_bound(at..end, |at| hash_at(bytes, place(entry_at(bytes, at))) < hash);
                near = usize::MAX;
            }
        }
        Err(at)
    }

    /// The hash of the record at a position.
    pub(super) fn hash(&self, bytes: &Bytes, at: usize) -> u64 {
        hash_at(bytes, place(entry_at(bytes, at)))
    }

    /// The record at a position.
    #[inline]
    pub(super) fn record<'a>(&self, bytes: &'a Bytes, at: usize) -> (u64, Stored<'a>) {
        let place = place(entry_at(bytes, at));
        let hash = hash_at(bytes, place);
        let length = length_at(bytes, place);
        let from = place + HEAD;
        if length & ELSEWHERE == 0 {
            (hash, Stored::Inline(&bytes[from..from + usize::from(length)]))
        } else {
            (hash, Stored::Elsewhere(u64_at(bytes, from)))
        }
    }

    /// Puts a record at the position that [`Self::find`] named; there is room.
    #[inline]
    pub(super) fn insert(&mut self, bytes: &mut Bytes, at: usize, hash: u64, stored: Stored<'_>) {
        let place = self.append(bytes, hash, stored);
        let entry = self.tag(hash) << 16 | u32_of(place);
        bytes.copy_within(at * ENTRY..self.count() * ENTRY, (at + 1) * ENTRY);
        put_entry(bytes, at, entry);
        self.count += 1;
        self.last = self.last.max(hash);
    }

    /// Replaces the value at a position where the place of the old one suffices; whether it does.
    #[inline]
    pub(super) fn replace_in_place(&mut self, bytes: &mut Bytes, at: usize, stored: Stored<'_>) -> bool {
        let place = place(entry_at(bytes, at));
        let old = usize::from(length_at(bytes, place) & !ELSEWHERE);
        let new = stored.size() - HEAD;
        if new > old {
            return false;
        }
        self.garbage += u32_of(old - new);
        self.write(bytes, place, stored);
        true
    }

    /// Replaces the value at a position by a longer one; there is room for the whole record.
    pub(super) fn replace(&mut self, bytes: &mut Bytes, at: usize, stored: Stored<'_>) {
        let old = entry_at(bytes, at);
        let hash = hash_at(bytes, place(old));
        self.garbage += u32_of(HEAD + usize::from(length_at(bytes, place(old)) & !ELSEWHERE));
        let place = self.append(bytes, hash, stored);
        put_entry(bytes, at, old & 0xffff_0000 | u32_of(place));
    }

    /// Removes the record at a position.
    pub(super) fn remove(&mut self, bytes: &mut Bytes, at: usize) {
        let place = place(entry_at(bytes, at));
        let size = HEAD + usize::from(length_at(bytes, place) & !ELSEWHERE);
        if place + size == self.end as usize {
            self.end -= u32_of(size);
        } else {
            self.garbage += u32_of(size);
        }
        bytes.copy_within((at + 1) * ENTRY..self.count() * ENTRY, at * ENTRY);
        self.count -= 1;
    }

    fn append(&mut self, bytes: &mut Bytes, hash: u64, stored: Stored<'_>) -> usize {
        let place = self.end as usize;
        bytes[place..place + 8].copy_from_slice(&hash.to_le_bytes());
        self.write(bytes, place, stored);
        let end = place + stored.size();
        self.end = u32_of(end);
        // No more than 16.
        self.pages = self.pages.max(u8::try_from(pages_of(end)).unwrap_or(u8::MAX));
        place
    }

    #[inline]
    fn write(&mut self, bytes: &mut Bytes, place: usize, stored: Stored<'_>) {
        bytes[place + 8..place + HEAD].copy_from_slice(&stored.length().to_le_bytes());
        let from = place + HEAD;
        match stored {
            Stored::Inline(value) => bytes[from..from + value.len()].copy_from_slice(value),
            Stored::Elsewhere(number) => {
                self.elsewhere = true;
                bytes[from..from + 8].copy_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// The position behind which a split begins the second segment; both have records. There are two or more.
    ///
    /// It is the middle of the records' bytes, or near the end if the next record is `appended`: those that come in
    /// their order leave full segments behind.
    pub(super) fn middle(&self, bytes: &Bytes, appended: bool) -> usize {
        let first = if appended { self.live() / 16 * 15 } else { self.live() / 2 };
        let mut sum = 0;
        for at in 0..self.count() {
            sum += HEAD + usize::from(length_at(bytes, place(entry_at(bytes, at))) & !ELSEWHERE);
            if sum >= first {
                return (at + 1).clamp(1, self.count() - 1);
            }
        }
        self.count() / 2
    }

    /// Begins to write records anew into `scratch`: `count` of them of `live` bytes, for hashes of the range.
    pub(super) fn builder(scratch: &mut Bytes, count: usize, live: usize, low: u64, high: u64) -> Builder<'_> {
        let capacity = capacity_for(count, live);
        // The whole range gets tags that fit.
        let shift = 48u32.saturating_sub(high.saturating_sub(low).leading_zeros());
        Builder {
            scratch,
            origin: low,
            last: 0,
            shift: u8::try_from(shift).unwrap_or(48),
            end: capacity * ENTRY,
            count: 0,
            capacity,
            elsewhere: false,
        }
    }

    /// Where a segment ends into which a builder writes `count` records of `live` bytes.
    pub(super) fn end_of(count: usize, live: usize) -> usize {
        capacity_for(count, live) * ENTRY + live
    }

    /// Takes over what a builder wrote; returns how many pages it had before.
    pub(super) fn rebuilt(slot: Slot, built: &Built) -> Self {
        Self {
            origin: built.origin,
            last: built.last,
            slot,
            end: u32_of(built.end),
            garbage: 0,
            count: u16_of(built.count),
            capacity: u16_of(built.capacity),
            pages: u8::try_from(pages_of(built.end)).unwrap_or(u8::MAX),
            shift: built.shift,
            elsewhere: built.elsewhere,
        }
    }
}

/// Records that are written in the order of their hashes, without garbage.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    scratch: &'a mut Bytes,
    origin: u64,
    last: u64,
    shift: u8,
    end: usize,
    count: usize,
    capacity: usize,
    elsewhere: bool,
}

/// What a builder wrote.
#[derive(Debug)]
pub(super) struct Built {
    origin: u64,
    last: u64,
    shift: u8,
    /// Bytes of the scratch that were written.
    pub(super) end: usize,
    count: usize,
    capacity: usize,
    elsewhere: bool,
}

impl Builder<'_> {
    /// Appends a record whose value lies in the segment.
    #[inline]
    pub(super) fn push(&mut self, hash: u64, value: &[u8]) {
        let length = Stored::Inline(value).length();
        let tag = (hash.saturating_sub(self.origin) >> self.shift).min(0xffff);
        put_entry(self.scratch, self.count, u32::try_from(tag << 16).unwrap_or(u32::MAX) | u32_of(self.end));
        let end = self.end + HEAD + value.len();
        let record = &mut self.scratch[self.end..end];
        record[..8].copy_from_slice(&hash.to_le_bytes());
        record[8..HEAD].copy_from_slice(&length.to_le_bytes());
        record[HEAD..].copy_from_slice(value);
        self.end = end;
        self.count += 1;
        self.last = hash;
    }

    /// Appends the records of a segment at the positions `range`.
    pub(super) fn copy(&mut self, segment: &Segment, bytes: &Bytes, range: Range<usize>) {
        for at in range {
            let from = place(entry_at(bytes, at));
            let size = HEAD + usize::from(length_at(bytes, from) & !ELSEWHERE);
            let hash = hash_at(bytes, from);
            let tag = (hash.saturating_sub(self.origin) >> self.shift).min(0xffff);
            put_entry(self.scratch, self.count, u32::try_from(tag << 16).unwrap_or(u32::MAX) | u32_of(self.end));
            self.scratch[self.end..self.end + size].copy_from_slice(&bytes[from..from + size]);
            self.end += size;
            self.count += 1;
            self.last = hash;
        }
        self.elsewhere |= segment.elsewhere;
    }

    pub(super) fn built(self) -> Built {
        let Self { origin, last, shift, end, count, capacity, elsewhere, .. } = self;
        Built { origin, last, shift, end, count, capacity, elsewhere }
    }
}

/// How many entries a slot gets for records like these `count` of `live` bytes, so that both ends meet.
fn capacity_for(count: usize, live: usize) -> usize {
    let average = live.div_ceil(count.max(1)) + ENTRY;
    let full = SLOT / average;
    (full + full / 16 + 4).max(count + count / 8 + 4).min((SLOT - live.min(SLOT)) / ENTRY).max(count)
}

/// The first of the positions for which `before` is false.
fn lower_bound(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[inline]
fn place(entry: u32) -> usize {
    (entry & 0xffff) as usize
}

#[inline]
fn tag_at(bytes: &Bytes, at: usize) -> u32 {
    entry_at(bytes, at) >> 16
}

#[inline]
fn entry_at(bytes: &Bytes, at: usize) -> u32 {
    let mut entry = [0; ENTRY];
    entry.copy_from_slice(&bytes[at * ENTRY..at * ENTRY + ENTRY]);
    u32::from_le_bytes(entry)
}

#[inline]
fn put_entry(bytes: &mut Bytes, at: usize, entry: u32) {
    bytes[at * ENTRY..at * ENTRY + ENTRY].copy_from_slice(&entry.to_le_bytes());
}

#[inline]
fn hash_at(bytes: &Bytes, place: usize) -> u64 {
    u64_at(bytes, place)
}

#[inline]
fn u64_at(bytes: &Bytes, at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[inline]
fn length_at(bytes: &Bytes, place: usize) -> u16 {
    u16::from_le_bytes([bytes[place + 8], bytes[place + 9]])
}

/// A number within a slot.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "no place or size in a slot is above 64 Ki")]
fn u32_of(number: usize) -> u32 {
    number as u32
}

/// A count of entries.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "a slot has room for less than 16 Ki entries")]
fn u16_of(number: usize) -> u16 {
    number as u16
}

//! What the channels of a store share: slots, values that lie outside of them, and the count of their memory.

use std::io;

use super::pages::{Bytes, PAGE, Pages, SLOT, Slot, pages_of};
use super::segment::{Built, INLINE, Segment, Stored};

/// What the allocator takes for a block besides the block.
const BLOCK: u64 = 16;
/// Bytes of long values after whose release free memory is given back to the system.
const TRIM_AFTER: u64 = 32 * 1024 * 1024;

/// The memory of a store.
#[derive(Debug)]
pub(super) struct Heap {
    pub(super) pages: Pages,
    /// Values that are too long for a segment, by number.
    values: Vec<Option<Box<[u8]>>>,
    free: Vec<usize>,
    pub(super) scratch: Box<Bytes>,
    memory: u64,
    /// Bytes of long values that were released since memory was given back.
    released: u64,
}

impl Default for Heap {
    fn default() -> Self {
        let scratch = vec![0; SLOT].into_boxed_slice().try_into().unwrap_or_else(|_| Box::new([0; SLOT]));
        Self { pages: Pages::default(), values: Vec::new(), free: Vec::new(), scratch, memory: 0, released: 0 }
    }
}

impl Heap {
    /// Bytes allocated for records.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// What a value of `length` bytes takes outside of its segment.
    pub(super) fn outside(length: usize) -> u64 {
        if length <= INLINE { 0 } else { length as u64 + BLOCK + 16 }
    }

    pub(super) fn grow(&mut self, bytes: u64) {
        self.memory += bytes;
    }

    pub(super) fn shrink(&mut self, bytes: u64) {
        self.memory -= bytes;
    }

    /// Keeps a value that is too long for a segment.
    pub(super) fn keep(&mut self, value: &[u8]) -> u64 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.values.push(None);
            self.values.len() - 1
        });
        self.memory += Self::outside(value.len());
        if let Some(place) = self.values.get_mut(number) {
            *place = Some(value.into());
        }
        number as u64
    }

    /// Releases a kept value; its length.
    pub(super) fn drop_value(&mut self, number: u64) -> usize {
        let Some((number, value)) =
            usize::try_from(number).ok().and_then(|number| Some((number, self.values.get_mut(number)?.take()?)))
        else {
            return 0;
        };
        self.free.push(number);
        let bytes = Self::outside(value.len());
        self.memory -= bytes;
        self.released += bytes;
        value.len()
    }

    /// Gives free memory of long values back to the system when much was released; whether it did.
    pub(super) fn trim(&mut self) -> bool {
        let trim = self.released >= TRIM_AFTER;
        if trim {
            self.released = 0;
            if self.free.len() == self.values.len() {
                self.values = Vec::new();
                self.free = Vec::new();
            }
            overstory_node::heap::give_back();
        }
        trim
    }

    /// The value itself.
    #[inline]
    pub(super) fn value<'a>(&'a self, stored: Stored<'a>) -> &'a [u8] {
        match stored {
            Stored::Inline(value) => value,
            Stored::Elsewhere(number) => {
                usize::try_from(number).ok().and_then(|number| self.values.get(number)?.as_deref()).unwrap_or_default()
            }
        }
    }

    #[inline]
    pub(super) fn bytes(&self, segment: &Segment) -> &Bytes {
        self.pages.bytes(&segment.slot)
    }

    pub(super) fn take(&mut self) -> io::Result<Slot> {
        self.pages.take()
    }

    /// Returns a segment's slot.
    pub(super) fn give_back(&mut self, segment: Segment) {
        self.memory -= (segment.pages() * PAGE) as u64;
        let pages = segment.pages();
        self.pages.give_back(segment.slot, pages);
    }

    /// Copies what was built into a slot of which `before` pages are taken.
    pub(super) fn settle(&mut self, slot: Slot, before: usize, built: &Built) -> Segment {
        let bytes = self.pages.bytes_mut(&slot);
        bytes[..built.end].copy_from_slice(&self.scratch[..built.end]);
        let now = pages_of(built.end);
        self.pages.release(&slot, now, before);
        self.memory += (now * PAGE) as u64;
        self.memory -= (before * PAGE) as u64;
        Segment::rebuilt(slot, built)
    }

    /// Counts anew what the segments and values take, to compare it with the running count.
    #[cfg(test)]
    pub(super) fn kept(&self) -> u64 {
        self.values.iter().flatten().map(|value| Self::outside(value.len())).sum()
    }

    /// Counts the pages that an operation on a segment added.
    pub(super) fn grown(&mut self, before: usize, segment: &Segment) {
        self.memory += ((segment.pages() - before) * PAGE) as u64;
    }
}

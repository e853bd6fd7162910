//! Stores many records at once that come in the order of the storage, as those of a dump do.

use super::{Channel, NODE, Node};
use crate::storage::Entry;
use crate::storage::heap::Heap;
use crate::storage::pages::{PAGE, SLOT, pages_of};
use crate::storage::segment::{ENTRY, HEAD, INLINE, Segment};

/// Bytes of records and their entries that a segment is given at most: later ones find room.
const TARGET: usize = SLOT / 16 * 15;
/// Bytes of records and their entries below which new segments are not worth it.
const WORTH: usize = SLOT / 2;

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Extended {
    /// So many of the first records are stored.
    pub(in crate::storage) stored: usize,
    /// The others up to this one are to be put one by one. At least 1 if there is a record.
    pub(in crate::storage) until: usize,
}

impl Channel {
    /// Stores the first of the records in new segments behind all others, as far as they come in ascending order above
    /// everything that is stored and are many enough.
    pub(in crate::storage) fn extend(&mut self, heap: &mut Heap, entries: &[Entry], bytes: &[u8]) -> Extended {
        let floor = self.floor(heap);
        let (run, total) = run(floor, entries);
        let until = if run > 0 { run } else { below(floor, entries) };
        let mut extended = Extended { stored: 0, until };
        if total < WORTH {
            return extended;
        }
        let before = heap.memory();
        // Evenly, so that no small rest gets a segment of its own.
        let segments = total.div_ceil(TARGET);
        let (mut sum, mut part) = (0, 0);
        while extended.stored < run {
            part += 1;
            let share = total / segments * part;
            let rest = &entries[extended.stored..run];
            let (mut count, mut taken) = (0, 0);
            for entry in rest {
                let size = entry.size();
                let full = sum + taken >= share && part < segments;
                if count > 0 && (full || taken + size > TARGET) {
                    break;
                }
                taken += size;
                count += 1;
            }
            sum += taken;
            let (chunk, behind) = rest.split_at(count);
            if !self.add_full(heap, chunk, behind.first(), bytes) {
                break;
            }
            extended.stored += count;
        }
        self.memory = (self.memory + heap.memory()) - before;
        extended
    }

    /// What hashes have to be above to be behind all others; `None` while nothing is stored.
    fn floor(&self, heap: &Heap) -> Option<u64> {
        let node = self.nodes.last()?;
        let (base, segment) = (node.bases.last()?, node.segments.last()?);
        // The first segment may have records below its base.
        let last = segment.count().checked_sub(1).map_or(u64::MAX, |at| segment.hash(heap.bytes(segment), at));
        Some(last.max(*base))
    }

    /// Adds a segment with the records behind all others; false if there is no memory. `next` is the one behind them.
    fn add_full(&mut self, heap: &mut Heap, chunk: &[Entry], next: Option<&Entry>, bytes: &[u8]) -> bool {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return true };
        let (mut live, mut values) = (0, 0);
        for entry in chunk {
            live += HEAD + entry.length;
            values += entry.length as u64 + 8;
        }
        let pages = pages_of(Segment::end_of(chunk.len(), live));
        let new_node = self.nodes.last().is_none_or(|node| node.segments.len() >= NODE);
        let Ok(slot) = heap.take() else { return false };
        let low = if self.nodes.is_empty() { 0 } else { first.hash };
        // Without a next one, as far as it would be if the hashes go on like this.
        let gap = (last.hash - first.hash) / chunk.len() as u64;
        let high = next.map_or(last.hash.saturating_add(gap), |next| next.hash - 1);
        heap.pages.populate(&slot, pages);
        let mut builder = Segment::builder(heap.pages.bytes_mut(&slot), chunk.len(), live, low, high);
        for entry in chunk {
            builder.push(entry.hash, entry.value(bytes));
        }
        let built = builder.built();
        heap.grow((pages * PAGE) as u64);
        let segment = Segment::rebuilt(slot, &built);
        match self.nodes.last_mut() {
            Some(node) if !new_node => {
                node.bases.push(first.hash);
                node.segments.push(segment);
            }
            _ => self.add_node(heap, self.nodes.len(), Node::new(low, segment)),
        }
        self.records += chunk.len() as u64;
        self.bytes += values;
        true
    }
}

impl Entry {
    /// Bytes that it takes with its entry, if it lies in the segment.
    fn size(&self) -> usize {
        HEAD + self.length + ENTRY
    }
}

/// How many of the records come in ascending order above the floor and lie in segments, and what they take.
fn run(floor: Option<u64>, entries: &[Entry]) -> (usize, usize) {
    let (mut floor, mut total) = (floor, 0);
    for (index, entry) in entries.iter().enumerate() {
        if entry.length > INLINE || floor.is_some_and(|floor| entry.hash <= floor) {
            return (index, total);
        }
        floor = Some(entry.hash);
        total += entry.size();
    }
    (entries.len(), total)
}

/// How many of the first records are not above the floor, or have to be put one by one for another reason.
fn below(floor: Option<u64>, entries: &[Entry]) -> usize {
    let below = entries.iter().take_while(|entry| floor.is_some_and(|floor| entry.hash <= floor)).count();
    below.max(1).min(entries.len())
}

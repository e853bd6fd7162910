//! One channel: its segments, in the order of the hashes.

pub(super) mod bulk;

use std::ops::ControlFlow;

use super::heap::Heap;
use super::pages::{Bytes, PAGE, SLOT, Slot, pages_of};
use super::segment::{INLINE, Segment, Stored};
use super::{Scan, mix};

/// Segments of a node.
const NODE: usize = 256;
/// What a node takes.
const NODE_BYTES: u64 = (NODE * (8 + size_of::<Segment>())) as u64;

/// The segments of a channel, in nodes, so that a new one moves few others.
///
/// A segment has the hashes from its base to before that of the next one; the first one also those below its base.
#[derive(Debug, Default)]
pub struct Channel {
    /// The base of each node's first segment.
    bases: Vec<u64>,
    nodes: Vec<Node>,
    records: u64,
    bytes: u64,
    memory: u64,
}

#[derive(Debug)]
struct Node {
    bases: Vec<u64>,
    segments: Vec<Segment>,
}

/// Why a put did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// More would be allocated than is allowed.
    Limit,
    /// The system gives no more memory.
    System,
}

/// Where a segment is: the node, and the place in it.
type Place = (usize, usize);

impl Channel {
    /// Number of records.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a count for statistics")]
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Bytes of keys (8 each) and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory allocated for the records.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    #[inline]
    fn locate(&self, hash: u64) -> Option<Place> {
        let node = self.bases.partition_point(|&base| base <= hash).saturating_sub(1);
        let at = self.nodes.get(node)?.bases.partition_point(|&base| base <= hash).saturating_sub(1);
        Some((node, at))
    }

    #[inline]
    fn segment(&self, (node, at): Place) -> &Segment {
        &self.nodes[node].segments[at]
    }

    #[inline]
    fn segment_mut(&mut self, (node, at): Place) -> &mut Segment {
        &mut self.nodes[node].segments[at]
    }

    #[inline]
    pub(super) fn get<'a>(&self, heap: &'a Heap, hash: u64) -> Option<&'a [u8]> {
        let segment = self.segment(self.locate(hash)?);
        let bytes = heap.bytes(segment);
        let at = segment.find(bytes, hash).ok()?;
        Some(heap.value(segment.record(bytes, at).1))
    }

    /// Stores a value; allocates at most `allowed` bytes more.
    pub(super) fn put(&mut self, heap: &mut Heap, allowed: u64, hash: u64, value: &[u8]) -> Result<(), NoRoom> {
        let before = heap.memory();
        let result = self.put_value(heap, before.saturating_add(allowed), hash, value);
        self.memory = (self.memory + heap.memory()) - before;
        result
    }

    fn put_value(&mut self, heap: &mut Heap, ceiling: u64, hash: u64, value: &[u8]) -> Result<(), NoRoom> {
        let size = if value.len() <= INLINE { Stored::Inline(value).size() } else { Stored::Elsewhere(0).size() };
        if self.nodes.is_empty() {
            let growth = ((pages_of(size) + 1) * PAGE) as u64 + NODE_BYTES + Heap::outside(value.len());
            if heap.memory() + growth > ceiling {
                return Err(NoRoom::Limit);
            }
            let slot = heap.take().map_err(|_| NoRoom::System)?;
            self.add_node(heap, 0, Node::new(0, Segment::empty(slot, size)));
        }
        let mut attempt = 0;
        loop {
            let Some(place) = self.locate(hash) else { return Err(NoRoom::System) };
            let segment = &mut self.nodes[place.0].segments[place.1];
            let found = segment.find(heap.bytes(segment), hash);
            if let Ok(at) = found {
                let old = segment.record(heap.bytes(segment), at).1;
                let old_length = heap.value(old).len();
                let old_number = if let Stored::Elsewhere(number) = old { Some(number) } else { None };
                let fits = size <= old.size();
                if value.len() > old_length {
                    let pages = if fits { 0 } else { Self::growth(segment, size, false) };
                    if heap.memory() + pages + Heap::outside(value.len()) > ceiling {
                        return Err(NoRoom::Limit);
                    }
                }
                if fits || segment.has_room(size, false) {
                    if let Some(number) = old_number {
                        heap.drop_value(number);
                    }
                    let stored = Self::stored(heap, value);
                    let pages = segment.pages();
                    let bytes = heap.pages.bytes_mut(&segment.slot);
                    if !fits || !segment.replace_in_place(bytes, at, stored) {
                        segment.replace(bytes, at, stored);
                    }
                    heap.grown(pages, segment);
                    self.bytes = self.bytes + value.len() as u64 - old_length as u64;
                    if self.segment(place).is_wasteful() {
                        self.compact(heap, place);
                    }
                    return Ok(());
                }
            } else if let Err(at) = found {
                if heap.memory() + Self::growth(segment, size, true) + Heap::outside(value.len()) > ceiling {
                    return Err(NoRoom::Limit);
                }
                if segment.has_room(size, true) {
                    let stored = Self::stored(heap, value);
                    let pages = segment.pages();
                    segment.insert(heap.pages.bytes_mut(&segment.slot), at, hash, stored);
                    heap.grown(pages, segment);
                    self.records += 1;
                    self.bytes += value.len() as u64 + 8;
                    return Ok(());
                }
            }
            let appended = found == Err(self.segment(place).count());
            self.make_room(heap, place, size, appended, attempt > 0)?;
            attempt += 1;
        }
    }

    fn stored<'a>(heap: &mut Heap, value: &'a [u8]) -> Stored<'a> {
        if value.len() <= INLINE { Stored::Inline(value) } else { Stored::Elsewhere(heap.keep(value)) }
    }

    /// Bytes that a record of `size` bytes in a segment allocates at most.
    fn growth(segment: &Segment, size: usize, new: bool) -> u64 {
        if segment.has_room(size, new) {
            (segment.growth(size) * PAGE) as u64
        } else {
            // Two segments with an index and an unfilled page each, and perhaps a node.
            ((pages_of(size) + 10) * PAGE) as u64 + NODE_BYTES
        }
    }

    pub(super) fn remove(&mut self, heap: &mut Heap, hash: u64) -> Option<usize> {
        let before = heap.memory();
        let place = self.locate(hash)?;
        let segment = &mut self.nodes[place.0].segments[place.1];
        let at = segment.find(heap.bytes(segment), hash).ok()?;
        let length = match segment.record(heap.bytes(segment), at).1 {
            Stored::Inline(value) => value.len(),
            Stored::Elsewhere(number) => heap.drop_value(number),
        };
        segment.remove(heap.pages.bytes_mut(&segment.slot), at);
        self.records -= 1;
        self.bytes -= length as u64 + 8;
        if self.segment(place).count() == 0 {
            let segment = self.take_segment(heap, place);
            heap.give_back(segment);
        } else if !(self.segment(place).is_sparse() && self.merge(heap, place)) && self.segment(place).is_wasteful() {
            self.compact(heap, place);
        }
        self.memory = (self.memory + heap.memory()) - before;
        Some(length)
    }

    /// Visits the records with hashes above `after`.
    pub(super) fn scan(
        &self,
        heap: &Heap,
        after: Option<u64>,
        visit: &mut dyn FnMut(overstory_swarm::key::Key, &[u8]) -> ControlFlow<()>,
    ) -> Scan {
        let Some(start) = self.locate(after.unwrap_or(0)) else { return Scan::End };
        let mut from = after.map_or(0, |hash| {
            let segment = self.segment(start);
            match segment.find(heap.bytes(segment), hash) {
                Ok(at) => at + 1,
                Err(at) => at,
            }
        });
        let nodes = self.nodes.iter().skip(start.0).enumerate();
        for segment in nodes.flat_map(|(index, node)| node.segments.iter().skip(if index == 0 { start.1 } else { 0 })) {
            let bytes = heap.bytes(segment);
            for at in from..segment.count() {
                let (hash, stored) = segment.record(bytes, at);
                if visit(mix::key(hash), heap.value(stored)).is_break() {
                    return Scan::Stopped;
                }
            }
            from = 0;
        }
        Scan::End
    }

    /// Gives back the memory of the last segment; false when there is none.
    pub(super) fn drop_last(&mut self, heap: &mut Heap) -> bool {
        let Some(node) = self.nodes.len().checked_sub(1) else { return false };
        let place = (node, self.nodes[node].segments.len() - 1);
        let segment = self.take_segment(heap, place);
        if segment.has_elsewhere() {
            for at in 0..segment.count() {
                if let Stored::Elsewhere(number) = segment.record(heap.bytes(&segment), at).1 {
                    heap.drop_value(number);
                }
            }
        }
        self.records -= segment.count() as u64;
        heap.give_back(segment);
        true
    }

    /// What all nodes and pages take, counted anew; panics where the order is broken.
    #[cfg(test)]
    pub(super) fn check(&self, heap: &Heap) -> u64 {
        let mut last = None;
        let mut records = 0;
        let mut pages = 0;
        assert_eq!(self.bases.len(), self.nodes.len());
        for (base, node) in self.bases.iter().zip(&self.nodes) {
            assert_eq!(*base, node.bases[0]);
            assert_eq!(node.bases.len(), node.segments.len());
            assert!(node.segments.len() <= NODE);
            for segment in &node.segments {
                assert!(segment.count() > 0);
                let bytes = heap.bytes(segment);
                let mut live = 0;
                for at in 0..segment.count() {
                    let (hash, stored) = segment.record(bytes, at);
                    assert!(last.is_none_or(|last| last < hash));
                    assert_eq!(segment.find(bytes, hash), Ok(at));
                    last = Some(hash);
                    live += stored.size();
                }
                assert_eq!(live, segment.live());
                records += segment.count() as u64;
                pages += segment.pages();
            }
        }
        assert_eq!(records, self.records);
        (pages * PAGE) as u64 + self.nodes.len() as u64 * NODE_BYTES
    }

    /// The lowest and the highest hash that belong to a segment.
    fn range(&self, (node, at): Place) -> (u64, u64) {
        let low = if (node, at) == (0, 0) { 0 } else { self.nodes[node].bases[at] };
        let next = self.nodes[node].bases.get(at + 1).or_else(|| self.bases.get(node + 1));
        (low, next.map_or(u64::MAX, |&next| next.saturating_sub(1)))
    }

    /// Makes room for a record of `size` bytes: writes the segment anew without garbage, or splits it.
    fn make_room(
        &mut self,
        heap: &mut Heap,
        place: Place,
        size: usize,
        appended: bool,
        split: bool,
    ) -> Result<(), NoRoom> {
        let segment = self.segment(place);
        if segment.count() < 2 || (!split && segment.worth_compacting(size)) {
            self.compact(heap, place);
            return Ok(());
        }
        let slot = heap.take().map_err(|_| NoRoom::System)?;
        self.split(heap, place, slot, appended);
        Ok(())
    }

    fn compact(&mut self, heap: &mut Heap, place: Place) {
        let (low, high) = self.range(place);
        let segment = self.segment_mut(place);
        let bytes: &Bytes = heap.pages.bytes(&segment.slot);
        let mut builder = Segment::builder(&mut heap.scratch, segment.count(), segment.live(), low, high);
        builder.copy(segment, bytes, 0..segment.count());
        let built = builder.built();
        let (slot, before) = (segment.slot.duplicate(), segment.pages());
        *segment = heap.settle(slot, before, &built);
    }

    fn split(&mut self, heap: &mut Heap, place: Place, new: Slot, appended: bool) {
        let (low, high) = self.range(place);
        let segment = self.segment(place);
        let bytes = heap.pages.bytes(&segment.slot);
        let (middle, count) = (segment.middle(bytes, appended), segment.count());
        let base = segment.hash(bytes, middle);
        let sizes: usize = (0..middle).map(|at| segment.record(bytes, at).1.size()).sum();
        let mut builder = Segment::builder(&mut heap.scratch, count - middle, segment.live() - sizes, base, high);
        builder.copy(segment, bytes, middle..count);
        let built = builder.built();
        let right = heap.settle(new, 0, &built);

        let bytes = heap.pages.bytes(&segment.slot);
        let mut builder = Segment::builder(&mut heap.scratch, middle, sizes, low, base.saturating_sub(1));
        builder.copy(segment, bytes, 0..middle);
        let built = builder.built();
        let (slot, before) = (segment.slot.duplicate(), segment.pages());
        *self.segment_mut(place) = heap.settle(slot, before, &built);
        self.add_segment(heap, place, base, right);
    }

    /// Joins a nearly empty segment with a neighbour in its node; whether it did.
    fn merge(&mut self, heap: &mut Heap, (node, at): Place) -> bool {
        let segments = &self.nodes[node].segments;
        let load = |at: usize| segments.get(at).map_or(SLOT, |segment| segment.live() + segment.count() * 4);
        let left = if load(at) + load(at + 1) <= SLOT / 2 {
            at
        } else if at > 0 && load(at - 1) + load(at) <= SLOT / 2 {
            at - 1
        } else {
            return false;
        };
        let (low, high) = (self.range((node, left)).0, self.range((node, left + 1)).1);
        let right = self.take_segment(heap, (node, left + 1));
        let segment = self.segment_mut((node, left));
        let (count, live) = (segment.count() + right.count(), segment.live() + right.live());
        let mut builder = Segment::builder(&mut heap.scratch, count, live, low, high);
        builder.copy(segment, heap.pages.bytes(&segment.slot), 0..segment.count());
        builder.copy(&right, heap.pages.bytes(&right.slot), 0..right.count());
        let built = builder.built();
        let (slot, before) = (segment.slot.duplicate(), segment.pages());
        *segment = heap.settle(slot, before, &built);
        heap.give_back(right);
        true
    }

    fn add_node(&mut self, heap: &mut Heap, at: usize, node: Node) {
        heap.grow(NODE_BYTES);
        self.bases.insert(at, node.bases[0]);
        self.nodes.insert(at, node);
    }

    /// Puts a segment behind that at `place`.
    fn add_segment(&mut self, heap: &mut Heap, (mut node, mut at): Place, base: u64, segment: Segment) {
        if self.nodes[node].segments.len() == NODE {
            let mut second = Node::with_room();
            let first = &mut self.nodes[node];
            second.bases.extend(first.bases.drain(NODE / 2..));
            second.segments.extend(first.segments.drain(NODE / 2..));
            self.add_node(heap, node + 1, second);
            if at >= NODE / 2 {
                (node, at) = (node + 1, at - NODE / 2);
            }
        }
        let node = &mut self.nodes[node];
        node.bases.insert(at + 1, base);
        node.segments.insert(at + 1, segment);
    }

    /// Takes a segment out; its hashes then belong to a neighbour.
    fn take_segment(&mut self, heap: &mut Heap, (index, at): Place) -> Segment {
        let node = &mut self.nodes[index];
        node.bases.remove(at);
        let segment = node.segments.remove(at);
        match node.bases.first() {
            Some(&base) => self.bases[index] = base,
            None => {
                heap.shrink(NODE_BYTES);
                self.bases.remove(index);
                self.nodes.remove(index);
            }
        }
        segment
    }
}

impl Node {
    fn with_room() -> Self {
        Self { bases: Vec::with_capacity(NODE), segments: Vec::with_capacity(NODE) }
    }

    fn new(base: u64, segment: Segment) -> Self {
        let mut node = Self::with_room();
        node.bases.push(base);
        node.segments.push(segment);
        node
    }
}

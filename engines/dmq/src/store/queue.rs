//! One queue: its records in memory, and where those on disk are.
//!
//! The records of a queue are numbered in the order of their pushes. Those that wait are, in this order: batches that were
//! given back, the ring, and what is on disk only. Records go to the ring while nothing is on disk only, and from the
//! disk to the ring when that is empty; so the order is always that of the pushes. A record that is on disk stays
//! there until it is finished: taken and, with redelivery, accepted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Instant;

use overstory_node::wake::Waker;

use super::turns::Turns;
use super::{PushError, QueueTotals};
use crate::disk::{Disk, DiskError, QueueId};
use crate::ring::{self, CHUNK, RECORD_OVERHEAD, Ring};

/// The number of a queue's first record; below it is room for those that are loaded from a `.rq` file, which come before
/// the ones that were found on disk.
const START: u64 = 1 << 48;

/// Blocked producers up to which each removal wakes all of them; more wait until an eighth of the memory is free, lest
/// each record that is taken makes thousands of them run.
const FEW_BLOCKED: usize = 16;

pub(super) struct Queue {
    pub(super) id: QueueId,
    pub(super) name: Box<str>,
    /// Bytes of records in memory up to which they are pushed there.
    pub(super) limit: u64,
    ring: Ring,
    /// The number of the first record in the ring.
    first: u64,
    /// The number of the next record that is pushed.
    next: u64,
    /// Bytes of the records that are on disk only.
    unloaded_bytes: u64,
    /// What is on disk, first to last; none of it is below `base` as a whole.
    runs: VecDeque<Run>,
    /// The disk's number for the next record that is appended there.
    disk_next: u64,
    /// All records below are finished.
    base: u64,
    /// Finished records above `base`: from and behind the last one of each stretch.
    finished: BTreeMap<u64, u64>,
    /// Batches that were given back, by the number of their first record.
    returned: BTreeMap<u64, Batch>,
    returned_bytes: u64,
    returned_records: u64,
    pub(super) turns: Turns,
    blocked: Vec<Waker>,
    /// Bytes of the ring that a push to several queues has planned to use; `u64::MAX` once it goes to disk.
    planned: u64,
    /// Records were taken since the last look.
    moved: bool,
    waiting_since: Option<Instant>,
    /// The disk could not be read the last time.
    stuck: bool,
}

/// Records that follow each other in the queue and on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    from: u64,
    to: u64,
    /// The disk's number of the first one.
    disk: u64,
}

/// Records that were given back, in the ring's form.
struct Batch {
    bytes: Vec<u8>,
    /// Bytes that are done with.
    head: usize,
    records: u64,
}

impl Batch {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }
}

/// Where a push goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    Disk,
}

impl Queue {
    pub(super) fn new(id: QueueId, name: &str, limit: u64) -> Self {
        Self {
            id,
            name: name.into(),
            limit,
            ring: Ring::new(),
            first: START,
            next: START,
            unloaded_bytes: 0,
            runs: VecDeque::new(),
            disk_next: 0,
            base: START,
            finished: BTreeMap::new(),
            returned: BTreeMap::new(),
            returned_bytes: 0,
            returned_records: 0,
            turns: Turns::default(),
            blocked: Vec::new(),
            planned: 0,
            moved: false,
            waiting_since: None,
            stuck: false,
        }
    }

    /// A queue whose records were found on disk.
    pub(super) fn recovered(id: QueueId, name: &str, limit: u64, records: u64, bytes: u64) -> Self {
        let mut queue = Self::new(id, name, limit);
        if records > 0 {
            queue.next += records;
            queue.unloaded_bytes = bytes;
            queue.disk_next = records;
            queue.runs.push_back(Run { from: queue.first, to: queue.next, disk: 0 });
        }
        queue
    }

    /// The number of the first record that is on disk only.
    #[inline]
    fn loaded(&self) -> u64 {
        self.first + self.ring.len()
    }

    /// Bytes of records in memory.
    #[inline]
    fn in_memory(&self) -> u64 {
        self.ring.bytes() + self.returned_bytes
    }

    /// Whether there is something to take.
    #[inline]
    pub(super) fn has_records(&self) -> bool {
        !self.stuck && self.waits()
    }

    #[inline]
    fn waits(&self) -> bool {
        self.loaded() < self.next || !self.ring.is_empty() || !self.returned.is_empty()
    }

    /// Says where a record goes.
    #[inline]
    pub(super) fn place(&self, record: &[u8], disk: bool) -> Result<Place, PushError> {
        let cost = record.len() as u64 + RECORD_OVERHEAD;
        if self.loaded() == self.next
            && self.in_memory().saturating_add(self.planned).saturating_add(cost) <= self.limit
        {
            Ok(Place::Memory)
        } else if disk {
            Ok(Place::Disk)
        } else if cost > self.limit {
            Err(PushError::TooLarge)
        } else {
            Err(PushError::Full { queue: self.id })
        }
    }

    /// [`Self::place`] for one of several records that are pushed together.
    pub(super) fn plan(&mut self, record: &[u8], disk: bool) -> Result<Place, PushError> {
        let place = self.place(record, disk)?;
        self.planned = match place {
            Place::Memory => self.planned + record.len() as u64 + RECORD_OVERHEAD,
            Place::Disk => u64::MAX,
        };
        Ok(place)
    }

    pub(super) fn forget_plan(&mut self) {
        self.planned = 0;
    }

    /// Appends a record to its place. On disk room is reserved; a disk that keeps all gets it in either case.
    #[inline]
    pub(super) fn push(
        &mut self,
        record: &[u8],
        place: Place,
        disk: Option<&mut (dyn Disk + 'static)>,
    ) -> Result<(), DiskError> {
        if let Some(disk) = disk
            && (place == Place::Disk || disk.keeps_all())
        {
            disk.append(self.id, record)?;
            self.note_on_disk();
        }
        match place {
            Place::Memory => self.ring.push(record),
            Place::Disk => self.unloaded_bytes += record.len() as u64,
        }
        self.next += 1;
        self.turns.wake_one();
        Ok(())
    }

    /// The record `next` was appended on disk.
    fn note_on_disk(&mut self) {
        let (next, disk) = (self.next, self.disk_next);
        self.disk_next += 1;
        match self.runs.back_mut() {
            Some(run) if run.to == next => run.to += 1,
            _ => self.runs.push_back(Run { from: next, to: next + 1, disk }),
        }
    }

    /// Puts records from a `.rq` file behind those in memory and before those on disk, however many. Nothing was taken yet.
    pub(super) fn load(&mut self, records: &[u8]) {
        for record in ring::records(records) {
            self.ring.push(record);
            self.first -= 1;
        }
        self.base = self.first;
        self.turns.wake_one();
    }

    /// Calls `take` with the first record and finishes it; false if there is none.
    #[inline]
    pub(super) fn pop(
        &mut self,
        mut disk: Option<&mut (dyn Disk + 'static)>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, DiskError> {
        if !self.returned.is_empty() {
            let mut out = Vec::new();
            let Some(taken) = self.take(0, &mut out, disk.as_deref_mut())? else { return Ok(false) };
            ring::records(&out).for_each(take);
            return self.finish(taken, disk).map(|()| true);
        }
        if self.ring.is_empty() {
            self.refill(disk.as_deref_mut())?;
        }
        let Some(record) = self.ring.front() else { return Ok(false) };
        take(record);
        self.ring.pop();
        let number = self.first;
        self.first += 1;
        self.made_room();
        self.finish(number..number + 1, disk).map(|()| true)
    }

    /// Moves records to `out`, in the ring's form: as many as fit into `max` bytes, and at least one if there are any.
    pub(super) fn take(
        &mut self,
        max: usize,
        out: &mut Vec<u8>,
        disk: Option<&mut (dyn Disk + 'static)>,
    ) -> Result<Option<Range<u64>>, DiskError> {
        if let Some((from, mut batch)) = self.returned.pop_first() {
            let (records, bytes) = ring::whole_records(batch.rest(), max, true);
            out.extend_from_slice(batch.rest().get(..bytes).unwrap_or_default());
            self.returned_bytes -= bytes as u64;
            self.returned_records -= records;
            if records < batch.records {
                batch.head += bytes;
                batch.records -= records;
                self.returned.insert(from + records, batch);
            }
            self.made_room();
            return Ok(Some(from..from + records));
        }
        if self.ring.is_empty() {
            self.refill(disk)?;
        }
        let moved = self.ring.take(max, out);
        if moved.records == 0 {
            return Ok(None);
        }
        let from = self.first;
        self.first += moved.records;
        self.made_room();
        Ok(Some(from..self.first))
    }

    /// Puts a batch back in its place; `records` are those that were taken.
    pub(super) fn give_back(&mut self, taken: Range<u64>, records: &[u8]) {
        let (count, bytes) = ring::whole_records(records, usize::MAX, true);
        debug_assert_eq!((count, bytes), (taken.end - taken.start, records.len()));
        if count == 0 {
            return;
        }
        let bytes = records.get(..bytes).unwrap_or_default().to_vec();
        self.returned_bytes += bytes.len() as u64;
        self.returned_records += count;
        self.returned.insert(taken.start, Batch { bytes, head: 0, records: count });
        self.turns.wake_one();
    }

    /// Reads records from the disk into the ring, which is empty.
    fn refill(&mut self, disk: Option<&mut (dyn Disk + 'static)>) -> Result<(), DiskError> {
        let Some(disk) = disk else { return Ok(()) };
        if self.loaded() == self.next {
            return Ok(());
        }
        self.stuck = true;
        let max = usize::try_from(self.limit).unwrap_or(usize::MAX).min(CHUNK);
        while self.ring.is_empty() && self.loaded() < self.next {
            let (from, left) = (self.loaded(), self.next - self.loaded());
            // What is on disk only was appended without a gap.
            let Some(run) = self.runs.back() else { break };
            let mut chunk = Vec::new();
            let read = disk.read(self.id, run.disk + (from - run.from), max, &mut chunk)?;
            let lost = read.lost.min(left);
            let records = read.records.min(left - lost);
            if lost + records == 0 {
                return Ok(());
            }
            self.first += lost;
            let bytes = (chunk.len() as u64).saturating_sub(records * RECORD_OVERHEAD);
            self.ring.push_chunk(chunk, records);
            let all = self.loaded() == self.next;
            self.unloaded_bytes = if all { 0 } else { self.unloaded_bytes.saturating_sub(bytes) };
            self.stuck = self.ring.is_empty();
            if lost > 0 {
                self.finish(from..from + lost, Some(disk))?;
            }
        }
        self.stuck = false;
        Ok(())
    }

    /// Says that records need not be kept any more.
    #[inline]
    pub(super) fn finish(
        &mut self,
        range: Range<u64>,
        disk: Option<&mut (dyn Disk + 'static)>,
    ) -> Result<(), DiskError> {
        let Some(disk) = disk else { return Ok(()) };
        let (keeps_all, base) = (disk.keeps_all(), self.base);
        let mut result = Ok(());
        if keeps_all {
            result = self.release(range.clone(), disk);
        }
        if range.start == self.base && self.finished.is_empty() {
            self.base = range.end;
        } else {
            self.note_finished(range);
        }
        if !keeps_all {
            result = self.release(base..self.base, disk);
        }
        while self.runs.front().is_some_and(|run| run.to <= self.base) {
            self.runs.pop_front();
        }
        result
    }

    /// Adds a stretch to `finished` and moves `base` behind all that is finished without a gap.
    fn note_finished(&mut self, range: Range<u64>) {
        let (mut from, mut to) = (range.start, range.end);
        if let Some((&before, &end)) = self.finished.range(..from).next_back()
            && end == from
        {
            self.finished.remove(&before);
            from = before;
        }
        if let Some(end) = self.finished.remove(&to) {
            to = end;
        }
        if from == self.base {
            self.base = to;
        } else {
            self.finished.insert(from, to);
        }
    }

    /// Releases what of a range is on disk.
    fn release(&self, range: Range<u64>, disk: &mut dyn Disk) -> Result<(), DiskError> {
        if range.is_empty() {
            return Ok(());
        }
        let begin = self.runs.partition_point(|run| run.to <= range.start);
        for run in self.runs.range(begin..).take_while(|run| run.from < range.end) {
            let (from, to) = (range.start.max(run.from), range.end.min(run.to));
            disk.release(self.id, run.disk + (from - run.from), run.disk + (to - run.from))?;
        }
        Ok(())
    }

    /// Wakes a producer once records were taken.
    pub(super) fn when_room(&mut self, waker: Waker) {
        self.blocked.push(waker);
    }

    #[inline]
    fn made_room(&mut self) {
        self.moved = true;
        if !self.blocked.is_empty()
            && (self.blocked.len() <= FEW_BLOCKED || self.in_memory() <= self.limit - self.limit / 8)
        {
            self.wake_blocked();
        }
    }

    #[cold]
    fn wake_blocked(&mut self) {
        for waker in std::mem::take(&mut self.blocked) {
            waker.wake();
        }
    }

    /// The queue is gone: everybody who waits for it shall notice.
    pub(super) fn wake_everybody(&mut self) {
        self.turns.wake_all();
        self.wake_blocked();
    }

    /// See [`super::Store::observe`].
    pub(super) fn observe(&mut self, now: Instant) {
        if !self.waits() {
            self.waiting_since = None;
        } else if self.moved || self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
        self.moved = false;
        if self.has_records() {
            // Whoever was woken may be behind a client that does not read.
            self.turns.wake_one();
        }
    }

    pub(super) fn totals(&self) -> QueueTotals {
        QueueTotals {
            records_memory: self.ring.len() + self.returned_records,
            bytes_memory: self.in_memory(),
            records_overflow: self.next - self.loaded(),
            bytes_overflow: self.unloaded_bytes,
            limit: self.limit,
            consumers: self.turns.len(),
            waiting_since: self.waiting_since,
        }
    }

    /// Bytes of memory, its own among them.
    pub(super) fn memory(&self) -> u64 {
        let returned = self.returned.values().map(|batch| batch.bytes.capacity() + size_of::<Batch>()).sum::<usize>();
        let more = self.runs.capacity() * size_of::<Run>()
            + self.finished.len() * size_of::<(u64, u64)>()
            + self.blocked.capacity() * size_of::<Waker>()
            + self.turns.memory()
            + self.name.len();
        (size_of::<Self>() + more + returned) as u64 + self.ring.memory()
    }

    /// Shows what has to be saved at the end of the node: the records in memory up to the last one that is nowhere else,
    /// in pieces of whole records. Those behind it are on disk. From a disk that is told in order (`in_order`) those before
    /// a finished one are saved, too: else that one would come back.
    pub(super) fn unsaved<'a>(&'a self, in_order: bool, visit: &mut dyn FnMut(&'a [u8])) -> Unsaved {
        let ring = self.first..self.loaded();
        let batches = self.returned.iter().map(|(from, batch)| *from..*from + batch.records);
        let last = [ring].into_iter().chain(batches.rev()).find_map(|range| self.last_not_on_disk(range));
        let finished = self.finished.last_key_value().filter(|_| in_order).map(|(_, to)| to - 1);
        let Some(last) = last.max(finished) else { return Unsaved::default() };
        let mut unsaved = Unsaved { to: last + 1, ..Unsaved::default() };
        for (_, batch) in self.returned.range(..=last) {
            unsaved.records += batch.records;
            unsaved.bytes += batch.rest().len() as u64;
            visit(batch.rest());
        }
        if self.first <= last {
            unsaved.records += self.ring.len();
            unsaved.bytes += self.ring.bytes();
            self.ring.chunks().for_each(visit);
        }
        unsaved
    }

    /// How many records are on disk behind those.
    pub(super) fn left(&self, unsaved: Unsaved) -> u64 {
        self.runs.iter().map(|run| run.to.saturating_sub(run.from.max(unsaved.to))).sum()
    }

    /// Removes what [`Self::unsaved`] showed; it is elsewhere now.
    pub(super) fn saved(
        &mut self,
        unsaved: Unsaved,
        mut disk: Option<&mut (dyn Disk + 'static)>,
    ) -> Result<(), DiskError> {
        let mut result = Ok(());
        let rest = self.returned.split_off(&unsaved.to);
        for (from, batch) in std::mem::replace(&mut self.returned, rest) {
            self.returned_records -= batch.records;
            self.returned_bytes -= batch.rest().len() as u64;
            result = result.and(self.finish(from..from + batch.records, disk.as_deref_mut()));
        }
        if self.first < unsaved.to {
            let range = self.first..self.loaded();
            self.first = range.end;
            self.ring.clear();
            result = result.and(self.finish(range, disk));
        }
        result
    }

    fn last_not_on_disk(&self, range: Range<u64>) -> Option<u64> {
        let mut end = range.end;
        for run in self.runs.iter().rev() {
            if end <= range.start || run.to < end {
                break;
            }
            end = end.min(run.from);
        }
        (end > range.start).then(|| end - 1)
    }
}

/// How much [`Queue::unsaved`] showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// Records.
    pub(crate) records: u64,
    /// Their bytes, 8 more each.
    pub(crate) bytes: u64,
    /// The number behind the last one.
    to: u64,
}

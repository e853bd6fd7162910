//! A queue of the overflow, as it is kept in memory: where its chain begins, ends, and was read up to.

use std::collections::VecDeque;

use super::header::{HEADER, Header};
use super::positions::State;

/// More places than this are not remembered between the first needed record and the next to be read.
const MOST_MARKS: usize = 32;
/// Records between two remembered places at first.
const SPACING: u64 = 64;

/// Where a record lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number.
    pub(super) number: u64,
    /// Its offset in the data file.
    pub(super) offset: u64,
    /// Bytes of all records before it.
    pub(super) bytes: u64,
}

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) name: String,
    /// Its id in the data file.
    pub(super) channel: u32,
    /// Number of the first record that is needed.
    pub(super) released: u64,
    /// Number of the next record to come: so many came.
    pub(super) appended: u64,
    /// Bytes of those that came.
    pub(super) bytes: u64,
    /// Where the last record lies, needed or not; 0 without one.
    pub(super) last: u64,
    /// Its length.
    pub(super) last_length: u64,
    /// Some places in order, the first at or before the first needed record; none without records.
    marks: VecDeque<Place>,
    spacing: u64,
    /// Where reading goes on; `number == appended` when there is nothing.
    next: Place,
    /// Whether the positions do not tell of its last changes, and it is in the list of those to be written.
    pub(super) listed: bool,
}

impl Queue {
    pub(super) fn new(name: &str, channel: u32) -> Self {
        Self { name: name.to_owned(), channel, spacing: SPACING, ..Self::default() }
    }

    /// One with records on disk.
    pub(super) fn with(name: &str, channel: u32, first: u64, records: u64, bytes: u64, last: (u64, u64)) -> Self {
        let mut queue = Self::new(name, channel);
        (queue.last, queue.last_length) = last;
        if records > 0 {
            queue.next = Place { number: 0, offset: first, bytes: 0 };
            queue.marks.push_back(queue.next);
            (queue.appended, queue.bytes) = (records, bytes);
        }
        queue
    }

    /// Records that are needed.
    pub(super) fn records(&self) -> u64 {
        self.appended - self.released
    }

    /// Counts a record that lies at `offset`. Returns the header of the one before it, with its offset, if that has to
    /// lead here.
    pub(super) fn push(&mut self, offset: u64, length: u64) -> Option<(u64, Header)> {
        let place = Place { number: self.appended, offset, bytes: self.bytes };
        let linked = (self.records() > 0)
            .then(|| (self.last, Header { channel: self.channel, next: offset - self.last, length: self.last_length }));
        if linked.is_none() {
            self.marks.clear();
            self.marks.push_back(place);
            self.spacing = SPACING;
        }
        if self.next.number >= self.appended || linked.is_none() {
            self.next = place;
        }
        (self.last, self.last_length) = (offset, length);
        self.appended += 1;
        self.bytes += length;
        linked
    }

    /// Forgets the records before `to`.
    pub(super) fn release(&mut self, to: u64) {
        self.released = to.clamp(self.released, self.appended);
        if self.records() == 0 {
            self.marks.clear();
            self.next = Place { number: self.appended, offset: 0, bytes: self.bytes };
            return;
        }
        while self.marks.get(1).is_some_and(|mark| mark.number <= self.released) {
            self.marks.pop_front();
        }
        if self.next.number <= self.released && self.marks.front().is_some_and(|mark| mark.number < self.next.number) {
            self.marks.clear();
            self.marks.push_back(self.next);
        }
    }

    /// The nearest known place at or before a record that is needed.
    pub(super) fn near(&self, number: u64) -> Place {
        if self.next.number <= number && self.next.number < self.appended {
            return self.next;
        }
        let behind = self.marks.partition_point(|mark| mark.number <= number);
        behind.checked_sub(1).and_then(|index| self.marks.get(index)).copied().unwrap_or_default()
    }

    /// Remembers that a record lies here.
    pub(super) fn remember(&mut self, place: Place) {
        if self.marks.back().is_some_and(|back| place.number < back.number + self.spacing) {
            return;
        }
        self.marks.push_back(place);
        if self.marks.len() > MOST_MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.spacing *= 2;
        }
    }

    /// Remembers how far was read.
    pub(super) fn read_to(&mut self, place: Place) {
        if place.number >= self.next.number {
            self.next = place;
        }
    }

    /// Begins at a place that was found to be that of the first needed record.
    pub(super) fn begin_at(&mut self, place: Place) {
        if let Some(front) = self.marks.front_mut()
            && place.number == self.released
        {
            *front = place;
        }
    }

    /// Where its last record ends.
    pub(super) fn end(&self) -> u64 {
        self.last + HEADER + self.last_length
    }

    /// Bytes in the file of the records that are needed, and a few that are not.
    pub(super) fn needed(&self) -> u64 {
        self.marks.front().map_or(0, |mark| self.bytes - mark.bytes + HEADER * (self.appended - mark.number))
    }

    /// Before this its records are not needed.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.marks.front().map(|mark| mark.offset)
    }

    /// What the positions say of it.
    pub(super) fn state(&self) -> State {
        let Some(base) = self.marks.front() else { return State { last: self.last, ..State::default() } };
        State {
            offset: base.offset,
            skip: self.released - base.number,
            records: self.appended - base.number,
            bytes: self.bytes - base.bytes,
            last: self.last,
        }
    }

    /// Follows the data file, which begins anew.
    pub(super) fn emptied(&mut self) {
        (self.last, self.last_length) = (0, 0);
    }
}

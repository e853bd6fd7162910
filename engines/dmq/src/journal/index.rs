//! Where the records of a queue lie: runs of records that follow each other in number and in one segment.
//!
//! A record takes two or three bytes: the gap to the entry before it in the run, and its length, as varints. Records
//! have two numbers: the one in the files, which is theirs for good and may have gaps, and their place, the number
//! that [`crate::disk::Disk`] knows, without gaps since the journal was opened.

use std::collections::{BTreeMap, VecDeque};

use super::format::ENTRY_HEAD;

/// Most records of a run: decoding it from its beginning takes a few microseconds.
const RUN: u32 = 1024;

/// Records with consecutive numbers in one segment.
#[derive(Debug)]
struct Run {
    segment: u64,
    /// Of its first record.
    place: u64,
    /// Of its first record.
    number: u64,
    count: u32,
    /// Of these, so many are needed.
    live: u32,
    /// Bytes of these, without heads.
    bytes: u64,
    /// What the first gap counts from.
    begin: u64,
    /// Where the last entry ends.
    end: u64,
    /// Where the first record's code begins.
    skip: usize,
    codes: Vec<u8>,
}

/// A record's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) number: u64,
    /// Offset of the entry.
    pub(super) at: u64,
    /// Bytes of the record.
    pub(super) length: u32,
}

/// What was given back in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) segment: u64,
    pub(super) records: u64,
    /// Without heads.
    pub(super) bytes: u64,
}

/// Where the last read ended, so that the next one need not look for it.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    segment: u64,
    number: u64,
    code: usize,
    begin: u64,
}

/// The records of a queue.
#[derive(Debug, Default)]
pub(super) struct Index {
    runs: VecDeque<Run>,
    /// Ranges of numbers that are not needed, but lie behind needed ones.
    dead: BTreeMap<u64, u64>,
    next_number: u64,
    next_place: u64,
    cursor: Option<Cursor>,
}

impl Run {
    fn new(segment: u64, place: u64, number: u64, at: u64) -> Self {
        let codes = Vec::new();
        Self { segment, place, number, count: 0, live: 0, bytes: 0, begin: at, end: at, skip: 0, codes }
    }

    fn next_number(&self) -> u64 {
        self.number + u64::from(self.count)
    }

    fn takes(&self, segment: u64, number: u64, at: u64) -> bool {
        self.segment == segment && self.next_number() == number && self.count < RUN && at >= self.end
    }

    #[inline]
    fn push(&mut self, at: u64, length: u32) {
        put_varint(&mut self.codes, at - self.end);
        put_varint(&mut self.codes, u64::from(length));
        self.end = at + ENTRY_HEAD as u64 + u64::from(length);
        self.count += 1;
        self.live += 1;
        self.bytes += u64::from(length);
        if self.count == RUN {
            self.codes.shrink_to_fit();
        }
    }

    fn walk(&self) -> Walk<'_> {
        Walk { codes: &self.codes, code: self.skip, end: self.begin, number: self.number, stop: self.next_number() }
    }

    /// Forgets the records before a number; the counts of needed ones are the caller's.
    fn advance(&mut self, to: u64) {
        let mut walk = self.walk();
        while walk.number < to && walk.next().is_some() {}
        let (skip, begin, number) = (walk.code, walk.end, walk.number);
        let passed = number - self.number;
        (self.skip, self.begin, self.number) = (skip, begin, number);
        self.place += passed;
        self.count -= u32::try_from(passed).unwrap_or(self.count);
    }
}

/// Goes over the records of a run.
struct Walk<'a> {
    codes: &'a [u8],
    code: usize,
    end: u64,
    number: u64,
    stop: u64,
}

impl Iterator for Walk<'_> {
    type Item = Spot;

    #[inline]
    fn next(&mut self) -> Option<Spot> {
        if self.number >= self.stop {
            return None;
        }
        let at = self.end + take_varint(self.codes, &mut self.code);
        let length = take_varint(self.codes, &mut self.code);
        self.end = at + ENTRY_HEAD as u64 + length;
        let number = self.number;
        self.number += 1;
        Some(Spot { number, at, length: u32::try_from(length).unwrap_or(u32::MAX) })
    }
}

impl Index {
    /// The number that the next record gets.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Says that numbers below this one are taken.
    pub(super) fn skip_to(&mut self, number: u64) {
        self.next_number = self.next_number.max(number);
    }

    /// Needed records and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.runs.iter().fold((0, 0), |(records, bytes), run| (records + u64::from(run.live), bytes + run.bytes))
    }

    /// What it holds in each segment.
    pub(super) fn held(&self) -> impl Iterator<Item = Freed> {
        self.runs.iter().map(|run| Freed { segment: run.segment, records: u64::from(run.live), bytes: run.bytes })
    }

    /// Where its runs begin: segment and offset.
    pub(super) fn begins(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().filter_map(|run| Some((run.segment, run.walk().next()?.at)))
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> u64 {
        let codes: usize = self.runs.iter().map(|run| run.codes.capacity()).sum();
        (size_of::<Self>() + self.runs.capacity() * size_of::<Run>() + codes + self.dead.len() * 32) as u64
    }

    /// Takes the next record.
    #[inline]
    pub(super) fn push(&mut self, segment: u64, at: u64, length: u32) {
        let number = self.next_number;
        match self.runs.back_mut() {
            Some(run) if run.takes(segment, number, at) => run.push(at, length),
            _ => {
                let mut run = Run::new(segment, self.next_place, number, at);
                run.push(at, length);
                self.runs.push_back(run);
            }
        }
        self.next_number += 1;
        self.next_place += 1;
    }

    /// Takes a record that was found in a file; false if it is there already. Places come with [`Self::settle`].
    pub(super) fn insert(&mut self, segment: u64, spot: Spot) -> bool {
        let index = match self.runs.back() {
            Some(run) if spot.number < run.next_number() => {
                self.runs.partition_point(|run| run.next_number() <= spot.number)
            }
            _ => self.runs.len(),
        };
        if self.runs.get(index).is_some_and(|run| run.number <= spot.number) {
            return false;
        }
        self.insert_at(index, segment, 0, spot);
        self.next_number = self.next_number.max(spot.number.saturating_add(1));
        true
    }

    /// Puts a record before the run of this index, or at the end of the one before that.
    fn insert_at(&mut self, index: usize, segment: u64, place: u64, spot: Spot) -> bool {
        if let Some(run) = index.checked_sub(1).and_then(|before| self.runs.get_mut(before))
            && run.takes(segment, spot.number, spot.at)
        {
            run.push(spot.at, spot.length);
            return false;
        }
        let mut run = Run::new(segment, place, spot.number, spot.at);
        run.push(spot.at, spot.length);
        self.runs.insert(index, run);
        true
    }

    /// After everything was found: leaves out what is not needed, and gives the rest their places.
    pub(super) fn settle(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        let mut settled: VecDeque<Run> = VecDeque::with_capacity(self.runs.len());
        let mut place = 0;
        for mut run in std::mem::take(&mut self.runs) {
            if run.live == run.count {
                run.place = place;
                place += u64::from(run.count);
                settled.push_back(run);
                continue;
            }
            for spot in run.walk().filter(|spot| !covers(&dead, spot.number)) {
                match settled.back_mut() {
                    Some(last) if last.takes(run.segment, spot.number, spot.at) => last.push(spot.at, spot.length),
                    _ => {
                        let mut part = Run::new(run.segment, place, spot.number, spot.at);
                        part.push(spot.at, spot.length);
                        settled.push_back(part);
                    }
                }
                place += 1;
            }
        }
        settled.iter_mut().for_each(|run| run.codes.shrink_to_fit());
        settled.shrink_to_fit();
        self.runs = settled;
        self.next_place = place;
        self.cursor = None;
    }

    /// The number of the record at a place, or of the first one behind it that is there.
    pub(super) fn number_at(&self, place: u64) -> u64 {
        let index = self.runs.partition_point(|run| run.place + u64::from(run.count) <= place);
        match self.runs.get(index) {
            Some(run) => run.number + place.saturating_sub(run.place),
            None => self.next_number,
        }
    }

    /// Releases the records with numbers `from..to`; tells what that frees.
    pub(super) fn release(&mut self, from: u64, to: u64, freed: &mut dyn FnMut(Freed)) {
        let mut index = match self.runs.front() {
            Some(run) if from < run.next_number() => 0,
            _ => self.runs.partition_point(|run| run.next_number() <= from),
        };
        let mut inside = false;
        while let Some(run) = self.runs.get_mut(index).filter(|run| run.number < to) {
            let (mut records, mut bytes) = (0u32, 0);
            let mut walk = run.walk();
            if let Some(cursor) = self.cursor
                && cursor.segment == run.segment
                && (run.number..=from).contains(&cursor.number)
            {
                (walk.code, walk.end, walk.number) = (cursor.code, cursor.begin, cursor.number);
            }
            while walk.number < to
                && let Some(spot) = walk.next()
            {
                if spot.number >= from && (self.dead.is_empty() || !covers(&self.dead, spot.number)) {
                    records += 1;
                    bytes += u64::from(spot.length);
                }
            }
            let (code, end, number) = (walk.code, walk.end, walk.number);
            run.live -= records;
            run.bytes -= bytes;
            freed(Freed { segment: run.segment, records: u64::from(records), bytes });
            if run.live == 0 {
                self.runs.remove(index);
                continue;
            }
            if from <= run.number {
                run.place += number - run.number;
                run.count -= u32::try_from(number - run.number).unwrap_or(run.count);
                (run.skip, run.begin, run.number) = (code, end, number);
                if !self.dead.is_empty() {
                    trim(run, &self.dead);
                }
            } else {
                inside = true;
            }
            index += 1;
        }
        if inside {
            bury(&mut self.dead, from, to);
        }
        let front = self.runs.front().map_or(u64::MAX, |run| run.number);
        while let Some(range) = self.dead.first_entry().filter(|range| *range.get() <= front) {
            range.remove();
        }
    }

    /// The records from a place on that lie in one segment, and how many before them are gone. `take` says for each
    /// whether it belongs to what is wanted.
    pub(super) fn spots(&mut self, place: u64, take: &mut dyn FnMut(Spot) -> bool) -> Option<(u64, u64)> {
        let index = self.runs.partition_point(|run| run.place + u64::from(run.count) <= place);
        let run = self.runs.get(index)?;
        let gone = run.place.saturating_sub(place);
        let number = run.number + place.saturating_sub(run.place);
        let mut walk = run.walk();
        if let Some(cursor) = self.cursor
            && cursor.segment == run.segment
            && cursor.number <= number
            && cursor.number >= run.number
        {
            (walk.code, walk.end, walk.number) = (cursor.code, cursor.begin, cursor.number);
        }
        let mut cursor = None;
        loop {
            if walk.number >= number && walk.number < walk.stop {
                cursor = Some(Cursor { segment: run.segment, number: walk.number, code: walk.code, begin: walk.end });
            }
            let Some(spot) = walk.next() else { break };
            if spot.number >= number && !take(spot) {
                break;
            }
        }
        if let Some(cursor) = cursor {
            self.cursor = Some(cursor);
        }
        Some((run.segment, gone))
    }

    /// The next run from a number on that has needed records in a segment: their spots, at most as many as `take`
    /// wants. Looks at `looks` runs at most; ends with where to go on, or with nothing at the end.
    pub(super) fn next_in(
        &self,
        segment: u64,
        from: u64,
        looks: &mut usize,
        take: &mut dyn FnMut(Spot) -> bool,
    ) -> Option<u64> {
        let first = self.runs.partition_point(|run| run.next_number() <= from);
        for run in self.runs.range(first..) {
            if run.segment == segment {
                for spot in run.walk() {
                    if spot.number >= from && !covers(&self.dead, spot.number) && !take(spot) {
                        return Some(spot.number);
                    }
                }
                return Some(run.next_number());
            }
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                return Some(run.next_number());
            }
        }
        None
    }

    /// Says that the first needed record of a run, all before which has moved, lies elsewhere now.
    pub(super) fn relocate(&mut self, segment: u64, spot: Spot) {
        let index = self.runs.partition_point(|run| run.next_number() <= spot.number);
        let Some(run) = self.runs.get_mut(index) else { return };
        let place = run.place + (spot.number - run.number);
        run.advance(spot.number + 1);
        run.live -= 1;
        run.bytes -= u64::from(spot.length);
        if run.live == 0 {
            self.runs.remove(index);
        }
        self.insert_at(index, segment, place, spot);
    }
}

/// Lets a run begin behind what is not needed at its beginning.
fn trim(run: &mut Run, dead: &BTreeMap<u64, u64>) {
    while let Some((_, to)) = dead.range(..=run.number).next_back().filter(|(_, to)| **to > run.number)
        && run.count > 0
    {
        run.advance(*to);
    }
}

fn covers(dead: &BTreeMap<u64, u64>, number: u64) -> bool {
    dead.range(..=number).next_back().is_some_and(|(_, to)| *to > number)
}

/// Adds a range, joined with those that it touches.
fn bury(dead: &mut BTreeMap<u64, u64>, from: u64, to: u64) {
    let (mut from, mut to) = (from, to);
    while let Some((&begin, &end)) = dead.range(..=to).next_back().filter(|(_, end)| **end >= from) {
        dead.remove(&begin);
        from = from.min(begin);
        to = to.max(end);
    }
    dead.insert(from, to);
}

#[inline]
fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// Ends with what there is when the code is cut, which no code of ours is.
#[inline]
fn take_varint(codes: &[u8], at: &mut usize) -> u64 {
    let mut number = 0;
    let mut shift = 0;
    while let Some(byte) = codes.get(*at) {
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 63 {
            break;
        }
    }
    number
}

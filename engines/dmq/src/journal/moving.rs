//! Space: records that are still needed move out of the oldest segment when the journal takes too much.
//!
//! A move ends: after it went through all segments, they hold little more than what is needed.
//!
//! Only the oldest segment is ever removed. So no record comes back: whatever says that one was released is written
//! behind all copies of it, and goes after them.

use super::format::{ENTRY_HEAD, Kind, put};
use super::index::Spot;
use super::log::{Log, find};
use crate::disk::{DiskError, QueueId};

/// Most bytes that are moved at once, besides one record: well below a millisecond.
const SLICE: u64 = 256 * 1024;
/// Most bytes that are read at once.
const BATCH: u64 = 64 * 1024;
/// Most runs that are looked at at once.
const LOOKS: usize = 20_000;
/// Segments that may be taken whatever is needed of them.
const SEGMENTS: u64 = 4;

/// The move out of a segment.
#[derive(Debug)]
pub(super) struct Moving {
    serial: u64,
    /// Queues that may have something there.
    queues: Vec<QueueId>,
    /// Where to go on in the last of them.
    from: u64,
}

impl Log {
    /// Whether the oldest segment is to be emptied: the journal takes more than four segments, and more than twice
    /// what is needed.
    pub(super) fn wants_move(&self) -> bool {
        let Some(oldest) = self.segments.front().filter(|oldest| self.segments.len() > 1 && oldest.is_needed()) else {
            return false;
        };
        if self.moving.as_ref().is_some_and(|moving| moving.serial == oldest.serial) {
            return true;
        }
        let sum = |(size, needed), (more_size, more_needed)| (size + more_size, needed + more_needed);
        let (size, needed) = self.segments.iter().map(|one| (one.size, one.bytes)).fold((0, 0), sum);
        size > (SEGMENTS * self.segment_bytes).max(2 * needed)
    }

    /// Moves in proportion to what was appended, so that the journal cannot grow faster than it is cleaned.
    pub(super) fn work_off_debt(&mut self) {
        let budget = (2 * std::mem::take(&mut self.debt)).min(2 * SLICE);
        if self.wants_move() {
            let _later = self.move_slice(budget);
        }
    }

    /// Moves some records if that is wanted; says whether there is more to move at once.
    pub(super) fn tidy(&mut self) -> bool {
        let more = self.trouble.failed.is_none() && self.wants_move() && self.move_slice(SLICE).unwrap_or(false);
        self.free_soon();
        more
    }

    /// Without room, or after a failure, it is tried again later.
    fn move_slice(&mut self, budget: u64) -> Result<bool, DiskError> {
        let Some(serial) = self.segments.front().map(|oldest| oldest.serial) else { return Ok(false) };
        let moving = match self.moving.take() {
            Some(moving) if moving.serial == serial => moving,
            _ => Moving { serial, queues: self.queues.keys().copied().collect(), from: 0 },
        };
        let moving = self.moving.insert(moving);
        let (mut looks, mut moved) = (LOOKS, 0);
        let mut spots: Vec<Spot> = Vec::new();
        let (mut queue, mut from) = (moving.queues.last().copied(), moving.from);
        while let Some(id) = queue {
            if moved >= budget || looks == 0 {
                return Ok(true);
            }
            looks -= 1;
            spots.clear();
            let mut bytes = 0;
            let mut take = |spot: Spot| {
                let takes = bytes == 0 || bytes + u64::from(spot.length) <= BATCH;
                if takes {
                    bytes += u64::from(spot.length) + ENTRY_HEAD as u64;
                    spots.push(spot);
                }
                takes
            };
            let known = self.queues.get(&id);
            let on = known.and_then(|known| known.index.next_in(serial, from, &mut looks, &mut take));
            let named_here = known.filter(|known| known.defined_in == serial).map(|known| known.name.clone());
            if let Some(next) = on {
                self.move_records(id, serial, &spots)?;
                from = next;
                moved += bytes;
            } else {
                if let Some(name) = named_here {
                    moved += ENTRY_HEAD as u64;
                    self.tell_name(id, name)?;
                }
                if let Some(moving) = self.moving.as_mut() {
                    moving.queues.pop();
                    queue = moving.queues.last().copied();
                }
                from = 0;
            }
            if let Some(moving) = self.moving.as_mut() {
                moving.from = from;
            }
        }
        self.moving = None;
        self.see_what_is_free();
        Ok(false)
    }

    fn move_records(&mut self, queue: QueueId, serial: u64, spots: &[Spot]) -> Result<(), DiskError> {
        let mut records: Vec<(Spot, Option<Vec<u8>>)> = Vec::with_capacity(spots.len());
        self.load(serial, queue, spots, &mut |spot, record| {
            records.push((spot, record.map(<[u8]>::to_vec)));
            true
        });
        for (spot, record) in records {
            let Some(record) = record else {
                self.lose(queue, serial, spot);
                continue;
            };
            let entry = (ENTRY_HEAD + record.len()) as u64;
            if entry + self.headroom() > self.room() {
                self.roll(entry + self.headroom())?;
            }
            let at = self.end();
            let (Some(known), Some(last)) = (self.queues.get_mut(&queue), self.segments.back_mut()) else { break };
            put(&mut self.pending, last.salt, Kind::Record, queue, spot.number, &record);
            known.index.relocate(last.serial, Spot { at, ..spot });
            last.add(1, u64::from(spot.length));
            self.appended += entry;
            if let Some(before) = find(&mut self.segments, serial) {
                before.records = before.records.saturating_sub(1);
                before.bytes = before.bytes.saturating_sub(entry);
            }
        }
        self.write_much()
    }
}

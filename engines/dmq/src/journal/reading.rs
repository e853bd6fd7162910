//! Reads records back, with large reads where they lie close together.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{ENTRY_HEAD, Entry, Kind, Salt};
use super::index::Spot;
use super::keep;
use super::log::{Log, find};
use super::segment;
use crate::disk::{DiskError, QueueId, Read};

/// Records are read together up to this many bytes.
const TOGETHER: u64 = 512 * 1024;
/// Entries of other queues that are read along rather than passed over.
const GAP: u64 = 16 * 1024;
/// What the buffer keeps.
pub(super) const BUFFER: usize = 1024 * 1024;

/// A segment to read from, with what is not in its file yet.
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) salt: Salt,
    pub(super) unwritten: &'a [u8],
    /// Where that begins; the end of the file for all segments but the last.
    pub(super) unwritten_at: u64,
}

impl Log {
    pub(super) fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError> {
        let mut read = Read::default();
        let mut spots: Vec<Spot> = Vec::new();
        let mut bad: Vec<(u64, Spot)> = Vec::new();
        let mut room = max as u64;
        let mut more = true;
        while more {
            let Some(known) = self.queues.get_mut(&queue) else { break };
            spots.clear();
            let mut wanted = |spot: Spot| {
                let takes = u64::from(spot.length) + 8;
                more = takes <= room || (read.records == 0 && spots.is_empty());
                if more {
                    room = room.saturating_sub(takes);
                    spots.push(spot);
                }
                more
            };
            let Some((serial, gone)) = known.index.spots(from + read.lost + read.records, &mut wanted) else { break };
            if gone > 0 && read.records > 0 {
                break;
            }
            read.lost += gone;
            self.load(serial, queue, &spots, &mut |spot, record| match record {
                Some(record) => {
                    out.extend_from_slice(&(record.len() as u64).to_le_bytes());
                    out.extend_from_slice(record);
                    read.records += 1;
                    true
                }
                None if read.records > 0 => {
                    more = false;
                    false
                }
                None => {
                    read.lost += 1;
                    bad.push((serial, spot));
                    true
                }
            });
            if read.records == 0 {
                (more, room) = (true, max as u64);
            }
        }
        for (serial, spot) in bad {
            self.lose(queue, serial, spot);
        }
        Ok(read)
    }

    /// Gives the records of spots in one segment to `take`, or nothing for one that cannot be read, until it wants no more.
    pub(super) fn load(
        &mut self,
        serial: u64,
        queue: QueueId,
        spots: &[Spot],
        take: &mut dyn FnMut(Spot, Option<&[u8]>) -> bool,
    ) {
        let is_last = serial == self.last_serial();
        match find(&mut self.segments, serial) {
            Some(segment) => {
                let (unwritten, unwritten_at) =
                    if is_last { (&self.pending[..], self.pending_at) } else { (&[][..], u64::MAX) };
                let source = Source { file: &segment.file, salt: segment.salt, unwritten, unwritten_at };
                source.load(queue, spots, &mut self.buffer, take);
            }
            None => {
                let _all_gone = spots.iter().all(|spot| take(*spot, None));
            }
        }
    }

    /// Gives up a record that cannot be read.
    pub(super) fn lose(&mut self, queue: QueueId, serial: u64, spot: Spot) {
        let Some(known) = self.queues.get_mut(&queue) else { return };
        let segments = &mut self.segments;
        known.index.release(spot.number, spot.number + 1, &mut |freed| {
            if let Some(segment) = find(segments, freed.segment) {
                segment.give_back(freed);
            }
        });
        self.trouble.lost += 1;
        let path = segment::path(&self.dir, serial);
        tracing::error!(target: "dmqnode.journal", file = %path.display(), offset = spot.at, queue,
            "a record cannot be read");
        if let Some(segment) = find(&mut self.segments, serial).filter(|segment| !segment.damaged) {
            segment.damaged = true;
            let kept = keep::keep(&self.data, &path, serial, Some(segment.salt));
            self.trouble.damage = Some(format!("{} at {}; {kept}", path.display(), spot.at));
        }
        self.see_what_is_free();
    }
}

impl Source<'_> {
    fn load(
        &self,
        queue: QueueId,
        spots: &[Spot],
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(Spot, Option<&[u8]>) -> bool,
    ) {
        let mut rest = spots;
        while let Some(first) = rest.first() {
            let count = if first.at >= self.unwritten_at { rest.len() } else { self.close_together(rest) };
            let (now, later) = rest.split_at(count);
            rest = later;
            let end = now.last().map_or(first.at, end_of);
            let (bytes, from) = if first.at >= self.unwritten_at {
                (self.unwritten, self.unwritten_at)
            } else {
                read_span(self.file, first.at, end, buffer);
                (&buffer[..], first.at)
            };
            for spot in now {
                let record = intact(bytes, from, queue, *spot, self.salt);
                // One bad block fails the read of all: once more, alone.
                let record = match record {
                    None if now.len() > 1 && first.at < self.unwritten_at => {
                        let mut alone = Vec::new();
                        read_span(self.file, spot.at, end_of(spot), &mut alone);
                        match intact(&alone, spot.at, queue, *spot, self.salt) {
                            Some(record) if take(*spot, Some(record)) => continue,
                            Some(_) => return,
                            None => None,
                        }
                    }
                    other => other,
                };
                if !take(*spot, record) {
                    return;
                }
            }
        }
        buffer.clear();
        buffer.shrink_to(BUFFER);
    }

    /// How many of them are read at once; not 0.
    fn close_together(&self, spots: &[Spot]) -> usize {
        let mut count = 0;
        let (mut begin, mut end) = (0, 0);
        for spot in spots {
            if count == 0 {
                begin = spot.at;
            } else if spot.at >= self.unwritten_at || end_of(spot) - begin > TOGETHER || spot.at - end > GAP {
                break;
            }
            end = end_of(spot);
            count += 1;
        }
        count
    }
}

fn end_of(spot: &Spot) -> u64 {
    spot.at + ENTRY_HEAD as u64 + u64::from(spot.length)
}

/// Reads what can be read of a part of a file.
fn read_span(file: &File, begin: u64, end: u64, buffer: &mut Vec<u8>) {
    let length = usize::try_from(end - begin).unwrap_or(0);
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    buffer.truncate(length);
    let mut have = 0;
    while have < length {
        match file.read_at(&mut buffer[have..], begin + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    buffer.truncate(have);
}

fn intact(bytes: &[u8], from: u64, queue: QueueId, spot: Spot, salt: Salt) -> Option<&[u8]> {
    let begin = usize::try_from(spot.at.checked_sub(from)?).ok()?;
    let whole = bytes.get(begin..)?.get(..ENTRY_HEAD + usize::try_from(spot.length).ok()?)?;
    let entry = Entry::decode(whole, salt.marker)?;
    let is_it = entry.kind == Kind::Record
        && entry.queue == queue
        && entry.number == spot.number
        && entry.length == spot.length
        && entry.is_intact(whole, salt);
    if is_it { whole.get(ENTRY_HEAD..) } else { None }
}

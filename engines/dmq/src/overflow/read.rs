//! Reading the records of a queue along its chain.

use std::io;

use super::files::DiskFile;
use super::header::{HEADER, Header};
use super::queue::{Place, Queue};
use super::scan::Scan;
use super::window::Window;
use super::{DATA, Overflow, unknown};
use crate::disk::{DiskError, QueueId, Read};

/// Longer records are read to where they are wanted, not by way of the window.
const LONG: u64 = 128 * 1024;

/// The chain of a queue in the file.
struct Chain<'a> {
    file: &'a DiskFile,
    window: &'a mut Window,
    /// What of the file can be read.
    end: u64,
    channel: u32,
    last: u64,
    records: u64,
}

impl Chain<'_> {
    /// The record at `place`. When there is none, `place` moves on to the next that can be found; `None` when there is
    /// none either.
    fn find(&mut self, place: &mut Place) -> io::Result<Option<Header>> {
        if place.number >= self.records {
            return Ok(None);
        }
        let here = self.window.header(self.file, place.offset, self.end)?;
        if let Some(header) = here.filter(|header| header.channel == self.channel) {
            return Ok(Some(header));
        }
        let found = self.search(place.offset)?.filter(|_| place.number + 1 < self.records);
        Ok(found.map(|(offset, header)| {
            (place.number, place.offset) = (place.number + 1, offset);
            header
        }))
    }

    /// The place of the record behind this one, which `find` found.
    fn step(&mut self, place: Place, header: Header) -> io::Result<Place> {
        let behind = Place { number: place.number + 1, offset: 0, bytes: place.bytes + header.length };
        if behind.number >= self.records {
            return Ok(behind);
        }
        let linked = place.offset.checked_add(header.next).filter(|next| header.next != 0 && *next <= self.last);
        let offset = match linked {
            Some(offset) => offset,
            None => self.search(place.offset + header.size())?.map_or(self.end, |(offset, _)| offset),
        };
        Ok(Place { offset, ..behind })
    }

    /// The queue's first record at `from` or behind, wherever a chain leads.
    fn search(&mut self, from: u64) -> io::Result<Option<(u64, Header)>> {
        let mut scan = Scan::new(from);
        while let Some((offset, header)) = scan.next(self.file, self.window, self.end)? {
            if offset > self.last {
                break;
            }
            if header.channel == self.channel {
                return Ok(Some((offset, header)));
            }
        }
        Ok(None)
    }

    /// Appends a record with its length.
    fn copy(&mut self, place: Place, header: Header, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(&header.length.to_le_bytes());
        let offset = place.offset + HEADER;
        let ended = io::ErrorKind::UnexpectedEof;
        if header.length <= LONG {
            out.extend_from_slice(self.window.get(self.file, offset, len, self.end)?.ok_or(ended)?);
            return Ok(());
        }
        let start = out.len();
        out.resize(start + len, 0);
        let read = self.file.read_at(out.get_mut(start..).unwrap_or_default(), offset)?;
        if read == len { Ok(()) } else { Err(ended.into()) }
    }
}

impl Overflow {
    /// [`crate::disk::Disk::read`].
    pub(super) fn read_records(
        &mut self,
        id: QueueId,
        from: u64,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Read, DiskError> {
        if self.queues.get(&id).ok_or_else(|| unknown(id))?.last >= self.buffer_start {
            self.flush()?;
        }
        let Some(queue) = self.queues.get_mut(&id) else { return Err(unknown(id)) };
        let from = from.max(queue.released);
        let mut chain = Chain {
            file: &self.file,
            window: &mut self.window,
            end: self.buffer_start,
            channel: queue.channel,
            last: queue.last,
            records: queue.appended,
        };
        let begin = out.len();
        let read = read_chain(&mut chain, queue, from, max, out).map_err(|source| {
            out.truncate(begin);
            DiskError::Io { doing: format!("cannot read {DATA}"), source }
        })?;
        self.consumed += (out.len() - begin) as u64 + HEADER * read.records;
        if read.lost > 0 {
            self.lost += read.lost;
            tracing::error!(
                target: "diskoverflow",
                queue = queue.name,
                records = read.lost,
                "records could not be read"
            );
        }
        Ok(read)
    }

    /// Finds the first needed record of a queue, of which only a place before it may be known.
    pub(super) fn first_place(&mut self, id: QueueId) -> io::Result<Option<Place>> {
        let Some(queue) = self.queues.get_mut(&id).filter(|queue| queue.records() > 0) else { return Ok(None) };
        let near = queue.near(queue.released);
        if near.number == queue.released && near.offset > 0 {
            // An index of thousands of queues must not read thousands of pages.
            queue.begin_at(near);
            return Ok(Some(near));
        }
        let mut chain = Chain {
            file: &self.file,
            window: &mut self.window,
            end: self.buffer_start,
            channel: queue.channel,
            last: queue.last,
            records: queue.appended,
        };
        let mut place = queue.near(queue.released);
        while let Some(header) = chain.find(&mut place)? {
            if place.number >= queue.released {
                queue.begin_at(place);
                return Ok(Some(place));
            }
            place = chain.step(place, header)?;
        }
        Ok(None)
    }
}

fn read_chain(chain: &mut Chain<'_>, queue: &mut Queue, from: u64, max: usize, out: &mut Vec<u8>) -> io::Result<Read> {
    let mut read = Read::default();
    let begin = out.len();
    let mut place = queue.near(from);
    while place.number < queue.appended {
        let mut here = place;
        let Some(header) = chain.find(&mut here)? else {
            if read.records == 0 {
                read.lost = queue.appended.saturating_sub(from);
                place.number = queue.appended;
            }
            break;
        };
        if here.number < from {
            place = chain.step(here, header)?;
            continue;
        }
        if read.records == 0 {
            read.lost = here.number - from;
        } else if here.number != place.number {
            // The next call tells of those that are lost.
            break;
        }
        let len = usize::try_from(header.length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let taken = out.len() - begin;
        if read.records > 0 && taken.saturating_add(8).saturating_add(len) > max {
            break;
        }
        chain.copy(here, header, len, out)?;
        queue.remember(here);
        read.records += 1;
        place = chain.step(here, header)?;
    }
    queue.read_to(place);
    Ok(read)
}

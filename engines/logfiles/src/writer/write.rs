//! The way of a chunk into its bucket's file.

use std::collections::VecDeque;
use std::io;

use super::bad::Fault;
use super::{Chunk, Done, Key, Place, Trouble, Writer};
use crate::bucket::BucketNumber;
use crate::catalogue::{Entry, Written};
use crate::format::Format;
use crate::record::{self, Framing};
use crate::recovery::{self, Missing};
use crate::walk::{Step, Walker};

impl Writer {
    pub(super) fn is_obsolete(&self, chunk: &Chunk) -> bool {
        self.gone.contains(&chunk.place.id)
            || self.obsolete.get(&chunk.key()).is_some_and(|before| chunk.source.serial < *before)
    }

    /// Writes chunks, and takes those out that are written, or wait with their buckets.
    pub(super) fn write_run(&mut self, run: &mut VecDeque<Box<Chunk>>) -> Result<(), Trouble> {
        run.retain(|chunk| !self.is_obsolete(chunk));
        for chunk in run.iter() {
            if !self.bad.has(chunk.key())
                && let Err(fault) = self.look_at(&chunk.place, chunk.number, chunk.entry)
            {
                self.go_on(chunk, fault)?;
            }
        }
        self.log.sync_touched().map_err(|error| Trouble::new("writing the catalogue", &error))?;
        while let Some(chunk) = run.front() {
            if !self.bad.has(chunk.key())
                && let Err(error) = self.write(chunk)
            {
                self.go_on(chunk, Fault::of(&chunk.place, chunk.number, &error))?;
            }
            if let Some(chunk) = run.pop_front()
                && self.bad.has(chunk.key())
            {
                self.park(chunk);
            }
        }
        Ok(())
    }

    /// Goes on without a chunk's bucket, if only that cannot be written.
    fn go_on(&mut self, chunk: &Chunk, fault: Fault) -> Result<(), Trouble> {
        match fault {
            Fault::All(trouble) => Err(trouble),
            Fault::Bucket(why) => {
                self.set_aside(&chunk.place, chunk.number, chunk.entry, why);
                Ok(())
            }
        }
    }

    /// Knows how a bucket's file ends, and has the log know that it will be written to.
    pub(super) fn look_at(&mut self, place: &Place, number: BucketNumber, entry: Entry) -> Result<(), Fault> {
        let key = Key { channel: place.id, number };
        if !self.states.contains_key(&key) {
            let state = self.new_state(place.clone(), number, entry);
            self.states.insert(key, state);
        }
        self.settle(key)?;
        let Some(state) = self.states.get_mut(&key) else { return Ok(()) };
        if !state.touched {
            self.log.touch(&state.place.name, state.number, &state.entry).map_err(|error| Fault::log(&error))?;
            state.touched = true;
        }
        Ok(())
    }

    fn settle(&mut self, key: Key) -> Result<(), Fault> {
        let Some(state) = self.states.get_mut(&key) else { return Ok(()) };
        state.held = true;
        let (place, number) = (state.place.clone(), state.number);
        let fault = |error: io::Error| Fault::of(&place, number, &error);
        let (_, length) = self.files.open_for_writing(key, &place, number).map_err(fault)?;
        // Each time: a file that somebody has cut would get a hole, which a cut record would take for its value.
        let is_other = length != state.entry.length && !state.torn;
        let is_uncounted = !state.looked_at && !state.entry.counted && length > 0;
        if is_other || is_uncounted {
            let Place { name, .. } = &state.place;
            self.rewrites.0 = self.setup.rewrites.begin(name, Some(state.number));
            let bucket = (&**name, state.number);
            let settled = recovery::settle(&*self.disk, &self.setup.dir, name, state.number).map_err(fault)?;
            let missing = Missing::of_settled(&*self.disk, &self.setup.dir, bucket, &state.entry, &settled);
            self.out.extend(missing.map(Done::Missing));
            // What the log knows of it is of the file that it was.
            self.log.set(name, state.number, &settled.entry).map_err(|error| Fault::log(&error))?;
            (state.entry, state.touched) = (settled.entry, false);
        }
        state.looked_at = true;
        Ok(())
    }

    pub(super) fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        let key = chunk.key();
        let Some(state) = self.states.get_mut(&key) else { return Ok(()) };
        let (file, _) = self.files.open_for_writing(key, &state.place, state.number)?;
        let (format, offset) = match state.entry.format {
            Some(format) => (format, state.entry.length),
            None => (chunk.format, 0),
        };
        if state.torn || (state.entry.format.is_none() && file.len()? > 0) {
            file.set_len(offset)?;
            state.torn = false;
        }
        let header = if offset == 0 { format.header() } else { &[] };
        let content: &[u8] = if header.is_empty() && format != Format::V2 && format.framing() == chunk.framing {
            &chunk.bytes
        } else {
            self.scratch.clear();
            self.scratch.extend_from_slice(header);
            let reframed;
            let records: &[u8] = if format.framing() == chunk.framing {
                &chunk.bytes
            } else {
                reframed = reframe(chunk, format.framing());
                &reframed
            };
            if format == Format::V2 {
                self.encoder.encode(offset + header.len() as u64, records, &mut self.scratch);
            } else {
                self.scratch.extend_from_slice(records);
            }
            &self.scratch
        };
        if let Err(error) = file.write_all_at(content, offset) {
            // What is there of it would be damage in the middle of the file, if others came behind it.
            state.torn = file.set_len(offset).is_err();
            return Err(error);
        }
        let length = content.len() as u64;
        let crc = crc32fast::hash(content);
        state.entry = Entry {
            format: Some(format),
            counted: true,
            length: offset + length,
            records: state.entry.records + chunk.records,
            bytes: state.entry.bytes + chunk.value_bytes,
        };
        state.unsynced += length;
        self.unsynced += length;
        self.dirty.insert(key);
        self.out.push(Done::Wrote { key, source: chunk.source, entry: state.entry });
        let (records, bytes) = (chunk.records, chunk.value_bytes);
        let written = Written { channel: &state.place.name, number: state.number, offset, length, records, bytes, crc };
        if let Err(error) = self.log.wrote(&written) {
            // The bytes are there, and the log keeps what it could not write and tries again with the next entry.
            tracing::warn!(target: "node.storage", %error, "the catalogue cannot be written");
        }
        if self.scratch.capacity() > 4 << 20 {
            self.scratch = Vec::new();
        }
        Ok(())
    }
}

/// The records of a chunk as the file has them: it became one of another format while they were on their way.
fn reframe(chunk: &Chunk, framing: Framing) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunk.bytes.len() + usize::try_from(chunk.records).unwrap_or(0));
    let mut walker = Walker::records(chunk.framing, chunk.number, chunk.bytes.len() as u64);
    loop {
        let at = usize::try_from(walker.offset()).unwrap_or(usize::MAX);
        let mut take = |key: u64, value: &[u8]| {
            record::put(framing, key, value, &mut out);
            true
        };
        match walker.next(chunk.bytes.get(at..).unwrap_or_default(), &mut take) {
            // All bytes are given at once.
            Step::End | Step::Need(_) => return out,
            Step::Paused | Step::Damaged(_) => {}
        }
    }
}

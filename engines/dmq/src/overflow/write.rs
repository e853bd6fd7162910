//! Bringing records, positions and the index to the files, and giving space back.

use std::collections::HashMap;
use std::io;
use std::thread::{self, JoinHandle};

use super::files::{self, DiskFile};
use super::header::START;
use super::index::{self, Identity, Line};
use super::positions::Entries;
use super::queue::Queue;
use super::{DATA, Overflow};
use crate::disk::{DiskError, QueueId};

/// A longer buffer is written before `settle`.
pub(super) const MOST_BUFFERED: usize = 1024 * 1024;
/// So many bytes are consumed before space is given back.
pub(super) const PUNCH: u64 = 16 * 1024 * 1024;
/// So much is given back at once: file systems take their time for more.
const SLICE: u64 = 64 * 1024 * 1024;
/// On a full disk it is given back from this on.
const LITTLE: u64 = 64 * 1024;
/// Space is given back in whole blocks.
const BLOCK: u64 = 4096;

/// What is known about the index.
#[derive(Debug)]
pub(super) struct IndexState {
    /// What lies there, and what may lie there while one is being written.
    saved: Identity,
    begun: Option<Identity>,
    writer: Option<JoinHandle<io::Result<()>>>,
    trouble: Option<String>,
}

impl IndexState {
    pub(super) fn new(saved: Identity) -> Self {
        Self { saved, begun: None, writer: None, trouble: None }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.saved.size
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Takes note of how the writing of `begun` ended.
    fn ended(&mut self, result: io::Result<()>) -> Result<(), DiskError> {
        match result {
            Ok(()) => {
                self.saved = self.begun.take().unwrap_or(self.saved);
                self.trouble = None;
                Ok(())
            }
            Err(source) => {
                let doing = format!("cannot write {}", index::NAME);
                self.trouble = Some(format!("{doing}: {source}"));
                Err(DiskError::Io { doing, source })
            }
        }
    }
}

/// All that the positions begin with.
pub(super) fn snapshot(queues: &HashMap<QueueId, Queue>, end: u64, next_channel: u32, index: &IndexState) -> Entries {
    let mut entries = Entries::default();
    entries.end(end.max(START), next_channel);
    entries.index(index.saved);
    if let Some(begun) = index.begun {
        entries.index(begun);
    }
    for queue in queues.values() {
        entries.queue(queue.channel, &queue.name);
        entries.state(queue.channel, &queue.state());
    }
    entries
}

impl Overflow {
    /// Allocates room up to `need`, more if there is some. On a full disk the next [`Self::write_all`] makes room of what
    /// was consumed: not this, for what was released since is not told yet.
    pub(super) fn allocate(&mut self, need: u64) -> Result<(), DiskError> {
        let result = self.try_allocate(need);
        self.full = matches!(result, Err(DiskError::Full(_)));
        self.changed |= self.full && self.unneeded() >= LITTLE;
        result
    }

    fn try_allocate(&mut self, need: u64) -> Result<(), DiskError> {
        let from = self.allocated.max(self.end);
        let ahead = need.max(from.saturating_add(self.options.preallocate));
        for to in [ahead, need] {
            match self.file.allocate(from, to) {
                Ok(()) => {
                    self.allocated = to;
                    return Ok(());
                }
                Err(error) if !files::is_full(&error) => return Err(self.failed(DATA, error)),
                Err(error) if to == need => return Err(DiskError::Full(error)),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Brings the records to the file.
    pub(super) fn flush(&mut self) -> Result<(), DiskError> {
        if !self.buffer.is_empty() {
            if let Err(error) = self.file.write_at(&self.buffer, self.buffer_start) {
                return Err(self.failed(DATA, error));
            }
            self.buffer_start += self.buffer.len() as u64;
            self.buffer.clear();
            self.buffer.shrink_to(2 * MOST_BUFFERED);
        }
        while let Some((offset, header)) = self.links.last().copied() {
            let bytes = header.encode();
            if let Err(error) = self.file.write_at(&bytes, offset) {
                return Err(self.failed(DATA, error));
            }
            self.window.changed(offset, &bytes);
            self.links.pop();
        }
        Ok(())
    }

    /// What [`crate::disk::Disk::settle`] does when there is something to do.
    pub(super) fn write_all(&mut self) -> Result<(), DiskError> {
        self.flush()?;
        for id in self.dirty.drain(..) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.listed = false;
                self.entries.state(queue.channel, &queue.state());
            }
        }
        match self.write_positions() {
            // The records are where they belong, and what was taken may leave: else nobody could drain a full disk. It
            // comes again if the process is killed before there is room.
            Err(DiskError::Io { source, .. }) if files::is_full(&source) => {
                if self.entries.0.len() > MOST_BUFFERED {
                    self.entries.0.clear();
                    self.anew = true;
                }
                return Ok(());
            }
            written => written?,
        }
        self.trouble = None;
        self.changed = false;
        if self.behind {
            self.punch();
        }
        if self.live == 0 && self.end > self.options.preallocate {
            self.empty()?;
        } else if self.consumed >= PUNCH || (self.full && self.unneeded() >= LITTLE) {
            self.give_back()?;
        }
        Ok(())
    }

    /// Gives back the space of what was consumed.
    fn give_back(&mut self) -> Result<(), DiskError> {
        self.consumed = 0;
        let lowest = self.queues.iter().filter_map(|(id, queue)| Some((queue.lowest()?, *id))).min();
        self.keeper = lowest.map(|(_, id)| id);
        // A start does not look for records where there are none any more.
        self.note_all();
        self.write_positions()?;
        self.punch();
        Ok(())
    }

    /// Adds the states of all queues to the entries.
    fn note_all(&mut self) {
        for queue in self.queues.values() {
            self.entries.state(queue.channel, &queue.state());
        }
        self.entries.end(self.buffer_start.max(START), self.next_channel);
    }

    fn write_positions(&mut self) -> Result<(), DiskError> {
        if self.entries.0.is_empty() && !self.anew {
            return Ok(());
        }
        let mut result = Ok(());
        let mut rewrite = self.anew || self.positions.is_long();
        if !rewrite {
            result = self.positions.append(&self.entries.0);
            rewrite = result.as_ref().is_err_and(files::is_full);
        }
        if rewrite {
            let whole = snapshot(&self.queues, self.buffer_start, self.next_channel, &self.index);
            result = self.positions.rewrite(&whole.0);
        }
        match result {
            Ok(()) => {
                self.entries.0.clear();
                self.anew = false;
                Ok(())
            }
            Err(error) => Err(self.failed(super::positions::NAME, error)),
        }
    }

    /// Nothing is needed any more: the data file begins anew. What takes much space is given back piece by piece before.
    fn empty(&mut self) -> Result<(), DiskError> {
        if self.unneeded() > SLICE {
            let before = self.punched;
            self.punch();
            if self.punched > before {
                return Ok(());
            }
        }
        if let Err(error) = self.file.set_len(0) {
            return Err(self.failed(DATA, error));
        }
        (self.end, self.buffer_start, self.allocated, self.punched, self.consumed) = (0, 0, 0, 0, 0);
        self.behind = false;
        self.window.clear();
        self.queues.values_mut().for_each(Queue::emptied);
        // Before this is written all queues count as empty, whatever records the file then holds.
        self.entries.emptied();
        self.changed = true;
        self.write_positions()?;
        self.changed = false;
        Ok(())
    }

    /// Where the first record is that is needed, in whole blocks.
    fn needed_from(&self) -> u64 {
        let lowest = self.queues.values().filter_map(Queue::lowest).min().unwrap_or(self.buffer_start);
        lowest.min(self.buffer_start) / BLOCK * BLOCK
    }

    /// What the queues need of the file, about, and the one whose first record keeps the space from being given back.
    pub(super) fn needs(&self) -> (u64, &str) {
        let bytes = self.queues.values().map(Queue::needed).sum();
        let lowest = self.queues.values().filter_map(|queue| Some((queue.lowest()?, &*queue.name))).min();
        (bytes, lowest.map_or("", |(_, name)| name))
    }

    /// Bytes that could be given back.
    fn unneeded(&self) -> u64 {
        self.needed_from().saturating_sub(self.punched.max(START))
    }

    /// Gives the space before the first record that is needed back to the file system; of much, the rest with the next calls
    /// of [`Self::write_all`].
    fn punch(&mut self) {
        let needed = self.needed_from();
        let from = self.punched.max(START);
        let to = needed.min((from + SLICE) / BLOCK * BLOCK);
        self.behind = to < needed;
        self.changed |= self.behind;
        if to <= from {
            return;
        }
        match self.file.punch(from, to) {
            Ok(()) => self.punched = to,
            Err(error) => {
                self.behind = false;
                tracing::warn!(target: "diskoverflow", %error, "cannot give space back");
            }
        }
    }

    fn failed(&mut self, file: &str, source: io::Error) -> DiskError {
        let doing = format!("cannot write {file}");
        self.trouble = Some(format!("{doing}: {source}"));
        self.changed = true;
        DiskError::Io { doing, source }
    }

    /// Writes the index, on another thread or at once.
    pub(super) fn write_index(&mut self, on_thread: bool) -> Result<(), DiskError> {
        let mut last = Ok(());
        if let Some(writer) = self.index.writer.take() {
            if on_thread && !writer.is_finished() {
                self.index.writer = Some(writer);
                return Ok(());
            }
            last = self.index.ended(join(writer));
        }
        self.write_all()?;
        if self.live == 0 && self.end > 0 {
            self.empty()?;
        }
        let content = self.index_content()?;
        let identity = Identity::of(content.as_bytes());
        if identity == self.index.saved && self.index.begun.is_none() && self.index.trouble.is_none() {
            return last;
        }
        self.index.begun = Some(identity);
        self.note_all();
        self.entries.index(identity);
        self.write_positions()?;
        let handles = self.file.try_clone().and_then(|data| Ok((data, self.positions.handle()?)));
        let (data, positions) = handles.map_err(|error| self.failed(DATA, error))?;
        let dir = self.dir.clone();
        let write = move || write_durably(&data, &positions, &dir, content.as_bytes());
        if !on_thread {
            return self.index.ended(write());
        }
        match thread::Builder::new().name("overflow-index".to_owned()).spawn(write) {
            Ok(writer) => {
                self.index.writer = Some(writer);
                last
            }
            Err(error) => self.index.ended(Err(error)),
        }
    }

    /// The index as it has to be now. The queues that came last stand first.
    fn index_content(&mut self) -> Result<String, DiskError> {
        let mut ids: Vec<_> = (self.queues.iter())
            .filter(|(_, queue)| queue.records() > 0)
            .map(|(id, queue)| (queue.channel, *id))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let mut content = String::new();
        for (_, id) in ids {
            let place = self.first_place(id).map_err(|error| self.failed(index::NAME, error))?;
            if let (Some(place), Some(queue)) = (place, self.queues.get(&id)) {
                let line = Line {
                    name: queue.name.clone(),
                    records: queue.appended - place.number,
                    bytes: queue.bytes.saturating_sub(place.bytes),
                    first: place.offset,
                    last: queue.last,
                };
                index::write_line(&line, &mut content);
            }
        }
        Ok(content)
    }

    /// [`Overflow::close`].
    pub(super) fn finish(mut self) -> Result<(), DiskError> {
        self.write_index(false)?;
        let ends = self.queues.values().filter(|queue| queue.records() > 0).map(Queue::end);
        let end = ends.max().unwrap_or(0);
        self.file.set_len(end).map_err(|error| self.failed(DATA, error))?;
        let Self { dir, positions, live, .. } = self;
        let mut result = Ok(());
        if live == 0 {
            result = files::remove(&dir.join(index::NAME)).and_then(|()| files::remove(&dir.join(DATA)));
        }
        result
            .and_then(|()| positions.remove())
            .and_then(|()| files::sync_dir(&dir))
            .map_err(|source| DiskError::Io { doing: format!("cannot remove files in {}", dir.display()), source })
    }
}

/// The index must not speak of records that are not on the disk.
fn write_durably(data: &DiskFile, positions: &DiskFile, dir: &std::path::Path, content: &[u8]) -> io::Result<()> {
    data.sync_data()?;
    positions.sync_data()?;
    index::replace(dir, content)
}

fn join(writer: JoinHandle<io::Result<()>>) -> io::Result<()> {
    writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer of the index has failed")))
}

//! The log: what is appended, when it is written, and when it is durable.
//!
//! Entries gather in `pending`, which continues the last segment. It is written when a group begins, when a reply
//! must not leave before (what a pop released), and when it has grown; the rest waits while the group before it is on
//! its way to the disk.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overstory_node::commit::Commits;
use tokio::sync::mpsc::Receiver;

use super::files::Files;
use super::format::{ENTRY_HEAD, FIRST_ENTRY, Kind, MAX_BODY, SHORT_ENTRY, put};
use super::index::{Freed, Index};
use super::moving::Moving;
use super::segment::{self, Fresh, Segment};
use super::worker::{Done, Group, Job, Place, Worker};
use crate::disk::{DiskError, QueueId};

/// What is written even if nobody waits for it, so that it takes no memory.
pub(super) const MUCH: usize = 1024 * 1024;
/// Bytes appended until it is looked again whether records have to be moved.
pub(super) const DEBT: u64 = 16 * 1024;

/// After this it is tried again to make a segment on a full disk.
const AGAIN: Duration = Duration::from_secs(1);

/// A queue with its name and records.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) index: Index,
    /// The segment that tells its name.
    pub(super) defined_in: u64,
    /// Released numbers that no entry tells yet: `from..to`.
    pub(super) unlogged: (u64, u64),
}

/// Numbers of queues are ours: they need no hashing.
#[derive(Debug, Default)]
pub(super) struct QueueHasher(u64);

impl Hasher for QueueHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

pub(super) type Queues = HashMap<QueueId, Queue, BuildHasherDefault<QueueHasher>>;

/// The state of the journal.
#[derive(Debug)]
pub(super) struct Log {
    /// The node's data directory.
    pub(super) data: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) names: Arc<File>,
    pub(super) _lock: File,
    pub(super) segment_bytes: u64,
    pub(super) files: Box<dyn Files>,
    pub(super) commits: Rc<Commits>,
    pub(super) queues: Queues,
    /// By serial; entries go to the last one.
    pub(super) segments: VecDeque<Segment>,
    pub(super) next: Option<Fresh>,
    pub(super) next_serial: u64,
    pub(super) preparing: bool,
    /// When no segment could be made; it is not tried again at once, for it takes its time.
    pub(super) full_since: Option<Instant>,
    /// The segment that is being removed, and whether that has to be tried again.
    pub(super) removing: Option<(u64, bool)>,
    pub(super) moving: Option<Moving>,
    /// Bytes appended since records were moved last.
    pub(super) debt: u64,

    pub(super) pending: Vec<u8>,
    /// Where in the last segment `pending` belongs.
    pub(super) pending_at: u64,
    /// Bytes of entries since the journal was opened: all, and those that are durable.
    pub(super) appended: u64,
    pub(super) synced: u64,
    /// Segment and offset up to which all is durable.
    pub(super) mark: (u64, u64),
    /// Segments before the last one that a group has not made durable yet.
    pub(super) unsynced: Vec<(u64, Arc<File>)>,
    pub(super) group: Option<Group>,
    /// Changes that the group under way, or the last one, makes durable.
    pub(super) committing: u64,
    /// Queues with released records that no entry tells yet.
    pub(super) released: Vec<QueueId>,
    /// The same, range by range: what could not be told yet.
    pub(super) untold: Vec<(QueueId, (u64, u64))>,
    pub(super) urgent: bool,

    pub(super) buffer: Vec<u8>,
    pub(super) done: Receiver<Done>,
    pub(super) syncer: Worker,
    pub(super) keeper: Worker,
    pub(super) trouble: Trouble,
}

/// What operators should know.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) failed: Option<String>,
    pub(super) full: Option<String>,
    /// No segment could be made ahead; that was logged.
    pub(super) unprepared: bool,
    pub(super) lost: u64,
    pub(super) damage: Option<String>,
    pub(super) remove: Option<String>,
}

pub(super) fn failed(doing: &str, path: &Path, source: io::Error) -> DiskError {
    DiskError::Io { doing: format!("{doing} {}", path.display()), source }
}

impl Log {
    pub(super) fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.check()?;
        self.forget(queue);
        self.put_small(Kind::Created, queue, 0, name.as_bytes())?;
        let defined_in = self.last_serial();
        self.queues.insert(queue, Queue { name: name.to_owned(), defined_in, ..Queue::default() });
        self.define(defined_in, name.len(), true);
        self.commits.changed();
        Ok(())
    }

    pub(super) fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.check()?;
        self.tell_name(queue, name.to_owned())?;
        self.commits.changed();
        Ok(())
    }

    /// Writes a queue's name and next number at the end.
    pub(super) fn tell_name(&mut self, queue: QueueId, name: String) -> Result<(), DiskError> {
        let Some(known) = self.queues.get(&queue) else { return Ok(()) };
        let mut body = known.index.next_number().to_le_bytes().to_vec();
        body.extend_from_slice(name.as_bytes());
        self.put_small(Kind::Defined, queue, 0, &body)?;
        let serial = self.last_serial();
        self.define(serial, name.len(), true);
        if let Some(known) = self.queues.get_mut(&queue) {
            let defined_before = std::mem::replace(&mut known.defined_in, serial);
            let name_before = std::mem::replace(&mut known.name, name);
            self.define(defined_before, name_before.len(), false);
        }
        self.see_what_is_free();
        Ok(())
    }

    pub(super) fn remove(&mut self, queue: QueueId) -> Result<(), DiskError> {
        self.forget(queue);
        self.check()?;
        self.put_small(Kind::Removed, queue, 0, &[])?;
        self.commits.changed();
        self.see_what_is_free();
        Ok(())
    }

    fn forget(&mut self, queue: QueueId) {
        let Some(gone) = self.queues.remove(&queue) else { return };
        for held in gone.index.held() {
            self.give_back(held);
        }
        self.define(gone.defined_in, gone.name.len(), false);
    }

    pub(super) fn reserve(&mut self, records: usize, bytes: u64) -> Result<(), DiskError> {
        self.check()?;
        let heads = (records as u64).saturating_mul(ENTRY_HEAD as u64);
        let need = heads.saturating_add(bytes).saturating_add(self.headroom());
        let result = if bytes > MAX_BODY.saturating_mul(records as u64) {
            Err(DiskError::Full(io::ErrorKind::FileTooLarge.into()))
        } else if need <= self.room() {
            Ok(())
        } else {
            self.roll(need)
        };
        match &result {
            Err(DiskError::Full(error)) if self.trouble.full.is_none() => self.trouble.full = Some(error.to_string()),
            Ok(()) if self.trouble.full.is_some() => self.trouble.full = None,
            _ => {}
        }
        result
    }

    pub(super) fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
        self.check()?;
        let entry = (ENTRY_HEAD + record.len()) as u64;
        if entry > self.room() {
            // Nobody reserved it.
            self.roll(entry + self.headroom())?;
        }
        let at = self.end();
        let (Some(known), Some(segment)) = (self.queues.get_mut(&queue), self.segments.back_mut()) else {
            return Err(failed("appending to an unknown queue in", &self.dir, io::ErrorKind::NotFound.into()));
        };
        put(&mut self.pending, segment.salt, Kind::Record, queue, known.index.next_number(), record);
        known.index.push(segment.serial, at, u32::try_from(record.len()).unwrap_or(u32::MAX));
        segment.add(1, record.len() as u64);
        self.appended += entry;
        self.debt += entry;
        self.commits.changed();
        Ok(())
    }

    pub(super) fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError> {
        self.check()?;
        let Some(known) = self.queues.get_mut(&queue) else { return Ok(()) };
        let (from, to) = (known.index.number_at(from), known.index.number_at(to));
        if from >= to {
            return Ok(());
        }
        let segments = &mut self.segments;
        known.index.release(from, to, &mut |freed| give_back(segments, freed));
        let unlogged = known.unlogged;
        if unlogged.0 == unlogged.1 {
            known.unlogged = (from, to);
            self.released.push(queue);
        } else if unlogged.1 == from {
            known.unlogged.1 = to;
        } else {
            known.unlogged = (from, to);
            self.untold.push((queue, unlogged));
        }
        self.see_what_is_free();
        Ok(())
    }

    fn put_released(&mut self, queue: QueueId, (from, to): (u64, u64)) -> Result<(), DiskError> {
        self.urgent = true;
        self.put_small(Kind::Released, queue, from, &to.to_le_bytes())
    }

    /// Appends what was released. Without room for it that waits: what was taken leaves all the same, or a full disk could not
    /// be drained. It comes again if the process is killed before a segment is free.
    pub(super) fn tell_released(&mut self) -> Result<(), DiskError> {
        while let Some(queue) = self.released.pop() {
            if let Some(known) = self.queues.get_mut(&queue) {
                self.untold.push((queue, std::mem::take(&mut known.unlogged)));
            }
        }
        while let Some((queue, range)) = self.untold.last().copied() {
            if range.0 < range.1 && self.queues.contains_key(&queue) {
                match self.put_released(queue, range) {
                    Err(DiskError::Full(error)) => {
                        self.trouble.full.get_or_insert_with(|| error.to_string());
                        return Ok(());
                    }
                    told => told?,
                }
            }
            self.untold.pop();
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), DiskError> {
        if self.trouble.failed.is_some() { Err(DiskError::Failed) } else { Ok(()) }
    }

    /// From here on nothing is taken: what is on the disk is not known any more.
    pub(super) fn fail(&mut self, doing: &str, error: io::Error) -> DiskError {
        let path = segment::path(&self.dir, self.last_serial());
        self.trouble.failed.get_or_insert_with(|| format!("{doing} {}: {error}", path.display()));
        self.commits.fail();
        failed(doing, &path, error)
    }

    pub(super) fn last_serial(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.serial)
    }

    /// Where the next entry goes in the last segment.
    pub(super) fn end(&self) -> u64 {
        self.pending_at + self.pending.len() as u64
    }

    /// What fits into the last segment, besides its last entry.
    pub(super) fn room(&self) -> u64 {
        let size = self.segments.back().map_or(0, |segment| segment.size);
        size.saturating_sub(self.end() + ENTRY_HEAD as u64)
    }

    /// Room that records leave to what must find room later: releases above all. On a full disk it is much: there is
    /// no other segment for them, and without them none ever gets free.
    pub(super) fn headroom(&self) -> u64 {
        let is_last = self.next.is_none() && self.trouble.unprepared;
        self.segment_bytes / if is_last { 2 } else { 32 }
    }

    /// Appends an entry that is no record.
    pub(super) fn put_small(&mut self, kind: Kind, queue: QueueId, number: u64, body: &[u8]) -> Result<(), DiskError> {
        let entry = (ENTRY_HEAD + body.len()) as u64;
        if entry > self.room() {
            self.roll(entry + self.headroom())?;
        }
        if let Some(segment) = self.segments.back() {
            put(&mut self.pending, segment.salt, kind, queue, number, body);
            self.appended += entry;
        }
        Ok(())
    }

    /// Writes what has grown.
    pub(super) fn write_much(&mut self) -> Result<(), DiskError> {
        if self.pending.len() >= MUCH { self.write_pending() } else { Ok(()) }
    }

    pub(super) fn write_pending(&mut self) -> Result<(), DiskError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let Some(segment) = self.segments.back() else { return Ok(()) };
        if let Err(error) = self.files.write(&segment.file, segment.serial, &self.pending, self.pending_at) {
            return Err(self.fail("writing", error));
        }
        self.pending_at += self.pending.len() as u64;
        self.pending.clear();
        self.pending.shrink_to(2 * MUCH);
        Ok(())
    }

    /// Goes on in another segment, with room for `need` bytes.
    pub(super) fn roll(&mut self, need: u64) -> Result<(), DiskError> {
        let need = need.saturating_add(FIRST_ENTRY + 2 * SHORT_ENTRY);
        let fits = |fresh: &Fresh| fresh.size >= need;
        if let Some(fresh) = self.next.take_if(|fresh| fits(fresh)) {
            self.go_on_in(fresh)?;
        } else {
            // Rarely: the room was used up before the keeper had made more, or much is needed at once.
            let serial = self.next_serial;
            let size = need.max(self.segment_bytes);
            if size == self.segment_bytes && self.full_since.is_some_and(|since| since.elapsed() < AGAIN) {
                return Err(DiskError::Full(io::ErrorKind::StorageFull.into()));
            }
            let fresh = match segment::make_durable(&self.dir, serial, size, &*self.files, &self.names) {
                Ok(fresh) => fresh,
                Err(error) => {
                    self.full_since = (size == self.segment_bytes).then(Instant::now).or(self.full_since);
                    return Err(DiskError::Full(error));
                }
            };
            self.full_since = None;
            self.next_serial += 1;
            if let Some(unused) = self.next.take() {
                let _gone = std::fs::remove_file(segment::path(&self.dir, unused.serial));
            }
            self.go_on_in(fresh)?;
        }
        self.prepare();
        Ok(())
    }

    fn go_on_in(&mut self, fresh: Fresh) -> Result<(), DiskError> {
        if let Some(segment) = self.segments.back() {
            put(&mut self.pending, segment.salt, Kind::End, 0, 0, &[]);
            self.unsynced.push((segment.serial, Arc::clone(&segment.file)));
            self.write_pending()?;
            let end = self.pending_at;
            self.segments.iter_mut().next_back().into_iter().for_each(|segment| segment.end = end);
        }
        self.segments.push_back(Segment::new(fresh));
        self.pending_at = FIRST_ENTRY;
        self.see_what_is_free();
        Ok(())
    }

    /// Has the next segment made.
    pub(super) fn prepare(&mut self) {
        if self.next.is_none() && !self.preparing {
            let job = Job::Prepare { serial: self.next_serial, size: self.segment_bytes };
            self.preparing = self.keeper.give(job);
            self.next_serial += u64::from(self.preparing);
        }
    }

    pub(super) fn give_back(&mut self, freed: Freed) {
        give_back(&mut self.segments, freed);
    }

    /// Counts that a name is told in a segment, or was and is told elsewhere.
    fn define(&mut self, serial: u64, name: usize, is_here: bool) {
        if let Some(segment) = find(&mut self.segments, serial) {
            segment.define(name, is_here);
        }
    }

    /// Notes when the oldest segments became free.
    pub(super) fn see_what_is_free(&mut self) {
        let last = self.segments.len().saturating_sub(1);
        for segment in self.segments.iter_mut().take(last) {
            if segment.is_needed() {
                break;
            }
            segment.free_after.get_or_insert(self.appended);
        }
    }

    /// Removes the oldest segment if nothing in it is needed and what says so is durable. One at a time.
    pub(super) fn remove_free(&mut self) {
        let is_free = |segment: &Segment| segment.free_after.is_some_and(|after| after <= self.synced);
        if self.removing.is_some() || self.segments.len() < 2 || !self.segments.front().is_some_and(is_free) {
            return;
        }
        if let Some(segment) = self.segments.pop_front() {
            let serial = segment.serial;
            self.removing = Some((serial, !self.keeper.give(Job::Remove { serial })));
        }
    }

    pub(super) fn place(dir: &Path, names: &Arc<File>, files: &dyn Files) -> Place {
        Place { dir: dir.to_owned(), names: Arc::clone(names), files: files.share() }
    }
}

/// The segment of a serial.
pub(super) fn find(segments: &mut VecDeque<Segment>, serial: u64) -> Option<&mut Segment> {
    let index = segments.partition_point(|segment| segment.serial < serial);
    segments.get_mut(index).filter(|segment| segment.serial == serial)
}

fn give_back(segments: &mut VecDeque<Segment>, freed: Freed) {
    if let Some(segment) = find(segments, freed.segment) {
        segment.give_back(freed);
    }
}

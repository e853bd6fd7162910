//! The catalogue on disk: what happens to buckets, told by the thread that does it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bucket::BucketNumber;
use crate::checkpoint;
use crate::disk::{Disk, File};

use super::Entry;
use super::anew::{Anew, Beside, TEMPORARY, changed_at, state_of, write_anew};
use super::entries::{self, Item, Next, Write};
use super::state::{self, State, Touched, first_of_slot};

/// The name in the data directory.
pub(crate) const FILE: &str = ".catalogue";
/// Bytes that wait for being written, usually.
const BUFFER: usize = 64 << 10;
/// Bytes that cannot be written, from which on no bucket is written either.
const MAX_WAITING: usize = 8 << 20;
/// Bytes that a file may have more than twice what it had when it was new.
const SLACK: u64 = 4 << 20;

/// The catalogue's file. Belongs to the thread that writes the buckets.
///
/// After an error nothing is lost: what was told is still to be written, and each later call tries to.
/// [`io::ErrorKind::StorageFull`] is worth trying again; the file itself is written anew after a failed sync.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn File>,
    /// Bytes that are in the file.
    end: u64,
    /// Bytes that belong behind them.
    waiting: Vec<u8>,
    ids: HashMap<Box<str>, u32>,
    next_id: u32,
    /// Directories in which names have changed, and nobody knows when.
    changed: BTreeSet<(u32, Option<BucketNumber>)>,
    /// Whether a bucket was touched since the last sync.
    touched: bool,
    /// Whether a sync has failed: what is in the file may not be what is on the disk.
    suspect: bool,
    /// Bytes at which the file is written anew.
    compact_at: u64,
    /// The file that is being written anew.
    beside: Option<Beside>,
    /// There will be no use for a `checkpoint.dat`, or for a new file.
    is_ending: bool,
    /// The start found what there was no room to tell: no directory may be taken for known.
    is_partial: bool,
}

/// A write to a bucket that has been made.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The bucket.
    pub number: BucketNumber,
    /// Where the bytes begin in the file.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the records' values.
    pub bytes: u64,
    /// CRC-32 of the bytes, of a file's header too if that is among them.
    pub crc: u32,
}

/// A bucket of a checkpoint.
#[derive(Debug, Clone)]
pub struct Synced {
    /// The channel.
    pub channel: Arc<str>,
    /// The bucket.
    pub number: BucketNumber,
    /// What is durable, the name of the file among it.
    pub entry: Entry,
    /// Whether there may be bytes behind it already. If not, the bucket has to be touched again before the next write.
    pub more: bool,
}

impl Log {
    /// A log with a new file, that says what a start has found.
    pub(crate) fn anew(disk: Arc<dyn Disk>, dir: &Path, state: &State) -> io::Result<Self> {
        let anew = write_anew(&*disk, dir, state)?;
        let mut log = Self::new(disk, dir, state, Arc::clone(&anew.file.0), anew.size);
        // What failed is made up for by the first sync.
        let _later = log.is_anew(anew);
        Ok(log)
    }

    /// The log behind what was read from its file, up to `end`. `found` is what a start has made of it: the same, but for
    /// the buckets that were written to, and those are told.
    pub(crate) fn resume(disk: Arc<dyn Disk>, dir: &Path, found: &State, was: &Was) -> io::Result<Self> {
        let mut log = Self::behind(disk, dir, found, was.end)?;
        log.changed.extend(was.changed.iter().copied());
        log.tell_start(found, &was.touched);
        Ok(log)
    }

    /// The same where more is not as the file says, and there is no room for another one: that is found again by the next
    /// start.
    pub(crate) fn resume_full(disk: Arc<dyn Disk>, dir: &Path, found: &State, was: &Was) -> io::Result<Self> {
        let (told, ..) = state::load_to(&*disk.open(&dir.join(FILE))?, was.end)?;
        let mut log = Self::behind(disk, dir, &told, was.end)?;
        log.is_partial = true;
        log.tell_start(found, &was.touched);
        Ok(log)
    }

    fn behind(disk: Arc<dyn Disk>, dir: &Path, told: &State, end: u64) -> io::Result<Self> {
        let temporary = dir.join(TEMPORARY);
        if disk.stat(&temporary).is_ok() {
            // A process has left it that was killed. Nobody reads it.
            let _ = disk.remove(&temporary);
        }
        let file = disk.create(&dir.join(FILE))?;
        if file.len()? != end {
            // Nothing may come to stand behind the rest of a torn entry, or in front of old ones that come back.
            file.set_len(end)?;
        }
        // A killed process may have left to the system what has been read, or that the file has this name. A power cut must
        // not take it back when more stands behind it.
        file.sync()?;
        disk.sync_dir(dir)?;
        let mut log = Self::new(disk, dir, told, file, end);
        // One that was slow to read is written anew as soon as the node runs.
        log.compact_at = if end > told.size() / 4 * 5 + SLACK { 0 } else { due_at(told.size()) };
        Ok(log)
    }

    fn tell_start(&mut self, found: &State, was_touched: &[(u32, BucketNumber)]) {
        let mut tell = |item: &Item<'_>| {
            item.write(&mut self.waiting);
            Ok(())
        };
        // A part of this is as good as nothing of it: the process is told of last.
        for &(id, number) in was_touched {
            let Some(channel) = found.channels.get(&id) else { continue };
            let _never_fails = match (found.touched.get(&(id, number)), channel.buckets.get(&number)) {
                (Some(Touched { writes, told: Some(told), .. }), _) => {
                    writes.iter().skip(*told).try_for_each(|&write| tell(&Item::Written { id, number, write }))
                }
                // What was written in another boot is no proof any more.
                (Some(touched), _) => touched.items(id, number, &mut tell),
                (None, Some(&entry)) => tell(&Item::Bucket { id, number, entry, more: false }),
                (None, None) => tell(&Item::BucketRemoved { id, number }),
            };
        }
        let _never_fails = tell(&Item::Run { boot: &found.boot });
        // Nothing is written to a bucket before this is durable.
        self.touched = true;
        // A process that is killed at once has told it all the same; what there is no room for comes with the next entries.
        let _ = self.flush();
    }

    fn new(disk: Arc<dyn Disk>, dir: &Path, told: &State, file: Arc<dyn File>, end: u64) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            file,
            end,
            waiting: Vec::new(),
            ids: told.channels.iter().map(|(id, channel)| (channel.name.clone(), *id)).collect(),
            next_id: told.next_id,
            changed: BTreeSet::new(),
            touched: false,
            suspect: false,
            compact_at: due_at(end),
            beside: None,
            is_ending: false,
            is_partial: false,
        }
    }

    /// Says that a bucket will be written to, and what is durable of it: [`Entry::EMPTY`] for a new one. Once for each
    /// bucket since the last checkpoint; [`Log::sync_touched`] has to come before the write.
    ///
    /// # Errors
    /// The disk's; the bucket must not be written to then.
    pub fn touch(&mut self, channel: &str, number: BucketNumber, entry: &Entry) -> io::Result<()> {
        let id = self.id(channel);
        if entry.length == 0 {
            self.names_change(id, number);
        }
        self.touched = true;
        self.push(&Item::Touched { id, number, entry: *entry, only: false })
    }

    /// Makes durable which buckets were touched. Costs nothing if there are none.
    ///
    /// # Errors
    /// The disk's; none of the buckets may be written to then.
    pub fn sync_touched(&mut self) -> io::Result<()> {
        // A log that cannot be written holds up the writes that it would have to tell.
        if self.touched || self.waiting.len() >= MAX_WAITING { self.sync() } else { Ok(()) }
    }

    /// Says what was written. It proves the bytes after a power cut, from the next [`Log::sync`] on.
    ///
    /// # Errors
    /// The disk's.
    pub fn wrote(&mut self, written: &Written<'_>) -> io::Result<()> {
        let id = self.id(written.channel);
        let Written { number, offset, length, records, bytes, crc, .. } = *written;
        self.push(&Item::Written { id, number, write: Write { offset, length, records, bytes, crc } })
    }

    /// Says what is known of a bucket that is durable and not touched.
    ///
    /// # Errors
    /// The disk's.
    pub fn set(&mut self, channel: &str, number: BucketNumber, entry: &Entry) -> io::Result<()> {
        let id = self.id(channel);
        self.push(&Item::Bucket { id, number, entry: *entry, more: false })
    }

    /// Says, durably, that another file is about to be renamed over the bucket's.
    ///
    /// # Errors
    /// The disk's; the file must not be renamed then.
    pub fn replacing(&mut self, channel: &str, number: BucketNumber) -> io::Result<()> {
        let id = self.id(channel);
        self.names_change(id, number);
        self.push(&Item::Replacing { id, number })?;
        self.sync()
    }

    /// Says, durably, that the other file is the bucket's now, and that this is so on the disk too.
    ///
    /// # Errors
    /// The disk's.
    pub fn replaced(&mut self, channel: &str, number: BucketNumber, entry: &Entry) -> io::Result<()> {
        self.set(channel, number, entry)?;
        self.sync()
    }

    /// Says that the file of a bucket was removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn removed_bucket(&mut self, channel: &str, number: BucketNumber) -> io::Result<()> {
        let id = self.id(channel);
        self.names_change(id, number);
        self.push(&Item::BucketRemoved { id, number })?;
        self.flush()
    }

    /// Says that the directory of a channel was removed, or has another name.
    ///
    /// # Errors
    /// The disk's.
    pub fn removed_channel(&mut self, channel: &str) -> io::Result<()> {
        let Some(id) = self.ids.remove(channel) else { return Ok(()) };
        self.changed.retain(|(other, _)| *other != id);
        self.push(&Item::ChannelRemoved { id })?;
        self.flush()
    }

    /// Says what is durable of the buckets that were touched, and tells published nodes of it in `checkpoint.dat`.
    ///
    /// # Errors
    /// The disk's; to be repeated then.
    pub fn checkpoint(&mut self, buckets: &[Synced]) -> io::Result<()> {
        for bucket in buckets {
            let id = self.id(&bucket.channel);
            self.push(&Item::Bucket { id, number: bucket.number, entry: bucket.entry, more: bucket.more })?;
        }
        self.note_directories()?;
        self.sync()?;
        if buckets.is_empty() || self.is_ending {
            return Ok(());
        }
        let lines = buckets.iter().map(|bucket| (&*bucket.channel, bucket.number, bucket.entry.length));
        checkpoint::write(&*self.disk, &self.dir, lines)
    }

    /// Makes durable all that was told.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.suspect {
            return self.compact();
        }
        if self.beside.as_ref().is_some_and(Beside::is_done) && self.take_over()? {
            return Ok(());
        }
        if let Err(error) = self.file.sync() {
            self.suspect = true;
            return Err(error);
        }
        self.was_synced();
        if self.end >= self.compact_at && self.beside.is_none() && !self.is_ending {
            // If there is no room for a second file: not again before this one has twice the size.
            self.compact_at = self.end.saturating_mul(2);
            self.beside = Beside::begin(&self.disk, &self.dir, &self.file, self.end);
        }
        Ok(())
    }

    /// Says, durably, that what is read of a file may be other bytes than those that were written: the next start asks for
    /// proof, as after a power cut.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn distrust(&mut self) -> io::Result<()> {
        self.push(&Item::Run { boot: b"" })?;
        self.sync()
    }

    /// Ends the log in order, when all buckets are durable and none is touched: the next start trusts it, and finds no
    /// `checkpoint.dat`.
    ///
    /// # Errors
    /// The disk's; the next start is one after a crash then.
    pub fn close(&mut self) -> io::Result<()> {
        self.is_ending = true;
        self.beside = None;
        self.note_directories()?;
        self.push(&Item::Closed)?;
        self.sync()?;
        self.flush()?;
        checkpoint::remove(&*self.disk, &self.dir)
    }

    /// Gives back what room there is to give on a full disk, at the end: no `checkpoint.dat` is written any more.
    pub(crate) fn make_room(&mut self) {
        self.is_ending = true;
        self.beside = None;
        let _may_be_gone = self.disk.remove(&self.dir.join(TEMPORARY));
        let _tried = checkpoint::remove(&*self.disk, &self.dir);
    }

    /// Writes the file anew in the room that it has itself. A crash meanwhile leaves none, or a damaged one.
    pub(crate) fn write_in_its_room(&mut self) -> io::Result<()> {
        self.beside = None;
        // A write for which there was no room may have left something.
        self.file.set_len(self.end)?;
        let (mut state, end, _) = state::load(&*self.file)?;
        let mut rest = &self.waiting[..];
        while let Next::Item(item, size) = entries::next(rest) {
            state.apply(&item);
            rest = rest.get(size..).unwrap_or_default();
        }
        state.finish();
        if end != self.end || !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the catalogue's file is not as it was written"));
        }
        self.file.set_len(0)?;
        let anew = write_anew(&*self.disk, &self.dir, &state)?;
        self.waiting.clear();
        self.is_anew(anew)
    }

    /// Removes the catalogue, when all buckets are durable: better none than one by which a start after a power cut would
    /// not know what was written last, and cut it off.
    pub(crate) fn discard(&mut self) -> io::Result<()> {
        self.make_room();
        self.disk.remove(&self.dir.join(FILE))?;
        self.disk.sync_dir(&self.dir)
    }

    /// Has the file written anew by the next sync, and waits until that is done.
    #[cfg(test)]
    pub(crate) fn write_beside(&mut self) -> io::Result<()> {
        self.compact_at = 0;
        self.sync()?;
        self.wait_beside();
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn wait_beside(&self) {
        while self.beside.as_ref().is_some_and(|beside| !beside.is_done()) {
            std::thread::yield_now();
        }
    }

    /// The number of a channel; a new one is told in front of what needs it.
    fn id(&mut self, channel: &str) -> u32 {
        if let Some(id) = self.ids.get(channel) {
            return *id;
        }
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        self.ids.insert(channel.into(), id);
        Item::Channel { id, name: channel.as_bytes() }.write(&mut self.waiting);
        id
    }

    fn names_change(&mut self, id: u32, number: BucketNumber) {
        self.changed.insert((id, Some(first_of_slot(number))));
        self.changed.insert((id, None));
    }

    fn push(&mut self, item: &Item<'_>) -> io::Result<()> {
        item.write(&mut self.waiting);
        if self.waiting.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.waiting, self.end)?;
        self.end = self.end.saturating_add(self.waiting.len() as u64);
        self.waiting.clear();
        Ok(())
    }

    fn was_synced(&mut self) {
        self.touched = false;
        Item::Mark.write(&mut self.waiting);
    }

    /// Tells when the directories were changed in which names have changed.
    fn note_directories(&mut self) -> io::Result<()> {
        if self.is_partial || self.changed.is_empty() {
            return Ok(());
        }
        self.flush()?;
        let Some(now) = changed_at(&*self.disk, &self.dir.join(FILE)) else { return Ok(()) };
        let names: HashMap<u32, Box<str>> = self.ids.iter().map(|(name, id)| (*id, name.clone())).collect();
        let mut noted = Ok(());
        for (id, slot) in std::mem::take(&mut self.changed) {
            let Some(name) = names.get(&id) else { continue };
            let mut path = self.dir.join(&**name);
            if let Some(slot) = slot {
                path.push(slot.slot().to_string());
            }
            // One that is gone, or cannot be asked, will be read by the next start.
            let Some((seconds, nanos)) = changed_at(&*self.disk, &path) else { continue };
            if (seconds, nanos) < now {
                noted = noted.and(self.push(&Item::Directory { id, slot, seconds, nanos }));
            } else {
                // Names can change again without that its time does.
                self.changed.insert((id, slot));
            }
        }
        noted
    }

    /// Goes on with the file that was written beside this one, if it was: with what came meanwhile behind it. All of it is
    /// durable then.
    fn take_over(&mut self) -> io::Result<bool> {
        let Some(beside) = self.beside.take() else { return Ok(false) };
        match beside.finish(&*self.file, self.end) {
            Ok(anew) => self.is_anew(anew).map(|()| true),
            Err(error) => {
                tracing::warn!(target: "node.storage", %error, "the catalogue cannot be written anew");
                Ok(false)
            }
        }
    }

    /// Writes the file anew, without what has no meaning any more: here and now.
    fn compact(&mut self) -> io::Result<()> {
        self.beside = None;
        let state = state_of(&*self.disk, &self.dir, &*self.file, self.end)?;
        self.is_anew(write_anew(&*self.disk, &self.dir, &state)?)
    }

    /// Goes on with a file that was written anew. Until its name is durable nothing in it is.
    fn is_anew(&mut self, anew: Anew) -> io::Result<()> {
        (self.file, self.end) = (anew.file.0, anew.size);
        self.changed.extend(anew.left_out);
        self.compact_at = due_at(anew.size);
        self.suspect = anew.named.is_err();
        anew.named?;
        self.was_synced();
        Ok(())
    }
}

/// What the file says when a start reads it.
#[derive(Debug)]
pub(crate) struct Was {
    /// Where its last good entry ends.
    pub(crate) end: u64,
    /// The buckets that were written to.
    pub(crate) touched: Vec<(u32, BucketNumber)>,
    /// Directories with other times.
    pub(crate) changed: Vec<(u32, Option<BucketNumber>)>,
}

/// Bytes at which a file is written anew that had so many when it was new.
pub(crate) const fn due_at(size: u64) -> u64 {
    size.saturating_mul(2).saturating_add(SLACK)
}

//! The owner of all buckets, on the node's thread.
//!
//! A record goes into the write buffer of its bucket. A buffer that is full, or old enough, goes as a chunk to the
//! thread of `writer`, and stays here until it is known to be in the file: readers get it from memory until then. The
//! [`Catalogue`](crate::catalogue::Catalogue) says what is in the files.
//!
//! Bounded are: the buckets that have a buffer ([`StorageOptions::open_files`]), and the bytes on their way to the writer
//! ([`StorageOptions::queue_bytes`]).

mod buckets;
mod drive;
mod options;
mod state;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overstory_model::State as Level;
use overstory_node::commit::Commits;
use overstory_node::inspect::Finding;
use tokio::sync::{Notify, mpsc};

use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::catalogue::{self, Entry, Totals};
use crate::damages::{Damage, Damages};
use crate::disk::Disk;
use crate::read::{After, AsOf, BucketView, Views};
use crate::recovery::{self, GONE, Missing, OpenError, OpenOptions, OpenReport, SHORTER, share};
use crate::writer::{Done, Handle, Job, Key, Setup};

pub use crate::writer::Unwritten;
pub use options::{PutError, StorageOptions, SyncMode};
use state::State;

/// All buckets of all channels. Belongs to the node's thread.
///
/// Dropped without [`Storage::close`] it leaves what a killed process leaves.
pub struct Storage {
    /// Dropped before the writer is waited for, which may wait for room in it.
    done: RefCell<mpsc::Receiver<Vec<Done>>>,
    state: RefCell<State>,
    wake: Notify,
    commits: Rc<Commits>,
    damages: Damages,
    last_written: Option<i64>,
}

/// Figures of the storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Bytes that the writer has not written yet, with what they cost in memory.
    pub queue_bytes: u64,
    /// Bytes that are written and not durable.
    pub unsynced_bytes: u64,
    /// Files that are open for writing.
    pub open_files: u64,
    /// Buckets that were written to since the last checkpoint.
    pub touched: u64,
    /// Checkpoints since the start.
    pub checkpoints: u64,
    /// Whether replies wait until the writer has caught up.
    pub behind: bool,
    /// How much later than promised the oldest record becomes durable that is not yet: than the time between two
    /// checkpoints, or in `always` mode than a second.
    pub late: Duration,
}

impl Storage {
    /// Opens a data directory, and makes one if there is none. Waits for the disk.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: StorageOptions,
        commits: Rc<Commits>,
    ) -> Result<(Self, OpenReport), OpenError> {
        make_dir(&*disk, dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        let last_written = disk.stat(&dir.join(catalogue::FILE)).ok().and_then(|stat| millis(stat.modified));
        let opened = recovery::open(Arc::clone(&disk), dir, &OpenOptions { boot_id: options.boot_id.clone() })?;
        let mut state = State::new(options, Arc::from(dir), opened.catalogue);
        let options = &state.options;
        let setup = Setup {
            rewrites: Arc::clone(&state.rewrites),
            always: options.sync == SyncMode::Always,
            open_files: options.open_files,
            level: options.level,
            retry: options.retry,
            dir: dir.to_owned(),
        };
        let unsynced = opened.unsynced.into_iter().filter_map(|bucket| {
            let id = state.catalogue.channel(&bucket.channel)?;
            if let Some(why) = &bucket.trouble {
                state.bad.insert(Key { channel: id, number: bucket.number }, why.clone());
            }
            Some((state.place(id), bucket.number, bucket.entry, bucket.trouble))
        });
        let (writer, done) = Handle::start(disk, opened.log, setup, unsynced.collect())
            .map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        state.writer = Some(writer);
        let (done, wake, damages) = (RefCell::new(done), Notify::new(), Damages::default());
        opened.report.missing.iter().for_each(|missing| damages.missing(missing));
        Ok((Self { state: RefCell::new(state), done, wake, commits, damages, last_written }, opened.report))
    }

    /// When the data directory was written to before the start, in milliseconds since 1970; none if it was new.
    #[must_use]
    pub const fn last_written(&self) -> Option<i64> {
        self.last_written
    }

    /// Takes a record. When the reply has to wait it was counted in [`Commits`].
    ///
    /// # Errors
    /// [`PutError`]; the record is not kept then.
    #[inline]
    pub fn put(&self, channel: &str, key: u64, value: &[u8]) -> Result<(), PutError> {
        if self.state.borrow_mut().put(&self.commits, channel, key, value)? {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Removes a channel: gone from all answers at once, from the disk when this is done. False: there was none.
    ///
    /// # Errors
    /// The directory could not be removed; the channel may be there again after the next start.
    pub async fn remove_channel(&self, channel: &str) -> Result<bool, Unwritten> {
        let place = {
            let mut state = self.state.borrow_mut();
            let Some(id) = state.catalogue.channel(channel) else { return Ok(false) };
            state.forget_channel(id)
        };
        self.damages.forget_channel(channel);
        self.ask(|answer| Job::RemoveChannel { place, answer }).await.map(|()| true)
    }

    /// Removes a bucket with what is on its way into it. False: there was none.
    ///
    /// # Errors
    /// The file could not be removed.
    pub async fn remove_bucket(&self, channel: &str, number: BucketNumber) -> Result<bool, Unwritten> {
        let (place, before) = {
            let mut state = self.state.borrow_mut();
            let Some(id) = state.catalogue.channel(channel) else { return Ok(false) };
            let Some(before) = state.forget_bucket(Key { channel: id, number }) else { return Ok(false) };
            (state.place(id), before)
        };
        self.damages.forget(channel, number);
        self.ask(|answer| Job::RemoveBucket { place, number, before, answer }).await.map(|()| true)
    }

    /// Puts a durable file with the same records in place of a bucket's, which had `expected` bytes when that was `as_of`
    /// ([`Storage::as_of`]). False: the bucket has other bytes by now; `file` is removed then.
    ///
    /// # Errors
    /// The file could not be put there; it is removed.
    pub async fn replace(
        &self,
        channel: &str,
        number: BucketNumber,
        as_of: &AsOf,
        expected: u64,
        file: PathBuf,
        entry: Entry,
    ) -> Result<bool, Unwritten> {
        let (place, expected) = {
            let mut state = self.state.borrow_mut();
            let Some(id) = state.catalogue.channel(channel) else {
                return Err(Unwritten(format!("there is no channel {channel}")));
            };
            let is_written = state.close_if_written(Key { channel: id, number });
            // No file has so many bytes: the writer removes the other one.
            (state.place(id), if is_written { expected } else { u64::MAX })
        };
        let as_of = as_of.clone();
        self.ask(|answer| Job::Replace { place, number, as_of, expected, file, entry, answer }).await
    }

    /// A view of a bucket of which everything that was put before is in the file, with what the file is; nothing of it is
    /// in memory. None: there is no such bucket.
    ///
    /// # Errors
    /// The bucket cannot be written, or the writer has ended.
    pub async fn file_view(
        &self,
        channel: &str,
        number: BucketNumber,
    ) -> Result<Option<(BucketView, Entry)>, Unwritten> {
        self.flush_good().await?;
        let mut state = self.state.borrow_mut();
        let Some(id) = state.catalogue.channel(channel) else { return Ok(None) };
        let Some(entry) = state.catalogue.entry(id, number) else { return Ok(None) };
        if let Some(why) = state.bad.get(&Key { channel: id, number }) {
            return Err(Unwritten(format!("{channel}/{number} cannot be written: {why}")));
        }
        let place = state.place(id);
        let (format, length) = (entry.format, entry.length);
        let view = BucketView {
            channel: place.name,
            dir: place.dir,
            number,
            format,
            length,
            tail: Vec::new(),
            as_of: state.as_of(),
        };
        Ok(Some((view, entry)))
    }

    /// Removes from a bucket what was in its file when [`Storage::file_view`] gave this. What came behind it stays.
    ///
    /// # Errors
    /// The file could not be written, or became another one since; everything is still there.
    pub async fn take_front(&self, view: &BucketView, front: &Entry) -> Result<(), Unwritten> {
        let (place, number, as_of, front) = {
            let mut state = self.state.borrow_mut();
            let Some(id) = state.catalogue.channel(&view.channel) else { return Ok(()) };
            (state.place(id), view.number, view.as_of.clone(), *front)
        };
        self.ask(|answer| Job::TakeFront { place, number, as_of, front, answer }).await?;
        self.damages.forget(&view.channel, number);
        Ok(())
    }

    /// Says what was found in a bucket that nobody had looked into, up to the length that the catalogue knows. Nothing
    /// happens for one that was counted meanwhile, or that records are on their way into.
    pub fn counted(&self, channel: &str, number: BucketNumber, found: &Entry) {
        let mut state = self.state.borrow_mut();
        let Some(id) = state.catalogue.channel(channel) else { return };
        let key = Key { channel: id, number };
        let uncounted = state.catalogue.entry(id, number).is_some_and(|entry| !entry.counted);
        if !uncounted || state.buckets.find(key).is_some() {
            return;
        }
        state.catalogue.counted(id, number, found);
        if let Some(entry) = state.catalogue.entry(id, number) {
            let place = state.place(id);
            state.give(Job::Counted { place, number, entry });
        }
    }

    /// Has a bucket looked at again whose file is not what the catalogue says.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn rescan(&self, channel: &str, number: BucketNumber) -> Result<(), Unwritten> {
        let (place, entry) = {
            let mut state = self.state.borrow_mut();
            let id = state.catalogue.create(channel).map_err(|error| Unwritten(error.to_string()))?;
            (state.place(id), state.catalogue.entry(id, number).unwrap_or(Entry::EMPTY))
        };
        self.ask(|answer| Job::Rescan { place, number, entry, answer }).await
    }

    /// The moment: which files the entries are of.
    #[must_use]
    pub fn as_of(&self) -> AsOf {
        self.state.borrow().as_of()
    }

    /// What is known of a bucket's file.
    #[must_use]
    pub fn entry(&self, channel: &str, number: BucketNumber) -> Option<Entry> {
        let state = self.state.borrow();
        state.catalogue.entry(state.catalogue.channel(channel)?, number)
    }

    /// The names of the channels behind one, in order; `max` at most.
    #[must_use]
    pub fn channels(&self, after: Option<&str>, max: usize) -> Vec<Box<str>> {
        self.state.borrow().catalogue.channels(after).take(max).map(|(_, name)| name.into()).collect()
    }

    /// How many channels there are.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.state.borrow().catalogue.channel_count()
    }

    /// Whether there is a channel.
    #[must_use]
    pub fn has_channel(&self, channel: &str) -> bool {
        self.state.borrow().catalogue.channel(channel).is_some()
    }

    /// What all channels hold, with what is not in the files yet.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let state = self.state.borrow();
        let pending = state.buckets.iter().map(|(_, bucket)| bucket.pending());
        with_pending(state.catalogue.totals(), pending)
    }

    /// What a channel holds, with what is not in the files yet. None: there is none.
    #[must_use]
    pub fn channel_totals(&self, channel: &str) -> Option<Totals> {
        let state = self.state.borrow();
        let id = state.catalogue.channel(channel)?;
        let of_channel = state.buckets.iter().filter(|(_, bucket)| bucket.key.channel == id);
        Some(with_pending(state.catalogue.channel_totals(id), of_channel.map(|(_, bucket)| bucket.pending())))
    }

    /// The buckets of a channel behind one, in order; `max` at most.
    #[must_use]
    pub fn bucket_numbers(&self, channel: &str, after: Option<BucketNumber>, max: usize) -> Vec<BucketNumber> {
        self.entries(channel, after, max).into_iter().map(|(number, _)| number).collect()
    }

    /// The buckets of a channel behind one, with what is in their files, in order; `max` at most.
    #[must_use]
    pub fn entries(&self, channel: &str, after: Option<BucketNumber>, max: usize) -> Vec<(BucketNumber, Entry)> {
        let state = self.state.borrow();
        let Some(id) = state.catalogue.channel(channel) else { return Vec::new() };
        let next = |after: Option<BucketNumber>| state.catalogue.next(id, KeyRange::ALL, after);
        std::iter::successors(next(after), |(number, _)| next(Some(*number))).take(max).collect()
    }

    /// The last bucket of a channel before one.
    #[must_use]
    pub fn previous(&self, channel: &str, before: Option<BucketNumber>) -> Option<(BucketNumber, Entry)> {
        let state = self.state.borrow();
        state.catalogue.previous(state.catalogue.channel(channel)?, before)
    }

    /// Takes note of damage that a reader has found: of what is missing with how many records that are, about.
    pub fn damaged(&self, damage: Damage) {
        let is_missing = damage.why == SHORTER || damage.why == GONE;
        let Some(entry) = self.entry(&damage.channel, damage.number).filter(|_| is_missing) else {
            return self.damages.report(damage);
        };
        let Damage { channel, number, offset, bytes, why } = damage;
        let records = entry.counted.then(|| share(&entry, bytes));
        self.damages.missing(&Missing { channel: (*channel).into(), number, offset, bytes, records, why });
    }

    /// The damage that was found.
    #[must_use]
    pub const fn damages(&self) -> &Damages {
        &self.damages
    }

    /// What is wrong.
    pub fn findings(&self, out: &mut Vec<Finding>) {
        let state = self.state.borrow();
        if let Some(text) = &state.sync_failed {
            let text = format!("records cannot be made durable, restart the node when the disk is well: {text}");
            out.push(Finding { check: "sync", state: Level::Critical, text });
        }
        if let Some(trouble) = &state.trouble {
            let text = format!("records are refused until writing goes on: {}", trouble.text);
            out.push(Finding { check: "write", state: Level::Critical, text });
        }
        if let Some((count, first, records)) = state.bad_buckets() {
            let more = if count > 1 { format!("; {} more buckets", count - 1) } else { String::new() };
            let text = format!("{first}{more}; {records} records wait");
            out.push(Finding { check: "bucket", state: Level::Critical, text });
        }
        if state.behind {
            let text = format!("{} MiB in {} pieces wait for being written", state.flying >> 20, state.chunks);
            out.push(Finding { check: "sync_behind", state: Level::Minor, text });
        }
        drop(state);
        self.damages.findings(out);
    }

    /// Figures of this moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let state = self.state.borrow();
        Gauges {
            queue_bytes: state.flying as u64,
            unsynced_bytes: state.figures.unsynced_bytes,
            open_files: state.figures.open_files,
            touched: state.figures.touched,
            checkpoints: state.figures.checkpoints,
            behind: state.behind,
            late: state.late(),
        }
    }
}

/// Makes the data directory, durably.
fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| disk.stat(dir).is_err()).collect();
    disk.create_dirs(dir)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        disk.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}

fn millis(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

fn with_pending(totals: Totals, pending: impl Iterator<Item = (u64, u64)>) -> Totals {
    pending.fold(totals, |totals, (records, bytes)| Totals {
        records: totals.records.saturating_add(records),
        bytes: totals.bytes.saturating_add(bytes),
        ..totals
    })
}

impl Views for Storage {
    fn views(&self, channel: &str, ranges: &Ranges, after: Option<After>, max: usize, out: &mut Vec<BucketView>) {
        let mut state = self.state.borrow_mut();
        let Some(id) = state.catalogue.channel(channel) else { return };
        let place = state.place(id);
        let end = out.len().saturating_add(max);
        let as_of = state.as_of();
        let (begin, mut cursor) = after.map_or((0, None), |(range, number)| (range, Some(number)));
        for range in ranges.iter().skip(begin) {
            while out.len() < end
                && let Some((number, entry)) = state.catalogue.next(id, range, cursor)
            {
                cursor = Some(number);
                let open = state.buckets.find(Key { channel: id, number }).and_then(|at| state.buckets.get(at));
                let tail = open.map(|bucket| bucket.tail()).unwrap_or_default();
                if entry.length == 0 && tail.is_empty() {
                    continue;
                }
                let (channel, dir) = (Arc::clone(&place.name), Arc::clone(&place.dir));
                let (format, length) = (entry.format, entry.length);
                out.push(BucketView { channel, dir, number, format, length, tail, as_of: as_of.clone() });
            }
            cursor = None;
        }
    }
}

//! Files that go, or that others take the place of.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::bad::is_closed;
use super::files::path;
use super::{Done, Job, Key, Place, Unwritten, Writer};
use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::disk::{Disk, File};
use crate::format::{Format, v2};
use crate::record;
use crate::recovery::{self, Missing, REMOVED};
use crate::walk::{self, Walker};

/// Bytes of records that are rewritten at once.
const PIECE: usize = 1 << 20;

impl Writer {
    /// Performs a job of this module; what fails is in its answer.
    pub(super) fn rewrite(&mut self, job: Job) {
        match job {
            Job::RemoveChannel { place, answer } => {
                self.forget_bad(&place, None);
                let removed = self.remove_channel(&place);
                self.out.push(Done::Answer(answer, unwritten("removing", &place.name, removed)));
            }
            Job::RemoveBucket { place, number, answer, .. } => {
                self.forget_bad(&place, Some(number));
                let removed = self.remove_bucket(&place, number);
                let what = format!("{}/{number}", place.name);
                self.out.push(Done::Answer(answer, unwritten("removing", &what, removed)));
            }
            Job::Replace { place, number, as_of, expected, file, entry, answer } => {
                let outdated = as_of.is_outdated(&place.name, number);
                let replaced = if outdated { Ok(false) } else { self.replace(&place, number, expected, &file, entry) };
                if !matches!(replaced, Ok(true)) {
                    // It may have become the bucket's file before something failed; then it is not there.
                    let _gone = self.disk.remove(&file);
                }
                let what = format!("{}/{number}", place.name);
                self.out.push(Done::AnswerBool(answer, unwritten("replacing", &what, replaced)));
            }
            Job::TakeFront { place, number, as_of, front, answer } => {
                let outdated = as_of.is_outdated(&place.name, number);
                let taken = if outdated {
                    Err(io::Error::other("it became another file"))
                } else {
                    self.take_front(&place, number, &front)
                };
                let what = format!("{}/{number}", place.name);
                self.out.push(Done::Answer(answer, unwritten("rewriting", &what, taken)));
            }
            Job::Rescan { place, number, entry, answer } => {
                let scanned = self.rescan(&place, number, entry);
                let what = format!("{}/{number}", place.name);
                self.out.push(Done::Answer(answer, unwritten("reading", &what, scanned)));
            }
            Job::Counted { place, number, entry } => {
                // A bucket that was written to meanwhile was counted then.
                if !self.states.contains_key(&Key { channel: place.id, number })
                    && let Err(error) = self.log.set(&place.name, number, &entry)
                {
                    tracing::warn!(target: "node.storage", %error, "the catalogue cannot be written");
                }
            }
            _ => {}
        }
    }

    /// The channel is gone with one rename; its files are removed by a thread of their own, and what that leaves is
    /// removed at the next start.
    fn remove_channel(&mut self, place: &Place) -> io::Result<()> {
        let keys: Vec<Key> = self.states.keys().filter(|key| key.channel == place.id).copied().collect();
        for key in keys {
            self.forget(key);
        }
        self.files.close_channel(place);
        self.will_be_other(place, None);
        let Some(aside) = self.rename_aside(place)? else {
            return self.log.removed_channel(&place.name);
        };
        self.disk.sync_dir(&self.setup.dir)?;
        let logged = self.log.removed_channel(&place.name);
        unless_full(logged.and_then(|()| self.log.sync()))?;
        let disk = Arc::clone(&self.disk);
        let remove = move || {
            if let Err(error) = remove_all(&*disk, &aside) {
                tracing::warn!(target: "node.storage", %error, "the files of a removed channel are still there");
            }
        };
        std::thread::Builder::new().name("logfiles-remove".into()).spawn(remove).map(|_| ())
    }

    /// Gives the directory of a channel a name that no channel has. None: there is no such directory.
    fn rename_aside(&self, place: &Place) -> io::Result<Option<std::path::PathBuf>> {
        for serial in 0_u64.. {
            let aside = self.setup.dir.join(format!("{REMOVED}{serial}"));
            match self.disk.stat(&aside) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return match self.disk.rename(&place.dir, &aside) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                        renamed => renamed.map(|()| Some(aside)),
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn remove_bucket(&mut self, place: &Place, number: BucketNumber) -> io::Result<()> {
        let (key, path) = (Key { channel: place.id, number }, path(place, number));
        self.forget(key);
        self.files.close(key);
        self.will_be_other(place, Some(number));
        match self.disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // It is still there, and who has removed it does not know of it any more.
                let _as_it_is = self.rescan(place, number, Entry::EMPTY);
                return Err(error);
            }
            Ok(()) => {}
        }
        self.out.push(Done::Changed { key, entry: None });
        if let Some(slot) = path.parent() {
            let synced = self.sync_up(slot);
            self.names_are_durable(synced)?;
            // Usually there are others in it.
            if self.disk.remove_dir(slot).is_ok() {
                self.files.removed_dir(slot);
            }
        }
        unless_full(self.log.removed_bucket(&place.name, number))
    }

    /// A directory that could not be made durable is not made so by a later call that succeeds: what is put into files with
    /// new names would not be there after a power cut.
    fn names_are_durable(&mut self, synced: io::Result<()>) -> io::Result<()> {
        synced.inspect_err(|error| {
            if !is_closed(error) {
                self.cannot_sync(error);
            }
        })
    }

    /// Makes durable that a name is gone from a directory, or that directory itself.
    fn sync_up(&self, dir: &Path) -> io::Result<()> {
        for dir in dir.ancestors() {
            match self.disk.sync_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir != self.setup.dir => {}
                synced => return synced,
            }
        }
        Ok(())
    }

    /// What is known of a bucket: by the writer, or else by the file's length.
    fn length(&self, place: &Place, number: BucketNumber) -> io::Result<u64> {
        match self.states.get(&Key { channel: place.id, number }) {
            Some(state) => Ok(state.entry.length),
            None => self.disk.stat(&path(place, number)).map(|stat| stat.length),
        }
    }

    fn replace(
        &mut self,
        place: &Place,
        number: BucketNumber,
        expected: u64,
        file: &Path,
        entry: Entry,
    ) -> io::Result<bool> {
        match self.length(place, number) {
            Ok(length) if length == expected => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound && expected == 0 => {
                self.disk.create_dirs(path(place, number).parent().unwrap_or(&self.setup.dir))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.put_in_place(place, number, file, entry)?;
        Ok(true)
    }

    /// Renames a durable file over a bucket's.
    fn put_in_place(&mut self, place: &Place, number: BucketNumber, file: &Path, entry: Entry) -> io::Result<()> {
        let (key, path) = (Key { channel: place.id, number }, path(place, number));
        self.log.replacing(&place.name, number)?;
        self.will_be_other(place, Some(number));
        self.disk.rename(file, &path)?;
        self.files.close(key);
        self.files.renamed(place, number);
        self.is_now(key, place, number, Some(entry));
        // At once: until then readers cannot know what the file is.
        self.tell_out();
        let synced = self.disk.sync_dir(path.parent().unwrap_or(&self.setup.dir));
        self.names_are_durable(synced)?;
        self.log.replaced(&place.name, number, &entry)
    }

    /// Takes note that a bucket is another file now, or none.
    fn is_now(&mut self, key: Key, place: &Place, number: BucketNumber, entry: Option<Entry>) {
        self.forget(key);
        // The node may have opened it with what it knew before, and releases it if not.
        let mut state = self.new_state(place.clone(), number, entry.unwrap_or(Entry::EMPTY));
        state.held = true;
        self.states.insert(key, state);
        self.out.push(Done::Changed { key, entry });
    }

    fn take_front(&mut self, place: &Place, number: BucketNumber, front: &Entry) -> io::Result<()> {
        let (key, path) = (Key { channel: place.id, number }, path(place, number));
        let length = self.length(place, number)?;
        if length <= front.length {
            self.remove_bucket(place, number)?;
            self.is_now(key, place, number, None);
            return self.log.sync();
        }
        let format = front.format.ok_or(io::ErrorKind::InvalidInput)?;
        // A name of its own: under the usual one the keeper may be writing to a file that must not become the bucket's.
        let temporary = path.with_extension("rest.new");
        let entry = Rest { disk: &*self.disk, number, format, front: front.length, length, level: self.setup.level }
            .write(&path, &temporary);
        let placed = entry.and_then(|entry| self.put_in_place(place, number, &temporary, entry));
        if placed.is_err() {
            let _gone = self.disk.remove(&temporary);
        }
        placed
    }

    fn rescan(&mut self, place: &Place, number: BucketNumber, entry: Entry) -> io::Result<()> {
        let key = Key { channel: place.id, number };
        // What was written to was looked at then, and what is being written is not whole.
        if self.states.contains_key(&key) {
            return Ok(());
        }
        self.will_be_other(place, Some(number));
        let entry = match recovery::settle(&*self.disk, &self.setup.dir, &place.name, number) {
            Ok(settled) => {
                let bucket = (&*place.name, number);
                let missing = Missing::of_settled(&*self.disk, &self.setup.dir, bucket, &entry, &settled);
                self.out.extend(missing.map(Done::Missing));
                Some(settled.entry).filter(|settled| *settled != entry)
            }
            // A name that is gone and not durably so would be there again after a power cut.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.out.extend(Missing::of_gone((&place.name, number), &entry).map(Done::Missing));
                return self.remove_bucket(place, number);
            }
            Err(error) => return Err(error),
        };
        if let Some(entry) = entry {
            self.log.set(&place.name, number, &entry)?;
            self.out.push(Done::Changed { key, entry: Some(entry) });
        }
        Ok(())
    }
}

/// The records of a file behind a place, for a file of their own.
struct Rest<'a> {
    disk: &'a dyn Disk,
    number: BucketNumber,
    format: Format,
    front: u64,
    length: u64,
    level: i32,
}

impl Rest<'_> {
    fn write(&self, from: &Path, to: &Path) -> io::Result<Entry> {
        let (source, target) = (self.disk.open(from)?, self.disk.create(to)?);
        target.set_len(0)?;
        let mut encoder = v2::Encoder::new(self.level)?;
        let mut end = 0;
        let mut out = self.format.header().to_vec();
        let mut records = Vec::new();
        let mut failed = None;
        let mut piece = |records: &mut Vec<u8>| -> io::Result<()> {
            match self.format {
                Format::V2 => {
                    encoder.encode(end + out.len() as u64, records, &mut out);
                }
                Format::Plain | Format::V1 => out.extend_from_slice(records),
            }
            records.clear();
            write(&*target, &mut out, &mut end)
        };
        let mut walker = Walker::new(self.format, self.number, self.length).starting_at(self.front);
        let summary = walk::read_file(&*source, &mut walker, &mut |key, value: &[u8]| {
            record::put(self.format.framing(), key, value, &mut records);
            if records.len() >= PIECE
                && let Err(error) = piece(&mut records)
            {
                failed.get_or_insert(error);
            }
        })?;
        piece(&mut records)?;
        if let Some(error) = failed {
            return Err(error);
        }
        if summary.damage_count > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
        }
        target.sync()?;
        let (records, bytes) = (summary.records, summary.bytes);
        Ok(Entry { format: Some(self.format), counted: true, length: target.len()?, records, bytes })
    }
}

fn write(file: &dyn File, bytes: &mut Vec<u8>, end: &mut u64) -> io::Result<()> {
    file.write_all_at(bytes, *end)?;
    *end += bytes.len() as u64;
    bytes.clear();
    Ok(())
}

/// A removal makes the room that the log has none of: the log keeps what it could not write and tries again, and until
/// then a start finds that the file is not there.
fn unless_full(logged: io::Result<()>) -> io::Result<()> {
    match logged {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        logged => logged,
    }
}

/// Removes a directory with all that is in it.
fn remove_all(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for named in disk.list(dir)? {
        let path = dir.join(&named.name);
        if named.is_dir { remove_all(disk, &path)? } else { disk.remove(&path)? }
    }
    disk.remove_dir(dir)
}

fn unwritten<T>(doing: &str, what: &str, result: io::Result<T>) -> Result<T, Unwritten> {
    result.map_err(|error| {
        tracing::error!(target: "node.storage", doing, what, %error, "files cannot be changed");
        Unwritten(format!("{doing} {what}: {error}"))
    })
}

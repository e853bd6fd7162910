//! The catalogue's file, written anew: at once, or beside the one that is written to meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::bucket::BucketNumber;
use crate::disk::{Disk, File};

use super::entries::{self, Item};
use super::log::FILE;
use super::state::{self, End, Modified, NEVER, State, modified};

pub(super) const TEMPORARY: &str = ".catalogue.tmp";

/// Bytes that are written or copied at once.
const PIECE: usize = 1 << 20;

/// A file that was written anew.
#[derive(Debug)]
pub(super) struct Anew {
    pub(super) file: OpenFile,
    pub(super) size: u64,
    /// Directories that were changed in the same tick of the clock, and may be again.
    pub(super) left_out: Vec<(u32, Option<BucketNumber>)>,
    /// Whether the name is durable.
    pub(super) named: io::Result<()>,
}

/// An open file.
pub(super) struct OpenFile(pub(super) Arc<dyn File>);

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("file")
    }
}

/// The time of a file or directory, by the clock of the file system.
pub(super) fn changed_at(disk: &dyn Disk, path: &Path) -> Option<Modified> {
    disk.stat(path).ok().and_then(|stat| modified(stat.modified))
}

/// What a file says that this process has written up to `end`, without slots that are gone.
pub(super) fn state_of(disk: &dyn Disk, dir: &Path, file: &dyn File, end: u64) -> io::Result<State> {
    let (mut state, read, how) = state::load_to(file, end)?;
    if how != End::Good || read != end {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the catalogue's file is not as it was written"));
    }
    state.drop_slots(|channel, slot| changed_at(disk, &dir.join(channel).join(slot)).is_none());
    Ok(state)
}

/// Writes a file that says the same, durably, in place of the one that is there. After an error that one still is.
pub(super) fn write_anew(disk: &dyn Disk, dir: &Path, state: &State) -> io::Result<Anew> {
    let written = write_temporary(disk, dir, state, &AtomicBool::new(false)).and_then(|anew| name(disk, dir, anew));
    without_rest(disk, dir, written)
}

/// The room of what could not be done is given back to those who need it more.
fn without_rest<T>(disk: &dyn Disk, dir: &Path, written: io::Result<T>) -> io::Result<T> {
    if written.is_err() {
        let _ = disk.remove(&dir.join(TEMPORARY));
    }
    written
}

fn name(disk: &dyn Disk, dir: &Path, mut anew: Anew) -> io::Result<Anew> {
    disk.rename(&dir.join(TEMPORARY), &dir.join(FILE))?;
    anew.named = disk.sync_dir(dir);
    Ok(anew)
}

fn write_temporary(disk: &dyn Disk, dir: &Path, state: &State, ends: &AtomicBool) -> io::Result<Anew> {
    let temporary = dir.join(TEMPORARY);
    let file = disk.create(&temporary)?;
    file.set_len(0)?;
    let head = entries::head();
    file.write_all_at(&head, 0)?;
    let now = changed_at(disk, &temporary);
    let (mut end, mut buffer, mut left_out) = (head.len() as u64, Vec::new(), Vec::new());
    state.items(&mut |item| {
        match *item {
            Item::Directory { id, slot, seconds, nanos }
                if (seconds, nanos) != NEVER && Some((seconds, nanos)) >= now =>
            {
                left_out.push((id, slot));
            }
            _ => item.write(&mut buffer),
        }
        if buffer.len() >= PIECE {
            if ends.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            file.write_all_at(&buffer, end)?;
            end += buffer.len() as u64;
            buffer.clear();
        }
        Ok(())
    })?;
    file.write_all_at(&buffer, end)?;
    end += buffer.len() as u64;
    file.sync()?;
    Ok(Anew { file: OpenFile(file), size: end, left_out, named: Ok(()) })
}

/// A file that is being written by a thread of its own. Dropped, it is given up.
pub(super) struct Beside {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    thread: Option<JoinHandle<io::Result<Anew>>>,
    /// Bytes of the old file that it says.
    from: u64,
    ends: Arc<AtomicBool>,
}

impl Beside {
    /// Begins to write what the file says up to `end`, which is all that was written. None: there can be no thread.
    pub(super) fn begin(disk: &Arc<dyn Disk>, dir: &Path, file: &Arc<dyn File>, end: u64) -> Option<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let (disk, dir, file) = (Arc::clone(disk), dir.to_owned(), Arc::clone(file));
        let (on, within, told) = (Arc::clone(&disk), dir.clone(), Arc::clone(&ends));
        let write = move || {
            let state = state_of(&*on, &within, &*file, end)?;
            without_rest(&*on, &within, write_temporary(&*on, &within, &state, &told))
        };
        let thread = std::thread::Builder::new().name("logfiles-catalogue".into()).spawn(write).ok()?;
        Some(Self { disk, dir, thread: Some(thread), from: end, ends })
    }

    pub(super) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Puts behind it what came into the old file meanwhile, up to `end`, and gives it the name. After an error the old
    /// file still has that.
    pub(super) fn finish(mut self, old: &dyn File, end: u64) -> io::Result<Anew> {
        let mut anew = self.join()?;
        let named = append(old, self.from, end, &mut anew).and_then(|()| name(&*self.disk, &self.dir, anew));
        without_rest(&*self.disk, &self.dir, named)
    }

    fn join(&mut self) -> io::Result<Anew> {
        let thread = self.thread.take().ok_or(io::ErrorKind::NotFound)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if self.join().is_ok() {
            let _ = self.disk.remove(&self.dir.join(TEMPORARY));
        }
    }
}

/// Copies entries behind a new file, durably.
fn append(old: &dyn File, from: u64, end: u64, anew: &mut Anew) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = from;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let read = buffer.get_mut(..wanted).map_or(Ok(0), |room| old.read_at(room, at))?;
        let part = buffer.get(..read).filter(|part| !part.is_empty());
        let Some(part) = part else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        anew.file.0.write_all_at(part, anew.size)?;
        anew.size += read as u64;
        at += read as u64;
    }
    anew.file.0.sync()
}

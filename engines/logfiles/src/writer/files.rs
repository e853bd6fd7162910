//! Open files, a bounded number of them, and the directories whose names are not durable.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Key, Place};
use crate::bucket::BucketNumber;
use crate::disk::{Disk, File};

/// Directories that are remembered as durable.
const REMEMBERED: usize = 16 << 10;

pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    limit: usize,
    open: HashMap<Key, Open>,
    clock: u64,
    /// Directories in which names have changed, or whose names a process before may have left undurable.
    pending: BTreeSet<PathBuf>,
    /// Directories whose names were made durable by this process.
    durable: HashSet<PathBuf>,
}

struct Open {
    file: Arc<dyn File>,
    used: u64,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, limit: usize) -> Self {
        let (open, pending, durable) = (HashMap::new(), BTreeSet::new(), HashSet::new());
        Self { disk, dir, limit: limit.max(1), open, clock: 0, pending, durable }
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// The file of a bucket, made with its directories if there is none, and the length that it had when it was opened.
    pub(super) fn open_for_writing(
        &mut self,
        key: Key,
        place: &Place,
        number: BucketNumber,
    ) -> io::Result<(Arc<dyn File>, u64)> {
        self.clock += 1;
        if let Some(open) = self.open.get_mut(&key) {
            open.used = self.clock;
            return Ok((Arc::clone(&open.file), open.file.len()?));
        }
        let path = path(place, number);
        self.own(place, number)?;
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create_dirs(path.parent().unwrap_or(&self.dir))?;
                self.durable.remove(&*place.dir);
                self.durable.remove(&self.dir);
                self.disk.create(&path)?
            }
            file => file?,
        };
        let length = file.len()?;
        self.seen(place, number, length == 0);
        if self.open.len() >= self.limit
            && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used).map(|(key, _)| *key)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(key, Open { file: Arc::clone(&file), used: self.clock });
        Ok((file, length))
    }

    /// A directory that is a symbolic link leads to files that are somebody else's.
    fn own(&self, place: &Place, number: BucketNumber) -> io::Result<()> {
        for dir in [&*place.dir, &place.dir.join(number.slot().to_string())] {
            match self.disk.stat(dir) {
                Ok(stat) if !stat.is_dir => {
                    return Err(io::Error::new(
                        io::ErrorKind::NotADirectory,
                        "its directory is none, or a symbolic link",
                    ));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The file of a bucket if it is open.
    pub(super) fn get(&self, key: Key) -> Option<Arc<dyn File>> {
        self.open.get(&key).map(|open| Arc::clone(&open.file))
    }

    pub(super) fn close(&mut self, key: Key) {
        self.open.remove(&key);
    }

    pub(super) fn close_channel(&mut self, place: &Place) {
        self.open.retain(|key, _| key.channel != place.id);
        self.pending.retain(|dir| !dir.starts_with(&place.dir));
        self.durable.retain(|dir| !dir.starts_with(&place.dir));
    }

    /// The name of a bucket's file has changed.
    pub(super) fn renamed(&mut self, place: &Place, number: BucketNumber) {
        self.seen(place, number, true);
    }

    /// A directory is gone.
    pub(super) fn removed_dir(&mut self, dir: &Path) {
        self.pending.remove(dir);
        self.durable.remove(dir);
        if let Some(parent) = dir.parent() {
            self.pending.insert(parent.to_owned());
        }
    }

    fn seen(&mut self, place: &Place, number: BucketNumber, is_new: bool) {
        let slot = place.dir.join(number.slot().to_string());
        if is_new {
            self.durable.remove(&slot);
        }
        // A name that was there already may have been made by a process that was killed before it was durable.
        for dir in [slot.as_path(), &place.dir, &self.dir] {
            if !self.durable.contains(dir) {
                self.pending.insert(dir.to_owned());
            }
        }
    }

    /// The directories to be made durable; [`Self::are_durable`] follows.
    pub(super) fn take_pending(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.pending).into_iter().collect()
    }

    pub(super) fn are_durable(&mut self, dirs: Vec<PathBuf>) {
        if self.durable.len() + dirs.len() > REMEMBERED {
            self.durable.clear();
        }
        // One in which names have changed again meanwhile is not durable.
        self.durable.extend(dirs.into_iter().filter(|dir| !self.pending.contains(dir)));
    }
}

/// The file of a bucket.
pub(super) fn path(place: &Place, number: BucketNumber) -> PathBuf {
    place.dir.join(number.to_string())
}

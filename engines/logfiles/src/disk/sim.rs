//! A disk in memory for tests: it forgets what was not synced, fills up, fails and loses power.
//!
//! Content of a file is durable after [`File::sync`](super::File::sync), names of a directory after
//! [`Disk::sync_dir`]: strictly so, as POSIX has it and no more. A rename is whole or has not happened. What a sync that
//! fails should have made durable is forgotten by a later one: the system takes it for written.

mod crash;
mod world;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File, Named, Stat};
pub use crash::Crash;
use world::{Ino, World};

/// A kind of call, to choose which ones fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Disk::open`].
    Open,
    /// [`Disk::create`].
    Create,
    /// [`Disk::create_dirs`].
    CreateDirs,
    /// [`Disk::sync_dir`] and [`Disk::sync_all`].
    SyncDir,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`] and [`Disk::remove_dir`].
    Remove,
    /// [`Disk::list`] and [`Disk::stat`].
    List,
    /// [`File::read_at`](super::File::read_at).
    Read,
    /// [`File::write_all_at`](super::File::write_all_at).
    Write,
    /// [`File::set_len`](super::File::set_len).
    SetLen,
    /// [`File::sync`](super::File::sync).
    Sync,
}

impl Call {
    /// Whether it changes what is on the disk, or how durable that is.
    #[must_use]
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Read)
    }
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// An empty disk without a limit, with the directory `/` alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much may still be written; `None` for any amount. Removing a file or cutting it gives its bytes back.
    pub fn set_free(&self, bytes: Option<u64>) {
        self.world().free = bytes;
    }

    /// Lets calls of one kind fail: `after` more of them succeed, the next `times` do not.
    pub fn fail(&self, call: Call, after: u64, times: u64, kind: io::ErrorKind) {
        self.world().faults.push(world::Fault { call, after, times, kind });
    }

    /// Lets all calls of one kind on one file fail, until [`Self::heal`]: [`Call::Open`] (also of [`Disk::create`]),
    /// [`Call::Write`], [`Call::List`] ([`Disk::list`] alone).
    pub fn fail_file(&self, path: &Path, call: Call, kind: io::ErrorKind) {
        self.world().bad_files.push((path.to_owned(), call, kind));
    }

    /// Lets times of files and directories change every `calls` calls only.
    pub fn set_clock(&self, calls: u64) {
        self.world().tick_calls = calls;
    }

    /// Takes back all failures that were asked for.
    pub fn heal(&self) {
        let mut world = self.world();
        world.faults.clear();
        world.bad_files.clear();
    }

    /// Cuts the power in the next call but `after` that changes something: a write happens in part, and from then on
    /// every call fails. What the disk holds then is asked from [`Self::crash`] or [`Self::kill`].
    pub fn cut_after(&self, after: u64) {
        self.world().power = Some(after);
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.world().power == Some(0)
    }

    /// Calls so far that change something.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.world().changes
    }

    /// The disk as it is after a power cut at this moment; this one goes on as if nothing had happened.
    #[must_use]
    pub fn crash(&self, crash: Crash, seed: u64) -> Self {
        let mut world = self.world().clone();
        world.crash(crash, seed);
        Self(Arc::new(Mutex::new(world)))
    }

    /// The disk as it is after the process ended at this moment: nothing is forgotten, but what was not durable is not
    /// so yet.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut world = self.world().clone();
        world.rest();
        Self(Arc::new(Mutex::new(world)))
    }

    /// All files with their content, in the order of their paths.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.world().files()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        world.call(Call::Open)?;
        world.call_file(path, Call::Open)?;
        let ino = world.find(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), ino: world.is_file(ino)? }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        // One that is there is only opened.
        let call = if world.find(path).is_ok() { Call::Open } else { Call::Create };
        world.call(call)?;
        world.call_file(path, Call::Open)?;
        Ok(Arc::new(SimFile { disk: self.clone(), ino: world.create(path)? }))
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let call = if world.find(path).is_ok() { Call::Open } else { Call::CreateDirs };
        world.call(call)?;
        world.create_dirs(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call(Call::SyncDir)?;
        world.sync_dir(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call(Call::SyncDir)?;
        world.find(path)?;
        world.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call(Call::Rename)?;
        world.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call(Call::Remove)?;
        world.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call(Call::Remove)?;
        world.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Named>> {
        let mut world = self.world();
        world.call(Call::List)?;
        world.call_file(path, Call::List)?;
        world.list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut world = self.world();
        world.call(Call::List)?;
        world.stat(path)
    }
}

struct SimFile {
    disk: SimDisk,
    ino: Ino,
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        world.call(Call::Read)?;
        world.read(self.ino, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let called = world.call(Call::Write).and_then(|()| world.call_ino(self.ino, Call::Write));
        match called {
            Ok(()) => world.write(self.ino, bytes, offset),
            Err(error) => {
                // Any part of it may have been written.
                let part = if world.died_now() { bytes.len() / 2 } else { 0 };
                world.write(self.ino, bytes.get(..part).unwrap_or_default(), offset)?;
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.world().len(self.ino)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.call(Call::SetLen)?;
        world.set_len(self.ino, length)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        if let Err(error) = world.call(Call::Sync) {
            if world.power != Some(0) {
                world.forget(self.ino);
            }
            return Err(error);
        }
        world.sync(self.ino)
    }
}

#[cfg(test)]
mod tests;

//! A seam that counts, fails on demand, and knows what was durable.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};

use crate::journal::files::{Files, System};

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) syncs: usize,
    pub(super) writes: usize,
    pub(super) fail_sync: bool,
    pub(super) fail_allocate: bool,
    /// Larger files find no room.
    pub(super) largest: Option<u64>,
    pub(super) allocations: usize,
    /// Syncs wait while this is set.
    pub(super) hold: bool,
    /// What each segment held when it was last made durable.
    pub(super) durable: HashMap<u64, Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Watched {
    pub(super) seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Watched {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        let result = act(&mut self.seen.0.lock().unwrap());
        self.seen.1.notify_all();
        result
    }
}

impl Files for Watched {
    fn write(&self, file: &File, serial: u64, bytes: &[u8], at: u64) -> io::Result<()> {
        self.with(|seen| seen.writes += 1);
        System.write(file, serial, bytes, at)
    }

    fn sync(&self, file: &File, serial: u64) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap()];
        file.read_exact_at(&mut bytes, 0)?;
        let mut seen = self.seen.0.lock().unwrap();
        seen.syncs += 1;
        while seen.hold {
            seen = self.seen.1.wait(seen).unwrap();
        }
        if seen.fail_sync {
            return Err(io::Error::other("the disk is gone"));
        }
        seen.durable.insert(serial, bytes);
        Ok(())
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let refuse = |seen: &mut Seen| {
            seen.allocations += 1;
            seen.fail_allocate || seen.largest.is_some_and(|largest| bytes > largest)
        };
        if self.with(refuse) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        System.allocate(file, bytes)
    }

    fn share(&self) -> Box<dyn Files> {
        Box::new(self.clone())
    }
}

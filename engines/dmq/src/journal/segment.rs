//! Segment files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::format::{ENTRY_HEAD, Head, SECOND_HEAD, SHORT_ENTRY, Salt, VERSION};
use super::index::Freed;

/// A segment with entries.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) serial: u64,
    pub(super) file: Arc<File>,
    pub(super) salt: Salt,
    /// Bytes that the file takes.
    pub(super) size: u64,
    /// Needed records.
    pub(super) records: u64,
    /// Bytes of their entries, and of the names.
    pub(super) bytes: u64,
    /// Queues whose name is told here and nowhere behind.
    pub(super) definitions: u64,
    /// Nothing in it is needed once the journal is durable up to here.
    pub(super) free_after: Option<u64>,
    /// Where its last entry ends, once nothing is appended any more.
    pub(super) end: u64,
    /// A copy of it is kept.
    pub(super) damaged: bool,
}

/// A segment that waits to be used.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) serial: u64,
    pub(super) file: File,
    pub(super) salt: Salt,
    pub(super) size: u64,
}

impl Segment {
    pub(super) fn new(fresh: Fresh) -> Self {
        let Fresh { serial, file, salt, size } = fresh;
        let file = Arc::new(file);
        Self {
            serial,
            file,
            salt,
            size,
            records: 0,
            bytes: 0,
            definitions: 0,
            free_after: None,
            end: 0,
            damaged: false,
        }
    }

    pub(super) fn is_needed(&self) -> bool {
        self.records != 0 || self.definitions != 0
    }

    pub(super) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes + records * ENTRY_HEAD as u64;
    }

    /// Counts that the name of a queue is told here, or was and is told elsewhere.
    pub(super) fn define(&mut self, name: usize, is_here: bool) {
        let bytes = SHORT_ENTRY + name as u64;
        if is_here {
            self.definitions += 1;
            self.bytes += bytes;
        } else {
            self.definitions = self.definitions.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    pub(super) fn give_back(&mut self, freed: Freed) {
        self.records = self.records.saturating_sub(freed.records);
        self.bytes = self.bytes.saturating_sub(freed.bytes + freed.records * ENTRY_HEAD as u64);
    }
}

pub(super) fn path(dir: &Path, serial: u64) -> PathBuf {
    dir.join(format!("{serial:08}.journal"))
}

/// The serial in a segment's name.
pub(super) fn serial_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".journal")?;
    let plain = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let serial: u64 = if plain { digits.parse().ok()? } else { return None };
    (serial != 0 && serial < u64::MAX / 2 && format!("{serial:08}") == digits).then_some(serial)
}

/// Makes a segment with its room; file and name are durable before anything is written to it.
pub(super) fn make_durable(dir: &Path, serial: u64, size: u64, files: &dyn Files, names: &File) -> io::Result<Fresh> {
    let fresh = make(dir, serial, size, files)?;
    match files.sync(&fresh.file, serial).and_then(|()| names.sync_all()) {
        Ok(()) => Ok(fresh),
        Err(error) => {
            let _gone = fs::remove_file(path(dir, serial));
            Err(error)
        }
    }
}

fn make(dir: &Path, serial: u64, size: u64, files: &dyn Files) -> io::Result<Fresh> {
    let path = path(dir, serial);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let salt = Salt::new(serial);
    let head = Head { version: VERSION, serial, salt }.encode();
    let filled = files
        .allocate(&file, size)
        .and_then(|()| files.write(&file, serial, &head, 0))
        .and_then(|()| files.write(&file, serial, &head, SECOND_HEAD));
    if let Err(error) = filled {
        let _gone = fs::remove_file(&path);
        return Err(error);
    }
    Ok(Fresh { serial, file, salt, size })
}

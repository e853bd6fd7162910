//! Goes through all records of a file, in pieces.

use std::io;
use std::sync::Arc;

use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::disk::File;
use crate::format::Format;
use crate::recovery::format;
use crate::walk::{Damage, MAX_DAMAGES, Step, Walker, Window};

use super::worker::Pieces;

/// Bytes that are read at once.
const READ: usize = 256 << 10;
/// Bytes that are read until somebody else has a turn.
const PIECE: u64 = 8 << 20;

/// The walk through a file and what it has found.
pub(super) struct Count {
    file: Arc<dyn File>,
    walker: Walker,
    window: Window,
    length: u64,
    records: u64,
    bytes: u64,
    is_empty: bool,
    crc: crc32fast::Hasher,
    pub(super) damages: Vec<Damage>,
}

impl Count {
    /// Begins with the first `length` bytes of a file.
    pub(super) fn new(file: Arc<dyn File>, number: BucketNumber, length: u64) -> io::Result<Self> {
        let format = format(&*file, length)?;
        Ok(Self {
            walker: Walker::new(format.unwrap_or(Format::V1), number, length),
            file,
            window: Window::new(READ),
            length,
            records: 0,
            bytes: 0,
            is_empty: format.is_none(),
            crc: crc32fast::Hasher::new(),
            damages: Vec::new(),
        })
    }

    /// Walks on for some bytes and shows the records. The visitor says false to get a record again. True: that was all.
    pub(super) fn walk(&mut self, visit: &mut impl FnMut(u64, &[u8]) -> bool) -> io::Result<bool> {
        if self.is_empty {
            return Ok(true);
        }
        let stop = self.walker.offset().saturating_add(PIECE);
        let mut need = 0;
        while self.walker.offset() < stop {
            self.window.fill(&*self.file, self.walker.offset(), need, self.length)?;
            need = 0;
            let step = self.walker.next(self.window.bytes(), &mut |key, value| {
                if !visit(key, value) {
                    return false;
                }
                self.records += 1;
                self.bytes += value.len() as u64;
                self.crc.update(&key.to_le_bytes());
                self.crc.update(&(value.len() as u64).to_le_bytes());
                self.crc.update(value);
                true
            });
            match step {
                Step::Need(bytes) => need = bytes,
                Step::Damaged(damage) if self.damages.len() < MAX_DAMAGES => self.damages.push(damage),
                Step::Damaged(_) => {}
                Step::Paused => return Ok(false),
                Step::End => return Ok(true),
            }
        }
        Ok(false)
    }

    /// What the file holds.
    pub(super) fn entry(&self) -> Entry {
        let format = if self.is_empty { None } else { Some(self.walker.format()) };
        Entry { format, counted: true, length: self.length, records: self.records, bytes: self.bytes }
    }

    /// Something that is the same for the same records in the same order.
    pub(super) fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Whether damage reaches to the end: the file may end with a part of a record.
    pub(super) fn ends_damaged(&self) -> bool {
        self.is_empty && self.length > 0
            || self.damages.last().is_some_and(|last| last.offset.saturating_add(last.bytes) >= self.length)
    }
}

impl Pieces for Count {
    fn piece(&mut self) -> io::Result<bool> {
        self.walk(&mut |_, _| true)
    }
}

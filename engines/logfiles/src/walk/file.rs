//! Walks through whole files, for those who wait for the disk themselves.

use std::io;

use super::{Damage, Step, Walker};
use crate::disk::File;

/// The most damages of a file that are told one by one.
pub const MAX_DAMAGES: usize = 1000;

/// How much is read at once, as a rule.
const READ: usize = 256 << 10;

/// A part of a file in memory. It grows to what is needed and is otherwise small.
pub struct Window {
    buffer: Vec<u8>,
    /// The valid bytes of the buffer.
    start: usize,
    end: usize,
    /// Where they are in the file.
    offset: u64,
    /// How much is read at once.
    read: usize,
}

impl Window {
    /// A window that reads as many bytes at once.
    #[must_use]
    pub const fn new(read: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, offset: 0, read }
    }

    /// Lets it begin at an offset, with at least `need` bytes, and as many more as it holds; never those behind `length`.
    ///
    /// # Errors
    /// The file's; [`io::ErrorKind::UnexpectedEof`] if the file is shorter.
    pub fn fill(&mut self, file: &dyn File, offset: u64, need: usize, length: u64) -> io::Result<()> {
        let passed = offset.checked_sub(self.offset).and_then(|passed| usize::try_from(passed).ok());
        match passed.filter(|passed| *passed <= self.end - self.start) {
            Some(passed) => self.start += passed,
            None => (self.start, self.end) = (0, 0),
        }
        self.offset = offset;
        if self.end - self.start >= need {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // What is moved to the front is at most as much again as what is read.
        let room = if need <= self.read { self.read } else { need.saturating_mul(2) };
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let room = self.buffer.len().min(left);
        while self.end < need {
            let at = offset + self.end as u64;
            let read = self.buffer.get_mut(self.end..room).map_or(Ok(0), |buffer| file.read_at(buffer, at))?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
            }
            self.end += read;
        }
        Ok(())
    }

    /// The bytes of the file from the offset on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

/// What is in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The records.
    pub records: u64,
    /// The bytes of their values.
    pub bytes: u64,
    /// The first [`MAX_DAMAGES`] damages.
    pub damages: Vec<Damage>,
    /// All damages.
    pub damage_count: u64,
    /// The bytes of all damages.
    pub damaged_bytes: u64,
    /// The end of the last record in front of the first damage: the whole length if there is none.
    pub good_len: u64,
    /// The length.
    pub end: u64,
}

/// Walks through a file to its end and shows all records to the visitor. Takes the same memory for any file.
///
/// # Errors
/// The file's. Damage is none.
pub fn read_file(file: &dyn File, walker: &mut Walker, visit: &mut impl FnMut(u64, &[u8])) -> io::Result<Summary> {
    let mut window = Window::new(READ);
    let end = walker.end;
    let mut summary = Summary { good_len: end, end, ..Summary::default() };
    loop {
        window.fill(file, walker.offset(), 0, end)?;
        let step = walker.next(window.bytes(), &mut |key, value| {
            summary.records += 1;
            summary.bytes += value.len() as u64;
            visit(key, value);
            true
        });
        match step {
            Step::Need(bytes) => window.fill(file, walker.offset(), bytes, end)?,
            Step::Damaged(damage) => {
                if summary.damage_count == 0 {
                    summary.good_len = damage.offset;
                }
                summary.damage_count += 1;
                summary.damaged_bytes += damage.bytes;
                if summary.damages.len() < MAX_DAMAGES {
                    summary.damages.push(damage);
                }
            }
            // The visitor takes all.
            Step::Paused => {}
            Step::End => return Ok(summary),
        }
    }
}

//! Goes through the entries of one segment with one buffer, whatever their size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::journal::format::{self, ENTRY_HEAD, Entry, FIRST_ENTRY, Kind, Salt};

/// What is read at once.
const WINDOW: usize = 1024 * 1024;
/// Longest name of a queue that is read.
const LONGEST_NAME: u32 = 64 * 1024;
/// Larger numbers are damage: a journal that takes a million records per second gets there in 100,000 years.
pub(super) const LARGEST: u64 = 1 << 62;

/// What was found in a segment.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Intact entries.
    pub(super) entries: u64,
    /// Where the last of them ends.
    pub(super) end: u64,
    /// What holds no intact entry, from and to.
    pub(super) holes: Vec<(u64, u64)>,
    /// Whether it was closed.
    pub(super) ended: bool,
}

/// The buffer.
pub(super) struct Scan {
    bytes: Vec<u8>,
    /// What of it was read, and from where.
    have: usize,
    from: u64,
}

impl Scan {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; WINDOW], have: 0, from: 0 }
    }

    /// Gives each intact entry of a segment to `take`, with its offset and body; records come without.
    pub(super) fn segment(
        &mut self,
        file: &File,
        size: u64,
        salt: Salt,
        take: &mut dyn FnMut(&Entry, u64, &[u8]),
    ) -> io::Result<Scanned> {
        self.have = 0;
        let mut scanned = Scanned { end: FIRST_ENTRY, ..Scanned::default() };
        let mut at = FIRST_ENTRY;
        while at < size {
            let Some(entry) = self.entry(file, size, at, salt)? else {
                match self.next_entry(file, size, at, salt)? {
                    Some(next) => {
                        scanned.holes.push((at, next));
                        at = next;
                        continue;
                    }
                    None => {
                        let rest = self.last_byte(file, size, at)?;
                        if rest > at {
                            scanned.holes.push((at, rest));
                        }
                        break;
                    }
                }
            };
            let body = if entry.kind == Kind::Record { &[][..] } else { self.body(at, &entry) };
            take(&entry, at, body);
            scanned.entries += 1;
            scanned.end = entry.end(at);
            if entry.kind == Kind::End {
                scanned.ended = true;
                break;
            }
            at = scanned.end;
        }
        Ok(scanned)
    }

    /// The intact entry at an offset, if there is one.
    #[inline]
    fn entry(&mut self, file: &File, size: u64, at: u64, salt: Salt) -> io::Result<Option<Entry>> {
        let Some(entry) = Entry::decode(self.get(file, at, ENTRY_HEAD)?, salt.marker) else { return Ok(None) };
        let is_short = matches!(entry.kind, Kind::Record | Kind::Void) || entry.length <= LONGEST_NAME;
        if entry.end(at) > size || entry.number > LARGEST || !is_short {
            return Ok(None);
        }
        let length = ENTRY_HEAD + usize::try_from(entry.length).unwrap_or(usize::MAX - ENTRY_HEAD);
        if length <= WINDOW {
            let whole = self.get(file, at, length)?;
            return Ok((whole.len() == length && entry.is_intact(whole, salt)).then_some(entry));
        }
        let mut hasher = format::hasher(salt);
        let (mut from, end) = (at + 4, entry.end(at));
        while from < end {
            let want = usize::try_from(end - from).unwrap_or(WINDOW).min(WINDOW);
            let piece = self.get(file, from, want)?;
            if piece.is_empty() {
                return Ok(None);
            }
            hasher.update(piece);
            from += piece.len() as u64;
        }
        Ok((hasher.finalize() == entry.crc).then_some(entry))
    }

    fn body(&self, at: u64, entry: &Entry) -> &[u8] {
        let begin = usize::try_from(at - self.from).unwrap_or(usize::MAX).saturating_add(ENTRY_HEAD);
        let end = begin.saturating_add(usize::try_from(entry.length).unwrap_or(usize::MAX));
        self.bytes.get(begin..end).unwrap_or_default()
    }

    /// The first intact entry behind an offset.
    fn next_entry(&mut self, file: &File, size: u64, at: u64, salt: Salt) -> io::Result<Option<u64>> {
        let marker = salt.marker.to_le_bytes();
        let mut from = at + 1;
        while from + ENTRY_HEAD as u64 <= size {
            let piece = self.get(file, from, 4096 + ENTRY_HEAD)?;
            let here = piece.len().saturating_sub(ENTRY_HEAD).max(1);
            let found = if piece.iter().fold(0, |all, byte| all | byte) == 0 {
                None
            } else {
                piece
                    .windows(ENTRY_HEAD)
                    .take(here)
                    .position(|head| head[4..6] == marker && Entry::decode(head, salt.marker).is_some())
            };
            let Some(found) = found else {
                from += here as u64;
                continue;
            };
            from += found as u64;
            if self.entry(file, size, from, salt)?.is_some() {
                return Ok(Some(from));
            }
            from += 1;
        }
        Ok(None)
    }

    /// Behind the last byte from an offset on that is not zero; the offset if there is none.
    fn last_byte(&mut self, file: &File, size: u64, at: u64) -> io::Result<u64> {
        let (mut from, mut last) = (at, at);
        while from < size {
            let piece = self.get(file, from, 4096)?;
            if piece.is_empty() {
                break;
            }
            let length = piece.len() as u64;
            if piece.iter().fold(0, |all, byte| all | byte) != 0
                && let Some(index) = piece.iter().rposition(|byte| *byte != 0)
            {
                last = from + index as u64 + 1;
            }
            from += length;
        }
        Ok(last)
    }

    /// Bytes of the file, fewer at its end. What cannot be read stops the start: nothing must be taken for lost that is not.
    #[inline]
    fn get(&mut self, file: &File, at: u64, length: usize) -> io::Result<&[u8]> {
        let begin = at.checked_sub(self.from).and_then(|begin| usize::try_from(begin).ok());
        let begin = match begin.filter(|begin| begin.saturating_add(length) <= self.have) {
            Some(begin) => begin,
            None => {
                self.fill(file, at)?;
                0
            }
        };
        Ok(&self.bytes[begin..self.have.min(begin + length)])
    }

    fn fill(&mut self, file: &File, at: u64) -> io::Result<()> {
        (self.from, self.have) = (at, 0);
        while self.have < WINDOW {
            match file.read_at(&mut self.bytes[self.have..], at + self.have as u64) {
                Ok(0) => break,
                Ok(count) => self.have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether a file has nothing but zeros at its beginning.
pub(super) fn is_zero(file: &File, bytes: u64) -> io::Result<bool> {
    let mut scan = Scan::new();
    Ok(scan.last_byte(file, bytes, 0)? == 0)
}

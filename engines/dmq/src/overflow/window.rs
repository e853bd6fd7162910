//! Reading ahead in the data file.

use std::io;

use super::files::DiskFile;
use super::header::{HEADER_LEN, Header};

/// What is read at least at a time.
const LEAST: usize = 4 * 1024;
/// What is read at most at a time, but for one longer record.
const MOST: usize = 256 * 1024;

/// A piece of the data file in memory. It grows while what is asked for lies close together, so that records of one
/// queue in a row cost one read in many, and records far apart no more than a page each.
#[derive(Debug, Default)]
pub(super) struct Window {
    start: u64,
    bytes: Vec<u8>,
    want: usize,
}

impl Window {
    /// One that reads as much as it may from the start.
    pub(super) fn wide() -> Self {
        Self { want: MOST, ..Self::default() }
    }

    /// The `len` bytes at `offset`; `None` when they are not all before `end`.
    pub(super) fn get(&mut self, file: &DiskFile, offset: u64, len: usize, end: u64) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(len as u64).is_none_or(|behind| behind > end) {
            return Ok(None);
        }
        if self.held(offset, len).is_none() {
            self.fill(file, offset, len, end)?;
        }
        Ok(self.held(offset, len))
    }

    /// The header at `offset`, if there is one whose record lies before `end`.
    pub(super) fn header(&mut self, file: &DiskFile, offset: u64, end: u64) -> io::Result<Option<Header>> {
        let Some(bytes) = self.get(file, offset, HEADER_LEN, end)? else { return Ok(None) };
        if let Some(header) = Header::decode(bytes) {
            return Ok(Some(header).filter(|header| header.fits(offset, end)));
        }
        let Some((torn, next)) = Header::decode_torn(bytes).filter(|(torn, _)| torn.fits(offset, end)) else {
            return Ok(None);
        };
        // It was not the last record of the file, and its link, if that is whole, leads to the same queue. Else this is damage
        // that happens to leave the parity right.
        let mut strict = |offset| Ok(self.get(file, offset, HEADER_LEN, end)?.and_then(Header::decode));
        let behind: io::Result<Option<Header>> = strict(offset + torn.size());
        let linked: io::Result<Option<Header>> = offset.checked_add(next).map_or(Ok(None), strict);
        let genuine = behind?.is_some() && linked?.is_none_or(|linked| linked.channel == torn.channel);
        Ok(genuine.then_some(torn))
    }

    /// Follows a change of bytes in the file.
    pub(super) fn changed(&mut self, offset: u64, bytes: &[u8]) {
        let Some(from) = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok()) else {
            // It may lie half before the window.
            self.bytes.clear();
            return;
        };
        for (held, byte) in self.bytes.iter_mut().skip(from).zip(bytes) {
            *held = *byte;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    fn held(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }

    fn fill(&mut self, file: &DiskFile, offset: u64, len: usize, end: u64) -> io::Result<()> {
        let behind = self.start + self.bytes.len() as u64;
        let near = offset >= self.start && offset < behind + self.want as u64;
        self.want = if near { self.want * 2 } else { self.want / 2 }.clamp(LEAST, MOST);
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        self.bytes.resize(self.want.max(len).min(left), 0);
        self.start = offset;
        let read = file.read_at(&mut self.bytes, offset);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        if self.bytes.capacity() > 2 * MOST && self.bytes.len() <= MOST {
            self.bytes.shrink_to(MOST);
        }
        read.map(|_| ())
    }
}

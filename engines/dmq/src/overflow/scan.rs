//! The data file from record to record, whatever queue they belong to.

use std::io;

use super::files::DiskFile;
use super::header::{HEADER, HEADER_LEN, Header};
use super::window::Window;

/// So many headers in a row make a place that was found by its bytes one where records begin.
const PROOF: usize = 3;

/// Goes through the file. Where there is no header it looks for the next place with some in a row: what a record
/// contains is only looked at when its own header is damaged.
#[derive(Debug)]
pub(super) struct Scan {
    at: u64,
    /// Ranges without a header, as offset and length, at most some.
    pub(super) gaps: Vec<(u64, u64)>,
    /// Where what cannot be read begins, if nothing came behind it.
    pub(super) torn: Option<u64>,
}

impl Scan {
    pub(super) fn new(at: u64) -> Self {
        Self { at, gaps: Vec::new(), torn: None }
    }

    /// The next record.
    pub(super) fn next(&mut self, file: &DiskFile, window: &mut Window, end: u64) -> io::Result<Option<(u64, Header)>> {
        if self.at >= end {
            return Ok(None);
        }
        let mut found = window.header(file, self.at, end)?;
        if found.is_none() {
            let Some(next) = search(file, window, self.at, end)? else {
                self.torn = Some(self.at);
                self.at = end;
                return Ok(None);
            };
            if self.gaps.len() < 64 {
                self.gaps.push((self.at, next - self.at));
            }
            self.at = next;
            found = window.header(file, next, end)?;
        }
        let Some(header) = found else { return Ok(None) };
        let offset = self.at;
        self.at = offset + header.size();
        Ok(Some((offset, header)))
    }
}

/// The first place behind `from` where records begin.
fn search(file: &DiskFile, window: &mut Window, from: u64, end: u64) -> io::Result<Option<u64>> {
    let mut at = file.next_data(from, end);
    while at + HEADER <= end {
        // A longer piece is looked through at once.
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(64 * 1024);
        let Some(piece) = window.get(file, at, len, end)? else { return Ok(None) };
        if piece.iter().all(|byte| *byte == 0) && len > HEADER_LEN {
            at = file.next_data(at + len as u64 - HEADER, end);
            continue;
        }
        let candidates: Vec<u64> = piece
            .windows(HEADER_LEN)
            .enumerate()
            .filter(|(_, bytes)| Header::decode(bytes).is_some_and(|header| header.channel != 0))
            .map(|(index, _)| at + index as u64)
            .filter(|place| *place > from)
            .take(256)
            .collect();
        let last = candidates.last().copied();
        let many = candidates.len() == 256;
        for place in candidates {
            if proven(file, window, place, end)? {
                return Ok(Some(place));
            }
        }
        at = match last {
            Some(last) if many => last + 1,
            _ if (len as u64) < HEADER || at + len as u64 >= end => return Ok(None),
            _ => at + len as u64 - HEADER + 1,
        };
    }
    Ok(None)
}

/// Whether headers follow each other from here, or the file ends behind the first ones.
fn proven(file: &DiskFile, window: &mut Window, place: u64, end: u64) -> io::Result<bool> {
    let mut at = place;
    for _ in 0..PROOF {
        if at == end {
            break;
        }
        match window.header(file, at, end)? {
            Some(header) => at += header.size(),
            None => return Ok(false),
        }
    }
    Ok(true)
}

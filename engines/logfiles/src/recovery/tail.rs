//! The end of a bucket that was written from its front to its end, up to the place where that was interrupted.
//!
//! Unlike [`crate::walk`], which looks for more behind a damage, this ends at the first byte that is not as it was
//! written: what is behind it was part of the same write.

use std::io;

use crate::bucket::BucketNumber;
use crate::disk::File;
use crate::format::v2::BlockHeader;
use crate::format::{Format, HEADER};
use crate::record::Head;
use crate::walk::Window;

/// How much is read at once, as a rule.
const READ: usize = 64 << 10;

/// Whole records or blocks that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Where they end.
    pub(super) end: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// CRC-32 of all of them, of the header too if they begin with it.
    pub(super) crc: u32,
}

/// Reads from an offset at which a record or block begins, or from the front, to the first one that is not whole.
pub(super) fn read(file: &dyn File, format: Format, number: BucketNumber, from: u64, length: u64) -> io::Result<Tail> {
    let mut tail = Tail { end: from, records: 0, bytes: 0, crc: 0 };
    let mut crc = crc32fast::Hasher::new();
    let mut window = Window::new(READ);
    if from == 0 {
        let header = format.header();
        if length < HEADER as u64 {
            return Ok(tail);
        }
        window.fill(file, 0, HEADER, length)?;
        if !window.bytes().starts_with(header) {
            return Ok(tail);
        }
        crc.update(header);
        tail.end = header.len() as u64;
    }
    while let Some((size, records, bytes)) = next(file, &mut window, format, number, tail.end, length)? {
        crc.update(window.bytes().get(..size).unwrap_or_default());
        tail.end += size as u64;
        tail.records += records;
        tail.bytes += bytes;
    }
    tail.crc = crc.finalize();
    Ok(tail)
}

/// What stands at an offset, when it is whole: its size, its records and the bytes of their values. The window has it then.
fn next(
    file: &dyn File,
    window: &mut Window,
    format: Format,
    number: BucketNumber,
    offset: u64,
    length: u64,
) -> io::Result<Option<(usize, u64, u64)>> {
    let left = length.saturating_sub(offset);
    let head_len = if format == Format::V2 { crate::format::v2::BLOCK_HEADER } else { format.framing().head() };
    if left < head_len as u64 {
        return Ok(None);
    }
    window.fill(file, offset, head_len, length)?;
    let (size, records, bytes) = if format == Format::V2 {
        match BlockHeader::read(window.bytes(), offset) {
            Ok(block)
                if block.size() as u64 <= left && number.holds(block.keys.low) && number.holds(block.keys.high) =>
            {
                (block.size(), u64::from(block.records), block.value_bytes())
            }
            _ => return Ok(None),
        }
    } else {
        let Some(head) = Head::read(format.framing(), window.bytes()) else { return Ok(None) };
        if head.fault(number, left - head_len as u64).is_some() {
            return Ok(None);
        }
        let Ok(value) = usize::try_from(head.length) else { return Ok(None) };
        (head_len + value, 1, head.length)
    };
    window.fill(file, offset, size, length)?;
    if format == Format::V2 {
        let stored = window.bytes().get(head_len..size).unwrap_or_default();
        if BlockHeader::read(window.bytes(), offset).is_ok_and(|block| crc32fast::hash(stored) != block.crc) {
            return Ok(None);
        }
    }
    Ok(Some((size, records, bytes)))
}

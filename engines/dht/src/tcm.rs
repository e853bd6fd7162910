//! The file format of channel dumps, version 0 (protocol §3.1; `docs/formats/tcm.md`), without files.

pub mod reader;
#[cfg(test)]
mod tests;

pub use reader::{Item, Reader, Reason, Source, TcmError};

use overstory_swarm::key::Key;

/// The format version at the beginning of a file.
pub const VERSION: u64 = 0;

/// Files are padded with zeros to a multiple of this.
pub const BLOCK: usize = 512;

/// What a record takes in a file besides its value: two lengths and the key.
pub const RECORD_OVERHEAD: usize = 8 + 16 + 8;

/// Appends the pieces of a file to a buffer.
///
/// The caller takes away what it wants to write; [`Writer::finish`] has to be told how long the file is already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Writer;

impl Writer {
    /// The beginning of a file.
    pub fn begin(out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_le_bytes());
    }

    /// A record; the value must not be empty.
    #[inline]
    pub fn record(out: &mut Vec<u8>, key: Key, value: &[u8]) {
        out.extend_from_slice(&Self::head(key, value.len()));
        out.extend_from_slice(value);
    }

    /// What precedes the value of a record.
    #[must_use]
    #[inline]
    pub fn head(key: Key, value_length: usize) -> [u8; RECORD_OVERHEAD] {
        let mut head = [0; RECORD_OVERHEAD];
        head[..8].copy_from_slice(&16u64.to_le_bytes());
        head[8..24].copy_from_slice(&key.hex16());
        head[24..].copy_from_slice(&(value_length as u64).to_le_bytes());
        head
    }

    /// The end mark and the padding; `before` is how many bytes of the file were taken out of `out` so far.
    pub fn finish(out: &mut Vec<u8>, before: u64) {
        out.extend_from_slice(&0u64.to_le_bytes());
        while !(before + out.len() as u64).is_multiple_of(BLOCK as u64) {
            out.push(0);
        }
    }
}

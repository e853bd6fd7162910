//! Heads and entries of segments: `docs/formats/queue-journal.md`.

use std::hash::{BuildHasher, RandomState};

use crc32fast::Hasher;

use crate::disk::QueueId;

pub(super) const MAGIC: [u8; 8] = *b"OVQJRNL\0";
pub(super) const VERSION: u32 = 1;
/// The head is written twice: here and at 0.
pub(super) const SECOND_HEAD: u64 = 4096;
pub(super) const HEAD_BYTES: usize = 32;
/// Where the first entry begins.
pub(super) const FIRST_ENTRY: u64 = SECOND_HEAD + HEAD_BYTES as u64;
/// What comes before the body of an entry.
pub(super) const ENTRY_HEAD: usize = 24;
/// Longest body of an entry; longer records are refused.
pub(super) const MAX_BODY: u64 = u32::MAX as u64;
/// An entry of a released range or a mark.
pub(super) const SHORT_ENTRY: u64 = ENTRY_HEAD as u64 + 8;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A queue is made; whatever was known of its number is void.
    Created = 1,
    /// A queue's name and next number, as they are now.
    Defined = 2,
    /// A queue is gone.
    Removed = 3,
    /// A record.
    Record = 4,
    /// Records from `number` to before the number in the body are not needed any more.
    Released = 5,
    /// The journal up to a segment (`number`) and offset (body) was durable before this was written.
    Mark = 6,
    /// Nothing follows in this segment.
    End = 7,
    /// Nothing: it fills a place where a crash left no entry.
    Void = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Created,
            2 => Self::Defined,
            3 => Self::Removed,
            4 => Self::Record,
            5 => Self::Released,
            6 => Self::Mark,
            7 => Self::End,
            8 => Self::Void,
            _ => return None,
        })
    }
}

/// What makes the entries of one segment unlike those of any other, or of an earlier use of the same blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt {
    /// What the checksums begin with.
    pub(super) seed: u32,
    /// What every entry head holds.
    pub(super) marker: u16,
}

impl Salt {
    /// A new one, which nobody outside can guess.
    pub(super) fn new(serial: u64) -> Self {
        let bits = RandomState::new().hash_one(serial).to_le_bytes();
        let [a, b, c, d, e, f, ..] = bits;
        // A marker of zeros would be found all over what is not written yet.
        Self { seed: u32::from_le_bytes([a, b, c, d]), marker: u16::from_le_bytes([e, f | 1]) }
    }
}

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u32,
    pub(super) serial: u64,
    pub(super) salt: Salt,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.salt.seed.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.serial.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.salt.marker.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        if bytes[..8] != MAGIC || u32_at(bytes, 28)? != crc32fast::hash(&bytes[..28]) {
            return None;
        }
        let salt = Salt { seed: u32_at(bytes, 12)?, marker: u16_at(bytes, 24)? };
        Some(Self { version: u32_at(bytes, 8)?, serial: u64_at(bytes, 16)?, salt })
    }
}

/// The head of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) crc: u32,
    pub(super) kind: Kind,
    pub(super) length: u32,
    pub(super) queue: QueueId,
    pub(super) number: u64,
}

impl Entry {
    /// Reads a head that may be one of this segment: its marker and kind are right.
    #[inline]
    pub(super) fn decode(bytes: &[u8], marker: u16) -> Option<Self> {
        let bytes: &[u8; ENTRY_HEAD] = bytes.first_chunk()?;
        if u16_at(bytes, 4)? != marker || bytes[7] != 0 {
            return None;
        }
        Some(Self {
            crc: u32_at(bytes, 0)?,
            kind: Kind::of(bytes[6])?,
            length: u32_at(bytes, 8)?,
            queue: u32_at(bytes, 12)?,
            number: u64_at(bytes, 16)?,
        })
    }

    /// Whether these bytes, head and body, are what was written.
    #[inline]
    pub(super) fn is_intact(&self, whole: &[u8], salt: Salt) -> bool {
        whole.get(4..).is_some_and(|checked| checksum(salt, checked) == self.crc)
    }

    /// Where the entry ends.
    pub(super) fn end(&self, at: u64) -> u64 {
        at.saturating_add(ENTRY_HEAD as u64).saturating_add(u64::from(self.length))
    }
}

fn checksum(salt: Salt, checked: &[u8]) -> u32 {
    let mut hasher = hasher(salt);
    hasher.update(checked);
    hasher.finalize()
}

/// For what is checked piece by piece: everything of the entry behind its checksum.
pub(super) fn hasher(salt: Salt) -> Hasher {
    Hasher::new_with_initial(salt.seed)
}

/// Appends an entry with a body of at most [`MAX_BODY`] bytes.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, salt: Salt, kind: Kind, queue: QueueId, number: u64, body: &[u8]) {
    let begin = out.len();
    let mut head = [0; ENTRY_HEAD];
    head[4..6].copy_from_slice(&salt.marker.to_le_bytes());
    head[6] = kind as u8;
    head[8..12].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    head[12..16].copy_from_slice(&queue.to_le_bytes());
    head[16..].copy_from_slice(&number.to_le_bytes());
    out.reserve(ENTRY_HEAD + body.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
    let crc = checksum(salt, &out[begin + 4..]);
    out[begin..begin + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The number in the body of [`Kind::Released`] and [`Kind::Mark`], and at the beginning of [`Kind::Defined`]'s.
pub(super) fn body_number(body: &[u8]) -> Option<u64> {
    u64_at(body, 0)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_entry_has_the_bytes_of_the_description() {
        let salt = Salt { seed: 7, marker: 0x0201 };
        let mut out = Vec::new();
        put(&mut out, salt, Kind::Record, 3, 9, b"ab");
        assert_eq!(out.len(), 26);
        assert_eq!(out[4..], *b"\x01\x02\x04\x00\x02\0\0\0\x03\0\0\0\x09\0\0\0\0\0\0\0ab");
        let entry = Entry::decode(&out, salt.marker).unwrap();
        assert_eq!((entry.kind, entry.length, entry.queue, entry.number), (Kind::Record, 2, 3, 9));
        assert!(entry.is_intact(&out, salt));
        assert!(!entry.is_intact(&out, Salt { seed: 8, ..salt }));
    }

    #[test]
    fn a_head_is_read_back_and_a_flipped_bit_is_seen() {
        let head = Head { version: VERSION, serial: 5, salt: Salt::new(5) };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Some(head));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&flipped), None);
        }
    }
}

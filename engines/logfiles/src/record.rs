//! How a record lies in a bucket of a published format, and in the blocks of ours. See `docs/formats/bucket.md`.
//!
//! ```text
//! +---------+------------+---------------+-------+
//! | key u64 | length u64 | parity u8     | value |     little endian; parity only in format 1
//! +---------+------------+---------------+-------+
//! ```

use crate::bucket::BucketNumber;

/// The longest value that is kept: 8 MiB. A length above it is damage.
pub const MAX_VALUE: usize = 8 << 20;

/// The most bytes of a record's head.
pub const MAX_HEAD: usize = 17;

/// How records follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A head of 16 bytes: key and length. In buckets without a header and in the blocks of format 2.
    Plain,
    /// A head of 17 bytes: key, length and their parity. In buckets of format 1.
    V1,
}

impl Framing {
    /// The bytes of a record's head.
    #[inline]
    #[must_use]
    pub const fn head(self) -> usize {
        match self {
            Self::Plain => 16,
            Self::V1 => 17,
        }
    }
}

/// The bytes that a record takes.
#[inline]
#[must_use]
pub const fn size(framing: Framing, value_len: usize) -> usize {
    framing.head() + value_len
}

/// Whether a record may be written: a value of at most [`MAX_VALUE`] bytes, and not key 0 without a value, which cannot be
/// told from a part of a file that was never written.
#[inline]
#[must_use]
pub const fn is_valid(key: u64, value_len: usize) -> bool {
    value_len <= MAX_VALUE && (key != 0 || value_len != 0)
}

/// Adds a record to the end of a buffer. The caller has checked it ([`is_valid`]).
#[inline]
pub fn put(framing: Framing, key: u64, value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(is_valid(key, value.len()), "an invalid record");
    let length = value.len() as u64;
    let mut head = [0; MAX_HEAD];
    head[..8].copy_from_slice(&key.to_le_bytes());
    head[8..16].copy_from_slice(&length.to_le_bytes());
    head[16] = parity(key, length);
    out.reserve(size(framing, value.len()));
    out.extend_from_slice(&head[..framing.head()]);
    out.extend_from_slice(value);
}

/// The parity of a head: the exclusive or of the bytes of key and length.
#[inline]
#[must_use]
pub const fn parity(key: u64, length: u64) -> u8 {
    let mut folded = key ^ length;
    folded ^= folded >> 32;
    folded ^= folded >> 16;
    folded ^= folded >> 8;
    folded.to_le_bytes()[0]
}

/// The head of a record as it was read; nothing in it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: u64,
    pub(crate) length: u64,
    pub(crate) parity: u8,
}

impl Head {
    /// The head at the front of some bytes, if they are enough.
    #[inline]
    pub(crate) fn read(framing: Framing, bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (key, length) = (u64::from_le_bytes(*key), u64::from_le_bytes(*length));
        let parity = match framing {
            Framing::Plain => parity(key, length),
            Framing::V1 => *rest.first()?,
        };
        Some(Self { key, length, parity })
    }

    /// What is wrong with the head, if `space` bytes of the file are left for the value.
    #[inline]
    pub(crate) fn fault(self, number: BucketNumber, space: u64) -> Option<Fault> {
        // One test for the usual case, the reasons apart.
        let good = self.parity == parity(self.key, self.length)
            && number.holds(self.key)
            && self.length <= space.min(MAX_VALUE as u64)
            && (self.key | self.length) != 0;
        if good { None } else { Some(self.reason(number)) }
    }

    #[cold]
    fn reason(self, number: BucketNumber) -> Fault {
        if self.key == 0 && self.length == 0 {
            Fault::Zeros
        } else if self.parity != parity(self.key, self.length) {
            Fault::Parity
        } else if !number.holds(self.key) {
            Fault::Key
        } else if self.length > MAX_VALUE as u64 {
            Fault::Length
        } else {
            Fault::Cut
        }
    }
}

/// What is wrong with a record's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Zeros,
    Parity,
    Key,
    Length,
    Cut,
}

impl Fault {
    /// In words, for reports.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Zeros => "zeros in place of a record",
            Self::Parity => "the parity of a record's head is wrong",
            Self::Key => "a record's key does not belong to the bucket",
            Self::Length => "a record's length is above the limit",
            Self::Cut => "a record reaches over the end of the file",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_record_is_written_as_the_published_node_writes_it() {
        let mut out = Vec::new();
        put(Framing::V1, 0x5727_5806, b"line one", &mut out);
        assert_eq!(out, b"\x06\x58\x27\x57\0\0\0\0\x08\0\0\0\0\0\0\0\x26line one");
        assert_eq!(out.len(), size(Framing::V1, 8));
        let head = Head::read(Framing::V1, &out).unwrap();
        assert_eq!(head, Head { key: 0x5727_5806, length: 8, parity: 0x26 });
        out.clear();
        put(Framing::Plain, 0x5727_5806, b"line one", &mut out);
        assert_eq!(out, b"\x06\x58\x27\x57\0\0\0\0\x08\0\0\0\0\0\0\0line one");
        assert_eq!(Head::read(Framing::Plain, &out[..15]), None);
    }

    #[test]
    fn a_head_tells_what_is_wrong_with_it() {
        let number = BucketNumber::of(0x1000);
        let head = |key, length| Head { key, length, parity: parity(key, length) };
        assert_eq!(head(0x1001, 5).fault(number, 5), None);
        assert_eq!(head(0x1001, 5).fault(number, 4), Some(Fault::Cut));
        assert_eq!(head(0x2001, 5).fault(number, 5), Some(Fault::Key));
        assert_eq!(head(0x1001, u64::MAX).fault(number, u64::MAX), Some(Fault::Length));
        assert_eq!(head(0, 0).fault(BucketNumber::of(0), 5), Some(Fault::Zeros));
        assert_eq!(head(0, 1).fault(BucketNumber::of(0), 5), None);
        assert_eq!(Head { key: 0x1001, length: 5, parity: 0 }.fault(number, 5), Some(Fault::Parity));
    }
}

//! The three formats of a bucket file, told apart by its first bytes. See `docs/formats/bucket.md`.

pub mod v2;
mod writer;

use crate::record::Framing;
pub use writer::{BucketWriter, Written};

/// The bytes of a file's header. A shorter file is an empty bucket.
pub const HEADER: usize = 16;

/// How much of a file's front [`Format::of`] looks at, at most.
pub const FRONT: usize = HEADER + v2::BLOCK_HEADER;

const MAGIC: [u8; 8] = *b"DLSBUCKT";
const V1: [u8; HEADER] = *b"\x01\0\0\0\0\0\0\0DLSBUCKT";
const V2: [u8; HEADER] = *b"\x02\0\0\0\0\0\0\0DLSBUCKT";

/// The format of a bucket file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The oldest published one: records without a header in front of them.
    Plain,
    /// The published one: a header, and a parity in the head of each record.
    V1,
    /// Ours: a header and checksummed blocks.
    V2,
}

impl Format {
    /// The format of the file that begins with these bytes; none if they are fewer than [`HEADER`].
    ///
    /// A damaged header is taken for what it most likely was: see [`Format::header_is_good`]. Only with [`FRONT`] bytes
    /// can a file whose version was damaged be told for sure.
    #[must_use]
    pub fn of(front: &[u8]) -> Option<Self> {
        let header = front.first_chunk::<HEADER>()?;
        Some(match *header {
            V1 => Self::V1,
            V2 => Self::V2,
            _ => Self::guess(header, front),
        })
    }

    /// A header that is not as it was written. Where a plain file has the length of a value, which is never near the
    /// number that the magic makes, some of the magic is enough.
    fn guess(header: &[u8; HEADER], front: &[u8]) -> Self {
        let alike = |bytes: &[u8], other: &[u8]| bytes.iter().zip(other).filter(|(one, other)| one == other).count();
        if alike(&header[8..], &MAGIC) < 4 {
            return Self::Plain;
        }
        let has_block = front.get(HEADER..).is_some_and(|rest| v2::BlockHeader::read(rest, HEADER as u64).is_ok());
        let is_v2 = has_block || (header[0] == V2[0] && front.len() < FRONT);
        if is_v2 { Self::V2 } else { Self::V1 }
    }

    /// What a new file begins with: [`HEADER`] bytes, or none.
    #[must_use]
    pub const fn header(self) -> &'static [u8] {
        match self {
            Self::Plain => &[],
            Self::V1 => &V1,
            Self::V2 => &V2,
        }
    }

    /// Whether a file that was found to be of this format begins as such files are written.
    #[must_use]
    pub fn header_is_good(self, front: &[u8]) -> bool {
        front.starts_with(self.header())
    }

    /// How records are framed that are on their way into such a file: in format 2 they become the content of a block.
    #[must_use]
    pub const fn framing(self) -> Framing {
        match self {
            Self::Plain | Self::V2 => Framing::Plain,
            Self::V1 => Framing::V1,
        }
    }
}

/// As it is called in configurations and reports: `plain`, `v1`, `v2`.
impl std::fmt::Display for Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Plain => "plain",
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::record;

    fn plain(key: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        record::put(Framing::Plain, key, value, &mut out);
        out
    }

    #[test]
    fn formats_are_told_apart_by_the_first_bytes() {
        assert_eq!(Format::of(b"\x01\0\0\0\0\0\0\0DLSBUCK"), None);
        assert_eq!(Format::of(&V1), Some(Format::V1));
        assert_eq!(Format::of(&V2), Some(Format::V2));
        assert_eq!(Format::of(&plain(0x5727_5806, b"value")), Some(Format::Plain));
        assert_eq!(Format::of(&plain(1, b"DLSBUCKTDLSBUCKT")), Some(Format::Plain));
    }

    #[test]
    fn a_flipped_bit_in_a_header_does_not_change_the_format() {
        let mut v1 = V1.to_vec();
        record::put(Framing::V1, 0x1000, &[7; 64], &mut v1);
        let mut v2 = V2.to_vec();
        v2::encode_block(HEADER as u64, &plain(0x1000, &[7; 64]), 3, &mut v2).unwrap();
        for (format, file) in [(Format::V1, v1), (Format::V2, v2)] {
            assert!(format.header_is_good(&file));
            for bit in 0..HEADER * 8 {
                let mut damaged = file.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Format::of(&damaged), Some(format), "bit {bit}");
                assert!(!format.header_is_good(&damaged), "bit {bit}");
            }
        }
    }
}

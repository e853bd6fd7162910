//! The header of a record in `overflow.dat` (protocol §3.2).

/// What the data file begins with.
pub(super) const MAGIC: &[u8; 8] = b"QDSKOF01";
/// Where the first record lies.
pub(super) const START: u64 = 8;
/// Bytes of a header.
pub(super) const HEADER: u64 = 32;
/// The same, to slice with.
pub(super) const HEADER_LEN: usize = 32;

/// What stands before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The queue; 0 is not one but fills the space before the first record, in files that were cut at their head.
    pub(super) channel: u32,
    /// From this record's start to the start of the next one of the queue; 0 when there is none.
    pub(super) next: u64,
    /// Bytes of the record.
    pub(super) length: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&self.channel.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.next.to_le_bytes());
        bytes[16] = fold(u64::from(self.channel) ^ self.next ^ self.length);
        bytes[24..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` when these bytes are none: parity, padding, or a distance that ends in the record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let word =
            |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u64::from_le_bytes(*word));
        let (channel, next, parity, length) = (word(0)?, word(8)?, word(16)?, word(24)?);
        if parity > 0xff || fold(channel ^ next ^ parity ^ length) != 0 {
            return None;
        }
        let channel = u32::try_from(channel).ok()?;
        let size = length.checked_add(HEADER).filter(|size| *size < 1 << 62)?;
        let linked = next == 0 || (size..1 << 62).contains(&next);
        // Zeros have a parity that fits.
        (linked && (channel != 0 || length != 0)).then_some(Self { channel, next, length })
    }

    /// Reads a header that was being changed to lead to the next record when the process was killed: the one that it was
    /// before, the last of its queue.
    /// With what stands in the place of the distance.
    pub(super) fn decode_torn(bytes: &[u8]) -> Option<(Self, u64)> {
        let mut before: [u8; HEADER_LEN] = *bytes.first_chunk()?;
        let next = u64::from_le_bytes(*before.get(8..)?.first_chunk()?);
        before[8..16].fill(0);
        let header = Self::decode(&before).filter(|header| header.channel != 0)?;
        Some((header, next))
    }

    /// Bytes of header and record.
    pub(super) fn size(&self) -> u64 {
        HEADER + self.length
    }

    /// Whether a record with this header, at `offset`, lies before `end`.
    pub(super) fn fits(&self, offset: u64, end: u64) -> bool {
        offset.checked_add(self.size()).is_some_and(|behind| behind <= end)
    }
}

/// All bytes of `word` combined by exclusive or.
fn fold(mut word: u64) -> u8 {
    word ^= word >> 32;
    word ^= word >> 16;
    word ^= word >> 8;
    (word & 0xff) as u8
}

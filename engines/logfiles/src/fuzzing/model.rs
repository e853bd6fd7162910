//! What `docs/formats/bucket.md` says of records in the published formats, place by place, over a whole file in memory.

use super::input::Records;
use crate::bucket::BucketNumber;
use crate::record::{Framing, MAX_VALUE, parity};

/// The records of a file of a known format, and its damages: where each begins and its bytes.
pub(super) fn walk(file: &[u8], begin: usize, framing: Framing, number: BucketNumber) -> (Records, Vec<(u64, u64)>) {
    let (mut records, mut damages) = (Records::new(), Vec::new());
    let model = Model { file, framing, number };
    let mut at = begin;
    while at < file.len() {
        let proved = |end: usize| framing == Framing::V1 || model.proves(end);
        if let Some((key, end)) = model.record(at)
            && proved(end)
        {
            records.push((key, file[at + framing.head()..end].to_vec()));
            at = end;
            continue;
        }
        let is_record = |at: &usize| model.record(*at).is_some_and(|(_, end)| model.proves(end));
        let next = (at + 1..file.len()).find(is_record).unwrap_or(file.len());
        damages.push((at as u64, (next - at) as u64));
        at = next;
    }
    (records, damages)
}

struct Model<'a> {
    file: &'a [u8],
    framing: Framing,
    number: BucketNumber,
}

impl Model<'_> {
    /// The key, the length and whether the parity is right.
    fn head(&self, at: usize) -> Option<(u64, u64, bool)> {
        let head = self.file.get(at..)?.get(..self.framing.head())?;
        let key = u64::from_le_bytes(*head.first_chunk()?);
        let length = u64::from_le_bytes(*head.get(8..)?.first_chunk()?);
        Some((key, length, head.get(16).is_none_or(|byte| *byte == parity(key, length))))
    }

    /// The key and the end of the record whose valid head is there.
    fn record(&self, at: usize) -> Option<(u64, usize)> {
        let (key, length, is_right) = self.head(at)?;
        let space = self.file.len() - at - self.framing.head();
        let fits = length <= (MAX_VALUE.min(space)) as u64;
        let end = at + self.framing.head() + usize::try_from(length).ok().filter(|_| fits)?;
        (is_right && self.number.holds(key) && (key, length) != (0, 0)).then_some((key, end))
    }

    /// Whether what follows proves the record that ends there.
    fn proves(&self, at: usize) -> bool {
        let Some((key, length, _)) = self.head(at) else { return self.is_front(at) };
        if self.number.holds(key) {
            return (key, length) != (0, 0);
        }
        let wrong_bits = (self.number.first_key() ^ key) >> 12;
        let space = self.file.len() - at - self.framing.head();
        if wrong_bits.count_ones() != 1 || length > MAX_VALUE.min(space) as u64 {
            return false;
        }
        let third = at + self.framing.head() + usize::try_from(length).unwrap_or(usize::MAX);
        match self.head(third) {
            Some((key, length, _)) => self.number.holds(key) && (key, length) != (0, 0),
            None => self.is_front(third),
        }
    }

    /// Whether the file ends there, or in a head with a key of the bucket.
    fn is_front(&self, at: usize) -> bool {
        let left = self.file.get(at..).unwrap_or_default();
        let known = self.number.first_key().to_le_bytes();
        match left.len() {
            0 => true,
            1..4 => false,
            // The lower 12 bits are free.
            length => {
                let length = length.min(8);
                left[1] & 0xf0 == known[1] & 0xf0 && left[2..length] == known[2..length]
            }
        }
    }
}

//! Batches of records, encoded for one of the protocols (protocol §1.4, §2.6).
//!
//! ```text
//! legacy   array length u64 | plain length u64 | LZO block of { 16 u64 | key, 16 digits | array value }...
//! neo      3 u8 | plain length u64 | array length u64 | LZO block of { timestamp i64 | array value }...
//! ```
//!
//! Without compression a batch is made in place: records are appended behind some room, into which the front of the
//! block and the lengths are written at the end.

use std::ops::Deref;
use std::sync::Arc;

use overstory_swarm::batch::DEFAULT_LIMIT;
use overstory_swarm::key::Key;
use overstory_swarm::lzo::{self, Work, literals_front, put_literals_front};
use overstory_swarm::neo::dls::GET_RANGE_BATCH;

use super::buffers::Buffers;
use crate::bucket::BucketNumber;

/// The legacy batch without records. The published node ends an answer without any record with it.
pub const EMPTY_BATCH: &[u8] = b"\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x11\0\0";

/// How records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Pairs with keys of 16 digits, at most 65,536 bytes of them, or one that is larger.
    Legacy,
    /// Timestamps and values, up to the record with which they are 100,000 bytes or more.
    Neo,
}

/// Bytes of a legacy record without its value.
const LEGACY_HEAD: usize = 32;
/// The message type of a neo batch.
const RECORDS: u8 = 3;
/// The room in front of the records: enough for the lengths and the front of a block of 120 KB.
const FRONT: usize = 512;
/// Bytes that are reserved for a batch: enough for a legacy one, and for neo with usual records.
const USUAL: usize = FRONT + GET_RANGE_BATCH + 8192;
/// After a block that did not get smaller by a sixteenth, so many are not compressed at all.
const NO_GAIN: u32 = 15;

/// A batch, ready to be sent: in legacy the array, in neo what is in the message.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    begin: usize,
    records: u64,
    value_bytes: u64,
    buffers: Arc<Buffers>,
}

impl Batch {
    /// How many records it has; never 0.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The bytes of their values.
    #[must_use]
    pub const fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// What it takes of the memory.
    pub(super) const fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Deref for Batch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.begin..).unwrap_or_default()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.bytes));
    }
}

/// Makes batches of records.
pub(super) struct Encoder {
    shape: Shape,
    compress: bool,
    /// Blocks that are not compressed before the next is tried.
    resting: u32,
    /// The batch that is being made; empty, or the room in front and what was added.
    bytes: Vec<u8>,
    records: u64,
    value_bytes: u64,
    /// A record was not taken.
    full: bool,
    /// A legacy record up to its value, of the bucket.
    head: [u8; LEGACY_HEAD],
    buffers: Arc<Buffers>,
}

impl Encoder {
    pub(super) fn new(shape: Shape, compress: bool, buffers: Arc<Buffers>) -> Self {
        let mut head = [0; LEGACY_HEAD];
        head[0] = 16;
        Self { shape, compress, resting: 0, bytes: Vec::new(), records: 0, value_bytes: 0, full: false, head, buffers }
    }

    /// Says to which bucket the records that follow belong.
    pub(super) fn begin_bucket(&mut self, number: BucketNumber) {
        self.head[8..24].copy_from_slice(&Key(number.first_key()).hex16());
    }

    /// Whether a record was not taken: the batch has to be finished.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// Adds a record of the bucket; false if the batch has to be finished before.
    #[inline]
    pub(super) fn add(&mut self, key: u64, value: &[u8]) -> bool {
        let plain = self.bytes.len().saturating_sub(FRONT);
        match self.shape {
            Shape::Legacy => {
                let room = DEFAULT_LIMIT.saturating_sub(plain + LEGACY_HEAD);
                if self.records != 0 && value.len() > room {
                    self.full = true;
                    return false;
                }
                self.begin();
                let mut head = self.head;
                for (digit, shift) in head[21..24].iter_mut().zip([8, 4, 0]) {
                    *digit = DIGITS[(key >> shift & 0xf) as usize];
                }
                head[24..].copy_from_slice(&(value.len() as u64).to_le_bytes());
                self.bytes.extend_from_slice(&head);
            }
            Shape::Neo => {
                if plain >= GET_RANGE_BATCH {
                    self.full = true;
                    return false;
                }
                self.begin();
                let mut head = [0; 16];
                head[..8].copy_from_slice(&key.to_le_bytes());
                head[8..].copy_from_slice(&(value.len() as u64).to_le_bytes());
                self.bytes.extend_from_slice(&head);
            }
        }
        self.bytes.extend_from_slice(value);
        self.records += 1;
        self.value_bytes += value.len() as u64;
        true
    }

    #[inline]
    fn begin(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = self.buffers.take();
            self.bytes.clear();
            self.bytes.reserve(USUAL);
            self.bytes.resize(FRONT, 0);
        }
    }

    /// Finishes the batch; none if it has no records.
    pub(super) fn finish(&mut self, work: &mut Work) -> Option<Batch> {
        if self.records == 0 {
            return None;
        }
        self.full = false;
        let bytes = std::mem::take(&mut self.bytes);
        let compressed = if self.compress && self.resting == 0 { self.compressed(&bytes, work) } else { None };
        self.resting = self.resting.saturating_sub(1);
        let (bytes, begin) = match compressed {
            Some(message) => {
                self.buffers.give(bytes);
                (message, 0)
            }
            None => self.literal(bytes),
        };
        let (records, value_bytes) = (std::mem::take(&mut self.records), std::mem::take(&mut self.value_bytes));
        Some(Batch { bytes, begin, records, value_bytes, buffers: Arc::clone(&self.buffers) })
    }

    /// The message with a compressed block; none if that would not be worth it.
    fn compressed(&mut self, bytes: &[u8], work: &mut Work) -> Option<Vec<u8>> {
        let plain = bytes.get(FRONT..).unwrap_or_default();
        let mut message = self.buffers.take();
        message.clear();
        let front = self.front_len();
        message.resize(front, 0);
        lzo::compress(plain, &mut message, work);
        let block = message.len() - front;
        if block + plain.len() / 16 > plain.len() {
            self.resting = NO_GAIN + 1;
            self.buffers.give(message);
            return None;
        }
        self.put_front(plain.len(), block, message.get_mut(..front)?);
        Some(message)
    }

    /// The message with a block that is not compressed, and where it begins.
    fn literal(&self, mut bytes: Vec<u8>) -> (Vec<u8>, usize) {
        let plain = bytes.len() - FRONT;
        let literals = literals_front(plain);
        let block = literals + plain + lzo::END.len();
        let front = self.front_len() + literals;
        let mut room = FRONT;
        if front > room {
            // One record that is much larger than a batch.
            let missing = front - room;
            bytes.reserve_exact(missing + lzo::END.len());
            bytes.splice(..0, std::iter::repeat_n(0, missing));
            room = front;
        }
        bytes.extend_from_slice(&lzo::END);
        put_literals_front(plain, &mut bytes[..room]);
        let lengths = room - literals;
        let begin = room - front;
        self.put_front(plain, block, &mut bytes[begin..lengths]);
        (bytes, begin)
    }

    const fn front_len(&self) -> usize {
        match self.shape {
            Shape::Legacy => 16,
            Shape::Neo => 17,
        }
    }

    /// Writes what stands in front of a block.
    fn put_front(&self, plain: usize, block: usize, front: &mut [u8]) {
        let (plain, block) = (plain as u64, block as u64);
        let lengths = match self.shape {
            Shape::Legacy => [block + 8, plain],
            Shape::Neo => [plain, block],
        };
        let at = front.len() - 16;
        front[..at].fill(RECORDS);
        front[at..at + 8].copy_from_slice(&lengths[0].to_le_bytes());
        front[at + 8..].copy_from_slice(&lengths[1].to_le_bytes());
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use overstory_swarm::batch::{self, Pairs, Refreshed};
    use overstory_swarm::neo::dls::GetRangeMessage;
    use overstory_swarm::wire::Reader;

    use super::*;

    /// Encodes records of bucket 0x57275 and gives them back as a client reads them, batch by batch.
    fn sent(shape: Shape, compress: bool, records: &[(u64, Vec<u8>)]) -> Vec<Vec<(u64, Vec<u8>)>> {
        let buffers = Arc::new(Buffers::new(1 << 20));
        let mut encoder = Encoder::new(shape, compress, Arc::clone(&buffers));
        encoder.begin_bucket(BucketNumber::of(0x5727_5000));
        let (mut work, mut out) = (Work::new(), Vec::new());
        assert!(encoder.finish(&mut work).is_none());
        for (key, value) in records {
            if !encoder.add(*key, value) {
                out.push(decode(shape, &encoder.finish(&mut work).unwrap()));
                assert!(encoder.add(*key, value));
            }
        }
        out.extend(encoder.finish(&mut work).map(|batch| decode(shape, &batch)));
        out
    }

    fn decode(shape: Shape, message: &Batch) -> Vec<(u64, Vec<u8>)> {
        let mut plain = Vec::new();
        let records: Vec<_> = match shape {
            Shape::Legacy => {
                let mut reader = Reader::new(message);
                let array = reader.array().unwrap();
                assert!(reader.is_empty());
                batch::decode(array, 32 << 20, &mut plain).unwrap();
                let key = |text: &[u8]| Key::from_hex16(text).unwrap().0;
                Pairs::new(&plain).map(|pair| pair.map(|(text, value)| (key(text), value.to_vec())).unwrap()).collect()
            }
            Shape::Neo => {
                let GetRangeMessage::Records(block) = GetRangeMessage::decode(message).unwrap() else { panic!() };
                batch::decode_block(block.plain_len, block.block, 32 << 20, &mut plain).unwrap();
                Refreshed::new(&plain).map(|record| record.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
            }
        };
        assert_eq!(message.records(), records.len() as u64);
        assert_eq!(message.value_bytes(), records.iter().map(|(_, value)| value.len() as u64).sum::<u64>());
        records
    }

    fn record(index: u64, length: usize) -> (u64, Vec<u8>) {
        let noise = index.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
        (0x5727_5000 | (index * 7) & 0xfff, noise.iter().copied().cycle().take(length).collect())
    }

    #[test]
    fn every_record_arrives_in_order_in_batches_of_the_published_sizes() {
        let lengths = [0, 1, 100, 1100, 65_504, 65_505, 70_000, 99_984, 99_985, 1 << 20, 8 << 20, 3, 40_000];
        let mixed: Vec<_> = (0..).zip(lengths).map(|(index, length)| record(index, length)).collect();
        let small: Vec<_> = (0..5000).map(|index| record(index, (index % 200) as usize)).collect();
        for shape in [Shape::Legacy, Shape::Neo] {
            for compress in [false, true] {
                for records in [&mixed, &small] {
                    let batches = sent(shape, compress, records);
                    assert_eq!(&batches.concat(), records, "{shape:?} {compress}");
                    let (head, last) = (if shape == Shape::Legacy { 32 } else { 16 }, batches.len() - 1);
                    let sizes = batches.iter().map(|batch| batch.iter().map(|(_, value)| head + value.len()).sum());
                    for (index, size) in sizes.enumerate() {
                        let size: usize = size;
                        match shape {
                            Shape::Legacy => assert!(size <= 65_536 || batches[index].len() == 1, "{size}"),
                            Shape::Neo => assert!(size >= 100_000 || index == last, "{size}"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_is_as_full_as_the_published_one() {
        // The recordings hold 120 records of 1,100 bytes: 57, 57 and 6; in neo 90 and 30.
        let records: Vec<_> = (0..120).map(|index| record(index, 1100)).collect();
        let sizes = |shape| sent(shape, false, &records).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Shape::Legacy), [57, 57, 6]);
        assert_eq!(sizes(Shape::Neo), [90, 30]);
    }

    #[test]
    fn what_repeats_gets_smaller_and_what_does_not_is_left_alone() {
        let buffers = Arc::new(Buffers::new(1 << 20));
        let mut encoder = Encoder::new(Shape::Legacy, true, buffers);
        let mut work = Work::new();
        encoder.begin_bucket(BucketNumber::of(0x1000));
        (0..100).for_each(|index| assert!(encoder.add(0x1000 + index, &[7; 100])));
        assert!(encoder.finish(&mut work).unwrap().len() < 3000);
        let noise: Vec<u8> = (0..8000_u64).flat_map(|index| record(index, 8).1).collect();
        assert!(encoder.add(0x1000, &noise));
        assert_eq!(encoder.finish(&mut work).unwrap().len(), 16 + 253 + 32 + noise.len() + 3);
        assert_eq!(encoder.resting, NO_GAIN);
    }

    #[test]
    fn the_empty_batch_is_the_recorded_one() {
        let mut reader = Reader::new(EMPTY_BATCH);
        let mut plain = vec![1];
        batch::decode(reader.array().unwrap(), 100, &mut plain).unwrap();
        assert!(plain.is_empty() && reader.is_empty());
    }
}

//! Records of logfiles as they come: a batch of one node, or of several nodes in order of time.

use std::net::SocketAddrV4;

use overstory_swarm::batch::{decode, decode_block};
use overstory_swarm::key::Key;
use overstory_swarm::neo::dls::RecordsBlock;
use overstory_swarm::wire::{Reader, Short, put_array};

use crate::error::Error;

/// Bytes that a batch holds at most, decompressed: a value of the largest size and a usual batch fit.
const MAX_PLAIN: usize = 16 << 20;

/// Some records.
#[derive(Debug, Clone)]
pub struct Batch {
    node: Option<SocketAddrV4>,
    plain: Vec<u8>,
    /// Where the first record begins: what lies before it does not count any more.
    start: usize,
    count: usize,
    keys: Keys,
}

/// How timestamps are written in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Eight bytes (neo).
    Raw,
    /// An array of 16 hexadecimal digits (legacy).
    Text,
}

impl Batch {
    /// Decompresses a batch by neo. The records are looked at by [`Self::walk`].
    pub(super) fn raw(node: SocketAddrV4, records: &RecordsBlock<'_>) -> Result<Self, Error> {
        let mut plain = Vec::new();
        decode_block(records.plain_len, records.block, MAX_PLAIN, &mut plain)
            .map_err(|what| Error::protocol(node, what))?;
        Ok(Self { node: Some(node), plain, start: 0, count: 0, keys: Keys::Raw })
    }

    /// Decompresses a batch by legacy.
    pub(super) fn text(node: SocketAddrV4, bytes: &[u8]) -> Result<Self, Error> {
        let mut plain = Vec::new();
        decode(bytes, MAX_PLAIN, &mut plain).map_err(|what| Error::protocol(node, what))?;
        Ok(Self { node: Some(node), plain, start: 0, count: 0, keys: Keys::Text })
    }

    /// Makes an empty one for records that are sorted.
    pub(super) fn sorted(node: Option<SocketAddrV4>, capacity: usize) -> Self {
        Self { node, plain: Vec::with_capacity(capacity), start: 0, count: 0, keys: Keys::Raw }
    }

    /// Appends a record to one that was made by [`Self::sorted`].
    pub(super) fn push(&mut self, timestamp: i64, value: &[u8]) {
        self.plain.extend_from_slice(&timestamp.to_le_bytes());
        put_array(&mut self.plain, value);
        self.count += 1;
    }

    /// Bytes of the records with what is around them.
    pub(super) const fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Looks at every record, so that whoever iterates them meets no error. `each` gets its timestamp and its value, and
    /// says whether it counts; all those in front of the first one that does, do not.
    pub(super) fn walk<E>(&mut self, mut each: impl FnMut(i64, &[u8]) -> Result<bool, E>) -> Result<(), WalkError<E>> {
        let mut reader = Reader::new(self.plain.get(self.start..).unwrap_or_default());
        let (all, mut count, mut begin) = (self.plain.len(), 0, self.start);
        while !reader.is_empty() {
            let (timestamp, value) = record(&mut reader, self.keys).ok_or(WalkError::Record)?;
            if each(timestamp, value).map_err(WalkError::Other)? {
                count += 1;
            } else if count == 0 {
                begin = all - reader.len();
            }
        }
        (self.count, self.start) = (count, begin);
        Ok(())
    }

    /// The node that has the records; none if they are of several nodes, in order of time.
    #[must_use]
    pub const fn node(&self) -> Option<SocketAddrV4> {
        self.node
    }

    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records: timestamp and value.
    pub fn records(&self) -> impl Iterator<Item = (i64, &[u8])> + '_ {
        let mut reader = Reader::new(self.plain.get(self.start..).unwrap_or_default());
        std::iter::from_fn(move || if reader.is_empty() { None } else { record(&mut reader, self.keys) })
    }

    /// The timestamp of the first record.
    pub(super) fn first(&self) -> Option<i64> {
        self.records().next().map(|(timestamp, _)| timestamp)
    }

    /// Moves records from the front into another batch while they fit and that one has less than `most` bytes. Gives the
    /// timestamp of the first one that is left.
    pub(super) fn move_to(&mut self, other: &mut Self, most: usize, fits: impl Fn(i64) -> bool) -> Option<i64> {
        let all = self.plain.len();
        let mut reader = Reader::new(self.plain.get(self.start..).unwrap_or_default());
        while let Some((timestamp, value)) = record(&mut reader, self.keys) {
            if !fits(timestamp) || other.plain.len() >= most {
                return Some(timestamp);
            }
            other.push(timestamp, value);
            self.start = all - reader.len();
            self.count -= 1;
        }
        None
    }
}

/// A batch whose records could not be looked at.
pub(super) enum WalkError<E> {
    /// One is cut short, or its key is none.
    Record,
    /// What the caller found.
    Other(E),
}

#[inline]
fn record<'a>(reader: &mut Reader<'a>, keys: Keys) -> Option<(i64, &'a [u8])> {
    let read = |reader: &mut Reader<'a>| -> Result<Option<(i64, &'a [u8])>, Short> {
        let timestamp = match keys {
            Keys::Raw => Some(reader.i64()?),
            Keys::Text => Key::from_hex16(reader.array()?).map(|key| key.0.cast_signed()),
        };
        let value = reader.array()?;
        Ok(timestamp.map(|timestamp| (timestamp, value)))
    };
    read(reader).ok().flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use overstory_swarm::batch::BatchBuilder;

    use super::*;

    fn node() -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), 1)
    }

    fn both(records: &[(i64, &[u8])]) -> [Batch; 2] {
        let (mut raw, mut text) = (BatchBuilder::new(65536), BatchBuilder::new(65536));
        for (timestamp, value) in records {
            let _ = raw.refresh(timestamp.cast_unsigned(), value);
            let _ = text.pair(&Key(timestamp.cast_unsigned()).hex16(), value);
        }
        let (mut neo, mut legacy) = (Vec::new(), Vec::new());
        raw.finish(&mut neo);
        text.finish(&mut legacy);
        let (length, block) = neo.split_first_chunk().unwrap();
        let records = RecordsBlock { plain_len: u64::from_le_bytes(*length), block };
        [Batch::raw(node(), &records).unwrap(), Batch::text(node(), &legacy).unwrap()]
    }

    #[test]
    fn batches_of_both_protocols_are_read() {
        let records = [(1, &b"one"[..]), (-1, b""), (i64::MAX, b"three")];
        for mut batch in both(&records) {
            batch.walk(|_, _| Ok::<_, ()>(true)).ok().unwrap();
            assert_eq!(batch.records().collect::<Vec<_>>(), records);
            assert_eq!((batch.len(), batch.node(), batch.first()), (3, Some(node()), Some(1)));
            let mut other = Batch::sorted(None, 0);
            assert_eq!(batch.move_to(&mut other, usize::MAX, |timestamp| timestamp > 0), Some(-1));
            assert_eq!((batch.len(), batch.first(), other.len()), (2, Some(-1), 1));
            assert_eq!(batch.move_to(&mut other, 1, |_| true), Some(-1));
            assert_eq!(batch.move_to(&mut other, usize::MAX, |_| true), None);
            assert_eq!(other.records().collect::<Vec<_>>(), records);
        }
    }

    #[test]
    fn what_does_not_count_in_front_is_left_out() {
        let records = [(1, &b"one"[..]), (2, b"two"), (3, b"three")];
        for mut batch in both(&records) {
            batch.walk(|timestamp, _| Ok::<_, ()>(timestamp > 2)).ok().unwrap();
            assert_eq!(batch.records().collect::<Vec<_>>(), records[2..]);
            batch.walk(|_, _| Ok::<_, ()>(false)).ok().unwrap();
            assert!(batch.is_empty() && batch.records().next().is_none());
        }
    }

    #[test]
    fn a_batch_that_is_none_is_refused() {
        let mut builder = BatchBuilder::new(65536);
        let _ = builder.pair(b"no key", b"v");
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        let mut batch = Batch::text(node(), &bytes).unwrap();
        assert!(matches!(batch.walk(|_, _| Ok::<_, ()>(true)), Err(WalkError::Record)));
        let records = RecordsBlock { plain_len: u64::MAX, block: b"\x11\0\0" };
        assert!(matches!(Batch::raw(node(), &records), Err(Error::Protocol { .. })));
        assert!(matches!(Batch::text(node(), b"x"), Err(Error::Protocol { .. })));
    }
}

//! What the catalogue's file is made of: entries with a checksum each. Format: `docs/formats/catalogue.md`.
//!
//! ```text
//! 0      4        6      7
//! +------+--------+------+---------------+
//! | crc  | length | kind | body (length) |     little endian; crc over all that is behind it
//! +------+--------+------+---------------+
//! ```

use crate::bucket::BucketNumber;
use crate::format::Format;

use super::Entry;

/// The first bytes of the file: a magic, the version and their checksum.
pub(crate) const HEAD: usize = 16;
const MAGIC: [u8; 8] = *b"OVLSCATL";
const VERSION: u32 = 1;

/// Bytes of an entry in front of its body.
pub(crate) const FRAME: usize = 7;
/// Bytes of a body at most.
pub(crate) const MAX_BODY: usize = 256;
/// Bytes of a boot's identity that are kept.
pub(crate) const MAX_BOOT: usize = 64;

/// What the head of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Good,
    /// A later version of the node has written it.
    Newer(u32),
    Damaged,
}

/// The head of a file.
pub(crate) fn head() -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Reads the head of a file.
pub(crate) fn read_head(bytes: &[u8]) -> Head {
    let mut fields = Fields(bytes);
    match (fields.array::<12>(), fields.u32()) {
        (Some(front), Some(crc)) if crc32fast::hash(&front) == crc && front.starts_with(&MAGIC) => {
            let version = front.last_chunk().map_or(0, |version| u32::from_le_bytes(*version));
            if version == VERSION { Head::Good } else { Head::Newer(version) }
        }
        _ => Head::Damaged,
    }
}

/// Bytes that a write of the node has put into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

impl Write {
    pub(crate) const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// An entry of the log. Channels have numbers of the log's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A process begins to write.
    Run { boot: &'a [u8] },
    /// A channel and its number.
    Channel { id: u32, name: &'a [u8] },
    /// A channel that is gone with its buckets.
    ChannelRemoved { id: u32 },
    /// What is durable of a bucket; `more`: there may be bytes behind it.
    Bucket { id: u32, number: BucketNumber, entry: Entry, more: bool },
    /// A bucket that is gone.
    BucketRemoved { id: u32, number: BucketNumber },
    /// A bucket that is about to be written to, and what is durable of it; `only`: nothing that was told before counts.
    Touched { id: u32, number: BucketNumber, entry: Entry, only: bool },
    /// A write to a touched bucket has been made.
    Written { id: u32, number: BucketNumber, write: Write },
    /// Another file is about to be renamed over the bucket's.
    Replacing { id: u32, number: BucketNumber },
    /// When a directory was changed the last time: a slot's, or the channel's.
    Directory { id: u32, slot: Option<BucketNumber>, seconds: u64, nanos: u32 },
    /// All in front of this was durable when it was written.
    Mark,
    /// The process has ended in order.
    Closed,
}

impl Item<'_> {
    /// Adds the entry to the end of a buffer.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME]);
        let kind = self.body(out);
        let length = u16::try_from(out.len() - start - FRAME).unwrap_or(u16::MAX);
        if let Some(entry) = out.get_mut(start..) {
            entry[4..6].copy_from_slice(&length.to_le_bytes());
            entry[6] = kind;
            let crc = crc32fast::hash(&entry[4..]);
            entry[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn body(&self, out: &mut Vec<u8>) -> u8 {
        let mut bucket = |id: u32, number: BucketNumber| {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&u64::from(number).to_le_bytes());
        };
        match *self {
            Item::Run { boot } => {
                out.extend_from_slice(boot.get(..MAX_BOOT).unwrap_or(boot));
                1
            }
            Item::Channel { id, name } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(name);
                2
            }
            Item::ChannelRemoved { id } => {
                out.extend_from_slice(&id.to_le_bytes());
                3
            }
            Item::Bucket { id, number, entry, more } => {
                bucket(id, number);
                put_entry(&entry, more, out);
                4
            }
            Item::BucketRemoved { id, number } => {
                bucket(id, number);
                5
            }
            Item::Touched { id, number, entry, only } => {
                bucket(id, number);
                put_entry(&entry, only, out);
                6
            }
            Item::Written { id, number, write } => {
                bucket(id, number);
                for field in [write.offset, write.length, write.records, write.bytes] {
                    out.extend_from_slice(&field.to_le_bytes());
                }
                out.extend_from_slice(&write.crc.to_le_bytes());
                7
            }
            Item::Replacing { id, number } => {
                bucket(id, number);
                8
            }
            Item::Directory { id, slot, seconds, nanos } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&slot.map_or(u64::MAX, u64::from).to_le_bytes());
                out.extend_from_slice(&seconds.to_le_bytes());
                out.extend_from_slice(&nanos.to_le_bytes());
                9
            }
            Item::Mark => 10,
            Item::Closed => 11,
        }
    }
}

/// What stands at a place of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// An entry, and how many bytes it takes.
    Item(Item<'a>, usize),
    /// The bytes end before the entry does.
    Short,
    /// No entry.
    Bad,
}

/// Reads the entry at the front of some bytes.
pub(crate) fn next(bytes: &[u8]) -> Next<'_> {
    let mut fields = Fields(bytes);
    let (Some(crc), Some(length), Some([kind])) = (fields.u32(), fields.u16(), fields.array::<1>()) else {
        return Next::Short;
    };
    let length = usize::from(length);
    if length > MAX_BODY || !(1..=11).contains(&kind) {
        return Next::Bad;
    }
    let Some(body) = fields.0.get(..length) else { return Next::Short };
    let size = FRAME + length;
    if bytes.get(4..size).is_none_or(|checked| crc32fast::hash(checked) != crc) {
        return Next::Bad;
    }
    item(kind, body).map_or(Next::Bad, |item| Next::Item(item, size))
}

fn item(kind: u8, body: &[u8]) -> Option<Item<'_>> {
    let mut fields = Fields(body);
    let item = match kind {
        1 => Item::Run { boot: fields.rest() },
        2 => Item::Channel { id: fields.u32()?, name: fields.rest() },
        3 => Item::ChannelRemoved { id: fields.u32()? },
        4 => {
            let (id, number) = (fields.u32()?, fields.number()?);
            let (entry, more) = fields.entry()?;
            Item::Bucket { id, number, entry, more }
        }
        5 => Item::BucketRemoved { id: fields.u32()?, number: fields.number()? },
        6 => {
            let (id, number) = (fields.u32()?, fields.number()?);
            let (entry, only) = fields.entry()?;
            Item::Touched { id, number, entry, only }
        }
        7 => {
            let (id, number) = (fields.u32()?, fields.number()?);
            let (offset, length, records, bytes) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
            Item::Written { id, number, write: Write { offset, length, records, bytes, crc: fields.u32()? } }
        }
        8 => Item::Replacing { id: fields.u32()?, number: fields.number()? },
        9 => {
            let (id, slot) = (fields.u32()?, fields.u64()?);
            let slot = if slot == u64::MAX { None } else { Some(number(slot)?) };
            Item::Directory { id, slot, seconds: fields.u64()?, nanos: fields.u32()? }
        }
        10 => Item::Mark,
        11 => Item::Closed,
        _ => return None,
    };
    fields.0.is_empty().then_some(item)
}

/// Whether the bucket has been looked into from its front to its end.
const COUNTED: u8 = 0x10;
/// Whether there may be bytes behind what the entry says; of a touched bucket, whether it is all that is known.
const MORE: u8 = 0x20;

fn put_entry(entry: &Entry, more: bool, out: &mut Vec<u8>) {
    let format = match entry.format {
        None => 0,
        Some(Format::Plain) => 1,
        Some(Format::V1) => 2,
        Some(Format::V2) => 3,
    };
    out.push(format | if entry.counted { COUNTED } else { 0 } | if more { MORE } else { 0 });
    for field in [entry.length, entry.records, entry.bytes] {
        out.extend_from_slice(&field.to_le_bytes());
    }
}

/// A number of 52 bits.
fn number(raw: u64) -> Option<BucketNumber> {
    let number = BucketNumber::of(raw << 12);
    (u64::from(number) == raw).then_some(number)
}

/// The bytes of a body that are not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn number(&mut self) -> Option<BucketNumber> {
        self.u64().and_then(number)
    }

    fn entry(&mut self) -> Option<(Entry, bool)> {
        let [flags] = self.array()?;
        let format = match flags & !(COUNTED | MORE) {
            0 => None,
            1 => Some(Format::Plain),
            2 => Some(Format::V1),
            3 => Some(Format::V2),
            _ => return None,
        };
        let (length, records, bytes) = (self.u64()?, self.u64()?, self.u64()?);
        Some((Entry { format, counted: flags & COUNTED != 0, length, records, bytes }, flags & MORE != 0))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item<'static>> {
        let number = BucketNumber::of(0x5727_5806);
        let entry = Entry { format: Some(Format::V2), counted: true, length: 3, records: 1, bytes: u64::MAX };
        vec![
            Item::Run { boot: b"a-boot" },
            Item::Channel { id: 7, name: b"log" },
            Item::ChannelRemoved { id: 7 },
            Item::Bucket { id: 7, number, entry, more: true },
            Item::Bucket { id: 7, number, entry: Entry { format: None, counted: false, ..entry }, more: false },
            Item::BucketRemoved { id: 7, number: BucketNumber::of(u64::MAX) },
            Item::Touched { id: 7, number, entry: Entry::EMPTY, only: false },
            Item::Touched { id: 7, number, entry, only: true },
            Item::Written { id: 7, number, write: Write { offset: 1, length: 2, records: 3, bytes: 4, crc: 5 } },
            Item::Replacing { id: 7, number },
            Item::Directory { id: 7, slot: None, seconds: 8, nanos: 9 },
            Item::Directory { id: 7, slot: Some(number), seconds: 8, nanos: 9 },
            Item::Mark,
            Item::Closed,
        ]
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for item in items() {
            let mut bytes = Vec::new();
            item.write(&mut bytes);
            let size = bytes.len();
            bytes.extend_from_slice(b"more");
            assert_eq!(next(&bytes), Next::Item(item, size));
            for cut in 0..size {
                assert_eq!(next(&bytes[..cut]), Next::Short, "{item:?} cut to {cut}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_makes_no_entry_of_another() {
        for item in items() {
            let mut bytes = Vec::new();
            item.write(&mut bytes);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(next(&damaged), Next::Item(..)), "{item:?} bit {bit}");
            }
        }
        assert_eq!(next(&[0; 64]), Next::Bad);
    }

    #[test]
    fn the_head_tells_a_later_version_from_damage() {
        let good = head();
        assert_eq!(read_head(&good), Head::Good);
        assert_eq!(read_head(&good[..15]), Head::Damaged);
        let mut later = good;
        later[8] = 2;
        assert_eq!(read_head(&later), Head::Damaged);
        let crc = crc32fast::hash(&later[..12]);
        later[12..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_head(&later), Head::Newer(2));
    }
}

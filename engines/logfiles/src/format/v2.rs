//! Format 2: blocks of records with checksums, compressed or not. See `docs/formats/bucket.md`.
//!
//! ```text
//! file:  header 16 | block | block | ... | index (optional) | block | ...
//! block: "OVSBLOCK" | offset u64 | min key u64 | max key u64 | records u32 | plain u32 | stored u32 |
//!        codec u32 | crc32 of the stored bytes | crc32 of this header so far | stored bytes
//! ```
//!
//! Plain content: records in plain framing. A header says where in the file it is, so that a block that is the value of a
//! record is never taken for one of the file.

mod index;

use zstd::bulk::Compressor;

use crate::bucket::KeyRange;
use crate::record::{Framing, Head, MAX_VALUE, size};

pub(crate) use index::IndexHeader;
pub use index::{Entry, Index};

/// The bytes of a block's header.
pub const BLOCK_HEADER: usize = 56;

/// The most content of a block that has more than one record.
pub const MAX_BLOCK: usize = 1 << 20;

/// The most content of a block: a record that is larger than [`MAX_BLOCK`].
pub const MAX_CONTENT: usize = size(Framing::Plain, MAX_VALUE);

const BLOCK_MAGIC: [u8; 8] = *b"OVSBLOCK";
/// What the headers of blocks and of indices begin with.
pub(crate) const MAGIC_FRONT: &[u8] = b"OVS";

const CODEC_NONE: u32 = 0;
const CODEC_ZSTD: u32 = 1;

/// What a block's header says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The keys of the records: the lowest and the highest.
    pub keys: KeyRange,
    /// The number of records.
    pub records: u32,
    /// The bytes of the content: all records with their heads.
    pub plain: u32,
    /// The bytes of the content as it is stored behind the header.
    pub stored: u32,
    /// Whether it is compressed.
    pub compressed: bool,
    /// The checksum of the stored bytes.
    pub crc: u32,
}

/// Why bytes are no header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoBlock;

impl BlockHeader {
    /// Reads the header that is at an offset of a file.
    ///
    /// # Errors
    /// Fewer than [`BLOCK_HEADER`] bytes, a wrong checksum, another offset, or lengths that no block has.
    pub fn read(bytes: &[u8], offset: u64) -> Result<Self, NoBlock> {
        let header: &[u8; BLOCK_HEADER] = bytes.first_chunk().ok_or(NoBlock)?;
        let (fields, crc) = header.split_last_chunk::<4>().ok_or(NoBlock)?;
        if fields[..8] != BLOCK_MAGIC || crc32fast::hash(fields) != u32::from_le_bytes(*crc) {
            return Err(NoBlock);
        }
        let mut fields = Fields(&fields[8..]);
        let written_at = fields.u64();
        let (low, high) = (fields.u64(), fields.u64());
        let (records, plain, stored) = (fields.u32(), fields.u32(), fields.u32());
        let (codec, content_crc) = (fields.u32(), fields.u32());
        let limit = if records == 1 { MAX_CONTENT } else { MAX_BLOCK };
        let heads = u64::from(records) * Framing::Plain.head() as u64;
        let compressed = codec == CODEC_ZSTD;
        let fits = plain as usize <= limit && u64::from(plain) >= heads && records > 0;
        let stored_fits = if compressed { stored < plain } else { stored == plain };
        let known = compressed || codec == CODEC_NONE;
        let keys = KeyRange::new(low, high).ok_or(NoBlock)?;
        if written_at != offset || !fits || !stored_fits || !known {
            return Err(NoBlock);
        }
        Ok(Self { keys, records, plain, stored, compressed, crc: content_crc })
    }

    /// The bytes of header and stored content together.
    #[must_use]
    pub const fn size(&self) -> usize {
        BLOCK_HEADER + self.stored as usize
    }

    /// The bytes of the values.
    #[must_use]
    pub const fn value_bytes(&self) -> u64 {
        (self.plain as u64).saturating_sub(self.records as u64 * Framing::Plain.head() as u64)
    }

    fn write(&self, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&BLOCK_MAGIC);
        for field in [offset, self.keys.low, self.keys.high] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let codec = if self.compressed { CODEC_ZSTD } else { CODEC_NONE };
        for field in [self.records, self.plain, self.stored, codec, self.crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

/// Makes blocks of records.
pub struct Encoder {
    /// None: store without compression.
    zstd: Option<Compressor<'static>>,
    compressed: Vec<u8>,
}

impl Encoder {
    /// An encoder that compresses with a level of zstd, 1 to 19; at level 0 it does not compress.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new(level: i32) -> std::io::Result<Self> {
        let zstd = if level == 0 { None } else { Some(Compressor::new(level)?) };
        Ok(Self { zstd, compressed: Vec::new() })
    }

    /// Adds the blocks of some records, in their order, to the end of a buffer whose byte `out.len()` will be at `offset`
    /// of the file. One block, unless the records are more than [`MAX_BLOCK`]. Gives how many records it were.
    ///
    /// # Panics
    /// The bytes are not records in plain framing, as [`record::put`](crate::record::put) makes them.
    pub fn encode(&mut self, offset: u64, mut records: &[u8], out: &mut Vec<u8>) -> u64 {
        let start = out.len();
        let mut count = 0;
        while !records.is_empty() {
            let extent = Extent::of(records);
            assert!(extent.count > 0, "records in plain framing");
            let (content, rest) = records.split_at(extent.bytes);
            self.block(offset + (out.len() - start) as u64, content, &extent, out);
            count += u64::from(extent.count);
            records = rest;
        }
        count
    }

    fn block(&mut self, offset: u64, content: &[u8], extent: &Extent, out: &mut Vec<u8>) {
        let compressed = self.compress(content);
        let stored = if compressed { self.compressed.as_slice() } else { content };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let header = BlockHeader {
            keys: extent.keys,
            records: extent.count,
            plain: length(content),
            stored: length(stored),
            compressed,
            crc: crc32fast::hash(stored),
        };
        header.write(offset, out);
        out.extend_from_slice(stored);
    }

    /// Whether compression made it smaller.
    fn compress(&mut self, content: &[u8]) -> bool {
        let Some(zstd) = &mut self.zstd else { return false };
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(content.len()));
        zstd.compress_to_buffer(content, &mut self.compressed).is_ok() && self.compressed.len() < content.len()
    }
}

/// Adds the blocks of some records to the end of a buffer: see [`Encoder::encode`], which keeps its memory.
///
/// # Errors
/// No memory for the compressor.
pub fn encode_block(offset: u64, records: &[u8], level: i32, out: &mut Vec<u8>) -> std::io::Result<u64> {
    Ok(Encoder::new(level)?.encode(offset, records, out))
}

/// The records at the front of some bytes that go into one block.
struct Extent {
    bytes: usize,
    count: u32,
    keys: KeyRange,
}

impl Extent {
    fn of(records: &[u8]) -> Self {
        let mut extent = Self { bytes: 0, count: 0, keys: KeyRange { low: u64::MAX, high: 0 } };
        while let Some(head) = Head::read(Framing::Plain, &records[extent.bytes..]) {
            let left = records.len() - extent.bytes - Framing::Plain.head();
            let Some(length) = usize::try_from(head.length).ok().filter(|length| *length <= left) else { break };
            let end = extent.bytes + size(Framing::Plain, length);
            if extent.count > 0 && end > MAX_BLOCK {
                break;
            }
            extent.bytes = end;
            extent.count += 1;
            extent.keys.low = extent.keys.low.min(head.key);
            extent.keys.high = extent.keys.high.max(head.key);
        }
        extent
    }
}

/// Little-endian numbers from the front of bytes; zeros when there are no more.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

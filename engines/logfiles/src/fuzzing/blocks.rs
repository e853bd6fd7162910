//! The blocks and indices of format 2.

use super::input::{Input, Memory, Records};
use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::format::Format;
use crate::format::v2::{BLOCK_HEADER, BlockHeader, Encoder, Index, MAX_CONTENT};
use crate::record::{self, Framing};
use crate::walk::{Step, Walker, read_file};

/// Any bytes behind a header of a block whose checksums are right, so that the fields themselves are what is tried.
///
/// bucket u8 | codec u8 | records u16 | plain bytes u16 | keys, 2 u16 | stored bytes
pub(super) fn any(data: &[u8]) {
    assert!(BlockHeader::read(data, 16).is_err() || data.len() >= BLOCK_HEADER);
    let mut input = Input(data);
    let (number, codec, records) = (input.bucket(), u32::from(input.byte() % 3), u32::from(input.number()));
    let (plain, low, high) = (u32::from(input.number()), input.number(), input.number());
    let stored = input.0;
    let length = u32::try_from(stored.len()).unwrap_or(u32::MAX);
    // Where both are the same, as they are without compression.
    let plain = if codec == 0 && plain % 2 == 0 { length } else { plain };
    let mut file = Format::V2.header().to_vec();
    let begin = file.len();
    file.extend_from_slice(b"OVSBLOCK");
    let keys = [low, high].map(|low| number.first_key().wrapping_add(u64::from(low)));
    [begin as u64, keys[0], keys[1]].iter().for_each(|field| file.extend_from_slice(&field.to_le_bytes()));
    let fields = [records, plain, length, codec, crc32fast::hash(stored)];
    fields.iter().for_each(|field| file.extend_from_slice(&field.to_le_bytes()));
    file.extend_from_slice(&crc32fast::hash(&file[begin..]).to_le_bytes());
    file.extend_from_slice(stored);
    if let Ok(header) = BlockHeader::read(&file[begin..], begin as u64) {
        assert_eq!((header.records, header.plain, header.stored), (records, plain, length));
        assert!(header.plain as usize <= MAX_CONTENT && header.records > 0 && header.keys.low <= header.keys.high);
        assert_eq!(header.size(), BLOCK_HEADER + stored.len());
        assert!(header.value_bytes() < u64::from(header.plain));
    }
    let mut walker = Walker::new(Format::V2, number, file.len() as u64);
    let mut count = 0_u64;
    let summary = read_file(&Memory::of(&file), &mut walker, &mut |key, value| {
        assert!(number.holds(key) && record::is_valid(key, value.len()));
        count += 1;
    });
    let summary = summary.expect("a file in memory");
    assert!(count <= u64::from(records), "no more records than the header tells of");
    let is_whole = summary.damage_count == 0;
    assert!(!is_whole || count == u64::from(records), "all records, or a damage");
}

/// bucket u8 | level u8 | offset u16 | records
pub(super) fn round_trip(data: &[u8]) {
    let mut input = Input(data);
    let (number, level, offset) = (input.bucket(), i32::from(input.byte() % 4), u64::from(input.number()));
    let records = input.records(number);
    let mut plain = Vec::new();
    records.iter().for_each(|(key, value)| record::put(Framing::Plain, *key, value, &mut plain));
    let mut blocks = b"before".to_vec();
    let count = Encoder::new(level).expect("memory").encode(offset, &plain, &mut blocks);
    assert_eq!(count, records.len() as u64);
    let blocks = blocks.strip_prefix(b"before").expect("what was there before");
    let mut file = vec![0; usize::try_from(offset).expect("an offset")];
    file.extend_from_slice(blocks);
    let mut walker = Walker::new(Format::V2, number, file.len() as u64).starting_at(offset);
    // At offset 0 the front of the file would be looked at.
    if offset == 0 {
        return;
    }
    let mut found = Records::new();
    let step = walker.next(blocks, &mut |key, value| {
        found.push((key, value.to_vec()));
        true
    });
    assert_eq!((step, found), (Step::End, records));
}

/// A walk by the index gives what a walk from block to block does.
///
/// bucket u8 | first and last key, 2 u16 | records | damages
pub(super) fn index(data: &[u8]) {
    let mut input = Input(data);
    let number = input.bucket();
    let (one, other) = (u64::from(input.number() & 0xfff), u64::from(input.number() & 0xfff));
    let range = KeyRange { low: number.first_key() | one.min(other), high: number.first_key() | one.max(other) };
    let mut file = input.file(Format::V2, number);
    let whole = Memory::of(&file);
    if let Some(index) = Index::read(&whole, file.len() as u64).expect("a file in memory") {
        let mut again = Vec::new();
        index.write(0, &mut again);
        assert_eq!(again.len(), index.entries().len() * 24 + 48);
        assert_eq!(in_range(&file, number, range, Some(index)), in_range(&file, number, range, None));
    }
    input.damage(&mut file);
    if let Some(index) = Index::read(&Memory::of(&file), file.len() as u64).expect("a file in memory") {
        assert_eq!(in_range(&file, number, range, Some(index)), in_range(&file, number, range, None));
    }
}

fn in_range(file: &[u8], number: BucketNumber, range: KeyRange, index: Option<Index>) -> Records {
    let mut walker = Walker::new(Format::V2, number, file.len() as u64).with_ranges(Ranges::one(range));
    if let Some(index) = index {
        walker = walker.with_index(index);
    }
    let mut records = Records::new();
    let visit = &mut |key, value: &[u8]| records.push((key, value.to_vec()));
    read_file(&Memory::of(file), &mut walker, visit).expect("a file in memory");
    records
}

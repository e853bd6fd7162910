//! Every bit of every offset of small buckets is flipped once: what is damaged is told, nothing else is lost, and what
//! comes out was written, except where `docs/formats/bucket.md` says that it cannot be told.

use std::ops::Range;

use super::*;

/// A few records, one of them empty, and one whose value is a bucket itself, of another number.
fn records() -> Records {
    let base = bucket().first_key();
    let mut inner = Format::V1.header().to_vec();
    record::put(Framing::V1, 0x1234_5678, b"a record in a record", &mut inner);
    vec![
        (base + 6, b"line one".to_vec()),
        (base + 6, b"the same key again".to_vec()),
        (base + 4095, Vec::new()),
        (base, inner),
        (base + 1, vec![0; 40]),
        (base + 7, b"the last one".to_vec()),
    ]
}

/// What the flip of a bit does, as it is documented.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    /// Told, and nothing is lost.
    Told(Range<usize>),
    /// Told, and some of the records are lost.
    Lost(Range<usize>, Vec<usize>),
    /// Not told: this record is another one.
    Changed(usize),
}

fn check(bytes: &[u8], effect: impl Fn(usize, u32) -> Effect) {
    let records = records();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            let (found, summary) = read(&damaged);
            let expected = effect(at, bit);
            let (told, lost) = match &expected {
                Effect::Told(range) => (Some(range), Vec::new()),
                Effect::Lost(range, lost) => (Some(range), lost.clone()),
                Effect::Changed(_) => (None, Vec::new()),
            };
            let ranges: Vec<_> =
                summary.damages.iter().map(|damage| damage.offset..damage.offset + damage.bytes).collect();
            let told: Vec<_> = told.into_iter().map(|range| range.start as u64..range.end as u64).collect();
            assert_eq!(ranges, told, "bit {bit} of byte {at}: {expected:?}");
            let kept: Vec<_> = (0..records.len()).filter(|index| !lost.contains(index)).collect();
            assert_eq!(found.len(), kept.len(), "bit {bit} of byte {at}: {expected:?}");
            for (found, index) in found.iter().zip(kept) {
                let changed = expected == Effect::Changed(index);
                assert_eq!(*found != records[index], changed, "bit {bit} of byte {at}: {expected:?}");
            }
        }
    }
}

/// The record of a published format that a byte belongs to: its number, its place, and where in it the byte is.
fn record_at(header: usize, framing: Framing, at: usize) -> (usize, Range<usize>, usize) {
    let mut start = header;
    for (index, (_, value)) in records().iter().enumerate() {
        let end = start + record::size(framing, value.len());
        if at < end {
            return (index, start..end, at - start);
        }
        start = end;
    }
    panic!("no record at {at}");
}

#[test]
fn in_format_1_every_bit_but_those_of_values_is_guarded() {
    check(&written(Format::V1, &records()), |at, _| {
        if at < HEADER {
            return Effect::Told(0..HEADER);
        }
        let (index, range, at) = record_at(HEADER, Framing::V1, at);
        if at < 17 { Effect::Lost(range, vec![index]) } else { Effect::Changed(index) }
    });
}

#[test]
fn without_a_header_the_lower_bits_of_keys_are_not_guarded_either() {
    check(&written(Format::Plain, &records()), |at, bit| {
        let (index, range, at) = record_at(0, Framing::Plain, at);
        let free = at == 0 || (at == 1 && bit < 4) || at >= 16;
        if free { Effect::Changed(index) } else { Effect::Lost(range, vec![index]) }
    });
}

#[test]
fn in_format_2_every_bit_is_guarded_and_a_block_is_lost_at_most() {
    // One block and an index.
    let bytes = written(Format::V2, &records());
    let end = block_end(&bytes, HEADER);
    check(&bytes, |at, _| match at {
        0..HEADER => Effect::Told(0..HEADER),
        _ if at < end => Effect::Lost(HEADER..end, (0..records().len()).collect()),
        _ => Effect::Told(end..bytes.len()),
    });
    // A block for every record.
    let bytes = many_blocks(&records());
    check(&bytes, |at, _| {
        if at < HEADER {
            return Effect::Told(0..HEADER);
        }
        let (mut start, mut index) = (HEADER, 0);
        while block_end(&bytes, start) <= at {
            (start, index) = (block_end(&bytes, start), index + 1);
        }
        Effect::Lost(start..block_end(&bytes, start), vec![index])
    });
}

fn block_end(bytes: &[u8], start: usize) -> usize {
    start + crate::format::v2::BlockHeader::read(&bytes[start..], start as u64).unwrap().size()
}

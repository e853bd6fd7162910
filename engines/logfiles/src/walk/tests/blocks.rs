//! Format 2: index, appends, blocks that are passed over, and blocks that lie.

use super::*;
use crate::format::v2::{BLOCK_HEADER, BlockHeader, Encoder, Index, MAX_BLOCK};

fn records(count: u64) -> Records {
    (0..count).map(|low| (bucket().first_key() + low, vec![low.to_le_bytes()[0]; 100])).collect()
}

fn with_index(bytes: &[u8]) -> Vec<u8> {
    let mut index = Index::default();
    index.add(HEADER as u64, &bytes[HEADER..]);
    let mut out = bytes.to_vec();
    index.write(bytes.len() as u64, &mut out);
    assert!(out.len() > bytes.len());
    out
}

/// Walks with an index; gives how many bytes were looked at as well.
fn walk(bytes: &[u8], low: u64, high: u64) -> (Records, usize) {
    let file = Memory::of(bytes);
    let mut walker = Walker::new(Format::V2, bucket(), bytes.len() as u64);
    if let Some(index) = Index::read(&file, bytes.len() as u64).unwrap() {
        walker = walker.with_index(index);
    }
    let base = bucket().first_key();
    let mut walker = walker.with_ranges(Ranges::one(KeyRange::new(base + low, base + high).unwrap()));
    let (mut records, mut seen) = (Records::new(), 0);
    let mut window = Window::new(1);
    loop {
        let step = walker.next(window.bytes(), &mut |key, value| {
            records.push((key, value.to_vec()));
            true
        });
        match step {
            Step::Need(need) => {
                seen += need;
                window.fill(&file, walker.offset(), need, bytes.len() as u64).unwrap();
            }
            Step::End => return (records, seen),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_index_leads_to_the_blocks_of_a_range_alone() {
    let records = records(1000);
    let bytes = many_blocks(&records);
    let indexed = with_index(&bytes);
    let (found, seen) = walk(&bytes, 500, 502);
    assert_eq!(found, records[500..=502]);
    let (found, seen_with_index) = walk(&indexed, 500, 502);
    assert_eq!(found, records[500..=502]);
    assert!(seen_with_index < 1000 && seen > 50_000, "{seen_with_index} and {seen} bytes");
    assert_eq!(walk(&indexed, 2000, 3000).0, []);
    assert_eq!(read(&indexed).0, records);
}

#[test]
fn blocks_are_appended_behind_an_index() {
    let records = records(30);
    let mut bytes = with_index(&many_blocks(&records[..20]));
    let offset = bytes.len() as u64;
    let mut plain = Vec::new();
    records[20..].iter().for_each(|(key, value)| record::put(Framing::Plain, *key, value, &mut plain));
    assert_eq!(Encoder::new(0).unwrap().encode(offset, &plain, &mut bytes), 10);
    let (found, summary) = read(&bytes);
    assert_eq!(found, records);
    assert_eq!(summary.damages, []);
    assert_eq!(Index::read(&Memory::of(&bytes), bytes.len() as u64).unwrap(), None);
    assert_eq!(walk(&bytes, 18, 22).0, records[18..=22]);
}

#[test]
fn a_damaged_index_loses_nothing() {
    let records = records(5);
    let bytes = many_blocks(&records);
    let indexed = with_index(&bytes);
    for at in bytes.len()..indexed.len() {
        let mut damaged = indexed.clone();
        damaged[at] ^= 0x10;
        assert_eq!(Index::read(&Memory::of(&damaged), damaged.len() as u64).unwrap(), None, "{at}");
        let (found, summary) = read(&damaged);
        assert_eq!(found, records, "{at}");
        assert_eq!((summary.damage_count, summary.good_len), (1, bytes.len() as u64), "{at}");
    }
    for cut in bytes.len() + 1..indexed.len() {
        assert_eq!(Index::read(&Memory::of(&indexed), cut as u64).unwrap(), None, "{cut}");
        assert_eq!(read(&indexed[..cut]).0, records, "{cut}");
    }
}

#[test]
fn an_index_that_leaves_out_the_front_of_the_file_is_none() {
    let bytes = many_blocks(&records(5));
    let first = BlockHeader::read(&bytes[HEADER..], HEADER as u64).unwrap().size();
    let mut index = Index::default();
    index.add((HEADER + first) as u64, &bytes[HEADER + first..]);
    assert_eq!(index.entries().len(), 4);
    let mut indexed = bytes.clone();
    index.write(bytes.len() as u64, &mut indexed);
    assert_eq!(Index::read(&Memory::of(&indexed), indexed.len() as u64).unwrap(), None);
    assert_eq!(walk(&indexed, 0, 4095).0, records(5));
}

#[test]
fn records_make_one_block_up_to_its_limit_and_a_large_one_has_its_own() {
    let key = bucket().first_key();
    let random: Vec<u8> = (0_u64..8 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let records = vec![
        (key, random[..600_000].to_vec()),
        (key, random[..400_000].to_vec()),
        (key + 1, random.clone()),
        (key + 2, vec![0; record::MAX_VALUE]),
        (key + 3, vec![]),
    ];
    let bytes = written(Format::V2, &records);
    let (found, summary) = read(&bytes);
    assert!(found == records, "the records");
    assert_eq!(summary.damages, []);
    let index = Index::read(&Memory::of(&bytes), bytes.len() as u64).unwrap().unwrap();
    assert_eq!(index.entries().len(), 4);
    let header = |at: usize| {
        let offset = index.entries()[at].offset;
        BlockHeader::read(&bytes[usize::try_from(offset).unwrap()..], offset).unwrap()
    };
    assert_eq!((header(0).records, header(0).value_bytes()), (2, 1_000_000));
    assert!(header(0).plain as usize <= MAX_BLOCK && header(1).plain as usize > MAX_BLOCK);
    assert!(header(2).compressed && header(2).stored < 10_000);
}

/// A block with a header that says what it wants, and is itself intact.
fn forged(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = many_blocks(&records(1));
    change(&mut bytes[HEADER..]);
    let end = HEADER + BLOCK_HEADER - 4;
    let crc = crc32fast::hash(&bytes[HEADER..end]).to_le_bytes();
    bytes[end..end + 4].copy_from_slice(&crc);
    bytes
}

#[test]
fn a_header_that_lies_costs_no_memory_and_gives_no_record() {
    let set = |at: usize, value: u32| forged(move |block| block[at..at + 4].copy_from_slice(&value.to_le_bytes()));
    let (records, plain, stored, codec, low_key) = (32, 36, 40, 44, 16);
    assert_eq!(read(&forged(|_| {})).0.len(), 1);
    let lies = [
        set(records, 0),
        set(records, 2),
        set(records, u32::MAX),
        set(plain, u32::MAX),
        set(plain, 115),
        set(plain, 117),
        set(stored, u32::MAX),
        set(stored, 3),
        set(codec, 0),
        set(codec, 2),
        set(low_key, 0),
        set(8, 17),
    ];
    for (lie, bytes) in lies.iter().enumerate() {
        let (found, summary) = read(bytes);
        // Two records are promised and one is there: that one is right by its checksum.
        assert_eq!(found.len(), usize::from(lie == 1), "{lie}");
        let damaged = (summary.damages[0].offset, summary.damaged_bytes);
        assert_eq!(damaged, (HEADER as u64, bytes.len() as u64 - HEADER as u64), "{lie}");
    }
}

#[test]
fn a_walk_stops_inside_of_a_block() {
    let records = records(50);
    let bytes = written(Format::V2, &records);
    let mut walker = Walker::new(Format::V2, bucket(), bytes.len() as u64);
    let mut found = Records::new();
    loop {
        let offset = usize::try_from(walker.offset()).unwrap();
        let mut room = 1;
        let step = walker.next(&bytes[offset..], &mut |key, value| {
            if room == 0 {
                return false;
            }
            room -= 1;
            found.push((key, value.to_vec()));
            true
        });
        if step == Step::End {
            break;
        }
        assert_eq!(step, Step::Paused);
        if found.len().is_multiple_of(3) {
            walker.slim();
            assert_eq!(walker.offset(), HEADER as u64);
        }
    }
    assert_eq!(found, records);
}

#[test]
fn a_walk_goes_from_thread_to_thread() {
    const fn is_send<T: Send>() {}
    is_send::<Walker>();
}

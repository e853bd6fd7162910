#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use overstory_swarm::key::Key;
use proptest::prelude::*;

use super::*;

const GOLDEN: [&[u8]; 2] = [
    include_bytes!("../../../../tests/vectors/files/chan-1.buffered.tcm"),
    include_bytes!("../../../../tests/vectors/files/chan-1.direct.tcm"),
];

/// Keys and values.
type Records = Vec<(u64, Vec<u8>)>;

/// What a dump gives: records, and what was passed over with its place and length.
fn read(dump: &[u8], limit: usize) -> (Records, Vec<(Reason, u64, u64)>) {
    let mut reader = Reader::new(dump, limit).unwrap();
    let (mut records, mut rejected) = (Vec::new(), Vec::new());
    loop {
        match reader.next_item().unwrap() {
            Item::Record { key, value } => records.push((key.0, value.to_vec())),
            Item::Rejected { offset, length, reason } => rejected.push((reason, offset, length)),
            Item::End => break,
        }
    }
    assert_eq!(reader.next_item().unwrap(), Item::End);
    (records, rejected)
}

fn dump(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::begin(&mut out);
    for (key, value) in records {
        Writer::record(&mut out, Key(*key), value);
    }
    Writer::finish(&mut out, 0);
    out
}

fn numbered(count: u64) -> Vec<(u64, Vec<u8>)> {
    (0..count).map(|key| (key, format!("value {key}").into_bytes())).collect()
}

#[test]
fn the_files_of_the_published_node_are_read_and_written_alike() {
    for golden in GOLDEN {
        let (records, rejected) = read(golden, 65_536);
        assert!(rejected.is_empty());
        assert_eq!(records.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [0xdead_beef_0000_0abc, 1, 2]);
        assert_eq!(records[0].1, (0..16).collect::<Vec<u8>>());
        assert_eq!(records[1].1, b"v");
        assert_eq!(records[2].1, b"hello world");
        assert_eq!(dump(&records), golden);
    }
}

#[test]
fn an_empty_channel_takes_one_block() {
    let empty = dump(&[]);
    assert_eq!(empty, [0; 512]);
    assert_eq!(read(&empty, 100), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_no_dump_is_told() {
    assert!(matches!(Reader::new(&b""[..], 1), Err(TcmError::Empty)));
    assert!(matches!(Reader::new(&b"1234567"[..], 1), Err(TcmError::TooShort { size: 7 })));
    assert!(matches!(Reader::new(&[1u8, 0, 0, 0, 0, 0, 0, 0][..], 1), Err(TcmError::Version { found: 1 })));
}

#[test]
fn raw_keys_and_upper_case_are_read_other_keys_are_passed_over() {
    let mut out = 0u64.to_le_bytes().to_vec();
    let mut record = |key: &[u8], value: &[u8]| {
        for part in [key, value] {
            out.extend((part.len() as u64).to_le_bytes());
            out.extend(part);
        }
    };
    record(&7u64.to_le_bytes(), b"raw");
    record(b"00000000DEADBEEF", b"upper");
    record(b"00000000deadbeeg", b"not hex");
    record(b"short", b"wrong length");
    record(b"0000000000000009", b"");
    record(b"000000000000000a", &[1; 101]);
    record(b"000000000000000b", &[1; 100]);
    out.extend([0; 8]);
    let (records, rejected) = read(&out, 100);
    assert_eq!(records, [(7, b"raw".to_vec()), (0xdead_beef, b"upper".to_vec()), (0xb, vec![1; 100])]);
    let reasons: Vec<Reason> = rejected.iter().map(|rejected| rejected.0).collect();
    assert_eq!(reasons, [Reason::BadKey, Reason::BadKey, Reason::EmptyValue, Reason::TooLarge]);
    assert_eq!(rejected[0].1, 8 + 27 + 37);
}

#[test]
fn every_cut_keeps_the_records_before_it() {
    let records = numbered(20);
    let whole = dump(&records);
    for length in 8..whole.len() {
        let (found, rejected) = read(&whole[..length], 1000);
        assert_eq!(found, records[..found.len()], "cut to {length}");
        let used: usize =
            8 + records[..found.len()].iter().map(|(_, value)| RECORD_OVERHEAD + value.len()).sum::<usize>();
        let next = records.get(found.len()).map_or(8, |(_, value)| RECORD_OVERHEAD + value.len());
        if found.len() < records.len() || length < used + 8 {
            assert!(length < used + next, "a whole record was left out at {length}");
            assert_eq!(rejected, [(Reason::Cut, used as u64, (length - used) as u64)]);
        } else {
            assert!(rejected.is_empty());
        }
    }
}

#[test]
fn every_flipped_bit_costs_at_most_the_records_it_touches() {
    let mut records = numbered(12);
    // No padding: a length that is changed so that it ends there hides what is between, in a format without checksums.
    let unpadded =
        |records: &[(u64, Vec<u8>)]| 16 + records.iter().map(|(_, value)| RECORD_OVERHEAD + value.len()).sum::<usize>();
    while !unpadded(&records).is_multiple_of(BLOCK) {
        records[11].1.push(b'x');
    }
    let whole = dump(&records);
    assert_eq!(whole.len(), unpadded(&records));
    for bit in 8 * 8..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (found, _) = read(&flipped, 1000);
        // A flip in a key or value changes that record, one in a length loses it, perhaps with its neighbours.
        let same = records.iter().filter(|record| found.contains(record)).count();
        assert!(same >= records.len() - 3, "bit {bit}: {same}");
        assert!(found.len() <= records.len(), "bit {bit}");
    }
}

#[test]
fn records_behind_garbage_are_found() {
    let records = numbered(1000);
    let mut damaged = dump(&records);
    for byte in &mut damaged[10_000..12_000] {
        *byte = 0xa5;
    }
    let (found, rejected) = read(&damaged, 1000);
    assert!(found.len() > 940, "{}", found.len());
    assert!(found.iter().all(|record| records.contains(record)));
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].0, Reason::Damaged);
    assert!(rejected[0].1 <= 10_000 && rejected[0].1 + rejected[0].2 >= 12_000);
}

#[test]
fn a_length_beyond_the_file_does_not_take_memory() {
    let mut out = dump(&numbered(1));
    out.truncate(8 + RECORD_OVERHEAD + 7);
    for length in [u64::MAX, 1 << 63, 1 << 40, u64::MAX - 40] {
        let mut hostile = out.clone();
        hostile.extend(16u64.to_le_bytes());
        hostile.extend(b"0000000000000001");
        hostile.extend(length.to_le_bytes());
        hostile.extend([7; 100]);
        let mut reader = Reader::new(&*hostile, usize::MAX).unwrap();
        assert!(matches!(reader.next_item().unwrap(), Item::Record { .. }));
        assert!(matches!(reader.next_item().unwrap(), Item::Rejected { reason: Reason::Cut, .. }));
        assert!(reader.memory() < 1 << 20);
    }
}

#[test]
fn more_zeros_at_the_end_do_no_harm_other_bytes_do_not_hide_records() {
    let records = numbered(3);
    let mut long = dump(&records);
    long.resize(1 << 20, 0);
    assert_eq!(read(&long, 100), (records.clone(), Vec::new()));
    // An end mark where a record's length lost its bit.
    let mut hidden = dump(&records);
    hidden[8] = 0;
    let (found, rejected) = read(&hidden, 100);
    assert_eq!(found, records[1..]);
    assert_eq!(rejected, [(Reason::Damaged, 8, 32 + 7)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        records in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 1..2000)), 0..300)
    ) {
        let dump = dump(&records);
        prop_assert_eq!(dump.len() % 512, 0);
        prop_assert_eq!(read(&dump, 2000), (records, Vec::new()));
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => Just(16), 1 => 48u8..58, 1 => any::<u8>()], 0..3000)) {
        let mut dump = vec![0; 8];
        dump.extend(bytes);
        let (records, rejected) = read(&dump, 500);
        let bytes: usize = records.iter().map(|(_, value)| value.len()).sum();
        let passed: u64 = rejected.iter().map(|rejected| rejected.2).sum();
        prop_assert!(bytes as u64 + passed <= dump.len() as u64);
    }
}

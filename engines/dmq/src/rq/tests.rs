#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::ring;

fn file_of(records: &[Vec<u8>]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut body = Vec::new();
    for record in records {
        body.extend((record.len() as u64).to_le_bytes());
        body.extend(record);
    }
    let mut writer = Writer::create(dir.path(), "sub@chan", records.len() as u64, body.len() as u64).unwrap();
    writer.write(&body).unwrap();
    writer.finish(true).unwrap().place().unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["sub@chan.rq"]);
    std::fs::read(dir.path().join("sub@chan.rq")).unwrap()
}

fn read(file: &[u8], max: usize) -> (Vec<Vec<u8>>, Option<Damage>) {
    let mut reader = Reader::new(file, file.len() as u64).unwrap();
    let (mut records, mut out) = (Vec::new(), Vec::new());
    while !reader.ended {
        out.clear();
        let count = reader.read(max, &mut out).unwrap();
        let before = records.len();
        records.extend(ring::records(&out).map(<[u8]>::to_vec));
        assert_eq!((records.len() - before) as u64, count);
    }
    (records, reader.damage())
}

fn some_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..12)
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in some_records(), max in 1..200_usize) {
        prop_assert_eq!(read(&file_of(&records), max), (records, None));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(prop_oneof![2 => 0..4_u8, 1 => any::<u8>()], 0..300)) {
        let (records, damage) = read(&bytes, 64);
        let taken: usize = records.iter().map(|record| 8 + record.len()).sum();
        prop_assert!(taken <= bytes.len());
        prop_assert!(damage.is_some() || taken + 12 == bytes.len());
    }

    #[test]
    fn a_cut_file_gives_what_is_whole_and_tells(records in some_records(), cut in any::<prop::sample::Index>()) {
        let file = file_of(&records);
        let (found, damage) = read(&file[..cut.index(file.len())], 64);
        prop_assert!(damage.is_some());
        prop_assert_eq!(&found[..], &records[..found.len()]);
    }

    #[test]
    fn a_flipped_bit_outside_of_the_values_is_told(records in some_records(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut file = file_of(&records);
        let (at, mut offset, mut within) = (at.index(file.len()), 12, false);
        file[at] ^= 1_u8 << bit;
        for record in &records {
            within |= at >= offset + 8 && at < offset + 8 + record.len();
            offset += 8 + record.len();
        }
        let (found, damage) = read(&file, 64);
        prop_assert_eq!(damage.is_none(), within);
        let whole = records.iter().zip(&found).take_while(|(one, other)| one == other).count();
        let before = records.iter().scan(12, |end, record| { *end += 8 + record.len(); Some(*end) }).filter(|end| *end <= at).count();
        prop_assert!(whole >= before, "all in front of the damage are there");
    }
}

#[test]
fn bytes_behind_the_end_and_records_without_bytes_are_told() {
    let records = vec![b"one".to_vec(), b"two".to_vec()];
    let mut file = file_of(&records);
    let end = file.len() as u64;
    file.extend([0; 5]);
    assert_eq!(read(&file, 64), (records.clone(), Some(Damage::Rest { offset: end, bytes: 5 })));

    let holes = [b"one".to_vec(), Vec::new(), b"two".to_vec(), Vec::new()];
    assert_eq!(read(&file_of(&holes), 64), (records, Some(Damage::Empty { records: 2, offset: 23 })));

    let (found, damage) = read(&[0; 4096], 64);
    assert_eq!((found.len(), damage), (0, Some(Damage::Rest { offset: 12, bytes: 4084 })));
}

#[test]
fn a_length_of_many_exabytes_takes_no_memory() {
    let mut file = file_of(&[b"one".to_vec(), b"two".to_vec()]);
    file[23..31].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(read(&file, 64), (vec![b"one".to_vec()], Some(Damage::Cut { offset: 23 })));
}

#[test]
fn what_cannot_be_finished_leaves_nothing_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("chan.rq/inside")).unwrap();
    let writer = Writer::create(dir.path(), "chan", 0, 0).unwrap();
    writer.finish(false).unwrap().place().unwrap_err();
    assert!(dir.path().join("chan.rq/inside").exists());
    assert!(!dir.path().join("chan.rq.tmp").exists());
    drop(Writer::create(dir.path(), "other", 0, 0).unwrap());
    assert!(!dir.path().join("other.rq.tmp").exists());
    Writer::create(dir.path(), "many", 1 << 32, 0).unwrap_err();
    Writer::create(&dir.path().join("missing"), "chan", 0, 0).unwrap_err();
}

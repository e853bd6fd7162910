#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]

mod blocks;
mod damage;
mod flips;
mod golden;
mod speed;

use std::io;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::disk::File;
use crate::format::{BucketWriter, FRONT};
use crate::record;

/// A file in memory.
#[derive(Default)]
pub(super) struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn of(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl File for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let length = bytes.len().max(offset + written.len());
        bytes.resize(length, 0);
        bytes[offset..offset + written.len()].copy_from_slice(written);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) type Records = Vec<(u64, Vec<u8>)>;

pub(super) const FORMATS: [Format; 3] = [Format::Plain, Format::V1, Format::V2];

/// The bucket of all records here.
pub(super) fn bucket() -> BucketNumber {
    BucketNumber::of(0x5727_5000)
}

pub(super) fn written(format: Format, records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let file = Memory::default();
    let mut writer = BucketWriter::new(&file, format, 3).unwrap();
    for (key, value) in records {
        writer.push(*key, value).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!((written.records, written.length), (records.len() as u64, file.len().unwrap()));
    file.bytes()
}

/// The records as blocks of one record each, behind a header: as many small writes leave them.
pub(super) fn many_blocks(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Format::V2.header().to_vec();
    for (key, value) in records {
        let mut plain = Vec::new();
        record::put(Framing::Plain, *key, value, &mut plain);
        let offset = out.len() as u64;
        crate::format::v2::encode_block(offset, &plain, 3, &mut out).unwrap();
    }
    out
}

/// All records of a file and what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> (Records, Summary) {
    let Some(format) = Format::of(&bytes[..bytes.len().min(FRONT)]) else { return Default::default() };
    read_as(format, bytes)
}

pub(super) fn read_as(format: Format, bytes: &[u8]) -> (Records, Summary) {
    let mut records = Records::new();
    let mut walker = Walker::new(format, bucket(), bytes.len() as u64);
    let summary =
        read_file(&Memory::of(bytes), &mut walker, &mut |key, value| records.push((key, value.to_vec()))).unwrap();
    assert_eq!(summary.records, records.len() as u64);
    (records, summary)
}

/// Walks with windows of the sizes that are asked for, and up to `extra` bytes more.
fn read_split(mut walker: Walker, bytes: &[u8], extra: impl Fn(usize) -> usize) -> (Records, Vec<Damage>) {
    let (mut records, mut damages) = (Records::new(), Vec::new());
    let mut length = 0;
    // Every step is an advance: more than these are a loop without end.
    for turn in 0..=bytes.len() * 4 + 16 {
        let offset = usize::try_from(walker.offset()).unwrap();
        let before = walker.offset();
        let window = &bytes[offset..bytes.len().min(offset + length)];
        let refuse = extra(turn) % 3 == 1;
        let mut taken = 0;
        let step = walker.next(window, &mut |key, value| {
            if refuse && taken == 1 {
                return false;
            }
            taken += 1;
            records.push((key, value.to_vec()));
            true
        });
        match step {
            Step::Need(need) => {
                let offset = usize::try_from(walker.offset()).unwrap();
                assert!(need <= bytes.len() - offset, "more than the file has is needed");
                assert!(offset > usize::try_from(before).unwrap() || need > window.len(), "what is there is needed");
                length = need + extra(turn);
            }
            Step::Damaged(damage) => damages.push(damage),
            Step::Paused => assert_eq!(taken, 1, "paused without taking one"),
            Step::End => return (records, damages),
        }
    }
    panic!("the walk does not end");
}

prop_compose! {
    fn any_records()(records in prop::collection::vec((0_u64..4096, prop::collection::vec(any::<u8>(), 0..60)), 0..20))
        -> Records {
        records.into_iter().map(|(low, value)| (bucket().first_key() | low, value)).collect()
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read_however_the_windows_are_cut(
        records in any_records(), extra in prop::collection::vec(0_usize..80, 1..8)
    ) {
        for format in FORMATS {
            let bytes = written(format, &records);
            let walker = Walker::new(format, bucket(), bytes.len() as u64);
            let (found, damages) = read_split(walker, &bytes, |turn| extra[turn % extra.len()]);
            prop_assert_eq!(&found, &records);
            prop_assert_eq!(damages, []);
            let (found, summary) = read_as(format, &bytes);
            prop_assert_eq!(&found, &records);
            prop_assert_eq!((summary.good_len, summary.end), (bytes.len() as u64, bytes.len() as u64));
        }
    }

    #[test]
    fn random_bytes_end_and_give_no_records(
        bytes in prop::collection::vec(any::<u8>(), 0..600), extra in prop::collection::vec(0_usize..80, 1..8)
    ) {
        for format in FORMATS {
            let (found, damages) = read_split(
                Walker::new(format, bucket(), bytes.len() as u64), &bytes, |turn| extra[turn % extra.len()]);
            prop_assert_eq!(found, []);
            prop_assert_eq!(damages.is_empty(), bytes.len() < HEADER);
        }
    }

    #[test]
    fn damaged_files_are_read_alike_however_the_windows_are_cut(
        records in any_records(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        extra in prop::collection::vec(0_usize..80, 1..8),
    ) {
        for mut bytes in [written(Format::Plain, &records), written(Format::V1, &records), many_blocks(&records)] {
            for (place, byte) in &damage {
                if !bytes.is_empty() {
                    let at = place.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len() + 1) / 4);
            for format in FORMATS {
                let walker = Walker::new(format, bucket(), bytes.len() as u64);
                let (found, damages) = read_split(walker, &bytes, |turn| extra[turn % extra.len()]);
                let (whole, summary) = read_as(format, &bytes);
                prop_assert_eq!(found, whole);
                prop_assert_eq!(&damages, &summary.damages);
                let ordered = damages.windows(2).all(|pair| pair[0].offset + pair[0].bytes <= pair[1].offset);
                prop_assert!(ordered && damages.iter().all(|damage| damage.bytes > 0));
            }
        }
    }
}

#[test]
fn only_records_of_the_ranges_are_given() {
    let base = bucket().first_key();
    let records: Records = (0..20).map(|low| (base + low, vec![low.to_le_bytes()[0]; 30])).collect();
    let ranges = Ranges::one(KeyRange::new(base + 5, base + 7).unwrap());
    for (format, bytes) in [
        (Format::Plain, written(Format::Plain, &records)),
        (Format::V1, written(Format::V1, &records)),
        (Format::V2, many_blocks(&records)),
    ] {
        let walker = Walker::new(format, bucket(), bytes.len() as u64).with_ranges(ranges);
        let (found, damages) = read_split(walker, &bytes, |_| 7);
        assert_eq!(found, records[5..=7], "{format}");
        assert_eq!(damages, []);
    }
}

#[test]
fn a_walk_begins_at_any_record_and_in_memory_without_a_header() {
    let base = bucket().first_key();
    let records: Records = (0..3).map(|low| (base + low, vec![7; 10])).collect();
    for (format, size) in [(Format::Plain, 26), (Format::V1, 27)] {
        let bytes = written(format, &records);
        let offset = (format.header().len() + size) as u64;
        let walker = Walker::new(format, bucket(), bytes.len() as u64).starting_at(offset);
        assert_eq!(read_split(walker, &bytes, |_| 0).0, records[1..]);
        let tail = &bytes[format.header().len()..];
        let walker = Walker::records(format.framing(), bucket(), tail.len() as u64);
        assert_eq!(read_split(walker, tail, |_| 0).0, records);
    }
}

#[test]
fn a_file_that_is_shorter_than_told_is_an_error_of_the_file() {
    let bytes = written(Format::V1, &[(bucket().first_key(), vec![1; 100])]);
    let mut walker = Walker::new(Format::V1, bucket(), bytes.len() as u64 + 1000);
    let error = read_file(&Memory::of(&bytes), &mut walker, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

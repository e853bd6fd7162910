#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use overstory_swarm::key::Key;
use proptest::prelude::*;

use super::*;
use crate::dump::{DumpOptions, dump_all};
use crate::tcm::{Item, Writer};

struct Place {
    _temp: tempfile::TempDir,
    dir: DataDir,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        Self { _temp: temp, dir }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    /// The names in `damaged/`, sorted.
    fn kept(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("damaged")) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn load(&self, options: LoadOptions) -> (Store, Result<LoadReport, LoadError>) {
        let mut store = Store::new(0);
        let report = load(&self.dir, &options, &mut store);
        (store, report)
    }
}

fn dump(keys: std::ops::Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::begin(&mut out);
    for key in keys {
        Writer::record(&mut out, Key(key), format!("value {key}").as_bytes());
    }
    Writer::finish(&mut out, 0);
    out
}

#[test]
fn the_files_of_the_published_node_are_loaded() {
    let place = Place::new();
    place.write("chan-1.tcm", include_bytes!("../../../../tests/vectors/files/chan-1.direct.tcm"));
    let (store, report) = place.load(LoadOptions::default());
    let report = report.unwrap();
    assert_eq!((report.records, report.bytes, report.files.len()), (3, 512, 1));
    assert!(!report.rejected.any() && report.ignored.is_empty());
    assert_eq!(store.get("chan-1", Key(2)), Some(&b"hello world"[..]));
}

#[test]
fn only_dumps_of_channels_are_loaded() {
    let place = Place::new();
    place.write("good.tcm", &dump(0..5));
    place.write("empty-channel.tcm", &dump(0..0));
    place.write("half.tcm.a1B2c3.dumping", &dump(0..5));
    place.write("other.txt", b"text");
    place.write("no file suffix", b"");
    place.write("bad name.tcm", &dump(0..5));
    place.write("lost.tcm.backup", &dump(0..5));
    place.write("good.tcm.backup", &dump(5..9));
    fs::create_dir(place.dir.path().join("directory.tcm")).unwrap();
    symlink(place.dir.path().join("good.tcm"), place.dir.path().join("linked.tcm")).unwrap();
    symlink("/nowhere/at/all", place.dir.path().join("dangling.tcm")).unwrap();
    let (store, report) = place.load(LoadOptions::default());
    let report = report.unwrap();
    assert_eq!(store.channel_names(), ["empty-channel", "good", "linked"]);
    assert_eq!(report.records, 10);
    let mut ignored: Vec<(String, &str)> = report
        .ignored
        .iter()
        .map(|(path, why)| (path.file_name().unwrap().to_str().unwrap().to_owned(), *why))
        .collect();
    ignored.sort();
    assert_eq!(
        ignored,
        [
            ("bad name.tcm".to_owned(), "not the name of a channel"),
            ("directory.tcm".to_owned(), "a directory"),
            ("half.tcm.a1B2c3.dumping".to_owned(), "an unfinished dump"),
            ("lost.tcm.backup".to_owned(), "a backup whose dump is gone"),
            ("no file suffix".to_owned(), "another kind of file"),
            ("other.txt".to_owned(), "another kind of file"),
        ]
    );
    assert_eq!(report.failures().count(), 1);
}

#[test]
fn the_backup_takes_the_place_of_an_unusable_dump() {
    let unusable: [&[u8]; 3] = [b"", b"123", &[9; 600]];
    for unusable in unusable {
        let place = Place::new();
        place.write("c.tcm", unusable);
        place.write("c.tcm.backup", &dump(0..7));
        let (store, report) = place.load(LoadOptions::default());
        let report = report.unwrap();
        assert_eq!(store.totals().records, 7);
        assert_eq!(report.failures().count(), 1);
        assert_eq!(report.records, 7);
        // And without one there is nothing.
        fs::remove_file(place.dir.backup_file("c")).unwrap();
        let (store, _) = place.load(LoadOptions::default());
        assert_eq!(store.channel_count(), 0);
    }
}

#[test]
fn what_is_whole_in_a_damaged_dump_is_loaded_and_the_rest_counted() {
    let place = Place::new();
    let whole = dump(0..1000);
    place.write("cut.tcm", &whole[..20_000]);
    let mut damaged = whole.clone();
    damaged[30_000..30_100].fill(0xee);
    place.write("damaged.tcm", &damaged);
    place.write("damaged.tcm.backup", &whole);
    let mut long = whole.clone();
    long.resize(whole.len() + 100_000, 0);
    place.write("oversized.tcm", &long);
    let (store, report) = place.load(LoadOptions::default());
    let report = report.unwrap();
    let records = |channel| store.channel(channel).unwrap().len();
    assert_eq!(records("oversized"), 1000);
    assert!((990..1000).contains(&records("damaged")), "{}", records("damaged"));
    assert!(records("cut") > 400);
    assert_eq!((report.rejected.cut, report.rejected.damaged), (1, 1));
    assert!(report.rejected.damaged_bytes >= 100);
    assert!(report.rejected.any());
}

#[test]
fn records_that_no_channel_may_hold_are_counted() {
    let place = Place::new();
    let mut out = Vec::new();
    Writer::begin(&mut out);
    Writer::record(&mut out, Key(1), &[1; 1024]);
    Writer::record(&mut out, Key(2), &[1; 1025]);
    Writer::record(&mut out, Key(3), b"");
    out.extend(16u64.to_le_bytes());
    out.extend(b"not hexadecimal!");
    out.extend(1u64.to_le_bytes());
    out.push(1);
    Writer::record(&mut out, Key(4), &[1; 10]);
    Writer::finish(&mut out, 0);
    place.write("c.tcm", &out);
    let (store, report) = place.load(LoadOptions { max_value: 1024, ..LoadOptions::default() });
    assert_eq!(store.totals().records, 2);
    let expected = Rejected { bad_keys: 1, empty_values: 1, too_large: 1, ..Rejected::default() };
    assert_eq!(report.unwrap().rejected, expected);
}

#[test]
fn records_out_of_the_range_are_loaded_left_out_or_fatal() {
    let place = Place::new();
    place.write("c.tcm", &dump(0..100));
    // Even keys: the lowest bit is the highest of the position.
    let range = HashRange::new(0, u64::MAX / 2).unwrap();
    let with = |allow_out_of_range| place.load(LoadOptions { range, allow_out_of_range, ..LoadOptions::default() });
    let (store, report) = with(OutOfRange::Load);
    assert_eq!((store.totals().records, report.unwrap().out_of_range), (100, 50));
    let (store, report) = with(OutOfRange::Ignore);
    let report = report.unwrap();
    assert_eq!((store.totals().records, report.rejected.out_of_range, report.records), (50, 50, 50));
    assert!(!report.rejected.any());
    let (_, report) = with(OutOfRange::Fatal);
    let error = report.unwrap_err();
    assert!(matches!(error, LoadError::OutOfRange { key: Key(1), .. }), "{error}");
}

#[test]
fn a_node_does_not_start_when_all_of_many_records_are_foreign() {
    let place = Place::new();
    place.write("a.tcm", &dump(0..60));
    place.write("b.tcm", &dump(60..101));
    let with = |range, limit| {
        let options = LoadOptions { range, abort_after_all_out_of_range: limit, ..LoadOptions::default() };
        place.load(options).1
    };
    assert!(matches!(with(HashRange::EMPTY, 100), Err(LoadError::AllOutOfRange { records: 101, .. })));
    assert!(with(HashRange::EMPTY, 101).is_ok());
    assert!(with(HashRange::EMPTY, 0).is_ok());
    // One of the last file's is in the range.
    let position = Key(100).position();
    assert!(with(HashRange::new(position, position).unwrap(), 50).is_ok());
}

#[test]
fn a_store_filled_to_its_limit_comes_back_whole() {
    const LIMIT: u64 = 4_000_000;
    for size in [10, 100, 1000, 20_000] {
        let place = Place::new();
        let mut store = Store::new(LIMIT);
        let value = |key: u64| vec![key.to_le_bytes()[0]; size];
        let mut count = 0u64;
        while store.put("c", Key(count), &value(count)).is_ok() {
            count += 1;
        }
        // Time and again: nothing may get lost with any of the restarts.
        for _ in 0..3 {
            assert!(dump_all(&store, &place.dir, DumpOptions::default()).is_ok());
            store = Store::new(LIMIT);
            let report = load(&place.dir, &LoadOptions::default(), &mut store).unwrap();
            assert_eq!((report.records, report.rejected), (count, Rejected::default()), "{size}");
            assert_eq!(store.totals().records, count);
            assert!((0..count).all(|key| store.get("c", Key(key)) == Some(&*value(key))));
        }
        assert_eq!(place.kept(), [""; 0]);
    }
}

#[test]
fn a_smaller_limit_loses_nothing() {
    let place = Place::new();
    place.write("c.tcm", &dump(0..10_000));
    let mut store = Store::new(200_000);
    let report = load(&place.dir, &LoadOptions::default(), &mut store).unwrap();
    assert_eq!((report.records, store.totals().records), (10_000, 10_000));
    assert!(!report.rejected.any() && store.memory() > store.size_limit());
    assert!(store.put("c", Key(10_001), &[1; 60_000]).is_err());
}

#[test]
fn a_file_that_was_not_loaded_as_a_whole_outlives_the_next_dumps() {
    let place = Place::new();
    let whole = dump(0..1000);
    let damaged = [&whole[..15_000], &whole[20_000..]].concat();
    place.write("c.tcm", &damaged);
    place.write("c.tcm.backup", &whole);
    place.write("d.tcm", &[9; 600]);
    place.write("good.tcm", &whole);
    // Twice: it is kept once.
    for _ in 0..2 {
        let (store, report) = place.load(LoadOptions::default());
        let report = report.unwrap();
        assert!(report.ignored.is_empty(), "{:?}", report.ignored);
        let kept: Vec<_> = report.files.iter().map(|file| (&*file.channel, file.kept.is_some())).collect();
        assert_eq!(kept, [("c", true), ("d", true), ("good", false)]);
        assert_eq!(place.kept().len(), 3, "{:?}", place.kept());
        drop(store);
    }
    for _ in 0..3 {
        let (store, _) = place.load(LoadOptions::default());
        assert!(dump_all(&store, &place.dir, DumpOptions::default()).is_ok());
    }
    let kept = place.kept();
    assert_eq!(kept.len(), 3, "{kept:?}");
    let content = |at: usize| fs::read(place.dir.path().join("damaged").join(&kept[at])).unwrap();
    assert!(kept[0].starts_with("c.tcm.2") && kept[1].starts_with("c.tcm.backup.2"), "{kept:?}");
    assert!(content(0) == damaged && content(1) == whole && content(2) == [9; 600]);
}

#[test]
fn no_more_than_five_files_of_a_channel_are_kept() {
    let place = Place::new();
    let whole = dump(0..1000);
    for round in 0..8usize {
        fs::remove_file(place.dir.file("c")).ok();
        place.write("c.tcm", &whole[..10_000 + round * 1000]);
        place.load(LoadOptions::default()).1.unwrap();
    }
    let kept = place.kept();
    let length = |name: &String| fs::metadata(place.dir.path().join("damaged").join(name)).unwrap().len();
    let lengths: Vec<u64> = kept.iter().map(length).collect();
    assert_eq!(lengths, [13_000, 14_000, 15_000, 16_000, 17_000]);
}

#[test]
fn what_was_rejected_is_told_in_words() {
    assert_eq!(Rejected::default().to_string(), "none");
    let rejected = Rejected { bad_keys: 2, cut: 1, ..Rejected::default() };
    assert_eq!(rejected.to_string(), "bad_keys=2 cut=1");
}

#[test]
fn of_records_with_the_same_key_the_last_one_stays() {
    let place = Place::new();
    let mut out = Vec::new();
    Writer::begin(&mut out);
    for round in 0u8..5 {
        for key in (0..2000).rev() {
            Writer::record(&mut out, Key(key), &[round; 30]);
        }
    }
    Writer::finish(&mut out, 0);
    place.write("c.tcm", &out);
    let (store, report) = place.load(LoadOptions::default());
    assert_eq!((store.totals().records, report.unwrap().records), (2000, 10_000));
    for key in 0..2000 {
        assert_eq!(store.get("c", Key(key)), Some(&[4; 30][..]));
    }
}

/// What a reader gives record by record.
fn singly(dump: &[u8], limit: usize) -> (BTreeMap<u64, Vec<u8>>, Rejected) {
    let mut reader = Reader::new(dump, limit).unwrap();
    let (mut records, mut rejected) = (BTreeMap::new(), Rejected::default());
    loop {
        match reader.next_item().unwrap() {
            Item::Record { key, value } => drop(records.insert(key.0, value.to_vec())),
            Item::Rejected { length, reason, .. } => rejected.count(reason, length),
            Item::End => return (records, rejected),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_load_gives_what_reading_one_by_one_gives(
        count in 0u64..20_000,
        step in prop_oneof![Just(1), 1..u64::MAX],
        size in 1usize..400,
        damages in proptest::collection::vec((0usize..4_000_000, 1usize..3000, any::<u8>()), 0..6),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 8usize..3_000_000],
    ) {
        const LIMIT: usize = 5000;
        let mut dump = Vec::new();
        Writer::begin(&mut dump);
        for index in 0..count {
            // Some are longer, some too long.
            let length = match index % 1999 {
                7 => 4000,
                9 => LIMIT + 1,
                rest => size + usize::from(rest % 2 == 0),
            };
            Writer::record(&mut dump, Key(index.wrapping_mul(step)), &vec![index.to_le_bytes()[0]; length]);
        }
        Writer::finish(&mut dump, 0);
        for (from, length, byte) in damages {
            let from = (from % dump.len()).max(8);
            let until = (from + length).min(dump.len());
            dump[from..until].fill(byte);
        }
        dump.truncate(cut);
        let place = Place::new();
        place.write("c.tcm", &dump);
        let (store, report) = place.load(LoadOptions { max_value: LIMIT, ..LoadOptions::default() });
        let (records, rejected) = singly(&dump, LIMIT);
        prop_assert_eq!(report.unwrap().rejected, rejected);
        prop_assert_eq!(store.totals().records, records.len() as u64);
        for (key, value) in records {
            prop_assert_eq!(store.get("c", Key(key)), Some(&*value));
        }
    }
}

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;
use crate::store::{Options, Popped, Sizes};

fn store(size: u64) -> Store {
    Store::new(Options { sizes: Sizes { default: size, by_prefix: Vec::new() }, redeliver: false }, None)
}

/// A file of these records.
fn file(records: &[&str]) -> Vec<u8> {
    let one = |record: &&str| [&(record.len() as u64).to_le_bytes(), record.as_bytes()].concat();
    let body: Vec<u8> = records.iter().flat_map(one).collect();
    [&(records.len() as u32).to_le_bytes()[..], &(body.len() as u64).to_le_bytes(), &body].concat()
}

fn drain(store: &mut Store, channel: &str) -> Vec<String> {
    let mut records = Vec::new();
    while store.pop(channel, &mut |record| records.push(String::from_utf8_lossy(record).into_owned())) == Popped::Taken
    {
    }
    records
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn good_files_are_loaded_whatever_the_size_and_then_deleted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("plain.rq"), file(&["one", "two", "three"])).unwrap();
    fs::write(dir.path().join("@topic.rq"), file(&["four"])).unwrap();
    fs::write(dir.path().join("sub@topic.rq"), file(&[])).unwrap();
    let mut store = store(20);
    let report = load(dir.path(), &mut store).unwrap();
    assert_eq!(report.records, 4);
    assert!(report.files.iter().all(|file| file.damage.is_none()) && report.ignored.is_empty(), "{report:?}");
    assert_eq!(names(dir.path()).len(), 3, "they stay until they are safe");
    assert!(report.delete_loaded().is_empty());
    assert!(names(dir.path()).is_empty());
    assert_eq!(report.delete_loaded().len(), 3, "a file that cannot be deleted is told");
    assert_eq!(drain(&mut store, "plain"), ["one", "two", "three"]);
    assert_eq!(store.pop("topic", &mut |_| ()), Popped::Subscribed);
    assert_eq!(store.channel_totals("topic").unwrap().records, 1);
}

#[test]
fn unknown_names_are_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = ["a@b@c.rq", "a@.rq", ".rq", "bad name.rq", "notes.txt", "half.rq.tmp", "x.RQ"];
    for name in unknown {
        fs::write(dir.path().join(name), file(&["one"])).unwrap();
    }
    fs::create_dir(dir.path().join("directory.rq")).unwrap();
    for known in ["overflow.dat", "overflow.positions", "ofchannels.csv"] {
        fs::write(dir.path().join(known), b"").unwrap();
    }
    fs::create_dir(dir.path().join("journal")).unwrap();
    let before = names(dir.path());
    let mut store = store(1000);
    let report = load(dir.path(), &mut store).unwrap();
    assert!(report.delete_loaded().is_empty());
    assert_eq!(report.ignored.len(), unknown.len() + 1);
    assert_eq!((report.files.len(), store.channel_count()), (0, 0));
    assert_eq!(names(dir.path()), before);
    assert!(matches!(load(&dir.path().join("missing"), &mut store), Err(LoadError::Directory { .. })));
}

#[test]
fn damaged_files_are_read_as_far_as_they_go_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(DAMAGED)).unwrap();
    fs::write(dir.path().join(DAMAGED).join("cut.rq"), b"of another time").unwrap();
    let whole = file(&["one", "two"]);
    let cut = &whole[..whole.len() - 1];
    fs::write(dir.path().join("cut.rq"), cut).unwrap();
    fs::write(dir.path().join("empty.rq"), b"").unwrap();
    symlink("nowhere", dir.path().join("gone.rq")).unwrap();
    let mut store = store(1000);
    let report = load(dir.path(), &mut store).unwrap();
    let [one, empty, gone] = report.files.as_slice() else { panic!("{report:?}") };
    assert_eq!((one.records, empty.records, gone.records), (1, 0, 0));
    assert!(one.damage.as_ref().unwrap().contains("at 23"), "{one:?}");
    assert_eq!(one.kept, Some(dir.path().join("damaged/cut.rq.1")));
    assert_eq!((empty.damage.as_deref(), &gone.kept), (Some("only 0 bytes"), &None));
    assert!(report.delete_loaded().is_empty());
    assert_eq!(names(dir.path()), ["damaged", "gone.rq"]);
    assert_eq!(names(&dir.path().join(DAMAGED)), ["cut.rq", "cut.rq.1", "empty.rq"]);
    assert_eq!(fs::read(dir.path().join("damaged/cut.rq.1")).unwrap(), cut);
    assert_eq!(drain(&mut store, "cut"), ["one"]);
}

#[test]
fn a_damaged_file_is_kept_once_when_the_process_dies_before_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cut.rq"), &file(&["one"])[..15]).unwrap();
    for _ in 0..2 {
        let report = load(dir.path(), &mut store(1000)).unwrap();
        assert_eq!(report.files[0].kept, Some(dir.path().join("damaged/cut.rq")));
    }
    assert_eq!(names(dir.path()), ["cut.rq", "damaged"]);
}

#[test]
fn a_damaged_file_that_cannot_be_kept_elsewhere_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cut.rq"), &file(&["one"])[..15]).unwrap();
    fs::write(dir.path().join(DAMAGED), b"not a directory").unwrap();
    let report = load(dir.path(), &mut store(1000)).unwrap();
    assert!(report.files[0].kept.is_none() && report.delete_loaded().is_empty());
    assert!(dir.path().join("cut.rq").exists());
}

proptest! {
    #[test]
    fn no_file_stops_a_node(bytes in prop::collection::vec(prop_oneof![3 => 0..3_u8, 1 => any::<u8>()], 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bad.rq"), &bytes).unwrap();
        fs::write(dir.path().join("good.rq"), file(&["good"])).unwrap();
        let mut store = store(100);
        let report = load(dir.path(), &mut store).unwrap();
        let [bad, _] = report.files.as_slice() else { panic!("{report:?}") };
        prop_assert_eq!(bad.damage.is_some(), bad.kept.is_some());
        prop_assert_eq!(drain(&mut store, "bad").len() as u64, bad.records);
        prop_assert_eq!(drain(&mut store, "good"), ["good"]);
    }
}

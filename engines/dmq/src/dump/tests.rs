#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use super::*;
use crate::load::load;
use crate::store::{Options, Sizes};

/// The files of the published node, by their queues.
const PUBLISHED: [&str; 5] = ["plain", "@topic", "sub1@topic", "small_q", "small_r"];

fn store() -> Store {
    Store::new(Options { sizes: Sizes { default: 1000, by_prefix: Vec::new() }, redeliver: false }, None)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_of_the_published_node_come_back_byte_for_byte() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/files");
    let dir = tempfile::tempdir().unwrap();
    for queue in PUBLISHED {
        fs::copy(vectors.join(format!("dmq.{queue}.rq")), dir.path().join(format!("{queue}.rq"))).unwrap();
    }
    let mut store = store();
    let loaded = load(dir.path(), &mut store).unwrap();
    assert_eq!(loaded.records, 15);
    assert!(loaded.files.iter().all(|file| file.damage.is_none()), "{loaded:?}");
    assert!(loaded.delete_loaded().is_empty() && names(dir.path()).is_empty());
    let dumped = dump(dir.path(), &mut store);
    assert!(dumped.is_ok() && dumped.queues.len() == 5, "{dumped:?}");
    for (queue, report) in PUBLISHED.iter().map(|queue| {
        let path = dir.path().join(format!("{queue}.rq"));
        (queue, dumped.queues.iter().find(|report| report.path == path).unwrap())
    }) {
        let ours = fs::read(&report.path).unwrap();
        assert_eq!(ours, fs::read(vectors.join(format!("dmq.{queue}.rq"))).unwrap(), "{queue}");
        assert_eq!(ours.len() as u64, report.bytes);
    }
}

#[test]
fn a_queue_that_cannot_be_written_does_not_stop_the_others_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store();
    for channel in ["a", "b", "c", "d", "empty"] {
        store.push(channel, channel.as_bytes()).unwrap();
    }
    store.pop("empty", &mut |_| ());
    // Neither its temporary name nor its own can be had.
    fs::create_dir(dir.path().join("b.rq.tmp")).unwrap();
    fs::create_dir_all(dir.path().join("c.rq/inside")).unwrap();
    let report = dump(dir.path(), &mut store);
    assert!(!report.is_ok());
    let failed: Vec<_> = report.queues.iter().map(|queue| (&*queue.queue, queue.error.is_some())).collect();
    assert_eq!(failed, [("a", false), ("b", true), ("c", true), ("d", false)]);
    done(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["a.rq", "b.rq.tmp", "c.rq", "d.rq"]);
    assert_eq!(store.totals().records_memory, 2);
    fs::remove_dir(dir.path().join("b.rq.tmp")).unwrap();
    let again = dump(dir.path(), &mut store);
    let failed: Vec<_> = again.queues.iter().map(|queue| (&*queue.queue, queue.error.is_some())).collect();
    assert_eq!(failed, [("b", false), ("c", true)]);

    let nowhere = dump(&dir.path().join("missing"), &mut store);
    assert!(!nowhere.is_ok() && nowhere.queues.len() == 1, "{nowhere:?}");
}

#[test]
fn a_file_that_is_in_the_way_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("chan.rq"), b"could not be read and not be moved").unwrap();
    let mut store = store();
    store.push("chan", b"record").unwrap();
    assert!(dump(dir.path(), &mut store).is_ok());
    done(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["chan.rq", "damaged"]);
    assert_eq!(fs::read(dir.path().join("damaged/chan.rq")).unwrap(), b"could not be read and not be moved");
    assert_eq!(load(dir.path(), &mut self::store()).unwrap().records, 1);
}

#[test]
fn many_queues_are_brought_to_the_disk_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store();
    for number in 0..500 {
        store.push(&format!("channel-{number}"), b"record").unwrap();
    }
    fs::create_dir(dir.path().join("channel-7.rq")).unwrap();
    let report = dump(dir.path(), &mut store);
    assert_eq!(report.queues.iter().filter(|queue| queue.error.is_some()).count(), 1);
    done(dir.path()).unwrap();
    assert_eq!((names(dir.path()).len(), store.totals().records_memory), (500, 1));
    assert_eq!(load(dir.path(), &mut self::store()).unwrap().records, 499);
}

#[test]
fn a_large_queue_is_written_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes { default: 100 << 20, by_prefix: Vec::new() };
    let mut store = Store::new(Options { sizes, redeliver: false }, None);
    for number in 0..20_000_u32 {
        store.push("chan", &number.to_le_bytes().repeat(1 + number as usize % 50)).unwrap();
    }
    store.push("chan", &vec![1; 10 << 20]).unwrap();
    assert!(dump(dir.path(), &mut store).is_ok());
    assert_eq!(store.totals().bytes_memory, 0);
    assert_eq!(load(dir.path(), &mut store).unwrap().records, 20_001);
    let mut number = 0_u32;
    while number < 20_000 {
        store.pop("chan", &mut |record| assert_eq!(record, number.to_le_bytes().repeat(1 + number as usize % 50)));
        number += 1;
    }
    store.pop("chan", &mut |record| assert_eq!(record.len(), 10 << 20));
}

//! Tests of the overflow.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;
mod damage;
mod limits;

use std::fs;
use std::path::Path;

use super::{Options, Overflow, Recovered};
use crate::disk::contract::{self, read_all};
use crate::disk::{Disk, QueueId, RecoveredQueue};

const GOLDEN_DATA: &[u8] = include_bytes!("../../../../tests/vectors/files/dmq.overflow.dat");
const GOLDEN_INDEX: &[u8] = include_bytes!("../../../../tests/vectors/files/dmq.ofchannels.csv");

fn small() -> Options {
    Options { preallocate: 4096 }
}

fn open(dir: &Path) -> (Overflow, Recovered) {
    Overflow::open(dir, &small()).unwrap()
}

fn push(disk: &mut Overflow, queue: QueueId, record: &[u8]) {
    disk.reserve(1, record.len() as u64).unwrap();
    disk.append(queue, record).unwrap();
}

/// The records of the published files: four of the one queue, three of the other.
fn golden_records() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let record = |word: &str, n: u32, fill: &str| format!("{word} {n} {}", fill.repeat(30)).into_bytes();
    ((5..9).map(|n| record("record", n, "x")).collect(), (5..8).map(|n| record("other", n, "y")).collect())
}

fn golden_queues() -> [RecoveredQueue; 2] {
    [
        RecoveredQueue { queue: 2, name: "small_q".into(), records: 4, bytes: 156 },
        RecoveredQueue { queue: 5, name: "small_r".into(), records: 3, bytes: 114 },
    ]
}

#[test]
fn the_contract_holds() {
    contract::run(&|dir| {
        let (overflow, recovered) = open(dir);
        assert_eq!(recovered.problems, [] as [String; 0]);
        (Box::new(overflow), recovered.queues)
    });
}

#[test]
fn the_same_records_make_the_published_files() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    for (queue, name) in [(1, "plain"), (2, "small_q"), (3, "@topic"), (4, "sub1@topic"), (5, "small_r")] {
        disk.create(queue, name).unwrap();
    }
    let (q, r) = golden_records();
    for (queue, record) in q.iter().map(|record| (2, record)).chain(r.iter().map(|record| (5, record))) {
        push(&mut disk, queue, record);
        disk.settle().unwrap();
    }
    disk.close().unwrap();
    assert_eq!(fs::read(dir.path().join("overflow.dat")).unwrap(), GOLDEN_DATA);
    assert_eq!(fs::read(dir.path().join("ofchannels.csv")).unwrap(), GOLDEN_INDEX);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no other file stays");
}

#[test]
fn published_files_are_read_and_consumed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("overflow.dat"), GOLDEN_DATA).unwrap();
    fs::write(dir.path().join("ofchannels.csv"), GOLDEN_INDEX).unwrap();
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.problems, [] as [String; 0]);
    assert_eq!(recovered.queues, golden_queues());
    let (q, r) = golden_records();
    assert_eq!((read_all(&mut disk, 2, 0, 4), read_all(&mut disk, 5, 0, 3)), (q.clone(), r));
    disk.release(2, 0, 1).unwrap();
    disk.release(5, 0, 3).unwrap();
    disk.settle().unwrap();
    disk.close().unwrap();
    assert_eq!(fs::read(dir.path().join("ofchannels.csv")).unwrap(), b"small_q 3 117 79 221\n");
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.queues[0].records, 3);
    assert_eq!(read_all(&mut disk, 2, 0, 3), q[1..]);
    disk.release(2, 0, 3).unwrap();
    disk.settle().unwrap();
    disk.close().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "without records no file stays");
}

#[test]
fn the_index_is_written_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    disk.create(1, "chan").unwrap();
    for n in 0..200_u32 {
        push(&mut disk, 1, &n.to_le_bytes());
    }
    disk.settle().unwrap();
    disk.release(1, 0, 150).unwrap();
    disk.write_index(false).unwrap();
    let first = 8 + 150 * 36;
    let expected = format!("chan 50 200 {first} {}\n", first + 49 * 36);
    assert_eq!(fs::read_to_string(dir.path().join("ofchannels.csv")).unwrap(), expected);
    disk.release(1, 150, 200).unwrap();
    disk.save_index().unwrap();
    // The second call waits for the writer of the first.
    disk.write_index(false).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("ofchannels.csv")).unwrap(), "");
    assert_eq!(fs::metadata(dir.path().join("overflow.dat")).unwrap().len(), 0);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_disk, _) = open(dir.path());
    assert!(matches!(Overflow::open(dir.path(), &small()), Err(super::OpenError::InUse(_))));
}

//! Files that somebody has cut.

use super::*;
use crate::disk::sim::Crash;
use crate::recovery::{DAMAGED, SHORTER};

const NUMBER: BucketNumber = BucketNumber::of(0x1000);
/// The size of a record of these tests with its head.
const RECORD: u64 = 17 + 13;

/// A node with ten records in each of two buckets.
fn node() -> Node {
    let mut node = Node::open(SimDisk::new(), 1);
    for first in [0x1000, 0x100_0000] {
        node.put("log", Format::V1, &values(&(first..first + 10).collect::<Vec<_>>()[..])).unwrap();
    }
    node
}

fn file() -> PathBuf {
    bucket::path(Path::new(DIR), "log", NUMBER)
}

fn cut(disk: &SimDisk, length: u64) {
    disk.create(&file()).unwrap().set_len(length).unwrap();
}

/// So that the directory is looked at.
fn add_a_name(disk: &SimDisk) {
    disk.create(&file().with_extension("note")).unwrap();
}

fn missing(offset: u64, bytes: u64, records: u64) -> Missing {
    let why = SHORTER;
    Missing { channel: "log".into(), number: NUMBER, offset, bytes, records: Some(records), why }
}

#[test]
fn a_file_that_was_cut_behind_a_record_or_emptied_while_the_node_was_stopped_is_told() {
    for (length, records) in [(16 + 4 * RECORD, 6), (0, 10), (16 + 4 * RECORD + 7, 6)] {
        let disk = node().close().unwrap();
        cut(&disk, length);
        add_a_name(&disk);
        let node = Node::open(disk, 1);
        assert_eq!(node.report.missing, [missing(length, 16 + 10 * RECORD - length, records)], "{length}");
        let text = node.report.missing[0].to_string();
        let bytes = 316 - length;
        let expected =
            format!("{bytes} bytes and about {records} records are missing: the file is shorter than it was");
        assert_eq!(text, format!("log/0000000000/001: {expected}"));
        // Once: the catalogue knows it now.
        let node = Node::open(node.close().unwrap(), 1);
        assert_eq!(node.report.missing, []);
    }
}

#[test]
fn of_a_file_that_was_written_to_what_was_in_it_is_known_too() {
    for checkpoint in [false, true] {
        let mut node = node();
        if checkpoint {
            node.checkpoint().unwrap();
            node.put("log", Format::V1, &values(&[0x1100, 0x1101])).unwrap();
        }
        node.log().sync().unwrap();
        let end = 16 + (10 + 2 * u64::from(checkpoint)) * RECORD;
        cut(&node.disk, end - RECORD);
        let node = node.killed();
        assert_eq!(node.report.missing, [missing(end - RECORD, RECORD, 1)], "{checkpoint}");
        assert_eq!((node.report.cut.len(), node.report.problems.len()), (0, 0));
        assert_eq!(node.entry("log", NUMBER).unwrap().length, end - RECORD);
    }
}

#[test]
fn what_a_crash_leaves_is_not_missing() {
    // A part of a record behind the last one that was written as a whole.
    let mut torn = node();
    torn.log().sync().unwrap();
    torn.disk.create(&file()).unwrap().write_all_at(&[1, 2, 3], 316).unwrap();
    let torn = torn.killed();
    assert_eq!((torn.report.missing.len(), torn.report.cut.len()), (0, 1));
    assert_eq!(torn.entry("log", NUMBER).unwrap().records, 10);
    // What was not durable, after a power cut.
    for crash in [Crash::Loses, Crash::Keeps] {
        let mut node = node();
        node.checkpoint().unwrap();
        node.put("log", Format::V1, &values(&[0x1100])).unwrap();
        node.log().sync().unwrap();
        assert_eq!(node.power_cut(crash, 1).report.missing, []);
    }
}

#[test]
fn what_logfiles_check_has_cut_off_and_kept_is_not_missing() {
    let cut_to = 16 + 4 * RECORD;
    let all = 16 + 10 * RECORD;
    for (backups, told) in [
        (vec![(format!("001.from-{cut_to}"), all - cut_to)], false),
        // One repair after the other, and one of another time.
        (vec![("001.from-256.1".to_owned(), all - 256), (format!("001.from-{cut_to}"), 256 - cut_to)], false),
        (vec![("001.whole.2".to_owned(), all)], false),
        (vec![("001.whole".to_owned(), all - 1), ("002.whole".to_owned(), all)], true),
        (vec![(format!("001.from-{cut_to}"), 5)], true),
        (vec![(format!("001.from-{}", cut_to + 1), all - cut_to - 1)], true),
    ] {
        let disk = node().close().unwrap();
        cut(&disk, cut_to);
        add_a_name(&disk);
        let dir = Path::new(DIR).join(DAMAGED).join("log/0000000000");
        disk.create_dirs(&dir).unwrap();
        for (name, length) in &backups {
            disk.create(&dir.join(name)).unwrap().set_len(*length).unwrap();
        }
        assert_eq!(Node::open(disk, 1).report.missing.len(), usize::from(told), "{backups:?}");
    }
}

#[test]
fn what_a_published_node_has_cut_is_told() {
    let disk = node().close().unwrap();
    cut(&disk, 16 + 4 * RECORD);
    let lines = [("log", NUMBER, 16 + 4 * RECORD)];
    checkpoint::write(&disk, Path::new(DIR), lines.into_iter()).unwrap();
    let node = Node::open(disk, 1);
    assert_eq!(node.report.missing, [missing(16 + 4 * RECORD, 6 * RECORD, 6)]);
}

#[test]
fn a_name_that_is_no_channel_or_slot_is_counted() {
    let disk = node().close().unwrap();
    for dir in ["bad name!", "log/notaslot", ".hidden"] {
        disk.create_dirs(&Path::new(DIR).join(dir)).unwrap();
    }
    disk.create(&Path::new(DIR).join("readme.txt")).unwrap();
    let node = Node::open(disk, 1);
    assert_eq!((node.report.strange, node.report.problems.len()), (3, 0));
}

//! What a start makes of faults of the disk, and of what others do to the directories.

use super::*;
use crate::disk::sim::{Call, Crash};

fn file(key: u64) -> PathBuf {
    bucket::path(Path::new(DIR), "log", BucketNumber::of(key))
}

fn foreign(disk: &SimDisk, path: &Path) {
    let mut bytes = Format::V1.header().to_vec();
    record::put(crate::record::Framing::V1, 0x1000, b"of somebody else", &mut bytes);
    disk.create_dirs(path.parent().unwrap()).unwrap();
    disk.create(path).unwrap().write_all_at(&bytes, 0).unwrap();
}

/// The files, in order, with the records in them.
fn found(node: &Node) -> BTreeMap<(String, BucketNumber), Records> {
    scan(&node.disk).into_iter().map(|(bucket, (_, records))| (bucket, records)).collect()
}

/// The start took the new file for the old one then, and cut it where that one had ended.
#[test]
fn a_start_that_cannot_make_its_catalogues_name_durable_goes_on_with_it() {
    for crash in [None, Some(Crash::Loses), Some(Crash::Keeps)] {
        let mut node = Node::open(SimDisk::new(), 1);
        for key in (0..40).map(|n| n << 12) {
            node.put("log", Format::V1, &values(&[key, key + 1])).unwrap();
        }
        node.sync().unwrap();
        let disk = node.disk.kill();
        // Something that the file does not say, and then a fault behind the rename.
        foreign(&disk, Path::new("/data/new/0000000000/001"));
        disk.fail(Call::SyncDir, 1, 1, io::ErrorKind::Other);
        let mut node = Node::open(disk, 1);
        assert_eq!((node.report.found, node.report.problems.len()), (1, 0));
        node.put("log", Format::V1, &values(&[0x100_0000])).unwrap();
        node.sync().unwrap();
        let disk = crash.map_or_else(|| node.disk.kill(), |crash| node.disk.crash(crash, 1));
        let node = Node::open(disk, 1 + u32::from(crash.is_some()));
        let end = if crash.is_some() { LastEnd::PowerCut } else { LastEnd::Killed };
        assert_eq!((node.report.end, node.report.problems.len()), (end, 0), "{crash:?}");
        let totals = node.catalogue.totals();
        assert_eq!((totals.buckets, totals.uncounted, totals.records), (42, 1, 81), "{crash:?}");
    }
}

/// The log had no entry for the channel, and could not be read from there on.
#[test]
fn a_channel_that_a_full_disk_had_no_room_to_tell_does_no_harm() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[1])).unwrap();
    let disk = node.close().unwrap();
    foreign(&disk, Path::new("/data/new/0000000000/001"));
    disk.set_free(Some(0));
    let mut node = Node::open(disk, 1);
    assert_eq!(node.report.found, 1);
    node.disk.set_free(None);
    node.put("new", Format::V1, &values(&[0x2000])).unwrap();
    node.sync().unwrap();
    let node = node.power_cut(Crash::Loses, 1);
    assert_eq!((node.report.end, node.report.problems.len()), (LastEnd::PowerCut, 0));
    assert_eq!(buckets(&node.catalogue).len(), 3);
    let node = Node::open(node.close().unwrap(), 2);
    assert_eq!((node.report.end, buckets(&node.catalogue).len()), (LastEnd::Clean, 3));
}

/// What could not be proved after a power cut was taken for made after the kill that followed, since the log had no room to
/// say so: a bucket was cut in the middle of records that were there.
#[test]
fn what_a_power_cut_has_taken_is_not_there_after_a_kill_on_a_full_disk() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[0x1000])).unwrap();
    node.checkpoint().unwrap();
    node.put("log", Format::V1, &values(&[0x1001, 0x1002])).unwrap();
    // The entry is durable, the bytes are not.
    node.log().sync().unwrap();
    let disk = node.disk.crash(Crash::Loses, 1);
    disk.set_free(Some(0));
    let mut node = Node::open(disk, 2);
    assert_eq!(node.catalogue.totals().records, 1);
    assert!(node.put("log", Format::V1, &values(&[0x1003])).is_err());
    node.disk.set_free(None);
    node.touched.clear();
    for key in 0x1003..0x1009 {
        node.put("log", Format::V1, &[(key, vec![1; 10])]).unwrap();
    }
    node.sync().unwrap();
    let (before, disk) = (found(&node), node.disk.kill());
    let node = Node::open(disk, 2);
    assert_eq!((node.report.end, node.report.cut.len()), (LastEnd::Killed, 0));
    assert_eq!(found(&node), before);
    assert_eq!(node.catalogue.totals().records, 7);
}

/// A slot without buckets was not looked at, if its channel's directory had not changed.
#[test]
fn a_bucket_that_comes_back_into_an_empty_slot_is_found() {
    for anew in [false, true] {
        let mut node = Node::open(SimDisk::new(), 1);
        node.put("log", Format::V1, &values(&[0x1000])).unwrap();
        node.put("log", Format::V1, &values(&[0x100_0000])).unwrap();
        foreign(&node.disk, &file(0x1000).with_extension("gz"));
        node.checkpoint().unwrap();
        node.disk.remove(&file(0x1000)).unwrap();
        node.log().removed_bucket("log", BucketNumber::of(0x1000)).unwrap();
        if anew {
            node = node.killed();
        }
        let disk = node.close().unwrap();
        let node = Node::open(disk, 1);
        assert_eq!((node.report.found, buckets(&node.catalogue).len()), (0, 1));
        let disk = node.close().unwrap();
        foreign(&disk, &file(0x1000));
        let node = Node::open(disk, 1);
        assert_eq!((node.report.found, buckets(&node.catalogue).len()), (1, 2), "{anew}");
    }
}

/// The channel's other slots were not read, and the one that could not be read was forgotten.
#[test]
fn a_slot_that_cannot_be_read_hides_no_other_one_and_is_read_when_it_can_be() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[0x1000])).unwrap();
    let disk = node.close().unwrap();
    let keys = [0x100_1000, 0x200_1000, 0x300_1000];
    keys.iter().for_each(|key| foreign(&disk, &file(*key)));
    for key in keys {
        let disk = disk.kill();
        disk.fail_file(file(key).parent().unwrap(), Call::List, io::ErrorKind::PermissionDenied);
        let mut node = Node::open(disk, 1);
        assert_eq!((node.report.found, node.report.problems.len()), (2, 1), "{:?}", node.report.problems);
        // The time of the channel's directory is told again.
        node.put("log", Format::V1, &values(&[0x400_0000])).unwrap();
        let disk = node.close().unwrap();
        disk.heal();
        let node = Node::open(disk, 1);
        assert_eq!((node.report.found, buckets(&node.catalogue).len()), (1, 5));
    }
}

/// The time of a directory says nothing of what comes within the same tick of the clock.
#[test]
fn names_that_change_in_the_tick_in_which_a_time_was_told_are_seen() {
    for calls in [1, 1000] {
        for started in [false, true] {
            let mut node = Node::open(SimDisk::new(), 1);
            node.disk.set_clock(calls);
            for key in [0x1000, 0x2000, 0x3000] {
                node.put("log", Format::V1, &values(&[key])).unwrap();
            }
            node.checkpoint().unwrap();
            if started {
                node = node.killed();
            }
            // A removal, of which the log had no time to become durable.
            node.disk.remove(&file(0x1000)).unwrap();
            node.disk.sync_dir(file(0x1000).parent().unwrap()).unwrap();
            node.log().removed_bucket("log", BucketNumber::of(0x1000)).unwrap();
            let node = node.power_cut(Crash::Loses, 1);
            assert_eq!(buckets(&node.catalogue).len(), 2, "{calls} {started}");
            let disk = node.close().unwrap();
            foreign(&disk, &file(0x1000));
            let node = Node::open(disk, 2);
            assert_eq!((node.report.end, buckets(&node.catalogue).len()), (LastEnd::Clean, 3), "{calls} {started}");
        }
    }
}

/// The log said that a file of a published node was durable, and nobody had made it so.
#[test]
fn a_file_that_is_found_is_durable_when_the_log_says_so() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[1])).unwrap();
    let disk = node.close().unwrap();
    foreign(&disk, &file(0x1000));
    let node = Node::open(disk, 1);
    assert_eq!(node.report.found, 1);
    let (before, disk) = (found(&node), node.close().unwrap());
    let node = Node::open(disk.crash(Crash::Loses, 1), 2);
    assert_eq!((found(&node), node.report.problems.len()), (before, 0));
}

/// The next start was in the same boot, and took for made what the log says was written in the one before.
#[test]
fn a_bucket_that_cannot_be_opened_after_a_power_cut_is_not_believed_later() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[0x1000])).unwrap();
    node.checkpoint().unwrap();
    let proved = node.entry("log", BucketNumber::of(0x1000)).unwrap();
    node.put("log", Format::V1, &values(&[0x1001])).unwrap();
    let end = node.entry("log", BucketNumber::of(0x1000)).unwrap().length;
    node.log().sync().unwrap();
    let disk = node.disk.crash(Crash::Loses, 1);
    // The length without the bytes.
    disk.create(&file(0x1000)).unwrap().set_len(end).unwrap();
    disk.fail_file(&file(0x1000), Call::Open, io::ErrorKind::PermissionDenied);
    let mut node = Node::open(disk, 2);
    assert_eq!(node.report.problems.len(), 1);
    node.log().sync().unwrap();
    let node = node.killed();
    assert_eq!((node.report.end, node.report.cut.len()), (LastEnd::Killed, 1));
    assert_eq!(node.entry("log", BucketNumber::of(0x1000)), Some(proved));
}

/// A block that another file had at the same place is none of this one.
#[test]
fn a_block_with_keys_of_another_bucket_is_not_taken_in() {
    let mut node = Node::open(SimDisk::new(), 1);
    let (one, two) = (0x1000, 0x2000);
    node.put("log", Format::V2, &values(&[one])).unwrap();
    node.put("log", Format::V2, &values(&[two])).unwrap();
    node.checkpoint().unwrap();
    let was = node.entry("log", BucketNumber::of(one)).unwrap();
    let at = was.length;
    for key in [one, two] {
        node.put("log", Format::V2, &values(&[key + 1])).unwrap();
    }
    node.sync().unwrap();
    let (from, to) = (node.disk.open(&file(two)).unwrap(), node.disk.create(&file(one)).unwrap());
    let mut block = vec![0; usize::try_from(from.len().unwrap() - at).unwrap()];
    from.read_at(&mut block, at).unwrap();
    to.write_all_at(&block, at).unwrap();
    let node = node.power_cut(Crash::Keeps, 1);
    assert_eq!(node.entry("log", BucketNumber::of(one)), Some(was));
}

/// The second start took for durable what the first one had cut off, and the power cut behind it brought back what nobody
/// had proved.
#[test]
fn what_was_cut_off_stays_away_when_the_start_that_cut_it_was_killed() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::Plain, &values(&[0])).unwrap();
    let node = node.power_cut(Crash::Keeps, 0);
    assert_eq!(node.report.cut.len(), 1);
    let mut node = node.killed();
    node.put("log", Format::Plain, &values(&[0x1000])).unwrap();
    for seed in 0..20 {
        let node = Node::open(node.disk.crash(Crash::Any, seed), 5);
        assert_eq!((node.report.found, node.catalogue.totals().records), (0, 0), "{seed}");
    }
}

//! A catalogue that cannot be used.

use super::*;
use crate::disk::sim::{Call, Crash};

fn with_three_buckets() -> Node {
    let mut node = Node::open(SimDisk::new(), 1);
    for key in [0x1000, 0x2000, 0x100_0000] {
        node.put("log", Format::V1, &values(&[key, key + 1])).unwrap();
    }
    node
}

#[test]
fn a_damaged_catalogue_is_set_aside_and_everything_is_found_again() {
    let node = with_three_buckets();
    let expected: Vec<_> = buckets(&node.catalogue).into_keys().collect();
    let disk = node.close().unwrap();
    let path = Path::new(DIR).join(".catalogue");
    let length = disk.stat(&path).unwrap().length;
    let file = |disk: &SimDisk| disk.create(&path).unwrap();
    for place in 0..length {
        let disk = disk.kill();
        let mut byte = [0];
        file(&disk).read_at(&mut byte, place).unwrap();
        file(&disk).write_all_at(&[byte[0] ^ 0x10], place).unwrap();
        let node = Node::open(disk, 1);
        assert_eq!(buckets(&node.catalogue).into_keys().collect::<Vec<_>>(), expected, "{place}");
        assert_eq!(node.report.cut, [], "{place}");
        if node.report.end == LastEnd::Unknown {
            assert_eq!((node.report.problems.len(), node.report.found), (1, 3), "{place}");
            assert!(node.disk.stat(Path::new("/data/.damaged/catalogue")).is_ok(), "{place}");
            assert_eq!(node.catalogue.totals().uncounted, 3);
        } else {
            // The mark at the end, which says nothing more.
            assert!(place >= length - 7, "{place} of {length}: {:?}", node.report);
        }
        // The next start has a catalogue again.
        let node = Node::open(node.close().unwrap(), 1);
        assert_eq!(node.report, OpenReport { end: LastEnd::Clean, ..OpenReport::default() });
    }
}

/// A file that was written anew named each directory in front of its buckets. Cut between the two it said that nothing in
/// the directory was new, and the buckets were in no answer, for good.
#[test]
fn a_catalogue_that_was_cut_hides_no_bucket() {
    let node = with_three_buckets();
    let expected: Vec<_> = buckets(&node.catalogue).into_keys().collect();
    let disk = node.close().unwrap();
    let path = Path::new(DIR).join(".catalogue");
    disk.remove(&path).unwrap();
    let disk = Node::open(disk, 1).close().unwrap();
    for length in 0..disk.stat(&path).unwrap().length {
        let disk = disk.kill();
        disk.create(&path).unwrap().set_len(length).unwrap();
        let node = Node::open(disk, 1);
        assert_eq!(buckets(&node.catalogue).into_keys().collect::<Vec<_>>(), expected, "{length}");
    }
}

#[test]
fn a_catalogue_of_a_later_version_stops_the_start_and_stays_as_it_is() {
    let disk = with_three_buckets().close().unwrap();
    let path = Path::new(DIR).join(".catalogue");
    let mut head = [0; 16];
    disk.open(&path).unwrap().read_at(&mut head, 0).unwrap();
    head[8] = 2;
    let crc = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    disk.create(&path).unwrap().write_all_at(&head, 0).unwrap();
    let before = disk.files();
    let opened = open(Arc::new(disk.clone()), Path::new(DIR), &OpenOptions::default());
    assert!(matches!(opened.err(), Some(OpenError::Newer { version: 2, .. })));
    assert_eq!(disk.files(), before);
}

#[test]
fn a_bucket_that_was_cut_behind_the_nodes_back_is_read_as_it_is() {
    let mut node = with_three_buckets();
    node.checkpoint().unwrap();
    node.put("log", Format::V1, &values(&[0x1002])).unwrap();
    let path = bucket::path(Path::new(DIR), "log", BucketNumber::of(0x1000));
    node.disk.create(&path).unwrap().set_len(50).unwrap();
    let node = node.killed();
    let entry = node.entry("log", BucketNumber::of(0x1000)).unwrap();
    assert_eq!((entry.length, entry.records), (16 + 17 + 13, 1));
    assert_eq!(node.report.cut.len(), 1);
    // Of four records of 30 bytes each, whatever came since the checkpoint.
    let missing = &node.report.missing[..];
    assert_eq!(missing.len(), 1);
    assert_eq!((&*missing[0].channel, missing[0].number), ("log", BucketNumber::of(0x1000)));
    assert_eq!((missing[0].offset, missing[0].bytes, missing[0].records), (46, 30, Some(1)));
    assert_eq!(node.report.problems.len(), 0);
    // The others were not read.
    assert_eq!(node.report.recovered, 1);
}

#[test]
fn a_file_that_replaced_another_is_read_whatever_the_log_knows() {
    for replaced in [false, true] {
        let mut node = with_three_buckets();
        node.checkpoint().unwrap();
        let number = BucketNumber::of(0x1000);
        let path = bucket::path(Path::new(DIR), "log", number);
        let new = path.with_extension("new");
        let mut framed = Vec::new();
        for (key, value) in values(&[0x1000, 0x1001]) {
            record::put(crate::record::Framing::Plain, key, &value, &mut framed);
        }
        let mut bytes = Format::V2.header().to_vec();
        v2::encode_block(16, &framed, 3, &mut bytes).unwrap();
        let file = node.disk.create(&new).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync().unwrap();
        node.log().replacing("log", number).unwrap();
        if replaced {
            node.disk.rename(&new, &path).unwrap();
        }
        for crash in [None, Some(Crash::Loses), Some(Crash::Keeps)] {
            let disk = crash.map_or_else(|| node.disk.kill(), |crash| node.disk.crash(crash, 1));
            let node = Node::open(disk, 1 + u32::from(crash.is_some()));
            let entry = node.entry("log", number).unwrap();
            assert_eq!((entry.records, entry.bytes, entry.counted), (2, 26, true));
            let renamed = replaced && crash != Some(Crash::Loses);
            assert_eq!(entry.format, Some(if renamed { Format::V2 } else { Format::V1 }));
            assert_eq!(node.report.cut, []);
            assert!(node.disk.stat(&new).is_err());
            assert_eq!(buckets(&node.catalogue).len(), 3);
        }
    }
}

#[test]
fn a_log_whose_sync_has_failed_is_written_anew() {
    let mut node = with_three_buckets();
    node.disk.fail(Call::Sync, 0, 1, io::ErrorKind::Other);
    assert!(node.log().sync().is_err());
    node.log().sync().unwrap();
    node.sync().unwrap();
    let node = node.power_cut(Crash::Loses, 1);
    assert_eq!(node.catalogue.totals().records, 6);
}

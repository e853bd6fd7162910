//! What a published node leaves.

use super::*;

const FILES: [(u64, &[u8]); 3] = [
    (0x5727_5000, include_bytes!("../../../../../tests/vectors/files/dls.log_0000000057_275")),
    (0x5727_6000, include_bytes!("../../../../../tests/vectors/files/dls.log_0000000057_276")),
    (0x5827_5000, include_bytes!("../../../../../tests/vectors/files/dls.log_0000000058_275")),
];
const CHECKPOINT: &[u8] = include_bytes!("../../../../../tests/vectors/files/dls.checkpoint.dat");

fn write(disk: &SimDisk, key: u64, bytes: &[u8]) {
    let path = bucket::path(Path::new(DIR), "log", BucketNumber::of(key));
    disk.create_dirs(path.parent().unwrap()).unwrap();
    disk.create(&path).unwrap().write_all_at(bytes, 0).unwrap();
}

fn checkpoint(disk: &SimDisk, text: &[u8]) {
    for name in ["checkpoint.dat", "checkpoint.dat.tmp"] {
        let file = disk.create(&Path::new(DIR).join(name)).unwrap();
        file.write_all_at(if name.ends_with("tmp") { b"" } else { text }, 0).unwrap();
    }
}

/// The published node cut these files to 104, 44 and 0 bytes at its next start: records that it had written to the disk
/// were gone.
#[test]
fn nothing_is_lost_where_the_published_node_cut_its_buckets() {
    let disk = SimDisk::new();
    for (key, bytes) in FILES {
        write(&disk, key, bytes);
    }
    checkpoint(&disk, CHECKPOINT);
    let before: Vec<_> = disk.files().into_iter().filter(|(path, _)| bucket_of(path).is_some()).collect();
    let node = Node::open(disk, 1);
    assert_eq!(node.report, OpenReport { recovered: 3, found: 3, ..OpenReport::default() });
    let entry = |length, records, bytes| Entry { format: Some(Format::V1), counted: true, length, records, bytes };
    let expected = [entry(144, 4, 60), entry(89, 2, 39), entry(42, 1, 9)];
    assert_eq!(buckets(&node.catalogue).into_values().collect::<Vec<_>>(), expected);
    assert_eq!(node.disk.files().into_iter().filter(|(path, _)| bucket_of(path).is_some()).collect::<Vec<_>>(), before);
    // Neither file of the published node is left: they would be wrong as soon as this one has written.
    assert!(node.disk.files().iter().all(|(path, _)| !path.contains("checkpoint")));
}

#[test]
fn a_part_of_a_record_is_cut_off_and_kept_and_all_before_it_stays() {
    let (key, bytes) = FILES[0];
    for length in 16..bytes.len() {
        let disk = SimDisk::new();
        write(&disk, key, &bytes[..length]);
        checkpoint(&disk, b"log 1462194176 104\n");
        let mut node = Node::open(disk, 1);
        let ends = [16, 41, 76, 104, 144];
        let good = ends.into_iter().rfind(|end| *end <= length).unwrap();
        let entry = node.entry("log", BucketNumber::of(key)).unwrap();
        assert_eq!((entry.length, entry.counted), (good as u64, true), "{length}");
        let cut: Vec<_> = node.report.cut.iter().map(|cut| (cut.offset, cut.bytes)).collect();
        if good == length {
            assert_eq!(cut, []);
        } else {
            assert_eq!(cut, [(good as u64, (length - good) as u64)]);
            let kept = node.report.cut[0].kept.clone().unwrap();
            assert_eq!(kept, Path::new(DIR).join(format!(".damaged/log-0000000057-275-{good}")));
            let kept = node.disk.files().into_iter().find(|(path, _)| Path::new(path) == kept).unwrap();
            assert_eq!(kept.1, &bytes[good..length]);
        }
        // What is written now can be read.
        node.put("log", Format::V1, &values(&[key + 9])).unwrap();
        let scanned = scan(&node.disk);
        assert_eq!(scanned.values().next().unwrap().1.last(), values(&[key + 9]).last());
    }
}

#[test]
fn what_follows_a_damage_is_not_cut() {
    let (key, bytes) = FILES[0];
    let mut damaged = bytes.to_vec();
    damaged[41 + 16] ^= 1;
    let disk = SimDisk::new();
    write(&disk, key, &damaged);
    checkpoint(&disk, b"log 1462194176 0\n");
    let node = Node::open(disk, 1);
    let entry = node.entry("log", BucketNumber::of(key)).unwrap();
    assert_eq!((entry.length, entry.records), (144, 3));
    assert_eq!(node.report.cut, []);
    assert_eq!(node.report.problems, ["log/0000000057/275: 1 damaged places"]);
}

#[test]
fn a_large_bucket_is_read_from_its_checkpoint_on() {
    for (offset, counted) in [(16 + 1017 * 5000, false), (16 + 1017 * 5000 + 1, true)] {
        let mut bytes = Format::V1.header().to_vec();
        for _ in 0..5001 {
            record::put(crate::record::Framing::V1, 0x5727_5000, &[9; 1000], &mut bytes);
        }
        let good = bytes.len() as u64;
        bytes.extend_from_slice(&bytes.clone()[16..500]);
        let disk = SimDisk::new();
        write(&disk, 0x5727_5000, &bytes);
        checkpoint(&disk, format!("log 1462194176 {offset}\n").as_bytes());
        let node = Node::open(disk, 1);
        // An offset at which no record begins means nothing: the file is read from its front.
        let entry = node.entry("log", BucketNumber::of(0x5727_5000)).unwrap();
        assert_eq!((entry.length, entry.counted), (good, counted), "{offset}");
        assert_eq!(node.report.cut.len(), 1);
    }
}

#[test]
fn data_without_anything_is_listed() {
    let disk = SimDisk::new();
    for (key, bytes) in FILES {
        write(&disk, key, bytes);
    }
    let others = [
        "log/0000000057/277.gz",
        "log/0000000057/275.tmp",
        "log/0000000057/278.new",
        "log/57/275",
        "a.b/0000000057/275",
    ];
    for name in others {
        let path = Path::new(DIR).join(name);
        disk.create_dirs(path.parent().unwrap()).unwrap();
        disk.create(&path).unwrap().write_all_at(b"something", 0).unwrap();
    }
    disk.create_dirs(&Path::new(DIR).join("empty")).unwrap();
    let node = Node::open(disk, 1);
    assert_eq!(node.report, OpenReport { found: 3, strange: 2, archives: 1, ..OpenReport::default() });
    let names: Vec<_> = node.catalogue.channels(None).map(|(_, name)| name).collect();
    assert_eq!(names, ["empty", "log"]);
    assert_eq!((node.catalogue.totals().buckets, node.catalogue.totals().uncounted), (3, 3));
    // Only what has never taken a bucket's place is removed.
    let left: Vec<_> = others.iter().filter(|name| node.disk.stat(&Path::new(DIR).join(name)).is_err()).collect();
    assert_eq!(left, [&"log/0000000057/278.new"]);
    let settled = settle(&node.disk, Path::new(DIR), "log", BucketNumber::of(0x5727_5000)).unwrap();
    assert_eq!((settled.entry.records, settled.cut, settled.damages), (4, None, 0));
}

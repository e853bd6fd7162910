//! The files of a published node: served, appended to, and written the same.

use std::fs;
use std::path::{Path, PathBuf};

use overstory_replay::eventually;

use crate::rig::{Node, Record, Setup, check, copy, put};

/// The buckets that the published node wrote, and what is in them.
const BUCKETS: [(&str, &str); 3] = [("0000000057", "275"), ("0000000057", "276"), ("0000000058", "275")];

fn records() -> Vec<Record> {
    [
        (0x5727_5806, "line one"),
        (0x5727_5806, "line two, same key"),
        (0x5727_5801, "earlier key"),
        (0x5727_5807, "written after the flush"),
        (0x5727_6800, "next bucket"),
        (0x5727_6801, "next bucket, after the flush"),
        (0x5827_5800, "next slot"),
    ]
    .map(|(key, value)| (key, value.as_bytes().to_vec()))
    .to_vec()
}

fn published(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/files").join(name)).unwrap()
}

fn path(data: &Path, (slot, bucket): (&str, &str)) -> PathBuf {
    data.join("log").join(slot).join(bucket)
}

/// Lays the data directory of the published node out as it was when that was killed.
fn lay_out(data: &Path) {
    for bucket in BUCKETS {
        let path = path(data, bucket);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, published(&format!("dls.log_{}_{}", bucket.0, bucket.1))).unwrap();
    }
    fs::write(data.join("checkpoint.dat"), published("dls.checkpoint.dat")).unwrap();
}

/// The values of a bucket file without the header, as plainly as they can be read.
fn records_of(bytes: &[u8]) -> Vec<Record> {
    let (mut rest, mut records) = (&bytes[16..], Vec::new());
    while let Some((head, behind)) = rest.split_first_chunk::<17>() {
        assert_eq!(head.iter().fold(0, |parity, byte| parity ^ byte), 0, "the parity");
        let key = u64::from_le_bytes(head[..8].try_into().unwrap());
        let length = usize::try_from(u64::from_le_bytes(head[8..16].try_into().unwrap())).unwrap();
        records.push((key, behind[..length].to_vec()));
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
    records
}

/// The published node cut these very files to 104, 44 and 0 bytes when it was started on them (§10.1 17), because its
/// checkpoint says where a bucket ended when it was opened. Here the checkpoint only says from where on to look.
#[test]
fn the_files_of_a_published_node_that_was_killed_are_served_and_nothing_is_cut() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    lay_out(&data);
    assert_eq!(check(&data, &[]), 0);
    for _ in 0..2 {
        let node = Node::start(Setup::at(&data));
        assert_eq!(node.all("log"), records());
        eventually("all are counted", || node.size() == (7, 108));
        assert_eq!(node.findings(), []);
        node.stop();
        for bucket in BUCKETS {
            let as_it_was = published(&format!("dls.log_{}_{}", bucket.0, bucket.1));
            assert!(fs::read(path(&data, bucket)).unwrap() == as_it_was, "{bucket:?} is as it was");
        }
        assert_eq!(check(&data, &[]), 0);
    }
}

#[test]
fn a_published_bucket_is_appended_to_in_its_own_format() {
    for v2 in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        lay_out(&data);
        // A bucket of a plain one, from before there were headers.
        let plain = ("0000000059", "000");
        fs::create_dir_all(path(&data, plain).parent().unwrap()).unwrap();
        let record =
            |key: u64, value: &[u8]| [&key.to_le_bytes()[..], &(value.len() as u64).to_le_bytes(), value].concat();
        let of_plain = [record(0x5900_0005, b"old"), record(0x5900_0001, b"")].concat();
        fs::write(path(&data, plain), &of_plain).unwrap();
        // What new buckets would be makes no difference.
        let setup = Setup::at(&data);
        let node = Node::start(if v2 { setup.v2() } else { setup });
        let mut client = node.legacy();
        put(&mut client, "log", 0x5827_5fff, b"behind");
        put(&mut client, "log", 0x5900_0fff, b"behind, too");
        let mut expected = records();
        expected.push((0x5827_5fff, b"behind".to_vec()));
        expected.extend([(0x5900_0005, b"old".to_vec()), (0x5900_0001, Vec::new())]);
        expected.push((0x5900_0fff, b"behind, too".to_vec()));
        assert_eq!(node.all("log"), expected, "at once");
        eventually("all are counted", || node.size() == (11, 108 + 6 + 3 + 11));
        node.stop();
        let mut v1 = published("dls.log_0000000058_275");
        v1.extend(0x5827_5fff_u64.to_le_bytes());
        v1.extend(6_u64.to_le_bytes());
        v1.push(0x58 ^ 0x27 ^ 0x5f ^ 0xff ^ 6);
        v1.extend(b"behind");
        assert!(fs::read(path(&data, BUCKETS[2])).unwrap() == v1);
        let of_plain = [of_plain, record(0x5900_0fff, b"behind, too")].concat();
        assert!(fs::read(path(&data, plain)).unwrap() == of_plain);
        assert_eq!(check(&data, &[]), 0);
        let node = Node::start(Setup::at(&data));
        assert_eq!(node.all("log"), expected);
        eventually("all are counted", || node.size() == (11, 128));
    }
}

#[test]
fn what_the_published_node_was_put_becomes_the_same_files() {
    for always in [false, true] {
        let setup = Setup::default();
        let node = Node::start(if always { setup.always() } else { setup });
        let mut client = node.legacy();
        for (key, value) in records() {
            put(&mut client, "log", key, &value);
        }
        node.flush();
        for bucket in BUCKETS {
            let (ours, theirs) =
                (fs::read(path(&node.data, bucket)).unwrap(), published(&format!("dls.log_{}_{}", bucket.0, bucket.1)));
            assert!(ours == theirs, "{bucket:?}");
            assert!(!records_of(&ours).is_empty());
        }
        assert_eq!(check(&node.data, &[]), 0, "on the directory of a running node, too");
    }
}

/// The published node has it in `data`, whatever `data_dir` says; and it names no offset at which a record ends.
#[test]
fn the_checkpoint_is_in_the_data_directory_and_gone_after_a_stop() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("elsewhere");
    let setup = Setup::at(&data).with(|settings| settings.checkpoint = std::time::Duration::from_millis(100));
    let node = Node::start(setup.clone());
    let mut client = node.legacy();
    for key in 0..100 {
        put(&mut client, "c", key << 20, b"value");
    }
    let file = data.join("checkpoint.dat");
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    let length = |key: u64| {
        let path = data.join("c").join(format!("{:010x}", key >> 24)).join(format!("{:03x}", key >> 12 & 0xfff));
        fs::metadata(&path).map_or(0, |file| file.len())
    };
    eventually("there is a checkpoint", || {
        put(&mut client, "c", 5, b"more");
        lines().lines().any(|line| line.starts_with("c 0 "))
    });
    for line in lines().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!((fields.len(), fields[0]), (3, "c"), "{line}");
        let (key, offset): (u64, u64) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
        assert!(length(key) >= offset, "{line}");
    }
    assert!(!Path::new("data").exists());
    // The first checkpoint may have come before the last of them was written.
    eventually("all have left the node's memory", || (0..100).all(|key| length(key << 20) >= 16 + 17 + 5));
    // As a kill leaves it: with a checkpoint. The next start needs no more than that.
    let left = place.path().join("left");
    copy(&data, &left);
    fs::remove_file(left.join(".catalogue")).unwrap();
    let expected = node.all("c");
    node.stop();
    assert!(!file.exists());
    let again = Node::start(Setup::at(&left));
    let there = again.all("c");
    assert!(there.len() >= 100 && there.len() <= expected.len());
    assert!(there.iter().all(|record| expected.contains(record)));
}

/// A bucket that was cut to nothing, or has less than a header, is an empty one.
#[test]
fn a_bucket_without_a_header_gets_a_new_one_with_its_next_record() {
    for length in [0, 1, 15, 16] {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        lay_out(&data);
        let bucket = path(&data, BUCKETS[2]);
        fs::write(&bucket, &published("dls.log_0000000058_275")[..length]).unwrap();
        let node = Node::start(Setup::at(&data));
        assert_eq!(node.all("log"), records()[..6]);
        put(&mut node.legacy(), "log", 0x5827_5800, b"next slot");
        assert_eq!(node.all("log"), records());
        node.stop();
        assert!(fs::read(&bucket).unwrap() == published("dls.log_0000000058_275"), "{length}");
    }
}

/// A part of a record at the end of a file, as a full disk or a power cut leaves it, costs that record alone.
#[test]
fn a_part_of_a_record_is_kept_aside_and_nothing_is_taken_for_its_value() {
    let whole = published("dls.log_0000000057_275");
    for length in [105, 113, 121, 122, 143] {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        lay_out(&data);
        fs::write(path(&data, BUCKETS[0]), &whole[..length]).unwrap();
        assert_eq!(check(&data, &[]), 1);
        let node = Node::start(Setup::at(&data));
        let mut expected = records();
        expected.remove(3);
        assert_eq!(node.all("log"), expected);
        put(&mut node.legacy(), "log", 0x5727_5807, b"written after the flush");
        assert_eq!(node.all("log"), records());
        eventually("all are counted", || node.size() == (7, 108));
        node.stop();
        assert!(fs::read(path(&data, BUCKETS[0])).unwrap() == whole, "{length}");
        assert_eq!(check(&data, &[]), 0);
    }
}

//! Files that somebody cuts or removes while the node runs.

use super::*;

const NUMBER: BucketNumber = BucketNumber::of(0x1000);
const FILE: &str = "/data/log/0000000000/001";
/// The size of a record of these tests with its head.
const RECORD: u64 = 17 + 4;

fn told(storage: &Storage) -> Option<String> {
    let mut findings = Vec::new();
    storage.findings(&mut findings);
    findings.into_iter().find(|finding| finding.check == "corruption").map(|finding| finding.text)
}

fn text(at: u64, records: u64, why: &str) -> Option<String> {
    let bytes = 16 + 10 * RECORD - at;
    Some(format!(
        "1 damaged places; log/0000000000/001 at {at}, {bytes} bytes and about {records} records are missing: {why}"
    ))
}

async fn ten(storage: &Storage) {
    for key in 0x1000..0x100a {
        storage.put("log", key, b"four").unwrap();
    }
    storage.flush().await.unwrap();
}

fn cut(disk: &SimDisk, length: u64) {
    disk.create(Path::new(FILE)).unwrap().set_len(length).unwrap();
}

#[test]
fn a_file_that_is_cut_or_emptied_is_told_when_it_is_written_to() {
    for left in [0, 4] {
        let disk = SimDisk::new();
        with_storage(&disk, options(), async |storage, _| {
            ten(&storage).await;
            let length = if left == 0 { 0 } else { 16 + left * RECORD };
            cut(&disk, length);
            storage.put("log", 0x1100, b"more").unwrap();
            storage.flush().await.unwrap();
            assert_eq!(told(&storage), text(length, 10 - left, "the file is shorter than it was"));
            assert_eq!(read(&storage, &disk, "log").len() as u64, left + 1);
            storage.close().await.unwrap();
        });
    }
}

#[test]
fn a_file_that_was_cut_and_written_to_is_whole_after_a_crash() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        ten(&storage).await;
        cut(&disk, 16 + 4 * RECORD);
        // So that what is written goes over the old end.
        for key in 0x1100..0x1120 {
            storage.put("log", key, b"longer than four").unwrap();
        }
        storage.flush().await.unwrap();
    });
    let disk = disk.kill();
    with_storage(&disk, options(), async |storage, _| {
        assert_eq!((totals(&storage).0, read(&storage, &disk, "log").len()), (36, 36));
        assert_eq!(told(&storage), None);
    });
}

#[test]
fn a_file_that_was_cut_or_is_gone_is_told_when_it_is_compared_and_until_the_bucket_is_removed() {
    for (length, left, why) in [
        (Some(16 + 4 * RECORD), 4, "the file is shorter than it was"),
        (Some(0), 0, "the file is shorter than it was"),
        (None, 0, "the file is missing"),
    ] {
        let disk = SimDisk::new();
        with_storage(&disk, options(), async |storage, _| {
            ten(&storage).await;
            storage.close().await.unwrap();
        });
        with_storage(&disk, options(), async |storage, _| {
            match length {
                Some(length) => cut(&disk, length),
                None => disk.remove(Path::new(FILE)).unwrap(),
            }
            storage.rescan("log", NUMBER).await.unwrap();
            let expected = text(length.unwrap_or(0), 10 - left, why);
            assert_eq!(told(&storage), expected);
            assert_eq!(totals(&storage).0, left);
            // Another look does not take it back.
            storage.rescan("log", NUMBER).await.unwrap();
            assert_eq!(told(&storage), expected);
            storage.damages().forget("log", NUMBER);
            assert_eq!(told(&storage), None);
            storage.close().await.unwrap();
        });
    }
}

#[test]
fn what_a_start_misses_is_told() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        ten(&storage).await;
        storage.close().await.unwrap();
    });
    cut(&disk, 0);
    disk.create(Path::new("/data/log/0000000000/note")).unwrap();
    with_storage(&disk, options(), async |storage, _| {
        assert_eq!(told(&storage), text(0, 10, "the file is shorter than it was"));
    });
}

#[test]
fn what_a_reader_misses_is_told_with_its_records() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        ten(&storage).await;
        for (offset, records, why) in [(16 + 4 * RECORD, 6, recovery::SHORTER), (0, 10, recovery::GONE)] {
            let bytes = 16 + 10 * RECORD - offset;
            storage.damaged(Damage { channel: "log".into(), number: NUMBER, offset, bytes, why });
            assert_eq!(told(&storage), text(offset, records, why));
            storage.damages().forget("log", NUMBER);
        }
        // What is taken away by the node itself is not.
        let (view, entry) = storage.file_view("log", NUMBER).await.unwrap().unwrap();
        storage.put("log", 0x1200, b"four").unwrap();
        storage.flush().await.unwrap();
        storage.take_front(&view, &entry).await.unwrap();
        assert_eq!(told(&storage), None);
        assert_eq!(read(&storage, &disk, "log").len(), 1);
    });
}

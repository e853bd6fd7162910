//! The orderly stop on a disk that is full.

use std::io;

use super::*;
use crate::disk::sim::{Call, Crash};

const NAMES: [&str; 2] = [".catalogue", "log"];

fn names(disk: &SimDisk) -> Vec<String> {
    let mut names: Vec<_> = disk.list(Path::new(DIR)).unwrap().into_iter().map(|named| named.name).collect();
    names.sort();
    names
}

/// Writes records in two steps with a checkpoint between them; how many.
async fn fill(storage: &Storage, disk: &SimDisk) -> u64 {
    for key in 0..40 {
        storage.put("log", key << 10, b"some bytes").unwrap();
    }
    storage.flush().await.unwrap();
    until("a checkpoint", || disk.stat(Path::new("/data/checkpoint.dat")).is_ok()).await;
    for key in 0..40 {
        storage.put("log", (key << 10) + 1, b"some bytes").unwrap();
    }
    storage.flush().await.unwrap();
    80
}

#[test]
fn a_stop_without_room_for_the_catalogue_loses_nothing() {
    for free in [0, 1, 100, 1000, 5000] {
        for options in [options(), always()] {
            let options = StorageOptions { checkpoint: Duration::from_millis(30), ..options };
            let disk = SimDisk::new();
            let records = with_storage(&disk, options, async |storage, _| {
                let records = fill(&storage, &disk).await;
                disk.set_free(Some(free));
                storage.close().await.unwrap();
                records
            });
            assert_eq!(names(&disk), NAMES, "{free}");
            disk.set_free(None);
            // Also if the machine is started anew.
            let disk = disk.crash(Crash::Loses, 1);
            let other_boot = StorageOptions { boot_id: "another".into(), ..super::options() };
            with_storage(&disk, other_boot, async |storage, _| {
                assert_eq!((totals(&storage).0, read(&storage, &disk, "log").len() as u64), (records, records));
            });
        }
    }
}

#[test]
fn a_catalogue_that_cannot_be_written_at_all_is_made_anew_by_the_next_start() {
    for (kind, well) in [(io::ErrorKind::StorageFull, true), (io::ErrorKind::Other, false)] {
        let disk = SimDisk::new();
        let options = StorageOptions { checkpoint: Duration::from_millis(30), ..options() };
        let records = with_storage(&disk, options, async |storage, _| {
            let records = fill(&storage, &disk).await;
            disk.fail(Call::Write, 0, 100_000, kind);
            let closed = storage.close().await;
            assert_eq!(closed.is_ok(), well);
            if let Err(error) = closed {
                let text = error.to_string();
                assert!(text.starts_with("the catalogue could not be written, all records are saved: "), "{text}");
            }
            records
        });
        assert_eq!(names(&disk), ["log"]);
        disk.heal();
        let disk = disk.crash(Crash::Loses, 1);
        let other_boot = StorageOptions { boot_id: "another".into(), ..super::options() };
        with_storage(&disk, other_boot, async |storage, _| {
            assert_eq!(storage.totals().uncounted, storage.totals().buckets);
            for number in storage.bucket_numbers("log", None, 100) {
                storage.rescan("log", number).await.unwrap();
            }
            assert_eq!((totals(&storage).0, read(&storage, &disk, "log").len() as u64), (records, records));
        });
    }
}

#[test]
fn what_was_written_is_made_durable_also_if_other_records_are_lost() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1000, b"there").unwrap();
        storage.flush().await.unwrap();
        disk.set_free(Some(0));
        storage.put("log", 0x1001, b"lost").unwrap();
        storage.put("log", 0x1002, b"lost").unwrap();
        let error = storage.close().await.unwrap_err();
        assert!(error.to_string().starts_with("2 records are lost"), "{error}");
    });
    disk.set_free(None);
    let disk = disk.crash(Crash::Loses, 1);
    let other_boot = StorageOptions { boot_id: "another".into(), ..options() };
    with_storage(&disk, other_boot, async |storage, _| {
        // Of so small a catalogue the room is too small for a new one.
        storage.rescan("log", BucketNumber::of(0x1000)).await.unwrap();
        assert_eq!(read(&storage, &disk, "log"), [(0x1000, b"there".to_vec())]);
    });
}

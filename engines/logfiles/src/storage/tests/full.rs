//! The disk fills up, fails, or is too slow.

use std::io;

use super::*;
use crate::disk::sim::Call;

fn has(storage: &Storage, check: &str) -> bool {
    let mut findings = Vec::new();
    storage.findings(&mut findings);
    findings.iter().any(|finding| finding.check == check)
}

#[test]
fn a_full_disk_refuses_records_keeps_those_it_took_and_goes_on_when_there_is_room() {
    for options in [options(), always()] {
        let disk = SimDisk::new();
        with_storage(&disk, options, async |storage, commits| {
            storage.put("log", 0x1000, &[1; 1000]).unwrap();
            storage.flush().await.unwrap();
            disk.set_free(Some(500));
            let mut taken = 1;
            // Also what fits in part leaves nothing in the middle of the file.
            until("the disk is full", || {
                let refused = storage.put("log", 0x1001, &[2; 700]).is_err();
                taken += usize::from(!refused);
                refused
            })
            .await;
            assert_eq!(storage.put("log", 0x1001, b"more"), Err(PutError::NoSpace));
            assert!(has(&storage, "write"));
            assert_eq!(read(&storage, &disk, "log").len(), taken);
            let length = storage.entry("log", BucketNumber::of(0x1000)).unwrap().length;
            assert_eq!(disk.stat(Path::new("/data/log/0000000000/001")).unwrap().length, length);
            disk.set_free(None);
            until("records are taken again", || storage.put("log", 0x1002, b"again").is_ok()).await;
            until("replies are sent", || commits.durable() == commits.made()).await;
            storage.flush().await.unwrap();
            assert_eq!(read(&storage, &disk, "log").len(), taken + 1);
            assert_eq!(totals(&storage).0, taken as u64 + 1);
            assert!(!has(&storage, "write"));
        });
    }
}

#[test]
fn a_channel_can_be_removed_from_a_full_disk_and_that_makes_room() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        storage.put("large", 0x1000, &[1; 100_000]).unwrap();
        storage.flush().await.unwrap();
        disk.set_free(Some(0));
        for _ in 0..10 {
            storage.put("large", 0x1001, &[2; 3000]).unwrap();
            storage.put("small", 0x1001, &[3; 3000]).unwrap();
        }
        until("the disk is full", || storage.put("small", 0x1001, b"x") == Err(PutError::NoSpace)).await;
        assert!(storage.remove_channel("large").await.unwrap());
        storage.flush().await.unwrap();
        assert_eq!((read(&storage, &disk, "large").len(), read(&storage, &disk, "small").len() >= 10), (0, true));
        assert_eq!(totals(&storage).0, read(&storage, &disk, "small").len() as u64);
    });
}

#[test]
fn a_node_can_be_stopped_while_the_disk_is_full_and_says_what_is_lost() {
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
    with_storage(&disk, options(), async |storage, _| {
        // There was not even room for the catalogue.
        storage.rescan("log", BucketNumber::of(0x1000)).await.unwrap();
        assert_eq!(read(&storage, &disk, "log"), [(0x1000, b"there".to_vec())]);
    });
}

#[test]
fn a_write_that_fails_is_repeated_and_leaves_nothing_in_the_middle() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1000, b"one").unwrap();
        storage.flush().await.unwrap();
        disk.fail(Call::Write, 0, 40, io::ErrorKind::Other);
        storage.put("log", 0x1001, b"two").unwrap();
        until("records are refused", || storage.put("log", 0x1002, b"three") == Err(PutError::Bucket)).await;
        assert!(has(&storage, "bucket"));
        until("records are taken", || storage.put("log", 0x1003, b"four").is_ok()).await;
        storage.flush().await.unwrap();
        let keys: Vec<u64> = read(&storage, &disk, "log").into_iter().map(|(key, _)| key).collect();
        assert!(keys.starts_with(&[0x1000, 0x1001]) && keys.ends_with(&[0x1003]), "{keys:x?}");
    });
}

#[test]
fn what_cannot_be_made_durable_is_never_answered_in_always_mode() {
    let disk = SimDisk::new();
    with_storage(&disk, always(), async |storage, commits| {
        storage.put("log", 0x1000, b"one").unwrap();
        until("it is durable", || commits.durable() == 1).await;
        disk.fail(Call::Sync, 0, 1, io::ErrorKind::Other);
        storage.put("log", 0x1001, b"two").unwrap();
        until("it has failed", || commits.has_failed()).await;
        assert_eq!((commits.durable(), storage.put("log", 0x1002, b"three")), (1, Err(PutError::Failed)));
        assert!(has(&storage, "sync") && storage.close().await.is_err());
    });
}

#[test]
fn a_checkpoint_that_fails_is_found_and_the_node_goes_on_in_interval_mode() {
    let disk = SimDisk::new();
    let options = StorageOptions { checkpoint: Duration::from_millis(5), ..options() };
    with_storage(&disk, options, async |storage, _| {
        storage.put("log", 0x1000, b"one").unwrap();
        storage.flush().await.unwrap();
        disk.fail(Call::Sync, 0, 1000, io::ErrorKind::Other);
        until("it is found", || has(&storage, "sync")).await;
        until("it is late", || storage.gauges().late > Duration::ZERO).await;
        disk.heal();
        storage.put("log", 0x1001, b"two").unwrap();
        storage.flush().await.unwrap();
        assert_eq!(read(&storage, &disk, "log").len(), 2);
        assert!(storage.close().await.is_err());
    });
    with_storage(&disk.kill(), super::options(), async |storage, _| assert_eq!(totals(&storage), (2, 6)));
}

#[test]
fn what_the_system_has_forgotten_after_a_failed_sync_is_not_taken_for_records() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1000, b"durable").unwrap();
        storage.flush().await.unwrap();
        storage.state.borrow_mut().checkpoint();
        until("it is durable", || storage.gauges().checkpoints > 0).await;
        disk.fail(Call::Sync, 1, 1, io::ErrorKind::Other);
        storage.put("log", 0x1001, &[7; 100]).unwrap();
        storage.flush().await.unwrap();
        storage.state.borrow_mut().checkpoint();
        until("it is found", || has(&storage, "sync")).await;
        storage.put("log", 0x1002, b"later").unwrap();
        storage.flush().await.unwrap();
        assert!(storage.close().await.is_err());
    });
    // What was in memory alone is gone from there, too; nothing else says so in the same boot.
    let file = disk.open(Path::new("/data/log/0000000000/001")).unwrap();
    let (mut bytes, length) = (vec![0; 1000], file.len().unwrap());
    let read_bytes = file.read_at(&mut bytes, 0).unwrap();
    let value = bytes[..read_bytes].windows(100).position(|bytes| bytes == [7; 100]).unwrap();
    disk.create(Path::new("/data/log/0000000000/001")).unwrap().write_all_at(&[0; 100], value as u64).unwrap();
    assert!(length > value as u64 + 100);
    with_storage(&disk, options(), async |storage, _| {
        assert_eq!(read(&storage, &disk, "log"), [(0x1000, b"durable".to_vec())]);
    });
}

#[test]
fn replies_wait_when_the_writer_is_behind_and_then_records_are_refused() {
    let disk = SimDisk::new();
    let options = StorageOptions { queue_bytes: 64 << 10, ..options() };
    with_storage(&disk, options, async |storage, commits| {
        // The writer's answers are taken in only while something waits here.
        let mut taken = 0;
        while storage.put("log", 0x1000, &[1; 3000]).is_ok() {
            taken += 1;
        }
        assert_eq!(storage.put("log", 0x1000, b"more"), Err(PutError::Overloaded));
        assert!((30..50).contains(&taken), "{taken}");
        assert!((10..30).contains(&commits.made()), "{}", commits.made());
        assert!(commits.durable() == 0 && has(&storage, "sync_behind"));
        until("the writer has caught up", || commits.durable() == commits.made()).await;
        storage.put("log", 0x1000, b"more").unwrap();
        assert_eq!(read(&storage, &disk, "log").len(), taken + 1);
    });
}

#[test]
fn a_storage_is_dropped_while_nobody_takes_in_what_the_writer_does() {
    let disk = SimDisk::new();
    let (storage, _commits) = open(&disk, StorageOptions { open_files: 1, ..options() });
    for key in 1..5000_u64 {
        storage.put("log", key << 12, b"value").unwrap();
    }
    drop(storage);
}

//! One bucket's file cannot be opened or written, the others can.

use std::io;

use super::*;
use crate::disk::sim::Call;
use crate::disk::{Disk, SystemDisk};

const BAD: &str = "/data/log/0000000000/001";

fn finding(storage: &Storage, check: &str) -> Option<String> {
    let mut findings = Vec::new();
    storage.findings(&mut findings);
    findings.into_iter().find(|finding| finding.check == check).map(|finding| finding.text)
}

/// A disk with a bucket that has one record.
fn with_one_record() -> SimDisk {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1000, b"before").unwrap();
        storage.close().await.unwrap();
    });
    disk
}

fn keys(storage: &Storage, disk: &dyn Disk, channel: &str) -> Vec<u64> {
    read(storage, disk, channel).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_bucket_that_cannot_be_written_holds_up_no_other_one() {
    for (call, options) in
        [(Call::Open, options()), (Call::Write, options()), (Call::Open, always()), (Call::Write, always())]
    {
        let is_always = options.sync == SyncMode::Always;
        let disk = with_one_record();
        disk.fail_file(Path::new(BAD), call, io::ErrorKind::PermissionDenied);
        with_storage(&disk, options, async |storage, commits| {
            storage.put("log", 0x1001, b"waits").unwrap();
            storage.put("log", 0x2001, b"healthy").unwrap();
            storage.put("other", 0x1001, b"healthy").unwrap();
            until("it is refused", || storage.put("log", 0x1002, b"no") == Err(PutError::Bucket)).await;
            let text = finding(&storage, "bucket").unwrap();
            assert!(text.starts_with("log/0000000000/001 cannot be written: permission denied; "), "{text}");
            assert!(finding(&storage, "write").is_none());
            // What was on its way with it is not answered, what comes later is.
            until("the group is over", || commits.durable() == commits.made()).await;
            assert_eq!(commits.has_lost(), is_always);
            let before = commits.made();
            storage.put("log", 0x2002, b"healthy").unwrap();
            storage.put("other", 0x1002, b"healthy").unwrap();
            until("they are answered", || commits.durable() == commits.made()).await;
            assert!(!commits.is_lost(before + 1, commits.made()));
            assert!(storage.flush().await.unwrap_err().to_string().contains("permission denied"));
            assert!(storage.file_view("log", BucketNumber::of(0x1000)).await.is_err());
            assert_eq!(storage.file_view("other", BucketNumber::of(0x1000)).await.unwrap().unwrap().1.records, 2);
            disk.heal();
            until("it is taken again", || storage.put("log", 0x1003, b"again").is_ok()).await;
            storage.flush().await.unwrap();
            assert!(finding(&storage, "bucket").is_none());
            until("they are answered", || commits.durable() == commits.made()).await;
            assert!(!commits.is_lost(before + 1, commits.made()));
            let found = keys(&storage, &disk, "log");
            assert!(found.starts_with(&[0x1000, 0x1001]) && found.ends_with(&[0x1003, 0x2001, 0x2002]), "{found:x?}");
            assert_eq!(totals(&storage).0, found.len() as u64 + 2);
            storage.close().await.unwrap();
        });
        with_storage(&disk.crash(crate::disk::sim::Crash::Loses, 0), super::options(), async |storage, _| {
            assert!(keys(&storage, &disk, "log").ends_with(&[0x1003, 0x2001, 0x2002]));
            assert!(totals(&storage).0 >= 7);
        });
    }
}

#[test]
fn at_the_stop_only_what_cannot_be_written_is_lost_and_named() {
    for options in [options(), always()] {
        let disk = with_one_record();
        disk.fail_file(Path::new(BAD), Call::Open, io::ErrorKind::PermissionDenied);
        with_storage(&disk, options, async |storage, _| {
            storage.put("log", 0x1001, b"lost").unwrap();
            storage.put("log", 0x2001, b"healthy").unwrap();
            storage.put("other", 0x1001, b"healthy").unwrap();
            let error = storage.close().await.unwrap_err().to_string();
            assert_eq!(error, "1 records are lost: log/0000000000/001: permission denied (1 records)");
        });
        let after = disk.crash(crate::disk::sim::Crash::Loses, 0);
        with_storage(&after, super::options(), async |storage, _| {
            assert_eq!((keys(&storage, &after, "log"), totals(&storage).0), (vec![0x1000, 0x2001], 3));
        });
    }
}

#[test]
fn what_waits_is_bounded_and_does_not_count_against_others() {
    let disk = with_one_record();
    for bucket in 1..200 {
        let path = format!("/data/log/0000000000/{bucket:03x}");
        disk.fail_file(Path::new(&path), Call::Open, io::ErrorKind::PermissionDenied);
    }
    let options = StorageOptions { queue_bytes: 64 << 10, ..options() };
    with_storage(&disk, options, async |storage, commits| {
        let mut taken = 0;
        for bucket in 1..200 {
            if storage.put("log", bucket << 12, &[1; 100]).is_ok() {
                taken += 1;
            }
            storage.put("other", bucket << 12, &[1; 100]).unwrap();
            let _bad = storage.flush().await;
        }
        // Then the rest of the channel is believed to be no better.
        assert!((20..=64).contains(&taken), "{taken}");
        assert_eq!(storage.channel_totals("other").unwrap().records, 199);
        assert!(storage.gauges().queue_bytes == 0 && !storage.gauges().behind && commits.made() == 0);
        disk.heal();
        until("all are written", || finding(&storage, "bucket").is_none()).await;
        storage.flush().await.unwrap();
        assert_eq!(storage.gauges().queue_bytes, 0);
        assert_eq!(read(&storage, &disk, "log").len(), taken + 1);
        storage.put("log", 199 << 12, b"now").unwrap();
        storage.close().await.unwrap();
    });
}

#[test]
fn a_bucket_that_cannot_be_read_at_the_start_is_refused_until_it_can() {
    let disk = with_one_record();
    let killed = with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1001, b"after").unwrap();
        storage.flush().await.unwrap();
        disk.kill()
    });
    killed.fail_file(Path::new(BAD), Call::Open, io::ErrorKind::PermissionDenied);
    for options in [StorageOptions { checkpoint: Duration::from_millis(5), ..options() }, always()] {
        with_storage(&killed, options, async |storage, commits| {
            assert_eq!(storage.put("log", 0x1002, b"no"), Err(PutError::Bucket));
            assert!(finding(&storage, "bucket").unwrap().ends_with("; 0 records wait"));
            storage.put("log", 0x2001, b"healthy").unwrap();
            storage.flush().await.unwrap();
            until("it is answered", || commits.durable() == commits.made()).await;
            assert!(!commits.has_lost() && finding(&storage, "sync").is_none());
            for _ in 0..3 {
                let before = storage.gauges().checkpoints;
                storage.state.borrow().give(Job::Checkpoint);
                until("a checkpoint is there", || storage.gauges().checkpoints > before).await;
            }
            assert!(finding(&storage, "sync").is_none());
            storage.close().await.unwrap();
        });
    }
    with_storage(&killed, options(), async |storage, _| {
        assert_eq!(storage.put("log", 0x1002, b"no"), Err(PutError::Bucket));
        killed.heal();
        until("it is taken", || storage.put("log", 0x1002, b"yes").is_ok()).await;
        storage.flush().await.unwrap();
        assert_eq!(keys(&storage, &killed, "log"), [0x1000, 0x1001, 0x1002, 0x2001, 0x2001]);
        assert_eq!(totals(&storage).0, 5);
        storage.close().await.unwrap();
    });
}

#[test]
fn a_bucket_that_cannot_be_written_can_be_removed() {
    let disk = with_one_record();
    disk.fail_file(Path::new(BAD), Call::Open, io::ErrorKind::PermissionDenied);
    with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1001, b"waits").unwrap();
        until("it is refused", || storage.put("log", 0x1002, b"no") == Err(PutError::Bucket)).await;
        storage.remove_bucket("log", BucketNumber::of(0x1000)).await.unwrap();
        assert_eq!((totals(&storage).0, storage.gauges().queue_bytes), (0, 0));
        disk.heal();
        storage.put("log", 0x1003, b"new").unwrap();
        storage.flush().await.unwrap();
        assert_eq!(keys(&storage, &disk, "log"), [0x1003]);
        disk.fail_file(Path::new(BAD), Call::Write, io::ErrorKind::Other);
        storage.put("log", 0x1004, b"waits").unwrap();
        until("it is refused", || storage.put("log", 0x1002, b"no") == Err(PutError::Bucket)).await;
        assert!(storage.remove_channel("log").await.unwrap());
        disk.heal();
        storage.put("log", 0x1005, b"newer").unwrap();
        storage.close().await.unwrap();
        assert_eq!(keys(&storage, &disk, "log"), [0x1005]);
    });
}

#[test]
fn what_is_no_regular_file_is_neither_written_nor_followed() {
    let home = tempfile::tempdir().unwrap();
    let (dir, outside) = (home.path().join("data"), home.path().join("outside"));
    std::fs::create_dir_all(dir.join("log/0000000000/001")).unwrap();
    std::fs::create_dir_all(home.path().join("channel/0000000000")).unwrap();
    std::fs::write(&outside, b"somebody else's").unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("log/0000000000/002")).unwrap();
    std::os::unix::fs::symlink(home.path().join("channel"), dir.join("linked")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let commits = Rc::new(Commits::new());
        let (storage, report) = Storage::open(Arc::new(SystemDisk), &dir, options(), commits).unwrap();
        assert!(
            report.problems.iter().filter(|problem| problem.ends_with("it is not used")).count() == 3,
            "{report:?}"
        );
        let storage = Rc::new(storage);
        let driven = Rc::clone(&storage);
        tokio::task::spawn_local(async move { driven.drive().await });
        assert_eq!(totals(&storage), (0, 0));
        for (channel, key) in [("log", 0x1000), ("log", 0x2000), ("linked", 0x1000), ("log", 0x3000)] {
            storage.put(channel, key, b"value").unwrap();
        }
        for (channel, key) in [("log", 0x1000), ("log", 0x2000), ("linked", 0x1000)] {
            until("it is refused", || storage.put(channel, key + 1, b"no") == Err(PutError::Bucket)).await;
        }
        assert_eq!(storage.entry("log", BucketNumber::of(0x3000)).unwrap().records, 1);
        std::fs::remove_dir(dir.join("log/0000000000/001")).unwrap();
        until("it is mended", || storage.put("log", 0x1001, b"yes").is_ok()).await;
        let error = storage.close().await.unwrap_err().to_string();
        assert!(error.contains("log/0000000000/002: it is a symbolic link (") && error.contains("linked/"), "{error}");
        assert!(!error.contains("log/0000000000/001"), "{error}");
    });
    assert_eq!(std::fs::read(&outside).unwrap(), b"somebody else's");
    assert_eq!(std::fs::read_dir(home.path().join("channel/0000000000")).unwrap().count(), 0);
}

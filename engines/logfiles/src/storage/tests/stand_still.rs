//! What happens while nothing can be written, at the stop and beside it.

use std::io;

use super::*;
use crate::disk::sim::Call;

#[test]
fn a_node_stops_however_many_buckets_wait_for_a_full_disk() {
    let disk = SimDisk::new();
    let options = StorageOptions { write_after: Duration::from_secs(1000), ..options() };
    with_storage(&disk, options, async |storage, _| {
        // More than are tried again at once, so that each try fails at another one.
        for channel in 0..6 {
            for bucket in 0..60_u64 {
                let path = format!("/data/log-{channel}/0000000000/{bucket:03x}");
                disk.fail_file(Path::new(&path), Call::Open, io::ErrorKind::PermissionDenied);
                storage.put(&format!("log-{channel}"), bucket << 12 | 1, b"waits").unwrap();
            }
        }
        let _bad = storage.flush().await;
        disk.heal();
        disk.fail(Call::Create, 0, u64::MAX, io::ErrorKind::StorageFull);
        until("the disk is full", || storage.put("other", 1, b"no") == Err(PutError::NoSpace)).await;
        let closed = tokio::time::timeout(Duration::from_secs(20), storage.close()).await;
        let error = closed.expect("it stops").unwrap_err().to_string();
        assert!(error.contains(" records are lost: writing log-"), "{error}");
    });
}

#[test]
fn a_stop_ends_the_replies_that_wait_for_a_full_disk() {
    let disk = SimDisk::new();
    let options = StorageOptions { queue_bytes: 16 << 10, ..options() };
    with_storage(&disk, options, async |storage, commits| {
        disk.set_free(Some(4000));
        // What the writer says is taken in only while something waits here.
        while commits.made() == 0 {
            storage.put("log", 0x1000, &[1; 3000]).unwrap();
        }
        assert!(storage.close().await.is_err());
        // Neither answered, since it is lost, nor left waiting.
        assert!(commits.has_failed());
    });
}

#[test]
fn a_bucket_that_cannot_be_removed_is_still_there() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        storage.put("log", 0x1000, b"stays").unwrap();
        storage.flush().await.unwrap();
        let (number, entry) = (BucketNumber::of(0x1000), storage.entry("log", BucketNumber::of(0x1000)));
        disk.fail(Call::Remove, 0, 1, io::ErrorKind::PermissionDenied);
        assert!(storage.remove_bucket("log", number).await.is_err());
        assert_eq!((storage.entry("log", number), totals(&storage).0), (entry, 1));
        storage.put("log", 0x1001, b"more").unwrap();
        storage.flush().await.unwrap();
        assert_eq!(read(&storage, &disk, "log").len(), 2);
        assert!(storage.remove_bucket("log", number).await.unwrap());
        assert_eq!((storage.entry("log", number), bucket_files(&disk).len()), (None, 0));
        storage.close().await.unwrap();
    });
}

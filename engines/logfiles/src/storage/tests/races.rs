//! Removals and rewrites while records come in.

use super::*;

const BUCKET: BucketNumber = BucketNumber::of(0x1000);

/// A durable file as retention makes it: the records of a view in format 2.
pub(super) fn compressed(disk: &SimDisk, view: &BucketView, level: i32) -> (PathBuf, Entry) {
    let mut records = Records::new();
    read_view(view, disk, &mut records);
    let mut plain = Vec::new();
    for (key, value) in &records {
        crate::record::put(Framing::Plain, *key, value, &mut plain);
    }
    let mut content = Format::V2.header().to_vec();
    crate::format::v2::encode_block(content.len() as u64, &plain, level, &mut content).unwrap();
    let path = view.path().with_extension("new");
    let file = disk.create(&path).unwrap();
    file.write_all_at(&content, 0).unwrap();
    file.sync().unwrap();
    let bytes = records.iter().map(|(_, value)| value.len() as u64).sum();
    let (records, length) = (records.len() as u64, content.len() as u64);
    (path, Entry { format: Some(Format::V2), counted: true, length, records, bytes })
}

#[test]
fn a_removed_channel_is_gone_at_once_and_its_name_can_be_used_again_at_once() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        for round in 0..20_u64 {
            for key in 0..50 {
                storage.put("log", 0x1000 * key + round + 1, &[1; 300]).unwrap();
            }
            if round % 3 == 0 {
                storage.flush().await.unwrap();
            }
            let new = [(0x5000 + round, b"new".to_vec())];
            let (removed, ()) = tokio::join!(storage.remove_channel("log"), async {
                assert!(read(&storage, &disk, "log").is_empty() && storage.channel_totals("log").is_none());
                storage.put("log", new[0].0, b"new").unwrap();
                assert_eq!(read(&storage, &disk, "log"), new);
            });
            assert!(removed.unwrap());
            storage.flush().await.unwrap();
            assert_eq!(read(&storage, &disk, "log"), new);
            assert_eq!(totals(&storage), (1, 3));
            storage.remove_channel("log").await.unwrap();
        }
        assert!(!storage.remove_channel("log").await.unwrap());
        until("its files are gone", || bucket_files(&disk).is_empty()).await;
        storage.close().await.unwrap();
    });
    with_storage(&disk, options(), async |storage, _| assert_eq!(storage.channel_count(), 0));
}

#[test]
fn a_removed_bucket_takes_with_it_what_was_on_its_way() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        for _ in 0..5 {
            (0..10).for_each(|_| storage.put("log", 0x1000, &[1; 1000]).unwrap());
            storage.put("log", 0x2000, b"stays").unwrap();
            let (removed, ()) = tokio::join!(storage.remove_bucket("log", BUCKET), async {
                storage.put("log", 0x1001, b"later").unwrap();
            });
            assert!(removed.unwrap());
            assert_eq!(read(&storage, &disk, "log")[0], (0x1001, b"later".to_vec()));
            storage.flush().await.unwrap();
            assert_eq!(read(&storage, &disk, "log")[0], (0x1001, b"later".to_vec()));
            assert!(storage.remove_bucket("log", BUCKET).await.unwrap());
            assert!(!storage.remove_bucket("log", BUCKET).await.unwrap());
            assert!(storage.remove_bucket("log", BucketNumber::of(0x2000)).await.unwrap());
            assert_eq!((totals(&storage), bucket_files(&disk).len()), ((0, 0), 0));
        }
    });
}

#[test]
fn a_bucket_is_replaced_only_if_nothing_was_put_meanwhile_and_appended_to_afterwards() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        (0..100).for_each(|key| storage.put("log", 0x1000 + key, b"compressible value").unwrap());
        let (view, _) = storage.file_view("log", BUCKET).await.unwrap().unwrap();
        let expected = read(&storage, &disk, "log");
        let (file, entry) = compressed(&disk, &view, 3);
        storage.put("log", 0x1fff, b"in between").unwrap();
        assert!(
            !storage.replace("log", BUCKET, &view.as_of, view.length, file, entry).await.unwrap(),
            "it is in a buffer"
        );
        storage.flush().await.unwrap();
        let (file, entry) = compressed(&disk, &view, 3);
        assert!(
            !storage.replace("log", BUCKET, &view.as_of, view.length, file, entry).await.unwrap(),
            "it is in the file"
        );
        assert_eq!(bucket_files(&disk), ["log/0000000000/001"]);

        let (view, _) = storage.file_view("log", BUCKET).await.unwrap().unwrap();
        let (file, entry) = compressed(&disk, &view, 3);
        let (replaced, ()) =
            tokio::join!(storage.replace("log", BUCKET, &view.as_of, view.length, file, entry), async {
                // Framed as the old file has it, written to the new one.
                storage.put("log", 0x1aaa, b"behind").unwrap();
            });
        assert!(replaced.unwrap());
        storage.flush().await.unwrap();
        storage.put("log", 0x1aab, b"behind that").unwrap();
        let mut all = expected;
        let behind: [(u64, &[u8]); 3] = [(0x1fff, b"in between"), (0x1aaa, b"behind"), (0x1aab, b"behind that")];
        all.extend(behind.map(|(key, value)| (key, value.to_vec())));
        assert!(read(&storage, &disk, "log") == all);
        storage.flush().await.unwrap();
        assert!(read(&storage, &disk, "log") == all);
        let entry = storage.entry("log", BUCKET).unwrap();
        assert_eq!((entry.format, entry.records), (Some(Format::V2), 103));
        storage.close().await.unwrap();
    });
    let after = disk.crash(crate::disk::sim::Crash::Loses, 0);
    with_storage(&after, options(), async |storage, _| assert_eq!(read(&storage, &after, "log").len(), 103));
}

#[test]
fn the_front_of_a_bucket_goes_and_later_records_stay() {
    for format_v2 in [false, true] {
        let disk = SimDisk::new();
        let options = StorageOptions { format_v2: [(String::new(), format_v2)].into_iter().collect(), ..options() };
        with_storage(&disk, options.clone(), async |storage, _| {
            (0..100).for_each(|key| storage.put("log", 0x1000 + key, &[7; 100]).unwrap());
            let (view, front) = storage.file_view("log", BUCKET).await.unwrap().unwrap();
            assert_eq!((front.records, view.tail.len()), (100, 0));
            (0..60).for_each(|key| storage.put("log", 0x1200 + key, &[8; 100]).unwrap());
            let (taken, ()) = tokio::join!(storage.take_front(&view, &front), async {
                storage.put("log", 0x1400, b"last").unwrap();
            });
            taken.unwrap();
            let keys: Vec<u64> = read(&storage, &disk, "log").into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, (0x1200..0x123c).chain([0x1400]).collect::<Vec<_>>());
            storage.flush().await.unwrap();
            assert_eq!((read(&storage, &disk, "log").len(), totals(&storage).0), (61, 61));
            // All of it: the file goes, and comes again.
            let (view, front) = storage.file_view("log", BUCKET).await.unwrap().unwrap();
            storage.take_front(&view, &front).await.unwrap();
            assert_eq!((totals(&storage), bucket_files(&disk).len()), ((0, 0), 0));
            storage.put("log", 0x1500, b"again").unwrap();
            storage.flush().await.unwrap();
            assert_eq!(read(&storage, &disk, "log"), [(0x1500, b"again".to_vec())]);
            storage.close().await.unwrap();
        });
        with_storage(&disk, options, async |storage, _| assert_eq!(totals(&storage), (1, 5)));
    }
}

#[test]
fn a_name_that_could_not_be_made_durable_is_not_believed_to_be_so_later() {
    let disk = SimDisk::new();
    with_storage(&disk, always(), async |storage, commits| {
        (0..100).for_each(|key| storage.put("log", 0x1000 + key, b"compressible value").unwrap());
        until("they are durable", || commits.durable() == commits.made()).await;
        let (view, _) = storage.file_view("log", BUCKET).await.unwrap().unwrap();
        let (file, entry) = compressed(&disk, &view, 3);
        disk.fail(crate::disk::sim::Call::SyncDir, 0, 1, std::io::ErrorKind::Other);
        assert!(storage.replace("log", BUCKET, &view.as_of, view.length, file, entry).await.is_err());
        // The old file may be there after a power cut, without what would be put behind the new one.
        until("nothing is answered any more", || commits.has_failed()).await;
        assert_eq!(storage.put("log", 0x1200, b"no"), Err(PutError::Failed));
    });
}

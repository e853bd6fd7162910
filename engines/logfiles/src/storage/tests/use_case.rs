//! Puts, and what becomes of them when nothing fails.

use super::*;

#[test]
fn what_was_put_is_read_at_once_and_is_in_the_file_soon() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, commits| {
        storage.put("log", 0x1001, b"one").unwrap();
        storage.put("log", 0x1000, b"").unwrap();
        storage.put("log", 0x9000, b"three").unwrap();
        assert_eq!(commits.made(), 0, "a reply does not wait");
        let expected = vec![(0x1001, b"one".to_vec()), (0x1000, Vec::new()), (0x9000, b"three".to_vec())];
        assert_eq!(read(&storage, &disk, "log"), expected);
        assert_eq!((totals(&storage), storage.channel_totals("log").unwrap().buckets), ((3, 8), 2));
        until("the records are in the files", || storage.entry("log", BucketNumber::of(0x9000)).unwrap().length > 0)
            .await;
        assert_eq!(read(&storage, &disk, "log"), expected);
        assert_eq!(totals(&storage), (3, 8));
        let entry = storage.entry("log", BucketNumber::of(0x1000)).unwrap();
        assert_eq!((entry.format, entry.length, entry.records, entry.bytes), (Some(Format::V1), 53, 2, 3));
        assert_eq!(bucket_files(&disk), ["log/0000000000/001", "log/0000000000/009"]);
        storage.close().await.unwrap();
        assert_eq!(storage.put("log", 1, b"late"), Err(PutError::Failed));
    });
    with_storage(&disk, options(), async |storage, _| {
        assert_eq!((totals(&storage), read(&storage, &disk, "log").len()), ((3, 8), 3));
        storage.put("log", 0x1002, b"four").unwrap();
        storage.flush().await.unwrap();
        assert_eq!((totals(&storage), read(&storage, &disk, "log").len()), ((4, 12), 4));
    });
}

#[test]
fn a_reply_waits_until_the_record_is_durable() {
    let disk = SimDisk::new();
    with_storage(&disk, always(), async |storage, commits| {
        for key in 1..=100 {
            storage.put(if key % 2 == 0 { "even" } else { "odd" }, key << 12, b"value").unwrap();
            assert_eq!(commits.made(), key);
        }
        assert!(commits.durable() < 100);
        until("they are durable", || commits.durable() == 100).await;
    });
    let disk = disk.crash(crate::disk::sim::Crash::Loses, 0);
    with_storage(&disk, StorageOptions { boot_id: "another".into(), ..always() }, async |storage, _| {
        assert_eq!((totals(&storage), read(&storage, &disk, "odd").len()), ((100, 500), 50));
    });
}

#[test]
fn all_sizes_and_formats_come_back_as_they_were_put() {
    let sizes = [0_usize, 1, 16, 4078, 4079, 4080, 5000, 100_000, 3 << 20];
    for format_v2 in [false, true] {
        let disk = SimDisk::new();
        let options = StorageOptions { format_v2: [(String::new(), format_v2)].into_iter().collect(), ..options() };
        with_storage(&disk, options, async |storage, _| {
            let mut expected = Records::new();
            for (key, size) in sizes.iter().chain(sizes.iter().rev()).enumerate() {
                let (key, value) = (key as u64 + 1, vec![key.to_le_bytes()[0]; *size]);
                storage.put("log", key, &value).unwrap();
                expected.push((key, value));
                assert_eq!(read(&storage, &disk, "log").len(), expected.len());
            }
            assert!(read(&storage, &disk, "log") == expected);
            storage.flush().await.unwrap();
            let mut views = Vec::new();
            storage.views("log", &Ranges::one(KeyRange::ALL), None, 9, &mut views);
            assert!(views.len() == 1 && views[0].tail.is_empty());
            assert_eq!(views[0].format, Some(if format_v2 { Format::V2 } else { Format::V1 }));
            assert!(read(&storage, &disk, "log") == expected);
        });
    }
}

#[test]
fn buckets_of_published_nodes_are_appended_to_in_their_format() {
    let disk = SimDisk::new();
    disk.create_dirs(Path::new("/data/log/0000000000")).unwrap();
    let mut plain = Vec::new();
    crate::record::put(Framing::Plain, 0x1000, b"old one", &mut plain);
    crate::record::put(Framing::Plain, 0x1001, b"old two", &mut plain);
    disk.create(Path::new("/data/log/0000000000/001")).unwrap().write_all_at(&plain, 0).unwrap();
    disk.create(Path::new("/data/log/0000000000/002")).unwrap();
    disk.create(Path::new("/data/log/0000000000/003")).unwrap().write_all_at(b"short", 0).unwrap();
    with_storage(&disk, options(), async |storage, _| {
        for key in [0x1002, 0x2000, 0x3000] {
            storage.put("log", key, b"new").unwrap();
        }
        storage.flush().await.unwrap();
        let keys: Vec<u64> = read(&storage, &disk, "log").into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [0x1000, 0x1001, 0x1002, 0x2000, 0x3000]);
        let formats = storage.entries("log", None, 9).into_iter().map(|(_, entry)| (entry.format, entry.records));
        let expected = [(Some(Format::Plain), 3), (Some(Format::V1), 1), (Some(Format::V1), 1)];
        assert_eq!(formats.collect::<Vec<_>>(), expected);
    });
}

#[test]
fn bad_names_and_records_are_refused_and_make_no_channel() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        for bad in ["", "../evil", "a/b", "a.b", &"x".repeat(300)] {
            assert_eq!(storage.put(bad, 1, b"value"), Err(PutError::Invalid));
        }
        assert_eq!(storage.put("log", 0, b""), Err(PutError::Invalid));
        assert_eq!(storage.put("log", 1, &vec![0; crate::record::MAX_VALUE + 1]), Err(PutError::Invalid));
        assert_eq!((storage.channel_count(), totals(&storage)), (0, (0, 0)));
        assert!(read(&storage, &disk, "log").is_empty() && !storage.has_channel("log"));
    });
}

#[test]
fn many_channels_and_scattered_buckets_keep_few_files_and_buffers() {
    let disk = SimDisk::new();
    let options = StorageOptions { open_files: 8, ..options() };
    with_storage(&disk, options, async |storage, _| {
        let mut expected = 0;
        for round in 0..3_u64 {
            for bucket in 0..600_u64 {
                // Far apart and in no order.
                let key = (bucket.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).wrapping_add(round << 1);
                let value = [bucket.to_le_bytes(), round.to_le_bytes()].concat();
                storage.put(&format!("channel-{}", bucket % 20), key, &value).unwrap();
                expected += 1;
                assert!(storage.state.borrow().buckets.open() <= 8);
            }
            // The writer has its turn only while something waits here.
            storage.flush().await.unwrap();
        }
        assert!(storage.gauges().open_files <= 8 && storage.gauges().queue_bytes == 0);
        assert_eq!((totals(&storage).0, storage.channels(None, 99).len()), (expected, 20));
        let read: usize = storage.channels(None, 99).iter().map(|name| read(&storage, &disk, name).len()).sum();
        assert_eq!(read as u64, expected);
        storage.close().await.unwrap();
    });
    assert_eq!(bucket_files(&disk).len(), 600);
}

#[test]
fn views_come_in_pages_in_the_order_of_the_ranges() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        for key in [-5_i64, 5, 0x5000, -0x5000, 0x9000] {
            storage.put("log", key.cast_unsigned(), b"value").unwrap();
        }
        let ranges = Ranges::signed(-0x5000, 0x5fff).unwrap();
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let mut views = Vec::new();
            storage.views("log", &ranges, after, 1, &mut views);
            let Some(view) = views.first() else { break };
            let first = view.number.first_key().cast_signed();
            keys.push(first);
            after = Some((usize::from(first >= 0), view.number));
        }
        assert_eq!(keys, [-0x5000, -0x1000, 0, 0x5000]);
    });
}

#[test]
fn replies_wait_when_many_small_pieces_wait_for_being_written() {
    let disk = SimDisk::new();
    let options = StorageOptions { queue_bytes: 1 << 20, open_files: 1, ..options() };
    with_storage(&disk, options, async |storage, commits| {
        for bucket in 0..1000 {
            storage.put("log", bucket << 12 | 1, b"small").unwrap();
        }
        assert!(storage.gauges().behind && storage.gauges().queue_bytes < 1 << 20);
        assert!(commits.made() > commits.durable());
        until("they are written", || commits.made() == commits.durable() && !storage.gauges().behind).await;
    });
}

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod races;

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use overstory_model::clock::ManualClock;
use overstory_model::{Clock, Millis};
use overstory_node::commit::Commits;
use tokio::time::Instant;

use super::trust::Trust;
use super::*;
use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::config::Unit;
use crate::config::rules::Rules;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::format::{Format, v2};
use crate::record;
use crate::storage::{Storage, StorageOptions};
use crate::walk::{Walker, read_file};

const DIR: &str = "/data";
const DAY: u64 = 86_400;
/// The first key of a bucket.
const KEY: u64 = 0x5727_5000;

struct Rig {
    disk: SimDisk,
    storage: Rc<Storage>,
    keeper: Keeper,
    clock: Arc<ManualClock>,
}

/// Runs a test with a storage that is driven and a keeper that does what it is told.
fn with_keeper<F: Future>(disk: SimDisk, test: impl FnOnce(Rig) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let options = StorageOptions { boot_id: "a-boot".into(), ..StorageOptions::default() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let commits = Rc::new(Commits::new());
        let (storage, _) = Storage::open(Arc::clone(&shared), Path::new(DIR), options, commits).unwrap();
        let storage = Rc::new(storage);
        let driven = Rc::clone(&storage);
        let drive = tokio::task::spawn_local(async move { driven.drive().await });
        let days = |days| Rules::from_iter([(String::new(), Some(days))]);
        let unit = Unit::Seconds;
        let policy = Policy { compress_after: days(10), delete_after: days(100), unit, level: 3 };
        let clock = Arc::new(ManualClock::new(Millis(0)));
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let keeper = Keeper::resting(Rc::clone(&storage), shared, Path::new(DIR), time, policy, 0).unwrap();
        let result = test(Rig { disk, storage, keeper, clock }).await;
        drive.abort();
        result
    })
}

impl Rig {
    /// Makes it a number of days after the bucket's last key.
    fn days_after(&self, key: u64, days: u64) {
        let seconds = BucketNumber::of(key).last_key() + days * DAY;
        self.leap_to(i64::try_from(seconds * 1000).unwrap());
        // As if so much time had passed.
        self.keeper.trust.replace(Trust::new(Instant::now(), self.clock.now().0, None));
    }

    fn leap_to(&self, millis: i64) {
        self.clock.set(Millis(millis));
    }

    async fn put(&self, key: u64, values: impl Iterator<Item = Vec<u8>>) {
        for value in values {
            self.storage.put("log", key, &value).unwrap();
        }
        self.storage.flush().await.unwrap();
    }

    fn entry(&self, key: u64) -> Option<Entry> {
        self.storage.entry("log", BucketNumber::of(key))
    }

    fn records(&self, key: u64) -> Vec<(u64, Vec<u8>)> {
        let number = BucketNumber::of(key);
        let file = self.disk.open(&path(key)).unwrap();
        let (length, mut records) = (file.len().unwrap(), Vec::new());
        let format = crate::recovery::format(&*file, length).unwrap().unwrap();
        let mut walker = Walker::new(format, number, length);
        let summary = read_file(&*file, &mut walker, &mut |key, value| records.push((key, value.to_vec()))).unwrap();
        assert_eq!(summary.damages, []);
        records
    }

    fn names(&self) -> Vec<String> {
        let slots = self.disk.list(&Path::new(DIR).join("log")).unwrap();
        let files = slots.iter().flat_map(|slot| self.disk.list(&Path::new(DIR).join("log").join(&slot.name)).unwrap());
        let mut names: Vec<_> = files.map(|named| named.name).collect();
        names.sort();
        names
    }

    fn problems(&self) -> Vec<String> {
        let mut findings = Vec::new();
        self.keeper.findings(&mut findings);
        findings.into_iter().map(|finding| finding.text).collect()
    }
}

/// A value that cannot be compressed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..1000).map(|_| next()).collect()
}

fn path(key: u64) -> PathBuf {
    crate::recovery::path(Path::new(DIR), "log", BucketNumber::of(key))
}

fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    disk.create_dirs(path.parent().unwrap()).unwrap();
    disk.create(path).unwrap().write_all_at(bytes, 0).unwrap();
}

fn bucket(format: Format, key: u64, count: u64) -> Vec<u8> {
    let mut bytes = format.header().to_vec();
    for n in 0..count {
        record::put(format.framing(), key + n % 4096, format!("value {n}").as_bytes(), &mut bytes);
    }
    bytes
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_old_bucket_is_compressed_and_reads_as_before_and_is_deleted_later() {
    with_keeper(SimDisk::new(), async |rig| {
        // More than a block, and a record that is one of its own.
        let values = (0..30_000).map(|n| format!("a value of some length, number {n}").into_bytes());
        rig.put(KEY, values.chain([vec![7; 3 << 20], b"last".to_vec()])).await;
        let (before, records) = (rig.entry(KEY).unwrap(), rig.records(KEY));
        assert_eq!((before.format, before.records), (Some(Format::V1), 30_002));
        rig.days_after(KEY, 9);
        rig.keeper.retain().await;
        assert_eq!(rig.entry(KEY), Some(before));
        rig.days_after(KEY, 10);
        rig.keeper.retain().await;
        let after = rig.entry(KEY).unwrap();
        assert_eq!((after.format, after.records, after.bytes), (Some(Format::V2), before.records, before.bytes));
        assert!(after.length < before.length / 4, "{after:?}");
        assert_eq!(rig.records(KEY), records);
        assert_eq!(rig.names(), ["275"]);
        let file = rig.disk.open(&path(KEY)).unwrap();
        assert!(v2::Index::read(&*file, after.length).unwrap().unwrap().entries().len() > 2);
        // It is not written again and again.
        let changes = rig.disk.changes();
        rig.keeper.retain().await;
        assert_eq!(rig.disk.changes(), changes);
        rig.days_after(KEY, 100);
        rig.keeper.retain().await;
        assert_eq!((rig.entry(KEY), rig.storage.totals().records), (None, 0));
        assert_eq!(rig.disk.list(&Path::new(DIR).join("log")).unwrap(), [], "the slot is gone");
        assert_eq!(rig.problems(), [""; 0]);
    });
}

#[test]
fn a_late_record_comes_behind_the_index_and_is_packed_with_the_others() {
    with_keeper(SimDisk::new(), async |rig| {
        rig.put(KEY, (0..200).map(|n| vec![n; 1000])).await;
        rig.days_after(KEY, 10);
        rig.keeper.retain().await;
        let packed = rig.entry(KEY).unwrap();
        rig.put(KEY, (0..100).map(noise)).await;
        assert!(rig.entry(KEY).unwrap().length > packed.length + 90_000);
        assert_eq!(rig.records(KEY).len(), 300);
        rig.keeper.retain().await;
        let file = rig.disk.open(&path(KEY)).unwrap();
        let length = rig.entry(KEY).unwrap().length;
        let index = v2::Index::read(&*file, length).unwrap().unwrap();
        assert_eq!(index.entries().len(), 1, "all records are in one block");
        assert_eq!((rig.records(KEY).len(), rig.entry(KEY).unwrap().records), (300, 300));
    });
}

#[test]
fn a_damaged_bucket_is_told_of_and_stays_as_it_is() {
    let disk = SimDisk::new();
    let mut bytes = bucket(Format::V1, KEY, 300);
    bytes[100] ^= 1;
    let damage = 16 + (bytes.len() - 16) / 2;
    bytes[damage..damage + 30].fill(0xff);
    write(&disk, &path(KEY), &bytes);
    with_keeper(disk, async |rig| {
        rig.keeper.count().await;
        let places = rig.storage.damages().places().len();
        assert!(places > 0);
        rig.days_after(KEY, 10);
        rig.keeper.retain().await;
        rig.keeper.retain().await;
        assert_eq!(rig.storage.damages().places().len(), places);
        assert_eq!(rig.disk.files().iter().find(|(name, _)| name.ends_with("/275")).unwrap().1, bytes);
        assert_eq!(rig.names(), ["275"]);
        let expected =
            "1 buckets cannot be compressed or taken in; log/0000000057/275: it is damaged and stays as it is";
        assert_eq!(rig.problems(), [expected]);
    });
}

#[test]
fn what_was_only_listed_is_counted() {
    let disk = SimDisk::new();
    let whole = bucket(Format::Plain, KEY, 50_000);
    let mut torn = bucket(Format::V1, KEY + 0x1000, 10);
    let good = torn.len() as u64;
    torn.extend_from_slice(&bucket(Format::V1, KEY + 0x1000, 1)[16..35]);
    write(&disk, &path(KEY), &whole);
    write(&disk, &path(KEY + 0x1000), &torn);
    write(&disk, &path(KEY + 0x2000), b"part");
    with_keeper(disk, async |rig| {
        assert_eq!(rig.storage.totals().uncounted, 3);
        rig.keeper.count().await;
        let totals = rig.storage.totals();
        assert_eq!((totals.uncounted, totals.records), (0, 50_010));
        assert_eq!(rig.entry(KEY).unwrap().format, Some(Format::Plain));
        // A part of a record is no place to write behind.
        assert_eq!(rig.entry(KEY + 0x1000).unwrap().length, good);
        assert_eq!(rig.entry(KEY + 0x2000).unwrap().length, 0);
        rig.put(KEY + 0x1000, std::iter::once(b"more".to_vec())).await;
        assert_eq!(rig.records(KEY + 0x1000).len(), 11);
    });
}

#[test]
fn a_file_that_somebody_has_changed_is_read_again() {
    with_keeper(SimDisk::new(), async |rig| {
        rig.put(KEY, (0..10).map(|n| vec![n; 10])).await;
        rig.put(KEY + 0x1000, (0..10).map(|n| vec![n; 10])).await;
        rig.storage.close().await.unwrap();
        let disk = rig.disk.clone();
        tokio::task::spawn_blocking(move || {
            with_keeper(disk, async |rig| {
                rig.disk.create(&path(KEY)).unwrap().set_len(16 + 27 * 3 + 5).unwrap();
                rig.keeper.compare().await;
                assert_eq!((rig.entry(KEY).unwrap().records, rig.entry(KEY + 0x1000).unwrap().records), (3, 10));
                rig.disk.remove(&path(KEY + 0x1000)).unwrap();
                rig.keeper.compare().await;
                assert_eq!((rig.entry(KEY + 0x1000), rig.storage.totals().records), (None, 3));
            });
        })
        .await
        .unwrap();
    });
}

#[test]
fn archives_of_a_published_system_are_taken_in() {
    let disk = SimDisk::new();
    let archive = |key| path(key).with_extension("gz");
    let bytes = bucket(Format::V1, KEY, 5000);
    write(&disk, &archive(KEY), &zipped(&bytes));
    let plain = bucket(Format::Plain, KEY + 0x1000, 100);
    write(&disk, &archive(KEY + 0x1000), &zipped(&plain));
    let broken = zipped(&bucket(Format::V1, KEY + 0x2000, 5000));
    write(&disk, &archive(KEY + 0x2000), &broken[..broken.len() / 2]);
    write(&disk, &archive(KEY + 0x3000), &zipped(&bytes));
    write(&disk, &path(KEY + 0x3000), &bucket(Format::V1, KEY + 0x3000, 1));
    with_keeper(disk, async |rig| {
        rig.days_after(KEY + 0x3000, 20);
        rig.keeper.adopt().await;
        assert_eq!(rig.names(), ["275", "276", "277.gz", "278", "278.gz"]);
        assert_eq!((rig.records(KEY).len(), rig.records(KEY + 0x1000).len()), (5000, 100));
        let entry = rig.entry(KEY).unwrap();
        assert_eq!((entry.format, entry.records, entry.counted), (Some(Format::V2), 5000, true));
        let problems = rig.problems();
        assert!(
            problems[0].starts_with("2 buckets cannot be compressed or taken in; log/0000000057/278.gz:"),
            "{problems:?}"
        );
        // Those that would be deleted are.
        rig.days_after(KEY + 0x3000, 101);
        rig.keeper.adopt().await;
        assert_eq!(rig.names(), ["275", "276", "278"]);
        assert_eq!(rig.problems(), [""; 0]);
    });
}

#[test]
fn a_full_disk_leaves_the_bucket_and_nothing_else() {
    with_keeper(SimDisk::new(), async |rig| {
        rig.put(KEY, (0..200).map(noise)).await;
        let before = rig.entry(KEY).unwrap();
        rig.days_after(KEY, 10);
        rig.disk.set_free(Some(10_000));
        rig.keeper.retain().await;
        assert_eq!(rig.entry(KEY), Some(before));
        assert_eq!(rig.names(), ["275"]);
        assert_eq!(rig.problems().len(), 1);
        rig.disk.set_free(None);
        rig.keeper.retain().await;
        assert_eq!(rig.entry(KEY).unwrap().format, Some(Format::V2));
        assert_eq!(rig.problems(), [""; 0]);
    });
}

#[test]
fn a_clock_that_leaps_ahead_deletes_nothing() {
    with_keeper(SimDisk::new(), async |rig| {
        rig.put(KEY, (0..10).map(|n| vec![n; 1000])).await;
        rig.days_after(KEY, 1);
        rig.keeper.retain().await;
        let now = rig.clock.now().0;
        rig.leap_to(now + 3650 * 86_400_000 + 3_600_000);
        rig.keeper.retain().await;
        assert_eq!(rig.entry(KEY).unwrap().records, 10);
        let expected = "the clock is 3650 days ahead of what was seen before: nothing is deleted for a day";
        assert_eq!(rig.problems(), [expected]);
        rig.leap_to(now);
        rig.keeper.retain().await;
        assert_eq!(rig.problems(), [""; 0]);
        rig.days_after(KEY, 100);
        rig.keeper.retain().await;
        assert_eq!(rig.entry(KEY), None);
    });
}

#[test]
fn a_small_bucket_is_not_made_larger_and_what_was_removed_is_no_problem() {
    let disk = SimDisk::new();
    let mut damaged = bucket(Format::V1, KEY, 1000);
    damaged[5000..5030].fill(0xff);
    write(&disk, &path(KEY), &damaged);
    with_keeper(disk, async |rig| {
        rig.put(KEY + 0x1000, std::iter::once(b"small".to_vec())).await;
        let small = rig.entry(KEY + 0x1000);
        rig.days_after(KEY + 0x1000, 10);
        rig.keeper.retain().await;
        assert_eq!(rig.entry(KEY + 0x1000), small);
        assert_eq!(rig.problems().len(), 1);
        rig.storage.remove_channel("log").await.unwrap();
        rig.keeper.retain().await;
        assert_eq!(rig.problems(), [""; 0]);
    });
}

//! The machine or the process ends at each operation of the disk; then the storage is opened again.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::disk::sim::Crash;

/// What was put into each bucket, in order, and how much of it has to be there.
#[derive(Default)]
struct Told {
    buckets: BTreeMap<(String, BucketNumber), Told1>,
    serial: u64,
}

#[derive(Default)]
struct Told1 {
    records: Records,
    /// Records that survive the end of the process, and those that survive a power cut.
    written: usize,
    durable: usize,
}

impl Told {
    fn put(&mut self, storage: &Storage, random: &mut StdRng) -> bool {
        let channel = ["plain", "v1", "v2"][random.random_range(0..3)];
        let key = 0x1000 * random.random_range(1..4_u64) + random.random_range(0..0x1000_u64);
        let size = match random.random_range(0..10) {
            0 => random.random_range(3000..9000),
            _ => random.random_range(8..300),
        };
        self.serial += 1;
        let mut value = vec![random.random(); size];
        value[..8].copy_from_slice(&self.serial.to_le_bytes());
        let taken = storage.put(channel, key, &value).is_ok();
        if taken {
            let bucket = self.buckets.entry((channel.into(), BucketNumber::of(key))).or_default();
            bucket.records.push((key, value));
        }
        taken
    }

    /// What was put up to now has to be there after a crash.
    fn all(&mut self, durable: bool) {
        for bucket in self.buckets.values_mut() {
            bucket.written = bucket.records.len();
            if durable {
                bucket.durable = bucket.records.len();
            }
        }
    }
}

/// The buckets of a published node without a header, durable.
fn published() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dirs(Path::new("/data/plain/0000000000")).unwrap();
    let file = disk.create(Path::new("/data/plain/0000000000/001")).unwrap();
    file.write_all_at(&old_record(), 0).unwrap();
    file.sync().unwrap();
    for dir in ["/", "/data", "/data/plain", "/data/plain/0000000000"] {
        disk.sync_dir(Path::new(dir)).unwrap();
    }
    disk
}

fn old_record() -> Vec<u8> {
    let mut record = Vec::new();
    crate::record::put(Framing::Plain, 0x1000, b"an old record", &mut record);
    record
}

fn formats(options: StorageOptions) -> StorageOptions {
    let format_v2 = [("v2".to_owned(), true)].into_iter().collect();
    StorageOptions { format_v2, open_files: 4, ..options }
}

/// Puts, flushes and checkpoints until the script ends or the power is off. True: it has ended.
fn script(disk: &SimDisk, options: StorageOptions, seed: u64, told: &mut Told) -> bool {
    let is_always = options.sync == SyncMode::Always;
    let mut random = StdRng::seed_from_u64(seed);
    let ended = with_opened(disk, options, async |storage, commits| {
        for _ in 0..12 {
            for _ in 0..random.random_range(1..8) {
                if !told.put(&storage, &mut random) {
                    return false;
                }
            }
            if is_always {
                until("a group is durable", || commits.durable() == commits.made() || disk.is_cut()).await;
                if commits.durable() < commits.made() || commits.has_lost() {
                    return false;
                }
                told.all(true);
            }
            match random.random_range(0..6) {
                0 | 1 => {
                    if !unless_cut(disk, storage.flush()).await {
                        return false;
                    }
                    told.all(is_always);
                }
                2 => {
                    if !unless_cut(disk, storage.flush()).await {
                        return false;
                    }
                    told.all(is_always);
                    // The second one begins after the flush, whatever was under way.
                    for _ in 0..2 {
                        let before = storage.gauges().checkpoints;
                        storage.state.borrow().give(Job::Checkpoint);
                        until("a checkpoint is there", || storage.gauges().checkpoints > before || disk.is_cut()).await;
                        if disk.is_cut() {
                            return false;
                        }
                    }
                    told.all(true);
                }
                3 => storage.state.borrow().give(Job::Checkpoint),
                4 => {
                    if !unless_cut(disk, storage.settle("v1")).await {
                        return false;
                    }
                    told.all(true);
                }
                _ => {}
            }
        }
        let closed = unless_cut(disk, storage.close()).await;
        if closed && !disk.is_cut() {
            told.all(true);
        }
        closed
    });
    // The power may go while it is being opened.
    ended.unwrap_or(false)
}

/// True: it has ended well before the power was cut.
async fn unless_cut(disk: &SimDisk, work: impl Future<Output = Result<(), Unwritten>>) -> bool {
    tokio::select! {
        biased;
        result = work => result.is_ok(),
        () = until("the power is off", || disk.is_cut()) => false,
    }
}

/// Opens what a crash has left, and compares.
fn check(disk: &SimDisk, boot: &str, told: &Told, guaranteed: impl Fn(&Told1) -> usize, what: &str) {
    let options = StorageOptions { boot_id: boot.into(), ..formats(options()) };
    with_storage(disk, options, async |storage, _| {
        let mut found: BTreeMap<(String, BucketNumber), Records> = BTreeMap::new();
        let (mut count, mut bytes) = (0, 0);
        for channel in storage.channels(None, 99) {
            for (key, value) in read(&storage, disk, &channel) {
                (count, bytes) = (count + 1, bytes + value.len() as u64);
                if value != b"an old record" {
                    found.entry((channel.to_string(), BucketNumber::of(key))).or_default().push((key, value));
                }
            }
        }
        assert_eq!(storage.totals().uncounted, 0, "{what}");
        assert_eq!(totals(&storage), (count, bytes), "counts are exact, {what}");
        for (bucket, records) in &found {
            let put = told.buckets.get(bucket).map(|bucket| bucket.records.as_slice()).unwrap_or_default();
            assert!(put.starts_with(records), "{bucket:?} has what was never put, {what}");
        }
        for (bucket, told) in &told.buckets {
            let there = found.get(bucket).map_or(0, Vec::len);
            assert!(there >= guaranteed(told), "{bucket:?} has {there} of {}, {what}", guaranteed(told));
        }
        // It goes on from there.
        storage.put("v1", 0x1001, b"another").unwrap();
        storage.flush().await.unwrap();
        assert_eq!(totals(&storage), (count + 1, bytes + 7), "{what}");
    });
}

/// Cuts the power at operation after operation; `options` for the script.
fn crash_everywhere(options: &StorageOptions, seed: u64) {
    let (mut cut, mut ended) = (0, false);
    while !ended {
        cut += 1;
        let (disk, mut told) = (published(), Told::default());
        // The old bucket is counted before.
        with_storage(&disk, formats(super::options()), async |storage, _| {
            storage.rescan("plain", BucketNumber::of(0x1000)).await.unwrap();
            storage.close().await.unwrap();
        });
        disk.cut_after(cut);
        ended = script(&disk, options.clone(), seed, &mut told);
        let what = format!("seed {seed}, operation {cut}, {:?}", options.sync);
        check(&disk.kill(), BOOT, &told, |told| told.written, &format!("killed, {what}"));
        for (crash, seed) in [(Crash::Loses, 0), (Crash::Keeps, 0), (Crash::Any, cut), (Crash::Any, !cut)] {
            let what = format!("{crash:?} {seed}, {what}");
            let after = disk.crash(crash, seed);
            check(&after, "another-boot", &told, |told| told.durable, &what);
        }
    }
    assert!(cut > 20, "the script does something");
}

#[test]
fn a_crash_costs_nothing_that_was_answered_in_always_mode() {
    for seed in 0..2 {
        crash_everywhere(&formats(always()), seed);
    }
}

#[test]
fn a_crash_costs_what_came_since_the_checkpoint_in_interval_mode() {
    for seed in 0..2 {
        crash_everywhere(&formats(options()), seed);
    }
}

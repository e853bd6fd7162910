#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use overstory_swarm::key::Key;

use super::data_dir::{FileStep, Seam};
use super::*;
use crate::load::{LoadOptions, load};

const BUFFERED: DumpOptions = DumpOptions { disable_direct_io: true };
const DIRECT: DumpOptions = DumpOptions { disable_direct_io: false };

fn store_of(channels: &[(&str, u64, usize)]) -> Store {
    let mut store = Store::new(0);
    for &(channel, count, size) in channels {
        store.create_channel(channel);
        for key in 0..count {
            store.put(channel, Key(key), &vec![u8::try_from(key % 251).unwrap(); size]).unwrap();
        }
    }
    store
}

fn loaded(dir: &Path) -> Store {
    let mut store = Store::new(0);
    let options = LoadOptions { max_value: 1 << 24, ..LoadOptions::default() };
    load(&DataDir::open(dir).unwrap(), &options, &mut store).unwrap();
    store
}

/// Every channel with its records.
fn content(store: &Store) -> BTreeMap<String, BTreeMap<u64, Vec<u8>>> {
    let channel = |name: String| {
        let mut records = BTreeMap::new();
        store.scan(&name, None, &mut |key, value| {
            records.insert(key.0, value.to_vec());
            std::ops::ControlFlow::Continue(())
        });
        (name, records)
    };
    store.channel_names().into_iter().map(channel).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "deleted")
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_dumped_is_loaded_again() {
    for options in [BUFFERED, DIRECT] {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let mut store = store_of(&[("small", 3, 5), ("empty", 0, 1), ("many", 30_000, 100)]);
        // Longer than all buffers together.
        store.put("long", Key(1), &vec![9; 3 * CHUNK]).unwrap();
        store.put("long", Key(2), &vec![8; CHUNKS * CHUNK + 5]).unwrap();
        let report = dump_all(&store, &dir, options);
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(report.records, 30_005);
        assert_eq!(report.channels.len(), 4);
        assert_eq!(files(place.path()), ["empty.tcm", "long.tcm", "many.tcm", "small.tcm"]);
        assert_eq!(fs::read(dir.file("empty")).unwrap(), [0; 512]);
        let bytes: u64 =
            files(place.path()).iter().map(|name| fs::metadata(place.path().join(name)).unwrap().len()).sum();
        assert_eq!(report.bytes, bytes);
        assert_eq!(content(&loaded(place.path())), content(&store));
    }
}

#[test]
fn the_file_before_stays_as_the_backup() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    for round in 1..=4u64 {
        assert!(dump_all(&store_of(&[("c", round, 10)]), &dir, BUFFERED).is_ok());
        assert_eq!(content(&loaded(place.path()))["c"].len() as u64, round);
        if round > 1 {
            assert_eq!(files(place.path()), ["c.tcm", "c.tcm.backup"]);
            let backup = tempfile::tempdir().unwrap();
            fs::copy(dir.backup_file("c"), backup.path().join("c.tcm")).unwrap();
            assert_eq!(content(&loaded(backup.path()))["c"].len() as u64, round - 1);
        }
    }
}

/// Fails, or kills the process, at the step of this number.
#[derive(Debug)]
struct Breaks {
    at: usize,
    steps: AtomicUsize,
    kill: bool,
    killed: AtomicBool,
    error: i32,
}

impl Breaks {
    fn at(at: usize, kill: bool, error: i32) -> Arc<Self> {
        Arc::new(Self { at, steps: AtomicUsize::new(0), kill, killed: AtomicBool::new(false), error })
    }

    fn broke(&self) -> bool {
        self.steps.load(Ordering::Acquire) > self.at
    }
}

impl Seam for Breaks {
    fn before(&self, _step: FileStep) -> io::Result<()> {
        let step = self.steps.fetch_add(1, Ordering::AcqRel);
        if step == self.at || (step > self.at && self.kill) {
            self.killed.store(self.kill, Ordering::Release);
            return Err(io::Error::from_raw_os_error(self.error));
        }
        Ok(())
    }

    fn killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
}

#[test]
fn a_failure_at_any_step_leaves_the_old_files_and_nothing_else() {
    for (error, cause) in [(libc::ENOSPC, "No space left"), (libc::EIO, "Input/output")] {
        let mut at = 0;
        loop {
            let place = tempfile::tempdir().unwrap();
            let dir = DataDir::open(place.path()).unwrap();
            let old = store_of(&[("a", 10, 50), ("b", 10, 50)]);
            assert!(dump_all(&old, &dir, BUFFERED).is_ok());
            let seam = Breaks::at(at, false, error);
            let new = store_of(&[("a", 20, 60_000), ("b", 5, 50)]);
            let report = dump_all(&new, &dir.with_seam(Arc::clone(&seam) as Arc<dyn Seam>), BUFFERED);
            if !seam.broke() {
                assert!(report.is_ok());
                break;
            }
            let failures: Vec<String> = report.failures().map(|(_, error)| error.to_string()).collect();
            assert_eq!(failures.len(), 1, "step {at}: {report:?}");
            assert!(failures[0].contains(cause), "{failures:?}");
            // The other channel is dumped all the same.
            assert_eq!(report.channels.iter().filter(|channel| matches!(channel.outcome, Outcome::Written)).count(), 1);
            let (found, old, new) = (content(&loaded(place.path())), content(&old), content(&new));
            for channel in ["a", "b"] {
                assert!(
                    found[channel] == old[channel] || found[channel] == new[channel],
                    "step {at}, channel {channel}"
                );
            }
            assert!(files(place.path()).iter().all(|name| !name.ends_with(".dumping")), "{:?}", files(place.path()));
            at += 1;
        }
        assert!(at > 12, "{at} steps only");
    }
}

#[test]
fn killed_at_any_step_the_last_complete_dump_is_there() {
    let mut at = 0;
    loop {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let old = store_of(&[("a", 10, 50), ("b", 10, 50)]);
        assert!(dump_all(&store_of(&[("a", 1, 1), ("b", 1, 1)]), &dir, BUFFERED).is_ok());
        assert!(dump_all(&old, &dir, BUFFERED).is_ok());
        let seam = Breaks::at(at, true, libc::EIO);
        let new = store_of(&[("a", 20, 60_000), ("b", 5, 50)]);
        dump_all(&new, &dir.with_seam(Arc::clone(&seam) as Arc<dyn Seam>), BUFFERED);
        let found = content(&loaded(place.path()));
        for channel in ["a", "b"] {
            let (old, new) = (&content(&old)[channel], &content(&new)[channel]);
            assert!(found[channel] == *old || found[channel] == *new, "step {at}, channel {channel}");
        }
        // What was left behind does not hinder the next dump.
        assert!(dump_all(&new, &dir, BUFFERED).is_ok());
        assert_eq!(content(&loaded(place.path())), content(&new));
        if !seam.broke() {
            break;
        }
        at += 1;
    }
    assert!(at > 12, "{at} steps only");
}

/// A file system of 1 MiB, if this process may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(place.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(place))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

/// As a small disk: takes some writes, then says that it is full.
#[derive(Debug, Default)]
struct SmallDisk(AtomicUsize);

impl Seam for SmallDisk {
    fn before(&self, step: FileStep) -> io::Result<()> {
        if step == FileStep::Write && self.0.fetch_add(1, Ordering::AcqRel) >= 1 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }
}

#[test]
fn a_full_disk_leaves_the_old_dump_valid() {
    let tmpfs = Tmpfs::mount();
    let fallback = tempfile::tempdir().unwrap();
    let place = tmpfs.as_ref().map_or(fallback.path(), |tmpfs| tmpfs.0.path());
    let dir = DataDir::open(place).unwrap();
    let old = store_of(&[("c", 1000, 100)]);
    assert!(dump_all(&old, &dir, DIRECT).is_ok());
    let full = match &tmpfs {
        Some(_) => dir.clone(),
        None => dir.with_seam(Arc::new(SmallDisk::default())),
    };
    let report = dump_all(&store_of(&[("c", 50_000, 100)]), &full, DIRECT);
    let (channel, error) = report.failures().next().unwrap();
    assert_eq!(channel, "c");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(error.to_string().starts_with("cannot write"), "{error}");
    assert_eq!(files(place), ["c.tcm"]);
    assert_eq!(content(&loaded(place)), content(&old));
    // With room again the next one succeeds.
    assert!(dump_all(&store_of(&[("c", 100, 100)]), &dir, DIRECT).is_ok());
}

#[test]
fn a_channel_that_is_removed_while_it_is_dumped_does_not_come_back() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let mut store = store_of(&[("gone", 30_000, 100), ("stays", 10, 10)]);
    assert!(dump_all(&store, &dir, BUFFERED).is_ok());
    // Removed after every number of steps, at once made anew, so that only the removal itself can tell.
    for steps in 0..12 {
        let mut dumper = Dumper::start(store.channel_names(), &dir, BUFFERED, Arc::new(|| ()));
        for _ in 0..steps {
            if dumper.step(&store) == Step::Wait {
                dumper.wait();
            }
        }
        store.remove_channel("gone");
        dir.move_to_deleted("gone").unwrap();
        let done = loop {
            match dumper.step(&store) {
                Step::Again => {}
                Step::Wait => dumper.wait(),
                Step::Done => break dumper.finish(),
            }
        };
        assert_eq!(done.len(), 2, "{done:?}");
        assert!(!dir.file("gone").exists(), "after {steps} steps");
        assert!(!files(place.path()).iter().any(|name| name.ends_with(".dumping")));
        assert!(dir.path().join("deleted/gone.tcm").exists());
        for key in 0..30_000 {
            store.put("gone", Key(key), &[1; 100]).unwrap();
        }
    }
}

#[test]
fn a_dump_gives_way_to_requests_and_is_dropped_cleanly() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let store = RefCell::new(store_of(&[("c", 50_000, 100)]));
    runtime.block_on(async {
        let puts = Cell::new(0u64);
        let requests = async {
            loop {
                // New keys and old ones, while the dump is going on.
                store.borrow_mut().put("c", Key(1_000_000 + puts.get()), b"new").unwrap();
                store.borrow_mut().remove("c", Key(puts.get()));
                puts.set(puts.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let report = tokio::select! {
            report = dump(&store, &dir, BUFFERED) => report,
            () = requests => unreachable!(),
        };
        assert!(report.is_ok());
        assert!(puts.get() >= 10, "{} requests", puts.get());
        // Every record that was there all the time is in the file.
        let found = content(&loaded(place.path()));
        for key in puts.get()..50_000 {
            assert!(found["c"].contains_key(&key), "{key}");
        }
    });
    // Dropped in the middle: the file of the last dump stays.
    let before = fs::read(dir.file("c")).unwrap();
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = dump(&store, &dir, BUFFERED) => unreachable!(),
            () = async { for _ in 0..3 { tokio::task::yield_now().await } } => {}
        }
    });
    assert_eq!(fs::read(dir.file("c")).unwrap(), before);
}

#[test]
fn a_file_can_be_written_record_by_record() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let store = store_of(&[("c", 20_000, 100)]);
    let write = |file: &mut DumpFile| {
        store.scan("c", None, &mut |key, value| {
            file.record(key, value).unwrap();
            std::ops::ControlFlow::Continue(())
        });
    };
    let mut file = DumpFile::create(&dir, "c", DIRECT).unwrap();
    write(&mut file);
    file.record(Key(1 << 40), b"").unwrap();
    assert_eq!(file.records(), 20_000);
    let bytes = file.commit().unwrap();
    assert_eq!(bytes, fs::metadata(dir.file("c")).unwrap().len());
    assert_eq!(content(&loaded(place.path())), content(&store));
    // The same bytes as by the node itself.
    let by_hand = fs::read(dir.file("c")).unwrap();
    assert!(dump_all(&store, &dir, DIRECT).is_ok());
    assert_eq!(fs::read(dir.file("c")).unwrap(), by_hand);
    // Given up: nothing is left.
    let mut file = DumpFile::create(&dir, "d", BUFFERED).unwrap();
    write(&mut file);
    drop(file);
    assert_eq!(files(place.path()), ["c.tcm", "c.tcm.backup"]);
}

/// Holds the first dump up where it brings its file to the disk.
#[derive(Debug)]
struct Slow {
    first: AtomicBool,
    reached: std::sync::mpsc::SyncSender<FileStep>,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Seam for Slow {
    fn before(&self, step: FileStep) -> std::io::Result<()> {
        if matches!(step, FileStep::Create | FileStep::Sync) {
            self.reached.send(step).unwrap();
        }
        if step == FileStep::Sync && self.first.swap(false, Ordering::SeqCst) {
            self.go_on.lock().unwrap().recv().unwrap();
        }
        Ok(())
    }
}

/// A node that is stopped during a periodic dump gives that up and dumps again. The old dump's file was complete and on
/// its way to the disk; when the disk was slow it took the place of the newer one, and what was put in between was lost
/// by an orderly stop. Now the second dump waits until the first has let go.
#[test]
fn a_dump_that_was_given_up_never_replaces_a_newer_one() {
    use std::sync::mpsc::sync_channel;
    let place = tempfile::tempdir().unwrap();
    let ((reached, steps), (release, go_on)) = (sync_channel(16), sync_channel(1));
    let seam = Slow { first: AtomicBool::new(true), reached, go_on: std::sync::Mutex::new(go_on) };
    let dir = DataDir::open(place.path()).unwrap().with_seam(Arc::new(seam));
    let mut store = store_of(&[("c", 10, 5)]);
    let mut given_up = Dumper::start(store.channel_names(), &dir, BUFFERED, Arc::new(|| ()));
    while given_up.step(&store) == Step::Again {}
    assert_eq!((steps.recv().unwrap(), steps.recv().unwrap()), (FileStep::Create, FileStep::Sync));
    drop(given_up);
    store.put("c", Key(3), b"newer").unwrap();
    let (begun, _steps) = std::thread::scope(|scope| {
        let releasing = scope.spawn(move || {
            // Time for the second to begin, which it must not use.
            let begun = steps.recv_timeout(Duration::from_millis(100));
            release.send(()).unwrap();
            (begun, steps)
        });
        assert!(dump_all(&store, &dir, BUFFERED).is_ok());
        releasing.join().unwrap()
    });
    assert!(begun.is_err(), "two dumps wrote at the same time");
    assert_eq!(content(&loaded(place.path())), content(&store));
    assert_eq!(files(place.path()), ["c.tcm", "c.tcm.backup"]);
}

/// A dump process that is in its last step while its node stops has the older file: the node's own is kept.
#[test]
fn a_dump_that_began_earlier_does_not_replace_one_of_another_process() {
    let place = tempfile::tempdir().unwrap();
    // Two processes share the directory and nothing else.
    let (ours, others) = (DataDir::open(place.path()).unwrap(), DataDir::open(place.path()).unwrap());
    let mut store = store_of(&[("c", 10, 5)]);
    let mut slow = DumpFile::create(&others, "c", BUFFERED).unwrap();
    slow.record(Key(1), b"older").unwrap();
    store.put("c", Key(3), b"newer").unwrap();
    // The system's clock of file times ticks every few milliseconds.
    let born = |name: &str| fs::metadata(place.path().join(name)).and_then(|metadata| metadata.created()).unwrap();
    let temporary = files(place.path()).remove(0);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !place.path().join("c.tcm").exists() || born("c.tcm") <= born(&temporary) {
        assert!(std::time::Instant::now() < deadline);
        assert!(dump_all(&store, &ours, BUFFERED).is_ok());
    }
    slow.commit().unwrap();
    assert_eq!(content(&loaded(place.path())), content(&store));
    assert!(!files(place.path()).contains(&temporary));
}

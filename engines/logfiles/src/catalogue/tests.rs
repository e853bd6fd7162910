#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::log::FILE;
use super::state::{End, State, load};
use super::*;
use crate::disk::sim::{Call, Crash, SimDisk};
use crate::disk::{Disk, SystemDisk};

fn entry(length: u64) -> Entry {
    Entry { format: Some(Format::V1), counted: true, length, records: length / 10, bytes: length / 2 }
}

fn numbers(catalogue: &Catalogue, id: ChannelId, range: KeyRange) -> Vec<BucketNumber> {
    let (mut numbers, mut after) = (Vec::new(), None);
    while let Some((number, _)) = catalogue.next(id, range, after) {
        numbers.push(number);
        after = Some(number);
    }
    numbers
}

#[test]
fn buckets_are_found_in_the_order_of_their_keys() {
    let mut catalogue = Catalogue::default();
    let id = catalogue.create("log").unwrap();
    let keys = [0x9000, 0x1000, u64::MAX, 0x5000, 0];
    for key in keys {
        catalogue.set(id, BucketNumber::of(key), entry(100));
    }
    let of = |keys: &[u64]| keys.iter().map(|key| BucketNumber::of(*key)).collect::<Vec<_>>();
    assert_eq!(numbers(&catalogue, id, KeyRange::ALL), of(&[0, 0x1000, 0x5000, 0x9000, u64::MAX]));
    assert_eq!(numbers(&catalogue, id, KeyRange::new(0x1fff, 0x5000).unwrap()), of(&[0x1000, 0x5000]));
    assert_eq!(numbers(&catalogue, id, KeyRange::new(0x2000, 0x4fff).unwrap()), of(&[]));
    // A place behind the end of the range is the end.
    assert_eq!(catalogue.next(id, KeyRange::new(0, 0x1000).unwrap(), Some(BucketNumber::of(0x9000))), None);
    assert_eq!(catalogue.previous(id, None).unwrap().0, BucketNumber::of(u64::MAX));
    assert_eq!(catalogue.previous(id, Some(BucketNumber::of(0))), None);
}

#[test]
fn totals_follow_what_is_said_of_buckets() {
    let mut catalogue = Catalogue::default();
    let (a, b) = (catalogue.create("a").unwrap(), catalogue.create("b").unwrap());
    assert_eq!(catalogue.create("a"), Ok(a));
    assert!(catalogue.create("../a").is_err());
    let number = BucketNumber::of(0x1000);
    catalogue.add(a, number, 2, 20);
    catalogue.set(b, number, Entry { counted: false, records: 0, bytes: 0, ..entry(100) });
    catalogue.add(b, number, 1, 7);
    assert_eq!(catalogue.channel_totals(a), Totals { buckets: 1, uncounted: 0, records: 2, bytes: 20 });
    assert_eq!(catalogue.totals(), Totals { buckets: 2, uncounted: 1, records: 3, bytes: 27 });
    catalogue.counted(b, number, &entry(100));
    catalogue.counted(b, number, &entry(100));
    assert_eq!(catalogue.entry(b, number).unwrap().records, 11);
    assert_eq!(catalogue.totals(), Totals { buckets: 2, uncounted: 0, records: 13, bytes: 77 });
    catalogue.set(a, number, entry(10));
    assert_eq!(catalogue.forget(a, number), Some(entry(10)));
    assert_eq!(catalogue.remove(b), [number]);
    assert_eq!(catalogue.totals(), Totals::default());
    assert_eq!((catalogue.name(b), catalogue.channel("b"), catalogue.entry(b, number)), ("", None, None));
    assert_ne!(catalogue.create("b").unwrap(), b);
    assert_eq!(catalogue.channels(None).map(|(_, name)| name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(catalogue.channels(Some("a")).map(|(_, name)| name).collect::<Vec<_>>(), ["b"]);
}

struct Rig {
    dir: tempfile::TempDir,
    disk: Arc<dyn Disk>,
}

impl Rig {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), disk: Arc::new(SystemDisk) }
    }

    fn log(&self) -> Log {
        Log::anew(Arc::clone(&self.disk), self.dir.path(), &State::default()).unwrap()
    }

    fn load(&self) -> (State, u64, End) {
        load(&*self.disk.open(&self.dir.path().join(FILE)).unwrap()).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join(FILE)).unwrap()
    }
}

fn written(number: BucketNumber, offset: u64, length: u64) -> Written<'static> {
    Written { channel: "log", number, offset, length, records: 1, bytes: length, crc: 9 }
}

#[test]
fn a_bucket_is_touched_until_it_is_in_a_checkpoint() {
    let rig = Rig::new();
    let mut log = rig.log();
    let (one, two) = (BucketNumber::of(0x1000), BucketNumber::of(0x2000));
    log.touch("log", one, &Entry::EMPTY).unwrap();
    log.touch("log", two, &Entry::EMPTY).unwrap();
    log.sync_touched().unwrap();
    for (number, offset) in [(one, 0), (two, 0), (one, 100)] {
        log.wrote(&written(number, offset, 100)).unwrap();
    }
    log.sync().unwrap();
    let state = rig.load().0;
    assert_eq!(state.touched[&(0, one)].writes.iter().map(Write::end).collect::<Vec<_>>(), [100, 200]);
    // Of the second bucket only a part was durable when the checkpoint began.
    let synced = |number, length, more| Synced { channel: "log".into(), number, entry: entry(length), more };
    log.checkpoint(&[synced(one, 100, true), synced(two, 100, false)]).unwrap();
    let (state, _, end) = rig.load();
    assert_eq!(end, End::Good);
    assert_eq!(state.touched.keys().collect::<Vec<_>>(), [&(0, one)]);
    assert_eq!(state.touched[&(0, one)].writes.iter().map(|write| write.offset).collect::<Vec<_>>(), [100]);
    assert_eq!(state.channels[&0].buckets[&two], entry(100));
    let text = std::fs::read_to_string(rig.dir.path().join(crate::checkpoint::FILE)).unwrap();
    assert_eq!(text, "log 4096 100\nlog 8192 100\n");
    log.checkpoint(&[synced(one, 200, false)]).unwrap();
    log.close().unwrap();
    assert!(rig.load().0.closed);
    assert_eq!(std::fs::read_dir(rig.dir.path()).unwrap().count(), 1, "only the catalogue is left");
}

#[test]
fn the_file_is_written_anew_before_it_grows_without_end() {
    let rig = Rig::new();
    let mut log = rig.log();
    let number = BucketNumber::of(0x1000);
    log.touch("log", number, &Entry::EMPTY).unwrap();
    let mut largest = 0;
    for round in 0..4000 {
        for write in 0..100 {
            log.wrote(&written(number, write * 100, 100)).unwrap();
        }
        let done = Synced { channel: "log".into(), number, entry: entry(100 * round), more: true };
        if round % 100 == 99 {
            log.checkpoint(&[done]).unwrap();
            log.wait_beside();
        }
        largest = largest.max(std::fs::metadata(rig.dir.path().join(FILE)).unwrap().len());
    }
    // 400,000 writes of 55 bytes each.
    assert!(largest < 9 << 20, "{largest}");
    log.close().unwrap();
    let (state, _, end) = rig.load();
    assert_eq!((end, state.closed, state.channels[&0].buckets.len()), (End::Good, true, 1));
}

#[test]
fn a_torn_end_is_told_from_damage_at_every_place() {
    let rig = Rig::new();
    let mut log = rig.log();
    for key in 0..20 {
        log.set("log", BucketNumber::of(key << 12), &entry(key)).unwrap();
    }
    log.sync().unwrap();
    let synced = rig.bytes().len();
    for key in 20..30 {
        log.set("log", BucketNumber::of(key << 12), &entry(key)).unwrap();
    }
    log.removed_bucket("log", BucketNumber::of(0)).unwrap();
    let good = rig.bytes();
    assert!(good.len() > synced);
    let path = rig.dir.path().join(FILE);
    for length in 16..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        let (_, end, how) = rig.load();
        assert!(end <= length as u64);
        assert!(how == End::Torn || (how == End::Good && end == length as u64), "{length}");
    }
    for place in 0..good.len() {
        let mut damaged = good.clone();
        damaged[place] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        // The mark stands behind what was synced.
        let expected = if place < synced { End::Damaged } else { End::Torn };
        assert_eq!(rig.load().2, expected, "{place} of {synced} and {}", good.len());
    }
}

/// A log on a disk in memory, with one channel.
fn on_sim_disk() -> (SimDisk, Log) {
    let disk = SimDisk::new();
    disk.create_dirs(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let mut log = Log::anew(Arc::new(disk.clone()), Path::new("/data"), &State::default()).unwrap();
    log.touch("log", BucketNumber::of(0), &Entry::EMPTY).unwrap();
    log.sync_touched().unwrap();
    (disk, log)
}

fn loaded(disk: &SimDisk) -> (State, u64, End) {
    load(&*disk.open(&Path::new("/data").join(FILE)).unwrap()).unwrap()
}

/// It went on with the old file, which had no name any more: what was synced then was gone after a kill.
#[test]
fn a_file_written_anew_without_a_durable_name_is_gone_on_with() {
    let (disk, mut log) = on_sim_disk();
    for _ in 0..100_000 {
        log.wrote(&written(BucketNumber::of(0), 0, 100)).unwrap();
    }
    disk.fail(Call::SyncDir, 0, 1, std::io::ErrorKind::Other);
    let _may_fail = log.sync();
    log.set("log", BucketNumber::of(0x1000), &entry(7)).unwrap();
    log.sync().unwrap();
    for disk in [disk.kill(), disk.crash(Crash::Loses, 1), disk.crash(Crash::Keeps, 1)] {
        assert_eq!(loaded(&disk).0.channels[&0].buckets.get(&BucketNumber::of(0x1000)), Some(&entry(7)));
    }
}

/// What did not fit into 8 MiB was forgotten, a removed channel as well as the proof of a write.
#[test]
fn nothing_is_forgotten_while_the_file_cannot_be_written() {
    let (disk, mut log) = on_sim_disk();
    log.set("gone", BucketNumber::of(0), &entry(7)).unwrap();
    log.sync().unwrap();
    disk.fail_file(&Path::new("/data").join(FILE), Call::Write, std::io::ErrorKind::Other);
    for at in 0..160_000 {
        let _tried_again = log.wrote(&written(BucketNumber::of(0), at * 100, 100));
    }
    assert!(log.removed_channel("gone").is_err());
    // Nothing more is written to the buckets.
    assert!(log.sync_touched().is_err());
    disk.heal();
    log.sync_touched().unwrap();
    let (state, _, end) = loaded(&disk.crash(Crash::Loses, 1));
    assert_eq!((end, state.channels.len()), (End::Good, 1));
    assert_eq!(state.touched[&(0, BucketNumber::of(0))].writes.len(), 160_000);
}

/// The cut was not durable, and a power cut brought back what stood behind the new entries: of the same size, and whole.
#[test]
fn what_was_cut_off_does_not_come_back_behind_new_entries() {
    let bucket = |key: u64| BucketNumber::of(key << 12);
    let (disk, mut log) = on_sim_disk();
    (1..600).for_each(|key| log.set("log", bucket(key), &entry(1)).unwrap());
    log.sync().unwrap();
    let path = Path::new("/data").join(FILE);
    let file = disk.create(&path).unwrap();
    // Torn in front of the others.
    file.write_all_at(b"torn", 1000).unwrap();
    file.sync().unwrap();
    let (state, end, how) = loaded(&disk);
    assert_eq!(how, End::Torn);
    let known = state.channels[&0].buckets.len() as u64;
    let was = Was { end, touched: Vec::new(), changed: Vec::new() };
    let mut log = Log::resume(Arc::new(disk.clone()), Path::new("/data"), &state, &was).unwrap();
    // With the entry that a process begins, and that of the channel, these are as long as a bucket's.
    log.set("a-channel-of-26-characters", bucket(10_000), &entry(1)).unwrap();
    (1..1600).for_each(|key| log.set("log", bucket(10_000 + key), &entry(1)).unwrap());
    for seed in 0..200 {
        let state = loaded(&disk.crash(Crash::Any, seed)).0;
        let old = state.channels[&0].buckets.keys().filter(|number| **number < bucket(10_000)).count() as u64;
        assert_eq!(old, known, "{seed}");
    }
}

#[test]
fn a_number_that_leaves_none_for_others_is_no_channels() {
    let mut bytes = super::entries::head().to_vec();
    super::entries::Item::Channel { id: u32::MAX, name: b"log" }.write(&mut bytes);
    let disk = SimDisk::new();
    disk.create_dirs(Path::new("/data/another")).unwrap();
    disk.create(&Path::new("/data").join(FILE)).unwrap().write_all_at(&bytes, 0).unwrap();
    assert_eq!((loaded(&disk).1, loaded(&disk).2), (16, End::Torn));
    let options = crate::recovery::OpenOptions::default();
    let opened = crate::recovery::open(Arc::new(disk), Path::new("/data"), &options).unwrap();
    assert_eq!(opened.catalogue.channel_count(), 1);
}

/// Each start took the file as it was for a new one, and let it grow to twice that.
#[test]
fn the_file_does_not_grow_from_start_to_start() {
    let disk = SimDisk::new();
    let open = |boot: u32| {
        let options = crate::recovery::OpenOptions { boot_id: format!("boot-{boot}") };
        crate::recovery::open(Arc::new(disk.clone()), Path::new("/data"), &options).unwrap().log
    };
    for boot in 0..6 {
        let mut log = open(boot / 2);
        log.touch("log", BucketNumber::of(0), &Entry::EMPTY).unwrap();
        for _ in 0..70_000 {
            log.wrote(&written(BucketNumber::of(0), 0, 100)).unwrap();
        }
        log.checkpoint(&[]).unwrap();
        log.set("log", BucketNumber::of(0), &entry(7)).unwrap();
        log.close().unwrap();
        let size = disk.stat(&Path::new("/data").join(FILE)).unwrap().length;
        assert!(size < 9 << 20, "{size}");
    }
}

/// What came while the file was written anew stands behind it, whatever ends in between.
#[test]
fn a_file_that_is_written_beside_has_what_came_meanwhile() {
    let bucket = |key: u64| BucketNumber::of(key << 12);
    for cut in 0..40 {
        let (disk, mut log) = on_sim_disk();
        (1..100).for_each(|key| log.set("log", bucket(key), &entry(key)).unwrap());
        log.sync().unwrap();
        if cut > 0 {
            disk.cut_after(cut);
        }
        let mut durable = 99;
        let mut write = || -> std::io::Result<()> {
            log.write_beside()?;
            for key in 100..110 {
                log.set("log", bucket(key), &entry(key))?;
                log.touch("log", bucket(1000 + key), &Entry::EMPTY)?;
                log.sync()?;
                durable = key;
            }
            Ok(())
        };
        let ended = write().is_ok();
        assert!(ended || cut > 0);
        for (crash, seed) in [(Crash::Loses, 0), (Crash::Keeps, 0), (Crash::Any, cut), (Crash::Any, !cut)] {
            let (state, _, end) = loaded(&disk.crash(crash, seed));
            assert!(end == End::Good || end == End::Torn, "{cut} {crash:?}");
            let buckets = &state.channels[&0].buckets;
            assert!((1..=durable).all(|key| buckets.get(&bucket(key)) == Some(&entry(key))), "{cut} {crash:?}");
            assert!((100..=durable).all(|key| state.touched.contains_key(&(0, bucket(1000 + key)))), "{cut} {crash:?}");
        }
        if cut == 0 {
            // The new file, with all that came.
            assert!(disk.stat(Path::new("/data/.catalogue.tmp")).is_err());
            assert!(disk.stat(&Path::new("/data").join(FILE)).unwrap().length < 8000);
        }
    }
}

#[test]
fn a_file_that_is_written_beside_is_given_up_at_the_end_and_without_room() {
    let (disk, mut log) = on_sim_disk();
    log.set("log", BucketNumber::of(0x1000), &entry(1)).unwrap();
    disk.fail(Call::Create, 0, 1, std::io::ErrorKind::StorageFull);
    log.write_beside().unwrap();
    log.sync().unwrap();
    log.set("log", BucketNumber::of(0x2000), &entry(2)).unwrap();
    log.write_beside().unwrap();
    log.set("log", BucketNumber::of(0), &entry(0)).unwrap();
    log.close().unwrap();
    drop(log);
    let (state, _, end) = loaded(&disk);
    assert_eq!((end, state.closed, state.channels[&0].buckets.len()), (End::Good, true, 3));
    let names: Vec<_> = disk.list(Path::new("/data")).unwrap().into_iter().map(|named| named.name).collect();
    assert_eq!(names, [FILE]);
}

fn any_item(kind: u8, id: u32, at: u64, fields: [u64; 4]) -> Vec<u8> {
    use super::entries::Item;
    let number = BucketNumber::of(at << 22);
    let entry =
        Entry { counted: at.is_multiple_of(2), length: fields[0], records: fields[1], bytes: fields[2], ..entry(1) };
    let write = Write { offset: fields[0], length: fields[1], records: fields[2], bytes: fields[3], crc: 1 };
    let flag = fields[3].is_multiple_of(2);
    let item = match kind {
        0 => Item::Run { boot: b"boot-1" },
        1 => Item::Channel { id, name: [&b"log"[..], b"other", b"..", b"third"][(at % 4) as usize] },
        2 => Item::ChannelRemoved { id },
        3 | 4 => Item::Bucket { id, number, entry, more: flag },
        5 => Item::BucketRemoved { id, number },
        6 => Item::Touched { id, number, entry, only: flag },
        7 => Item::Written { id, number, write },
        8 => Item::Replacing { id, number },
        9 => Item::Directory {
            id,
            slot: flag.then(|| super::state::first_of_slot(number)),
            seconds: fields[0],
            nanos: 7,
        },
        10 => Item::Mark,
        _ => Item::Closed,
    };
    let mut bytes = Vec::new();
    item.write(&mut bytes);
    bytes
}

/// Lengths as they are, and as nobody writes them.
fn field() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..200_u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

proptest! {
    /// Whatever stands in the file, with checksums that are right or not: it is read, what it says is the same when it is
    /// written anew, and a start makes something of it.
    #[test]
    fn any_file_is_read_and_written_anew_as_it_is(
        items in prop::collection::vec((0..12u8, 0..3u32, 0..5u64, [field(), field(), field(), field()]), 0..60),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        lines in "(log|\\.\\.|other)? ?[0-9]{0,21} ?[0-9]{0,21}\n?[a-z0-9 \n]{0,40}",
    ) {
        let mut bytes = super::entries::head().to_vec();
        for id in 0..2 {
            bytes.extend(any_item(1, id, u64::from(id), [0; 4]));
        }
        items.into_iter().for_each(|(kind, id, at, fields)| bytes.extend(any_item(kind, id, at, fields)));
        if let Some((place, byte)) = damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let disk = SimDisk::new();
        disk.create_dirs(Path::new("/data/log/0000000000")).unwrap();
        disk.create(Path::new("/data/log/0000000000/000")).unwrap().write_all_at(&[1; 100], 0).unwrap();
        let write = |name: &str, bytes: &[u8]| disk.create(&Path::new("/data").join(name)).unwrap().write_all_at(bytes, 0).unwrap();
        write(FILE, &bytes);
        write(crate::checkpoint::FILE, lines.as_bytes());
        let state = loaded(&disk).0;
        let mut again = super::entries::head().to_vec();
        state.items(&mut |item| {
            item.write(&mut again);
            Ok(())
        }).unwrap();
        write("again", &again);
        let (read, end, how) = load(&*disk.open(Path::new("/data/again")).unwrap()).unwrap();
        prop_assert_eq!((end, how), (again.len() as u64, End::Good));
        prop_assert_eq!(format!("{:?}", read.touched), format!("{:?}", state.touched));
        prop_assert_eq!(read.channels.len(), state.channels.len());
        for (id, channel) in &state.channels {
            let same = &read.channels[id];
            prop_assert_eq!((&same.name, &same.buckets), (&channel.name, &channel.buckets));
            prop_assert_eq!((same.modified, &same.slots), (channel.modified, &channel.slots));
        }
        let options = crate::recovery::OpenOptions { boot_id: "boot-1".into() };
        // A later version stops it.
        let _made = crate::recovery::open(Arc::new(disk), Path::new("/data"), &options);
    }
}

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod crashes;
mod damage;
mod faults;
mod missing;
mod published;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::bucket::KeyRange;
use crate::catalogue::{Synced, Written};
use crate::disk::sim::SimDisk;
use crate::format::{Format, v2};
use crate::record;
use crate::walk::{Walker, read_file};

const DIR: &str = "/data";

/// Everything that is known of a catalogue's buckets.
type Buckets = BTreeMap<(String, BucketNumber), Entry>;

fn buckets(catalogue: &Catalogue) -> Buckets {
    let mut all = Buckets::new();
    for (id, name) in catalogue.channels(None) {
        let mut after = None;
        while let Some((number, entry)) = catalogue.next(id, KeyRange::ALL, after) {
            all.insert((name.to_owned(), number), entry);
            after = Some(number);
        }
    }
    all
}

/// The bucket of a file in the data directory.
fn bucket_of(path: &str) -> Option<(String, BucketNumber)> {
    let mut parts = path.strip_prefix(DIR)?.strip_prefix('/')?.split('/');
    let (channel, slot, file) = (parts.next()?, parts.next()?, parts.next()?);
    Some((channel.to_owned(), crate::bucket::Slot::parse(slot)?.bucket(file)?))
}

type Records = Vec<(u64, Vec<u8>)>;

/// What the files say, and the records in them.
fn scan(disk: &SimDisk) -> BTreeMap<(String, BucketNumber), (Entry, Records)> {
    let mut all = BTreeMap::new();
    for (path, content) in disk.files() {
        let Some((channel, number)) = bucket_of(&path) else { continue };
        let file = disk.open(Path::new(&path)).unwrap();
        let (length, mut records) = (content.len() as u64, Records::new());
        let format = Format::of(&content);
        let mut bytes = 0;
        if let Some(format) = format {
            let mut walker = Walker::new(format, number, length);
            let summary =
                read_file(&*file, &mut walker, &mut |key, value| records.push((key, value.to_vec()))).unwrap();
            assert_eq!(summary.damages, [], "{path}");
            bytes = summary.bytes;
        }
        let entry = Entry { format, counted: true, length, records: records.len() as u64, bytes };
        all.insert((channel, number), (entry, records));
    }
    all
}

/// A node that writes as the storage does, with the log's rules kept to the letter.
struct Node {
    disk: SimDisk,
    boot: u32,
    catalogue: Catalogue,
    log: Option<Log>,
    /// What was written since the last checkpoint.
    touched: BTreeMap<(String, BucketNumber), Entry>,
    report: OpenReport,
}

impl Node {
    fn open(disk: SimDisk, boot: u32) -> Self {
        let options = OpenOptions { boot_id: format!("boot-{boot}") };
        let Opened { catalogue, log, unsynced, report } =
            open(Arc::new(disk.clone()), Path::new(DIR), &options).unwrap();
        let touched = unsynced.into_iter().map(|one| ((one.channel.into(), one.number), one.entry)).collect();
        Self { disk, boot, catalogue, log: Some(log), touched, report }
    }

    fn killed(self) -> Self {
        Self::open(self.disk.kill(), self.boot)
    }

    fn power_cut(self, crash: crate::disk::sim::Crash, seed: u64) -> Self {
        Self::open(self.disk.crash(crash, seed), self.boot + 1)
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn entry(&self, channel: &str, number: BucketNumber) -> Option<Entry> {
        self.catalogue.entry(self.catalogue.channel(channel)?, number)
    }

    fn put(&mut self, channel: &str, format: Format, records: &[(u64, Vec<u8>)]) -> io::Result<()> {
        let number = BucketNumber::of(records[0].0);
        let id = self.catalogue.create(channel).unwrap();
        let old = self.catalogue.entry(id, number).unwrap_or_default();
        let format = old.format.unwrap_or(format);
        let mut bytes = if old.length == 0 { format.header().to_vec() } else { Vec::new() };
        let mut framed = Vec::new();
        for (key, value) in records {
            record::put(format.framing(), *key, value, &mut framed);
        }
        if format == Format::V2 {
            let offset = old.length + bytes.len() as u64;
            v2::encode_block(offset, &framed, 1, &mut bytes).unwrap();
        } else {
            bytes.extend_from_slice(&framed);
        }
        if !self.touched.contains_key(&(channel.to_owned(), number)) {
            self.log().touch(channel, number, &old)?;
        }
        self.log().sync_touched()?;
        let path = bucket::path(Path::new(DIR), channel, number);
        self.disk.create_dirs(path.parent().unwrap())?;
        let file = self.disk.create(&path)?;
        assert_eq!(file.len()?, old.length);
        file.write_all_at(&bytes, old.length)?;
        let value_bytes = records.iter().map(|(_, value)| value.len() as u64).sum::<u64>();
        let (length, records) = (bytes.len() as u64, records.len() as u64);
        let crc = crc32fast::hash(&bytes);
        let written = Written { channel, number, offset: old.length, length, records, bytes: value_bytes, crc };
        self.log().wrote(&written)?;
        let entry = Entry {
            format: Some(format),
            counted: true,
            length: old.length + length,
            records: old.records + records,
            bytes: old.bytes + value_bytes,
        };
        self.catalogue.set(id, number, entry);
        self.touched.insert((channel.to_owned(), number), entry);
        Ok(())
    }

    /// Makes all files and names durable.
    fn sync_files(&mut self) -> io::Result<()> {
        for (channel, number) in self.touched.keys() {
            let path = bucket::path(Path::new(DIR), channel, *number);
            self.disk.open(&path)?.sync()?;
            for dir in path.ancestors().skip(1).take(4) {
                self.disk.sync_dir(dir)?;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_files()?;
        self.log().sync()
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        self.sync_files()?;
        let touched = self.touched.iter().map(|((channel, number), entry)| Synced {
            channel: channel.as_str().into(),
            number: *number,
            entry: *entry,
            more: false,
        });
        let touched: Vec<_> = touched.collect();
        self.log().checkpoint(&touched)?;
        self.touched.clear();
        Ok(())
    }

    fn close(mut self) -> io::Result<SimDisk> {
        self.checkpoint()?;
        self.log.take().unwrap().close()?;
        Ok(self.disk)
    }
}

fn values(keys: &[u64]) -> Records {
    keys.iter().map(|key| (*key, format!("value of {key}").into_bytes())).collect()
}

#[test]
fn an_orderly_stop_is_trusted_and_leaves_no_checkpoint() {
    let mut node = Node::open(SimDisk::new(), 1);
    assert_eq!(node.report, OpenReport::default());
    for key in (0..40).map(|n| n << 20) {
        node.put("log", Format::V1, &values(&[key, key + 1])).unwrap();
    }
    let known = buckets(&node.catalogue);
    let disk = node.close().unwrap();
    let names: Vec<_> = disk.list(Path::new(DIR)).unwrap().into_iter().map(|named| named.name).collect();
    assert_eq!(
        {
            let mut names = names;
            names.sort();
            names
        },
        [".catalogue", "log"]
    );
    // Another boot says nothing about a node that was not running.
    let node = Node::open(disk, 2);
    assert_eq!(node.report, OpenReport { end: LastEnd::Clean, ..OpenReport::default() });
    assert_eq!(buckets(&node.catalogue), known);
    assert_eq!(node.catalogue.totals().records, 80);
    assert!(node.touched.is_empty());
}

#[test]
fn only_directories_that_have_changed_are_read() {
    let mut node = Node::open(SimDisk::new(), 1);
    let (one, two) = (0x100_0000, 0x200_0000);
    node.put("log", Format::V1, &values(&[one])).unwrap();
    node.put("log", Format::V1, &values(&[two])).unwrap();
    let disk = node.close().unwrap();
    // Somebody adds a file, and another one longer than before, in one slot; and removes the other slot.
    let path = |key| bucket::path(Path::new(DIR), "log", BucketNumber::of(key));
    disk.create(&path(one + 0x1000)).unwrap().write_all_at(&[7; 40], 0).unwrap();
    disk.create(&path(one)).unwrap().set_len(60).unwrap();
    disk.remove(&path(two)).unwrap();
    disk.remove_dir(path(two).parent().unwrap()).unwrap();
    let node = Node::open(disk, 1);
    assert_eq!((node.report.end, node.report.found), (LastEnd::Clean, 2));
    assert_eq!(node.report.problems, ["log/0000000002: the directory is gone, with 1 buckets"]);
    let found = |length| Entry { counted: false, length, ..Entry::EMPTY };
    let expected = [(one, found(60)), (one + 0x1000, found(40))];
    let expected = expected.map(|(key, entry)| (("log".to_owned(), BucketNumber::of(key)), entry));
    assert_eq!(buckets(&node.catalogue), Buckets::from(expected));
    // The next start knows them.
    let node = Node::open(node.close().unwrap(), 1);
    assert_eq!(node.report, OpenReport { end: LastEnd::Clean, ..OpenReport::default() });
}

#[test]
fn a_full_disk_does_not_keep_the_node_from_starting() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[1, 2])).unwrap();
    node.checkpoint().unwrap();
    node.put("log", Format::V1, &values(&[3])).unwrap();
    let disk = node.disk.kill();
    disk.set_free(Some(0));
    let mut node = Node::open(disk, 1);
    assert_eq!(node.catalogue.totals().records, 3);
    assert!(node.put("log", Format::V1, &values(&[0x7000])).is_err());
    node.disk.set_free(None);
    let node = Node::open(node.disk.kill(), 1);
    assert_eq!(node.catalogue.totals().records, 3);
    node.close().unwrap();
}

#[test]
fn what_is_left_of_removed_channels_and_of_rewriting_goes() {
    let mut node = Node::open(SimDisk::new(), 1);
    node.put("log", Format::V1, &values(&[1])).unwrap();
    node.put("gone", Format::V1, &values(&[1])).unwrap();
    node.checkpoint().unwrap();
    node.disk.rename(Path::new("/data/gone"), Path::new("/data/.removed-0")).unwrap();
    for name in ["000.new", "001.raw.new", "002.rest.new"] {
        node.disk.create(&Path::new(DIR).join("log/0000000000").join(name)).unwrap();
    }
    // The process was killed before it told the log.
    let node = node.killed();
    assert_eq!(node.report.problems, ["gone: the directory is gone, with 1 buckets"]);
    sweep(&node.disk, Path::new(DIR)).unwrap();
    let left = node.disk.files().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(left, ["/data/.catalogue", "/data/checkpoint.dat", "/data/log/0000000000/000"]);
    assert!(node.disk.list(Path::new(DIR)).unwrap().iter().all(|named| !named.name.starts_with(REMOVED)));
}

//! Whatever is asked in whatever order, with stops and kills in between: the node gives what a list would give, and counts
//! exactly.

use std::collections::BTreeMap;
use std::path::PathBuf;

use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::Request;
use proptest::prelude::*;

use crate::rig::{Node, Record, Setup, batch_of, check, copy, hex, interval, put, put_neo, read};

const CHANNELS: [&str; 3] = ["plain", "v2_one", "v2_two"];

#[derive(Debug, Clone)]
enum Op {
    Put(usize, u64, usize),
    Neo(usize, u64, usize),
    Batch(usize, u64, usize),
    Read(usize, u64, u64),
    Remove(usize),
    Flush,
    Restart,
    /// Copies the files while the node runs, and goes on with the copy.
    Kill,
    /// The same, but what the node has not written is lost.
    KillUnflushed,
}

/// Keys of a few buckets, in two slots and at both ends.
fn key() -> impl Strategy<Value = u64> {
    prop_oneof![0x1000..0x1010u64, 0x1ff0..0x2010u64, (0..3u64).prop_map(|slot| slot << 24), Just(u64::MAX), Just(0)]
}

fn op() -> impl Strategy<Value = Op> {
    let (channel, length) = (0..CHANNELS.len(), prop_oneof![8 => 1..60usize, 1 => 4000..9000usize]);
    prop_oneof![
        12 => (channel.clone(), key(), length.clone()).prop_map(|(channel, key, length)| Op::Put(channel, key, length)),
        6 => (channel.clone(), key(), length).prop_map(|(channel, key, length)| Op::Neo(channel, key, length)),
        4 => (channel.clone(), key(), 1..30usize).prop_map(|(channel, key, count)| Op::Batch(channel, key, count)),
        6 => (channel.clone(), key(), key()).prop_map(|(channel, low, high)| Op::Read(channel, low, high)),
        1 => channel.prop_map(Op::Remove),
        2 => Just(Op::Flush),
        1 => Just(Op::Restart),
        2 => Just(Op::Kill),
        1 => Just(Op::KillUnflushed),
    ]
}

/// The records of a channel by bucket, in the order of writing.
type Channel = BTreeMap<u64, Vec<Record>>;

struct World {
    node: Option<Node>,
    place: tempfile::TempDir,
    lives: u32,
    always: bool,
    channels: BTreeMap<&'static str, Channel>,
    numbers: u64,
    ids: u64,
}

impl World {
    fn new(always: bool) -> Self {
        let mut world = Self {
            node: None,
            place: tempfile::tempdir().unwrap(),
            lives: 0,
            always,
            channels: BTreeMap::new(),
            numbers: 0,
            ids: 0,
        };
        world.start();
        world
    }

    fn data(&self) -> PathBuf {
        self.place.path().join(format!("data-{}", self.lives))
    }

    fn start(&mut self) {
        let mut setup = Setup::at(&self.data()).with(|settings| {
            settings.format_v2 = [("v2_".to_owned(), true)].into_iter().collect();
            settings.write_buffer = 4096;
            settings.open_files = 3;
            settings.checkpoint = std::time::Duration::from_millis(30);
        });
        if self.always {
            setup = setup.always();
        }
        self.node = Some(Node::start(setup));
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn value(&mut self, length: usize) -> Vec<u8> {
        self.numbers += 1;
        let mut value = format!("{} ", self.numbers).into_bytes();
        value.resize(value.len() + length, b'v');
        value
    }

    fn wrote(&mut self, channel: usize, key: u64, value: Vec<u8>) {
        self.channels.entry(CHANNELS[channel]).or_default().entry(key >> 12).or_default().push((key, value));
    }

    fn kill(&mut self, all_there: bool) {
        let from = self.data();
        self.lives += 1;
        copy(&from, &self.data());
        // What it does from now on is no more than that of a process that does not know that it is dead.
        drop(self.node.take());
        self.start();
        if all_there {
            return;
        }
        // What a killed node has lost is the end of each bucket.
        let mut kept: BTreeMap<&'static str, Channel> = BTreeMap::new();
        for (name, buckets) in &self.channels {
            let mut there: Channel = BTreeMap::new();
            for (key, value) in self.node().all(name) {
                there.entry(key >> 12).or_default().push((key, value));
            }
            for (bucket, records) in &there {
                let written = buckets.get(bucket).expect("a bucket that was written to");
                assert!(written.starts_with(records), "{name}: the beginning of what was put, in order");
            }
            if !there.is_empty() {
                kept.insert(name, there);
            }
        }
        self.channels = kept;
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put(channel, key, length) => {
                let value = self.value(length);
                put(&mut self.node().legacy(), CHANNELS[channel], key, &value);
                self.wrote(channel, key, value);
            }
            Op::Neo(channel, key, length) => {
                let value = self.value(length);
                self.ids += 1;
                put_neo(&mut self.node().neo(), self.ids, CHANNELS[channel], key, &value);
                self.wrote(channel, key, value);
            }
            Op::Batch(channel, key, count) => {
                let records: Vec<Record> =
                    (0..count as u64).map(|more| (key.saturating_add(more * 700), self.value(30))).collect();
                let batch = batch_of(&records);
                let request = Request::PutBatch { channel: CHANNELS[channel].as_bytes(), batch: &batch };
                assert_eq!(self.node().legacy().ask(&request), Status::Ok);
                for (key, value) in records {
                    self.wrote(channel, key, value);
                }
            }
            Op::Read(channel, low, high) => {
                let (from, to) = (hex(low), hex(high));
                let request = Request::GetRange { channel: CHANNELS[channel].as_bytes(), range: interval(&from, &to) };
                let found = read(&mut self.node().legacy(), &request);
                let all = self.channels.get(CHANNELS[channel]);
                let within = |record: &&Record| low <= record.0 && record.0 <= high;
                let expected: Vec<Record> =
                    all.into_iter().flat_map(BTreeMap::values).flatten().filter(within).cloned().collect();
                assert!(found == expected, "{low:#x} to {high:#x}: {} of {}", found.len(), expected.len());
            }
            Op::Remove(channel) => {
                let request = Request::RemoveChannel { channel: CHANNELS[channel].as_bytes() };
                assert_eq!(self.node().legacy().ask(&request), Status::Ok);
                self.channels.remove(CHANNELS[channel]);
            }
            Op::Flush => self.node().flush(),
            Op::Restart => {
                drop(self.node.take());
                assert_eq!(check(&self.data(), &[]), 0);
                self.start();
            }
            Op::Kill => {
                self.node().flush();
                self.kill(true);
            }
            Op::KillUnflushed => self.kill(self.always),
        }
    }

    fn compare(&self) {
        let (mut records, mut bytes) = (0, 0);
        for name in CHANNELS {
            let expected: Vec<Record> =
                self.channels.get(name).into_iter().flat_map(BTreeMap::values).flatten().cloned().collect();
            let found = self.node().all(name);
            assert!(found == expected, "{name}: {} of {}", found.len(), expected.len());
            let size: usize = expected.iter().map(|(_, value)| value.len()).sum();
            assert_eq!(self.node().channel_size(name), (expected.len() as u64, size as u64), "{name}");
            records += expected.len() as u64;
            bytes += size as u64;
        }
        assert_eq!(self.node().size(), (records, bytes));
        assert!(self.node().findings().is_empty(), "{:?}", self.node().findings());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_requests_stops_and_kills(always: bool, ops in proptest::collection::vec(op(), 1..70)) {
        let mut world = World::new(always);
        for op in ops {
            world.apply(op);
        }
        world.compare();
        world.apply(Op::Restart);
        world.compare();
    }
}

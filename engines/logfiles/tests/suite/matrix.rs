//! Whoever writes, whoever reads, whatever the format and the mode: the same records.

use std::fs;
use std::thread::scope;

use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::{Request, mode};
use overstory_swarm::neo::dls::{PutReply, Request as Neo};
use proptest::test_runner::{Config, TestRunner};

use crate::rig::{Node, Record, Setup, all_neo, batch_of, check, get_range, hex, interval, put_neo, read};

#[derive(Debug, Clone, Copy)]
enum Writer {
    Put,
    PutBatch,
    Neo,
}

const WRITERS: [Writer; 3] = [Writer::Put, Writer::PutBatch, Writer::Neo];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    V1,
    V2,
}

/// Keys of many buckets and slots, now and then several times the same.
fn key(writer: usize, number: u64) -> u64 {
    let mixed = (number / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ writer as u64;
    match number % 4 {
        0 => mixed >> 40,
        1 => mixed >> 52,
        2 => mixed & (u64::MAX >> 1),
        _ => 0x1000 + number % 3000,
    }
}

fn records(writer: usize, count: u64) -> Vec<Record> {
    let value = |number: u64| {
        let word = ["alpha", "beta", "Gamma"][usize::try_from(number % 3).unwrap()];
        let filler = "z".repeat(usize::try_from(number * number % 400).unwrap());
        format!("{writer} {number} {word} {filler}").into_bytes()
    };
    (0..count).map(|number| (key(writer, number), value(number))).collect()
}

fn write(node: &Node, writer: Writer, channel: &str, records: &[Record]) {
    match writer {
        Writer::Put => {
            let mut client = node.legacy();
            for some in records.chunks(32) {
                let mut bytes = Vec::new();
                for (key, value) in some {
                    Request::Put { channel: channel.as_bytes(), key: &hex(*key), value }.encode(&mut bytes);
                }
                client.send(&bytes);
                some.iter().for_each(|_| assert_eq!(client.read_status(), Status::Ok));
            }
        }
        Writer::PutBatch => {
            let mut client = node.legacy();
            for some in records.chunks(100) {
                let batch = batch_of(some);
                let request = Request::PutBatch { channel: channel.as_bytes(), batch: &batch };
                assert_eq!(client.ask(&request), Status::Ok);
            }
        }
        Writer::Neo => {
            let mut client = node.neo();
            for (id, (key, value)) in (1..).zip(records) {
                assert_eq!(put_neo(&mut client, id, channel, *key, value), PutReply::Put);
            }
        }
    }
}

/// In the order in which a node gives them: that of the buckets, then that of writing.
fn ordered(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|(key, _)| key >> 12);
    records
}

/// Every way of reading a channel gives what it should of these records; in their order, where that is known.
fn reads(node: &Node, channel: &str, expected: &[Record], in_order: bool) {
    let name = channel.as_bytes();
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    let same = |mut found: Vec<Record>, wanted: &dyn Fn(&Record) -> bool, told: &str| {
        let mut wanted: Vec<Record> = expected.iter().filter(|record| wanted(record)).cloned().collect();
        if !in_order {
            found.sort();
            wanted.sort();
        }
        assert!(found == wanted, "{channel}: {told}: {} of {}", found.len(), wanted.len());
    };
    same(read(&mut legacy, &Request::GetAll { channel: name }), &|_| true, "GetAll");
    same(all_neo(&mut neo, 1, channel), &|_| true, "neo");
    let contains = |record: &Record, text: &[u8]| record.1.windows(text.len()).any(|part| part == text);
    let filtered = read(&mut legacy, &Request::GetAllFilter { channel: name, filter: b"beta" });
    same(filtered, &|record| contains(record, b"beta"), "GetAllFilter");
    let mut id = 1;
    for (low, high) in [(0, u64::MAX), (0x1000, 0x1fff), (0x1004, 0x1900), (0x1800, 1 << 23), (1 << 40, u64::MAX >> 1)]
    {
        let (from, to) = (hex(low), hex(high));
        let range = interval(&from, &to);
        let within = |record: &Record| (low..=high).contains(&record.0);
        let told = format!("{low:#x} to {high:#x}");
        same(read(&mut legacy, &Request::GetRange { channel: name, range }), &within, &told);
        let request = Request::GetRangeFilter { channel: name, range, filter: b"beta" };
        same(read(&mut legacy, &request), &|record| within(record) && contains(record, b"beta"), &told);
        for (mode, pattern, text) in [
            (mode::STRING_MATCH, &b"Gamma"[..], &[&b"Gamma"[..]][..]),
            (mode::PCRE, b"^\\d+ \\d+ (alpha|beta)", &[b"alpha", b"beta"]),
            (mode::PCRE_CASE_INSENSITIVE, b"GAMMA", &[b"Gamma"]),
        ] {
            let wanted = |record: &Record| within(record) && text.iter().any(|text| contains(record, text));
            let request = Request::GetRangeRegex { channel: name, range, mode, pattern };
            same(read(&mut legacy, &request), &wanted, &format!("{told}, legacy mode {mode}"));
            // The same, one higher, in neo; timestamps have a sign there.
            let signed = |key: u64| i64::try_from(key).unwrap_or(i64::MAX);
            id += 1;
            let request =
                Neo::GetRange { channel: name, low: signed(low), high: signed(high), filter: pattern, mode: mode + 1 };
            same(get_range(&mut neo, id, &request).unwrap(), &wanted, &format!("{told}, neo mode {mode}"));
        }
    }
    let bytes: usize = expected.iter().map(|(_, value)| value.len()).sum();
    assert_eq!(node.channel_size(channel), (expected.len() as u64, bytes as u64), "{channel}");
}

/// A node whose channels have buckets of a format already, with these records in them, if it is the plain one.
fn node_of(format: Format, always: bool, channels: &[&str]) -> (Node, Vec<Record>, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let mut setup = Setup::at(&place.path().join("data"));
    if always {
        setup = setup.always();
    }
    // Small enough for many chunks.
    setup.settings.write_buffer = 4096;
    setup.settings.open_files = 16;
    let mut there: Vec<Record> = Vec::new();
    match format {
        Format::V1 => {}
        Format::V2 => setup = setup.v2(),
        Format::Plain => {
            there = (0..3).map(|number| (0x1000 + number, format!("7 {number} beta plain").into_bytes())).collect();
            for channel in channels {
                let dir = place.path().join("data").join(channel).join("0000000000");
                fs::create_dir_all(&dir).unwrap();
                let mut bytes = Vec::new();
                for (key, value) in &there {
                    bytes.extend(key.to_le_bytes());
                    bytes.extend((value.len() as u64).to_le_bytes());
                    bytes.extend(value);
                }
                fs::write(dir.join("001"), bytes).unwrap();
            }
        }
    }
    (Node::start(setup), there, place)
}

fn all_kinds(test: impl Fn(Format, bool)) {
    for format in [Format::Plain, Format::V1, Format::V2] {
        for always in [false, true] {
            test(format, always);
        }
    }
}

#[test]
fn what_one_writer_writes_all_readers_read() {
    all_kinds(|format, always| {
        let channels = ["by-put", "by-batch", "by-neo"];
        let (node, there, place) = node_of(format, always, &channels);
        let count = if always { 60 } else { 240 };
        let mut expected = Vec::new();
        for (number, (writer, channel)) in WRITERS.into_iter().zip(channels).enumerate() {
            let records = records(number, count);
            write(&node, writer, channel, &records);
            let all = ordered([there.clone(), records].concat());
            overstory_replay::eventually("it is counted", || node.channel_size(channel).0 == all.len() as u64);
            // Some of it in memory still.
            reads(&node, channel, &all, true);
            expected.push(all);
        }
        node.flush();
        assert_eq!(check(&node.data, &[]), 0);
        for (channel, records) in channels.into_iter().zip(&expected) {
            reads(&node, channel, records, true);
        }
        let formats = |slot: &str| {
            let bytes = fs::read(node.data.join("by-put").join(slot)).unwrap();
            (bytes.get(8..16) == Some(b"DLSBUCKT")).then(|| bytes[0])
        };
        let first = formats("0000000000/001");
        assert_eq!(first, [None, Some(1), Some(2)][format as usize], "{format:?}: its own format");
        node.stop();
        let node = Node::start(Setup::at(&place.path().join("data")));
        for (channel, records) in channels.into_iter().zip(&expected) {
            reads(&node, channel, records, true);
        }
    });
}

#[test]
fn what_all_write_at_once_all_read() {
    all_kinds(|format, always| {
        let (node, there, place) = node_of(format, always, &["c"]);
        let count = if always { 60 } else { 240 };
        let all: Vec<Vec<Record>> = (0..3).map(|writer| records(writer, count)).collect();
        scope(|scope| {
            for (writer, records) in WRITERS.into_iter().zip(&all) {
                let node = &node;
                scope.spawn(move || write(node, writer, "c", records));
            }
            // Readers meanwhile: each finds a part of it, and whole records.
            let node = &node;
            let (all, there) = (&all, &there);
            scope.spawn(move || {
                let mut neo = node.neo();
                for id in 1..20 {
                    let known =
                        |record: &Record| there.contains(record) || all.iter().flatten().any(|one| one == record);
                    assert!(node.all("c").iter().all(known));
                    assert!(all_neo(&mut neo, id, "c").iter().all(known));
                }
            });
        });
        let expected: Vec<Record> = there.into_iter().chain(all.into_iter().flatten()).collect();
        overstory_replay::eventually("it is counted", || node.size().0 == expected.len() as u64);
        reads(&node, "c", &expected, false);
        let order = node.all("c");
        node.stop();
        let node = Node::start(Setup::at(&place.path().join("data")));
        assert!(node.all("c") == order, "the order stays");
        reads(&node, "c", &expected, false);
        assert_eq!(check(&node.data, &[]), 0);
    });
}

/// Values of any length, across the limits of buffers, batches and blocks.
#[test]
fn any_length_survives() {
    for v2 in [false, true] {
        let setup = Setup::default();
        let node = Node::start(if v2 { setup.v2() } else { setup });
        let mut lengths = vec![1, 4095, 4096, 65_519, 65_520, 65_535, 65_536];
        let mut runner = TestRunner::new(Config::default());
        for _ in 0..40 {
            let tree = proptest::strategy::Strategy::new_tree(&(1..70_000usize), &mut runner).unwrap();
            lengths.push(proptest::strategy::ValueTree::current(&tree).min(65_536));
        }
        let large = [99_980, 100_000, (1 << 20) - 16, 1 << 20, (1 << 20) + 1, 3_000_000];
        let mut neo = node.neo();
        let mut expected = Vec::new();
        for (key, length) in (1..).zip(lengths.iter().chain(&large)) {
            let value: Vec<u8> = (0..*length).map(|at| ((at * 31) >> 3).to_le_bytes()[0]).collect();
            assert_eq!(put_neo(&mut neo, key, "c", key, &value), PutReply::Put);
            expected.push((key, value));
        }
        assert!(node.all("c") == expected);
        node.flush();
        assert!(all_neo(&mut neo, 1 << 30, "c") == expected);
        assert!(node.all("c") == expected);
        let place = node.stop().unwrap();
        let node = Node::start(Setup::at(&place.path().join("data")));
        assert!(node.all("c") == expected);
    }
}

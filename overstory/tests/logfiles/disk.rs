//! A full disk: what cannot be kept is refused, what was taken is there, reads go on, and so do puts when there is room.

use overstory_swarm::legacy::Status;
use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::{SmallDisk, finding};

use super::client::{Legacy, Neo, Record};
use super::rig::{Mode, check, instance};

/// 1,000 bytes that do not compress, in buckets of 512 records.
fn record(number: u64) -> Record {
    let mut mixed = number + 1;
    let mut value = number.to_le_bytes().to_vec();
    value.resize_with(1000, || {
        mixed ^= mixed << 13;
        mixed ^= mixed >> 7;
        mixed ^= mixed << 17;
        mixed.to_le_bytes()[0]
    });
    (number * 8, value)
}

/// Puts until the node refuses, again and again; returns how many it has taken. In `always` mode the put that the disk
/// has no room for is not refused: its answer waits until there is room, and its client is given too.
fn fill(node: &NodeInstance, channel: &str, from: u64) -> (u64, Option<Legacy>) {
    let (mut client, mut waiting) = (Legacy::to(node), None);
    let (mut taken, mut refused) = (from, 0);
    while refused < 50 {
        let (key, value) = record(taken);
        client.send_put(channel, key, &value);
        let mut silent = 0;
        while client.is_silent() {
            // For a good while, so that no refusal that is slow to come is taken for it.
            silent = if finding(node, "write") == Some(3.0) { silent + 1 } else { 0 };
            if silent == 20 {
                silent = 0;
                assert!(waiting.replace(client).is_none(), "one waits, the others are refused");
                taken += 1;
                client = Legacy::to(node);
                let (key, value) = record(taken);
                client.send_put(channel, key, &value);
            }
        }
        match client.read_status() {
            Status::Ok => (taken, refused) = (taken + 1, 0),
            status => {
                assert_eq!(status, Status::OutOfMemory);
                refused += 1;
            }
        }
        assert!(taken < 1_000_000, "it is refused in the end");
    }
    (taken, waiting)
}

fn all_there(node: &NodeInstance, channel: &str, count: u64) {
    let mut next = 0;
    let mut client = Legacy::to(node);
    let visit = |key, value: &[u8]| {
        let (expected, bytes) = record(next);
        assert!(key == expected && value == bytes, "{channel}: {next} is next");
        next += 1;
    };
    client.each(channel, visit);
    assert_eq!(next, count);
    assert_eq!(client.channel_size(channel), (count, count * 1000));
}

fn kept(mode: Mode, channel: &str) {
    let node = instance(mode);
    node.set("Sync", "write_ms", "20").set("Performance", "checkpoint_commit_seconds", "1");
    let disk = SmallDisk::mount(&node.path("data"), "3m");
    let process = node.start();
    let mut taken = 0;
    for more in ["4m", "5m"] {
        let waiting;
        (taken, waiting) = fill(&node, channel, taken);
        assert!(mode == Mode::Always || waiting.is_none());
        assert!(taken > 1500, "{taken} were taken");
        // Neither protocol has it otherwise, and what was taken is served.
        assert!(!Neo::to(&node).put(1, channel, 1 << 40, &[7; 5000]));
        let batch: Vec<Record> = (0..50).map(|number| (1 << 40, vec![7; 1000 + number])).collect();
        assert_eq!(Legacy::to(&node).put_batch(channel, &batch), Status::OutOfMemory);
        all_there(&node, channel, taken);
        until("it is found", || finding(&node, "write") == Some(3.0));
        disk.resize(more);
        if let Some(mut client) = waiting {
            assert_eq!(client.read_status(), Status::Ok);
        }
        let (key, value) = record(taken);
        until("it goes on", || Legacy::to(&node).put(channel, key, &value) == Status::Ok);
        taken += 1;
        until("nothing is found any more", || finding(&node, "write").is_none());
        all_there(&node, channel, taken);
    }
    // Full again: what was answered in this mode survives a kill, or a stop once there is room.
    let waiting;
    (taken, waiting) = fill(&node, channel, taken);
    if mode == Mode::Always {
        process.kill();
        let process = node.start();
        // The record whose answer did not come may be there or not.
        let there = Legacy::to(&node).channel_size(channel).0;
        assert!((taken - u64::from(waiting.is_some())..=taken).contains(&there), "{there} of {taken}");
        taken = there;
        all_there(&node, channel, taken);
        disk.resize("64m");
        let (key, value) = record(taken);
        until("it goes on", || Legacy::to(&node).put(channel, key, &value) == Status::Ok);
        taken += 1;
        assert_eq!(process.stop(), Some(0));
    } else {
        disk.resize("64m");
        until("it goes on", || finding(&node, "write").is_none());
        assert_eq!(process.stop(), Some(0));
    }
    assert_eq!(check(&node, &[]).0, 0);
    let process = node.start();
    all_there(&node, channel, taken);
    assert_eq!(process.stop(), Some(0));
    assert!(!node.log().contains(" Fatal "), "{}", node.log());
}

#[test]
fn a_full_disk_in_interval_mode() {
    kept(Mode::Interval, "c");
}

#[test]
fn a_full_disk_in_always_mode() {
    kept(Mode::Always, "c");
}

#[test]
fn a_full_disk_with_format_2() {
    kept(Mode::Always, "v2_c");
}

/// What was answered from the buffers and finds no room until the end is lost, as in a kill; the node says so.
#[test]
fn a_stop_on_a_full_disk_says_what_is_lost() {
    let node = instance(Mode::Interval);
    let disk = SmallDisk::mount(&node.path("data"), "2m");
    let process = node.start();
    let (taken, _) = fill(&node, "c", 0);
    assert_eq!(process.stop(), Some(1));
    assert!(node.log().contains("records are lost"), "{}", node.log());
    disk.resize("4m");
    let process = node.start();
    let there = Legacy::to(&node).channel_size("c").0;
    assert!((taken / 2..taken).contains(&there), "{there} of {taken}");
    // Of each bucket the end is missing, and nothing before it.
    let mut next_of = std::collections::BTreeMap::new();
    let visit = |key: u64, value: &[u8]| {
        let next = next_of.entry(key >> 12).or_insert_with(|| (key & !0xfff) / 8);
        let (expected, bytes) = record(*next);
        assert!(key == expected && value == bytes, "{next} is next");
        *next += 1;
    };
    Legacy::to(&node).each("c", visit);
    assert_eq!(process.stop(), Some(0));
    assert_eq!(check(&node, &[]).0, 0);
}

#[test]
fn a_disk_that_is_nearly_full_is_found() {
    let node = instance(Mode::Interval);
    let _disk = SmallDisk::mount(&node.path("data"), "4m");
    std::fs::write(node.path("data/filler"), vec![1; 4_050_000]).unwrap();
    let process = node.start();
    until("it is found", || finding(&node, "disk_free") == Some(3.0));
    assert_eq!(Legacy::to(&node).put("c", 1, b"there is room for this"), Status::Ok);
    assert_eq!(process.stop(), Some(0));
}

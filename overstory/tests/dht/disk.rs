//! A full disk: a dump fails, is told, leaves the old file as it was, and works again when there is room.

use std::fs;

use overstory_replay::{NeoClient, system_time};
use overstory_swarm::legacy::Status;
use overstory_testkit::node::{ZERO_KEY, until};
use overstory_testkit::trouble::{SmallDisk, logged};

use super::client::Legacy;
use super::rig::{get_all, instance, put_all, read_dump, records, unfinished};

#[test]
fn a_full_disk_costs_no_complete_dump_and_is_told() {
    let node = instance();
    node.set("Dump", "period_s", "1");
    let disk = SmallDisk::mount(&node.path("data"), "2m");
    let process = node.start();
    let (small, first) = (records(0..50, 0), records(0..1000, 1));
    put_all(&node, "small", &small);
    put_all(&node, "first", &first);
    let dumped = |name: &str| node.path(&format!("data/{name}.tcm"));
    until("the first dump", || dumped("small").exists() && dumped("first").exists() && unfinished(&node).is_empty());

    // More than there is room for.
    let second = records(0..20_000, 2);
    put_all(&node, "first", &second);
    until("a dump fails", || node.metric("overstory_node_last_dump_ok") == Some(0.0));
    until("it is found", || node.metric("overstory_node_finding_state{check=\"dump\"}") == Some(2.0));
    let line = logged(&node, "channel not dumped", "its old file stays");
    assert!(line.contains(" Error [dhtnode.storage.DumpManager]"), "{line}");
    assert!(line.contains("first") && line.contains("No space left on device"), "{line}");
    assert!(read_dump(&dumped("first")) == first, "the old file is there");
    assert!(read_dump(&dumped("small")) == small, "the other channel was dumped nevertheless");
    assert!(get_all(&node, "first") == second, "the node serves on");

    // What cannot be saved at the end is told by the exit code; the old file still stays.
    assert_eq!(process.stop(), Some(1));
    assert!(node.log().contains("could not be dumped: their old files stay"));
    assert!(read_dump(&dumped("first")) == first);
    assert!(unfinished(&node).is_empty(), "nothing takes up the room that is left");

    let process = node.start();
    assert!(get_all(&node, "first") == first, "what the last complete dump holds");
    put_all(&node, "first", &second);
    until("a dump fails again", || node.metric("overstory_node_last_dump_ok") == Some(0.0));
    disk.resize("64m");
    until("the next dump works", || node.metric("overstory_node_last_dump_ok") == Some(1.0));
    assert!(read_dump(&dumped("first")) == second);
    until("the finding is gone", || node.metric("overstory_node_finding_state{check=\"dump\"}").unwrap_or(0.0) < 0.5);
    assert_eq!(Legacy::to(&node).size(), 20_050);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_full_disk_under_the_logs_stops_nobody() {
    let node = instance();
    let disk = SmallDisk::mount(&node.path("log"), "16k");
    let process = node.start();
    put_all(&node, "c", &records(0..100, 0));
    // Refusals are lines of the log: far more of them than there is room for.
    for _ in 0..300 {
        assert!(!NeoClient::greet(node.neo).authenticate(system_time() - 3600, "somebody-with-a-long-name", ZERO_KEY));
    }
    assert!(fs::metadata(node.path("log/root.log")).unwrap().len() <= 16_384);
    assert!(get_all(&node, "c") == records(0..100, 0), "the node serves on");
    assert!(node.is_ready());
    disk.resize("1m");
    until("it is logged again", || {
        assert!(!NeoClient::greet(node.neo).authenticate(system_time() - 3600, "afterwards", ZERO_KEY));
        node.log().contains("client 'afterwards'")
    });
    assert_eq!(process.stop(), Some(0));
    assert_eq!(read_dump(&node.path("data/c.tcm")).len(), 100);
}

#[test]
fn a_range_that_cannot_be_saved_is_not_taken() {
    let node = instance();
    let files = ["config.ini", "credentials"].map(|name| fs::read(node.path("etc").join(name)).unwrap());
    let disk = SmallDisk::mount(&node.path("etc"), "16k");
    fs::write(node.path("etc/config.ini"), &files[0]).unwrap();
    fs::write(node.path("etc/credentials"), &files[1]).unwrap();
    let process = node.start();
    put_all(&node, "c", &records(0..100, 0));
    // No byte is left beside the configuration.
    let mut length = 0;
    while fs::write(node.path("etc/filler"), vec![1; length + 4096]).is_ok() {
        length += 4096;
    }
    let before = fs::read(node.path("etc/config.ini")).unwrap();
    let mut client = Legacy::to(&node);
    let status = client.redistribute((0, u64::MAX / 2), &[]);
    let (range, after) = (client.range(), fs::read_to_string(node.path("etc/config.ini")).unwrap());
    match status {
        // In place there may be room where there is none for a second file: then it has to be there.
        Status::Ok => assert!(range == (0, u64::MAX / 2) && after.contains("maxval = 0x7fffffffffffffff"), "{after}"),
        Status::Error => assert!(range == (0, u64::MAX) && after.as_bytes() == before, "{after}"),
        other => panic!("{other:?}"),
    }
    disk.resize("1m");
    assert_eq!(client.redistribute((0, u64::MAX / 4), &[]), Status::Ok);
    assert_eq!(client.range(), (0, u64::MAX / 4));
    process.kill();
    let process = node.start();
    assert_eq!(Legacy::to(&node).range(), (0, u64::MAX / 4));
    assert_eq!(process.stop(), Some(0));
}

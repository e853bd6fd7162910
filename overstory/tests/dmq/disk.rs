//! A full disk: what cannot be kept is refused, what was taken is there, and it goes on when there is room.

use overstory_swarm::legacy::Status;
use overstory_testkit::node::{NodeInstance, NodeProcess, until};
use overstory_testkit::trouble::{SmallDisk, finding};

use super::client::{Legacy, Neo};
use super::rig::{Mode, files, instance, saved, value, values};

/// Pushes until the node refuses, by both protocols; returns how many it has taken.
fn fill(node: &NodeInstance, channel: &str, from: u32) -> u32 {
    let (mut client, mut taken, mut refused) = (Legacy::to(node), from, 0);
    // What is refused may be the reason to make room.
    while refused < 3 {
        match client.push(channel, &value(channel, taken)) {
            Status::Ok => (taken, refused) = (taken + 1, 0),
            status => {
                assert_eq!(status, Status::OutOfMemory);
                refused += 1;
            }
        }
        assert!(taken < 1_000_000, "it is refused in the end");
    }
    // Small ones may still find room; a large one does not, and is told so.
    let large = vec![7; 1 << 20];
    assert_eq!(client.push("large", &large), Status::OutOfMemory);
    let mut neo = Neo::to(node);
    assert!(!neo.push(1, &["large"], &large));
    assert!(!neo.push(2, &[channel, "large"], &large));
    assert_eq!(client.channel_size("large").0, 0);
    taken
}

fn take_all(node: &NodeInstance, channel: &str, numbers: std::ops::Range<u32>) {
    let all = Legacy::to(node).pop_all(channel);
    assert_eq!(all.len(), numbers.len());
    assert!(all == values(channel, numbers), "what was taken is there, in order and once");
}

fn kept_on_a_full_disk(mode: Mode) -> (NodeInstance, SmallDisk, NodeProcess) {
    let node = instance(mode, 20_000);
    node.set("Queue", "journal_segment_bytes", "1048576");
    let disk = SmallDisk::mount(&node.path("data"), "6m");
    let process = node.start();
    let taken = fill(&node, "c", 0);
    assert!(taken > 10_000, "{taken} were taken");
    // Half of it is taken away: there is room again.
    let mut client = Legacy::to(&node);
    for number in 0..taken / 2 {
        assert!(client.pop("c") == value("c", number));
    }
    let mut added = 0;
    until("there is room again", || {
        if client.push("c", &value("c", taken + added)) == Status::Ok {
            added += 1;
        }
        added == 100
    });
    take_all(&node, "c", taken / 2..taken + 100);
    (node, disk, process)
}

#[test]
fn the_overflow_on_a_full_disk_refuses_and_loses_nothing() {
    let (node, disk, process) = kept_on_a_full_disk(Mode::Overflow);
    let taken = fill(&node, "c", 0);
    disk.resize("64m");
    until("it goes on", || Legacy::to(&node).push("c", &value("c", taken)) == Status::Ok);
    assert_eq!(process.stop(), Some(0));
    let process = node.start();
    take_all(&node, "c", 0..taken + 1);
    assert_eq!(process.stop(), Some(0));
    assert!(!node.log().contains(" Fatal "));
}

#[test]
fn the_journal_on_a_full_disk_refuses_and_loses_nothing() {
    let (node, disk, process) = kept_on_a_full_disk(Mode::Journal);
    let taken = fill(&node, "c", 0);
    process.kill();
    // It begins in a new segment, for which there is next to no room: a small one does, and all can be taken out.
    disk.resize("6208k");
    let process = node.start();
    take_all(&node, "c", 0..taken);
    let mut client = Legacy::to(&node);
    until("it goes on", || client.push("c", &value("c", taken)) == Status::Ok);
    process.kill();
    let process = node.start();
    take_all(&node, "c", taken..taken + 1);
    assert_eq!(process.stop(), Some(0));
    assert!(!node.log().contains(" Fatal "));
}

#[test]
fn a_producer_waits_while_the_disk_is_full() {
    let node = instance(Mode::Overflow, 20_000);
    let _disk = SmallDisk::mount(&node.path("data"), "2m");
    let process = node.start();
    let mut client = Legacy::to(&node);
    let request = overstory_swarm::legacy::dmq::Request::Produce { channel: b"p" };
    assert_eq!(client.ask(&request), Status::Ok);
    let count = 40_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = Vec::new();
            values("p", 0..count).iter().for_each(|value| overstory_swarm::wire::put_array(&mut bytes, value));
            overstory_swarm::wire::put_array(&mut bytes, b"");
            client.send(&bytes);
        });
        let mut reader = Legacy::to(&node);
        let (mut next, mut before) = (0, 0);
        until("it is full", || {
            let now = reader.channel_size("p").0;
            now > 4000 && std::mem::replace(&mut before, now) == now
        });
        assert!(before < u64::from(count), "{before} values find room");
        until("all of it comes", || {
            for value in reader.pop_all("p") {
                assert!(value == super::rig::value("p", next), "{next} is next");
                next += 1;
            }
            next == count
        });
    });
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn what_cannot_be_saved_at_the_end_is_told_and_the_rest_is_saved() {
    let node = instance(Mode::Memory, 8_000_000);
    let _disk = SmallDisk::mount(&node.path("data"), "1m");
    let process = node.start();
    let mut client = Legacy::to(&node);
    client.push_all("small", &values("small", 0..100));
    client.push_all("a-large", &vec![vec![1; 100_000]; 30]);
    assert_eq!(process.stop(), Some(1));
    assert!(node.log().contains("could not be saved"), "{}", node.log());
    assert_eq!(saved(&node), ["small"]);
    assert!(files(&node, "data", "").iter().all(|name| name == "small.rq"), "{:?}", files(&node, "data", ""));
    let process = node.start();
    take_all(&node, "small", 0..100);
    assert_eq!(Legacy::to(&node).size(), 0);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_disk_that_fills_up_is_found() {
    let node = instance(Mode::Overflow, 20_000);
    let _disk = SmallDisk::mount(&node.path("data"), "2m");
    let process = node.start();
    assert!(std::fs::write(node.path("data/filler"), vec![1; 4_000_000]).is_err());
    until("it is found", || finding(&node, "disk_free") == Some(3.0));
    assert_eq!(Legacy::to(&node).push("c", b"there is memory"), Status::Ok);
    std::fs::remove_file(node.path("data/filler")).unwrap();
    until("it is over", || finding(&node, "disk_free").is_none());
    assert_eq!(process.stop(), Some(0));
}

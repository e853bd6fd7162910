//! Damaged files: told in the log and to the platform, kept, and all that can be read of them is there.

use std::fs;

use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::{finding, logged};

use super::client::Legacy;
use super::rig::{Mode, files, instance, number, value, values};

/// A node that was stopped with values in these channels, most of them on disk.
fn filled(mode: Mode, channels: &[&str], count: u32) -> NodeInstance {
    let node = instance(mode, 5_000);
    node.set("Queue", "journal_segment_bytes", "1048576");
    let process = node.start();
    let mut client = Legacy::to(&node);
    for from in (0..count).step_by(100) {
        for channel in channels {
            client.push_all(channel, &values(channel, from..count.min(from + 100)));
        }
    }
    assert_eq!(process.stop(), Some(0));
    fs::remove_file(node.path("log/root.log")).unwrap();
    node
}

/// It is told that something is damaged, and something is kept.
fn told(node: &NodeInstance, file: &str) {
    let line = logged(node, file, " Error ");
    assert!(line.contains("dmqnode."), "{line}");
    until("it is found", || finding(node, "load") == Some(2.0));
    assert!(!files(node, "data/damaged", "").is_empty(), "the file is kept");
}

/// Takes what is in a channel: in order and once. Returns how many are missing.
fn missing(node: &NodeInstance, channel: &str, count: u32) -> u32 {
    let all = Legacy::to(node).pop_all(channel);
    let numbers: Vec<u32> = all.iter().map(|value| number(channel, value)).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{channel}: in order and once");
    assert!(numbers.last().is_none_or(|last| *last < count));
    count - u32::try_from(numbers.len()).unwrap()
}

/// It serves, stops well, and starts again without a word of damage; a journal tells of a damaged segment until nothing
/// of that is needed.
fn is_whole_again(node: &NodeInstance, process: overstory_testkit::node::NodeProcess) {
    let mut client = Legacy::to(node);
    client.push_all("afterwards", &values("afterwards", 0..200));
    assert_eq!(process.stop(), Some(0));
    fs::remove_file(node.path("log/root.log")).unwrap();
    let process = node.start();
    assert_eq!(missing(node, "afterwards", 200), 0);
    let has_journal = !files(node, "data/journal", ".journal").is_empty();
    assert!(has_journal || !node.log().contains(" Error "), "{}", node.log());
    assert!(!node.log().contains(" Fatal "), "{}", node.log());
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_damaged_index_costs_no_record() {
    for damage in [&b"\0\xff broken \n;;\n"[..], b"a 1 2\nb x y z\n", b""] {
        let node = filled(Mode::Overflow, &["aaaa", "bbbb"], 2000);
        fs::write(node.path("data/ofchannels.csv"), damage).unwrap();
        let process = node.start();
        told(&node, "ofchannels.csv");
        let size = Legacy::to(&node).size();
        assert_eq!(size, 4000, "{:?} {}", String::from_utf8_lossy(damage), node.log());
        // The names were in the index alone: what has none gets one, and keeps its order.
        let log = node.log();
        assert!(log.contains("recovered-"), "{log}");
        is_whole_again(&node, process);
    }
}

#[test]
fn a_damaged_line_of_the_index_is_the_only_one_that_suffers() {
    let node = filled(Mode::Overflow, &["aaaa", "bbbb", "cccc"], 2000);
    let index = node.text("data/ofchannels.csv");
    assert_eq!(index.lines().count(), 3, "{index}");
    fs::write(node.path("data/ofchannels.csv"), index.replace("bbbb ", "bbbb x")).unwrap();
    let process = node.start();
    told(&node, "ofchannels.csv");
    assert_eq!(Legacy::to(&node).size(), 6000);
    assert_eq!((missing(&node, "aaaa", 2000), missing(&node, "cccc", 2000)), (0, 0));
    is_whole_again(&node, process);
}

#[test]
fn a_damaged_data_file_costs_what_is_damaged() {
    for clean in [true, false] {
        let node = filled(Mode::Overflow, &["aaaa", "bbbb"], 3000);
        if !clean {
            // The same behind a kill, where the positions tell.
            let process = node.start();
            Legacy::to(&node).push_all("cccc", &values("cccc", 0..500));
            process.kill();
            fs::remove_file(node.path("log/root.log")).unwrap();
        }
        let path = node.path("data/overflow.dat");
        let mut bytes = fs::read(&path).unwrap();
        // From the middle of a header on.
        let middle = header_behind(&bytes, bytes.len() / 3);
        bytes[middle + 10..middle + 300].fill(0xee);
        fs::write(&path, bytes).unwrap();
        let process = node.start();
        let lost = missing(&node, "aaaa", 3000) + missing(&node, "bbbb", 3000);
        // What was in memory alone at a kill is gone, too.
        let most = if clean { 40 } else { 100 };
        assert!((1..most).contains(&lost), "{lost} are missing");
        // At the start it follows what the index tells: the middle is looked at when it is read.
        until("it is found", || ["overflow_lost", "load"].iter().any(|check| finding(&node, check) == Some(2.0)));
        logged(&node, "overflow.dat", "");
        if !clean {
            assert!(missing(&node, "cccc", 500) < 100);
        }
        is_whole_again(&node, process);
    }
}

/// Where the first header at or behind `from` begins: 32 bytes, the last eight of which tell the length of the value
/// that follows.
fn header_behind(bytes: &[u8], from: usize) -> usize {
    let mut at = 8;
    while at < from {
        let length = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap());
        at += 32 + usize::try_from(length).unwrap();
    }
    at
}

#[test]
fn a_data_file_that_was_cut_keeps_its_beginning() {
    let node = filled(Mode::Overflow, &["aaaa"], 3000);
    let path = node.path("data/overflow.dat");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2 + 7]).unwrap();
    let process = node.start();
    told(&node, "overflow.dat");
    let lost = missing(&node, "aaaa", 3000);
    assert!((1000..2000).contains(&lost), "{lost} are missing");
    is_whole_again(&node, process);
}

#[test]
fn damaged_and_unknown_dumps_are_kept_and_told() {
    let node = filled(Mode::Memory, &[], 0);
    node.set("Server", "channel_size_limit", "1000000");
    let process = node.start();
    let mut client = Legacy::to(&node);
    for channel in ["good", "cut", "lies"] {
        client.push_all(channel, &values(channel, 0..500));
    }
    assert_eq!(process.stop(), Some(0));
    fs::remove_file(node.path("log/root.log")).unwrap();
    let at = |name: &str| node.path("data").join(name);
    let bytes = fs::read(at("cut.rq")).unwrap();
    fs::write(at("cut.rq"), &bytes[..bytes.len() - 100]).unwrap();
    let mut bytes = fs::read(at("lies.rq")).unwrap();
    // The length of the value 250: behind the head, each value is a length and its bytes.
    let middle = 12 + values("lies", 0..250).iter().map(|value| 8 + value.len()).sum::<usize>();
    bytes[middle..middle + 8].fill(0xff);
    fs::write(at("lies.rq"), bytes).unwrap();
    fs::write(at("bad name.rq"), "x").unwrap();
    fs::write(at("notes.txt"), "x").unwrap();
    fs::write(at("short.rq"), "x").unwrap();
    let process = node.start();
    for file in ["cut.rq", "lies.rq", "short.rq"] {
        told(&node, file);
        assert!(!at(file).exists() && files(&node, "data/damaged", "").iter().any(|kept| kept.starts_with(file)));
    }
    for file in ["bad name.rq", "notes.txt"] {
        logged(&node, file, " Error ");
        assert!(at(file).exists());
    }
    assert_eq!(missing(&node, "good", 500), 0);
    assert!((1..10).contains(&missing(&node, "cut", 500)));
    assert_eq!(missing(&node, "lies", 500), 250);
    fs::remove_file(at("bad name.rq")).unwrap();
    fs::remove_file(at("notes.txt")).unwrap();
    is_whole_again(&node, process);
}

#[test]
fn a_damaged_segment_costs_what_is_damaged() {
    let node = filled(Mode::Journal, &["aaaa", "bbbb"], 6000);
    let segments = files(&node, "data/journal", ".journal");
    assert!(segments.len() > 2, "{segments:?}");
    let path = node.path(&format!("data/journal/{}.journal", segments[1]));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 300].fill(0xee);
    fs::write(&path, bytes).unwrap();
    let process = node.start();
    told(&node, &format!("{}.journal", segments[1]));
    let lost = missing(&node, "aaaa", 6000) + missing(&node, "bbbb", 6000);
    assert!((1..60).contains(&lost), "{lost} are missing");
    is_whole_again(&node, process);

    // A segment of which nothing is left.
    let node = filled(Mode::Journal, &["aaaa", "bbbb"], 6000);
    let segments = files(&node, "data/journal", ".journal");
    let path = node.path(&format!("data/journal/{}.journal", segments[1]));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, vec![0xee; bytes.len()]).unwrap();
    let process = node.start();
    told(&node, &format!("{}.journal", segments[1]));
    let lost = missing(&node, "aaaa", 6000) + missing(&node, "bbbb", 6000);
    assert!((1000..9000).contains(&lost), "{lost} are missing");
    let mut client = Legacy::to(&node);
    client.push_all("aaaa", &[value("aaaa", 6000)]);
    assert!(client.pop("aaaa") == value("aaaa", 6000));
    is_whole_again(&node, process);
}

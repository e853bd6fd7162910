//! What a node makes of dump files that are damaged, foreign, or not its own: the rest is served, and `root.log` says
//! what was not.

use std::fs;

use overstory_swarm::legacy::Status;
use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::logged;

use super::client::Legacy;
use super::rig::{Records, dump_bytes, get_all, instance, record_bytes, records};

const RECORDS: u64 = 60;

fn with_files(files: &[(&str, Vec<u8>)]) -> NodeInstance {
    let node = instance();
    fs::create_dir(node.path("data")).unwrap();
    for (name, bytes) in files {
        fs::write(node.path("data").join(name), bytes).unwrap();
    }
    node
}

/// All of `found` is in `all`; says how many are not.
fn missing(all: &Records, found: &Records) -> usize {
    assert!(found.iter().all(|(key, value)| all.get(key) == Some(value)), "what is served was dumped so");
    all.len() - found.len()
}

#[test]
fn truncated_files_give_what_is_whole() {
    let all = records(0..RECORDS, 3);
    let whole = dump_bytes(&all);
    let padding = whole.iter().rev().take_while(|byte| **byte == 0).count();
    let last = record_bytes(RECORDS - 1, &all[&(RECORDS - 1)]).len();
    let records_end = whole.len() - padding;
    // Name, bytes left, records that are lost.
    let cuts = [
        ("no-padding", records_end + 8, 0),
        ("no-end-mark", records_end, 0),
        ("half-an-end-mark", records_end + 5, 0),
        ("half-a-value", records_end - 3, 1),
        ("half-a-length", records_end - last + 28, 1),
        ("half-a-key", records_end - last + 15, 1),
        ("half-a-key-length", records_end - last + 3, 1),
        ("version-only", 8, all.len()),
    ];
    let mut files: Vec<(String, Vec<u8>)> =
        cuts.iter().map(|(name, length, _)| (format!("{name}.tcm"), whole[..*length].to_vec())).collect();
    files.push(("whole.tcm".to_owned(), whole.clone()));
    files.push(("empty.tcm".to_owned(), Vec::new()));
    files.push(("half-a-version.tcm".to_owned(), whole[..5].to_vec()));
    // A file of which nothing can be used is replaced by the one before it, one that is cut is not.
    files.push(("replaced.tcm".to_owned(), Vec::new()));
    files.push(("replaced.tcm.backup".to_owned(), whole.clone()));
    files.push(("half-a-value.tcm.backup".to_owned(), whole.clone()));
    files.push(("lone.tcm.backup".to_owned(), whole.clone()));
    files.push(("whole.tcm.Ab3dE9.dumping".to_owned(), whole[..700].to_vec()));
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let node = with_files(&files);
    let process = node.start();
    for (name, _, lost) in cuts {
        assert_eq!(missing(&all, &get_all(&node, name)), lost, "{name}");
    }
    for name in ["whole", "replaced"] {
        assert_eq!(missing(&all, &get_all(&node, name)), 0, "{name}");
    }
    for (name, _, lost) in cuts.iter().filter(|(_, _, lost)| (1..all.len()).contains(lost)) {
        let said = logged(&node, &format!("{name}.tcm "), "not all of it usable");
        assert!(said.contains(" Warn ") && said.contains("cut=1") && said.contains("records=59"), "{lost}: {said}");
    }
    logged(&node, "half-a-value.tcm ", "the backup may hold what is missing");
    logged(&node, "empty.tcm", "the file is empty");
    logged(&node, "half-a-version.tcm", "less than the 8 of the version number");
    logged(&node, "replaced", "loading the backup in place of the unusable dump");
    logged(&node, "lone.tcm.backup", "a backup whose dump is gone");
    logged(&node, "whole.tcm.Ab3dE9.dumping", "an unfinished dump");
    assert!(!Legacy::to(&node).channels().contains(&"lone".to_owned()));
    assert!(node.metric("overstory_node_load_rejected_records").unwrap() >= 4.0);
    until("it is found", || node.metric("overstory_node_finding_state{check=\"load\"}").is_some());
    assert_eq!(process.stop(), Some(0));
    assert_eq!(fs::read(node.path("data/lone.tcm.backup")).unwrap(), whole, "nobody touched it");
}

#[test]
fn flipped_and_oversized_files_lose_what_is_damaged_and_no_more() {
    const HUGE: [u8; 8] = (1u64 << 63).to_le_bytes();
    const MOST: [u8; 8] = u64::MAX.to_le_bytes();
    let all = records(0..RECORDS, 5);
    let whole = dump_bytes(&all);
    // The record that is damaged, in the middle.
    let at = 8 + (0..20).map(|key| record_bytes(key, &all[&key]).len()).sum::<usize>();
    let changed = |offset: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    };
    let flipped = |offset: usize, bit: u8| changed(offset, &[whole[offset] ^ 1 << bit]);
    let damaged = [
        ("huge-key", changed(at, &HUGE)),
        ("huge-value", changed(at + 24, &HUGE)),
        ("most-key", changed(at, &MOST)),
        ("most-value", changed(at + 24, &MOST)),
        ("flipped-key-length", flipped(at, 1)),
        ("flipped-key-length-high", flipped(at + 7, 7)),
        ("flipped-value-length", flipped(at + 24, 0)),
        ("flipped-value-length-high", flipped(at + 30, 3)),
        ("key-of-letters", changed(at + 8, b"zz")),
        ("zeros", changed(at, &[0; 32])),
        ("random", changed(at, &[0xa7; 300])),
    ];
    let mut files: Vec<(String, Vec<u8>)> =
        damaged.iter().map(|(name, bytes)| (format!("{name}.tcm"), bytes.clone())).collect();
    files.push(("other-version.tcm".to_owned(), changed(0, &[1])));
    files.push(("text.tcm".to_owned(), b"this is no dump file at all, whatever its name says".to_vec()));
    files.push(("a b.tcm".to_owned(), whole.clone()));
    files.push(("notes.txt".to_owned(), whole.clone()));
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let node = with_files(&files);
    fs::create_dir(node.path("data/folder.tcm")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", node.path("data/gone.tcm")).unwrap();
    let process = node.start();
    for (name, _) in &damaged {
        let lost = missing(&all, &get_all(&node, name));
        assert!((1..=4).contains(&lost), "{name}: {lost} records lost");
    }
    for (name, _) in &damaged {
        let said = logged(&node, &format!("{name}.tcm "), "not all of it usable");
        assert!(said.contains(" Warn ") && said.contains("rejected"), "{said}");
    }
    assert!(logged(&node, "key-of-letters.tcm ", "not all").contains("bad_keys=1"));
    assert!(logged(&node, "huge-value.tcm ", "not all").contains("damaged=1"));
    logged(&node, "other-version.tcm", "unsupported version 1");
    logged(&node, "text.tcm", "unsupported version");
    logged(&node, "a b.tcm", "not the name of a channel");
    logged(&node, "notes.txt", "another kind of file");
    logged(&node, "folder.tcm", "a directory");
    logged(&node, "gone.tcm", "dump not loaded");
    // A foreign file never becomes a channel, and no dump takes its place.
    let channels = Legacy::to(&node).channels();
    assert_eq!(channels.len(), damaged.len(), "{channels:?}");
    assert_eq!(process.stop(), Some(0));
    assert_eq!(fs::read(node.path("data/other-version.tcm")).unwrap(), changed(0, &[1]));
    assert_eq!(fs::read(node.path("data/notes.txt")).unwrap(), whole);
    // What was dumped now is whole.
    let process = node.start();
    assert!(get_all(&node, "huge-key").len() >= 56);
    process.kill();
}

#[test]
fn values_that_may_not_be_are_left_out_and_counted() {
    let all = records(0..10, 1);
    let mut file = dump_bytes(&all);
    let end = 8 + all.iter().map(|(key, value)| record_bytes(*key, value).len()).sum::<usize>();
    file.truncate(end);
    file.extend(record_bytes(100, b""));
    file.extend(record_bytes(101, &vec![7; 65_537]));
    file.extend(record_bytes(102, &vec![7; 65_536]));
    // A raw key, as old writers made them, and a key twice: the later one holds.
    file.extend([&8u64.to_le_bytes()[..], &103u64.to_le_bytes(), &3u64.to_le_bytes(), b"raw"].concat());
    file.extend(record_bytes(3, b"later"));
    file.extend([0; 8]);
    let node = with_files(&[("c.tcm", file)]);
    let process = node.start();
    let found = get_all(&node, "c");
    assert_eq!((found.len(), found[&103].as_slice(), found[&3].as_slice()), (11, &b"raw"[..], &b"later"[..]));
    assert_eq!(Legacy::to(&node).get("c", 102).len(), 65_536, "too long for a batch, not for a Get");
    let said = logged(&node, "c.tcm ", "not all of it usable");
    assert!(said.contains("empty_values=1 too_large=1") && !said.contains("damaged"), "{said}");
    process.kill();
}

#[test]
fn records_out_of_the_range_are_loaded_ignored_or_fatal() {
    // Odd keys have positions in the upper half.
    let all = records(0..RECORDS, 1);
    let odd = u64::try_from(all.keys().filter(|key| *key % 2 == 1).count()).unwrap();
    let node = with_files(&[("c.tcm", dump_bytes(&all))]);
    node.set("Server", "maxval", "7fffffffffffffff");
    let process = node.start();
    let mut client = Legacy::to(&node);
    assert_eq!(client.size(), RECORDS, "load is the default");
    assert_eq!(client.put("c", 1, b"x"), Status::WrongNode);
    process.kill();

    node.set("Options_Memory", "allow_out_of_range", "fatal");
    assert_eq!(node.launch().ended(), Some(1));
    assert!(node.log().contains("(allow_out_of_range = fatal)"), "{}", node.log());
    assert_eq!(fs::read(node.path("data/c.tcm")).unwrap(), dump_bytes(&all), "no dump took its place");

    node.set("Options_Memory", "allow_out_of_range", "ignore");
    let process = node.start();
    assert_eq!(Legacy::to(&node).size(), RECORDS - odd);
    logged(&node, "- loaded", &format!("out_of_range={odd} "));
    process.kill();

    // All records out of the range, and more than it takes to be an accident.
    let only_odd: Records = all.into_iter().filter(|(key, _)| key % 2 == 1).collect();
    fs::write(node.path("data/c.tcm"), dump_bytes(&only_odd)).unwrap();
    node.set("Options_Memory", "abort_after_all_out_of_range", "5");
    assert_eq!(node.launch().ended(), Some(1));
    assert!(node.log().contains("(abort_after_all_out_of_range)"), "{}", node.log());
    assert_eq!(fs::read(node.path("data/c.tcm")).unwrap(), dump_bytes(&only_odd));
    node.set("Options_Memory", "abort_after_all_out_of_range", "0");
    let process = node.start();
    assert_eq!(Legacy::to(&node).size(), 0);
    process.kill();
}

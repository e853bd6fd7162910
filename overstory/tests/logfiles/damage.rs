//! A data directory that somebody else changes while the node runs: it is told, and the node goes on.

use std::fs;

use overstory_swarm::legacy::Status;
use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::{finding, logged};

use super::client::{Legacy, Neo, Record};
use super::rig::{Mode, check, instance};

fn records(buckets: u64) -> Vec<Record> {
    (0..buckets * 16).map(|number| (number << 8, format!("record {number} {:0100}", number * 7).into_bytes())).collect()
}

fn started_with(channels: &[&str]) -> (NodeInstance, overstory_testkit::node::NodeProcess) {
    let node = instance(Mode::Always);
    let process = node.start();
    let mut client = Legacy::to(&node);
    channels.iter().for_each(|channel| client.put_all(channel, &records(10)));
    (node, process)
}

#[test]
fn bits_that_flip_under_a_running_node_are_found_told_and_mended_by_the_checker() {
    let (node, process) = started_with(&["c", "v2_c", "whole"]);
    for channel in ["c", "v2_c"] {
        let path = node.path(&format!("data/{channel}/0000000000/003"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        for byte in &mut bytes[middle..middle + 20] {
            *byte ^= 0xff;
        }
        fs::write(&path, &bytes).unwrap();
    }
    let mut client = Legacy::to(&node);
    let mut neo = Neo::to(&node);
    for (id, channel) in [(1, "c"), (2, "v2_c")] {
        let intact = client.all(channel);
        // What the block or the record was in is missing; the buckets beside it are not.
        assert!((144..=160).contains(&intact.len()), "{}", intact.len());
        assert_eq!(neo.get_range(id, channel, 0, i64::MAX), intact);
    }
    assert!(client.all("v2_c").iter().all(|record| records(10).contains(record)), "nothing that is wrong is given");
    assert_eq!(client.all("whole"), records(10));
    logged(&node, "v2_c", "a bucket is damaged");
    until("it is found", || finding(&node, "corruption") == Some(2.0));
    assert_eq!(check(&node, &[]).0, 1, "also told while the node runs");
    assert_eq!(check(&node, &["--salvage", "--write"]).0, 4, "who writes waits until the node has ended");
    assert_eq!(process.stop(), Some(0));
    let (code, said) = check(&node, &["--salvage", "--write"]);
    assert_eq!(code, 3, "{said}");
    assert_eq!(check(&node, &[]).0, 0);
    let process = node.start();
    let mut client = Legacy::to(&node);
    let (mut count, mut bytes) = (0, 0);
    for channel in ["c", "v2_c", "whole"] {
        let there = client.all(channel);
        let size = there.iter().map(|(_, value)| value.len() as u64).sum();
        // What has changed while the node was away is counted beside the requests.
        until("all of it is counted", || client.channel_size(channel) == (there.len() as u64, size));
        (count, bytes) = (count + there.len() as u64, bytes + size);
    }
    assert_eq!(client.size(), (count, bytes), "counted exactly");
    assert!(finding(&node, "corruption").is_none());
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn files_that_are_cut_or_taken_away_under_a_running_node_cost_what_was_in_them() {
    let (node, process) = started_with(&["c", "whole"]);
    let path = |bucket| node.path(&format!("data/c/0000000000/{bucket}"));
    fs::OpenOptions::new().write(true).open(path("002")).unwrap().set_len(500).unwrap();
    fs::write(path("004"), b"").unwrap();
    fs::remove_file(path("006")).unwrap();
    let mut client = Legacy::to(&node);
    let there = client.all("c");
    assert!(there.iter().all(|record| records(10).contains(record)));
    assert!((112..128).contains(&there.len()), "{}", there.len());
    assert_eq!(client.all("whole"), records(10));
    // It writes on, also into those buckets.
    for bucket in [2u64, 4, 8] {
        assert_eq!(client.put("c", (bucket << 12) + 0xfff, b"new"), Status::Ok);
    }
    assert_eq!(client.all("whole"), records(10));
    process.kill();
    let process = node.start();
    let mut client = Legacy::to(&node);
    let there = client.all("c");
    assert!(there.iter().all(|record| records(10).contains(record) || record.1 == b"new"));
    for bucket in [2u64, 4, 8] {
        assert!(there.contains(&((bucket << 12) + 0xfff, b"new".to_vec())), "{bucket}");
    }
    assert_eq!(client.all("whole"), records(10));
    assert_eq!(process.stop(), Some(0));
    assert!(!node.log().contains(" Fatal "), "{}", node.log());
}

#[test]
fn a_directory_that_cannot_be_used_refuses_the_puts_into_it_and_no_others_until_it_can() {
    let (node, process) = started_with(&["c", "whole"]);
    fs::rename(node.path("data/c"), node.path("data/away")).unwrap();
    fs::write(node.path("data/c"), b"in its place").unwrap();
    let mut client = Legacy::to(&node);
    let far = 1 << 50;
    // Nobody can say that this one is durable: its connection ends without an answer.
    let mut unanswered = Legacy::to(&node);
    unanswered.send_put("c", far, b"waits");
    assert!(unanswered.try_read_status().is_err());
    until("it is found", || finding(&node, "bucket") == Some(3.0));
    assert_ne!(client.put("c", far, b"refused"), Status::Ok);
    assert_eq!(client.put("whole", far, b"taken"), Status::Ok);
    assert_eq!(client.all("whole").len(), 161);
    assert!(client.all("c").iter().all(|record| records(10).contains(record) || record.0 == far));
    fs::remove_file(node.path("data/c")).unwrap();
    fs::rename(node.path("data/away"), node.path("data/c")).unwrap();
    until("it goes on", || client.put("c", far, b"taken again") == Status::Ok);
    until("nothing is found", || finding(&node, "bucket").is_none());
    // What waited was not lost.
    assert_eq!(client.all("c").len(), 162);
    assert_eq!(process.stop(), Some(0));
    let process = node.start();
    assert_eq!(Legacy::to(&node).all("c").len(), 162);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_catalogue_that_is_damaged_or_gone_costs_nothing() {
    let (node, process) = started_with(&["c", "v2_c"]);
    assert_eq!(process.stop(), Some(0));
    let file = node.path("data/.catalogue");
    let whole = fs::read(&file).unwrap();
    for damage in 0..4 {
        match damage {
            0 => fs::remove_file(&file).unwrap(),
            1 => fs::write(&file, &whole[..whole.len() / 2]).unwrap(),
            2 => fs::write(&file, b"").unwrap(),
            _ => {
                let mut bytes = fs::read(&file).unwrap();
                bytes.iter_mut().skip(40).step_by(29).for_each(|byte| *byte ^= 0x11);
                fs::write(&file, bytes).unwrap();
            }
        }
        let process = node.start();
        let mut client = Legacy::to(&node);
        for channel in ["c", "v2_c"] {
            assert_eq!(client.all(channel), records(10), "{damage}");
        }
        until("all is counted", || client.size().0 == 320);
        assert_eq!(process.stop(), Some(0));
        assert_eq!(check(&node, &[]).0, 0);
    }
}

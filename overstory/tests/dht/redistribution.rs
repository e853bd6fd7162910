//! Nodes that are killed while records move between them under load: the redistribution is finished by asking for it
//! again, and nothing is lost or doubled.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request;
use overstory_testkit::node::{NodeInstance, PATIENCE, until};
use overstory_testkit::trouble::{random, some_microseconds};

use super::client::Legacy;
use super::rig::{generation, get_all, instance, put_all, read_dump, records, value};

const RECORDS: u64 = 8000;
const CHANNEL: &str = "c";

/// A node with all keys and dumped records, an empty one, and the file that names both.
fn two_nodes() -> (NodeInstance, NodeInstance) {
    let (old, new) = (instance(), instance());
    new.set("Server", "minval", "ffffffffffffffff").set("Server", "maxval", "0000000000000000");
    let process = old.start();
    put_all(&old, CHANNEL, &records(0..RECORDS, 0));
    assert_eq!(process.stop(), Some(0));
    fs::write(old.path("nodes"), format!("{}\n{}\n", old.legacy, new.legacy)).unwrap();
    (old, new)
}

const TOOL: [&str; 3] = ["-S", "nodes", "-x"];

/// A random part of what has to move has arrived.
fn await_part(new: &NodeInstance) {
    let part = 1 + random(RECORDS / 3);
    let mut client = Legacy::to(new);
    until("records move", || client.size() >= part);
    some_microseconds(2000);
}

/// Each record is at the node that is responsible for it, and nowhere else.
fn check_places(old: &NodeInstance, new: &NodeInstance) -> BTreeMap<u64, Vec<u8>> {
    assert_eq!((Legacy::to(old).range(), Legacy::to(new).range()), ((0, u64::MAX / 2), (u64::MAX / 2 + 1, u64::MAX)));
    let (mut at_old, at_new) = (get_all(old, CHANNEL), get_all(new, CHANNEL));
    assert!(at_old.keys().all(|key| key % 2 == 0), "even keys are in the lower half");
    assert!(at_new.keys().all(|key| key % 2 == 1), "odd keys are in the upper half");
    at_old.extend(at_new);
    assert_eq!(at_old.keys().copied().collect::<Vec<_>>(), (0..RECORDS).collect::<Vec<_>>());
    at_old
}

/// Runs the tool until it is done, as often as it takes.
fn finish(old: &NodeInstance) {
    let mut said = String::new();
    for _ in 0..3 {
        let done = old.run("dhtredist", &TOOL);
        said += &String::from_utf8_lossy(&done.stdout);
        said += &String::from_utf8_lossy(&done.stderr);
        if done.status.success() {
            assert!(!old.path("nodes.redistribution").exists(), "the plan is kept only until it is done");
            return;
        }
    }
    panic!("it cannot be finished: {said}");
}

/// A client that puts new values without end, first to the new node and, if that refuses, to the old one; what was
/// taken, and by whom.
fn write_on(old: &NodeInstance, new: &NodeInstance, over: &AtomicBool) -> [BTreeMap<u64, u32>; 2] {
    let mut taken = [BTreeMap::new(), BTreeMap::new()];
    let mut links: [Option<TcpStream>; 2] = [None, None];
    let mut generation = 0;
    'next: while !over.load(Ordering::Relaxed) {
        generation += 1;
        let key = random(RECORDS);
        for (index, node) in [new, old].into_iter().enumerate() {
            match put(node, &mut links[index], key, generation) {
                Some(200) => {
                    taken[index].insert(key, generation);
                    continue 'next;
                }
                Some(status) => assert_eq!(status, 404, "a node takes a record or is not responsible"),
                None => {}
            }
        }
    }
    taken
}

/// Puts one value; nothing if the node is away.
fn put(node: &NodeInstance, link: &mut Option<TcpStream>, key: u64, generation: u32) -> Option<i32> {
    if link.is_none() {
        *link = TcpStream::connect(node.legacy).ok();
        link.as_ref()?.set_read_timeout(Some(PATIENCE)).ok()?;
    }
    let mut bytes = Vec::new();
    let (hex, value) = (Key(key).hex16(), value(key, generation));
    Request::Put { channel: CHANNEL.as_bytes(), key: &hex, value: &value }.encode(&mut bytes);
    let mut status = [0; 4];
    let stream = link.as_mut()?;
    match stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut status)) {
        Ok(()) => Some(i32::from_le_bytes(status)),
        Err(_) => {
            *link = None;
            None
        }
    }
}

#[test]
fn the_sending_node_is_killed_under_load() {
    let (old, new) = two_nodes();
    let new_process = new.start();
    let old_process = old.start();
    let over = AtomicBool::new(false);
    let ([taken, _], old_process) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&old, &new, &over));
        let tool = old.spawn("dhtredist", &TOOL);
        await_part(&new);
        old_process.kill();
        // The tool may wait for the node or give up; whichever, it has kept its plan.
        let old_process = old.start();
        assert_eq!(Legacy::to(&old).range(), (0, u64::MAX / 2), "the new range was in the configuration first");
        if random(2) == 0 {
            tool.kill();
        } else {
            let _ = tool.ended();
        }
        finish(&old);
        over.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), old_process)
    });
    let found = check_places(&old, &new);
    assert!(!taken.is_empty());
    for (key, stored) in &found {
        let (stored, taken) = (generation(*key, stored), taken.get(key).copied().unwrap_or(0));
        assert!(stored >= taken, "key {key} has value {stored}, though the new node had taken {taken}");
    }
    assert_eq!((old_process.stop(), new_process.stop()), (Some(0), Some(0)));
    // And so it is after a restart of both.
    let (old_process, new_process) = (old.start(), new.start());
    assert!(check_places(&old, &new) == found);
    drop((old_process, new_process));
}

#[test]
fn all_is_killed_at_once() {
    let (old, new) = two_nodes();
    for _ in 0..2 {
        let (old_process, new_process) = (old.start(), new.start());
        let tool = old.spawn("dhtredist", &TOOL);
        await_part(&new);
        old_process.kill();
        new_process.kill();
        tool.kill();
        assert_eq!(read_dump(&old.path("data/c.tcm")).len() as u64, RECORDS);
    }
    let (old_process, new_process) = (old.start(), new.start());
    finish(&old);
    let found = check_places(&old, &new);
    assert!(found == records(0..RECORDS, 0), "every record of the last complete dump, once");
    assert_eq!((old_process.stop(), new_process.stop()), (Some(0), Some(0)));
    assert_eq!(read_dump(&old.path("data/c.tcm")).len() as u64, RECORDS / 2);
    assert_eq!(read_dump(&new.path("data/c.tcm")).len() as u64, RECORDS / 2);
}

#[test]
fn the_receiving_node_is_killed_before_it_has_dumped() {
    let (old, new) = two_nodes();
    let (old_process, new_process) = (old.start(), new.start());
    let tool = old.spawn("dhtredist", &TOOL);
    await_part(&new);
    new_process.kill();
    let new_process = new.start();
    assert!(matches!(tool.ended(), Some(0 | 1)));
    finish(&old);
    // What the new node had taken and not dumped is gone with it, as after any crash. The dump of the old node, which
    // has not dumped since, has it still: started from that, it sends everything again.
    old_process.kill();
    let old_process = old.start();
    let to_new = (new.legacy, u64::MAX / 2 + 1, u64::MAX);
    assert_eq!(Legacy::to(&old).redistribute((0, u64::MAX / 2), &[to_new]), Status::Ok);
    assert!(check_places(&old, &new) == records(0..RECORDS, 0));
    drop((old_process, new_process));
}

#[test]
fn both_are_stopped_in_the_middle_and_nothing_acknowledged_is_lost() {
    let (old, new) = two_nodes();
    let (mut newest, mut moved) = (BTreeMap::new(), false);
    for _ in 0..4 {
        let (old_process, new_process) = (old.start(), new.start());
        let over = AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&old, &new, &over));
            let mut tool = old.spawn("dhtredist", &TOOL);
            if moved {
                some_microseconds(100_000);
            } else {
                await_part(&new);
                moved = true;
            }
            // The old one first: it may be waiting for the new one to answer.
            old_process.signal("-TERM");
            assert_eq!(old_process.ended(), Some(0));
            assert_eq!(new_process.stop(), Some(0));
            over.store(true, Ordering::Relaxed);
            assert!(tool.is_running() || tool.ended().is_some());
            writer.join().unwrap()
        });
        // Generations of a later round begin anew; what matters is what each key had at the end of this one.
        for (key, generation) in taken.into_iter().flatten() {
            newest.entry(key).and_modify(|known: &mut u32| *known = generation.max(*known)).or_insert(generation);
        }
        let dumps = [read_dump(&old.path("data/c.tcm")), read_dump(&new.path("data/c.tcm"))];
        for (key, wanted) in std::mem::take(&mut newest) {
            let found = dumps.iter().filter_map(|dump| dump.get(&key)).map(|stored| generation(key, stored)).max();
            assert!(found.is_some_and(|found| found >= wanted), "key {key}: {wanted} was taken, {found:?} was saved");
        }
    }
    let (old_process, new_process) = (old.start(), new.start());
    finish(&old);
    check_places(&old, &new);
    drop((old_process, new_process));
}

#[test]
fn a_node_that_is_killed_while_its_range_changes_has_one_or_the_other() {
    let node = instance();
    let ranges = [(0, u64::MAX), (0, u64::MAX / 2), (u64::MAX / 2, u64::MAX), (7, 1 << 60)];
    for round in 0..15 {
        let process = node.start();
        let over = AtomicBool::new(false);
        let (told, last) = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let (mut told, mut asked) = (None, 0);
                while !over.load(Ordering::Relaxed) {
                    asked += 1;
                    match change(&node, ranges[asked % ranges.len()]) {
                        Some(200) => told = Some(asked),
                        Some(status) => panic!("status {status}"),
                        None => break,
                    }
                }
                (told, asked)
            });
            some_microseconds(20_000 + round);
            process.kill();
            over.store(true, Ordering::Relaxed);
            client.join().unwrap()
        });
        let process = node.start();
        let found = Legacy::to(&node).range();
        // What was acknowledged last, or what was asked for then.
        let possible = [told, Some(last)].into_iter().flatten().map(|asked| ranges[asked % ranges.len()]);
        assert!(told.is_none() || possible.into_iter().any(|range| range == found), "{told:?} {last}: {found:x?}");
        let text = node.text("etc/config.ini");
        assert!(text.contains("[Options_Memory]") && text.contains("interval = 1"), "{text}");
        process.kill();
    }
}

/// Asks for a change of the range; the status, or nothing if the node is gone.
fn change(node: &NodeInstance, (min, max): (u64, u64)) -> Option<i32> {
    let mut stream = TcpStream::connect(node.legacy).ok()?;
    let mut bytes = 33i32.to_le_bytes().to_vec();
    bytes.extend([min.to_le_bytes(), max.to_le_bytes(), [0; 8]].concat());
    let mut status = [0; 4];
    stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut status)).ok()?;
    Some(i32::from_le_bytes(status))
}

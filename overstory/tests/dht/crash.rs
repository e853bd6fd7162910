//! `kill -9` in every phase of a node's life: what the last complete dump holds is there afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::{logged, random, some_microseconds};

use super::client::Legacy;
use super::rig::{Records, await_dump, generation, get_all, instance, put_all, read_dump, records, unfinished};

const CHANNELS: u64 = 60;
const RECORDS: u64 = 40;

fn name(channel: u64) -> String {
    format!("channel-{channel:02}")
}

fn put_everywhere(node: &NodeInstance, generation: u32) {
    let mut client = Legacy::to(node);
    for channel in 0..CHANNELS {
        client.put_all(&name(channel), &records(0..RECORDS, generation));
    }
}

/// The complete dumps that lie in the directory.
fn dumps(node: &NodeInstance) -> BTreeMap<String, Records> {
    let names = (0..CHANNELS).map(name);
    names.map(|name| (name.clone(), read_dump(&node.path(&format!("data/{name}.tcm"))))).collect()
}

/// Each channel's file holds one generation, a whole one, and never an older one than before.
fn check_generations(node: &NodeInstance, oldest: &mut [u32], newest: u32) {
    for (channel, oldest) in (0..CHANNELS).zip(oldest) {
        let dump = read_dump(&node.path(&format!("data/{}.tcm", name(channel))));
        assert_eq!(dump.len() as u64, RECORDS);
        let generations: Vec<u32> = dump.iter().map(|(key, value)| generation(*key, value)).collect();
        assert!(generations.iter().all(|found| (*oldest..=newest).contains(found)), "{oldest}: {generations:?}");
        *oldest = *generations.iter().min().unwrap();
    }
}

#[test]
fn killed_anywhere_in_the_last_dump_nothing_of_a_complete_dump_is_lost() {
    let node = instance();
    let process = node.start();
    put_everywhere(&node, 0);
    assert_eq!(process.stop(), Some(0));
    let mut oldest = vec![0; usize::try_from(CHANNELS).unwrap()];
    let mut cut_off = 0;
    for round in 1..=25 {
        let mut process = node.start();
        put_everywhere(&node, round);
        process.signal("-TERM");
        await_dump(&node, &name(random(CHANNELS)), || !process.is_running());
        some_microseconds(3000);
        process.kill();
        check_generations(&node, &mut oldest, round);
        let (before, left_behind) = (dumps(&node), unfinished(&node));
        cut_off += usize::from(!left_behind.is_empty());
        let process = node.start();
        for (channel, records) in &before {
            assert!(get_all(&node, channel) == *records, "{channel} is what its dump says");
        }
        assert_eq!(Legacy::to(&node).size(), CHANNELS * RECORDS);
        for file in &left_behind {
            let line = logged(&node, file, "ignored in the data directory");
            assert!(line.contains(" Warn ") && line.contains("an unfinished dump"), "{line}");
            std::fs::remove_file(node.path("data").join(file)).unwrap();
        }
        process.kill();
        assert_eq!(dumps(&node).len(), before.len(), "a node that is killed while it serves changes no file");
    }
    assert!(cut_off > 0, "no round left an unfinished file behind");
}

#[test]
fn killed_in_a_periodic_dump_under_load_each_record_is_whole() {
    let node = instance();
    let process = node.start();
    put_everywhere(&node, 0);
    assert_eq!(process.stop(), Some(0));
    node.set("Dump", "period_s", "1");
    let mut oldest = vec![0; usize::try_from(CHANNELS).unwrap()];
    for round in 1..=3 {
        let process = node.start();
        put_everywhere(&node, round * 10);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut generation = round * 10;
                while !over.load(Ordering::Relaxed) && generation < round * 10 + 9 {
                    generation += 1;
                    put_while_alive(&node, generation);
                }
            });
            await_dump(&node, &name(random(CHANNELS)), || false);
            some_microseconds(3000);
            process.kill();
            over.store(true, Ordering::Relaxed);
        });
        check_generations(&node, &mut oldest, round * 10 + 9);
        let before = dumps(&node);
        let process = node.start();
        for (channel, records) in &before {
            assert!(get_all(&node, channel) == *records, "{channel} is what its dump says");
        }
        process.kill();
    }
}

/// Puts a generation to all channels until the node is gone.
fn put_while_alive(node: &NodeInstance, generation: u32) {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use overstory_swarm::key::Key;
    use overstory_swarm::legacy::dht::Request;
    let Ok(mut stream) = TcpStream::connect(node.legacy) else { return };
    for channel in 0..CHANNELS {
        let (mut bytes, channel) = (Vec::new(), name(channel));
        let records = records(0..RECORDS, generation);
        for (key, value) in &records {
            Request::Put { channel: channel.as_bytes(), key: &Key(*key).hex16(), value }.encode(&mut bytes);
        }
        let mut statuses = vec![0; records.len() * 4];
        if stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut statuses)).is_err() {
            return;
        }
    }
}

#[test]
fn killed_while_it_loads_the_files_are_as_they_were() {
    let node = instance();
    let process = node.start();
    let kept = records(0..30_000, 1);
    put_all(&node, "large", &kept);
    put_everywhere(&node, 0);
    assert_eq!(process.stop(), Some(0));
    let before = std::fs::read(node.path("data/large.tcm")).unwrap();
    for round in 0..6 {
        std::fs::remove_file(node.path("log/root.log")).unwrap();
        let process = node.launch();
        until("it begins to load", || node.log().contains("listening"));
        some_microseconds(150_000);
        if round % 2 == 0 {
            process.kill();
        } else {
            // Asked to stop in the middle of the load, it must not save what it has not loaded.
            assert_eq!(process.stop(), Some(0));
        }
        assert!(unfinished(&node).is_empty());
        assert_eq!(read_dump(&node.path("data/large.tcm")).len(), kept.len());
    }
    let process = node.start();
    assert!(get_all(&node, "large") == kept);
    assert_eq!(Legacy::to(&node).size(), kept.len() as u64 + CHANNELS * RECORDS);
    process.kill();
    let after = std::fs::read(node.path("data/large.tcm")).unwrap();
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_channel_that_is_removed_while_it_is_dumped_does_not_come_back() {
    let node = instance();
    for round in 0..4 {
        let channel = format!("goes-{round}");
        node.set("Dump", "period_s", "0");
        let process = node.start();
        put_all(&node, &channel, &records(0..10_000, round));
        put_all(&node, "stays", &records(0..10, round));
        assert_eq!(process.stop(), Some(0));
        node.set("Dump", "period_s", "1");
        let process = node.start();
        await_dump(&node, &channel, || false);
        some_microseconds(5000);
        let remove = overstory_swarm::legacy::dht::Request::RemoveChannel { channel: channel.as_bytes() };
        assert_eq!(Legacy::to(&node).ask(&remove), overstory_swarm::legacy::Status::Ok);
        some_microseconds(5000);
        process.kill();
        assert!(!node.path(&format!("data/{channel}.tcm")).exists());
        let process = node.start();
        assert_eq!(Legacy::to(&node).channels(), ["stays"]);
        process.kill();
        unfinished(&node).iter().for_each(|file| std::fs::remove_file(node.path("data").join(file)).unwrap());
    }
}

//! Many connections, many channels, slow consumers, values of every size: memory stays within what is configured and
//! a stated overhead.

use std::collections::BTreeSet;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use overstory_replay::Connection;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request;
use overstory_testkit::node::until;

use super::client::{Legacy, Neo};
use super::rig::{Mode, instance};

/// KiB of memory that a channel with one small value may take.
const OF_A_CHANNEL: u64 = 2;
/// MiB of memory beside the queues: values that are being read, written and sent, and what the allocator keeps of that;
/// four times the largest value.
const OF_LARGE_VALUES: u64 = 40;
/// KiB of memory that a connection with nothing under way may take.
const OF_A_CONNECTION: u64 = 6;

#[test]
fn ten_thousand_channels_and_five_thousand_connections_cost_little() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(6000.min(hard)), hard).unwrap();
    let node = instance(Mode::Memory, 100_000_000);
    let process = node.start();
    let mut client = Legacy::to(&node);
    assert_eq!(client.push("warm", b"up"), Status::Ok);
    let empty = process.pss_kib();
    for from in (0..10_000).step_by(250) {
        let mut bytes = Vec::new();
        for n in from..from + 250 {
            Request::Push { channel: format!("channel-{n:05}").as_bytes(), value: b"value" }.encode(&mut bytes);
        }
        client.send(&bytes);
        (0..250).for_each(|_| assert_eq!(client.read_status(), Status::Ok));
    }
    let channels = process.pss_kib();
    assert!(channels < empty + 10_000 * OF_A_CHANNEL, "{empty} KiB, with channels {channels} KiB");

    // Half of them wait for values of a channel each.
    let mut consumers: Vec<Legacy> = Vec::new();
    let mut silent: Vec<Connection> = Vec::new();
    for n in 0..2450 {
        let mut consumer = Legacy::to(&node);
        consumer.consume(&format!("channel-{n:05}"));
        assert_eq!(consumer.read_array(), b"value");
        consumers.push(consumer);
        silent.push(Connection::open(node.legacy));
    }
    until("all are accepted", || node.metric("overstory_node_connections{protocol=\"legacy\"}") == Some(4901.0));
    let connections = process.pss_kib();
    println!(
        "{empty} KiB empty, {channels} KiB with 10,000 channels, {connections} KiB with 4,900 connections and 2,450 consumers"
    );
    assert!(connections < channels + 4900 * OF_A_CONNECTION, "{channels} KiB, with connections {connections} KiB");
    for n in (0..2450).rev() {
        let channel = format!("channel-{n:05}");
        assert_eq!(client.push(&channel, b"again"), Status::Ok);
    }
    consumers.iter_mut().for_each(|consumer| assert_eq!(consumer.read_array(), b"again"));
    assert_eq!(client.size(), 10_000 - 2450 + 1);
    drop(consumers);
    drop(silent);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_slow_consumer_costs_the_fast_ones_nothing_and_the_node_no_more_than_its_queue() {
    let node = instance(Mode::Overflow, 4_000_000);
    let process = node.start();
    let mut consumer = Neo::to(&node);
    for (id, subscriber) in [(1, "slow"), (2, "fast")] {
        consumer.consume(id, "c", subscriber);
    }
    let before = process.pss_kib();
    let mut slow = consumer;
    slow.message(2, &[2]);
    assert_eq!(slow.read(2), [4]);
    let mut older = Legacy::to(&node);
    older.consume("other");
    let (count, size) = (30_000_u32, 1000);
    let got = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut fast = Neo::to(&node);
            fast.consume(1, "c", "fast");
            let mut numbers = Vec::new();
            while numbers.len() < count as usize {
                let batch = fast.batch(1);
                numbers.extend(batch.iter().map(|value| u32::from_le_bytes(value[..4].try_into().unwrap())));
                fast.message(1, &[1]);
            }
            numbers
        });
        let mut client = Legacy::to(&node);
        for from in (0..count).step_by(100) {
            let value = |n: u32| [&n.to_le_bytes()[..], &vec![0; size - 4]].concat();
            client.push_all("c", &(from..from + 100).map(value).collect::<Vec<_>>());
        }
        reading.join().unwrap()
    });
    assert!(got.into_iter().eq(0..count), "in order and once");
    let after = process.pss_kib();
    println!("30 MB passed a slow consumer: {before} KiB before, {after} KiB after");
    // Two queues of 4 MB, what waits for connections, and what the allocator keeps.
    assert!(after < before + 8000 + 8000, "{before} KiB before, {after} KiB after");
    // The slow one gets all of it all the same.
    let mut next = 0;
    while next < count {
        for value in slow.batch(1) {
            assert_eq!(value[..4], next.to_le_bytes());
            next += 1;
        }
        slow.message(1, &[1]);
    }
    until("all is taken", || Legacy::to(&node).size() == 0);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn values_of_every_size_come_back_as_they_were() {
    for mode in Mode::ALL {
        let node = instance(mode, 24 << 20);
        let process = node.start();
        let mut client = Legacy::to(&node);
        let before = process.pss_kib();
        let sizes = [1, 2, 7, 8, 9, 1023, 65_527, 65_528, 65_536, 1 << 20, (10 << 20) - 1, 10 << 20, 100, 1];
        let value = |n: usize| (0..sizes[n]).map(|at| u8::try_from((at * 31 + n) % 251).unwrap()).collect::<Vec<u8>>();
        for (n, size) in sizes.iter().enumerate() {
            assert_eq!(client.push("sizes", &value(n)), Status::Ok, "{size} bytes");
        }
        // Twice as much as there is memory for: with a disk that is no matter.
        let again = client.push("sizes", &value(11));
        assert_eq!(again == Status::Ok, mode != Mode::Memory, "{again:?}");
        let most = process.pss_kib();
        println!("{}: 21 MiB of values in a queue of 24 MiB: {before} KiB before, {most} KiB then", mode.name());
        assert!(most < before + ((24 + OF_LARGE_VALUES) << 10), "{before} KiB before, {most} KiB then");
        for (n, size) in sizes.iter().enumerate() {
            assert!(client.pop("sizes") == value(n), "{size} bytes");
        }
        if again == Status::Ok {
            assert!(client.pop("sizes") == value(11));
        }
        until("the memory is given back", || process.pss_kib() < before + (OF_LARGE_VALUES << 10));
        println!("{}: {} KiB when all is taken", mode.name(), process.pss_kib());
        assert_eq!(process.stop(), Some(0));
    }
}

#[test]
fn lengths_without_measure_are_refused() {
    let node = instance(Mode::Overflow, 20_000);
    let process = node.start();
    let mut witness = Legacy::to(&node);
    assert_eq!(witness.push("witness", b"x"), Status::Ok);
    let before = process.pss_kib();
    for code in [1_i32, 2, 4, 6, 9, 10, 11, 12] {
        for length in [1_u64 << 63, u64::MAX, 65 << 20] {
            let mut connection = Connection::open(node.legacy);
            connection.send(&[&code.to_le_bytes()[..], &length.to_le_bytes(), &[b'x'; 5000]].concat());
            let _ = connection.stream.shutdown(std::net::Shutdown::Write);
            let said = connection.until_closed();
            assert!(said.is_empty() || said.len() == 4, "request {code} of {length} bytes: {said:?}");
        }
    }
    for code in [0_i32, 7, 13, 14, -1, i32::MAX, i32::MIN] {
        let mut connection = Connection::open(node.legacy);
        connection.send(&code.to_le_bytes());
        assert_eq!(connection.until_closed(), b"", "code {code}");
    }
    let names: BTreeSet<&[u8]> = [&b"../x"[..], b"", b"a\0b", &[b'a'; 300], b"a/b", b".", b"a@b", b"a b"].into();
    for name in names {
        for request in [
            Request::Push { channel: name, value: b"x" },
            Request::Pop { channel: name },
            Request::Consume { channel: name },
            Request::Produce { channel: name },
            Request::RemoveChannel { channel: name },
        ] {
            let mut client = Legacy::to(&node);
            let status = client.ask(&request);
            assert_eq!(status, Status::BadChannelName, "{}: {:?}", request.name(), String::from_utf8_lossy(name));
        }
    }
    // Every control that may not come now, and every first message that is cut: others are served.
    let mut neo = Neo::to(&node);
    for (id, payload) in (1..).zip([&[1_u8, 3][..], &[1, 3, 200], &[2, 1], &[6, 4, 1], &[2, 1, 9, 9, 9]]) {
        neo.message(id, payload);
        assert_eq!(neo.read(id), [0xfd]);
        assert!(matches!(neo.read(id).as_slice(), [2 | 3]));
    }
    assert!(neo.push(99, &["witness"], b"x"));
    assert_eq!(witness.push("witness", b"x"), Status::Ok);
    assert_eq!(witness.channel_size("witness").0, 3);
    assert!(process.pss_kib() < before + (16 << 10));
    assert_eq!(process.stop(), Some(0));
    assert!(!node.log().contains(" Fatal "), "{}", node.log());
}

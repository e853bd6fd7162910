//! Signals, second nodes, other modes: what an operator does to a queue node, and what it does in return.

use std::sync::atomic::{AtomicU32, Ordering};

use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request;
use overstory_testkit::node::{DMQ, NodeInstance, QUEUE, until};

use super::client::{Legacy, Neo};
use super::rig::{Mode, files, instance, instance_of, saved, value, values};

#[test]
fn every_stopping_signal_saves_everything_and_ends_with_0() {
    for mode in Mode::ALL {
        let node = instance(mode, if mode == Mode::Memory { 1_000_000 } else { 5_000 });
        let mut next = 0;
        for signals in [&["-TERM"][..], &["-INT"], &["-QUIT"], &["-TERM", "-HUP", "-INT", "-TERM"]] {
            let process = node.start();
            let mut client = Legacy::to(&node);
            client.push_all("c", &values("c", next..next + 500));
            next += 500;
            // Who waits for a value, or says nothing, is no reason to wait.
            let mut consumer = Neo::to(&node);
            consumer.consume(1, "quiet", "s");
            let _silent = Legacy::to(&node);
            signals.iter().for_each(|signal| process.signal(signal));
            assert_eq!(process.ended(), Some(0), "{signals:?}");
            assert!(node.log().trim_end().ends_with("Event loop exited"), "{}", node.log());
            for gone in ["node.pid", "node.socket", "unix.socket"] {
                assert!(!node.path(gone).exists(), "{gone}");
            }
        }
        let process = node.start();
        assert!(Legacy::to(&node).pop_all("c") == values("c", 0..next), "{}", mode.name());
        assert_eq!(process.stop(), Some(0));
    }
}

#[test]
fn replies_that_wait_for_the_disk_are_sent_before_the_end() {
    let node = instance(Mode::Journal, 20_000);
    for round in 0..8 {
        let process = node.start();
        let channel = format!("stop-{round}");
        let answered = AtomicU32::new(0);
        let (sent, got) = std::thread::scope(|scope| {
            let (node, channel, answered) = (&node, channel.as_str(), &answered);
            let pushing = scope.spawn(move || {
                let (mut client, mut sent) = (Legacy::to(node), 0);
                loop {
                    let mut bytes = Vec::new();
                    for value in values(channel, sent..sent + 50) {
                        Request::Push { channel: channel.as_bytes(), value: &value }.encode(&mut bytes);
                    }
                    if client.try_send(&bytes).is_err() {
                        return sent;
                    }
                    sent += 50;
                    for _ in 0..50 {
                        let Ok(status) = client.try_read_status() else { return sent };
                        assert_eq!(status, Status::Ok);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            until("it is under way", || answered.load(Ordering::Relaxed) > 100 * round);
            assert_eq!(process.stop(), Some(0));
            (pushing.join().unwrap(), answered.load(Ordering::Relaxed))
        });
        let process = node.start();
        let all = Legacy::to(&node).pop_all(&channel);
        let there = u32::try_from(all.len()).unwrap();
        // The node reads nothing any more once it stops; what it has read and kept it answers.
        assert!((got..=sent).contains(&there), "{got} answered, {there} there, {sent} sent");
        assert!(all == values(&channel, 0..there));
        assert_eq!(process.stop(), Some(0));
    }
}

#[test]
fn a_producer_that_waits_for_room_does_not_hold_up_the_end() {
    let node = instance(Mode::Memory, 5_000);
    let process = node.start();
    let mut client = Legacy::to(&node);
    assert_eq!(client.ask(&Request::Produce { channel: b"p" }), Status::Ok);
    let mut bytes = Vec::new();
    values("p", 0..300).iter().for_each(|value| overstory_swarm::wire::put_array(&mut bytes, value));
    client.send(&bytes);
    let mut other = Legacy::to(&node);
    until("it is full", || other.channel_size("p").0 >= 5);
    assert_eq!(client.stream.shutdown(std::net::Shutdown::Write).ok(), Some(()));
    let before = other.channel_size("p").0;
    assert!(other.pop("p") == value("p", 0));
    until("there is room for the next", || other.channel_size("p").0 >= before.min(2));
    assert_eq!(process.stop(), Some(0));
    let process = node.start();
    let all = Legacy::to(&node).pop_all("p");
    assert!(!all.is_empty() && all == values("p", 1..u32::try_from(all.len()).unwrap() + 1));
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_data_directory_has_one_node() {
    for mode in Mode::ALL {
        let (node, other) = (instance(mode, 20_000), instance(mode, 20_000));
        let process = node.start();
        Legacy::to(&node).push_all("c", &values("c", 0..500.min(if mode == Mode::Memory { 50 } else { 500 })));
        let before = Legacy::to(&node).size();
        let second = node.run("dmqnode", &["-c", "etc/config.ini"]);
        assert_eq!(second.status.code(), Some(1));
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(said.contains(&format!("held by process {}", process.pid())), "{said}");
        // A node with a place, a pid file and ports of its own, but for the data.
        for mode in Mode::ALL {
            other.set("Queue", "durability", mode.name());
            other.set("Server", "data_dir", node.path("data").to_str().unwrap());
            assert_eq!(other.launch().ended(), Some(1));
            assert!(other.log().contains("another node uses it"), "{}", other.log());
        }
        assert_eq!(Legacy::to(&node).size(), before, "the first one serves on");
        // What a killed one left behind is in nobody's way.
        process.kill();
        assert!(node.path("node.pid").exists());
        let process = node.start();
        assert_eq!(process.stop(), Some(0));
        other.set("Queue", "durability", mode.name());
        assert_eq!(other.start().stop(), Some(0));
    }
}

/// Puts more into a channel of two subscribers and one without, and reads a part of both.
fn work(node: &NodeInstance, part: u32) {
    let mut client = Legacy::to(node);
    let next = part * 100;
    client.push_all("plain", &values("plain", next..next + 100));
    client.push_all("topic", &values("topic", next..next + 100));
    for number in part * 50..part * 50 + 50 {
        assert!(client.pop("plain") == value("plain", number), "{number} of {part}");
    }
}

#[test]
fn other_modes_take_over_what_is_there() {
    let order =
        [Mode::Memory, Mode::Overflow, Mode::Journal, Mode::Memory, Mode::Journal, Mode::Overflow, Mode::Memory];
    let node = instance(Mode::Memory, 1_000_000);
    let process = node.start();
    let mut consumer = Neo::to(&node);
    for (id, subscriber) in [(1, ""), (2, "s")] {
        consumer.consume(id, "topic", subscriber);
        consumer.message(id, &[2]);
        assert_eq!(consumer.read(id), [4]);
    }
    work(&node, 0);
    assert_eq!(process.stop(), Some(0));
    for (part, mode) in (1..).zip(order) {
        node.set("Queue", "durability", mode.name());
        let bytes = if mode == Mode::Memory { "1000000" } else { "3000" };
        node.set("Server", "channel_size_limit", bytes);
        let process = node.start();
        work(&node, part);
        assert_eq!(Legacy::to(&node).channel_size("topic").0, u64::from(part + 1) * 200);
        assert_eq!(process.stop(), Some(0));
        let overflow = !files(&node, "data", "overflow.dat").is_empty();
        assert_eq!(overflow, mode == Mode::Overflow, "{}: {:?}", mode.name(), files(&node, "data", ""));
        let journal = !files(&node, "data/journal", ".journal").is_empty();
        assert_eq!(journal, mode == Mode::Journal, "{}", mode.name());
        assert_eq!(saved(&node).is_empty(), mode == Mode::Journal, "{}: {:?}", mode.name(), saved(&node));
    }
    let process = node.start();
    let parts = u32::try_from(order.len()).unwrap() + 1;
    assert!(Legacy::to(&node).pop_all("plain") == values("plain", parts * 50..parts * 100));
    for subscriber in ["", "s"] {
        let mut consumer = Neo::to(&node);
        consumer.consume(1, "topic", subscriber);
        let mut all = Vec::new();
        while all.len() < parts as usize * 100 {
            all.extend(consumer.batch(1));
            consumer.message(1, &[1]);
        }
        assert!(all == values("topic", 0..parts * 100), "{subscriber:?}");
    }
    assert_eq!(process.stop(), Some(0));
    assert!(!node.log().contains(" Fatal ") && !node.log().contains(" Error "), "{}", node.log());
}

#[test]
fn memory_that_is_too_small_for_what_is_on_disk_is_no_place_for_it() {
    for mode in [Mode::Overflow, Mode::Journal] {
        let node = instance(mode, 5_000);
        let process = node.start();
        Legacy::to(&node).push_all("c", &values("c", 0..1000));
        assert_eq!(process.stop(), Some(0));
        node.set("Queue", "durability", "memory");
        assert_eq!(node.launch().ended(), Some(1));
        node.set("Queue", "durability", mode.name());
        let process = node.start();
        assert!(Legacy::to(&node).pop_all("c") == values("c", 0..1000), "nothing was touched");
        assert_eq!(process.stop(), Some(0));
    }
}

#[test]
fn the_seeds_node_refuses_what_does_not_fit_and_says_so_in_its_own_name() {
    let node = instance_of(QUEUE);
    node.set("Server", "channel_size_limit", "1000");
    let process = node.start();
    let mut client = Legacy::to(&node);
    for _ in 0..9 {
        assert_eq!(client.push("c", &[1; 100]), Status::Ok);
    }
    assert_eq!(client.push("c", &[1; 100]), Status::OutOfMemory);
    assert_eq!(client.push("c", b""), Status::EmptyValue);
    assert_eq!(client.push("a/b", b"x"), Status::BadChannelName);
    until("it is found to be full", || node.metric("overstory_node_finding_state{check=\"fullness\"}") == Some(3.0));
    assert_eq!(client.pop("c"), [1; 100]);
    assert_eq!(client.push("c", &[2; 100]), Status::Ok);
    assert_eq!(process.stop(), Some(0));
    assert!(node.log().contains("[queuenode.main]"), "{}", node.log());
    assert_eq!(files(&node, "data", ""), ["c.rq"]);
    // The other program reads it.
    let dmq = instance_of(DMQ);
    dmq.set("Server", "data_dir", node.path("data").to_str().unwrap());
    let process = dmq.start();
    assert_eq!(Legacy::to(&dmq).pop_all("c").len(), 9);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_node_runs_on_the_processor_that_it_is_told() {
    let node = instance(Mode::Overflow, 20_000);
    node.set("Server", "cpu", "0");
    let process = node.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
    assert_eq!(process.stop(), Some(0));
    node.set("Server", "cpu", "1000");
    assert_eq!(node.launch().ended(), Some(1));
    assert!(node.log().contains("cpu = 1000"), "{}", node.log());
}

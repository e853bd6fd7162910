//! Signals, second nodes, logs: what an operator does to a logfiles node, and what it does in return.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::Request;
use overstory_testkit::node::until;

use super::client::{Legacy, Neo, Record, hex};
use super::rig::{Mode, check, instance};

fn records(from: u64, count: u64) -> Vec<Record> {
    (from..from + count).map(|number| (number * 100, format!("record {number}").into_bytes())).collect()
}

#[test]
fn every_stopping_signal_saves_everything_and_ends_with_0() {
    for mode in Mode::ALL {
        let node = instance(mode);
        node.set("Server", "data_dir", "elsewhere").set("Sync", "write_ms", "60000");
        let mut next = 0;
        for signals in [&["-TERM"][..], &["-INT"], &["-QUIT"], &["-TERM", "-HUP", "-INT", "-TERM"]] {
            let process = node.start();
            let mut client = Legacy::to(&node);
            client.put_all("c", &records(next, 200));
            client.put_all("v2_c", &records(next, 200));
            next += 200;
            // Who reads slowly, or says nothing, is no reason to wait.
            let mut neo = Neo::to(&node);
            let read = overstory_swarm::neo::dls::Request::GetRange {
                channel: b"c",
                low: 0,
                high: i64::MAX,
                filter: b"",
                mode: 0,
            };
            assert_eq!(neo.ask(1, &read), [1]);
            let _silent = Legacy::to(&node);
            signals.iter().for_each(|signal| process.signal(signal));
            assert_eq!(process.ended(), Some(0), "{signals:?}");
            assert!(node.log().trim_end().ends_with("Event loop exited"), "{}", node.log());
            for gone in ["node.pid", "node.socket", "unix.socket", "elsewhere/checkpoint.dat"] {
                assert!(!node.path(gone).exists(), "{gone}");
            }
        }
        assert!(!node.path("data").exists(), "the directory that is configured is used, and no other");
        assert_eq!(node.run("logfiles_check", &["elsewhere"]).status.code(), Some(0));
        let process = node.start();
        for channel in ["c", "v2_c"] {
            assert!(Legacy::to(&node).all(channel) == records(0, next), "{}", mode.name());
        }
        assert_eq!(Legacy::to(&node).size().0, next * 2);
        assert_eq!(process.stop(), Some(0));
    }
}

#[test]
fn a_stop_in_the_middle_of_puts_and_reads_keeps_what_was_answered() {
    for mode in Mode::ALL {
        let node = instance(mode);
        for round in 0..4 {
            let process = node.start();
            let channel = format!("stop-{round}");
            let (answered, over) = (AtomicU64::new(0), AtomicBool::new(false));
            let sent = std::thread::scope(|scope| {
                let (node, channel, answered, over) = (&node, channel.as_str(), &answered, &over);
                let putting = scope.spawn(move || {
                    let (mut client, mut sent) = (Legacy::to(node), 0);
                    loop {
                        let mut bytes = Vec::new();
                        for (key, value) in records(sent, 50) {
                            let key = hex(key);
                            Request::Put { channel: channel.as_bytes(), key: &key, value: &value }.encode(&mut bytes);
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
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let Ok(mut client) = Legacy::try_to(node) else { return };
                        let mut next = 0;
                        let _ = client.try_each(channel, |key, value| {
                            assert!(records(next, 1) == [(key, value.to_vec())], "{next} is next");
                            next += 1;
                        });
                    }
                });
                until("it is under way", || answered.load(Ordering::Relaxed) > 100 * round);
                assert_eq!(process.stop(), Some(0));
                over.store(true, Ordering::Relaxed);
                putting.join().unwrap()
            });
            let process = node.start();
            let all = Legacy::to(&node).all(&channel);
            let there = all.len() as u64;
            let got = answered.load(Ordering::Relaxed);
            assert!((got..=sent).contains(&there), "{got} answered, {there} there, {sent} sent");
            assert!(all == records(0, there));
            assert_eq!(process.stop(), Some(0));
        }
    }
}

#[test]
fn a_data_directory_has_one_node_and_its_logs_are_reopened() {
    let (node, other) = (instance(Mode::Interval), instance(Mode::Always));
    let process = node.start();
    let mut client = Legacy::to(&node);
    client.put_all("c", &records(0, 500));
    let second = node.run("logfilesnode", &["-c", "etc/config.ini"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("held by process {}", process.pid())), "{said}");
    // A node with a place, a pid file and ports of its own, but for the data.
    other.set("Server", "data_dir", node.path("data").to_str().unwrap());
    assert_eq!(other.launch().ended(), Some(1));
    assert!(other.log().contains("another node uses it"), "{}", other.log());
    assert_eq!(client.size().0, 500, "the first one serves on");
    for log in ["root.log", "stats.log"] {
        fs::rename(node.path(&format!("log/{log}")), node.path(&format!("log/{log}.1"))).unwrap();
    }
    process.signal("-HUP");
    until("the logs are there again", || {
        node.path("log/root.log").exists() && node.text("log/stats.log").contains("request/Put/handled:")
    });
    assert_eq!(client.size().0, 500, "and so are the connections");
    let stats = node.text("log/stats.log.1") + &node.text("log/stats.log");
    for field in
        ["total_bytes:", "total_records:500", "action/handled/records:", "open_fds_limit:", "open_fds_currently:"]
    {
        assert!(stats.contains(field), "{field}: {stats}");
    }
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn the_checker_reads_beside_a_node_that_writes() {
    let node = instance(Mode::Interval);
    node.set("Sync", "write_ms", "1");
    let process = node.start();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut client, mut next) = (Legacy::to(&node), 0);
            while !over.load(Ordering::Relaxed) {
                client.put_all("c", &records(next, 100));
                client.put_all("v2_c", &records(next, 100));
                next += 100;
            }
        });
        for _ in 0..10 {
            // The last record may be there in part only; nothing else is wrong, and nothing is changed.
            let (code, said) = check(&node, &["-c"]);
            assert!(code == 0 || code == 1, "{code}: {said}");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(process.stop(), Some(0));
    assert_eq!(check(&node, &[]).0, 0);
}

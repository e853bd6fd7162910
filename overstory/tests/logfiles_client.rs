//! The client of logfiles and `swarm logfiles` against real nodes: processes of the shipped executable.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use overstory_client::dls::{Filter, Order, Records, TimestampRange};
use overstory_client::{ClientConfig, DlsClient, Error, Identity, Outcome, Pipeline, Registry};
use overstory_swarm::auth::ClientKey;
use overstory_testkit::node::{LOGFILES, NodeInstance, NodeProcess, ZERO_KEY};
use tempfile::TempDir;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

fn instance() -> NodeInstance {
    let instance = NodeInstance::new(Path::new(env!("CARGO_BIN_EXE_overstory")), LOGFILES);
    instance.set("Report", "enabled", "false");
    instance
}

fn started(count: usize) -> Vec<(NodeInstance, NodeProcess)> {
    (0..count)
        .map(|_| {
            let instance = instance();
            let process = instance.start();
            (instance, process)
        })
        .collect()
}

fn identity() -> Identity {
    Identity { name: "test".to_owned(), key: ClientKey([0; 128]) }
}

fn config<'a>(nodes: impl IntoIterator<Item = &'a NodeInstance>, legacy: bool) -> ClientConfig {
    let mut registry = Registry::new();
    nodes.into_iter().for_each(|node| registry.add(if legacy { node.legacy } else { node.neo }).unwrap());
    let config = if legacy { ClientConfig::legacy(registry) } else { ClientConfig::neo(registry, identity()) };
    ClientConfig { connect_timeout: Duration::from_secs(20), ..config }
}

/// A client of both protocols.
async fn clients(nodes: &[(NodeInstance, NodeProcess)]) -> (DlsClient, DlsClient) {
    let connect = async |legacy| DlsClient::connect(config(nodes.iter().map(|(node, _)| node), legacy)).await.unwrap();
    (connect(false).await, connect(true).await)
}

/// Reads to the end: timestamps and values, and what is missing.
async fn read(mut records: Records) -> (Vec<(i64, Vec<u8>)>, Vec<(SocketAddrV4, Error)>) {
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    while let Some(batch) = timeout(LONG, records.next()).await.unwrap() {
        match batch {
            Ok(batch) => all.extend(batch.records().map(|(timestamp, value)| (timestamp, value.to_vec()))),
            Err(Error::Incomplete { missing: told }) => missing = told.to_vec(),
            Err(error) => panic!("{error}"),
        }
    }
    (all, missing)
}

fn record(timestamp: i64) -> (i64, Vec<u8>) {
    (timestamp, format!("record {timestamp}").into_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_protocol_puts_the_other_reads_from_many_nodes() {
    let nodes = started(3);
    let (new, old) = clients(&nodes).await;
    // Scattered over many buckets, below 0 and in any order.
    let times: Vec<i64> = (0..3000).map(|number: i64| (number * 7919 % 3000 - 500) * 977).collect();
    let mut expected: Vec<_> = times.iter().map(|&timestamp| record(timestamp)).collect();
    expected.sort_unstable();
    for (writer, channel) in [(&new, "new"), (&old, "old")] {
        for &timestamp in &times {
            writer.put(channel, timestamp, &record(timestamp).1).await.unwrap();
        }
        for reader in [&new, &old] {
            let (got, missing) = read(reader.get_all(channel, Filter::None, Order::ByTime).unwrap()).await;
            assert!(missing.is_empty() && got == expected, "{missing:?} {}", got.len());
            let (mut got, missing) = read(reader.get_all(channel, Filter::None, Order::AsTheyCome).unwrap()).await;
            got.sort_unstable();
            assert!(missing.is_empty() && got == expected, "{missing:?} {}", got.len());
            let range = reader.get_range(channel, -5000, 977_000, Filter::None, Order::ByTime).unwrap();
            let within: Vec<_> =
                expected.iter().filter(|(timestamp, _)| (-5000..=977_000).contains(timestamp)).cloned().collect();
            assert_eq!(read(range).await.0, within);
            for (filter, count) in [
                (Filter::Substring(b"record 977".to_vec()), 1),
                (Filter::Pcre(b"^record -?977$".to_vec()), 2),
                (Filter::Pcre(b"RECORD".to_vec()), 0),
                (Filter::PcreCaseless(b"RECORD 0$".to_vec()), 1),
            ] {
                let told = format!("{filter:?}");
                let (got, missing) = read(reader.get_all(channel, filter, Order::ByTime).unwrap()).await;
                assert!(missing.is_empty(), "{missing:?}");
                // 977000 and the like begin with 977 as well.
                let got = got.iter().filter(|(timestamp, _)| timestamp.abs() <= 977).count();
                assert_eq!(got, count, "{told}");
            }
            let (_, missing) = read(reader.get_all(channel, Filter::Pcre(b"(".to_vec()), Order::ByTime).unwrap()).await;
            assert!(missing.len() == 3 && missing.iter().all(|(_, e)| matches!(e, Error::FilterRefused { .. })));
        }
    }
    let sizes = old.sizes_by_node(Some("new")).await.unwrap();
    let records: Vec<u64> = sizes.into_iter().map(|(_, size)| size.unwrap().records).collect();
    assert_eq!(records, [1000; 3]);
    assert_eq!(old.channels().await.unwrap(), ["new", "old"]);
    assert!(old.num_connections_by_node().await.unwrap().iter().all(|(_, told)| told.as_ref().is_ok_and(|n| *n > 0)));
    let told = new.ranges_by_node().await;
    assert!(told.iter().all(|(_, range)| matches!(range, Ok(Some(TimestampRange::ALL)))), "{told:?}");
    old.remove_channel("new").await.unwrap();
    assert!(read(new.get_all("new", Filter::None, Order::ByTime).unwrap()).await.0.is_empty());
    assert_eq!(old.channels().await.unwrap(), ["old"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_follow_the_ranges_of_nodes_also_when_they_change() {
    let (first, second) = (instance(), instance());
    first.set("Server", "maxval", "00000000000003e7");
    second.set("Server", "minval", "00000000000003e8");
    let (one, two) = (first.start(), second.start());
    let connect = async |legacy| DlsClient::connect(config([&first, &second], legacy)).await.unwrap();
    let (new, old) = (connect(false).await, connect(true).await);
    for (client, base) in [(&new, 0), (&old, 100)] {
        for timestamp in [base + 1, base + 998, base + 2000, i64::MAX - base] {
            client.put("c", timestamp, b"v").await.unwrap();
        }
    }
    let records = async || {
        let sizes = old.sizes_by_node(None).await.unwrap();
        sizes.into_iter().map(|(_, size)| size.unwrap().records).collect::<Vec<_>>()
    };
    assert_eq!(records().await, [3, 5]);
    let told: Vec<_> = old.ranges_by_node().await.into_iter().map(|(_, range)| range.unwrap().unwrap()).collect();
    assert_eq!(told, [TimestampRange { min: 0, max: 999 }, TimestampRange { min: 1000, max: u64::MAX }]);
    // The second one comes back with another range, and what it has is still read.
    assert_eq!(two.stop(), Some(0));
    second.set("Server", "minval", "0000000000001000");
    let two = second.start();
    for client in [&new, &old] {
        let error = loop {
            match client.put("c", 3000, b"v").await {
                Err(Error::Broken { .. }) => {}
                Err(error) => break error,
                Ok(()) => panic!("nobody takes it"),
            }
        };
        assert!(matches!(error, Error::NoNodeForTimestamp(3000)), "{error}");
        client.put("c", 5000, b"v").await.unwrap();
    }
    assert_eq!(records().await, [3, 7]);
    let (got, missing) = read(new.get_range("c", 1000, 3000, Filter::None, Order::ByTime).unwrap()).await;
    assert!(missing.is_empty());
    assert_eq!(got.iter().map(|(timestamp, _)| *timestamp).collect::<Vec<_>>(), [1098, 2000, 2100]);
    drop((one, two));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_outlives_its_node_or_says_that_it_does_not() {
    const COUNT: u64 = 60_000;
    for legacy in [false, true] {
        for back in [true, false] {
            let node = instance();
            node.set("Sync", "mode", "always");
            let process = node.start();
            let mut pipeline = Pipeline::connect(node.neo, &identity(), LONG).await.unwrap();
            let (mut next, mut done) = (0, 0);
            while done < COUNT {
                let timestamp = |token: u64| token.cast_signed() * 10;
                while next < COUNT
                    && pipeline.in_flight() < 1024
                    && pipeline.put_dls(next, "c", timestamp(next), &[b'x'; 100])
                {
                    next += 1;
                }
                let stored = |_, outcome: Outcome<'_>| assert_eq!(outcome, Outcome::Stored);
                done += pipeline.complete(stored).await.unwrap() as u64;
            }
            let config = config([&node], legacy);
            let quick = Duration::from_millis(500);
            let patience = if back { LONG } else { quick };
            let client = DlsClient::connect(ClientConfig { patience, request_timeout: LONG, ..config }).await.unwrap();
            let mut records = client.get_all("c", Filter::None, Order::AsTheyCome).unwrap();
            let mut got: Vec<i64> = Vec::new();
            let first = records.next().await.unwrap().unwrap();
            got.extend(first.records().map(|(timestamp, _)| timestamp));
            process.kill();
            let process = back.then(|| node.start());
            let (rest, missing) = read(records).await;
            got.extend(rest.into_iter().map(|(timestamp, _)| timestamp));
            assert!(got.windows(2).all(|two| two[1] == two[0] + 10), "each once, and in order");
            if back {
                assert!(missing.is_empty() && got.len() as u64 == COUNT, "{missing:?}: {}", got.len());
            } else {
                assert!(missing.len() == 1 && missing[0].1.is_retryable(), "{missing:?}");
            }
            drop(process);
        }
    }
}

/// `swarm logfiles` in a directory with a node's credentials.
struct Shell {
    dir: TempDir,
    node: String,
    old: String,
}

impl Shell {
    fn new(node: &NodeInstance) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("client"), format!("test:{ZERO_KEY}\n")).unwrap();
        Self { dir, node: node.neo.to_string(), old: node.legacy.to_string() }
    }

    fn command(&self, legacy: bool, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overstory"));
        command.args(["swarm", "logfiles"]).args(args).current_dir(self.dir.path());
        match legacy {
            true => command.args(["--legacy", "--node", &self.old]),
            false => command.args(["--node", &self.node, "--credentials", "client"]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, legacy: bool, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(legacy, args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        output
    }

    fn neo(&self, args: &[&str], input: &[u8]) -> Output {
        self.run(false, args, input)
    }

    fn legacy(&self, args: &[&str], input: &[u8]) -> Output {
        self.run(true, args, input)
    }

    fn text(&self, args: &[&str]) -> String {
        String::from_utf8(self.neo(args, b"").stdout).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarm_logfiles_works_in_pipes() {
    let nodes = started(1);
    let shell = Shell::new(&nodes[0].0);
    // One record, now and at a time.
    assert!(shell.neo(&["put", "one", "a value"], b"").status.success());
    assert!(shell.text(&["getrange", "one", "-1h"]).ends_with("\ta value\n"));
    assert!(shell.neo(&["put", "one", "dated", "--timestamp", "2026-11-21T16:00:00Z"], b"").status.success());
    assert_eq!(shell.text(&["getrange", "one", "2026-11-21", "1795276800"]), "1795276800\tdated\n");
    assert_eq!(shell.neo(&["getrange", "one", "-9", "9"], b"").status.code(), Some(3));
    assert_eq!(shell.neo(&["getall", "none"], b"").status.code(), Some(3));
    // Many lines with their times come back as they were.
    let lines: String = (0..50_000).map(|number| format!("{}\tline {number}\\t\n", number * 3)).collect();
    let put = shell.neo(&["put", "lines", "--timestamps"], lines.as_bytes());
    assert!(put.status.success() && put.stderr.starts_with(b"50000 records stored, 0 failed"), "{}", said(&put));
    assert!(shell.neo(&["getall", "lines", "--sorted"], b"").stdout == lines.as_bytes());
    assert!(shell.legacy(&["getrange", "lines", "0", "149997", "--sorted"], b"").stdout == lines.as_bytes());
    let hits = shell.text(&["getall", "lines", "--contains", "line 4999", "--sorted"]);
    assert_eq!(hits.lines().count(), 11);
    assert_eq!(shell.text(&["getall", "lines", "--regex", "LINE 77\\t$", "--ignore-case"]), "231\tline 77\\t\n");
    assert_eq!(shell.text(&["getall", "lines", "--sorted", "--limit", "2"]), "0\tline 0\\t\n3\tline 1\\t\n");
    // Any bytes survive, in every form and by both protocols.
    let records: [(i64, &[u8]); 4] = [(-1, b"\0\n\r\t\\"), (0, b"\n"), (7, b"\xff\xfe"), (8, &[10; 60_000])];
    let mut framed = Vec::new();
    for (timestamp, value) in records {
        framed.extend_from_slice(&timestamp.to_le_bytes());
        framed.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        framed.extend_from_slice(value);
    }
    for format in ["--binary", "--json", "--base64"] {
        assert!(shell.neo(&["put", "bytes", "--binary", "--timestamps"], &framed).status.success());
        let printed = shell.legacy(&["getall", "bytes", "--sorted", format], b"").stdout;
        let put = shell.legacy(&["put", "copy", format, "--timestamps"], &printed);
        assert!(put.status.success(), "{}", said(&put));
        assert!(shell.neo(&["getall", "copy", "--sorted", "--binary"], b"").stdout == framed, "{format}");
        for channel in ["bytes", "copy"] {
            assert!(shell.legacy(&["remove", channel], b"").status.success());
        }
    }
    // What failed is named with its line.
    let wrong = shell.neo(&["put", "wrong", "--timestamps"], b"1\tgood\nnone\nsoon\tv\n2\tbad \\q\n3\tlast\n");
    assert_eq!(wrong.status.code(), Some(1));
    for text in ["line 2: a record is `timestamp TAB value`", "line 3: `soon` is no time", "line 4: `\\q` is no escape"]
    {
        assert!(said(&wrong).contains(text), "{}", said(&wrong));
    }
    assert_eq!(shell.text(&["getall", "wrong", "--sorted"]), "1\tgood\n3\tlast\n");
    for args in [
        &["put", "../x", "v"][..],
        &["getrange", "one", "9", "1"],
        &["getrange", "one", "yesterday"],
        &["getall", "one", "--regex", "("],
        &["getall", "one", "--ignore-case"],
        &["size"],
    ] {
        let refused = shell.neo(args, b"");
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{args:?} {}", said(&refused));
    }
    let stats = String::from_utf8(shell.legacy(&["stats"], b"").stdout).unwrap();
    assert!(stats.contains(&format!("{}\tlines\t50000\t", shell.old)) && stats.contains("\t*\t50004\t"), "{stats}");
    assert_eq!(shell.text(&["ranges"]), format!("{}\t0x{:016x}\t0x{:016x}\n", shell.node, 0, u64::MAX));
    // A node that is away is told of, and what there is comes.
    let mut command = shell.command(false, &["getall", "one", "--timeout", "1", "--node", "127.0.0.1:1"]);
    let half = command.output().unwrap();
    assert_eq!((half.status.code(), half.stdout.iter().filter(|&&byte| byte == b'\n').count()), (Some(1), 2));
    assert!(said(&half).contains("127.0.0.1:1") && said(&half).contains("the records are not complete"));
}

/// A node that hangs keeps its connection, so each put whose turn was there waited in vain: every second one, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_is_passed_over_by_the_puts_that_follow() {
    let nodes = started(2);
    let connect = async |legacy| {
        let config = config(nodes.iter().map(|(node, _)| node), legacy);
        DlsClient::connect(ClientConfig { request_timeout: Duration::from_secs(2), ..config }).await.unwrap()
    };
    let (new, old) = (connect(false).await, connect(true).await);
    for client in [&new, &old] {
        for number in 0..4 {
            client.put("c", number, b"v").await.unwrap();
        }
    }
    nodes[1].1.signal("-STOP");
    for client in [&new, &old] {
        let mut late = 0;
        for number in 0..20 {
            late += usize::from(client.put("c", number, b"v").await.is_err());
        }
        // More than one where the others take seconds.
        assert!((1..=4).contains(&late), "{late}");
    }
    nodes[1].1.signal("-CONT");
}

/// What only legacy has was refused with the advice to give credentials, and with credentials by the name of a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_legacy_has_says_so_when_neo_is_spoken() {
    let nodes = started(1);
    let shell = Shell::new(&nodes[0].0);
    for args in [&["channels"][..], &["remove", "one"], &["size", "one"], &["stats"]] {
        let refused = shell.neo(args, b"");
        let text = format!("only the legacy protocol has {}: give --legacy", args[0]);
        assert!(refused.status.code() == Some(2) && said(&refused).contains(&text), "{}", said(&refused));
    }
}

/// It looked 2 s back, and nothing could be said about it: what a buffer upstream delivers late never came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_looks_back_as_far_as_it_is_told() {
    let nodes = started(1);
    let (new, _) = clients(&nodes).await;
    let shell = Shell::new(&nodes[0].0);
    let now = 1_795_276_800;
    new.put("c", now, b"newest").await.unwrap();
    for (lookback, late) in [(&[][..], 10), (&["--lookback", "1h"], 3600)] {
        let follow = [&["tail", "c", "-n", "1", "-f", "--interval", "0.02"], lookback].concat();
        let mut child = shell.command(false, &follow).stdin(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(out.next().unwrap().unwrap(), format!("{now}\tnewest"));
        new.put("c", now - late - 1, b"too late").await.unwrap();
        new.put("c", now - late, b"late").await.unwrap();
        assert_eq!(out.next().unwrap().unwrap(), format!("{}\tlate", now - late));
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let wrong = shell.neo(&["tail", "c", "--lookback", "10"], b"");
    assert!(wrong.status.code() == Some(2) && said(&wrong).contains("no duration"), "{}", said(&wrong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_finds_the_last_records_and_misses_and_doubles_none_that_come() {
    let nodes = started(2);
    let (new, _) = clients(&nodes).await;
    let shell = Shell::new(&nodes[0].0);
    let second = nodes[1].0.neo.to_string();
    let tail = |args: &[&str]| {
        let mut command = shell.command(false, &[&["tail", "c", "--node", &second], args].concat());
        command.stdin(Stdio::null());
        command
    };
    assert_eq!(tail(&[]).output().unwrap().status.code(), Some(3));
    // Old ones, far apart, at two nodes, and one in the time to come.
    for timestamp in (0..500).map(|number: i64| number * 86_400).chain([1 << 40]) {
        new.put("c", timestamp, format!("old {timestamp}").as_bytes()).await.unwrap();
    }
    let printed = |args: &[&str]| String::from_utf8(tail(args).output().unwrap().stdout).unwrap();
    let lines = |days: std::ops::Range<i64>| {
        let days = days.map(|day| format!("{0}\told {0}\n", day * 86_400)).collect::<String>();
        days + &format!("{0}\told {0}\n", 1i64 << 40)
    };
    assert_eq!(printed(&["-n", "4"]), lines(497..500));
    assert_eq!(printed(&["-n", "1"]), lines(0..0));
    assert_eq!(printed(&["-n", "1000"]), lines(0..500));
    assert_eq!(printed(&["-n", "1", "--contains", "old 86400"]), "8640000\told 8640000\n");

    // Two write while one follows: many of the same second, some of them late.
    let mut child = tail(&["-n", "1", "-f", "--interval", "0.02"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(out.next().unwrap().unwrap() + "\n", lines(0..0));
    let base = (1i64 << 40) + 10;
    let next = std::sync::atomic::AtomicI64::new(0);
    let writer = async || {
        loop {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number >= 6000 {
                break;
            }
            new.put("c", base + number / 500 - number % 2, format!("new {number}").as_bytes()).await.unwrap();
        }
    };
    tokio::join!(writer(), writer());
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 6000 {
        let line = out.next().unwrap().unwrap();
        let value = line.split_once('\t').unwrap().1.to_owned();
        assert!(value.starts_with("old") || seen.insert(value), "{line}");
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(out.map(|line| line.unwrap()).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

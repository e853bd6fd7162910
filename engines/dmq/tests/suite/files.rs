//! The files of a data directory, byte for byte those of the published node, and `stats.log` of the same run.

use std::ops::ControlFlow;
use std::path::Path;

use overstory_dmq::config::Durability;
use overstory_dmq::engine::DmqEngine;
use overstory_node::engine::Engine;
use overstory_node::inspect::Inspect;
use overstory_node::stats::{Fields, RequestSpec};
use overstory_replay::recording::written;

use crate::rig::{Consumer, Node, Setup, consume, files, pop, pop_all, push};

const RINGS: [&str; 5] = ["@topic.rq", "plain.rq", "small_q.rq", "small_r.rq", "sub1@topic.rq"];

fn setup(data: &Path) -> Setup {
    Setup { channel_sizes: vec![("small", 200)], ..Setup::at(data) }
}

fn plain() -> Vec<Vec<u8>> {
    (1..=3).map(|number| format!("value {number}").into_bytes()).collect()
}

fn small_q() -> Vec<Vec<u8>> {
    (1..=8).map(|number| format!("record {number} {}", "x".repeat(30)).into_bytes()).collect()
}

fn small_r() -> Vec<Vec<u8>> {
    (1..=7).map(|number| format!("other {number} {}", "y".repeat(30)).into_bytes()).collect()
}

fn topic() -> Vec<Vec<u8>> {
    (0..2).map(|number| format!("topic record {number}").into_bytes()).collect()
}

/// Asks what the published node was asked that wrote the files.
fn ask_as_recorded(node: &Node) {
    let mut client = node.legacy();
    plain().iter().for_each(|value| push(&mut client, "plain", value));
    small_q().iter().for_each(|value| push(&mut client, "small_q", value));
    push(&mut client, "topic", b"t0");
    let mut first = Consumer::start(node, "topic", "");
    assert_eq!(first.batch(), [b"t0"]);
    first.stop();
    Consumer::start(node, "topic", "sub1").stop();
    topic().iter().for_each(|value| push(&mut client, "topic", value));
    small_r().iter().for_each(|value| push(&mut client, "small_r", value));
}

fn sorted_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<_> = String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_recorded_requests_leave_the_recorded_files() {
    let place = tempfile::tempdir().unwrap();
    let node = Node::start(setup(place.path()));
    ask_as_recorded(&node);
    drop(node);
    let mut expected: Vec<_> = RINGS.iter().map(|name| (*name).to_owned()).collect();
    expected.extend(["ofchannels.csv".to_owned(), "overflow.dat".to_owned()]);
    expected.sort();
    assert_eq!(files(place.path()), expected);
    for name in RINGS.iter().copied().chain(["overflow.dat"]) {
        let ours = std::fs::read(place.path().join(name)).unwrap();
        assert!(ours == written(&format!("dmq.{name}")), "{name}: {}", String::from_utf8_lossy(&ours));
    }
    let index = std::fs::read(place.path().join("ofchannels.csv")).unwrap();
    assert_eq!(sorted_lines(&index), sorted_lines(&written("dmq.ofchannels.csv")));
}

/// Puts the published node's files into a data directory.
fn restore(data: &Path) {
    for name in RINGS.iter().copied().chain(["overflow.dat", "ofchannels.csv"]) {
        std::fs::write(data.join(name), written(&format!("dmq.{name}"))).unwrap();
    }
}

#[test]
fn the_recorded_files_give_their_records_back_in_order() {
    let place = tempfile::tempdir().unwrap();
    restore(place.path());
    let node = Node::start(setup(place.path()));
    assert_eq!(node.channels(), ["plain", "small_q", "small_r", "topic"]);
    let mut client = node.legacy();
    assert_eq!(pop_all(&mut client, "plain"), plain());
    assert_eq!(pop_all(&mut client, "small_q"), small_q());
    assert_eq!(pop_all(&mut client, "small_r"), small_r());
    let mut unnamed = consume(&node, "topic");
    assert_eq!([unnamed.read_array(), unnamed.read_array()], topic()[..]);
    let mut sub1 = Consumer::start(&node, "topic", "sub1");
    assert_eq!(sub1.read(2), topic());
    sub1.stop();
    drop(node);
    // Nothing is left: no ring is dumped, and the overflow's files are gone.
    assert_eq!(files(place.path()), Vec::<String>::new());
}

/// A node that does nothing but start and stop leaves the published node's files as they were.
#[test]
fn a_start_and_a_stop_change_nothing() {
    let place = tempfile::tempdir().unwrap();
    restore(place.path());
    drop(Node::start(setup(place.path())));
    for name in RINGS.iter().copied().chain(["overflow.dat"]) {
        assert_eq!(std::fs::read(place.path().join(name)).unwrap(), written(&format!("dmq.{name}")), "{name}");
    }
    let index = std::fs::read(place.path().join("ofchannels.csv")).unwrap();
    assert_eq!(sorted_lines(&index), sorted_lines(&written("dmq.ofchannels.csv")));
}

/// The published node does not start with a ring file that is larger than the ring, as after its size was lowered.
#[test]
fn a_ring_file_larger_than_its_queue_is_loaded() {
    for durability in crate::rig::MODES {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("plain.rq"), written("dmq.plain.rq")).unwrap();
        let node = Node::start(Setup { channel_size: 20, durability, ..Setup::at(place.path()) });
        assert_eq!(pop_all(&mut node.legacy(), "plain"), plain(), "{durability:?}");
    }
}

/// The records of the published files, loaded by a node of one mode, are there for a node of any other one.
#[test]
fn records_go_from_one_durability_to_another() {
    use Durability::{Journal, Memory, Overflow};
    for modes in [[Overflow, Journal, Memory, Overflow], [Journal, Overflow, Memory, Journal]] {
        let place = tempfile::tempdir().unwrap();
        restore(place.path());
        // In memory only what fits is taken, so the queues are larger there.
        let channel_sizes = |durability| if durability == Memory { Vec::new() } else { vec![("small", 200)] };
        let setup =
            |durability| Setup { durability, channel_sizes: channel_sizes(durability), ..Setup::at(place.path()) };
        for durability in modes {
            drop(Node::start(setup(durability)));
        }
        let node = Node::start(setup(modes[3]));
        let mut client = node.legacy();
        for (channel, expected) in [("plain", plain()), ("small_q", small_q()), ("small_r", small_r())] {
            assert_eq!(pop_all(&mut client, channel), expected, "{modes:?} {channel}");
        }
        assert_eq!(pop(&mut client, "plain"), b"");
        for subscriber in ["", "sub1"] {
            assert_eq!(Consumer::start(&node, "topic", subscriber).read(2), topic(), "{modes:?} {subscriber}");
        }
    }
}

/// The first recorded line of `stats.log`: its fields in their order.
fn recorded_stats() -> Vec<(String, String)> {
    let text = String::from_utf8(written("dmqnode.stats.log")).unwrap();
    let fields = text.lines().next().unwrap().split(' ').skip(2);
    fields.map(|field| field.rsplit_once(':').unwrap()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The names of a recorded category, with the fields that each has.
fn recorded_requests(category: &str) -> Vec<(String, bool)> {
    let all = recorded_stats();
    let name = |(key, _): &(String, String)| {
        key.strip_prefix(category)?.strip_prefix('/')?.strip_suffix("/handled").map(str::to_owned)
    };
    let timed = |name: &str| all.iter().any(|(key, _)| *key == format!("{category}/{name}/handled_10_micros"));
    all.iter().filter_map(name).map(|name| (name.clone(), timed(&name))).collect()
}

fn ours(requests: &[RequestSpec]) -> Vec<(String, bool)> {
    let tracked = requests.iter().filter(|request| request.tracked);
    tracked.map(|request| (request.name.to_owned(), request.timed)).collect()
}

/// Fields by channel, in the order of their names: the recorded node's own order is that of a map.
fn by_channel(mut fields: Vec<(String, String)>) -> Vec<(String, String)> {
    fields.sort_by_key(|(key, _)| key.rsplit_once('/').map(|(channel, _)| channel.to_owned()));
    fields
}

#[test]
fn stats_log_counts_what_was_recorded_under_the_recorded_names() {
    assert_eq!(ours(DmqEngine::LEGACY_REQUESTS), recorded_requests("request"));
    assert_eq!(ours(DmqEngine::NEO_REQUESTS), recorded_requests("neo_request"));
    assert_eq!(DmqEngine::ACTIONS, ["pushed", "popped"]);

    let place = tempfile::tempdir().unwrap();
    let node = Node::start(setup(place.path()));
    ask_as_recorded(&node);
    let (totals, channels, queues) = node.with(|engine| {
        let mut channels = Vec::new();
        engine.channels(None, &mut |name, totals| {
            channels.push((format!("channel/{name}/bytes"), totals.bytes.to_string()));
            channels.push((format!("channel/{name}/records"), totals.records.to_string()));
            ControlFlow::Continue(())
        });
        let mut fields = Fields::default();
        engine.more_stats(&mut fields);
        let mut queues = String::new();
        fields.write(&mut queues);
        (engine.totals(), channels, queues)
    });
    let recorded = recorded_stats();
    let place = |key: &str| recorded.iter().position(|(name, _)| name == key).unwrap();
    let (old, pushed, logged) =
        (place("old_request_versions_in_use"), place("action/popped/bytes") + 1, place("logged_debug"));
    assert_eq!(recorded[place("total_bytes")].1, totals.bytes.to_string());
    assert_eq!(recorded[place("total_records")].1, totals.records.to_string());
    assert_eq!(by_channel(channels), by_channel(recorded[place("total_records") + 1..old].to_vec()));
    let queues: Vec<_> = queues
        .split_whitespace()
        .map(|field| field.rsplit_once(':').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(by_channel(queues), by_channel(recorded[pushed..logged].to_vec()));
}

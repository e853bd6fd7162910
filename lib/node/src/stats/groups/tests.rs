#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::stats::{ActionCounters, RequestSpec};

/// The keys and values of the first recorded line of a program.
fn recorded(program: &str) -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/vectors/files/{program}.stats.log"));
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().next().unwrap().get("2026-11-21 05:38:10,218 ".len()..).unwrap();
    line.split(' ').map(|field| field.rsplit_once(':').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn spec(name: &'static str, timed: bool) -> RequestSpec {
    RequestSpec { code: 0, name, tracked: true, timed }
}

/// Counters of the requests and actions that a recorded line shows, in its order.
fn counters(line: &[(String, String)]) -> NodeStats {
    let names = |category: &str, field: &str| -> Vec<&'static str> {
        let of = |(key, _): &(String, String)| {
            key.strip_prefix(category)?.strip_suffix(field).map(|name| &*Box::leak(name.to_owned().into_boxed_str()))
        };
        line.iter().filter_map(of).collect()
    };
    let requests = |category: &str| {
        let timed = names(category, "/mean_handled_time_micros");
        let make = |name: &&'static str| RequestCounters::new(spec(name, timed.contains(name)));
        names(category, "/handled").iter().map(make).collect()
    };
    let zero = || Cell::new(0);
    let action = |name: &&'static str| ActionCounters { name, records: zero(), bytes: zero(), records_total: zero() };
    NodeStats {
        bytes_sent: zero(),
        bytes_received: zero(),
        legacy_connections: zero(),
        neo_connections: zero(),
        refused_connections: zero(),
        dropped_slow: zero(),
        legacy: requests("request/"),
        neo: requests("neo_request/"),
        actions: names("action/", "/records").iter().map(action).collect(),
    }
}

fn request<'a>(requests: &'a [RequestCounters], name: &str) -> &'a RequestCounters {
    requests.iter().find(|request| request.spec.name == name).unwrap()
}

/// A line with everything of ours but the process' own figures and the numbers of log lines, which are not ours here.
fn line(stats: &NodeStats, totals: Option<Totals>, channels: &[(&str, u64, u64)]) -> String {
    let mut fields = Fields::default();
    head(stats, 5000, totals, &mut fields);
    for (name, bytes, records) in channels {
        fields.of("channel", name, "bytes", *bytes);
        fields.of("channel", name, "records", *records);
    }
    tail(stats, &mut fields);
    let mut text = String::new();
    fields.write(&mut text);
    text
}

fn expected(line: &[(String, String)], until: &str) -> String {
    let of = line.iter().skip_while(|(key, _)| key != "bytes_sent").take_while(|(key, _)| !key.starts_with(until));
    of.map(|(key, value)| format!(" {key}:{value}")).collect()
}

#[test]
fn the_recorded_line_of_the_dht_is_made_again_byte_for_byte() {
    let recorded = recorded("dhtnode");
    let stats = counters(&recorded);
    stats.bytes_sent.set(116);
    stats.bytes_received.set(367);
    stats.legacy_connections.set(1);
    stats.neo_connections.set(1);
    for (micros, requests, name) in [
        (44, &stats.legacy, "Get"),
        (90, &stats.legacy, "Put"),
        (113, &stats.legacy, "Put"),
        (300, &stats.legacy, "Put"),
        (52, &stats.neo, "Get"),
    ] {
        let request = request(requests, name);
        request.begin();
        request.end(Duration::from_micros(micros));
    }
    for (at, records, bytes) in [(0, 3, 28), (1, 2, 2)] {
        stats.actions[at].records.set(records);
        stats.actions[at].bytes.set(bytes);
    }
    let totals = Totals { records: 3, bytes: 525_572 };
    let ours = line(&stats, Some(totals), &[("chan-1", 525_572, 3)]);
    assert_eq!(ours, expected(&recorded, "logged_"));
    assert!(ours.contains("request/Put/mean_handled_time_micros:167.67 "));
}

#[test]
fn the_other_nodes_lines_have_the_same_groups() {
    for (program, totals, channels, until) in [
        (
            "dmqnode",
            Some(Totals { records: 22, bytes: 775 }),
            &[("plain", 45, 3), ("small_q", 344, 8), ("topic", 88, 4), ("small_r", 298, 7)][..],
            "channel/plain/bytes_memory",
        ),
        ("dlsnode", None, &[], "logged_"),
    ] {
        let recorded = recorded(program);
        let keys = |text: &str| {
            text.split_whitespace().map(|field| field.rsplit_once(':').unwrap().0.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&line(&counters(&recorded), totals, channels)), keys(&expected(&recorded, until)));
    }
}

#[test]
fn a_new_interval_begins_at_zero_but_for_what_is_going_on() {
    let recorded = recorded("dhtnode");
    let stats = counters(&recorded);
    let listen = request(&stats.legacy, "Listen");
    listen.begin();
    request(&stats.neo, "Put").once(Duration::from_millis(200));
    stats.bytes_sent.set(9);
    stats.actions[0].add(7);
    let before = line(&stats, None, &[]);
    assert!(before.contains(" neo_request/Put/handled_over_100_ms:1 "), "{before}");
    reset(&stats);
    let after = line(&stats, None, &[]);
    assert!(after.contains(" request/Listen/max_active:1 request/Listen/handled:0 "));
    assert!(after.contains(" neo_request/Put/handled:0 neo_request/Put/mean_handled_time_micros:-nan "));
    assert!(after.contains(" action/written/records:0 action/written/bytes:0 ") && after.contains(" bytes_sent:0 "));
    assert_eq!(stats.actions[0].records_total.get(), 1);
    assert_eq!(request(&stats.neo, "Put").handled_total.get(), 1);
}

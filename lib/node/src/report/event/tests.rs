use std::time::Duration;

use overstory_model::event::{Limits, Parsed, parse};
use overstory_model::{Millis, Timestamp};

use super::*;
use crate::inspect::{DumpFacts, Facts, Gauge, Totals};

const NOW: Millis = Millis(1_795_245_631_000);

fn identity() -> Identity {
    Identity {
        program: "dhtnode",
        kind: "dht",
        connector_name: "dht",
        instance: "dht-a".to_owned(),
        group: "main".to_owned(),
        host: "web1.example.org".to_owned(),
        address: Some("127.0.0.1".to_owned()),
        port: Some(21000),
        neo_port: Some(21100),
        connection_limit: Some(5000),
        started: Timestamp(NOW.secs().0 - 60),
        interval_s: 30,
    }
}

fn snapshot() -> Snapshot {
    let dump = DumpFacts {
        period: Some(Duration::from_secs(3600)),
        last: Some(Timestamp(NOW.secs().0 - 10)),
        last_ok: Some(true),
        ..DumpFacts::default()
    };
    Snapshot {
        at: Millis(NOW.0 + 456),
        phase: Phase::Running,
        totals: Totals { records: 3, bytes: 28 },
        facts: Facts {
            range: Some((0, u64::MAX / 2)),
            memory: 4096,
            channels: 1,
            dump: Some(dump),
            ..Facts::default()
        },
        ..Snapshot::default()
    }
}

fn read(message: &Outgoing) -> Parsed {
    let parsed = parse(&message.body, message.routing_key.as_str(), Some("application/json"), NOW, &Limits::default());
    parsed.unwrap_or_else(|reject| panic!("{reject:?}"))
}

#[test]
fn the_perf_event_is_one_that_the_engines_read_without_a_remark() {
    let mut fields = Fields::default();
    fields.int("bytes_sent", 116);
    fields.float("request/Put/mean_handled_time_micros", f64::NAN);
    fields.float("cpu_user", 2.5);
    fields.of("channel", "chan-1", "bytes", 28);
    let message = perf(&identity(), &snapshot(), Some(&fields));
    assert_eq!(message.routing_key.as_str(), "swarm.dht.perf.resource.web1/example/org.dht-a");
    let parsed = read(&message);
    assert_eq!(parsed.notes, []);
    assert_eq!(parsed.event.entity_id().as_str(), "dht-a/web1.example.org");
    assert_eq!(parsed.event.routing_key(), message.routing_key);
    let samples: Vec<_> = parsed.event.samples.iter().map(|s| (s.metric.as_str(), s.value)).collect();
    assert_eq!(samples, [("bytes_sent", 116.0), ("cpu_user", 2.5), ("channel/chan-1/bytes", 28.0)]);
    assert_eq!(
        parsed.event.extra["node"],
        json!({
            "type": "dht", "program": "dhtnode", "version": env!("CARGO_PKG_VERSION"), "instance": "dht-a", "group": "main",
            "host": "web1.example.org", "address": "127.0.0.1", "port": 21000, "neo_port": 21100,
            "range": {"min": "0x0000000000000000", "max": "0x7fffffffffffffff"}, "started": NOW.secs().0 - 60,
            "state": "running", "records": 3, "bytes": 28, "memory": 4096, "memory_limit": null, "connections": 0,
            "connection_limit": 5000, "channels": 1, "last_dump": NOW.secs().0 - 10, "last_dump_ok": true,
            "dump_period_s": 3600, "interval_s": 30,
        })
    );
}

#[test]
fn a_check_carries_the_same_object_and_a_bounded_text() {
    let mut stopped = snapshot();
    stopped.phase = Phase::Stopped;
    let message = check(&identity(), &stopped, State::Major, &"é".repeat(300));
    assert_eq!(message.routing_key.as_str(), "swarm.dht.check.resource.web1/example/org.dht-a");
    let parsed = read(&message);
    assert_eq!(parsed.notes, []);
    assert_eq!(parsed.event.kind, EventKind::Check { state: State::Major });
    assert_eq!(parsed.event.output.chars().count(), 255);
    assert_eq!(parsed.event.extra["node"]["state"], "stopped");
}

#[test]
fn of_many_channels_the_largest_are_reported() {
    let mut fields = Fields::default();
    for n in 0..2000_u64 {
        fields.of("channel", &format!("c{n}"), "bytes", n);
        fields.of("channel", &format!("c{n}"), "records", 1);
    }
    fields.int("logged_info", 1);
    let message = perf(&identity(), &snapshot(), Some(&fields));
    let samples = read(&message).event.samples;
    assert_eq!(samples.len(), 2 * LARGEST + 1);
    assert!(samples.iter().any(|sample| sample.metric == "channel/c1950/records"));
    assert!(!samples.iter().any(|sample| sample.metric == "channel/c1949/records"));
    assert!(message.body.len() < 64 << 10, "{} bytes", message.body.len());
}

#[test]
fn of_many_queues_the_fullest_are_reported_beside_the_largest_channels() {
    let mut fields = Fields::default();
    for n in 0..2000_u64 {
        fields.of("channel", &format!("c{n}"), "bytes", n);
        fields.of("channel", &format!("c{n}"), "records", 1);
    }
    for n in 0..2000_u64 {
        // A queue with much on disk is not a full one.
        for (field, value) in [("bytes_memory", 2000 - n), ("bytes_overflow", 1000 * n), ("records_memory", 1)] {
            fields.of("channel", &format!("s@c{n}"), field, value);
        }
        fields.of("channel", &format!("s@c{n}"), "percent_memory", if n < 40 { 100 - n } else { 1 });
    }
    let mut snapshot = snapshot();
    snapshot.gauges.push(Gauge { name: "overflow_bytes", help: "", value: 7 });
    let message = perf(&identity(), &snapshot, Some(&fields));
    let samples = read(&message).event.samples;
    assert_eq!(samples.len(), 2 * LARGEST + 4 * LARGEST + 1);
    let has = |metric: &str, value: f64| samples.iter().any(|s| s.metric == metric && (s.value - value).abs() < 1e-9);
    assert!(has("channel/c1950/bytes", 1950.0) && has("channel/s@c0/percent_memory", 100.0));
    assert!(has("channel/s@c39/percent_memory", 61.0) && has("channel/s@c1999/bytes_overflow", 1_999_000.0));
    assert!(!samples.iter().any(|s| s.metric == "channel/s@c1000/percent_memory"));
    assert!(has("overflow_bytes", 7.0));
    assert!(message.body.len() < 64 << 10, "{} bytes", message.body.len());
}

#[test]
fn a_node_without_range_and_dumps_says_so() {
    let mut snapshot = snapshot();
    snapshot.facts = Facts { memory: 4096, channels: 1, ..Facts::default() };
    let parsed = read(&check(&identity(), &snapshot, State::Ok, "started"));
    assert_eq!(parsed.notes, []);
    let node = &parsed.event.extra["node"];
    for key in ["range", "memory_limit", "last_dump", "last_dump_ok", "dump_period_s"] {
        assert!(node[key].is_null(), "{key}");
    }
}

#[test]
fn names_beyond_reason_still_make_an_event() {
    let mut identity = identity();
    identity.host = "h".repeat(300);
    let message = perf(&identity, &snapshot(), None);
    assert!(message.routing_key.as_str().len() <= 255);
    let samples = read(&message).event.samples;
    assert_eq!(samples.iter().map(|s| s.metric.as_str()).collect::<Vec<_>>(), ["total_bytes", "total_records"]);
}

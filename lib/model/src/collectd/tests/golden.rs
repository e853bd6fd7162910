//! What Debian's collectd 5.12 sent, captured: every line of `tests/data/collectd-samples.jsonl`.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::*;

const SAMPLES: &str = include_str!("../../../tests/data/collectd-samples.jsonl");

#[derive(Deserialize)]
struct Captured {
    routing_key: String,
    content_type: String,
    body: String,
    format: String,
}

fn captured() -> Vec<Captured> {
    SAMPLES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn decoded(sample: &Captured, content_type: Option<&str>, routing_key: &str) -> Decoded {
    decode(&message(content_type, routing_key, &sample.body), TypesDb::builtin()).unwrap()
}

/// The names of all metrics in one of the four captured streams.
fn metrics(format: &str) -> BTreeSet<String> {
    let lists = captured().into_iter().filter(|sample| sample.format == format).flat_map(|sample| {
        let decoded = decoded(&sample, Some(&sample.content_type), &sample.routing_key);
        assert!(decoded.skipped.is_empty(), "{}", sample.body);
        decoded.lists
    });
    lists.flat_map(|list| list.values.iter().map(|v| list.identity.metric(&v.source)).collect::<Vec<_>>()).collect()
}

#[test]
fn every_captured_message_is_read() {
    let samples = captured();
    assert_eq!(samples.len(), 230);
    for sample in &samples {
        let decoded = decoded(sample, Some(&sample.content_type), &sample.routing_key);
        assert_eq!(decoded.lists.len(), 1, "{}", sample.body);
        assert!(decoded.skipped.is_empty());
        assert_eq!(decoded.lists[0].identity.host, "host1.example.org");
        let sniffed = self::decoded(sample, None, &sample.routing_key);
        assert_eq!(sniffed, decoded, "the body alone tells the format");
    }
}

#[test]
fn all_formats_give_the_same_metrics() {
    let expected = metrics("cmd");
    assert_eq!(expected.len(), 59);
    for format in ["json", "jsonrates", "graphite"] {
        assert_eq!(metrics(format), expected, "{format}");
    }
    for name in ["memory/memory-used", "load/load/midterm", "df-root/percent_bytes-used", "interface-lo/if_octets/tx"] {
        assert!(expected.contains(name), "{name}");
    }
    for name in ["cpu-0/cpu-user", "disk-vda/disk_io_time/weighted_io_time", "swap/swap_io-in", "uptime/uptime"] {
        assert!(expected.contains(name), "{name}");
    }
}

#[test]
fn graphite_without_our_routing_key_keeps_all_but_the_dots_of_the_host() {
    for sample in captured().iter().filter(|sample| sample.format == "graphite") {
        let routed = decoded(sample, None, &sample.routing_key);
        let mut bare = decoded(sample, None, "metrics");
        assert_eq!(bare.lists[0].identity.host, "host1_example_org");
        bare.lists[0].identity.host = "host1.example.org".to_owned();
        assert_eq!(bare, routed);
    }
}

#[test]
fn the_values_are_those_that_were_sent() {
    let find = |format: &str, part: &str| {
        let sample = captured().into_iter().find(|s| s.format == format && s.body.contains(part)).unwrap();
        decoded(&sample, Some(&sample.content_type), &sample.routing_key).lists.remove(0)
    };
    let command = find("cmd", "disk-vda/disk_octets");
    assert_eq!(command.at, Millis(1_795_236_276_500));
    assert_eq!(command.interval, Some(Duration::from_secs(2)));
    let readings: Vec<Reading> = command.values.iter().map(|value| value.reading).collect();
    assert_eq!(readings, [Reading::Count(5_284_918_272), Reading::Count(11_259_506_688)]);
    let load = find("json", "\"load\"");
    assert_eq!(load.values[1].source, "midterm");
    assert_eq!(load.values[1].reading, Reading::Gauge(14.194_824_218_75));
    let rates = find("graphite", "cpu-user 34.507000");
    assert_eq!(rates.values[0].reading, Reading::Rate(34.507));
    assert_eq!(rates.at, Millis(1_795_236_278_000));
    assert_eq!(find("graphite", "cpu-user nan").values[0].reading, Reading::Unknown);
}

#[test]
fn a_sender_of_rates_is_told_from_a_sender_of_counts() {
    let samples = |format: &str| {
        let mut rates = Rates::new(1000);
        let lists = captured().into_iter().filter(|sample| sample.format == format);
        let lists = lists.flat_map(|s| decoded(&s, Some(&s.content_type), &s.routing_key).lists);
        lists.flat_map(|list| rates.samples(&list)).collect::<Vec<_>>()
    };
    let user = |format: &str| {
        samples(format).into_iter().filter(|s| s.metric == "cpu-0/cpu-user").map(|s| s.value).collect::<Vec<_>>()
    };
    assert_eq!(user("cmd"), [] as [f64; 0], "one count makes no rate");
    assert_eq!(user("json"), [] as [f64; 0]);
    assert_eq!(user("graphite"), [34.507]);
    assert_eq!(user("jsonrates").len(), 1);
    let rates = samples("jsonrates");
    let octets = rates.iter().find(|s| s.metric == "interface-lo/if_octets/rx").unwrap();
    assert_eq!(octets.unit.as_deref(), Some("B/s"));
    assert!(octets.at.is_some());
}

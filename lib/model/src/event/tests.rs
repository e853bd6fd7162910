#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::Millis;

const NOW: Millis = Millis(1_795_236_274_499);

fn read(body: &[u8]) -> Result<Parsed, Reject> {
    parse(body, "", Some("application/json"), NOW, &Limits::default())
}

/// A minimal event with some keys replaced; null removes one, the string "null!" stands for null.
fn with(changes: &Value) -> Vec<u8> {
    let mut event = json!({"connector": "nagios", "connector_name": "poller1", "event_type": "check",
        "source_type": "resource", "component": "host1", "resource": "disk", "state": 2, "timestamp": 1_795_236_000,
        "output": "disk is full"});
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => event.as_object_mut().unwrap().remove(key),
            Value::String(text) if text == "null!" => event.as_object_mut().unwrap().insert(key.clone(), Value::Null),
            value => event.as_object_mut().unwrap().insert(key.clone(), value.clone()),
        };
    }
    serde_json::to_vec(&event).unwrap()
}

fn event(changes: &Value) -> Event {
    read(&with(changes)).unwrap().event
}

fn notes(changes: &Value) -> Vec<Note> {
    read(&with(changes)).unwrap().notes
}

fn reason(changes: &Value) -> Reason {
    read(&with(changes)).unwrap_err().reason
}

fn state_of(event: &Event) -> u8 {
    match event.kind {
        EventKind::Check { state } => state.into(),
        _ => panic!("{event:?}"),
    }
}

#[test]
fn a_complete_event_of_v4_needs_no_notes() {
    let parsed = read(&with(&json!({"author": "somebody", "tags": {"env": "prod"}, "team": "night"}))).unwrap();
    assert_eq!(parsed.notes, []);
    let event = parsed.event;
    assert_eq!(event.entity_id().as_str(), "disk/host1");
    assert_eq!(state_of(&event), 2);
    assert_eq!(event.at, Millis(1_795_236_000_000));
    // What an external event says about its author does not count.
    assert_eq!(event.author, "nagios.poller1");
    assert_eq!(event.tags, BTreeMap::from([("env".to_owned(), "prod".to_owned())]));
    assert_eq!(event.extra, *json!({"team": "night"}).as_object().unwrap());
}

#[test]
fn an_event_of_2015_is_understood() {
    let body = json!({"connector": "nagios", "connector_name": "poller1", "event_type": "check",
        "source_type": "component", "component": "host1", "resource": "", "state": "1", "state_type": "1",
        "timestamp": "1795236000", "output": "slow", "perf_data": "load1=0.25;5;10;0; 'disk /var'=12,5%;80;90",
        "perf_data_array": [{"metric": "load1", "value": "0.5"}], "tags": ["web", "env: prod"], "rk": "a.b.c",
        "hostgroups": ["all"]});
    let Parsed { event, notes } = read(&serde_json::to_vec(&body).unwrap()).unwrap();
    assert_eq!(notes, [Note::NumericString]);
    assert_eq!(event.source, Source::Component { component: "host1".to_owned() });
    assert_eq!((state_of(&event), state_type(&event)), (1, Some(1)));
    let samples: Vec<_> = event.samples.iter().map(|sample| (sample.metric.as_str(), sample.value)).collect();
    assert_eq!(samples, [("load1", 0.5), ("disk /var", 12.5)]);
    assert_eq!(event.tags["env"], "prod");
    assert_eq!(event.tags["web"], "");
    assert!(event.extra.contains_key("hostgroups") && !event.extra.contains_key("rk"));
}

#[test]
fn refusals_have_their_codes() {
    let long = "x".repeat(3000);
    let cases = [
        (json!({"connector": null}), "missing_connector"),
        (json!({"connector": " "}), "missing_connector"),
        (json!({"connector": "null!"}), "missing_connector"),
        (json!({"connector_name": ""}), "missing_connector_name"),
        (json!({"component": null}), "missing_component"),
        (json!({"component": null, "resource": null, "source_type": null}), "missing_component"),
        (json!({"resource": ""}), "missing_resource"),
        (json!({"resource": "null!"}), "missing_resource"),
        (json!({"resource": {"a": 1}}), "wrong_type"),
        (json!({"component": ["a"]}), "wrong_type"),
        (json!({"component": long}), "name_too_long"),
        (json!({"event_type": "nonsense"}), "unknown_type"),
        (json!({"event_type": "CHECK"}), "unknown_type"),
        (json!({"event_type": 5}), "wrong_type"),
        (json!({"event_type": "ack"}), "unsupported_type"),
        (json!({"event_type": "snooze"}), "unsupported_type"),
        (json!({"event_type": "trap"}), "unsupported_type"),
        (json!({"event_type": "comment"}), "unsupported_type"),
        (json!({"source_type": "service"}), "unsupported_source_type"),
        (json!({"source_type": "metaalarm"}), "unsupported_source_type"),
        (json!({"source_type": "planet"}), "invalid_source_type"),
        (json!({"source_type": 1}), "wrong_type"),
        (json!({"state": "null!"}), "invalid_state"),
        (json!({"state": 4}), "invalid_state"),
        (json!({"state": -1}), "invalid_state"),
        (json!({"state": 1.5}), "invalid_state"),
        (json!({"state": "critical"}), "invalid_state"),
        (json!({"state": "NaN"}), "invalid_state"),
        (json!({"state": true}), "invalid_state"),
        (json!({"state": [2]}), "invalid_state"),
        (json!({"output": {"a": 1}}), "wrong_type"),
        (json!({"long_output": [1]}), "wrong_type"),
        (json!({"author": []}), "wrong_type"),
    ];
    for (changes, code) in cases {
        assert_eq!(reason(&changes).code(), code, "{changes}");
    }
}

#[test]
fn bodies_that_are_no_object_are_refused() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"PUTVAL host/load/load 1:2", "bad_json"),
        (b"{\"connector\": }", "bad_json"),
        (b"[]", "not_an_object"),
        (b"\"event\"", "not_an_object"),
        (b"null", "not_an_object"),
        (b"NaN", "not_an_object"),
    ];
    for (body, code) in cases {
        assert_eq!(read(body).unwrap_err().reason.code(), code, "{}", String::from_utf8_lossy(body));
    }
    let nested = "[".repeat(100_000);
    assert_eq!(read(nested.as_bytes()).unwrap_err().reason, Reason::BadJson);
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(read(&large).unwrap_err().reason, Reason::Oversized);
    let collectd = parse(b"{}", "", Some("text/collectd"), NOW, &Limits::default());
    assert_eq!(collectd.unwrap_err().reason, Reason::WrongContentType);
}

#[test]
fn what_can_be_put_right_is_and_is_noted() {
    let cases = [
        (json!({"timestamp": null}), Note::NoTimestamp),
        (json!({"timestamp": 1_795_236_274.0 - 90_000.0}), Note::FarTimestamp),
        (json!({"timestamp": 1_795_236_274.0 + 90_000.0}), Note::FarTimestamp),
        (json!({"timestamp": 1_795_236_274_499_i64}), Note::FarTimestamp),
        (json!({"timestamp": 1e300}), Note::FarTimestamp),
        (json!({"timestamp": "soon"}), Note::BadTimestamp),
        (json!({"timestamp": "nan"}), Note::BadTimestamp),
        (json!({"timestamp": {}}), Note::BadTimestamp),
        (json!({"timestamp": "1795236000.5"}), Note::NumericString),
        (json!({"state": "2"}), Note::NumericString),
        (json!({"component": 42}), Note::TextFromOther),
        (json!({"output": 42}), Note::TextFromOther),
        (json!({"component": "a\u{0}b"}), Note::ControlCharacters),
        (json!({"output": "a\u{1b}[31mb"}), Note::ControlCharacters),
        (json!({"output": "x".repeat(300 * 1024)}), Note::OutputCut),
        (json!({"long_output": "y".repeat(300 * 1024)}), Note::OutputCut),
        (json!({"event_type": null}), Note::NoEventType),
        (json!({"event_type": ""}), Note::NoEventType),
        (json!({"source_type": null}), Note::NoSourceType),
        (json!({"source_type": "component"}), Note::ResourceIgnored),
        (json!({"source_type": null, "resource": [1]}), Note::ResourceIgnored),
        (json!({"initiator": "martian"}), Note::BadInitiator),
        (json!({"initiator": 3}), Note::BadInitiator),
        (json!({"perf_data": 12}), Note::PerfDataSkipped),
        (json!({"perf_data": "a=b"}), Note::PerfDataSkipped),
        (json!({"perf_data_array": [{"value": 1}]}), Note::PerfDataSkipped),
        (json!({"tags": 5}), Note::TagsCut),
        (json!({"tags": {"a": {}}}), Note::TagsCut),
        (json!({"extra": 5}), Note::ExtraCut),
    ];
    for (changes, note) in cases {
        assert!(notes(&changes).contains(&note), "{changes}: {:?}", notes(&changes));
    }
}

#[test]
fn texts_are_cleaned_and_cut() {
    let event = event(&json!({"component": "a\u{0}b\nc", "output": "one\r\ntwo\tthree\u{7}",
        "long_output": "one\r\ntwo\tthree\u{7}\rfour"}));
    assert_eq!(event.component(), "a?b?c");
    assert_eq!(event.output, "one two three?");
    assert_eq!(event.long_output, "one\ntwo\tthree??four");
    let event = super::tests::event(&json!({"output": "é".repeat(300), "long_output": "é".repeat(2000)}));
    assert_eq!(event.output.chars().count(), 255);
    assert_eq!(event.long_output.chars().count(), 1024);
}

#[test]
fn a_name_of_400_bytes_is_fine() {
    let name = "c".repeat(400);
    let event = event(&json!({ "component": name }));
    assert_eq!(event.component(), name);
    assert_eq!(event.routing_key().as_str().len(), 255);
}

#[test]
fn times_are_read_to_the_millisecond() {
    assert_eq!(event(&json!({"timestamp": 1_795_236_000.123})).at, Millis(1_795_236_000_123));
    assert_eq!(event(&json!({"timestamp": null})).at, NOW);
    assert_eq!(event(&json!({"timestamp": 12})).at, NOW);
}

#[test]
fn a_check_without_state_is_ok_and_other_types_have_none() {
    assert_eq!(state_of(&event(&json!({"state": null}))), 0);
    assert_eq!(state_of(&event(&json!({"state": 3.0}))), 3);
    for kind in ["selector", "sla", "eue", "topology", "toponode", "consolidation"] {
        assert_eq!(state_of(&event(&json!({"event_type": kind}))), 2);
    }
    assert_eq!(event(&json!({"event_type": "perf", "state": "whatever"})).kind, EventKind::Perf);
    assert_eq!(event(&json!({"event_type": "log"})).kind, EventKind::Log);
}

#[test]
fn operators_and_the_platform_keep_their_names() {
    let event = event(&json!({"initiator": "user", "author": "ada"}));
    assert_eq!((event.initiator, event.author.as_str()), (Initiator::User, "ada"));
    let event = super::tests::event(&json!({"initiator": "system"}));
    assert_eq!(event.author, "nagios.poller1");
}

#[test]
fn numbers_that_json_does_not_know_count_as_null() {
    let body = br#"{"connector": "c", "connector_name": "NaN, \"Infinity", "component": "h", "timestamp": NaN,
        "perf_data_array": [{"metric": "a", "value": -Infinity}, {"metric": "b", "value": 1}], "x": Infinity}"#;
    let Parsed { event, notes } = read(body).unwrap();
    assert!(notes.contains(&Note::NonFiniteNumber));
    assert_eq!(event.connector_name, "NaN, \"Infinity");
    assert_eq!(event.samples.len(), 1);
    let body = br#"{"connector": "c", "connector_name": "n", "component": "h", "state": NaN}"#;
    assert_eq!(read(body).unwrap_err().reason, Reason::InvalidState);
}

#[test]
fn stray_backslashes_and_raw_control_characters_are_escaped() {
    let event = |output: &str| {
        let body = format!(r#"{{"connector": "c", "connector_name": "n", "component": "h", "output": "{output}"}}"#);
        let Parsed { event, notes } = read(body.as_bytes()).unwrap();
        assert!(notes.contains(&Note::RepairedJson), "{output}");
        event.output
    };
    assert_eq!(event(r"C:\new\data"), r"C:\new\data");
    assert_eq!(event(r#"D:\x \"quoted\""#), r#"D:\x "quoted""#);
    assert_eq!(event("tab\there"), "tab here");
}

#[test]
fn bytes_that_are_not_utf8_are_replaced() {
    let body = b"{\"connector\": \"c\", \"connector_name\": \"n\", \"component\": \"caf\xe9\"}";
    let Parsed { event, notes } = read(body).unwrap();
    assert_eq!(event.component(), "caf\u{fffd}");
    assert!(notes.contains(&Note::InvalidUtf8));
    let body = b"\xef\xbb\xbf{\"connector\": \"c\", \"connector_name\": \"n\", \"component\": \"h\"}";
    assert!(read(body).is_ok());
}

#[test]
fn tags_and_extra_are_bounded() {
    let many: serde_json::Map<String, Value> = (0..500).map(|n| (format!("k{n}"), json!("v"))).collect();
    let event = event(&json!({"tags": many, "extra": many}));
    assert_eq!((event.tags.len(), event.extra.len()), (100, 100));
    let event = super::tests::event(&json!({"extra": {"state": 3, "mine": 1}, "other": 2}));
    assert_eq!(event.extra, *json!({"mine": 1, "other": 2}).as_object().unwrap());
}

#[test]
fn the_routing_key_never_counts_but_a_contradiction_is_noted() {
    let note = |key: &str| {
        let parsed = parse(&with(&json!({"connector": "a.b"})), key, None, NOW, &Limits::default()).unwrap();
        parsed.notes.contains(&Note::RoutingKeyDiffers)
    };
    assert!(!note("a/b.poller1.check.resource.host1.disk"));
    assert!(!note(""));
    assert!(note("c.poller1.check"));
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ./:é%_-]{1,20}".prop_filter("not blank", |text| !text.trim().is_empty())
}

prop_compose! {
    fn any_source()(kind in 0..3, component in text(), resource in text()) -> Source {
        match kind {
            0 => Source::Connector,
            1 => Source::Component { component },
            _ => Source::Resource { component, resource },
        }
    }
}

prop_compose! {
    fn any_event()(
        kind in 0_u8..6, connector in text(), connector_name in text(), source in any_source(),
        offset in -86_000_000_i64..86_000_000, output in "[a-zA-Z0-9\\\\\"é ]{0,60}", long_output in "[a-z\n\t\"]{0,60}",
        samples in proptest::collection::btree_map(text(), -1_000_000..1_000_000, 0..5),
        tags in proptest::collection::btree_map(text(), "[a-z: ]{0,9}", 0..5),
        extra in proptest::collection::btree_map("x_[a-z]{1,9}", -5..5, 0..5), user in any::<bool>(), author in text(),
    ) -> Event {
        let external = format!("{connector}.{connector_name}");
        Event {
            kind: match kind {
                0..=3 => EventKind::Check { state: kind.try_into().unwrap() },
                4 => EventKind::Perf,
                _ => EventKind::Log,
            },
            author: if user { author } else { external },
            initiator: if user { Initiator::User } else { Initiator::External },
            connector, connector_name, source, output, long_output, tags,
            at: Millis(NOW.0 + offset),
            samples: samples.into_iter().map(|(name, value)| Sample::gauge(name, f64::from(value) / 4.0)).collect(),
            extra: extra.into_iter().map(|(key, value)| (key, Value::from(value))).collect(),
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_have_an_outcome(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&body);
    }

    #[test]
    fn arbitrary_objects_have_an_outcome_within_the_limits(
        keys in proptest::sample::subsequence(vec!["connector", "connector_name", "event_type", "source_type",
            "component", "resource", "state", "output", "long_output", "timestamp", "author", "initiator", "perf_data",
            "perf_data_array", "tags", "extra", "other"], 0..17),
        values in proptest::collection::vec(any_json(), 17),
    ) {
        let changes: serde_json::Map<String, Value> =
            keys.into_iter().map(str::to_owned).zip(values).collect();
        if let Ok(Parsed { event, .. }) = read(&with(&Value::Object(changes))) {
            prop_assert!(!event.connector.is_empty() && !event.connector_name.is_empty());
            prop_assert!(event.at.since(NOW).abs() <= 86_400_000);
            prop_assert!(event.output.chars().count() <= 255 && !event.output.chars().any(char::is_control));
            prop_assert!(event.samples.iter().all(|sample| sample.value.is_finite()));
        }
    }

    #[test]
    fn what_is_written_is_read_back(event in any_event()) {
        let parsed = read(&event.to_body()).unwrap();
        prop_assert_eq!(parsed.notes, []);
        prop_assert_eq!(parsed.event, event);
    }

    #[test]
    fn a_broken_body_never_panics(event in any_event(), cut in 0_usize..400, junk in any::<u8>()) {
        let mut body = event.to_body();
        body.truncate(cut);
        body.push(junk);
        let _ = read(&body);
    }
}

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::metric::MetricKind;

/// `name=value unit warn crit min max` of every sample, `-` where there is nothing.
fn shown(data: &PerfData) -> Vec<String> {
    let opt = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let line = |s: &Sample| {
        let unit = s.unit.as_deref().unwrap_or("-");
        let limits = [s.warn, s.crit, s.min, s.max].map(opt).join(" ");
        format!("{}={} {unit} {limits}", s.metric, s.value)
    };
    data.samples.iter().map(line).collect()
}

fn reasons(data: &PerfData) -> Vec<(&str, SkipReason)> {
    data.skipped.iter().map(|s| (s.metric.as_str(), s.reason)).collect()
}

#[test]
fn the_strings_of_2015_read_as_they_did() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("load1=0.25;5;10;0;", &["load1=0.25 - 5 10 0 -"]),
        ("'disk /var'=12,5%;80;90;0;100 time=0.1s", &["disk /var=12.5 % 80 90 0 100", "time=0.1 s - - - -"]),
        ("/=2643MB;5948;5958;0;5968,/boot=68MB;88;93;0;98", &["/=2643 MB 5948 5958 0 5968", "/boot=68 MB 88 93 0 98"]),
        ("c=U", &[]),
        ("a=-1.5e3 b=+2", &["a=-1500 - - - - -", "b=2 - - - - -"]),
        ("a=1,2b=3", &["a=1 - - - - -", "2b=3 - - - - -"]),
        ("a=1,5;2,5;3,5 b=2", &["a=1.5 - 2.5 3.5 - -", "b=2 - - - - -"]),
        ("'it''s'=1", &["it's=1 - - - - -"]),
        ("  a=1 ,, b=2\t\n", &["a=1 - - - - -", "b=2 - - - - -"]),
    ];
    for (text, expected) in cases {
        assert_eq!(shown(&parse_classic(text)), *expected, "{text}");
    }
}

#[test]
fn limits_after_a_range_are_not_lost() {
    let data = parse_classic("temp[C]=21.5;@10:20;30;~:5;10:");
    assert_eq!(shown(&data), ["temp=21.5 C 10 30 5 10"]);
}

#[test]
fn a_bad_item_costs_only_itself() {
    let data = parse_classic("a=1 junk b=2 =3 c=x d= e=U f=1e999 'open=4");
    assert_eq!(shown(&data), ["a=1 - - - - -", "b=2 - - - - -"]);
    let expected = [
        ("junk", SkipReason::Malformed),
        ("", SkipReason::BadName),
        ("c", SkipReason::BadValue),
        ("d", SkipReason::NoValue),
        ("e", SkipReason::Unknown),
        ("f", SkipReason::BadValue),
        ("'open=4", SkipReason::Malformed),
    ];
    assert_eq!(reasons(&data), expected);
}

#[test]
fn v4_names_metrics_by_unit_and_refuses_the_whole_string() {
    let data = parse_v4("cpu=20%;80;90;0;100 'it''s'=1s load=0.5 n=3c t=21°C x=U");
    let expected =
        ["cpu_%=20 % 80 90 0 100", "it's_s=1 s - - - -", "load=0.5 - - - - -", "n_c=3 c - - - -", "t_°C=21 °C - - - -"];
    assert_eq!(shown(&data), expected);
    assert_eq!(reasons(&data), [("x", SkipReason::Unknown)]);
    assert_eq!(data.samples[3].kind, MetricKind::Counter);
    for (text, reason) in [
        ("a=1 b=2GB", SkipReason::BadUnit),
        ("a=1 b=-2", SkipReason::BadValue),
        ("a=1 b=1.2.3", SkipReason::BadValue),
        ("a=1 b=1;2;3;4;5;6", SkipReason::Malformed),
        ("a=1 b", SkipReason::Malformed),
        ("a=1 b=", SkipReason::NoValue),
    ] {
        let data = parse_v4(text);
        assert!(data.samples.is_empty(), "{text}");
        assert_eq!(data.skipped.len(), 1, "{text}");
        assert_eq!(data.skipped[0].reason, reason, "{text}");
    }
}

#[test]
fn the_name_of_a_metric_does_not_depend_on_its_neighbours() {
    assert_eq!(parse("a=1s b=2").samples[0].metric, parse("a=1s b=-2").samples[0].metric);
    assert_eq!(parse_as(Dialect::V4, "a=1s").samples[0].metric, "a_s");
}

#[test]
fn arrays_take_numbers_in_any_form() {
    let data = parse_array(&json!([
        {"metric": "a", "value": 1, "unit": "s", "min": null, "warn": "0.6", "crit": "x", "type": "derive", "retention": 3600},
        {"metric": "b", "value": " 2.5 ", "unit": null},
        {"metric": "c", "value": u64::MAX},
    ]));
    assert_eq!(shown(&data), ["a=1 s 0.6 - - -", "b=2.5 - - - - -", "c=18446744073709552000 - - - - -"]);
    assert_eq!(data.samples[0].kind, MetricKind::Derive);
    assert!(data.skipped.is_empty());
    assert_eq!(shown(&parse_array(&json!("[{\"metric\":\"a\",\"value\":1}]"))), ["a=1 - - - - -"]);
}

#[test]
fn array_items_that_say_nothing_are_skipped_with_their_reason() {
    let data = parse_array(&json!([
        {"metric": "a", "value": "NaN"}, {"metric": "b", "value": null}, {"metric": "c"}, {"value": 1},
        {"metric": 7, "value": 1}, 5, {"metric": "d", "value": [1]}, {"metric": "e", "value": "inf"},
        {"metric": "f\u{7}", "value": 1}, {"metric": "g", "value": 1, "unit": "u".repeat(33)},
    ]));
    let expected = [
        SkipReason::Unknown,
        SkipReason::Unknown,
        SkipReason::NoValue,
        SkipReason::BadName,
        SkipReason::BadName,
        SkipReason::Malformed,
        SkipReason::BadValue,
        SkipReason::BadValue,
        SkipReason::BadName,
        SkipReason::BadUnit,
    ];
    assert!(data.samples.is_empty());
    assert_eq!(data.skipped.iter().map(|s| s.reason).collect::<Vec<_>>(), expected);
    for nothing in [json!(null), json!([]), json!("")] {
        assert_eq!(parse_array(&nothing), PerfData::default());
    }
    for wrong in [json!(5), json!({"a": 1}), json!("{}"), json!("[")] {
        assert_eq!(reasons(&parse_array(&wrong)), [("", SkipReason::Malformed)]);
    }
}

#[test]
fn nothing_grows_past_its_bound() {
    let many: String = (0..2000).map(|n| format!("m{n}=1 ")).collect();
    let items: Vec<Value> = (0..2000).map(|n| json!({"metric": format!("m{n}"), "value": 1})).collect();
    for data in [parse_classic(&many), parse_v4(&many), parse_array(&Value::Array(items))] {
        assert_eq!(data.samples.len(), MAX_SAMPLES);
        assert_eq!(reasons(&data), [("m1000", SkipReason::TooMany)]);
    }
    let long = format!("{}=1", "x".repeat(MAX_NAME + 1));
    assert_eq!(parse_classic(&long).skipped[0].reason, SkipReason::BadName);
    assert_eq!(parse_classic(&long).skipped[0].metric.len(), MAX_NAME);
    assert_eq!(parse_classic(&"=".repeat(MAX_TEXT + 1)).skipped[0].reason, SkipReason::Malformed);
    assert_eq!(parse_classic(&"x ".repeat(5000)).skipped.len(), MAX_SAMPLES);
}

proptest! {
    #[test]
    fn no_string_panics_or_breaks_a_bound(text in "([a-z'=;,:@~ 0-9.%U\\[\\]°eE+-]|\\PC){0,200}") {
        for data in [parse_classic(&text), parse_v4(&text)] {
            for sample in &data.samples {
                prop_assert!(sample.value.is_finite());
                prop_assert!(is_name(&sample.metric));
            }
        }
    }

    #[test]
    fn the_classic_grammar_reads_all_that_v4_accepts(
        items in proptest::collection::vec(("[a-z]{1,8}", 0u32..100_000, 0u32..1000, 0usize..11), 1..8)
    ) {
        let units = ["", "%", "°C", "s", "us", "ms", "B", "KB", "MB", "TB", "c"];
        let text: Vec<String> =
            items.iter().map(|(label, whole, part, unit)| format!("{label}={whole}.{part}{}", units[*unit])).collect();
        let (classic, v4) = (parse_classic(&text.join(" ")), parse_v4(&text.join(" ")));
        prop_assert_eq!(v4.samples.len(), items.len());
        for (ours, theirs) in classic.samples.iter().zip(&v4.samples) {
            prop_assert_eq!(ours.value, theirs.value);
            prop_assert_eq!(&ours.unit, &theirs.unit);
        }
    }
}

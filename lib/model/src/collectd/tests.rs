#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod golden;
mod rates;

use proptest::prelude::*;

use super::*;

const NOW: Millis = Millis(1_795_236_280_000);

fn message<'a>(content_type: Option<&'a str>, routing_key: &'a str, body: &'a str) -> Message<'a> {
    Message { content_type, routing_key, body: body.as_bytes(), received: NOW }
}

fn read(body: &str) -> Result<Decoded, DecodeError> {
    decode(&message(None, "", body), TypesDb::builtin())
}

fn first(body: &str) -> ValueList {
    read(body).unwrap().lists.remove(0)
}

fn reason(body: &str) -> SkipReason {
    match read(body) {
        Err(DecodeError::Nothing(reason)) => reason,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn the_content_type_decides_and_the_body_only_without_one() {
    let command = "PUTVAL h/load/load N:1:2:3";
    for content_type in [None, Some("text/collectd; charset=utf-8"), Some("application/octet-stream")] {
        let list = decode(&message(content_type, "", command), TypesDb::builtin()).unwrap().lists.remove(0);
        assert_eq!((list.format, list.at), (Format::Command, NOW));
    }
    assert!(matches!(
        decode(&message(Some("application/json"), "", command), TypesDb::builtin()),
        Err(DecodeError::NotJson(_))
    ));
    assert_eq!(first("putval h/uptime/uptime N:5").format, Format::Command);
    assert_eq!(first("h.uptime.uptime 5 1795236280").format, Format::Graphite);
    assert!(matches!(read(" \r\n"), Err(DecodeError::Empty)));
    assert!(matches!(
        decode(&Message { body: b"\xff", ..message(None, "", "") }, TypesDb::builtin()),
        Err(DecodeError::NotText(_))
    ));
}

#[test]
fn a_quoted_identifier_may_hold_blanks_and_quotes() {
    let list = first(r#"PUTVAL "my host/df-C:\\ \"x\"/df_complex-free" interval=2.5 1795236270.25:7 1795236271:U"#);
    assert_eq!(list.identity.host, "my host");
    assert_eq!(list.identity.plugin_instance, r#"C:\ "x""#);
    assert_eq!(list.interval, Some(Duration::from_millis(2500)));
    assert_eq!(list.at, Millis(1_795_236_270_250));
    assert_eq!(list.values[0].reading, Reading::Gauge(7.0));
    let both = read("PUTVAL h/uptime/uptime 1795236270:1 1795236271:U\nPUTVAL h/uptime/uptime N:3").unwrap();
    assert_eq!(both.lists.len(), 3);
    assert_eq!(both.lists[1].values[0].reading, Reading::Unknown);
}

#[test]
fn counts_keep_every_digit() {
    let json = |kind: &str, value: &str| {
        format!(
            r#"[{{"values":[{value}],"dstypes":["{kind}"],"dsnames":["value"],"time":1795236280.0,"interval":10.0,
            "host":"h","plugin":"p","plugin_instance":"","type":"counter","type_instance":""}}]"#
        )
    };
    let reading = |kind: &str, value: &str| first(&json(kind, value)).values[0].reading;
    assert_eq!(reading("counter", "18446744073709551615"), Reading::Count(i128::from(u64::MAX)));
    assert_eq!(reading("derive", "-9223372036854775808"), Reading::Count(i128::from(i64::MIN)));
    assert_eq!(reading("derive", "1.5"), Reading::Rate(1.5));
    assert_eq!(reading("gauge", "null"), Reading::Unknown);
    assert_eq!(reading("gauge", "3"), Reading::Gauge(3.0));
    assert_eq!(
        first("PUTVAL h/p/counter N:18446744073709551615").values[0].reading,
        Reading::Count(i128::from(u64::MAX))
    );
    assert_eq!(reason(&json("gauge", "\"3\"")), SkipReason::BadValue);
    assert_eq!(reason(&json("strange", "3")), SkipReason::Malformed);
}

#[test]
fn what_cannot_be_read_is_named_and_costs_only_itself() {
    for (body, expected) in [
        ("PUTVAL", SkipReason::Malformed),
        ("PUTVAL h/p", SkipReason::BadName),
        ("PUTVAL h//gauge N:1", SkipReason::BadName),
        ("PUTVAL h/p/gauge", SkipReason::Malformed),
        ("PUTVAL h/p/gauge interval=1", SkipReason::Malformed),
        ("PUTVAL h/p/gauge N", SkipReason::Malformed),
        ("PUTVAL h/p/gauge N:x", SkipReason::BadValue),
        ("PUTVAL h/p/gauge soon:1", SkipReason::BadValue),
        ("PUTVAL h/p/gauge N:1:2", SkipReason::WrongCount),
        ("PUTVAL h/p/no_such_type N:1", SkipReason::UnknownType),
        ("PUTVAL \"h/p/gauge N:1", SkipReason::Malformed),
        ("PUTVAL h/p/gauge N:1 \"", SkipReason::Malformed),
        ("h.p.gauge 1", SkipReason::Malformed),
        ("h.gauge 1 1795236280", SkipReason::BadName),
        ("h.p.load 1 1795236280", SkipReason::WrongCount),
        ("[5]", SkipReason::Malformed),
        (r#"[{"values":[],"dstypes":[],"dsnames":[],"host":"h","plugin":"p","type":"t"}]"#, SkipReason::WrongCount),
    ] {
        match read(body) {
            Ok(decoded) if !decoded.lists.is_empty() => assert_eq!(decoded.skipped[0].reason, expected, "{body}"),
            _ => assert_eq!(reason(body), expected, "{body}"),
        }
    }
    let good = r#"{"values":[1],"dstypes":["gauge"],"dsnames":["value"],"host":"h","plugin":"p","type":"gauge"}"#;
    let mixed = read(&format!("[{good},{{}},{good}]")).unwrap();
    assert_eq!((mixed.lists.len(), mixed.skipped.len()), (2, 1));
    assert_eq!(first(good).at, NOW);
    assert!(matches!(read("[1,"), Err(DecodeError::NotJson(_))));
}

#[test]
fn a_time_a_day_off_is_replaced_by_the_arrival() {
    let at = |seconds: i64| first(&format!("PUTVAL h/p/gauge {seconds}:1")).at;
    assert_eq!(at(NOW.secs().0 - 86_399), Millis(NOW.0 - 86_399_000));
    assert_eq!(at(NOW.secs().0 + 86_401), NOW);
    assert_eq!(at(0), NOW);
    assert_eq!(at(i64::MAX), NOW);
}

#[test]
fn names_are_cleaned_and_bounded() {
    let list = first("PUTVAL h/p-\u{1}x/gauge-a N:1");
    assert_eq!(list.identity.metric("value"), "p-?x/gauge-a");
    assert_eq!(reason(&format!("PUTVAL h/p-{}/gauge N:1", "x".repeat(256))), SkipReason::BadName);
    let long = first(&format!("PUTVAL h/p-{}/gauge-{} N:1", "x".repeat(200), "y".repeat(200)));
    assert!(Rates::new(1).samples(&long).is_empty());
    assert_eq!(metric_name("df", "root", "percent_bytes", "used", "value"), "df-root/percent_bytes-used");
    assert_eq!(metric_name("interface", "eth0", "if_octets", "", "rx"), "interface-eth0/if_octets/rx");
    assert_eq!(metric_name("load", "", "load", "", "shortterm"), "load/load/shortterm");
}

#[test]
fn a_types_file_adds_to_the_table_and_says_where_it_is_wrong() {
    let mut types = TypesDb::builtin().clone();
    let known = types.len();
    types
        .extend_from("# mine\nmine  a:GAUGE:U:U, b:COUNTER:0:4294967295\n\nib_octets rx:DERIVE:0:U tx:DERIVE:0:U\n")
        .unwrap();
    assert_eq!(types.len(), known + 1);
    let mine = types.get("mine").unwrap();
    assert_eq!((mine[1].kind, mine[1].min, mine[1].max), (MetricKind::Counter, Some(0.0), Some(4_294_967_295.0)));
    assert_eq!(types.get("ib_octets").unwrap().len(), 2);
    let error = |text: &str| TypesDb::default().extend_from(text).unwrap_err().to_string();
    assert_eq!(error("\nx"), "line 2: a type without sources");
    assert_eq!(error("x value:GAUGE:0"), "line 1: a data source is NAME:KIND:MIN:MAX");
    assert_eq!(error("x value:GAUGES:0:U"), "line 1: the kind is GAUGE, COUNTER, DERIVE or ABSOLUTE");
    assert_eq!(error("x value:GAUGE:0:much"), "line 1: a limit is a number or U");
}

#[test]
fn the_builtin_table_is_whole() {
    let types = TypesDb::builtin();
    assert_eq!(types.len(), 366);
    for name in ["cpu", "memory", "load", "df_complex", "if_octets", "disk_io_time", "swap_io", "uptime", "ps_count"] {
        assert!(types.get(name).is_some(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_body_panics(
        body in "(PUTVAL |[a-z0-9./:\" \\\\=\\[\\]{},NUu\n-]|\\PC){0,200}",
        key in "[a-z./]{0,40}",
        kind in proptest::option::of("(text/collectd|application/json|text/graphite|x)"),
    ) {
        let mut rates = Rates::new(4);
        if let Ok(decoded) = decode(&message(kind.as_deref(), &key, &body), TypesDb::builtin()) {
            for list in &decoded.lists {
                prop_assert!(!list.values.is_empty());
                for sample in rates.samples(list) {
                    prop_assert!(sample.value.is_finite());
                }
            }
        }
    }
}

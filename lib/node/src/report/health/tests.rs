use std::time::Duration;

use overstory_model::Timestamp;

use super::*;
use crate::inspect::Facts;
use crate::watch::Traffic;

const STARTED: Timestamp = Timestamp(1_795_245_631);

fn health() -> Health {
    Health::new(Thresholds::default(), Some(100), STARTED.millis())
}

fn snapshot(facts: Facts) -> Snapshot {
    Snapshot { at: STARTED.millis(), facts, ..Snapshot::default() }
}

fn memory(percent: u64) -> Snapshot {
    snapshot(Facts { memory: percent, memory_limit: Some(100), ..Facts::default() })
}

/// The verdict once it had the time to settle.
fn settled(health: &mut Health, snapshot: &Snapshot) -> (State, Vec<String>) {
    let mut verdict = health.take(snapshot);
    (1..CONSECUTIVE).for_each(|_| verdict = health.take(snapshot));
    (verdict.state, verdict.findings.into_iter().map(|finding| finding.text).collect())
}

#[test]
fn memory_has_three_levels_that_are_left_with_some_distance() {
    let mut health = health();
    for (percent, state) in
        [(79, 0), (80, 1), (79, 1), (78, 1), (77, 0), (90, 2), (89, 2), (95, 3), (93, 3), (92, 2), (1, 0)]
    {
        let (found, texts) = settled(&mut health, &memory(percent));
        assert_eq!(u8::from(found), state, "{percent} %: {texts:?}");
    }
}

#[test]
fn what_comes_and_goes_is_not_said() {
    let mut health = health();
    assert_eq!(settled(&mut health, &memory(1)).0, State::Ok);
    for _ in 0..5 {
        assert_eq!(health.take(&memory(99)).state, State::Ok);
        assert_eq!(health.take(&memory(99)).state, State::Ok);
        assert_eq!(health.take(&memory(1)).state, State::Ok, "two in a row are not enough");
    }
    assert_eq!(settled(&mut health, &memory(99)), (State::Critical, vec!["memory 99.0 % of 100 B in use".to_owned()]));
    assert_eq!(health.take(&memory(1)).state, State::Critical, "nor is one to clear it");
}

#[test]
fn a_program_without_limits_is_well() {
    let mut health = Health::new(Thresholds::default(), None, STARTED.millis());
    let mut well = snapshot(Facts { memory: u64::MAX, ..Facts::default() });
    well.traffic = Traffic { neo_connections: 1_000_000, ..Traffic::default() };
    assert_eq!(settled(&mut health, &well), (State::Ok, vec![]));
}

#[test]
fn a_dump_is_overdue_by_its_period_and_a_failed_one_is_told() {
    let mut health = health();
    let dump = |after_s: i64, last: Option<i64>, last_ok| {
        let dump = DumpFacts {
            period: Some(Duration::from_secs(100)),
            last: last.map(|s| STARTED.plus(s)),
            last_ok,
            problem: Some("no space left".to_owned()),
            ..DumpFacts::default()
        };
        let mut made = snapshot(Facts { dump: Some(dump), ..Facts::default() });
        made.at = STARTED.plus(after_s).millis();
        made
    };
    assert_eq!(settled(&mut health, &dump(149, None, None)).0, State::Ok, "a node that was just started");
    assert_eq!(settled(&mut health, &dump(149, Some(-90_000), None)).0, State::Ok, "the same, with old files");
    assert_eq!(
        settled(&mut health, &dump(150, None, None)),
        (State::Minor, vec!["no dump since the start 150 s ago, 1.5 times its period".to_owned()])
    );
    assert_eq!(
        settled(&mut health, &dump(400, Some(100), Some(true))),
        (State::Major, vec!["no dump for 300 s, 3.0 times its period".to_owned()])
    );
    assert_eq!(settled(&mut health, &dump(400, Some(400), Some(true))).0, State::Ok);
    assert_eq!(
        settled(&mut health, &dump(401, Some(400), Some(false))),
        (State::Major, vec!["the last dump failed: no space left".to_owned()])
    );
}

#[test]
fn findings_are_worst_first_and_an_engines_own_are_among_them() {
    let mut health = health();
    let mut bad = snapshot(Facts { load_rejected: 3, channels: 10_000, ..Facts::default() });
    bad.traffic = Traffic { legacy_connections: 60, neo_connections: 35, ..Traffic::default() };
    let own = |state, text: &str| Finding { check: "own", state, text: text.to_owned() };
    bad.findings = vec![own(State::Minor, "mild"), own(State::Critical, "harsh"), own(State::Ok, "fine")];
    let (state, texts) = settled(&mut health, &bad);
    assert_eq!(state, State::Critical);
    assert_eq!(
        texts,
        [
            "harsh",
            "95 of 100 connections open",
            "10000 channels, from 10000 on it is worth a look",
            "3 records were rejected when the data was loaded",
        ]
    );
    assert_eq!(settled(&mut health, &snapshot(Facts::default())), (State::Ok, vec![]));
    assert!(health.watches.is_empty(), "nothing is remembered for ever");
}

#[test]
fn sizes_are_for_people() {
    for (bytes, text) in
        [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 50, "3072.0 TiB")]
    {
        assert_eq!(size(bytes), text);
    }
}

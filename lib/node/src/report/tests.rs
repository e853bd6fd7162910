use std::path::Path;

use overstory_model::Timestamp;
use overstory_model::event::{Event, EventKind, Limits, parse};

use super::*;
use crate::config::Config;
use crate::inspect::{Facts, Totals};

const START: Timestamp = Timestamp(1_795_245_600);

fn reporter() -> Reporter {
    let config = Config::parse(Path::new("c"), "", Vec::new()).unwrap_or_else(|error| panic!("{error}"));
    let section = ReportSection::read(&config, "dht-a").unwrap_or_else(|error| panic!("{error}"));
    let identity = Identity {
        program: "dhtnode",
        kind: "dht",
        connector_name: "dht",
        instance: section.instance.clone(),
        host: "h".to_owned(),
        started: START,
        interval_s: section.interval.as_secs(),
        ..Identity::default()
    };
    Reporter::new(Arc::new(identity), &section)
}

fn snapshot(after_s: i64, memory: u64) -> Snapshot {
    Snapshot {
        at: START.plus(after_s).millis(),
        phase: Phase::Running,
        totals: Totals { records: 7, bytes: 2048 },
        facts: Facts { memory, memory_limit: Some(100), ..Facts::default() },
        ..Snapshot::default()
    }
}

fn read(message: &Outgoing) -> Event {
    let now = START.millis();
    let parsed = parse(&message.body, message.routing_key.as_str(), None, now, &Limits::default());
    parsed.unwrap_or_else(|reject| panic!("{reject:?}")).event
}

/// What is published from the second `from` to the one before `to`, as `second what`.
fn published(reporter: &mut Reporter, from: i64, to: i64, memory: u64) -> Vec<String> {
    let text = |after: i64, message: &Outgoing| {
        let event = read(message);
        match event.kind {
            EventKind::Check { state } => format!("{after} {}: {}", u8::from(state), event.output),
            _ => format!("{after} {} {}", event.kind.name(), event.samples.len()),
        }
    };
    let second = |after| {
        let (events, _) = reporter.take(&snapshot(after, memory));
        events.iter().map(|message| text(after, message)).collect::<Vec<_>>()
    };
    (from..to).flat_map(second).collect()
}

#[test]
fn perf_comes_each_interval_and_the_first_check_when_findings_have_settled() {
    let mut reporter = reporter();
    assert!(reporter.take(&Snapshot { at: START.millis(), ..Snapshot::default() }).0.is_empty(), "while it loads");
    assert_eq!(published(&mut reporter, 5, 30, 1), ["5 perf 2", "7 0: started, 7 records, 2.0 KiB"]);
    let mut line = Fields::default();
    (0..9).for_each(|n| line.int(format!("k{n}"), n));
    reporter.line(line);
    assert_eq!(published(&mut reporter, 30, 95, 1), ["30 perf 9", "60 perf 2", "90 perf 2"]);
}

#[test]
fn a_restart_into_a_standing_problem_does_not_clear_it_first() {
    assert_eq!(published(&mut reporter(), 1, 10, 96), ["1 perf 2", "3 3: memory 96.0 % of 100 B in use"]);
}

#[test]
fn a_check_comes_on_change_and_every_five_minutes() {
    let mut reporter = reporter();
    published(&mut reporter, 0, 10, 1);
    let checks = |events: Vec<String>| events.into_iter().filter(|event| !event.contains("perf")).collect::<Vec<_>>();
    assert_eq!(checks(published(&mut reporter, 10, 20, 85)), ["12 1: memory 85.0 % of 100 B in use"]);
    assert_eq!(checks(published(&mut reporter, 20, 320, 86)), ["312 1: memory 86.0 % of 100 B in use"]);
    assert_eq!(checks(published(&mut reporter, 320, 330, 10)), ["322 0: running, 7 records, 2.0 KiB"]);
    assert_eq!(checks(published(&mut reporter, 10, 11, 10)), ["10 0: running, 7 records, 2.0 KiB"], "a clock set back");
}

#[test]
fn the_end_is_told_with_what_went_wrong() {
    let reporter = reporter();
    for (problem, state, output) in
        [(None, State::Major, "stopped"), (Some("disk full"), State::Critical, "stopped: disk full")]
    {
        let events: Vec<Event> = reporter.stopped(&snapshot(9, 1), problem).iter().map(read).collect();
        assert_eq!(events.iter().map(|event| event.kind.name()).collect::<Vec<_>>(), ["perf", "check"]);
        assert!(events.iter().all(|event| event.extra["node"]["state"] == "stopped"));
        assert_eq!((&events[1].kind, events[1].output.as_str()), (&EventKind::Check { state }, output));
    }
}

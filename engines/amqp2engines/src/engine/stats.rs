//! stats: what each engine did, published as events in the form of 2015 and processed like all others.

use overstory_model::alarm::Initiator;
use overstory_model::{Event, EventKind, Millis, Sample, Source, State};

use super::Engine;

/// What an engine did in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Events worked on.
    pub events: u64,
    /// Events refused.
    pub errors: u64,
    /// Seconds of work.
    pub worked_s: f64,
    /// The length of the span in seconds.
    pub span_s: f64,
}

impl Work {
    /// Events per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    pub fn events_per_second(&self) -> f64 {
        if self.span_s > 0.0 { self.events as f64 / self.span_s } else { 0.0 }
    }

    /// Seconds of work per event, 0 when there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    pub fn seconds_per_event(&self) -> f64 {
        if self.events > 0 { self.worked_s / self.events as f64 } else { 0.0 }
    }
}

/// Above this many seconds per event an engine is in a minor state.
pub const WARN_S: f64 = 0.6;
/// Above this many seconds per event an engine is in a major state.
pub const CRITICAL_S: f64 = 0.9;

/// The event that tells what an engine on `host` did; also when it did nothing.
#[must_use]
pub fn event(engine: Engine, host: &str, work: &Work, now: Millis) -> Event {
    let (rate, cost) = (work.events_per_second(), work.seconds_per_event());
    let state = match cost {
        cost if cost > CRITICAL_S => State::Major,
        cost if cost > WARN_S => State::Minor,
        _ => State::Ok,
    };
    let rounded = |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
    let retention = serde_json::json!({"state_type": 1});
    Event {
        kind: EventKind::Check { state },
        connector: "Engine".to_owned(),
        connector_name: "engine".to_owned(),
        source: Source::Resource { component: host.to_owned(), resource: format!("Engine_{}", engine.name()) },
        at: now,
        output: format!("{rate:.2} evt/sec, {cost:.5} sec/evt"),
        long_output: String::new(),
        author: "Engine.engine".to_owned(),
        initiator: Initiator::External,
        samples: vec![
            Sample::gauge("cps_evt_per_sec", rounded(rate, 2)).unit("evt"),
            Sample {
                warn: Some(WARN_S),
                crit: Some(CRITICAL_S),
                ..Sample::gauge("cps_sec_per_evt", rounded(cost, 5)).unit("s")
            },
        ],
        tags: std::collections::BTreeMap::new(),
        extra: retention.as_object().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_model::event::{Limits, parse};

    use super::*;

    #[test]
    fn the_event_has_the_published_form() {
        let work = Work { events: 1234, errors: 1, worked_s: 0.617, span_s: 60.0 };
        let event = event(Engine::Alarms, "host1.example.org", &work, Millis(60_000));
        assert_eq!(event.output, "20.57 evt/sec, 0.00050 sec/evt");
        let body: serde_json::Value = serde_json::from_slice(&event.to_body()).unwrap();
        assert_eq!(body["resource"], "Engine_alarms");
        assert_eq!(body["state_type"], 1);
        assert_eq!(body["perf_data_array"][0]["metric"], "cps_evt_per_sec");
        assert_eq!(body["perf_data_array"][0]["value"], 20.57);
        assert_eq!(body["perf_data_array"][1]["warn"], 0.6);
        let parsed = parse(&event.to_body(), "", None, Millis(60_000), &Limits::default()).unwrap();
        assert_eq!((parsed.event, parsed.notes), (event, vec![]));
    }

    #[test]
    fn a_slow_engine_is_in_a_bad_state_and_an_idle_one_is_not() {
        let state = |worked_s: f64, events: u64| {
            let work = Work { events, errors: 0, worked_s, span_s: 60.0 };
            match event(Engine::Cleaner, "h", &work, Millis(0)).kind {
                EventKind::Check { state } => u8::from(state),
                _ => panic!(),
            }
        };
        assert_eq!([state(0.0, 0), state(6.0, 10), state(6.1, 10), state(9.1, 10)], [0, 0, 1, 2]);
    }
}

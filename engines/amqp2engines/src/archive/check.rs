//! How the archive is: what is looked at, what state that is, and the check that tells it.

use std::fmt::Write as _;
use std::time::Duration;

use overstory_model::alarm::Initiator;
use overstory_model::{Event, EventKind, Millis, Sample, Source, State};

/// When the check is not ok.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Major after no event could be stored for so long.
    pub away: Duration,
    /// Minor from so many percent of the queue's limits on.
    pub fill_minor: u64,
    /// Major from so many percent of the queue's limits on.
    pub fill_major: u64,
    /// Critical for so long after events had to make room.
    pub dropped: Duration,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Why there are no nodes to write to.
    pub no_nodes: Option<String>,
    /// How long the event that waits longest does.
    pub waiting: Option<Duration>,
    /// Why it could not be stored.
    pub reason: String,
    /// Events in the queue.
    pub queued: u32,
    /// How full that is, in percent of the limit that is met first. In bytes it is reckoned by the mean size of late.
    pub fill: u64,
    /// Events that had to make room since the start.
    pub dropped: u64,
    /// How long ago the last of them did.
    pub dropped_ago: Option<Duration>,
}

/// The state of each thing that is judged.
pub type Findings = [State; 4];

/// What the facts come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The worst of them.
    pub state: State,
    /// One sentence for each.
    pub output: String,
    /// Which ones there are; as long as these stay, it is no news.
    pub findings: Findings,
}

/// Judges the facts.
#[must_use]
pub fn judge(facts: &Facts, limits: &Limits) -> Verdict {
    let mut output = String::new();
    let mut say = |sentence: String| {
        let _ = write!(output, "{}{sentence}", if output.is_empty() { "" } else { "; " });
    };
    let mut findings = [State::Ok; 4];
    if facts.dropped_ago.is_some_and(|ago| ago < limits.dropped) {
        findings[0] = State::Critical;
        say(format!("{} events had to make room and are not archived", facts.dropped));
    }
    if let Some(reason) = &facts.no_nodes {
        findings[3] = State::Critical;
        say(format!("no nodes: {reason}"));
    }
    if let Some(waiting) = facts.waiting.filter(|waiting| *waiting >= limits.away) {
        findings[1] = State::Major;
        let reason = match &facts.no_nodes {
            Some(_) => "",
            None if facts.reason.is_empty() => ": no answer",
            None => &format!(": {}", facts.reason),
        };
        say(format!("no event could be stored for {} s{reason}", waiting.as_secs()));
    }
    findings[2] = match facts.fill {
        fill if fill >= limits.fill_major => State::Major,
        fill if fill >= limits.fill_minor => State::Minor,
        _ => State::Ok,
    };
    if findings[2] != State::Ok {
        say(format!("the queue is {} % full", facts.fill));
    }
    say(format!("{} events wait", facts.queued));
    let state = findings.into_iter().max_by_key(|state| u8::from(*state)).unwrap_or(State::Ok);
    Verdict { state, output, findings }
}

/// The check that tells it: resource `archive` of this host.
#[must_use]
pub fn event(host: &str, verdict: &Verdict, facts: &Facts, now: Millis) -> Event {
    let sample = |metric: &str, value: f64| Sample::gauge(metric, value);
    Event {
        kind: EventKind::Check { state: verdict.state },
        connector: "Engine".to_owned(),
        connector_name: "engine".to_owned(),
        source: Source::Resource { component: host.to_owned(), resource: "archive".to_owned() },
        at: now,
        output: verdict.output.clone(),
        long_output: String::new(),
        author: "Engine.engine".to_owned(),
        initiator: Initiator::External,
        samples: vec![sample("waiting", facts.queued.into()), sample("fill", f64_of(facts.fill)).unit("%")],
        tags: std::collections::BTreeMap::new(),
        extra: serde_json::Map::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "percents")]
fn f64_of(percent: u64) -> f64 {
    percent as f64
}

/// How full a queue is, in percent of the limit that is met first.
#[must_use]
pub fn fill(queued: u32, mean_bytes: u64, limits: &overstory_amqp::ArchiveLimits) -> u64 {
    let queued = u64::from(queued);
    let messages = queued.saturating_mul(100) / u64::from(limits.max_messages.max(1));
    let bytes = queued.saturating_mul(mean_bytes).saturating_mul(100) / limits.max_bytes.max(1);
    messages.max(bytes).min(100)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_amqp::ArchiveLimits;
    use overstory_model::event::parse;

    use super::*;

    const LIMITS: Limits =
        Limits { away: Duration::from_secs(60), fill_minor: 50, fill_major: 80, dropped: Duration::from_secs(900) };

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn the_worst_finding_is_the_state_and_all_are_told() {
        let fine = Facts { waiting: seconds(59), queued: 3, fill: 49, ..Facts::default() };
        let away = Facts { waiting: seconds(60), reason: "127.0.0.1:1: not connected".to_owned(), ..fine.clone() };
        let filling = Facts { fill: 50, ..fine.clone() };
        let full = Facts { fill: 80, ..away.clone() };
        let dropped = Facts { dropped: 7, dropped_ago: seconds(899), ..full.clone() };
        let calm = Facts { dropped: 7, dropped_ago: seconds(900), ..fine.clone() };
        for (facts, state, output) in [
            (&fine, State::Ok, "3 events wait"),
            (&away, State::Major, "no event could be stored for 60 s: 127.0.0.1:1: not connected; 3 events wait"),
            (&filling, State::Minor, "the queue is 50 % full; 3 events wait"),
            (
                &full,
                State::Major,
                "no event could be stored for 60 s: 127.0.0.1:1: not connected; the queue is 80 % full; 3 events wait",
            ),
            (&calm, State::Ok, "3 events wait"),
        ] {
            let verdict = judge(facts, &LIMITS);
            assert_eq!((verdict.state, verdict.output.as_str()), (state, output));
        }
        let none = Facts { no_nodes: Some("cannot read x.nodes: no such file".to_owned()), ..fine.clone() };
        let verdict = judge(&none, &LIMITS);
        assert_eq!(verdict.state, State::Critical);
        assert_eq!(verdict.output, "no nodes: cannot read x.nodes: no such file; 3 events wait");
        assert_ne!(verdict.findings, judge(&fine, &LIMITS).findings, "it is news at once");
        let verdict = judge(&dropped, &LIMITS);
        assert_eq!(verdict.state, State::Critical);
        assert!(verdict.output.starts_with("7 events had to make room and are not archived; no event"));
    }

    #[test]
    fn numbers_that_move_are_no_news_and_a_finding_is() {
        let facts = |waiting, fill| Facts { waiting: seconds(waiting), fill, ..Facts::default() };
        let findings = |facts: &Facts| judge(facts, &LIMITS).findings;
        assert_eq!(findings(&facts(60, 10)), findings(&facts(600, 20)));
        assert_ne!(findings(&facts(60, 10)), findings(&facts(60, 50)));
        assert_ne!(findings(&facts(60, 79)), findings(&facts(60, 80)));
    }

    #[test]
    fn the_limit_that_is_met_first_counts() {
        let limits = ArchiveLimits { max_messages: 1000, max_bytes: 100_000 };
        assert_eq!(fill(500, 10, &limits), 50);
        assert_eq!(fill(500, 150, &limits), 75);
        assert_eq!(fill(0, 150, &limits), 0);
        assert_eq!(fill(u32::MAX, u64::MAX, &ArchiveLimits { max_messages: 1, max_bytes: 1 }), 100);
    }

    #[test]
    fn the_check_is_a_valid_event() {
        let facts = Facts { queued: 5, fill: 81, ..Facts::default() };
        let event = event("host1", &judge(&facts, &LIMITS), &facts, Millis(60_000));
        let parsed = parse(&event.to_body(), "", None, Millis(60_000), &overstory_model::event::Limits::default());
        assert_eq!(parsed.unwrap().event, event);
        assert_eq!(event.entity_id().0, "archive/host1");
    }
}

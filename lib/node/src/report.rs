//! The report to the platform: what is said, and when (DESIGN §7). Nothing here waits for anything.
//!
//! One perf event each interval, with everything of the last line of `stats.log`; one check event when the findings
//! change, and again every few minutes. The first check of a program waits until its findings have settled, so that a
//! restart does not clear an alarm that is raised again a moment later.

pub(crate) mod event;
pub(crate) mod health;
pub(crate) mod sender;

use std::sync::Arc;

use overstory_amqp::message::Outgoing;
use overstory_model::{Millis, State};

use crate::config::sections::ReportSection;
use crate::stats::Fields;
use crate::watch::{Identity, Phase, Snapshot};
use health::{Health, Verdict, size};

/// Snapshots after which the first check is made.
const SETTLED: u32 = 3;

/// Decides what is said.
#[derive(Debug)]
pub(crate) struct Reporter {
    identity: Arc<Identity>,
    interval_s: i64,
    repeat_ms: i64,
    health: Health,
    /// The interval in which the last perf event was made.
    last_perf: Option<i64>,
    /// The line of `stats.log` that was not reported yet.
    line: Option<Fields>,
    snapshots: u32,
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    at: Millis,
    findings: Vec<(&'static str, State)>,
}

impl Reporter {
    pub(crate) fn new(identity: Arc<Identity>, section: &ReportSection) -> Self {
        let started = identity.started.millis();
        let interval_s = i64::try_from(section.interval.as_secs()).unwrap_or(30).max(1);
        let repeat_ms = i64::try_from(section.repeat.as_millis()).unwrap_or(300_000);
        let health = Health::new(section.thresholds.clone(), identity.connection_limit, started);
        Self { identity, interval_s, repeat_ms, health, last_perf: None, line: None, snapshots: 0, said: None }
    }

    /// Takes a line of `stats.log`.
    pub(crate) fn line(&mut self, line: Fields) {
        self.line = Some(line);
    }

    /// Takes a snapshot; answers with what is to be published, and with how the program is.
    pub(crate) fn take(&mut self, snapshot: &Snapshot) -> (Vec<Outgoing>, Verdict) {
        if snapshot.phase == Phase::Starting {
            return (Vec::new(), Verdict { state: State::Ok, findings: Vec::new() });
        }
        let mut events = Vec::new();
        let interval = snapshot.at.secs().0.div_euclid(self.interval_s);
        if self.last_perf != Some(interval) {
            self.last_perf = Some(interval);
            events.push(event::perf(&self.identity, snapshot, self.line.take().as_ref()));
        }
        let verdict = self.health.take(snapshot);
        self.snapshots = self.snapshots.saturating_add(1);
        if self.snapshots >= SETTLED {
            events.extend(self.check(snapshot, &verdict));
        }
        (events, verdict)
    }

    fn check(&mut self, snapshot: &Snapshot, verdict: &Verdict) -> Option<Outgoing> {
        let findings: Vec<_> = verdict.findings.iter().map(|finding| (finding.check, finding.state)).collect();
        let is_due = match &self.said {
            // A clock that was set back must not silence the report.
            Some(said) => said.findings != findings || !(0..self.repeat_ms).contains(&snapshot.at.since(said.at)),
            None => true,
        };
        if !is_due {
            return None;
        }
        let begins = if self.said.is_none() { "started" } else { "running" };
        let totals = &snapshot.totals;
        let output = if verdict.findings.is_empty() {
            format!("{begins}, {} records, {}", totals.records, size(totals.bytes))
        } else {
            verdict.findings.iter().map(|finding| finding.text.as_str()).collect::<Vec<_>>().join("; ")
        };
        if self.said.as_ref().is_some_and(|said| said.findings != findings) {
            tracing::info!(target: "node.report", state = verdict.state.name(), "{output}");
        }
        self.said = Some(Said { at: snapshot.at, findings });
        Some(event::check(&self.identity, snapshot, verdict.state, &output))
    }

    /// What is published at the end; `problem` says what went wrong with it.
    pub(crate) fn stopped(&self, last: &Snapshot, problem: Option<&str>) -> Vec<Outgoing> {
        let snapshot = Snapshot { phase: Phase::Stopped, ..last.clone() };
        let (state, output) = match problem {
            None => (State::Major, "stopped".to_owned()),
            Some(problem) => (State::Critical, format!("stopped: {problem}")),
        };
        vec![event::perf(&self.identity, &snapshot, None), event::check(&self.identity, &snapshot, state, &output)]
    }
}

#[cfg(test)]
mod tests;

//! Judges a snapshot: what is wrong, how bad it is, and since when it must be so to be said.

use std::collections::BTreeMap;

use overstory_model::{Millis, State};

use crate::config::sections::Thresholds;
use crate::inspect::{DumpFacts, Finding};
use crate::watch::Snapshot;

/// A finding is raised, changed or cleared when so many snapshots in a row agree; there is one each second.
const CONSECUTIVE: u32 = 3;
/// A percentage must fall so far below a level before the level is left.
const HYSTERESIS: f64 = 2.0;
/// Text of one finding is cut to so many characters.
const MAX_TEXT: usize = 200;

/// What is said about a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The worst of the findings.
    pub(crate) state: State,
    /// The findings, worst first.
    pub(crate) findings: Vec<Finding>,
}

/// Remembers what was found, so that what comes and goes within a second is not said.
#[derive(Debug)]
pub(crate) struct Health {
    thresholds: Thresholds,
    connection_limit: Option<u64>,
    started: Millis,
    watches: BTreeMap<&'static str, Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    /// What stands.
    standing: Option<Finding>,
    /// What the last snapshots asked for, and how many of them.
    asked: Option<State>,
    times: u32,
}

impl Health {
    pub(crate) fn new(thresholds: Thresholds, connection_limit: Option<u64>, started: Millis) -> Self {
        Self { thresholds, connection_limit, started, watches: BTreeMap::new() }
    }

    /// Takes the next snapshot and says what stands now.
    pub(crate) fn take(&mut self, snapshot: &Snapshot) -> Verdict {
        let found = self.find(snapshot);
        for finding in &found {
            self.watches.entry(finding.check).or_default();
        }
        for (check, watch) in &mut self.watches {
            // An engine may find several things of one sort: the worst counts.
            watch.take(found.iter().filter(|finding| finding.check == *check).max_by_key(|finding| finding.state));
        }
        self.watches.retain(|_, watch| watch.standing.is_some() || watch.times > 0);
        let mut findings: Vec<Finding> = self.watches.values().filter_map(|watch| watch.standing.clone()).collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.state));
        Verdict { state: findings.first().map_or(State::Ok, |finding| finding.state), findings }
    }

    /// Everything that is not OK in this snapshot.
    fn find(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let Thresholds { memory, dump, connections, channels } = &self.thresholds;
        let mut found = Vec::new();
        let facts = &snapshot.facts;
        if let Some(limit) = facts.memory_limit.filter(|limit| *limit > 0) {
            let percent = percent(facts.memory, limit);
            self.levels("memory", memory, percent, HYSTERESIS, &mut found, || {
                format!("memory {percent:.1} % of {} in use", size(limit))
            });
        }
        if let Some(limit) = self.connection_limit.filter(|limit| *limit > 0) {
            let open = snapshot.traffic.legacy_connections + snapshot.traffic.neo_connections;
            let percent = percent(open, limit);
            self.levels("connections", connections, percent, HYSTERESIS, &mut found, || {
                format!("{open} of {limit} connections open")
            });
        }
        if let Some(facts) = &facts.dump {
            if facts.last_ok == Some(false) {
                let problem = facts.problem.as_deref().unwrap_or("see root.log");
                found.push(Finding {
                    check: "dump",
                    state: State::Major,
                    text: format!("the last dump failed: {problem}"),
                });
            }
            self.dump_age(facts, snapshot.at, dump, &mut found);
        }
        if facts.load_rejected > 0 {
            let text = format!("{} records were rejected when the data was loaded", facts.load_rejected);
            found.push(Finding { check: "load", state: State::Minor, text });
        }
        if facts.channels >= *channels {
            let text = format!("{} channels, from {channels} on it is worth a look", facts.channels);
            found.push(Finding { check: "channels", state: State::Minor, text });
        }
        found.extend(snapshot.findings.iter().filter(|finding| finding.state != State::Ok).cloned());
        for finding in &mut found {
            if finding.text.chars().count() > MAX_TEXT {
                finding.text = finding.text.chars().take(MAX_TEXT).collect();
            }
        }
        found
    }

    #[expect(clippy::cast_precision_loss, reason = "an age of 2^53 seconds is not reached")]
    fn dump_age(&self, facts: &DumpFacts, now: Millis, levels: &[f64; 2], found: &mut Vec<Finding>) {
        let Some(period) = facts.period.map(|period| period.as_secs_f64()).filter(|period| *period > 0.0) else {
            return;
        };
        // A node that was just started has had no time for one.
        let since = facts.last.map_or(self.started, |last| last.millis().max(self.started));
        let age = now.since(since).max(0) as f64 / 1000.0;
        let periods = age / period;
        self.levels("dump_age", levels, periods, 0.0, found, || match facts.last {
            Some(_) => format!("no dump for {age:.0} s, {periods:.1} times its period"),
            None => format!("no dump since the start {age:.0} s ago, {periods:.1} times its period"),
        });
    }

    /// Adds a finding when `value` reaches one of the levels, which are minor, major, critical. A level that stands is
    /// left only `hysteresis` below it.
    fn levels(
        &self,
        check: &'static str,
        levels: &[f64],
        value: f64,
        hysteresis: f64,
        found: &mut Vec<Finding>,
        text: impl FnOnce() -> String,
    ) {
        let standing = self.watches.get(check).and_then(|watch| watch.standing.as_ref()).map(|finding| finding.state);
        let reached =
            [State::Minor, State::Major, State::Critical].into_iter().zip(levels).rev().find(|(state, level)| {
                let level =
                    if standing.is_some_and(|standing| standing >= *state) { *level - hysteresis } else { **level };
                value >= level
            });
        if let Some((state, _)) = reached {
            found.push(Finding { check, state, text: text() });
        }
    }
}

impl Watch {
    fn take(&mut self, found: Option<&Finding>) {
        let asked = found.map(|finding| finding.state);
        if asked == self.standing.as_ref().map(|finding| finding.state) {
            (self.asked, self.times) = (None, 0);
            // Its figures are those of now.
            self.standing = found.cloned();
            return;
        }
        self.times = if self.times > 0 && self.asked == asked { self.times + 1 } else { 1 };
        self.asked = asked;
        if self.times >= CONSECUTIVE {
            (self.asked, self.times) = (None, 0);
            self.standing = found.cloned();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

/// A number of bytes for people.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests;

//! What the node tells of itself.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use overstory_model::State;
use overstory_node::disk_free::DiskFree;
use overstory_node::inspect::{ChannelTotals, Facts, Finding, Gauge, Inspect, Totals};
use overstory_node::stats::Fields;

use super::DmqEngine;
use super::survey::{Picture, Survey};
use crate::config::{Durability, Thresholds};
use crate::store::QueueTotals;

/// Queues that `stats.log` lists at most.
const LISTED: usize = 2000;

/// What is watched beside the queues.
#[derive(Debug)]
pub struct Watch {
    durability: Durability,
    thresholds: Thresholds,
    disk: Option<DiskFree>,
    /// What was damaged when the data was loaded.
    damaged: Vec<String>,
    survey: RefCell<Survey>,
}

impl Watch {
    /// Watches the queues by these thresholds, and the disk on which `data_dir` is.
    #[must_use]
    pub fn new(durability: Durability, thresholds: Thresholds, data_dir: PathBuf) -> Self {
        Self { durability, thresholds, disk: Some(DiskFree::new(data_dir)), ..Self::default() }
    }

    /// Says what was damaged when the data was loaded; each text names its file.
    #[must_use]
    pub fn damaged(mut self, damaged: Vec<String>) -> Self {
        self.damaged = damaged;
        self
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            durability: Durability::Memory,
            thresholds: Thresholds::default(),
            disk: None,
            damaged: Vec::new(),
            survey: RefCell::default(),
        }
    }
}

impl Inspect for DmqEngine {
    fn totals(&self) -> Totals {
        self.core.totals()
    }

    fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
        self.core.store.borrow().channels(after, &mut |name, totals| {
            visit(name, ChannelTotals { bytes: totals.bytes, records: totals.records })
        });
    }

    fn facts(&self) -> Facts {
        let store = self.core.store.borrow();
        Facts { memory: store.memory(), channels: store.channel_count() as u64, ..Facts::default() }
    }

    fn checks(&self, findings: &mut Vec<Finding>) {
        let watch = self.watch.borrow();
        let store = self.core.store.borrow();
        let mut survey = watch.survey.borrow_mut();
        survey.step(&store, Instant::now());
        fullness(&survey.picture, &watch.thresholds, findings);
        waiting(&survey.picture, &watch.thresholds, findings);
        let totals = store.totals();
        if watch.durability == Durability::Overflow && totals.records_overflow > 0 {
            let text = format!(
                "{} records ({} bytes) of {} queues are on disk: they did not fit into memory",
                totals.records_overflow,
                totals.bytes_overflow,
                survey.picture.overflowing.max(1)
            );
            findings.push(Finding { check: "overflow", state: State::Minor, text });
        }
        if let Some(disk) = &watch.disk {
            disk.check(&watch.thresholds.disk_free, findings);
        }
        if let Some(first) = watch.damaged.first() {
            let others = watch.damaged.len() - 1;
            let text = if others == 0 { first.clone() } else { format!("{first}; {others} more, see root.log") };
            findings.push(Finding { check: "load", state: State::Major, text });
        }
        store.disk_findings(findings);
    }

    fn gauges(&self, gauges: &mut Vec<Gauge>) {
        let watch = self.watch.borrow();
        let survey = watch.survey.borrow();
        let store = self.core.store.borrow();
        let totals = store.totals();
        let fullest = survey.picture.fullest.first().map_or(0.0, |(percent, _)| *percent);
        for (name, help, value) in [
            ("memory_records", "Records in memory.", totals.records_memory),
            ("memory_bytes", "Bytes of the records in memory, 8 more each.", totals.bytes_memory),
            ("overflow_records", "Records that are on disk only.", totals.records_overflow),
            ("overflow_bytes", "Bytes of the records that are on disk only.", totals.bytes_overflow),
            ("disk_bytes", "Bytes of the files behind the queues.", store.bytes_on_disk()),
            ("consumers", "Consumers that have subscribed.", totals.consumers as u64),
            ("fullest_percent", "How full the fullest queue is in memory, in percent.", whole(fullest)),
        ] {
            gauges.push(Gauge { name, help, value });
        }
    }

    fn console(&self, lines: &mut Vec<String>) {
        let watch = self.watch.borrow();
        let survey = watch.survey.borrow();
        let totals = self.core.store.borrow().totals();
        lines.push(format!(
            "durability {}; {} records in memory, {} on disk; {} consumers",
            watch.durability.name(),
            totals.records_memory,
            totals.records_overflow,
            totals.consumers
        ));
        let mut fullest = String::from("fullest:");
        for (percent, name) in survey.picture.fullest.iter().filter(|(percent, _)| *percent > 0.0) {
            // Writing to a string cannot fail.
            let _ = write!(fullest, " {} {percent:.0} %", shown(name));
        }
        if fullest.ends_with('%') {
            lines.push(fullest);
        }
    }

    fn more_stats(&self, fields: &mut Fields) {
        let mut fullest = Fullest::default();
        self.core.store.borrow().queues(None, &mut |name, totals| {
            fullest.add(name, totals);
            ControlFlow::Continue(())
        });
        for (_, name, totals) in fullest.finish() {
            let mut add = |field, value| fields.of("channel", shown(&name), field, value);
            add("bytes_memory", totals.bytes_memory);
            add("bytes_overflow", totals.bytes_overflow);
            add("records_memory", totals.records_memory);
            add("records_overflow", totals.records_overflow);
            add("percent_memory", totals.percent());
        }
    }
}

/// The fullest queues of many.
#[derive(Default)]
struct Fullest {
    seen: usize,
    /// Up to twice [`LISTED`], with their places among all.
    queues: Vec<(usize, Box<str>, QueueTotals)>,
}

impl Fullest {
    fn add(&mut self, name: &str, totals: QueueTotals) {
        self.queues.push((self.seen, name.into(), totals));
        self.seen += 1;
        if self.queues.len() >= 2 * LISTED {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.queues.len() > LISTED {
            let fullness = |totals: &QueueTotals| (totals.percent(), totals.bytes_memory, totals.bytes_overflow);
            self.queues.select_nth_unstable_by_key(LISTED, |(place, _, totals)| (Reverse(fullness(totals)), *place));
            self.queues.truncate(LISTED);
        }
    }

    /// In the order in which they were added.
    fn finish(mut self) -> Vec<(usize, Box<str>, QueueTotals)> {
        self.cut();
        self.queues.sort_unstable_by_key(|(place, _, _)| *place);
        self.queues
    }
}

/// A queue's name as the published node shows it: the default subscriber's queue as its channel.
fn shown(name: &str) -> &str {
    name.strip_prefix('@').unwrap_or(name)
}

/// A percentage, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn whole(percent: f64) -> u64 {
    percent as u64
}

/// One finding for all queues that are full, the fullest named first.
fn fullness(picture: &Picture, thresholds: &Thresholds, findings: &mut Vec<Finding>) {
    let least = thresholds.fullness.minor();
    let full: Vec<String> = picture
        .fullest
        .iter()
        .filter(|(percent, _)| *percent >= least)
        .map(|(percent, name)| format!("{} {percent:.0} %", shown(name)))
        .collect();
    let worst = picture.fullest.first().map_or(0.0, |(percent, _)| *percent);
    let state = thresholds.fullness.reached(worst);
    findings.extend(state.map(|state| Finding {
        check: "fullness",
        state,
        text: format!("full: {}", full.join(", ")),
    }));
}

/// One finding for all queues whose records nobody takes.
fn waiting(picture: &Picture, thresholds: &Thresholds, findings: &mut Vec<Finding>) {
    let Some(limit) = thresholds.wait_age else { return };
    let of = |(age, name, consumers): &(Duration, Box<str>, usize)| {
        let who = if *consumers == 0 { "no consumer" } else { "consumers take none" };
        format!("{} {} s ({who})", shown(name), age.as_secs())
    };
    let texts: Vec<String> = picture.waiting.iter().filter(|(age, ..)| *age >= limit).map(of).collect();
    if !texts.is_empty() {
        let text = format!("records wait: {}", texts.join(", "));
        findings.push(Finding { check: "consumer_absent", state: State::Minor, text });
    }
}

#[cfg(test)]
mod tests;

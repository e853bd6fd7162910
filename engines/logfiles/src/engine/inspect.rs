//! What the node tells of itself.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use overstory_model::State;
use overstory_node::disk_free::DiskFree;
use overstory_node::inspect::{ChannelTotals, Facts, Finding, Gauge, Inspect, Totals};
use overstory_node::open_files::OpenFiles;
use overstory_node::replies::Channels;
use overstory_node::stats::Fields;

use super::LogfilesEngine;
use crate::config::Thresholds;

/// How long a request that did not go well is told.
const TOLD: Duration = Duration::from_secs(300);

/// Memory of the catalogue for each bucket, about.
const BUCKET_MEMORY: u64 = 48;

/// What is watched beside the storage.
#[derive(Debug, Default)]
pub struct Watch {
    thresholds: Thresholds,
    disk: Option<DiskFree>,
    files: OpenFiles,
    /// What was wrong with the data when it was opened.
    problems: Vec<String>,
    /// The last request that left out records.
    undecided: RefCell<Option<(Instant, String)>>,
    /// When a request failed.
    failed: RefCell<Option<Instant>>,
}

impl Watch {
    /// Watches by these thresholds, and the disk on which `data_dir` is.
    #[must_use]
    pub fn new(thresholds: Thresholds, data_dir: PathBuf) -> Self {
        Self { thresholds, disk: Some(DiskFree::new(data_dir)), ..Self::default() }
    }

    /// Says what was wrong with the data when it was opened; each text names its file.
    #[must_use]
    pub fn problems(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    pub(super) fn undecided(&self, channel: &str, records: u64) {
        let text =
            format!("{records} records of {channel} were left out of an answer: the pattern takes too many steps");
        self.undecided.replace(Some((Instant::now(), text)));
    }

    pub(super) fn failed(&self) {
        self.failed.replace(Some(Instant::now()));
    }

    pub(super) fn findings(&self, findings: &mut Vec<Finding>) {
        if let Some(disk) = &self.disk {
            disk.check(&self.thresholds.disk_free, findings);
        }
        self.files.check(&self.thresholds.open_files, findings);
        if let Some(first) = self.problems.first() {
            let others = self.problems.len() - 1;
            let text = if others == 0 { first.clone() } else { format!("{first}; {others} more, see root.log") };
            findings.push(Finding { check: "open", state: State::Minor, text });
        }
        if let Some((at, text)) = &*self.undecided.borrow()
            && at.elapsed() < TOLD
        {
            findings.push(Finding { check: "pattern_limit", state: State::Minor, text: text.clone() });
        }
        if self.failed.borrow().is_some_and(|at| at.elapsed() < TOLD) {
            let text = "an answer was not finished, see root.log".to_owned();
            findings.push(Finding { check: "read", state: State::Major, text });
        }
    }
}

impl Inspect for LogfilesEngine {
    fn totals(&self) -> Totals {
        self.core.totals()
    }

    fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
        self.core.names(after, &mut |name| {
            let totals = self.core.storage.channel_totals(name).unwrap_or_default();
            visit(name, ChannelTotals { bytes: totals.bytes, records: totals.records })
        });
    }

    fn facts(&self) -> Facts {
        let (storage, range) = (&self.core.storage, self.core.settings.range);
        let catalogue = storage.totals().buckets.saturating_mul(BUCKET_MEMORY);
        let ready = self.core.reads.usage().ready_bytes as u64;
        Facts {
            range: Some((range.low, range.high)),
            of_timestamps: true,
            memory: catalogue.saturating_add(storage.gauges().queue_bytes).saturating_add(ready),
            channels: storage.channel_count() as u64,
            ..Facts::default()
        }
    }

    fn checks(&self, findings: &mut Vec<Finding>) {
        self.core.storage.findings(findings);
        let late = self.core.storage.gauges().late.as_secs_f64();
        findings.extend(self.watch.thresholds.sync_late.reached(late).map(|state| Finding {
            check: "sync_late",
            state,
            text: format!("records become durable {late:.0} s later than they should"),
        }));
        self.watch.findings(findings);
        findings.extend(self.core.redistribution.finding());
        if let Some((keeper, _)) = &*self.keeper.borrow() {
            keeper.findings(findings);
        }
    }

    fn gauges(&self, gauges: &mut Vec<Gauge>) {
        let (totals, storage) = (self.core.storage.totals(), self.core.storage.gauges());
        let usage = self.core.reads.usage();
        for (name, help, value) in [
            ("buckets", "Buckets.", totals.buckets),
            ("uncounted_buckets", "Buckets whose records are not counted yet.", totals.uncounted),
            ("write_queue_bytes", "Bytes that wait for being written.", storage.queue_bytes),
            ("unsynced_bytes", "Bytes that are written and not durable yet.", storage.unsynced_bytes),
            ("touched_buckets", "Buckets that were written to since the last checkpoint.", storage.touched),
            ("write_files", "Files that are open for writing.", storage.open_files),
            ("read_files", "Files that are open for reading.", usage.files as u64),
            ("reads", "Answers that are being read.", usage.requests as u64),
            ("ready_bytes", "Bytes of batches that wait for their clients.", usage.ready_bytes as u64),
            ("damages", "Damaged places that were found since the start.", self.core.storage.damages().total()),
        ] {
            gauges.push(Gauge { name, help, value });
        }
    }

    fn console(&self, lines: &mut Vec<String>) {
        let (totals, storage) = (self.core.storage.totals(), self.core.storage.gauges());
        lines.push(format!(
            "{} buckets; {} bytes to be written, {} to be synced; {} answers",
            totals.buckets,
            storage.queue_bytes,
            storage.unsynced_bytes,
            self.core.reads.usage().requests
        ));
    }

    fn last_stats(&self, fields: &mut Fields) {
        self.watch.files.add_to(fields);
    }
}

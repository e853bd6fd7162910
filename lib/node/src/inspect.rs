//! What a program tells of itself: to `stats.log`, the console, `/metrics` and the platform.
//!
//! Everything here is asked on the node's own thread and must answer at once: a call costs microseconds. What takes
//! time (formatting, files, the broker) happens on another thread with what was answered.

use std::ops::ControlFlow;
use std::time::Duration;

use overstory_model::{State, Timestamp};

use crate::stats::Fields;

/// What is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a channel stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelTotals {
    /// Bytes of its records.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// What is known about dumps to disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpFacts {
    /// From one dump to the next; `None` when there are none but the one at the end.
    pub period: Option<Duration>,
    /// When the last complete dump ended.
    pub last: Option<Timestamp>,
    /// Whether the last attempt ended well; `None` before the first.
    pub last_ok: Option<bool>,
    /// Why it did not.
    pub problem: Option<String>,
    /// When the next one begins.
    pub next: Option<Timestamp>,
    /// Whether one is being written.
    pub running: bool,
}

/// What does not fit into a number of `stats.log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The hash range, both ends in it; `None` for programs without one. The empty range has `min > max`.
    pub range: Option<(u64, u64)>,
    /// Whether the range is one of timestamps instead.
    pub of_timestamps: bool,
    /// Memory that the data takes, in bytes.
    pub memory: u64,
    /// How much it may take; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// Channels.
    pub channels: u64,
    /// Records that were rejected when the data was loaded.
    pub load_rejected: u64,
    /// Dumps; `None` for programs that make none.
    pub dump: Option<DumpFacts>,
}

/// Something that operators should know, as one part of the check event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which check found it: one word, the same each time.
    pub check: &'static str,
    /// How bad it is.
    pub state: State,
    /// What was found, with its figures, in a few words.
    pub text: String,
}

/// A figure of an engine's own, for `/metrics` and the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// What is measured and in which unit, such as `overflow_bytes`; the same each time.
    pub name: &'static str,
    /// A sentence on it.
    pub help: &'static str,
    /// What it is now.
    pub value: u64,
}

/// A node engine that can be watched.
pub trait Inspect {
    /// What is stored in all channels.
    fn totals(&self) -> Totals;

    /// Shows the channels behind `after` (all from the first when `None`), in an order that the names alone decide,
    /// until `visit` breaks. The caller breaks after at most some thousands and goes on later.
    fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>);

    /// Range, memory, dumps. Memory, dumps, rejected records and the number of channels are judged by the caller.
    fn facts(&self) -> Facts;

    /// Adds what else is wrong.
    fn checks(&self, findings: &mut Vec<Finding>) {
        let _ = findings;
    }

    /// Adds figures of its own, a dozen at most.
    fn gauges(&self, gauges: &mut Vec<Gauge>) {
        let _ = gauges;
    }

    /// Adds lines to the console, below the common ones.
    fn console(&self, lines: &mut Vec<String>) {
        let _ = lines;
    }

    /// Whether `stats.log` lists totals and channels.
    fn lists_channels(&self) -> bool {
        true
    }

    /// Adds groups to `stats.log` between the actions and the numbers of log lines; a new interval begins.
    fn more_stats(&self, fields: &mut Fields) {
        let _ = fields;
    }

    /// Adds groups to `stats.log` at the end of its line.
    fn last_stats(&self, fields: &mut Fields) {
        let _ = fields;
    }
}

/// A tool that runs beside a node (dhtdump) and can be watched.
pub trait ToolInspect {
    /// What `stats.log` says between the process' own figures and the numbers of log lines; a new interval begins.
    fn stats(&self, fields: &mut Fields);

    /// What the tool has written or holds.
    fn totals(&self) -> Totals;

    /// Dumps, channels.
    fn facts(&self) -> Facts;

    /// Adds what else is wrong.
    fn checks(&self, findings: &mut Vec<Finding>) {
        let _ = findings;
    }

    /// Lines of the console.
    fn console(&self, lines: &mut Vec<String>) {
        let _ = lines;
    }
}

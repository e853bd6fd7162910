//! What the node's thread hands to the other one: a [`Snapshot`] each second, an [`Interval`] for each line of
//! `stats.log`. Making them costs microseconds; what is done with them costs the node nothing.

pub(crate) mod node;
pub(crate) mod survey;
pub(crate) mod tool;

use std::sync::Arc;

use overstory_model::{Millis, Timestamp};

use crate::inspect::{Facts, Finding, Gauge, Totals};
use crate::stats::Fields;
use survey::Entry;

/// The largest channels that are shown beyond `stats.log`: labels must have bounds.
pub(crate) const LARGEST: usize = 50;
/// The largest channels that `stats.log` lists.
pub(crate) const LISTED: usize = 2000;

/// Where a program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Loading.
    #[default]
    Starting,
    /// Serving.
    Running,
    /// Saving.
    Stopping,
    /// Done.
    Stopped,
}

/// A kind of request, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestCount {
    /// `legacy` or `neo`.
    pub(crate) protocol: &'static str,
    pub(crate) name: &'static str,
    pub(crate) handled: u64,
    pub(crate) active: u64,
}

/// Connections and traffic of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) legacy_connections: u64,
    pub(crate) neo_connections: u64,
    /// The rest is since the start.
    pub(crate) refused_connections: u64,
    pub(crate) dropped_slow: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// How a program is doing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) at: Millis,
    pub(crate) phase: Phase,
    pub(crate) totals: Totals,
    pub(crate) facts: Facts,
    /// What the engine found by itself.
    pub(crate) findings: Vec<Finding>,
    /// The engine's own figures.
    pub(crate) gauges: Vec<Gauge>,
    /// The console's lines of the engine.
    pub(crate) console: Vec<String>,
    pub(crate) traffic: Traffic,
    pub(crate) requests: Vec<RequestCount>,
    /// Records by action since the start.
    pub(crate) actions: Vec<(&'static str, u64)>,
    /// The largest channels, by name; as of the last pass over all of them.
    pub(crate) largest: Arc<[Entry]>,
}

/// A line of `stats.log` without the figures that are the process' own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interval {
    pub(crate) at: Millis,
    pub(crate) head: Fields,
    /// By name.
    pub(crate) channels: Vec<Entry>,
    pub(crate) tail: Fields,
    /// What comes behind the numbers of log lines.
    pub(crate) last: Fields,
}

/// What does not change while a program runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// The program's name, such as `dhtnode`.
    pub(crate) program: &'static str,
    /// The node's type, such as `dht`.
    pub(crate) kind: &'static str,
    /// The connector of its events.
    pub(crate) connector_name: &'static str,
    pub(crate) instance: String,
    /// Nodes of one group share a hash range.
    pub(crate) group: String,
    pub(crate) host: String,
    pub(crate) address: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) neo_port: Option<u16>,
    pub(crate) connection_limit: Option<u64>,
    pub(crate) started: Timestamp,
    pub(crate) interval_s: u64,
}

/// What is watched, on its own thread.
pub(crate) trait Subject {
    /// How it is doing.
    fn snapshot(&mut self, at: Millis, with_console: bool) -> Snapshot;

    /// The line of `stats.log`; a new interval begins. Gives way to other tasks between slices of many channels.
    fn interval(&mut self, at: Millis) -> impl Future<Output = Interval>;
}

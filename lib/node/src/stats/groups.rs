//! The groups of a node's line of `stats.log`, made from its counters (protocol §4.3).

use super::{Fields, NodeStats, RequestCounters};
use crate::inspect::Totals;

/// The names of the times' counters, by [`super::TIME_BOUNDS`] and one for the rest.
const TIMES: [&str; 6] = [
    "handled_10_micros",
    "handled_100_micros",
    "handled_1_ms",
    "handled_10_ms",
    "handled_100_ms",
    "handled_over_100_ms",
];

/// What comes before the channels: traffic and connections, then totals.
pub(crate) fn head(stats: &NodeStats, connection_limit: u64, totals: Option<Totals>, fields: &mut Fields) {
    fields.int("bytes_sent", stats.bytes_sent.get());
    fields.int("bytes_received", stats.bytes_received.get());
    for (key, open) in [
        ("handling_connections", stats.legacy_connections.get()),
        ("handling_neo_connections", stats.neo_connections.get()),
    ] {
        fields.int(key, open);
        fields.int(format!("{key}_pcnt"), open.saturating_mul(100).checked_div(connection_limit).unwrap_or(0));
    }
    if let Some(totals) = totals {
        fields.int("total_bytes", totals.bytes);
        fields.int("total_records", totals.records);
    }
}

/// What comes behind the channels: requests and actions.
pub(crate) fn tail(stats: &NodeStats, fields: &mut Fields) {
    // No version of a request that was replaced by a newer one is served.
    fields.int("old_request_versions_in_use", 0);
    stats.legacy.iter().for_each(|request| add_request("request", request, fields));
    stats.neo.iter().for_each(|request| add_request("neo_request", request, fields));
    for action in &stats.actions {
        fields.of("action", action.name, "records", action.records.get());
        fields.of("action", action.name, "bytes", action.bytes.get());
    }
}

fn add_request(category: &str, request: &RequestCounters, fields: &mut Fields) {
    let name = request.spec.name;
    if !request.spec.tracked {
        return;
    }
    fields.of(category, name, "max_active", request.max_active.get());
    fields.of(category, name, "handled", request.handled.get());
    if request.spec.timed {
        fields.float(format!("{category}/{name}/mean_handled_time_micros"), mean_micros(request));
        for (field, counter) in TIMES.iter().zip(&request.times) {
            fields.of(category, name, field, counter.get());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 53 bits")]
fn mean_micros(request: &RequestCounters) -> f64 {
    // Nothing divided by nothing is not a number, as in the published line.
    request.nanos.get() as f64 / 1000.0 / request.handled.get() as f64
}

/// Begins a new interval.
pub(crate) fn reset(stats: &NodeStats) {
    stats.bytes_sent.set(0);
    stats.bytes_received.set(0);
    stats.legacy.iter().chain(&stats.neo).for_each(RequestCounters::reset);
    for action in &stats.actions {
        action.records.set(0);
        action.bytes.set(0);
    }
}

#[cfg(test)]
mod tests;

//! The events of a node: one perf event per interval, check events when a state is to be said.

use std::collections::{BTreeMap, BTreeSet};

use overstory_amqp::message::Outgoing;
use overstory_amqp::topology;
use overstory_model::alarm::Initiator;
use overstory_model::event::{Event, EventKind, Source};
use overstory_model::{Sample, State};
use serde_json::{Map, Value, json};

use crate::stats::{Fields, Number};
use crate::watch::{Identity, LARGEST, Phase, Snapshot};

/// The connector of every node's events.
pub(crate) const CONNECTOR: &str = "swarm";
/// `output` is cut to so many characters by those who read it.
const MAX_OUTPUT: usize = 255;
/// So many metrics are reported at most.
const MAX_SAMPLES: usize = 2000;
const CHANNEL: &str = "channel/";
/// What a channel has in all nodes; its other figures are those of a queue.
const STORED: [&str; 2] = ["bytes", "records"];
/// How full a queue's memory is.
const FULLNESS: &str = "percent_memory";

/// The perf event of an interval. Without `fields` it carries totals alone.
pub(crate) fn perf(identity: &Identity, snapshot: &Snapshot, fields: Option<&Fields>) -> Outgoing {
    let mut event = event(identity, snapshot, EventKind::Perf);
    event.samples = match fields {
        Some(fields) => samples(fields),
        None => {
            let mut totals = Fields::default();
            totals.int("total_bytes", snapshot.totals.bytes);
            totals.int("total_records", snapshot.totals.records);
            samples(&totals)
        }
    };
    let gauges = snapshot.gauges.iter().map(|gauge| Sample::gauge(gauge.name, to_f64(gauge.value)));
    event.samples.extend(gauges);
    outgoing(&event)
}

/// The event that says how a node is.
pub(crate) fn check(identity: &Identity, snapshot: &Snapshot, state: State, output: &str) -> Outgoing {
    let mut event = event(identity, snapshot, EventKind::Check { state });
    event.output = output.chars().take(MAX_OUTPUT).collect();
    outgoing(&event)
}

fn outgoing(event: &Event) -> Outgoing {
    Outgoing::json(topology::EVENTS, event.routing_key(), event.to_body().into())
}

fn event(identity: &Identity, snapshot: &Snapshot, kind: EventKind) -> Event {
    let mut extra = Map::new();
    extra.insert("node".to_owned(), node(identity, snapshot));
    Event {
        kind,
        connector: CONNECTOR.to_owned(),
        connector_name: identity.connector_name.to_owned(),
        source: Source::Resource { component: identity.host.clone(), resource: identity.instance.clone() },
        // Alarms count in whole seconds.
        at: snapshot.at.secs().millis(),
        output: String::new(),
        long_output: String::new(),
        author: format!("{CONNECTOR}.{}", identity.connector_name),
        initiator: Initiator::External,
        samples: Vec::new(),
        tags: BTreeMap::new(),
        extra,
    }
}

/// What the list of nodes shows.
fn node(identity: &Identity, snapshot: &Snapshot) -> Value {
    let facts = &snapshot.facts;
    let dump = facts.dump.as_ref();
    let traffic = &snapshot.traffic;
    json!({
        "type": identity.kind,
        "program": identity.program,
        "version": env!("CARGO_PKG_VERSION"),
        "instance": identity.instance,
        "group": identity.group,
        "host": identity.host,
        "address": identity.address,
        "port": identity.port,
        "neo_port": identity.neo_port,
        "range": facts.range.map(|(min, max)| json!({"min": format!("{min:#018x}"), "max": format!("{max:#018x}")})),
        "started": identity.started.0,
        "state": if snapshot.phase == Phase::Stopped { "stopped" } else { "running" },
        "records": snapshot.totals.records,
        "bytes": snapshot.totals.bytes,
        "memory": facts.memory,
        "memory_limit": facts.memory_limit,
        "connections": traffic.legacy_connections + traffic.neo_connections,
        "connection_limit": identity.connection_limit,
        "channels": facts.channels,
        "last_dump": dump.and_then(|dump| dump.last).map(|at| at.0),
        "last_dump_ok": dump.and_then(|dump| dump.last_ok),
        "dump_period_s": dump.and_then(|dump| dump.period).map(|period| period.as_secs()),
        "interval_s": identity.interval_s,
    })
}

/// Everything of a line of `stats.log`, of its channels the largest only, and of its queues the fullest.
fn samples(fields: &Fields) -> Vec<Sample> {
    let (largest, fullest) = (chosen(fields, true), chosen(fields, false));
    let is_shown = |key: &str| {
        let Some((name, field)) = channel_of(key) else { return true };
        let set = if STORED.contains(&field) { &largest } else { &fullest };
        set.as_ref().is_none_or(|set| set.contains(name))
    };
    let samples = fields.entries().iter().filter(|(key, _)| is_shown(key)).filter_map(|(key, number)| {
        let value = match number {
            Number::Int(value) => to_f64(*value),
            Number::Float(value) => *value,
        };
        value.is_finite().then(|| Sample::gauge(key.as_str(), value))
    });
    samples.take(MAX_SAMPLES).collect()
}

/// The names of the channels that store the most, or of the queues that are the fullest, the largest of them first, by
/// their greatest number; `None` when all may be shown.
fn chosen(fields: &Fields, stored: bool) -> Option<BTreeSet<&str>> {
    let mut by_name: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (key, number) in fields.entries() {
        if let (Some((name, field)), Number::Int(value)) = (channel_of(key), number)
            && STORED.contains(&field) == stored
        {
            let (fullness, greatest) = by_name.entry(name).or_default();
            let figure = if field == FULLNESS { fullness } else { greatest };
            *figure = (*figure).max(*value);
        }
    }
    if by_name.len() <= LARGEST {
        return None;
    }
    let mut names: Vec<_> = by_name.into_iter().collect();
    names.sort_by_key(|(_, rank)| std::cmp::Reverse(*rank));
    Some(names.into_iter().take(LARGEST).map(|(name, _)| name).collect())
}

/// Channel and field of `channel/<name>/<field>`.
fn channel_of(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(CHANNEL)?.rsplit_once('/')
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;

//! What a node of the swarm family tells about itself: the object `node` of its events (docs/EVENTS.md).
//!
//! The context engine keeps the object as the entity's information [`INFO`], with the time of the report; the API reads
//! it from there. Nodes of later versions may say more and other programs less, so every key but two may be missing.

use serde_json::{Map, Value};

use crate::clock::Timestamp;

/// The connector of nodes, the key of the object in events, and the name of the information about the entity.
pub const CONNECTOR: &str = "swarm";
/// The key of the object in events, and the name of the information about the entity.
pub const INFO: &str = "node";
/// The key that the context engine adds to the object: when it was reported, in Unix seconds.
pub const REPORTED: &str = "reported";
/// The longest object that is kept, in bytes of JSON.
pub const MAX_BYTES: usize = 4096;
/// The type of the nodes whose spans are timestamps: several may have the same, and clients use them in turn.
pub const LOGFILES: &str = "logfiles";
/// The longest text of an object that is read.
const MAX_TEXT: usize = 255;
/// How often a node reports if it does not say so, in seconds.
const INTERVAL_S: u64 = 30;
/// After so many intervals without a report a node counts as silent.
const SILENT_INTERVALS: u64 = 3;

/// A part of the hash space, or of logfiles nodes a range of timestamps; both limits included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The lowest position.
    pub min: u64,
    /// The highest position; below `min` only in a span that is empty.
    pub max: u64,
}

impl Span {
    /// Whether it has no position.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.min > self.max
    }
}

/// What the nodes of a group leave out of the positions that there are, and what more than one of them keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Parts that nobody has, in order.
    pub gaps: Vec<Span>,
    /// Parts that two have, with the indexes of both, in order of their beginning.
    pub overlaps: Vec<(Span, usize, usize)>,
}

impl Coverage {
    /// Looks at the spans of some nodes.
    #[must_use]
    pub fn of(spans: &[Span]) -> Self {
        let mut order: Vec<usize> = (0..spans.len()).filter(|&i| spans.get(i).is_some_and(|s| !s.is_empty())).collect();
        order.sort_by_key(|&i| spans.get(i).copied());
        let mut coverage = Self::default();
        // The first position that is not looked at yet; `None` behind the last one.
        let mut next = Some(0);
        let mut widest: Option<(usize, Span)> = None;
        for index in order {
            let Some(&span) = spans.get(index) else { continue };
            if let Some(from) = next.filter(|&from| from < span.min) {
                coverage.gaps.push(Span { min: from, max: span.min - 1 });
            }
            if let Some((other, wide)) = widest
                && wide.max >= span.min
            {
                coverage.overlaps.push((Span { min: span.min, max: span.max.min(wide.max) }, other, index));
            }
            if widest.is_none_or(|(_, wide)| span.max > wide.max) {
                widest = Some((index, span));
            }
            next = next.and_then(|from| span.max.checked_add(1).map(|after| after.max(from)));
        }
        if let Some(from) = next {
            coverage.gaps.push(Span { min: from, max: u64::MAX });
        }
        coverage
    }

    /// Looks at the spans of the nodes of a type: logfiles nodes with the same span have it together.
    #[must_use]
    pub fn of_type(kind: &str, spans: &[Span]) -> Self {
        if kind != LOGFILES {
            return Self::of(spans);
        }
        let is_first = |index: &usize| spans.iter().position(|span| spans.get(*index) == Some(span)) == Some(*index);
        let firsts: Vec<usize> = (0..spans.len()).filter(is_first).collect();
        let distinct: Vec<Span> = firsts.iter().filter_map(|&index| spans.get(index).copied()).collect();
        let mut coverage = Self::of(&distinct);
        let original = |index: usize| firsts.get(index).copied().unwrap_or(index);
        for (_, one, other) in &mut coverage.overlaps {
            (*one, *other) = (original(*one), original(*other));
        }
        coverage
    }

    /// Whether every position has exactly one node, or nodes that have it together.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty() && self.overlaps.is_empty()
    }
}

/// Whether a node does its work, as far as its reports tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeStatus {
    /// It reports and runs.
    Running,
    /// It said that it ends.
    Stopped,
    /// It has not reported for three intervals.
    Silent,
}

impl NodeStatus {
    /// The word of the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Silent => "silent",
        }
    }
}

/// The object, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// `dht`, `dhtdump`, `dmq`, `queue`, `logfiles`, …
    pub kind: String,
    /// The nodes that clients use together, of a dht those that share a hash space; the type if it does not say.
    pub group: String,
    /// `dhtnode`, …
    pub program: Option<String>,
    /// The program's version.
    pub version: Option<String>,
    /// `dht-NAME`.
    pub instance: String,
    /// The host.
    pub host: Option<String>,
    /// Where it listens.
    pub address: Option<String>,
    /// The port of the legacy protocol.
    pub port: Option<u16>,
    /// The port of the neo protocol.
    pub neo_port: Option<u16>,
    /// The part of the hash space that it keeps, of a type that shares one; of logfiles nodes the timestamps.
    pub range: Option<Span>,
    /// When it was started.
    pub started: Option<i64>,
    /// Whether it said that it ends.
    pub stopped: bool,
    /// Records.
    pub records: Option<u64>,
    /// Bytes of records.
    pub bytes: Option<u64>,
    /// Bytes of memory for them.
    pub memory: Option<u64>,
    /// The most bytes of memory.
    pub memory_limit: Option<u64>,
    /// Open connections.
    pub connections: Option<u64>,
    /// The most connections.
    pub connection_limit: Option<u64>,
    /// Channels.
    pub channels: Option<u64>,
    /// When the last dump ended.
    pub last_dump: Option<i64>,
    /// Whether it succeeded.
    pub last_dump_ok: Option<bool>,
    /// Seconds between dumps.
    pub dump_period_s: Option<u64>,
    /// Seconds between reports.
    pub interval_s: u64,
    /// When this was reported.
    pub reported: Timestamp,
}

impl NodeReport {
    /// Reads the object. A key that is missing or not of its type counts as unknown; without a type and an instance it
    /// is no report.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let map = value.as_object()?;
        let text =
            |key: &str| map.get(key)?.as_str().filter(|t| !t.is_empty() && t.len() <= MAX_TEXT).map(str::to_owned);
        let number = |key: &str| map.get(key)?.as_u64();
        let port = |key: &str| u16::try_from(number(key)?).ok().filter(|&port| port != 0);
        let kind = text("type")?;
        Some(Self {
            group: text("group").unwrap_or_else(|| kind.clone()),
            program: text("program"),
            version: text("version"),
            instance: text("instance")?,
            host: text("host"),
            address: text("address"),
            port: port("port"),
            neo_port: port("neo_port"),
            range: map.get("range").and_then(read_range),
            started: map.get("started").and_then(Value::as_i64),
            stopped: map.get("state").and_then(Value::as_str) == Some("stopped"),
            records: number("records"),
            bytes: number("bytes"),
            memory: number("memory"),
            memory_limit: number("memory_limit"),
            connections: number("connections"),
            connection_limit: number("connection_limit"),
            channels: number("channels"),
            last_dump: map.get("last_dump").and_then(Value::as_i64),
            last_dump_ok: map.get("last_dump_ok").and_then(Value::as_bool),
            dump_period_s: number("dump_period_s"),
            interval_s: number("interval_s").filter(|&s| (1..=86_400).contains(&s)).unwrap_or(INTERVAL_S),
            reported: Timestamp(map.get(REPORTED).and_then(Value::as_i64).unwrap_or(0)),
            kind,
        })
    }

    /// Seconds since the report, 0 for one of a clock that goes ahead.
    #[must_use]
    pub fn age_s(&self, now: Timestamp) -> u64 {
        u64::try_from(now.since(self.reported)).unwrap_or(0)
    }

    /// Whether it does its work.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> NodeStatus {
        if self.stopped {
            NodeStatus::Stopped
        } else if self.age_s(now) > self.interval_s * SILENT_INTERVALS {
            NodeStatus::Silent
        } else {
            NodeStatus::Running
        }
    }
}

/// What is kept of the object of an event of `at`: the object with the time, unless it is none or too large.
#[must_use]
pub fn keep(value: &Value, at: Timestamp) -> Option<Value> {
    let mut map: Map<String, Value> = value.as_object()?.clone();
    map.insert(REPORTED.to_owned(), Value::from(at.0));
    let kept = Value::Object(map);
    NodeReport::read(&kept)?;
    // Writing a value to memory cannot fail.
    let size = serde_json::to_vec(&kept).map_or(usize::MAX, |bytes| bytes.len());
    (size <= MAX_BYTES).then_some(kept)
}

/// Whether the object says that the instance was removed: then it is no more to be shown.
#[must_use]
pub fn is_removed(value: &Value) -> bool {
    value.get("state").and_then(Value::as_str) == Some("removed")
}

fn read_range(value: &Value) -> Option<Span> {
    let limit = |key: &str| {
        let text = value.get(key)?.as_str()?;
        let digits = text.strip_prefix("0x").unwrap_or(text);
        (digits.len() <= 16).then(|| u64::from_str_radix(digits, 16).ok())?
    };
    Some(Span { min: limit("min")?, max: limit("max")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;

    const fn span(min: u64, max: u64) -> Span {
        Span { min, max }
    }

    #[test]
    fn spans_that_fit_cover_everything() {
        let half = u64::MAX / 2;
        assert!(Coverage::of(&[span(0, u64::MAX)]).is_complete());
        assert!(Coverage::of(&[span(half + 1, u64::MAX), span(0, half), span(u64::MAX, 0)]).is_complete());
    }

    #[test]
    fn what_is_left_out_and_what_is_kept_twice_is_named() {
        assert_eq!(Coverage::of(&[]).gaps, [span(0, u64::MAX)]);
        let coverage = Coverage::of(&[span(10, 19), span(15, 29), span(40, u64::MAX), span(16, 17)]);
        assert_eq!(coverage.gaps, [span(0, 9), span(30, 39)]);
        assert_eq!(coverage.overlaps, [(span(15, 19), 0, 1), (span(16, 17), 1, 3)]);
        let whole = Coverage::of(&[span(0, u64::MAX), span(5, 5), span(7, 7)]);
        assert_eq!((whole.gaps.len(), whole.overlaps), (0, vec![(span(5, 5), 0, 1), (span(7, 7), 0, 2)]));
    }

    #[test]
    fn logfiles_nodes_may_have_the_same_timestamps() {
        let all = span(0, u64::MAX);
        assert!(Coverage::of_type(LOGFILES, &[all, all, all]).is_complete());
        assert!(!Coverage::of_type("dht", &[all, all]).is_complete());
        let (old, new) = (span(0, 99), span(100, u64::MAX));
        assert!(Coverage::of_type(LOGFILES, &[new, old, new, old]).is_complete());
        let coverage = Coverage::of_type(LOGFILES, &[old, old, span(50, 200), old]);
        assert_eq!((coverage.gaps, coverage.overlaps), (vec![span(201, u64::MAX)], vec![(span(50, 99), 0, 2)]));
    }

    #[test]
    fn a_report_is_read_and_what_is_wrong_in_it_is_unknown() {
        let value = json!({"type": "dht", "instance": "dht-a", "host": "h", "port": 21_000, "neo_port": 70_000,
            "range": {"min": "0x8000000000000000", "max": "ffffffffffffffff"}, "records": -1, "bytes": 10,
            "last_dump": null, "interval_s": 10, "reported": 1000, "state": "running"});
        let report = NodeReport::read(&value).unwrap();
        assert_eq!((report.kind.as_str(), report.group.as_str()), ("dht", "dht"));
        assert_eq!(report.range, Some(span(1 << 63, u64::MAX)));
        assert_eq!((report.port, report.neo_port, report.records, report.bytes), (Some(21_000), None, None, Some(10)));
        assert_eq!(report.status(Timestamp(1030)), NodeStatus::Running);
        assert_eq!(report.status(Timestamp(1031)), NodeStatus::Silent);
        assert_eq!(report.age_s(Timestamp(990)), 0);
        assert_eq!(NodeReport { stopped: true, ..report }.status(Timestamp(9999)), NodeStatus::Stopped);
        for broken in [json!({"type": "dht"}), json!([]), json!({"type": 1, "instance": "x"})] {
            assert_eq!(NodeReport::read(&broken), None, "{broken}");
        }
        for range in [json!("x"), json!({"min": "0x", "max": "1"}), json!({"min": "00000000000000001", "max": "1"})] {
            assert_eq!(read_range(&range), None, "{range}");
        }
    }

    #[test]
    fn an_object_is_kept_with_its_time_unless_it_is_too_large() {
        let value = json!({"type": "dmq", "instance": "dmq-a", "fullness": 3});
        let kept = keep(&value, Timestamp(7)).unwrap();
        assert_eq!(kept, json!({"type": "dmq", "instance": "dmq-a", "fullness": 3, "reported": 7}));
        let large = json!({"type": "dmq", "instance": "dmq-a", "x": "y".repeat(MAX_BYTES)});
        assert_eq!(keep(&large, Timestamp(7)), None);
        assert_eq!(keep(&json!("x"), Timestamp(7)), None);
        assert!(is_removed(&json!({"type": "dmq", "instance": "dmq-a", "state": "removed"})));
        assert!(!is_removed(&value));
    }
}

//! The live console of the seeds: hash range, memory, connections, handled records, records and bytes, time to the next
//! dump; one block that is refreshed each second on a terminal.

use std::time::Duration;

use overstory_model::Timestamp;

use crate::inspect::DumpFacts;
use crate::report::health::size;
use crate::watch::{Identity, Phase, Snapshot};

/// A line is cut to so many characters, so that it does not wrap.
const MAX_LINE: usize = 79;
/// Lines that an engine may add.
const MAX_MORE: usize = 20;

/// The block's lines.
pub(crate) fn block(identity: &Identity, snapshot: &Snapshot) -> Vec<String> {
    let now = snapshot.at.secs();
    let phase = match snapshot.phase {
        Phase::Starting => "loading",
        Phase::Running => "running",
        Phase::Stopping => "saving",
        Phase::Stopped => "stopped",
    };
    let (program, instance) = (identity.program, &identity.instance);
    let up = duration(now.since(identity.started));
    let mut lines = vec![format!("{program} {}  {instance}  {phase}, up {up}", env!("CARGO_PKG_VERSION"))];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
    let (facts, traffic, totals) = (&snapshot.facts, &snapshot.traffic, &snapshot.totals);
    if let Some((min, max)) = facts.range {
        let text = if min > max { "none".to_owned() } else { format!("{min:#018x} - {max:#018x}") };
        line(if facts.of_timestamps { "timestamps" } else { "hash range" }, text);
    }
    let limit = facts.memory_limit.map_or_else(String::new, |limit| format!(" of {}", size(limit)));
    line("memory", format!("{}{limit}", size(facts.memory)));
    if let Some(limit) = identity.connection_limit {
        let (legacy, neo) = (traffic.legacy_connections, traffic.neo_connections);
        line("connections", format!("{} ({legacy} legacy, {neo} neo) of {limit}", legacy + neo));
    }
    if !snapshot.actions.is_empty() {
        let records: u64 = snapshot.actions.iter().map(|(_, records)| records).sum();
        let requests: u64 = snapshot.requests.iter().map(|request| request.handled).sum();
        line("handled", format!("{records} records in {requests} requests"));
    }
    line("stored", format!("{} records, {}, {} channels", totals.records, size(totals.bytes), facts.channels));
    if let Some(dump) = &facts.dump {
        line("next dump", next_dump(dump, now));
    }
    lines.extend(snapshot.console.iter().take(MAX_MORE).map(|more| format!("  {more}")));
    for line in &mut lines {
        *line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect();
    }
    lines
}

fn next_dump(dump: &DumpFacts, now: Timestamp) -> String {
    match dump.next {
        _ if dump.running => "being written".to_owned(),
        Some(next) => format!("in {}", duration(next.since(now).max(0))),
        None => "when the node ends".to_owned(),
    }
}

/// `2 d 03:04:05`, without the days when there are none.
fn duration(seconds: i64) -> String {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).as_secs();
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match seconds / 86_400 {
        0 => clock,
        days => format!("{days} d {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Facts, Totals};
    use crate::watch::{RequestCount, Traffic};

    #[test]
    fn the_block_has_what_the_seeds_showed() {
        let identity = Identity {
            program: "dhtnode",
            instance: "dht-a".to_owned(),
            connection_limit: Some(5000),
            started: Timestamp(1_000_000),
            ..Identity::default()
        };
        let dump = DumpFacts { next: Some(Timestamp(1_100_000)), ..DumpFacts::default() };
        let snapshot = Snapshot {
            at: Timestamp(1_090_061).millis(),
            phase: Phase::Running,
            totals: Totals { records: 1234, bytes: 5 << 20 },
            facts: Facts {
                range: Some((0, u64::MAX)),
                memory: 6 << 20,
                memory_limit: Some(1 << 30),
                channels: 2,
                dump: Some(dump),
                ..Facts::default()
            },
            traffic: Traffic { legacy_connections: 3, neo_connections: 4, ..Traffic::default() },
            requests: vec![RequestCount { protocol: "neo", name: "Put", handled: 99, active: 0 }],
            actions: vec![("written", 90), ("read", 9)],
            console: vec!["more\x1b[2J".to_owned()],
            ..Snapshot::default()
        };
        let expected = format!(
            "dhtnode {}  dht-a  running, up 1 d 01:01:01
  hash range   0x0000000000000000 - 0xffffffffffffffff
  memory       6.0 MiB of 1.0 GiB
  connections  7 (3 legacy, 4 neo) of 5000
  handled      99 records in 99 requests
  stored       1234 records, 5.0 MiB, 2 channels
  next dump    in 02:45:39
  more [2J",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(block(&identity, &snapshot).join("\n"), expected);
    }

    #[test]
    fn a_queue_node_has_neither_a_range_nor_dumps() {
        let identity = Identity {
            program: "queuenode",
            instance: "queue-a".to_owned(),
            connection_limit: Some(5000),
            ..Identity::default()
        };
        let snapshot = Snapshot {
            phase: Phase::Running,
            totals: Totals { records: 12, bytes: 2048 },
            facts: Facts { memory: 4096, channels: 2, ..Facts::default() },
            actions: vec![("pushed", 20), ("popped", 8)],
            console: vec!["fullest: small_q 94 %".to_owned()],
            ..Snapshot::default()
        };
        let expected = format!(
            "queuenode {}  queue-a  running, up 00:00:00
  memory       4.0 KiB
  connections  0 (0 legacy, 0 neo) of 5000
  handled      28 records in 0 requests
  stored       12 records, 2.0 KiB, 2 channels
  fullest: small_q 94 %",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(block(&identity, &snapshot).join("\n"), expected);
    }

    #[test]
    fn a_logfiles_node_has_a_range_of_timestamps() {
        let facts = Facts { range: Some((0, 0x6000_0000)), of_timestamps: true, ..Facts::default() };
        let lines = block(&Identity::default(), &Snapshot { facts, ..Snapshot::default() });
        assert_eq!(lines[1], "  timestamps   0x0000000000000000 - 0x0000000060000000");
    }

    #[test]
    fn a_tool_shows_what_it_has() {
        let lines = block(&Identity::default(), &Snapshot::default());
        assert_eq!(lines.len(), 3, "{lines:?}");
    }
}

//! Which node gets which hash range.

use std::io::{self, Write as _};
use std::net::SocketAddrV4;
use std::path::Path;
use std::{fmt::Write as _, fs};

use anyhow::{Context as _, bail};
use overstory_client::RangeTable;
use overstory_client::registry::parse_node;
use overstory_swarm::key::HashRange;

/// A node and its range as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeState {
    pub(super) node: SocketAddrV4,
    pub(super) range: HashRange,
}

/// A node and the range that it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) node: SocketAddrV4,
    pub(super) range: HashRange,
}

/// Divides a range into equal ones; where it does not divide evenly, some are longer by one (protocol §3.1).
///
/// # Panics
/// Never for a range with more than 2 positions per part, which every range of a real dht has.
pub(super) fn divide(parts: u64, range: HashRange) -> Vec<HashRange> {
    let parts = parts.max(1);
    let (width, fraction) = ((range.max() - range.min()) / parts, range.max() % parts);
    let mut ranges = Vec::new();
    let (mut start, mut carried) = (range.min(), 0);
    for _ in 1..parts {
        carried += fraction;
        let carry = u64::from(carried >= parts);
        carried -= carry * parts;
        let end = start.saturating_add(width).saturating_add(carry).min(range.max() - 1);
        ranges.push(HashRange::new(start, end).unwrap_or(HashRange::EMPTY));
        start = end + 1;
    }
    ranges.push(HashRange::new(start, range.max()).unwrap_or(HashRange::EMPTY));
    ranges
}

/// All nodes share everything, in the order of their ranges, new ones last.
pub(super) fn extend(nodes: &[NodeState]) -> anyhow::Result<Vec<Assignment>> {
    check(nodes)?;
    Ok(assign(&sorted(nodes), HashRange::FULL))
}

/// The nodes of each server share what they have together. Where new nodes can be dealt out evenly, each old node
/// shares only its own range.
pub(super) fn subdivide(nodes: &[NodeState]) -> anyhow::Result<Vec<Assignment>> {
    check(nodes)?;
    let mut servers: Vec<_> = nodes.iter().map(|state| *state.node.ip()).collect();
    servers.sort_unstable();
    servers.dedup();
    let mut assignments = Vec::new();
    for server in servers {
        let here: Vec<_> = nodes.iter().copied().filter(|state| *state.node.ip() == server).collect();
        let (new, old): (Vec<_>, Vec<_>) = sorted(&here).into_iter().partition(|state| state.range.is_empty());
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            bail!("no node of server {server} has a range that could be shared");
        };
        if !new.is_empty() && new.len() % old.len() == 0 {
            let each = new.len() / old.len();
            for (owner, gets) in old.iter().zip(new.chunks(each)) {
                let mut group = vec![*owner];
                group.extend_from_slice(gets);
                assignments.extend(assign(&group, owner.range));
            }
            continue;
        }
        let gap = old.windows(2).any(|pair| match pair {
            [a, b] => a.range.max().checked_add(1) != Some(b.range.min()),
            _ => false,
        });
        if gap {
            bail!("the ranges of the nodes of server {server} do not join: they cannot be shared as one");
        }
        let all = HashRange::new(first.range.min(), last.range.max())?;
        assignments.extend(assign(&[old, new].concat(), all));
    }
    Ok(assignments)
}

/// What is there must be a whole dht: else a plan could lose records.
fn check(nodes: &[NodeState]) -> anyhow::Result<()> {
    let mut table = RangeTable::default();
    for state in nodes {
        table.update(state.node, state.range, std::time::Instant::now());
    }
    table.check(false).context("the nodes' ranges do not fit together; the nodes file has to name all nodes")
}

/// By range; those without one keep the order of the nodes file.
fn sorted(nodes: &[NodeState]) -> Vec<NodeState> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|state| (state.range.is_empty(), state.range.min()));
    nodes
}

fn assign(nodes: &[NodeState], all: HashRange) -> Vec<Assignment> {
    let ranges = divide(nodes.len() as u64, all);
    nodes.iter().zip(ranges).map(|(state, range)| Assignment { node: state.node, range }).collect()
}

/// The range that a node has now.
pub(super) fn range_of(nodes: &[NodeState], node: SocketAddrV4) -> HashRange {
    nodes.iter().find(|state| state.node == node).map_or(HashRange::EMPTY, |state| state.range)
}

/// Whether any node gets another range.
pub(super) fn changes(assignments: &[Assignment], nodes: &[NodeState]) -> bool {
    assignments.iter().any(|assignment| range_of(nodes, assignment.node) != assignment.range)
}

/// Whether a plan is for just these nodes.
pub(super) fn same_nodes(assignments: &[Assignment], nodes: &[NodeState]) -> bool {
    let known = |node| nodes.iter().any(|state| state.node == node);
    assignments.len() == nodes.len() && assignments.iter().all(|assignment| known(assignment.node))
}

/// How much of a range lies in another, 0 to 1.
#[allow(clippy::cast_precision_loss, reason = "a share for people to read")]
pub(super) fn overlap(of: HashRange, with: HashRange) -> f64 {
    if !of.overlaps(with) {
        return 0.0;
    }
    let shared = of.max().min(with.max()) - of.min().max(with.min());
    (shared as f64 + 1.0) / ((of.max() - of.min()) as f64 + 1.0)
}

/// Keeps a plan: a line `ip:port min max` per node.
pub(super) fn save(path: &Path, assignments: &[Assignment]) -> io::Result<()> {
    let mut text = String::from("# A redistribution that is not finished: run dhtredist -x again.\n");
    for Assignment { node, range } in assignments {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{node} {:#018x} {:#018x}", range.min(), range.max());
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Reads a plan that was kept.
pub(super) fn load(path: &Path) -> anyhow::Result<Option<Vec<Assignment>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut assignments = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let assignment = parse(line).with_context(|| format!("{}, line {}: no plan", path.display(), index + 1))?;
        assignments.push(assignment);
    }
    let mut table = RangeTable::default();
    for assignment in &assignments {
        table.update(assignment.node, assignment.range, std::time::Instant::now());
    }
    table.check(false).with_context(|| format!("{} is no plan", path.display()))?;
    Ok(Some(assignments))
}

fn parse(line: &str) -> anyhow::Result<Assignment> {
    let mut words = line.split(' ');
    let mut word = || words.next().context("a line is `ip:port min max`");
    let node = parse_node(word()?)?;
    let mut limit = || -> anyhow::Result<u64> {
        let text = word()?;
        Ok(u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)?)
    };
    let range = HashRange::new(limit()?, limit()?)?;
    Ok(Assignment { node, range })
}

//! Which node is responsible for which keys (protocol §2.4, §5).

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use overstory_swarm::key::{HashRange, Key};

/// How long after a node gave a part of its range away it is still asked for records of it that the new node does not
/// have: they may still be on their way.
pub const FORMER_RANGE_KEPT: Duration = Duration::from_secs(3600);

/// Ranges that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeProblem {
    /// Two nodes are responsible for the same keys.
    #[error("{first} and {second} are both responsible for a part of the hash range")]
    Overlap {
        /// One node.
        first: SocketAddrV4,
        /// The other.
        second: SocketAddrV4,
    },
    /// Nobody is responsible for some keys.
    #[error("no node is responsible for the hash range {min:#018x}..{max:#018x}")]
    Gap {
        /// The first position of the gap.
        min: u64,
        /// The last position of the gap.
        max: u64,
    },
}

/// The nodes' ranges and the order in which they were told, so that of two nodes that cover a key the newer is known.
#[derive(Debug, Clone, Default)]
pub struct RangeTable {
    entries: Vec<Entry>,
    updates: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    node: SocketAddrV4,
    range: HashRange,
    order: u64,
    /// What the node was responsible for before, and when that ended.
    former: Option<(HashRange, u64, Instant)>,
}

impl RangeTable {
    /// Takes what a node says of its range, or another node of this one. Says whether the node is new.
    pub fn update(&mut self, node: SocketAddrV4, range: HashRange, now: Instant) -> bool {
        self.updates += 1;
        let order = self.updates;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.node == node) else {
            self.entries.push(Entry { node, range, order, former: None });
            return true;
        };
        if entry.range != range {
            entry.former = Some((entry.range, entry.order, now));
            entry.range = range;
        }
        entry.order = order;
        false
    }

    /// Whether the node's range is known.
    #[must_use]
    pub fn knows(&self, node: SocketAddrV4) -> bool {
        self.entries.iter().any(|entry| entry.node == node)
    }

    /// The known ranges.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddrV4, HashRange)> + '_ {
        self.entries.iter().map(|entry| (entry.node, entry.range))
    }

    /// The node to put a record to: the one that most recently became responsible.
    #[must_use]
    #[inline]
    pub fn newest(&self, key: Key) -> Option<SocketAddrV4> {
        let covering = self.entries.iter().filter(|entry| entry.range.contains(key));
        covering.max_by_key(|entry| entry.order).map(|entry| entry.node)
    }

    /// Every node that may have the record, newest first; those that gave the key away come last.
    #[must_use]
    pub fn candidates(&self, key: Key, now: Instant) -> Vec<SocketAddrV4> {
        let mut found: Vec<(bool, u64, SocketAddrV4)> = Vec::new();
        for entry in &self.entries {
            if entry.range.contains(key) {
                found.push((true, entry.order, entry.node));
            } else if let Some((range, order, ended)) = entry.former
                && range.contains(key)
                && now.saturating_duration_since(ended) < FORMER_RANGE_KEPT
            {
                found.push((false, order, entry.node));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().map(|(.., node)| node).collect()
    }

    /// Checks that every key has exactly one node, or with `gaps` at most one.
    ///
    /// # Errors
    /// The first problem that is found, lowest positions first.
    pub fn check(&self, gaps: bool) -> Result<(), RangeProblem> {
        let mut ranges: Vec<_> = self.iter().filter(|(_, range)| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|(_, range)| (range.min(), range.max()));
        // The next position that nobody has, and who has the one before; none when all are taken.
        let mut next = Some(0);
        let mut last: Option<SocketAddrV4> = None;
        for (node, range) in ranges {
            match (next, last) {
                (Some(free), _) if range.min() > free && !gaps => {
                    return Err(RangeProblem::Gap { min: free, max: range.min() - 1 });
                }
                (Some(free), _) if range.min() >= free => {}
                (_, Some(first)) => return Err(RangeProblem::Overlap { first, second: node }),
                _ => {}
            }
            next = range.max().checked_add(1);
            last = Some(node);
        }
        match next {
            Some(min) if !gaps => Err(RangeProblem::Gap { min, max: u64::MAX }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn node(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), port)
    }

    fn table(ranges: &[(u16, u64, u64)]) -> RangeTable {
        let mut table = RangeTable::default();
        for &(port, min, max) in ranges {
            table.update(node(port), HashRange::new(min, max).unwrap(), Instant::now());
        }
        table
    }

    const HALF: u64 = 1 << 63;

    #[test]
    fn ranges_must_cover_everything_once() {
        assert_eq!(table(&[(1, 0, u64::MAX)]).check(false), Ok(()));
        assert_eq!(table(&[(2, HALF, u64::MAX), (1, 0, HALF - 1), (3, u64::MAX, 0)]).check(false), Ok(()));
        let gap = |min, max| Err(RangeProblem::Gap { min, max });
        assert_eq!(table(&[]).check(false), gap(0, u64::MAX));
        assert_eq!(table(&[(1, 5, u64::MAX)]).check(false), gap(0, 4));
        assert_eq!(table(&[(1, 0, 7), (2, 9, u64::MAX)]).check(false), gap(8, 8));
        assert_eq!(table(&[(1, 0, 7)]).check(false), gap(8, u64::MAX));
        assert_eq!(table(&[(1, 3, 7)]).check(true), Ok(()));
        let overlap = Err(RangeProblem::Overlap { first: node(1), second: node(2) });
        assert_eq!(table(&[(1, 0, 9), (2, 9, u64::MAX)]).check(false), overlap);
        assert_eq!(table(&[(1, 0, u64::MAX), (2, 9, u64::MAX)]).check(true), overlap);
    }

    #[test]
    fn of_two_nodes_the_newer_is_asked_first() {
        let mut table = table(&[(1, 0, u64::MAX), (2, HALF, u64::MAX)]);
        let (low, high) = (Key(0), Key(u64::MAX));
        let now = Instant::now();
        assert_eq!(table.candidates(low, now), [node(1)]);
        assert_eq!(table.candidates(high, now), [node(2), node(1)]);
        assert_eq!(table.newest(high), Some(node(2)));
        // The old node says what it has left: it is still asked for what may not have been moved yet.
        assert!(!table.update(node(1), HashRange::new(0, HALF - 1).unwrap(), now));
        assert_eq!(table.newest(high), Some(node(2)));
        assert_eq!(table.candidates(high, now), [node(2), node(1)]);
        assert_eq!(table.candidates(high, now + FORMER_RANGE_KEPT), [node(2)]);
        assert_eq!(table.check(false), Ok(()));
    }

    #[test]
    fn a_reconnected_node_with_the_same_range_keeps_its_history() {
        let mut table = table(&[(1, 0, u64::MAX)]);
        let now = Instant::now();
        table.update(node(1), HashRange::new(0, 1).unwrap(), now);
        table.update(node(1), HashRange::new(0, 1).unwrap(), now);
        assert_eq!(table.newest(Key(u64::MAX)), None);
        assert_eq!(table.candidates(Key(u64::MAX), now), [node(1)]);
    }

    #[test]
    fn a_fresh_connection_learns_of_a_redistribution_that_has_begun() {
        let now = Instant::now();
        let (low, high) = (HashRange::new(0, HALF - 1).unwrap(), HashRange::new(HALF, u64::MAX).unwrap());
        let key = Key(u64::MAX);
        for known_first in [false, true] {
            let mut table = RangeTable::default();
            if known_first {
                table.update(node(2), high, now);
            }
            // What the old node had, what it has, and who has the rest; each connection begins like this.
            for _ in 0..2 {
                table.update(node(1), HashRange::FULL, now);
                table.update(node(1), low, now);
                table.update(node(2), high, now);
                assert_eq!(table.candidates(key, now), [node(2), node(1)]);
            }
            // The new node speaks for itself, with the range it has or while it has none yet.
            for range in [high, HashRange::EMPTY, high] {
                table.update(node(2), range, now);
                assert!(table.candidates(key, now).contains(&node(1)));
            }
            assert_eq!(table.newest(key), Some(node(2)));
            assert_eq!(table.candidates(key, now), [node(2), node(1)]);
            assert_eq!(table.check(false), Ok(()));
        }
    }
}

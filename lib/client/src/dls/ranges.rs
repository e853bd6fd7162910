//! Which node takes records of which time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The timestamps that a node takes, both limits among them. They are unsigned numbers, as keys are: those below 0 have
/// the highest ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampRange {
    /// The first one.
    pub min: u64,
    /// The last one.
    pub max: u64,
}

impl TimestampRange {
    /// All timestamps.
    pub const ALL: Self = Self { min: 0, max: u64::MAX };

    /// Whether it holds a timestamp.
    #[must_use]
    pub const fn holds(self, timestamp: i64) -> bool {
        let key = timestamp.cast_unsigned();
        self.min <= key && key <= self.max
    }
}

/// What the nodes have told.
#[derive(Debug)]
pub(super) struct Ranges {
    nodes: Mutex<Vec<Option<Told>>>,
}

/// What a node has told; one that tells nothing takes all.
#[derive(Debug, Clone, Copy)]
struct Told {
    range: TimestampRange,
    /// Which connection that was: a node that was away may have another range.
    connection: u64,
}

impl Ranges {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes: Mutex::new(vec![None; nodes]) }
    }

    /// The range of a node, if it has told it on this connection.
    pub(super) fn of(&self, node: usize, connection: u64) -> Option<TimestampRange> {
        let told = self.lock().get(node).copied().flatten()?;
        (told.connection == connection).then_some(told.range)
    }

    /// The range that a node has told last, whenever that was.
    pub(super) fn last(&self, node: usize) -> Option<TimestampRange> {
        self.lock().get(node).copied().flatten().map(|told| told.range)
    }

    /// A node has told its range.
    pub(super) fn told(&self, node: usize, connection: u64, range: Option<TimestampRange>) {
        if let Some(told) = self.lock().get_mut(node) {
            *told = Some(Told { range: range.unwrap_or(TimestampRange::ALL), connection });
        }
    }

    /// What a node has told may not hold any more.
    pub(super) fn forget(&self, node: usize) {
        if let Some(told) = self.lock().get_mut(node) {
            *told = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Told>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_timestamps_as_unsigned_numbers() {
        let range = TimestampRange { min: 100, max: u64::MAX };
        assert!(range.holds(100) && range.holds(i64::MAX) && range.holds(-1) && !range.holds(99));
        assert!(TimestampRange::ALL.holds(i64::MIN) && TimestampRange::ALL.holds(0));
    }

    #[test]
    fn what_was_told_holds_for_its_connection() {
        let (ranges, range) = (Ranges::new(2), TimestampRange { min: 1, max: 2 });
        assert_eq!(ranges.of(0, 1), None);
        ranges.told(0, 1, Some(range));
        ranges.told(1, 1, None);
        assert_eq!((ranges.of(0, 1), ranges.of(1, 1)), (Some(range), Some(TimestampRange::ALL)));
        assert_eq!((ranges.of(0, 2), ranges.last(0)), (None, Some(range)));
        ranges.forget(0);
        assert_eq!((ranges.of(0, 1), ranges.last(0)), (None, None));
        ranges.told(2, 1, None);
        assert_eq!(ranges.of(2, 1), None);
    }
}

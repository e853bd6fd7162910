//! Looks at the queues a slice at a time, so that a hundred thousand of them never hold up a request.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::store::{QueueTotals, Store};

/// So many queues are looked at in one go.
const SLICE: usize = 5000;

/// So many queues of each kind are named.
const NAMED: usize = 5;

/// What a pass over all queues found.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// The fullest queues with their percentages, fullest first.
    pub(super) fullest: Vec<(f64, Box<str>)>,
    /// Queues with records on disk.
    pub(super) overflowing: u64,
    /// The queues whose records wait longest, longest first, and how many consumers each has.
    pub(super) waiting: Vec<(Duration, Box<str>, usize)>,
}

/// Passes over all queues, one after the other.
#[derive(Debug, Default)]
pub(super) struct Survey {
    after: Option<String>,
    drawing: Picture,
    /// The last complete one.
    pub(super) picture: Picture,
}

impl Survey {
    /// Looks at the next slice; the picture is new after the last one of a pass.
    pub(super) fn step(&mut self, store: &Store, now: Instant) {
        let (mut seen, mut last) = (0, None);
        let drawing = &mut self.drawing;
        store.queues(self.after.as_deref(), &mut |name, totals| {
            seen += 1;
            drawing.add(name, &totals, now);
            if seen < SLICE {
                return ControlFlow::Continue(());
            }
            last = Some(name.to_owned());
            ControlFlow::Break(())
        });
        self.after = last;
        if self.after.is_none() {
            self.picture = std::mem::take(&mut self.drawing);
        }
    }
}

impl Picture {
    fn add(&mut self, name: &str, totals: &QueueTotals, now: Instant) {
        keep(&mut self.fullest, (percent(totals), name.into()), |entry| entry.0);
        self.overflowing += u64::from(totals.records_overflow > 0);
        if let Some(since) = totals.waiting_since {
            let age = now.saturating_duration_since(since);
            keep(&mut self.waiting, (age, name.into(), totals.consumers), |entry| entry.0);
        }
    }
}

/// Keeps the [`NAMED`] entries with the highest measure, in descending order.
fn keep<T, M: PartialOrd>(entries: &mut Vec<T>, entry: T, measure: impl Fn(&T) -> M) {
    let place = entries.partition_point(|other| measure(other) >= measure(&entry));
    if place < NAMED {
        entries.truncate(NAMED - 1);
        entries.insert(place, entry);
    }
}

/// How full a queue is in memory.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
pub(super) fn percent(totals: &QueueTotals) -> f64 {
    if totals.limit == 0 { 0.0 } else { totals.bytes_memory as f64 * 100.0 / totals.limit as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_are_kept_in_order() {
        let mut entries = Vec::new();
        for value in [3, 9, 1, 7, 7, 2, 8, 5] {
            keep(&mut entries, value, |value| *value);
        }
        assert_eq!(entries, [9, 8, 7, 7, 5]);
    }

    #[test]
    fn a_percentage_of_nothing_is_none() {
        let of = |bytes_memory, limit| percent(&QueueTotals { bytes_memory, limit, ..QueueTotals::default() });
        assert!((of(188, 200) - 94.0).abs() < 1e-9);
        assert!(of(5, 0).abs() < 1e-9);
    }
}

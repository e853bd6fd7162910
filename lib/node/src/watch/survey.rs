//! Looks at the channels of a node a slice at a time, so that a hundred thousand of them never hold up a request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use crate::inspect::{ChannelTotals, Inspect};

/// So many channels are looked at in one go.
const SLICE: usize = 500;

/// A channel and what it stores.
pub(crate) type Entry = (Box<str>, ChannelTotals);

/// One pass over all channels that keeps the largest ones.
#[derive(Debug)]
pub(crate) struct Survey {
    keep: usize,
    after: Option<String>,
    /// The largest so far; the smallest of them is on top.
    largest: BinaryHeap<Reverse<(ChannelTotals, Reverse<Box<str>>)>>,
}

impl Survey {
    /// A pass that keeps so many.
    pub(crate) const fn new(keep: usize) -> Self {
        Self { keep, after: None, largest: BinaryHeap::new() }
    }

    /// Looks at the next slice. At the end of the pass it answers with the largest channels, by name, and begins anew.
    pub(crate) fn step(&mut self, engine: &impl Inspect) -> Option<Vec<Entry>> {
        let mut seen = 0;
        let mut last = String::new();
        let (keep, largest) = (self.keep, &mut self.largest);
        engine.channels(self.after.as_deref(), &mut |name, totals| {
            seen += 1;
            let is_larger = |Reverse((least, _)): &Reverse<(ChannelTotals, _)>| totals > *least;
            if largest.len() < keep {
                largest.push(Reverse((totals, Reverse(name.into()))));
            } else if largest.peek().is_some_and(is_larger) {
                largest.pop();
                largest.push(Reverse((totals, Reverse(name.into()))));
            }
            if seen < SLICE {
                return ControlFlow::Continue(());
            }
            last.push_str(name);
            ControlFlow::Break(())
        });
        if seen >= SLICE {
            self.after = Some(last);
            return None;
        }
        self.after = None;
        let mut entries: Vec<Entry> = std::mem::take(&mut self.largest)
            .into_iter()
            .map(|Reverse((totals, Reverse(name)))| (name, totals))
            .collect();
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use super::*;
    use crate::inspect::{Facts, Totals};

    struct Many(BTreeMap<String, u64>);

    impl Inspect for Many {
        fn totals(&self) -> Totals {
            Totals::default()
        }

        fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            for (name, bytes) in self.0.range::<str, _>((from, Bound::Unbounded)) {
                if visit(name, ChannelTotals { bytes: *bytes, records: 1 }).is_break() {
                    return;
                }
            }
        }

        fn facts(&self) -> Facts {
            Facts::default()
        }
    }

    fn pass(survey: &mut Survey, engine: &Many) -> (usize, Vec<Entry>) {
        (1..).find_map(|steps| survey.step(engine).map(|entries| (steps, entries))).unwrap_or_default()
    }

    #[test]
    fn every_channel_is_seen_once_and_the_largest_are_kept() {
        let many = |count: u64| Many((0..count).map(|n| (format!("c{n:06}"), n * 7919 % 10_007)).collect());
        for count in [0, 1, 499, 500, 501, 2000] {
            let engine = many(count);
            let mut survey = Survey::new(10);
            for _ in 0..2 {
                let (steps, entries) = pass(&mut survey, &engine);
                assert_eq!(steps as u64, count / 500 + 1, "{count}");
                let mut expected: Vec<u64> = engine.0.values().copied().collect();
                expected.sort_unstable_by_key(|bytes| Reverse(*bytes));
                expected.truncate(10);
                let mut found: Vec<u64> = entries.iter().map(|(_, totals)| totals.bytes).collect();
                assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b));
                found.sort_unstable_by_key(|bytes| Reverse(*bytes));
                assert_eq!(found, expected, "{count}");
            }
        }
    }

    /// Not a bound, for machines differ, but a figure: `cargo test --release -- --nocapture slice`.
    #[test]
    fn a_slice_of_a_hundred_thousand_channels_is_short() {
        let engine = Many((0..100_000).map(|n| (format!("channel-{n:06}"), n * 7919 % 100_003)).collect());
        let mut survey = Survey::new(2000);
        let (mut slices, mut longest, begin) = (0, std::time::Duration::ZERO, tokio::time::Instant::now());
        loop {
            let at = tokio::time::Instant::now();
            let done = survey.step(&engine).is_some();
            longest = longest.max(at.elapsed());
            slices += 1;
            if done {
                break;
            }
        }
        println!("{slices} slices, {longest:?} the longest, {:?} in all", begin.elapsed());
        assert_eq!(slices, 201);
    }

    #[test]
    fn channels_may_come_and_go_during_a_pass() {
        let mut engine = Many((0..1200).map(|n| (format!("c{n:06}"), n)).collect());
        let mut survey = Survey::new(2000);
        assert!(survey.step(&engine).is_none());
        engine.0.retain(|name, _| name.as_str() >= "c000600" || name.as_str() == "c000100");
        let (_, entries) = pass(&mut survey, &engine);
        assert_eq!(entries.len(), 500 + 600, "those of the first slice as they were, and what is left behind it");
    }
}

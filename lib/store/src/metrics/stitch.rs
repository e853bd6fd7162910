//! Making answers out of points and roll-ups.
//!
//! What is stored of a series is made of disjoint parts: points, five-minute roll-ups where points were expired, one-hour
//! roll-ups where five-minute ones were. A roll-up counts as being at its start. The two stores only fetch the
//! parts; they are put together here.

use std::collections::BTreeMap;

use overstory_model::Millis;

use super::codec::{self, FIVE_MINUTES, Offset, floor};
use super::{Aggregate, Bucket, RangeQuery};

/// What is known of a number of points together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Total {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The value of the latest point.
    pub(crate) last: f64,
    /// When the latest point is.
    pub(crate) last_at: i64,
}

impl Total {
    pub(crate) const fn of_point(at: i64, value: f64) -> Self {
        Self { count: 1, sum: value, min: value, max: value, last: value, last_at: at }
    }

    /// The total of the points of a bucket, which are in order of time.
    pub(crate) fn of_run(start: i64, points: &[Offset]) -> Option<Self> {
        let at = |point: &Offset| start + i64::from(point.ms);
        let (first, rest) = points.split_first()?;
        let mut total = Self::of_point(at(first), first.value);
        rest.iter().for_each(|point| total.merge(&Self::of_point(at(point), point.value)));
        Some(total)
    }

    pub(crate) const fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last_at >= self.last_at {
            self.last = other.last;
            self.last_at = other.last_at;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean over more than 2^52 points is not exact anyway")]
    const fn value(&self, aggregate: Aggregate) -> f64 {
        match aggregate {
            Aggregate::Avg => self.sum / self.count as f64,
            Aggregate::Min => self.min,
            Aggregate::Max => self.max,
            Aggregate::Last => self.last,
            Aggregate::Sum => self.sum,
        }
    }
}

/// Collects the parts that lie in a query's range into its buckets.
#[derive(Debug)]
pub(crate) struct Stitcher {
    from: i64,
    to: i64,
    step: i64,
    buckets: BTreeMap<i64, Total>,
}

impl Stitcher {
    pub(crate) fn new(query: &RangeQuery) -> Self {
        let step = query.step.unwrap_or(1).max(1);
        Self { from: query.from.0, to: query.to.0, step, buckets: BTreeMap::new() }
    }

    /// Whether totals of buckets of this width do as well as the points themselves, for the bucket at `start`.
    const fn takes_whole(&self, start: i64, width: i64) -> bool {
        self.step % width == 0 && start >= self.from && start.saturating_add(width) <= self.to
    }

    /// Adds a roll-up that stands at `start`.
    pub(crate) fn add(&mut self, start: i64, total: Total) {
        if start < self.from || start >= self.to {
            return;
        }
        self.buckets.entry(floor(start, self.step)).and_modify(|present| present.merge(&total)).or_insert(total);
    }

    /// Adds a five-minute bucket: points that are not packed yet, in the order they came, and what was packed, of which
    /// only what is needed is asked for.
    pub(crate) fn add_bucket<E>(
        &mut self,
        start: i64,
        mut new: Vec<Offset>,
        run: impl FnOnce() -> Result<Option<Vec<Offset>>, E>,
        total: impl FnOnce() -> Result<Option<Total>, E>,
    ) -> Result<(), E> {
        let is_total_enough = new.is_empty() && self.takes_whole(start, FIVE_MINUTES);
        let packed = if is_total_enough { None } else { run()? };
        match packed {
            Some(mut points) => {
                points.append(&mut new);
                new = points;
            }
            None => {
                if let Some(total) = total()? {
                    self.add(start, total);
                }
            }
        }
        codec::settle(&mut new);
        self.add_points(start, &new);
        Ok(())
    }

    /// Adds the points of the bucket at `start`, each time once.
    fn add_points(&mut self, start: i64, points: &[Offset]) {
        for point in points {
            let at = start + i64::from(point.ms);
            self.add(at, Total::of_point(at, point.value));
        }
    }

    pub(crate) fn finish(self, query: &RangeQuery) -> Vec<Bucket> {
        let bucket = |(at, total): (i64, Total)| Bucket {
            at: Millis(at),
            value: total.value(query.aggregate),
            count: total.count,
        };
        self.buckets.into_iter().map(bucket).take(query.limit as usize).collect()
    }
}

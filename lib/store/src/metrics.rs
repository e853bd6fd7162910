//! Reading and maintaining metrics.

pub(crate) mod codec;
pub(crate) mod described;
pub(crate) mod stitch;

use async_trait::async_trait;
use overstory_model::metric::MetricKind;
use overstory_model::{Millis, SeriesKey};

use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// A series and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its identity.
    pub key: SeriesKey,
    /// The unit.
    pub unit: Option<String>,
    /// How values relate.
    pub kind: MetricKind,
    /// Least, greatest, warning and critical values.
    pub limits: [Option<f64>; 4],
    /// When its latest point is.
    pub last_at: Option<Millis>,
    /// The latest value.
    pub last_value: Option<f64>,
}

/// A question for a list of series; sorted by entity and metric.
#[derive(Debug, Clone, Default)]
pub struct SeriesQuery {
    /// Only those whose entity id or metric name contains this text, letter case aside (ASCII).
    pub search: Option<String>,
    /// Only those of this entity.
    pub entity: Option<String>,
    /// Only those whose metric has this name.
    pub metric: Option<String>,
    /// Which part.
    pub page: PageRequest,
}

/// What a bucket's value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggregate {
    /// The mean.
    #[default]
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The latest.
    Last,
    /// The sum.
    Sum,
}

/// A question for the points of one series.
#[derive(Debug, Clone)]
pub struct RangeQuery {
    /// The series.
    pub series: SeriesKey,
    /// From this time on.
    pub from: Millis,
    /// Up to but not including this time.
    pub to: Millis,
    /// The width of a bucket in milliseconds, at least 1; buckets start at multiples of it. `None`: raw points.
    pub step: Option<i64>,
    /// What a bucket shows.
    pub aggregate: Aggregate,
    /// At most so many buckets or points, the earliest; the caller refuses ranges that would hold more.
    pub limit: u32,
}

/// One bucket that holds at least one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Where it starts; of a raw point its time.
    pub at: Millis,
    /// Its value.
    pub value: f64,
    /// How many points it is made of.
    pub count: u64,
}

/// How long points are kept, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Points as they came; older ones are rolled up.
    pub raw_s: i64,
    /// Five-minute buckets (count, sum, min, max, last).
    pub five_minutes_s: i64,
    /// One-hour buckets.
    pub hours_s: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { raw_s: 2 * 86_400, five_minutes_s: 30 * 86_400, hours_s: 730 * 86_400 }
    }
}

/// A five-minute bucket is packed this many milliseconds after its end; points that come later are added to it then.
pub(crate) const CLOSED_AFTER_MS: i64 = 60_000;

/// What one maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaintenanceReport {
    /// Buckets written.
    pub rolled_up: u64,
    /// Points and buckets removed.
    pub expired: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// The metrics.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// The series there are.
    ///
    /// # Errors
    /// The store is not available.
    async fn series(&self, query: &SeriesQuery) -> Result<Page<Series>, StoreError>;

    /// Points or buckets of a series, oldest first; rolled-up data stand in where raw points have been expired. An
    /// unknown series has none.
    ///
    /// # Errors
    /// The store is not available.
    async fn range(&self, query: &RangeQuery) -> Result<Vec<Bucket>, StoreError>;

    /// Rolls up and expires a bounded amount (well below 100 ms of write lock at a time).
    ///
    /// # Errors
    /// The store is not available.
    async fn maintain(&self, now: Millis, retention: Retention) -> Result<MaintenanceReport, StoreError>;
}

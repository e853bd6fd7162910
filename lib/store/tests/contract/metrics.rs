use std::collections::BTreeMap;

use overstory_model::metric::MetricKind;
use overstory_model::{Millis, Timestamp};
use overstory_store::{Aggregate, Bucket, Commit, EngineSide, PageRequest, Point, RangeQuery, Retention, SeriesQuery};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::fixture::Fixture;
use super::model::*;

const START: i64 = NOW * 1000;
const MINUTE: i64 = 60_000;
const FIVE: i64 = 5 * MINUTE;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

async fn put(store: &EngineSide, points: Vec<Point>) {
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    store.engines.commit(UNIT, epoch, Commit { points, at: Timestamp(NOW), ..Commit::default() }).await.unwrap();
}

fn query(from: i64, to: i64, step: Option<i64>, aggregate: Aggregate) -> RangeQuery {
    RangeQuery { series: key("web1", "cpu"), from: Millis(from), to: Millis(to), step, aggregate, limit: 1_000_000 }
}

async fn values(store: &EngineSide, query: &RangeQuery) -> Vec<(i64, f64, u64)> {
    let buckets = store.metrics.range(query).await.unwrap();
    buckets.iter().map(|bucket| (bucket.at.0 - START, bucket.value, bucket.count)).collect()
}

async fn maintain_all(store: &EngineSide, now: i64, retention: Retention) {
    while store.metrics.maintain(Millis(now), retention).await.unwrap().more {}
}

pub(crate) async fn a_series_is_described_by_its_latest_words(fixture: &Fixture) {
    let store = fixture.engines().await;
    let full = Point {
        unit: Some("B".to_owned()),
        kind: MetricKind::Counter,
        limits: [Some(0.0), None, Some(80.0), None],
        ..point("web1", "cpu", START, 1.0)
    };
    put(&store, vec![full.clone()]).await;
    put(&store, vec![Point { kind: MetricKind::Counter, ..point("web1", "cpu", START + 1, 2.0) }]).await;
    let second = Point { limits: [None, Some(9.0), Some(70.0), None], unit: Some("kB".into()), ..full };
    put(&store, vec![Point { at: Millis(START - 1), ..second }]).await;
    let page = fixture.web().await.metrics.series(&SeriesQuery::default()).await.unwrap();
    assert_eq!(page.total, 1);
    let series = &page.items[0];
    assert_eq!((series.unit.as_deref(), series.kind), (Some("kB"), MetricKind::Counter));
    assert_eq!(series.limits, [Some(0.0), Some(9.0), Some(70.0), None]);
    assert_eq!((series.last_at, series.last_value), (Some(Millis(START + 1)), Some(2.0)));
}

pub(crate) async fn a_point_at_the_same_time_is_replaced(fixture: &Fixture) {
    let store = fixture.engines().await;
    put(&store, vec![point("web1", "cpu", START, 1.0), point("web1", "cpu", START, 2.0)]).await;
    let raw = query(START, START + 10, None, Aggregate::Avg);
    assert_eq!(values(&store, &raw).await, [(0, 2.0, 1)]);
    put(&store, vec![point("web1", "cpu", START, 3.0)]).await;
    assert_eq!(values(&store, &raw).await, [(0, 3.0, 1)]);
    // After packing as well.
    maintain_all(&store, START + HOUR, Retention::default()).await;
    assert_eq!(values(&store, &raw).await, [(0, 3.0, 1)]);
    put(&store, vec![point("web1", "cpu", START, 4.0)]).await;
    assert_eq!(values(&store, &raw).await, [(0, 4.0, 1)]);
    maintain_all(&store, START + HOUR, Retention::default()).await;
    let hour = query(START, START + HOUR, Some(HOUR), Aggregate::Sum);
    assert_eq!(values(&store, &hour).await, [(0, 4.0, 1)]);
}

pub(crate) async fn each_aggregate_is_right(fixture: &Fixture) {
    let store = fixture.engines().await;
    let points = [(0, 4.0), (30_000, 1.0), (59_999, 7.0), (60_000, 5.0), (180_000, 9.0)];
    put(&store, points.map(|(at, value)| point("web1", "cpu", START + at, value)).to_vec()).await;
    let of = |aggregate| query(START, START + FIVE, Some(MINUTE), aggregate);
    for (aggregate, first) in [
        (Aggregate::Avg, 4.0),
        (Aggregate::Min, 1.0),
        (Aggregate::Max, 7.0),
        (Aggregate::Last, 7.0),
        (Aggregate::Sum, 12.0),
    ] {
        let expected = [(0, first, 3), (60_000, 5.0, 1), (180_000, 9.0, 1)];
        assert_eq!(values(&store, &of(aggregate)).await, expected, "{aggregate:?}");
    }
    // The end is not part of the range, and the limit takes the earliest.
    let part = query(START + 1, START + 180_000, None, Aggregate::Avg);
    assert_eq!(values(&store, &part).await.len(), 3);
    let two = RangeQuery { limit: 2, ..part };
    assert_eq!(values(&store, &two).await, [(30_000, 1.0, 1), (59_999, 7.0, 1)]);
    let unknown = RangeQuery { series: key("web1", "nothing"), ..two };
    assert_eq!(values(&store, &unknown).await, []);
    assert_eq!(values(&store, &query(START + 5, START + 5, None, Aggregate::Avg)).await, []);
}

pub(crate) async fn late_points_of_packed_buckets_count(fixture: &Fixture) {
    let store = fixture.engines().await;
    let retention = Retention { raw_s: 3600, five_minutes_s: 2 * 86_400, hours_s: 30 * 86_400 };
    put(&store, vec![point("web1", "cpu", START + MINUTE, 1.0)]).await;
    maintain_all(&store, START + HOUR, retention).await;
    put(&store, vec![point("web1", "cpu", START + 2 * MINUTE, 2.0)]).await;
    let sum = query(START, START + FIVE, Some(FIVE), Aggregate::Sum);
    assert_eq!(values(&store, &sum).await, [(0, 3.0, 2)]);
    maintain_all(&store, START + HOUR, retention).await;
    assert_eq!(values(&store, &sum).await, [(0, 3.0, 2)]);
    // The points are gone, only their total is left: it takes in the late one, before and after packing.
    maintain_all(&store, START + 2 * HOUR, retention).await;
    put(&store, vec![point("web1", "cpu", START + 3 * MINUTE, 4.0)]).await;
    assert_eq!(values(&store, &sum).await, [(0, 7.0, 3)]);
    maintain_all(&store, START + 2 * HOUR, retention).await;
    assert_eq!(values(&store, &sum).await, [(0, 7.0, 3)]);
    let page = store.metrics.series(&SeriesQuery::default()).await.unwrap();
    assert_eq!(page.items[0].last_value, Some(4.0));
}

pub(crate) async fn old_points_become_roll_ups_and_go(fixture: &Fixture) {
    let store = fixture.engines().await;
    let retention = Retention { raw_s: 86_400, five_minutes_s: 2 * 86_400, hours_s: 10 * 86_400 };
    // Two points each minute of one hour.
    let points = (0..120_i32).map(|n| point("web1", "cpu", START + i64::from(n) * 30_000, f64::from(n))).collect();
    put(&store, points).await;
    let raw = query(START, START + HOUR, None, Aggregate::Max);
    let hour = query(START, START + HOUR, Some(HOUR), Aggregate::Sum);
    let whole = [(0, f64::from(119 * 120 / 2), 120)];
    let count_at = async |now| {
        maintain_all(&store, now, retention).await;
        assert_eq!(values(&store, &hour).await, whole, "{}", now - START);
        values(&store, &raw).await.len()
    };
    assert_eq!(count_at(START + 2 * HOUR).await, 120);
    assert_eq!(count_at(START + DAY).await, 120);
    // Half an hour of points is past a day.
    assert_eq!(count_at(START + DAY + HOUR / 2).await, 60 + 6);
    assert_eq!(count_at(START + DAY + HOUR).await, 12);
    assert_eq!(values(&store, &raw).await[0], (0, 9.0, 10));
    assert_eq!(count_at(START + 2 * DAY + HOUR - 1).await, 12);
    assert_eq!(count_at(START + 2 * DAY + HOUR).await, 1);
    assert_eq!(count_at(START + 10 * DAY + HOUR - 1).await, 1);
    maintain_all(&store, START + 10 * DAY + HOUR, retention).await;
    assert_eq!(values(&store, &raw).await, []);
}

pub(crate) async fn maintenance_is_done_in_bounded_pieces(fixture: &Fixture) {
    let store = fixture.engines().await;
    let points =
        (0..600).flat_map(|series| (0..4).map(move |n| point("web1", &format!("m{series}"), START + n * FIVE, 1.0)));
    put(&store, points.collect()).await;
    let retention = Retention { raw_s: 3600, five_minutes_s: 7200, hours_s: 86_400 };
    let first = store.metrics.maintain(Millis(START + DAY), retention).await.unwrap();
    assert!(first.more && first.rolled_up > 0, "{first:?}");
    let mut report = first;
    let (mut rolled_up, mut expired, mut calls) = (first.rolled_up, first.expired, 1);
    while report.more {
        report = store.metrics.maintain(Millis(START + DAY), retention).await.unwrap();
        rolled_up += report.rolled_up;
        expired += report.expired;
        calls += 1;
        assert!(calls < 100, "maintenance does not come to an end");
    }
    // Each series: four five-minute totals and one of an hour; four runs and four totals gone.
    assert_eq!((rolled_up, expired), (600 * 5, 600 * 8));
    let nothing = store.metrics.maintain(Millis(START + DAY), retention).await.unwrap();
    assert_eq!(nothing, overstory_store::MaintenanceReport::default());
    let one = RangeQuery { series: key("web1", "m599"), ..query(START, START + HOUR, Some(HOUR), Aggregate::Sum) };
    assert_eq!(values(&store, &one).await, [(0, 4.0, 4)]);
}

pub(crate) async fn series_are_listed_and_searched(fixture: &Fixture) {
    let store = fixture.engines().await;
    let all = [("web1", "cpu.user"), ("db1", "cpu_user"), ("web1", "mem"), ("load/web1", "load1")];
    put(&store, all.map(|(entity, metric)| point(entity, metric, START, 1.0)).to_vec()).await;
    maintain_all(&store, START + HOUR, Retention::default()).await;
    put(&store, vec![point("web1", "mem", START + HOUR, 7.0)]).await;
    let metrics = fixture.web().await.metrics;
    let list = async |query: SeriesQuery| {
        let page = metrics.series(&query).await.unwrap();
        let names: Vec<_> = page.items.iter().map(|s| format!("{} {}", s.key.entity, s.key.metric)).collect();
        (names, page.total, page.items)
    };
    let base = SeriesQuery::default;
    let (names, total, items) = list(base()).await;
    assert_eq!(names, ["db1 cpu_user", "load/web1 load1", "web1 cpu.user", "web1 mem"]);
    assert_eq!(total, 4);
    assert_eq!((items[2].last_value, items[2].last_at), (Some(1.0), Some(Millis(START))));
    assert_eq!((items[3].last_value, items[3].last_at), (Some(7.0), Some(Millis(START + HOUR))));
    assert_eq!(list(SeriesQuery { search: Some("CPU_".into()), ..base() }).await.0, ["db1 cpu_user"]);
    assert_eq!(list(SeriesQuery { search: Some("d/w".into()), ..base() }).await.0, ["load/web1 load1"]);
    assert_eq!(list(SeriesQuery { entity: Some("web1".into()), ..base() }).await.1, 2);
    assert_eq!(list(SeriesQuery { metric: Some("mem".into()), ..base() }).await.0, ["web1 mem"]);
    let page = PageRequest { page: 2, limit: 3, paginate: true };
    assert_eq!(list(SeriesQuery { page, ..base() }).await.0, ["web1 mem"]);
}

/// What happens to a store.
#[derive(Debug, Clone)]
enum Act {
    /// Points at these minutes of the history, with these values.
    Put(Vec<(i64, i32)>),
    /// Maintenance at this hour of the history.
    Maintain(i64),
    /// The process ends and starts again.
    Reopen,
}

const RETENTION: Retention = Retention { raw_s: 2 * 3600, five_minutes_s: 6 * 3600, hours_s: 24 * 3600 };

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let points = prop::collection::vec((0..30 * 60_i64, -100..100), 1..30);
    let act =
        prop_oneof![4 => points.prop_map(Act::Put), 3 => (0..32_i64).prop_map(Act::Maintain), 1 => Just(Act::Reopen)];
    prop::collection::vec(act, 1..12)
}

/// The naive model: all parts of one series in plain maps.
#[derive(Debug, Default)]
struct Model {
    points: BTreeMap<i64, f64>,
    fives: BTreeMap<i64, Part>,
    hours: BTreeMap<i64, Part>,
    clock: i64,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    last: f64,
    last_at: i64,
}

impl Part {
    fn of(at: i64, value: f64) -> Self {
        Self { count: 1, sum: value, min: value, max: value, last: value, last_at: at }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
    }
}

fn add(map: &mut BTreeMap<i64, Part>, at: i64, part: Part) {
    map.entry(at).and_modify(|present| present.add(&part)).or_insert(part);
}

impl Model {
    fn maintain(&mut self, now: i64) {
        let past = |at: i64, width: i64, seconds: i64| at - at.rem_euclid(width) + width <= now - seconds * 1000;
        let gone: Vec<_> = self.points.iter().map(|(at, value)| (*at, *value)).collect();
        for (at, value) in gone.into_iter().filter(|(at, _)| past(*at, FIVE, RETENTION.raw_s)) {
            self.points.remove(&at);
            add(&mut self.fives, at - at.rem_euclid(FIVE), Part::of(at, value));
        }
        let gone: Vec<_> = self.fives.iter().map(|(at, part)| (*at, *part)).collect();
        for (at, part) in gone.into_iter().filter(|(at, _)| past(*at, HOUR, RETENTION.five_minutes_s)) {
            self.fives.remove(&at);
            add(&mut self.hours, at - at.rem_euclid(HOUR), part);
        }
        self.hours.retain(|at, _| !past(*at, HOUR, RETENTION.hours_s));
    }

    fn range(&self, query: &RangeQuery) -> Vec<Bucket> {
        let step = query.step.unwrap_or(1);
        let mut buckets = BTreeMap::new();
        let points = self.points.iter().map(|(at, value)| (*at, Part::of(*at, *value)));
        let parts = self.hours.iter().chain(&self.fives).map(|(at, part)| (*at, *part));
        for (at, part) in parts.chain(points).filter(|(at, _)| (query.from.0..query.to.0).contains(at)) {
            add(&mut buckets, at - at.rem_euclid(step), part);
        }
        let value = |part: &Part| match query.aggregate {
            Aggregate::Avg => part.sum / part.count as f64,
            Aggregate::Min => part.min,
            Aggregate::Max => part.max,
            Aggregate::Last => part.last,
            Aggregate::Sum => part.sum,
        };
        buckets.iter().map(|(at, part)| Bucket { at: Millis(*at), value: value(part), count: part.count }).collect()
    }
}

pub(crate) async fn random_histories_match_the_naive_model(fixture: &Fixture) {
    let mut runner = TestRunner::deterministic();
    let strategy = acts();
    for case in 0..fixture.histories() {
        let acts = strategy.new_tree(&mut runner).unwrap().current();
        let (entity, mut model) = (format!("host{case}"), Model::default());
        let mut store = fixture.engines().await;
        for act in &acts {
            match act {
                Act::Put(points) => {
                    let at = |minute: i64| START + minute * MINUTE;
                    // Whole numbers: sums do not depend on the order.
                    let points = points.iter().map(|(minute, value)| (at(*minute), f64::from(*value)));
                    put(&store, points.clone().map(|(at, value)| point(&entity, "cpu", at, value)).collect()).await;
                    model.points.extend(points);
                }
                Act::Maintain(hour) => {
                    model.clock = model.clock.max(START + hour * HOUR);
                    maintain_all(&store, model.clock, RETENTION).await;
                    model.maintain(model.clock);
                }
                Act::Reopen => {
                    drop(store);
                    store = fixture.engines().await;
                }
            }
            let ranges = [
                (0, 31 * HOUR, None),
                (7 * MINUTE + 3, 9 * HOUR + 2, None),
                (0, 31 * HOUR, Some(FIVE)),
                (13 * MINUTE, 20 * HOUR - 1, Some(7 * MINUTE)),
                (FIVE, 31 * HOUR + 1, Some(HOUR)),
            ];
            for (from, to, step) in ranges {
                for aggregate in [Aggregate::Avg, Aggregate::Min, Aggregate::Max, Aggregate::Last, Aggregate::Sum] {
                    let query =
                        RangeQuery { series: key(&entity, "cpu"), ..query(START + from, START + to, step, aggregate) };
                    let stored = store.metrics.range(&query).await.unwrap();
                    assert_eq!(stored, model.range(&query), "case {case} of {acts:?}, after {act:?}: {query:?}");
                }
            }
        }
    }
}

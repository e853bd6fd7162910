//! Reading metrics: points from blocks and runs, roll-ups where those were expired.

use std::collections::BTreeMap;

use async_trait::async_trait;
use overstory_model::{EntityId, Millis, SeriesKey};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::EnginesDb;
use super::maintain::maintain;
use super::sql::{Conditions, collect, select_page};
use crate::error::StoreError;
use crate::metrics::codec::{self, FIVE_MINUTES, HOUR, Offset};
use crate::metrics::described::kind_of;
use crate::metrics::stitch::{Stitcher, Total};
use crate::metrics::{Bucket, MaintenanceReport, Metrics, RangeQuery, Retention, Series, SeriesQuery};
use crate::page::Page;

#[async_trait]
impl Metrics for EnginesDb {
    async fn series(&self, query: &SeriesQuery) -> Result<Page<Series>, StoreError> {
        let query = query.clone();
        self.read(move |connection| list(connection, &query)).await
    }

    async fn range(&self, query: &RangeQuery) -> Result<Vec<Bucket>, StoreError> {
        let query = query.clone();
        self.read(move |connection| range(connection, &query)).await
    }

    async fn maintain(&self, now: Millis, retention: Retention) -> Result<MaintenanceReport, StoreError> {
        self.writer()?.call(move |connection, _| maintain(connection, now, retention)).await
    }
}

/// The total in six columns from `first` on.
pub(super) fn total_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Total> {
    Ok(Total {
        count: row.get(first)?,
        sum: row.get(first + 1)?,
        min: row.get(first + 2)?,
        max: row.get(first + 3)?,
        last: row.get(first + 4)?,
        last_at: row.get(first + 5)?,
    })
}

fn list(connection: &Connection, query: &SeriesQuery) -> Result<Page<Series>, StoreError> {
    let mut conditions = Conditions::default();
    if let Some(entity) = &query.entity {
        conditions.and("entity = ?", [Value::Text(entity.clone())]);
    }
    if let Some(metric) = &query.metric {
        conditions.and("metric = ?", [Value::Text(metric.clone())]);
    }
    if let Some(text) = &query.search {
        conditions.and_contains(&["entity", "metric"], text);
    }
    let columns = "n, entity, metric, kind, unit, min, max, warn, crit, at, value";
    let source = "series LEFT JOIN latest ON latest.series = n";
    let mut numbers = Vec::new();
    let mut page = select_page(connection, columns, source, &conditions, "entity, metric", query.page, |row| {
        numbers.push(row.get::<_, i64>(0)?);
        Ok(Series {
            key: SeriesKey { entity: EntityId(row.get(1)?), metric: row.get(2)? },
            kind: kind_of(row.get(3)?),
            unit: row.get(4)?,
            limits: [row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?],
            last_at: row.get::<_, Option<i64>>(9)?.map(Millis),
            last_value: row.get(10)?,
        })
    })?;
    add_new_points(connection, &numbers, &mut page.items)?;
    Ok(page)
}

/// Moves the latest values on by what is in blocks.
fn add_new_points(connection: &Connection, numbers: &[i64], items: &mut [Series]) -> Result<(), StoreError> {
    let mut shards: BTreeMap<i64, BTreeMap<u8, usize>> = BTreeMap::new();
    for (index, number) in numbers.iter().enumerate() {
        let place = u8::try_from(number.rem_euclid(codec::SHARD)).unwrap_or(0);
        shards.entry(codec::shard(*number)).or_default().insert(place, index);
    }
    for bucket in block_buckets(connection, i64::MIN, i64::MAX)? {
        for (shard, places) in &shards {
            for_each_block(connection, bucket, *shard, |block| {
                for (place, point) in codec::block_points(block) {
                    let Some(series) = places.get(&place).and_then(|index| items.get_mut(*index)) else { continue };
                    let at = Millis(bucket + i64::from(point.ms));
                    if series.last_at.is_none_or(|last| at >= last) {
                        series.last_at = Some(at);
                        series.last_value = Some(point.value);
                    }
                }
            })?;
        }
    }
    Ok(())
}

fn range(connection: &Connection, query: &RangeQuery) -> Result<Vec<Bucket>, StoreError> {
    let SeriesKey { entity, metric } = &query.series;
    let series: Option<i64> = connection
        .prepare_cached("SELECT n FROM series WHERE entity = ? AND metric = ?")?
        .query_row([entity.as_str(), metric.as_str()], |row| row.get(0))
        .optional()?;
    let (from, to) = (query.from.0, query.to.0);
    let Some(series) = series.filter(|_| from < to) else {
        return Ok(Vec::new());
    };
    let mut stitcher = Stitcher::new(query);
    for start in starts(connection, "hours", from, to, HOUR)? {
        if let Some(total) = total_at(connection, "hours", start, series)? {
            stitcher.add(start, total);
        }
    }
    let mut fresh = fresh_points(connection, series, from, to)?;
    for start in starts(connection, "five", from, to, FIVE_MINUTES)? {
        let new = fresh.remove(&start).unwrap_or_default();
        stitcher.add_bucket(
            start,
            new,
            || run_at(connection, start, series),
            || total_at(connection, "five", start, series),
        )?;
    }
    for (start, new) in fresh {
        stitcher.add_bucket(start, new, || Ok::<_, StoreError>(None), || Ok(None))?;
    }
    Ok(stitcher.finish(query))
}

/// The points of a series that are still in blocks, by bucket, in the order they came.
fn fresh_points(
    connection: &Connection,
    series: i64,
    from: i64,
    to: i64,
) -> Result<BTreeMap<i64, Vec<Offset>>, StoreError> {
    let mut fresh: BTreeMap<i64, Vec<Offset>> = BTreeMap::new();
    for bucket in block_buckets(connection, codec::floor(from, FIVE_MINUTES), to)? {
        for_each_block(connection, bucket, codec::shard(series), |block| {
            let points = codec::block_points_of(block, series);
            fresh.entry(bucket).or_default().extend(points);
        })?;
    }
    Ok(fresh)
}

/// The buckets in `from..to` of which there are blocks; there are few.
fn block_buckets(connection: &Connection, from: i64, to: i64) -> Result<Vec<i64>, StoreError> {
    let mut next = connection.prepare_cached("SELECT min(bucket) FROM blocks WHERE bucket >= ? AND bucket < ?")?;
    let mut buckets = Vec::new();
    let mut after = from;
    while let Some(bucket) = next.query_row([after, to], |row| row.get::<_, Option<i64>>(0))? {
        buckets.push(bucket);
        after = bucket.saturating_add(1);
    }
    Ok(buckets)
}

fn for_each_block(
    connection: &Connection,
    bucket: i64,
    shard: i64,
    mut take: impl FnMut(&[u8]),
) -> Result<(), StoreError> {
    let sql = "SELECT points FROM blocks WHERE bucket = ? AND shard = ? ORDER BY n";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([bucket, shard])?;
    while let Some(row) = rows.next()? {
        take(row.get_ref(0)?.as_blob().unwrap_or_default());
    }
    Ok(())
}

/// The starts of buckets that may overlap `from..to` and lie within what `table` holds.
fn starts(
    connection: &Connection,
    table: &str,
    from: i64,
    to: i64,
    width: i64,
) -> Result<impl Iterator<Item = i64> + use<>, StoreError> {
    let ends = |column: &str| -> Result<Option<i64>, StoreError> {
        // Separate statements: only a lone min or max is answered from the index.
        let sql = format!("SELECT {column}(start) FROM {table}");
        Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
    };
    let bounds = ends("min")?.zip(ends("max")?);
    Ok(bounds.into_iter().flat_map(move |(least, greatest)| {
        let first = codec::floor(from, width).max(least);
        let last = greatest.min(to.saturating_sub(1));
        let count = if last < first { 0 } else { (last - first) / width + 1 };
        (0..count).map(move |n| first + n * width)
    }))
}

/// The roll-up of a series in `five` or `hours`.
pub(super) fn total_at(
    connection: &Connection,
    table: &str,
    start: i64,
    series: i64,
) -> Result<Option<Total>, StoreError> {
    let sql = format!("SELECT count, sum, min, max, last, last_at FROM {table} WHERE start = ? AND series = ?");
    Ok(connection.prepare_cached(&sql)?.query_row([start, series], |row| total_of(row, 0)).optional()?)
}

/// The points of a closed bucket.
pub(super) fn run_at(connection: &Connection, start: i64, series: i64) -> Result<Option<Vec<Offset>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT points FROM runs WHERE start = ? AND series = ?")?;
    let mut runs = collect(statement.query(params![start, series])?, |row| {
        Ok(codec::run_points(row.get_ref(0)?.as_blob().unwrap_or_default()).collect())
    })?;
    Ok(runs.pop())
}

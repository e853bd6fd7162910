//! Packing, rolling up and expiring metrics, a bounded piece at a time.
//!
//! Four stages, each begun when the one before has nothing left to do: blocks of closed buckets become runs and
//! five-minute totals; old runs go; five-minute totals of old hours become one-hour totals; old hours go. At every moment
//! each point is in exactly one place that answers count.

use std::collections::BTreeMap;

use overstory_model::Millis;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::metrics::{run_at, total_of};
use super::writer::transact;
use crate::error::StoreError;
use crate::metrics::codec::{self, FIVE_MINUTES, HOUR, Offset, SHARD};
use crate::metrics::stitch::Total;
use crate::metrics::{CLOSED_AFTER_MS, MaintenanceReport, Retention};

/// How many rows one call touches before it says that there is more to do.
const BUDGET: u64 = 2000;

/// Does one piece of work in one transaction.
pub(super) fn maintain(
    connection: &mut Connection,
    now: Millis,
    retention: Retention,
) -> Result<MaintenanceReport, StoreError> {
    transact(connection, |transaction| {
        let mut work = Work { transaction, touched: 0, report: MaintenanceReport::default() };
        work.report.more = !work.everything(now.0, retention)?;
        Ok(work.report)
    })
}

struct Work<'a> {
    transaction: &'a Transaction<'a>,
    touched: u64,
    report: MaintenanceReport,
}

impl Work<'_> {
    /// Returns whether nothing is left to do.
    fn everything(&mut self, now: i64, retention: Retention) -> Result<bool, StoreError> {
        let before = |seconds: i64, width: i64| now.saturating_sub(seconds.saturating_mul(1000)).saturating_sub(width);
        Ok(self.pack(now.saturating_sub(FIVE_MINUTES + CLOSED_AFTER_MS))?
            && self.expire("runs", before(retention.raw_s, FIVE_MINUTES))?
            && self.roll_up(before(retention.five_minutes_s, HOUR))?
            && self.expire("hours", before(retention.hours_s, HOUR))?)
    }

    const fn has_budget(&self) -> bool {
        self.touched < BUDGET
    }

    /// Packs blocks of buckets that start at `last` or before.
    fn pack(&mut self, last: i64) -> Result<bool, StoreError> {
        let sql = "SELECT bucket, shard FROM blocks WHERE bucket <= ? ORDER BY bucket, shard LIMIT 1";
        let mut next = self.transaction.prepare_cached(sql)?;
        while self.has_budget() {
            let unit = next.query_row([last], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((bucket, shard)) = unit else { return Ok(true) };
            self.pack_unit(bucket, shard)?;
        }
        Ok(false)
    }

    fn pack_unit(&mut self, bucket: i64, shard: i64) -> Result<(), StoreError> {
        let mut new: BTreeMap<u8, Vec<Offset>> = BTreeMap::new();
        {
            let sql = "SELECT points FROM blocks WHERE bucket = ? AND shard = ? ORDER BY n";
            let mut blocks = self.transaction.prepare_cached(sql)?;
            let mut rows = blocks.query([bucket, shard])?;
            while let Some(row) = rows.next()? {
                for (place, point) in codec::block_points(row.get_ref(0)?.as_blob().unwrap_or_default()) {
                    new.entry(place).or_default().push(point);
                }
                self.touched += 1;
            }
        }
        for (place, points) in new {
            self.pack_series(bucket, shard * SHARD + i64::from(place), points)?;
        }
        self.transaction
            .prepare_cached("DELETE FROM blocks WHERE bucket = ? AND shard = ?")?
            .execute([bucket, shard])?;
        Ok(())
    }

    fn pack_series(&mut self, bucket: i64, series: i64, mut points: Vec<Offset>) -> Result<(), StoreError> {
        let run = run_at(self.transaction, bucket, series)?;
        let total = match run {
            Some(mut run) => {
                // Late points of a closed bucket.
                run.append(&mut points);
                points = run;
                None
            }
            // The points of this bucket were expired: new ones can only be added to their total.
            None => self.total_at("five", bucket, series)?,
        };
        codec::settle(&mut points);
        let Some(mut new) = Total::of_run(bucket, &points) else { return Ok(()) };
        self.move_latest_on(series, &new)?;
        if let Some(mut total) = total {
            total.merge(&new);
            new = total;
        } else {
            self.transaction.prepare_cached("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)")?.execute(params![
                bucket,
                series,
                codec::encode_run(&points)
            ])?;
        }
        self.put_total("five", bucket, series, &new)?;
        self.touched += 3;
        Ok(())
    }

    fn move_latest_on(&self, series: i64, total: &Total) -> Result<(), StoreError> {
        let sql = "INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, \
                   value = excluded.value WHERE excluded.at >= at";
        self.transaction.prepare_cached(sql)?.execute(params![series, total.last_at, total.last])?;
        Ok(())
    }

    /// Removes rows that start at `last` or before.
    fn expire(&mut self, table: &str, last: i64) -> Result<bool, StoreError> {
        let sql = format!(
            "DELETE FROM {table} WHERE (start, series) IN \
             (SELECT start, series FROM {table} WHERE start <= ? ORDER BY start, series LIMIT ?)"
        );
        let room = BUDGET.saturating_sub(self.touched);
        let removed = self.transaction.prepare_cached(&sql)?.execute(params![last, room])? as u64;
        self.report.expired += removed;
        self.touched += removed;
        Ok(removed < room)
    }

    /// Makes one-hour totals of hours that start at `last` or before.
    fn roll_up(&mut self, last: i64) -> Result<bool, StoreError> {
        let mut next =
            self.transaction.prepare_cached("SELECT start, series FROM five ORDER BY start, series LIMIT 1")?;
        while self.has_budget() {
            let oldest = next.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((start, series)) = oldest else { return Ok(true) };
            let hour = codec::floor(start, HOUR);
            if hour > last {
                return Ok(true);
            }
            self.roll_up_unit(hour, codec::shard(series))?;
        }
        Ok(false)
    }

    fn roll_up_unit(&mut self, hour: i64, shard: i64) -> Result<(), StoreError> {
        let (first, end) = (shard * SHARD, (shard + 1) * SHARD);
        let mut totals: BTreeMap<i64, Total> = BTreeMap::new();
        {
            let sql = "SELECT series, count, sum, min, max, last, last_at FROM five \
                       WHERE start = ? AND series >= ? AND series < ?";
            let mut fives = self.transaction.prepare_cached(sql)?;
            let mut remove =
                self.transaction.prepare_cached("DELETE FROM five WHERE start = ? AND series >= ? AND series < ?")?;
            for start in (0..HOUR / FIVE_MINUTES).map(|n| hour + n * FIVE_MINUTES) {
                let mut rows = fives.query([start, first, end])?;
                while let Some(row) = rows.next()? {
                    let total = total_of(row, 1)?;
                    totals.entry(row.get(0)?).and_modify(|present| present.merge(&total)).or_insert(total);
                }
                drop(rows);
                let removed = remove.execute([start, first, end])? as u64;
                self.report.expired += removed;
                self.touched += removed;
            }
        }
        for (series, total) in totals {
            let mut whole = self.total_at("hours", hour, series)?;
            if let Some(whole) = &mut whole {
                whole.merge(&total);
            }
            self.put_total("hours", hour, series, &whole.unwrap_or(total))?;
            self.touched += 1;
        }
        Ok(())
    }

    fn total_at(&self, table: &str, start: i64, series: i64) -> Result<Option<Total>, StoreError> {
        super::metrics::total_at(self.transaction, table, start, series)
    }

    fn put_total(&mut self, table: &str, start: i64, series: i64, total: &Total) -> Result<(), StoreError> {
        let sql = format!("INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
        let Total { count, sum, min, max, last, last_at } = *total;
        self.transaction.prepare_cached(&sql)?.execute(params![start, series, count, sum, min, max, last, last_at])?;
        self.report.rolled_up += 1;
        Ok(())
    }
}

//! Packing, rolling up and expiring metrics, a bounded piece at a time; the stages are those of the embedded store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mongodb::ClientSession;
use mongodb::bson::{Document, doc};

use super::bulk::{Bulk, raw, remove};
use super::documents::{binary, int};
use super::failure::{Attempt, within_store};
use super::metrics::{bytes, total_of, whole};
use super::{MongoDb, Work, name};
use crate::error::StoreError;
use crate::metrics::codec::{self, FIVE_MINUTES, HOUR, Offset, SHARD};
use crate::metrics::stitch::Total;
use crate::metrics::{CLOSED_AFTER_MS, MaintenanceReport, Retention};

/// How many documents one call touches before it says that there is more to do.
const BUDGET: u64 = 2000;
/// How many documents are removed by one command: others wait for it.
const REMOVED_AT_ONCE: usize = 250;

/// What one transaction did.
#[derive(Debug, Default)]
struct Piece {
    touched: u64,
    rolled_up: u64,
    expired: u64,
}

impl MongoDb {
    pub(super) async fn maintain_some(&self, now: i64, retention: Retention) -> Result<MaintenanceReport, StoreError> {
        let before = |seconds: i64, width: i64| now.saturating_sub(seconds.saturating_mul(1000)).saturating_sub(width);
        let mut report = MaintenanceReport { more: true, ..MaintenanceReport::default() };
        let mut touched = 0;
        let mut add = |piece: &Piece, report: &mut MaintenanceReport| {
            report.rolled_up += piece.rolled_up;
            report.expired += piece.expired;
            touched += piece.touched;
            touched >= BUDGET
        };
        let closed = now.saturating_sub(FIVE_MINUTES + CLOSED_AFTER_MS);
        while let Some((bucket, shard)) = self.oldest_block(closed).await? {
            let piece = self.transact(&Pack { store: self, bucket, shard }).await?;
            if add(&piece, &mut report) {
                return Ok(report);
            }
        }
        let piece = self.expire(name::RUNS, before(retention.raw_s, FIVE_MINUTES)).await?;
        if add(&piece, &mut report) {
            return Ok(report);
        }
        while let Some((hour, shard)) = self.oldest_hour(before(retention.five_minutes_s, HOUR)).await? {
            let piece = self.transact(&RollUp { store: self, hour, shard }).await?;
            if add(&piece, &mut report) {
                return Ok(report);
            }
        }
        let piece = self.expire(name::HOURS, before(retention.hours_s, HOUR)).await?;
        report.more = add(&piece, &mut report);
        Ok(report)
    }

    /// Bucket and shard of the oldest blocks, if their bucket starts at `last` or before.
    async fn oldest_block(&self, last: i64) -> Result<Option<(i64, i64)>, StoreError> {
        let blocks = self.collection(name::BLOCKS);
        let old = doc! { "bucket": { "$lte": last } };
        let found = async { Ok(blocks.find_one(old).sort(doc! { "bucket": 1, "shard": 1 }).await?) };
        Ok(within_store(found).await?.map(|block| (whole(&block, "bucket"), whole(&block, "shard"))))
    }

    /// Hour and shard of the oldest five-minute total, if its hour starts at `last` or before.
    async fn oldest_hour(&self, last: i64) -> Result<Option<(i64, i64)>, StoreError> {
        let fives = self.collection(name::FIVE);
        let old = doc! { "start": { "$lt": last.saturating_add(HOUR) } };
        let found = async { Ok(fives.find_one(old).sort(doc! { "start": 1 }).await?) };
        let found = within_store(found).await?;
        let unit = found.map(|five| (codec::floor(whole(&five, "start"), HOUR), codec::shard(whole(&five, "series"))));
        Ok(unit.filter(|(hour, _)| *hour <= last))
    }

    async fn totals(
        &self,
        session: &mut ClientSession,
        collection: &str,
        filter: Document,
        shard: i64,
    ) -> Result<BTreeMap<i64, Total>, Attempt> {
        let mut found = self.collection(collection).find(of_shard(filter, shard)).session(&mut *session).await?;
        let mut totals = BTreeMap::new();
        while let Some(document) = found.next(session).await.transpose()? {
            totals.insert(whole(&document, "series"), total_of(&document));
        }
        Ok(totals)
    }

    /// Removes what starts at `last` or before, at most so much as a call may.
    async fn expire(&self, collection: &str, last: i64) -> Result<Piece, StoreError> {
        let documents = self.collection(collection);
        let old = doc! { "start": { "$lte": last } };
        let find = async {
            let limit = i64::try_from(BUDGET).unwrap_or(i64::MAX);
            let mut found = documents.find(old).projection(doc! { "_id": 1 }).limit(limit).await?;
            let mut ids = Vec::new();
            while found.advance().await? {
                ids.extend(found.deserialize_current()?.remove("_id"));
            }
            Ok(ids)
        };
        let mut expired = 0;
        for ids in within_store(find).await?.chunks(REMOVED_AT_ONCE) {
            let some = doc! { "_id": { "$in": ids } };
            expired += within_store(async { Ok(documents.delete_many(some).await?.deleted_count) }).await?;
        }
        Ok(Piece { touched: expired, expired, ..Piece::default() })
    }
}

/// Makes runs and totals of the blocks of a closed bucket.
struct Pack<'a> {
    store: &'a MongoDb,
    bucket: i64,
    shard: i64,
}

#[async_trait]
impl Work for Pack<'_> {
    type Output = Piece;

    async fn run(&self, session: &mut ClientSession) -> Result<Piece, Attempt> {
        let Self { store, bucket, shard } = *self;
        let mut piece = Piece::default();
        let unit = doc! { "bucket": bucket, "shard": shard };
        let mut new: BTreeMap<i64, Vec<Offset>> = BTreeMap::new();
        let mut blocks =
            store.collection(name::BLOCKS).find(unit.clone()).sort(doc! { "n": 1 }).session(&mut *session).await?;
        while let Some(block) = blocks.next(session).await.transpose()? {
            for (place, point) in codec::block_points(bytes(&block, "points")) {
                new.entry(shard * SHARD + i64::from(place)).or_default().push(point);
            }
            piece.touched += 1;
        }
        let mut runs = BTreeMap::new();
        let filter = of_shard(doc! { "start": bucket }, shard);
        let mut found = store.collection(name::RUNS).find(filter).session(&mut *session).await?;
        while let Some(run) = found.next(session).await.transpose()? {
            runs.insert(whole(&run, "series"), codec::run_points(bytes(&run, "points")).collect::<Vec<_>>());
        }
        let totals = store.totals(session, name::FIVE, doc! { "start": bucket }, shard).await?;

        let mut run_writes = Writes::new(store, name::RUNS);
        let mut total_writes = Writes::new(store, name::FIVE);
        let mut latest = Bulk::updates(&store.database, name::SERIES);
        for (series, mut points) in new {
            let run = runs.remove(&series);
            let had_run = run.is_some();
            let present = totals.get(&series);
            if let Some(mut run) = run {
                run.append(&mut points);
                points = run;
            }
            codec::settle(&mut points);
            let Some(mut total) = Total::of_run(bucket, &points) else { continue };
            let not_later = doc! { "_id": series, "last_at": { "$not": { "$gt": total.last_at } } };
            let change = raw(&doc! { "$set": { "last_at": total.last_at, "last": total.last } })?;
            latest.update(session, not_later, change, false).await?;
            match present {
                // The points of this bucket were expired: new ones can only be added to their total.
                Some(present) if !had_run => {
                    let mut whole = *present;
                    whole.merge(&total);
                    total = whole;
                }
                _ => {
                    let run = doc! { "start": bucket, "series": series, "points": binary(codec::encode_run(&points)) };
                    run_writes.put(session, run, had_run).await?;
                }
            }
            total_writes.put(session, total_document(bucket, series, &total), present.is_some()).await?;
            piece.touched += 3;
            piece.rolled_up += 1;
        }
        run_writes.finish(session).await?;
        total_writes.finish(session).await?;
        latest.finish(session).await?;
        remove(&store.database, name::BLOCKS, unit, session).await?;
        Ok(piece)
    }
}

/// Makes one-hour totals of the five-minute totals of an hour.
struct RollUp<'a> {
    store: &'a MongoDb,
    hour: i64,
    shard: i64,
}

#[async_trait]
impl Work for RollUp<'_> {
    type Output = Piece;

    async fn run(&self, session: &mut ClientSession) -> Result<Piece, Attempt> {
        let Self { store, hour, shard } = *self;
        let span = doc! { "start": { "$gte": hour, "$lt": hour + HOUR } };
        let mut totals: BTreeMap<i64, Total> = BTreeMap::new();
        let filter = of_shard(span.clone(), shard);
        let order = doc! { "start": 1 };
        let mut fives = store.collection(name::FIVE).find(filter.clone()).sort(order).session(&mut *session).await?;
        while let Some(five) = fives.next(session).await.transpose()? {
            let total = total_of(&five);
            totals.entry(whole(&five, "series")).and_modify(|present| present.merge(&total)).or_insert(total);
        }
        let present = store.totals(session, name::HOURS, doc! { "start": hour }, shard).await?;
        let mut piece = Piece { rolled_up: totals.len() as u64, ..Piece::default() };
        let mut writes = Writes::new(store, name::HOURS);
        for (series, total) in totals {
            let stored = present.get(&series);
            let mut whole = stored.copied();
            if let Some(whole) = &mut whole {
                whole.merge(&total);
            }
            let document = total_document(hour, series, &whole.unwrap_or(total));
            writes.put(session, document, stored.is_some()).await?;
        }
        writes.finish(session).await?;
        piece.expired = remove(&store.database, name::FIVE, filter, session).await?;
        piece.touched = piece.rolled_up + piece.expired;
        Ok(piece)
    }
}

/// New documents and replacements of one collection.
struct Writes<'a> {
    new: Bulk<'a>,
    old: Bulk<'a>,
}

impl<'a> Writes<'a> {
    fn new(store: &'a MongoDb, collection: &'static str) -> Self {
        let database = &store.database;
        Self { new: Bulk::inserts(database, collection), old: Bulk::updates(database, collection) }
    }

    async fn put(&mut self, session: &mut ClientSession, document: Document, is_stored: bool) -> Result<(), Attempt> {
        if !is_stored {
            return self.new.insert(session, raw(&document)?).await;
        }
        let key = doc! { "series": whole(&document, "series"), "start": whole(&document, "start") };
        self.old.update(session, key, raw(&document)?, false).await
    }

    async fn finish(self, session: &mut ClientSession) -> Result<(), Attempt> {
        self.new.finish(session).await?;
        self.old.finish(session).await?;
        Ok(())
    }
}

pub(super) fn total_document(start: i64, series: i64, total: &Total) -> Document {
    let Total { count, sum, min, max, last, last_at } = *total;
    doc! {
        "start": start, "series": series, "count": int(count),
        "sum": sum, "min": min, "max": max, "last": last, "last_at": last_at,
    }
}

/// Narrows a filter to the series of a shard.
fn of_shard(mut filter: Document, shard: i64) -> Document {
    filter.insert("series", doc! { "$gte": shard * SHARD, "$lt": (shard + 1) * SHARD });
    filter
}

//! Reading metrics: points from blocks and runs, roll-ups where those were expired.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};
use overstory_model::{Millis, SeriesKey};

use super::documents::series_of;
use super::entities::contains;
use super::failure::{Attempt, within_store};
use super::{MongoDb, Work, name};
use crate::error::StoreError;
use crate::metrics::codec::{self, FIVE_MINUTES, Offset};
use crate::metrics::stitch::{Stitcher, Total};
use crate::metrics::{Bucket, MaintenanceReport, Metrics, RangeQuery, Retention, Series, SeriesQuery};
use crate::page::Page;

#[async_trait]
impl Metrics for MongoDb {
    async fn series(&self, query: &SeriesQuery) -> Result<Page<Series>, StoreError> {
        let mut filter = Document::new();
        if let Some(entity) = &query.entity {
            filter.insert("entity", entity);
        }
        if let Some(metric) = &query.metric {
            filter.insert("metric", metric);
        }
        if let Some(text) = &query.search {
            filter.insert("$or", contains(&["entity", "metric"], text));
        }
        let order = doc! { "entity": 1, "metric": 1 };
        let found: Page<Document> = self.page("series", name::SERIES, filter, order, query.page).await?;
        let mut numbers = Vec::with_capacity(found.items.len());
        let mut items = Vec::with_capacity(found.items.len());
        for document in &found.items {
            let (key, described) = series_of(document);
            numbers.push(described.number);
            items.push(Series {
                key,
                unit: described.unit,
                kind: described.kind,
                limits: described.limits,
                last_at: document.get_i64("last_at").ok().map(Millis),
                last_value: document.get_f64("last").ok(),
            });
        }
        within_store(self.add_new_points(&numbers, &mut items)).await?;
        Ok(Page { items, total: found.total })
    }

    async fn range(&self, query: &RangeQuery) -> Result<Vec<Bucket>, StoreError> {
        if query.from >= query.to {
            return Ok(Vec::new());
        }
        self.read(&Range { store: self, query }).await
    }

    async fn maintain(&self, now: Millis, retention: Retention) -> Result<MaintenanceReport, StoreError> {
        self.maintain_some(now.0, retention).await
    }
}

impl MongoDb {
    /// Moves the latest values on by what is in blocks.
    async fn add_new_points(&self, numbers: &[i64], items: &mut [Series]) -> Result<(), StoreError> {
        let places: BTreeMap<i64, usize> = numbers.iter().enumerate().map(|(i, number)| (*number, i)).collect();
        let shards: BTreeSet<i64> = numbers.iter().map(|number| codec::shard(*number)).collect();
        let shards: Vec<i64> = shards.into_iter().collect();
        if shards.is_empty() {
            return Ok(());
        }
        let filter = doc! { "shard": { "$in": shards } };
        let order = doc! { "bucket": 1, "n": 1 };
        let mut blocks = self.collection(name::BLOCKS).find(filter).sort(order).await?;
        while blocks.advance().await? {
            let block = blocks.deserialize_current()?;
            let (bucket, shard) = (whole(&block, "bucket"), whole(&block, "shard"));
            for (place, point) in codec::block_points(bytes(&block, "points")) {
                let number = shard * codec::SHARD + i64::from(place);
                let Some(series) = places.get(&number).and_then(|i| items.get_mut(*i)) else { continue };
                let at = Millis(bucket + i64::from(point.ms));
                if series.last_at.is_none_or(|last| at >= last) {
                    series.last_at = Some(at);
                    series.last_value = Some(point.value);
                }
            }
        }
        Ok(())
    }
}

/// A range, read in one consistent view.
struct Range<'a> {
    store: &'a MongoDb,
    query: &'a RangeQuery,
}

#[async_trait]
impl Work for Range<'_> {
    type Output = Vec<Bucket>;

    async fn run(&self, session: &mut ClientSession) -> Result<Vec<Bucket>, Attempt> {
        let Self { store, query } = self;
        let SeriesKey { entity, metric } = &query.series;
        let key = doc! { "entity": entity.as_str(), "metric": metric };
        let Some(series) = store.collection(name::SERIES).find_one(key).session(&mut *session).await? else {
            return Ok(Vec::new());
        };
        let series = whole(&series, "_id");
        let mut stitcher = Stitcher::new(query);
        let first = codec::floor(query.from.0, FIVE_MINUTES);
        let span = doc! { "$gte": first, "$lt": query.to.0 };

        let filter = doc! { "bucket": span.clone(), "shard": codec::shard(series) };
        let mut fresh: BTreeMap<i64, Vec<Offset>> = BTreeMap::new();
        let order = doc! { "bucket": 1, "n": 1 };
        let mut blocks = store.collection(name::BLOCKS).find(filter).sort(order).session(&mut *session).await?;
        while let Some(block) = blocks.next(session).await.transpose()? {
            let points = codec::block_points_of(bytes(&block, "points"), series);
            fresh.entry(whole(&block, "bucket")).or_default().extend(points);
        }

        // Where totals do, runs are only needed at the ends and where there are new points.
        let starts = if query.step.is_some_and(|step| step % FIVE_MINUTES == 0) {
            let ends = [first, codec::floor(query.to.0.saturating_sub(1), FIVE_MINUTES)];
            doc! { "$in": fresh.keys().copied().chain(ends).collect::<Vec<i64>>() }
        } else {
            span.clone()
        };
        let mut runs: BTreeMap<i64, Vec<Offset>> = BTreeMap::new();
        let filter = doc! { "series": series, "start": starts };
        let mut found = store.collection(name::RUNS).find(filter).session(&mut *session).await?;
        while let Some(run) = found.next(session).await.transpose()? {
            runs.insert(whole(&run, "start"), codec::run_points(bytes(&run, "points")).collect());
        }

        let filter = doc! { "series": series, "start": span };
        let mut hours = store.collection(name::HOURS).find(filter.clone()).session(&mut *session).await?;
        while let Some(hour) = hours.next(session).await.transpose()? {
            stitcher.add(whole(&hour, "start"), total_of(&hour));
        }
        let mut fives = store.collection(name::FIVE).find(filter).session(&mut *session).await?;
        while let Some(five) = fives.next(session).await.transpose()? {
            let start = whole(&five, "start");
            let new = fresh.remove(&start).unwrap_or_default();
            let total = || Ok::<_, StoreError>(Some(total_of(&five)));
            stitcher.add_bucket(start, new, || Ok(runs.remove(&start)), total)?;
        }
        for (start, new) in fresh {
            stitcher.add_bucket(start, new, || Ok::<_, StoreError>(None), || Ok(None))?;
        }
        Ok(stitcher.finish(query))
    }
}

/// A whole number of a document.
pub(super) fn whole(document: &Document, key: &str) -> i64 {
    document.get_i64(key).unwrap_or(0)
}

/// The bytes of a document's field.
pub(super) fn bytes<'a>(document: &'a Document, key: &str) -> &'a [u8] {
    document.get_binary_generic(key).map(Vec::as_slice).unwrap_or_default()
}

/// The total in a roll-up's document.
pub(super) fn total_of(document: &Document) -> Total {
    let number = |key: &str| document.get(key).and_then(Bson::as_f64).unwrap_or(0.0);
    Total {
        count: u64::try_from(whole(document, "count")).unwrap_or(0),
        sum: number("sum"),
        min: number("min"),
        max: number("max"),
        last: number("last"),
        last_at: whole(document, "last_at"),
    }
}

//! One transaction per batch of events.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use mongodb::ClientSession;
use mongodb::bson::{doc, rawdoc};
use mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT;
use mongodb::options::ReturnDocument;
use overstory_model::ids::MessageId;
use overstory_model::{SeriesKey, Timestamp};

use super::bulk::{Bulk, raw};
use super::documents::{
    alarm_document, binary, description, int, outbox_document, seen_document, series_document, series_of,
};
use super::failure::{Attempt, within, within_store};
use super::{MongoDb, Work, name};
use crate::commit::{Commit, DEDUP_LIMIT, DEDUP_SECONDS, DEDUP_WINDOW, Engines, Epoch, Point};
use crate::dedup::{self, WindowEnd};
use crate::error::StoreError;
use crate::metrics::codec;
use crate::metrics::described::Described;

/// Beyond this many entries the cache of series starts anew.
const CACHE_LIMIT: usize = 200_000;
/// How often a commit whose outcome is unknown is asked for again; doing it twice is harmless.
const COMMIT_ATTEMPTS: u32 = 4;
/// How many series are looked up with one question.
const LOOKUP: usize = 500;

/// What this process knows of series. Numbers are never given away again.
pub(super) type SeriesCache = HashMap<SeriesKey, Described>;

/// Ends a transaction and waits until a majority has it.
pub(super) async fn finish(session: &mut ClientSession) -> mongodb::error::Result<()> {
    for _ in 1..COMMIT_ATTEMPTS {
        match session.commit_transaction().await {
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {}
            outcome => return outcome,
        }
    }
    session.commit_transaction().await
}

#[async_trait]
impl Engines for MongoDb {
    async fn take_epoch(&self, unit: &str, holder: &str) -> Result<Epoch, StoreError> {
        self.series.lock().await.clear();
        let units = self.collection(name::UNITS);
        let change = doc! { "$inc": { "epoch": 1_i64 }, "$set": { "holder": holder } };
        let taken = async {
            units
                .find_one_and_update(doc! { "_id": unit }, change)
                .upsert(true)
                .return_document(ReturnDocument::After)
                .await
        };
        let epoch = within(taken).await?.and_then(|doc| doc.get_i64("epoch").ok());
        let epoch = epoch.and_then(|epoch| u64::try_from(epoch).ok());
        epoch.map(Epoch).ok_or_else(|| StoreError::Failed("the server gave no epoch".into()))
    }

    async fn commit(&self, unit: &str, epoch: Epoch, commit: Commit) -> Result<Vec<u64>, StoreError> {
        // Held to the end: a process commits one batch after the other.
        let mut cache = self.series.lock().await;
        let batch = Batch { store: self, commit: &commit, cache: &cache, unit, epoch };
        let written = self.transact(&batch).await?;
        if cache.len() + written.series.len() > CACHE_LIMIT {
            *cache = HashMap::new();
        }
        cache.extend(written.series);
        if written.number > 0 {
            self.seen.lock().await.add_next(written.number, commit.seen);
        }
        Ok(written.outbox)
    }

    async fn seen(&self, ids: &[MessageId]) -> Result<Vec<bool>, StoreError> {
        let mut seen = self.seen.lock().await;
        if seen.is_bloated() {
            *seen = dedup::SeenIndex::default();
        }
        let later = doc! { "_id": { "$gt": int(seen.last()) } };
        let catch_up = async {
            let mut records = self.collection(name::SEEN).find(later).sort(doc! { "_id": 1 }).await?;
            while records.advance().await? {
                let record = records.deserialize_current()?;
                let number = record.get_i64("_id").ok().and_then(|n| u64::try_from(n).ok());
                let ids = record.get_binary_generic("ids").map(Vec::as_slice).unwrap_or_default();
                seen.add(number.unwrap_or(0), dedup::decode(ids));
            }
            Ok(())
        };
        within(catch_up).await?;
        Ok(ids.iter().map(|id| seen.contains(id)).collect())
    }

    async fn forget_seen(&self, now: Timestamp) -> Result<u64, StoreError> {
        let records = self.collection(name::SEEN);
        let forget = async {
            let mut end = WindowEnd::new(DEDUP_WINDOW, DEDUP_LIMIT, now.plus(-DEDUP_SECONDS).0);
            let wanted = doc! { "at": 1, "count": 1 };
            let mut newest_first = records.find(doc! {}).projection(wanted).sort(doc! { "_id": -1 }).await?;
            let (mut through, mut count) = (None, 0);
            while newest_first.advance().await? {
                let record = newest_first.deserialize_current()?;
                let ids = u64::try_from(record.get_i64("count").unwrap_or(0)).unwrap_or(0);
                let at = record.get_i64("at").unwrap_or(i64::MIN);
                if through.is_none() && end.is_beyond(ids, at) {
                    through = record.get_i64("_id").ok();
                }
                if through.is_some() {
                    count += ids;
                }
            }
            if let Some(through) = through {
                records.delete_many(doc! { "_id": { "$lte": through } }).await?;
            }
            Ok::<_, StoreError>((through, count))
        };
        let (through, count) = within_store(forget).await?;
        if let Some(through) = through.and_then(|n| u64::try_from(n).ok()) {
            self.seen.lock().await.forget_through(through);
        }
        Ok(count)
    }
}

/// What a transaction wrote and found out.
#[derive(Debug, Default)]
struct Written {
    number: u64,
    outbox: Vec<u64>,
    series: HashMap<SeriesKey, Described>,
}

struct Batch<'a> {
    store: &'a MongoDb,
    commit: &'a Commit,
    cache: &'a SeriesCache,
    unit: &'a str,
    epoch: Epoch,
}

#[async_trait]
impl Work for Batch<'_> {
    type Output = Written;

    async fn run(&self, session: &mut ClientSession) -> Result<Written, Attempt> {
        self.check_epoch(session).await?;
        if self.commit.is_empty() { Ok(Written::default()) } else { self.write(session).await }
    }
}

impl Batch<'_> {
    /// Changes the unit's document, so that a takeover at the same time conflicts with this transaction.
    async fn check_epoch(&self, session: &mut ClientSession) -> Result<(), Attempt> {
        let (unit, held) = (self.unit, self.epoch);
        let units = self.store.collection(name::UNITS);
        let own = doc! { "_id": unit, "epoch": int(held.0) };
        let change = doc! { "$inc": { "commits": 1_i64 } };
        if units.update_one(own, change).session(&mut *session).await?.matched_count == 1 {
            return Ok(());
        }
        let current = units.find_one(doc! { "_id": unit }).session(session).await?;
        let current = current.and_then(|doc| doc.get_i64("epoch").ok()).and_then(|n| u64::try_from(n).ok());
        Err(StoreError::Fenced { unit: unit.to_owned(), held: held.0, current: current.unwrap_or(0) }.into())
    }

    async fn write(&self, session: &mut ClientSession) -> Result<Written, Attempt> {
        let commit = self.commit;
        let mut series = self.find_series(session).await?;
        let new = self.new_series(&series);
        let counters = self.count_on(session, new.len()).await?;
        if !commit.seen.is_empty() {
            let record = seen_document(counters.commit, commit.at.0, dedup::encode(&commit.seen));
            self.store.collection(name::SEEN).insert_one(record).session(&mut *session).await?;
        }
        self.write_entities(session).await?;
        self.write_alarms(session).await?;
        self.write_steps(session).await?;
        self.write_series(session, &mut series, &new, counters.first_series).await?;
        self.write_blocks(session, &series, counters.commit).await?;
        let outbox = self.write_outbox(session, counters.first_outbox).await?;
        Ok(Written { number: counters.commit, outbox, series })
    }

    async fn count_on(&self, session: &mut ClientSession, new_series: usize) -> Result<Counters, Attempt> {
        let (outbox, series) = (self.commit.outbox.len() as u64, new_series as u64);
        let change = doc! { "$inc": { "commit": 1_i64, "outbox": int(outbox), "series": int(series) } };
        let after = self
            .store
            .collection(name::COUNTERS)
            .find_one_and_update(doc! { "_id": "engines" }, change)
            .upsert(true)
            .return_document(ReturnDocument::After)
            .session(session)
            .await?
            .unwrap_or_default();
        let value = |key: &str| after.get_i64(key).ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Ok(Counters {
            commit: value("commit"),
            first_outbox: value("outbox").saturating_sub(outbox) + 1,
            first_series: value("series").saturating_sub(series) + 1,
        })
    }

    async fn write_entities(&self, session: &mut ClientSession) -> Result<(), Attempt> {
        let mut bulk = Bulk::updates(&self.store.database, name::ENTITIES);
        for entity in &self.commit.entities {
            bulk.update(session, doc! { "_id": entity.id.as_str() }, raw(entity)?, true).await?;
        }
        for (id, at) in &self.commit.heard_of {
            let later = rawdoc! { "$max": { "last_event_date": at.0 } };
            bulk.update(session, doc! { "_id": id.as_str() }, later, false).await?;
        }
        bulk.finish(session).await?;
        Ok(())
    }

    /// First those that change: one that ends makes room for the next one of its entity.
    async fn write_alarms(&self, session: &mut ClientSession) -> Result<(), Attempt> {
        let (new, changed): (Vec<_>, Vec<_>) = self.commit.alarms.iter().partition(|write| write.is_new);
        let mut bulk = Bulk::updates(&self.store.database, name::ALARMS);
        for write in &changed {
            let id = doc! { "_id": &write.alarm.id.0 };
            bulk.update(session, id, alarm_document(write)?, false).await?;
        }
        if bulk.finish(session).await?.n != changed.len() as u64 {
            return Err(StoreError::Conflict("an alarm to be changed is not there".to_owned()).into());
        }
        let mut bulk = Bulk::inserts(&self.store.database, name::ALARMS);
        for write in new {
            bulk.insert(session, alarm_document(write)?).await?;
        }
        bulk.finish(session).await?;
        Ok(())
    }

    async fn write_steps(&self, session: &mut ClientSession) -> Result<(), Attempt> {
        let longer = self.commit.alarms.iter().filter(|write| !write.new_steps.is_empty());
        let old: Vec<&str> = longer.clone().filter(|w| !w.is_new).map(|w| w.alarm.id.0.as_str()).collect();
        let mut stored: HashMap<String, u32> = HashMap::new();
        if !old.is_empty() {
            let pipeline = [
                doc! { "$match": { "alarm": { "$in": old } } },
                doc! { "$group": { "_id": "$alarm", "n": { "$max": "$n" } } },
            ];
            let steps = self.store.collection(name::STEPS);
            let mut found = steps.aggregate(pipeline).session(&mut *session).await?;
            while let Some(count) = found.next(session).await.transpose()? {
                let n = count.get_i64("n").ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                stored.insert(count.get_str("_id").unwrap_or_default().to_owned(), n);
            }
        }
        let mut bulk = Bulk::inserts(&self.store.database, name::STEPS);
        for write in longer {
            let id = write.alarm.id.0.as_str();
            for (number, step) in write.numbered_steps(stored.get(id).copied().unwrap_or(0)) {
                bulk.insert(session, rawdoc! { "alarm": id, "n": i64::from(number), "step": raw(step)? }).await?;
            }
        }
        bulk.finish(session).await?;
        Ok(())
    }

    /// Those series of the batch that are stored and not in the cache.
    async fn find_series(&self, session: &mut ClientSession) -> Result<HashMap<SeriesKey, Described>, Attempt> {
        let mut unknown: Vec<&SeriesKey> = self.commit.points.iter().map(|point| &point.series).collect();
        unknown.retain(|key| !self.cache.contains_key(key));
        unknown.sort_unstable();
        unknown.dedup();
        let mut found = HashMap::new();
        for some in unknown.chunks(LOOKUP) {
            // Both lists together may match more than the pairs that were asked for; that does no harm.
            let entities: BTreeSet<&str> = some.iter().map(|key| key.entity.as_str()).collect();
            let metrics: BTreeSet<&str> = some.iter().map(|key| key.metric.as_str()).collect();
            let any = |names: BTreeSet<&str>| doc! { "$in": names.into_iter().collect::<Vec<_>>() };
            let filter = doc! { "entity": any(entities), "metric": any(metrics) };
            let mut cursor = self.store.collection(name::SERIES).find(filter).session(&mut *session).await?;
            while let Some(series) = cursor.next(session).await.transpose()? {
                let (key, described) = series_of(&series);
                found.insert(key, described);
            }
        }
        Ok(found)
    }

    /// The first point of each series that is not stored yet.
    fn new_series(&self, found: &HashMap<SeriesKey, Described>) -> Vec<&Point> {
        let mut new = HashMap::new();
        for point in &self.commit.points {
            if !self.cache.contains_key(&point.series) && !found.contains_key(&point.series) {
                new.entry(&point.series).or_insert(point);
            }
        }
        new.into_values().collect()
    }

    /// Writes new series and new descriptions; afterwards `series` has everything that is not as in the cache.
    async fn write_series(
        &self,
        session: &mut ClientSession,
        series: &mut HashMap<SeriesKey, Described>,
        new: &[&Point],
        first: u64,
    ) -> Result<(), Attempt> {
        for (number, point) in (first..).zip(new) {
            let Point { kind, unit, limits, .. } = point;
            let described = Described { number: int(number), kind: *kind, unit: unit.clone(), limits: *limits };
            series.insert(point.series.clone(), described);
        }
        let mut changed: HashMap<&SeriesKey, ()> = HashMap::new();
        for point in &self.commit.points {
            let key = &point.series;
            if series.get(key).or_else(|| self.cache.get(key)).is_some_and(|known| known.is_news(point)) {
                let known = series.get(key).or_else(|| self.cache.get(key)).cloned();
                if let Some(mut described) = known {
                    described.learn(point);
                    series.insert(key.clone(), described);
                    changed.insert(key, ());
                }
            }
        }
        let mut bulk = Bulk::inserts(&self.store.database, name::SERIES);
        for point in new {
            changed.remove(&point.series);
            let Some(described) = series.get(&point.series) else { continue };
            let document = series_document(&point.series, described);
            bulk.insert(session, raw(&document)?).await?;
        }
        bulk.finish(session).await?;
        let mut bulk = Bulk::updates(&self.store.database, name::SERIES);
        for key in changed.into_keys() {
            let Some(described) = series.get(key) else { continue };
            let change = raw(&doc! { "$set": description(described) })?;
            bulk.update(session, doc! { "_id": described.number }, change, false).await?;
        }
        bulk.finish(session).await?;
        Ok(())
    }

    async fn write_blocks(
        &self,
        session: &mut ClientSession,
        series: &HashMap<SeriesKey, Described>,
        number: u64,
    ) -> Result<(), Attempt> {
        let placed = self.commit.points.iter().filter_map(|point| {
            let known = series.get(&point.series).or_else(|| self.cache.get(&point.series))?;
            Some((known.number, point.at.0, point.value))
        });
        let mut bulk = Bulk::inserts(&self.store.database, name::BLOCKS);
        for (bucket, shard, points) in codec::blocks(placed) {
            let block = doc! { "bucket": bucket, "shard": shard, "n": int(number), "points": binary(points) };
            bulk.insert(session, raw(&block)?).await?;
        }
        bulk.finish(session).await?;
        Ok(())
    }

    async fn write_outbox(&self, session: &mut ClientSession, first: u64) -> Result<Vec<u64>, Attempt> {
        let mut bulk = Bulk::inserts(&self.store.database, name::OUTBOX);
        let mut numbers = Vec::with_capacity(self.commit.outbox.len());
        for (number, message) in (first..).zip(&self.commit.outbox) {
            let document = outbox_document(number, message);
            bulk.insert(session, raw(&document)?).await?;
            numbers.push(number);
        }
        bulk.finish(session).await?;
        Ok(numbers)
    }
}

struct Counters {
    commit: u64,
    first_outbox: u64,
    first_series: u64,
}

//! Reading all documents of a database, and filling an empty one.

use std::collections::HashMap;

use mongodb::bson::{Document, RawDocumentBuf, doc};
use overstory_model::{Alarm, Step};
use serde::Serialize;

use super::bulk::raw;
use super::documents::{alarm_document, binary, int, outbox_document, seen_document, series_document, series_of};
use super::failure::{parse, within};
use super::maintain::total_document;
use super::metrics::{bytes, total_of, whole};
use super::{MongoDb, SCHEMA, name};
use crate::commit::AlarmWrite;
use crate::error::StoreError;
use crate::transfer::{
    BATCH, Block, Counters, RowSender, Rows, Run, SeenRecord, SeriesRow, TotalRow, Unit, nobody_listens,
};

/// The mark of a database that a copy was begun into.
pub(super) const UNFINISHED: &str = "unfinished_copy";

/// What a copy fills, in this order.
const FILLED: [&str; 16] = [
    name::UNITS,
    name::COUNTERS,
    name::SEEN,
    name::OUTBOX,
    name::ENTITIES,
    name::ALARMS,
    name::STEPS,
    name::SERIES,
    name::BLOCKS,
    name::RUNS,
    name::FIVE,
    name::HOURS,
    name::ENGINE_RUNS,
    name::ROLES,
    name::ACCOUNTS,
    name::API_KEYS,
];

/// Reads everything of a database.
pub(crate) async fn read_all(store: &MongoDb, rows: &RowSender) -> Result<(), StoreError> {
    let count = |document: &Document, key: &str| u64::try_from(whole(document, key)).unwrap_or(0);
    let text = |document: &Document, key: &str| document.get_str(key).unwrap_or_default().to_owned();
    each(store, name::UNITS, rows, Rows::Units, |unit| {
        Ok(Unit { unit: text(&unit, "_id"), epoch: count(&unit, "epoch"), holder: text(&unit, "holder") })
    })
    .await?;
    let counters = store.collection(name::COUNTERS);
    let found = within(async { counters.find_one(doc! { "_id": "engines" }).await }).await?.unwrap_or_default();
    let counters =
        Counters { commit: count(&found, "commit"), outbox: count(&found, "outbox"), series: count(&found, "series") };
    rows.send(Rows::Counters(counters)).await.map_err(|_| nobody_listens())?;
    each(store, name::SEEN, rows, Rows::Seen, |seen| {
        Ok(SeenRecord { n: count(&seen, "_id"), at: whole(&seen, "at"), ids: bytes(&seen, "ids").to_vec() })
    })
    .await?;
    each(store, name::OUTBOX, rows, Rows::Outbox, super::outbox::entry).await?;
    each(store, name::ENTITIES, rows, Rows::Entities, |entity| parse("entities", entity)).await?;
    read_alarms(store, rows).await?;
    each(store, name::SERIES, rows, Rows::Series, |series| {
        let (key, described) = series_of(&series);
        let latest = series.get_i64("last_at").ok().zip(series.get_f64("last").ok());
        Ok(SeriesRow { key, described, latest })
    })
    .await?;
    each(store, name::BLOCKS, rows, Rows::Blocks, |block| {
        Ok(Block {
            bucket: whole(&block, "bucket"),
            shard: whole(&block, "shard"),
            n: count(&block, "n"),
            points: bytes(&block, "points").to_vec(),
        })
    })
    .await?;
    each(store, name::RUNS, rows, Rows::Runs, |run| {
        Ok(Run { start: whole(&run, "start"), series: whole(&run, "series"), points: bytes(&run, "points").to_vec() })
    })
    .await?;
    let total = |row: Document| {
        Ok(TotalRow { start: whole(&row, "start"), series: whole(&row, "series"), total: total_of(&row) })
    };
    each(store, name::FIVE, rows, Rows::FiveMinutes, total).await?;
    each(store, name::HOURS, rows, Rows::Hours, total).await?;
    each(store, name::ENGINE_RUNS, rows, Rows::EngineRuns, |run| parse("engine_runs", run)).await?;
    each(store, name::ROLES, rows, Rows::Roles, |role| parse("roles", role)).await?;
    each(store, name::ACCOUNTS, rows, Rows::Accounts, |account| parse("accounts", account)).await?;
    each(store, name::API_KEYS, rows, Rows::ApiKeys, |key| parse("api_keys", key)).await?;
    each(store, name::SESSIONS, rows, Rows::Sessions, |session| parse("sessions", session)).await
}

/// Sends the documents of a collection in batches.
async fn each<T: Send>(
    store: &MongoDb,
    collection: &str,
    rows: &RowSender,
    wrap: fn(Vec<T>) -> Rows,
    make: impl Fn(Document) -> Result<T, StoreError> + Send,
) -> Result<(), StoreError> {
    let documents = store.collection(collection);
    let mut found = within(async { documents.find(doc! {}).sort(doc! { "_id": 1 }).await }).await?;
    let mut batch = Vec::new();
    while within(found.advance()).await? {
        batch.push(make(found.deserialize_current()?)?);
        if batch.len() >= BATCH {
            rows.send(wrap(std::mem::take(&mut batch))).await.map_err(|_| nobody_listens())?;
        }
    }
    if !batch.is_empty() {
        rows.send(wrap(batch)).await.map_err(|_| nobody_listens())?;
    }
    Ok(())
}

async fn read_alarms(store: &MongoDb, rows: &RowSender) -> Result<(), StoreError> {
    let alarms = store.collection(name::ALARMS);
    let mut found = within(async { alarms.find(doc! {}).sort(doc! { "_id": 1 }).await }).await?;
    let mut batch: Vec<Alarm> = Vec::new();
    loop {
        let is_more = within(found.advance()).await?;
        if is_more {
            batch.push(parse("alarms", found.deserialize_current()?)?);
        }
        if batch.len() >= BATCH || (!is_more && !batch.is_empty()) {
            let whole_alarms = with_steps(store, std::mem::take(&mut batch)).await?;
            rows.send(Rows::Alarms(whole_alarms)).await.map_err(|_| nobody_listens())?;
        }
        if !is_more {
            return Ok(());
        }
    }
}

async fn with_steps(store: &MongoDb, alarms: Vec<Alarm>) -> Result<Vec<(Alarm, Vec<Step>)>, StoreError> {
    let ids: Vec<&str> = alarms.iter().map(|alarm| alarm.id.0.as_str()).collect();
    let steps = store.collection(name::STEPS);
    let of_alarms = doc! { "alarm": { "$in": ids } };
    let mut found = within(async { steps.find(of_alarms).sort(doc! { "alarm": 1, "n": 1 }).await }).await?;
    let mut by_alarm: HashMap<String, Vec<Step>> = HashMap::new();
    while within(found.advance()).await? {
        let mut stored = found.deserialize_current()?;
        let id = stored.get_str("alarm").unwrap_or_default().to_owned();
        let step = match stored.remove("step") {
            Some(mongodb::bson::Bson::Document(step)) => parse("steps", step)?,
            _ => return Err(super::failure::damaged("steps", id, "a step has no body")),
        };
        by_alarm.entry(id).or_default().push(step);
    }
    let take = |alarm: Alarm| {
        let steps = by_alarm.remove(&alarm.id.0).unwrap_or_default();
        (alarm, steps)
    };
    Ok(alarms.into_iter().map(take).collect())
}

/// A database that a copy fills.
#[derive(Debug)]
pub(crate) struct Target {
    store: MongoDb,
}

impl Target {
    /// Begins a copy into a database.
    pub(crate) async fn open(uri: &str, database: &str, replace: bool) -> Result<Self, StoreError> {
        let store = MongoDb::connect(uri, database).await?;
        let meta = store.collection(name::META);
        let schema = within(async { meta.find_one(doc! { "_id": "schema" }).await }).await?.unwrap_or_default();
        let was_begun = schema.get_bool(UNFINISHED).unwrap_or(false);
        for collection in FILLED.into_iter().chain([name::SESSIONS]) {
            let documents = store.collection(collection);
            let count = within(async { documents.count_documents(doc! {}).await }).await?;
            if count > 0 && !replace && !was_begun {
                let reason = format!("the database {database} is not empty: {collection} holds {count} documents");
                return Err(StoreError::Conflict(reason));
            }
        }
        let begun = doc! { "$set": { UNFINISHED: true, "version": i64::from(SCHEMA) } };
        within(async { meta.update_one(doc! { "_id": "schema" }, begun).upsert(true).await }).await?;
        for collection in FILLED.into_iter().chain([name::SESSIONS]) {
            // Takes as long as it takes.
            store.collection(collection).delete_many(doc! {}).await?;
        }
        store.prepare().await?;
        Ok(Self { store })
    }

    pub(crate) async fn write(&self, rows: Rows) -> Result<(), StoreError> {
        match rows {
            Rows::Units(rows) => {
                let unit = |row: &Unit| doc! { "_id": &row.unit, "epoch": int(row.epoch), "holder": &row.holder };
                self.insert(name::UNITS, rows.iter().map(unit)).await
            }
            Rows::Counters(Counters { commit, outbox, series }) => {
                let (commit, outbox, series) = (int(commit), int(outbox), int(series));
                let counters = doc! { "_id": "engines", "commit": commit, "outbox": outbox, "series": series };
                self.insert(name::COUNTERS, [counters].into_iter()).await
            }
            Rows::Seen(rows) => {
                self.insert(name::SEEN, rows.into_iter().map(|row| seen_document(row.n, row.at, row.ids))).await
            }
            Rows::Outbox(rows) => {
                self.insert(name::OUTBOX, rows.iter().map(|row| outbox_document(row.number, &row.message))).await
            }
            Rows::Entities(rows) => self.insert_values(name::ENTITIES, &rows).await,
            Rows::Alarms(rows) => self.write_alarms(rows).await,
            Rows::Series(rows) => {
                let series = rows.iter().map(|row| {
                    let mut document = series_document(&row.key, &row.described);
                    if let Some((at, value)) = row.latest {
                        document.extend(doc! { "last_at": at, "last": value });
                    }
                    document
                });
                self.insert(name::SERIES, series).await
            }
            Rows::Blocks(rows) => {
                let block = |row: Block| {
                    doc! { "bucket": row.bucket, "shard": row.shard, "n": int(row.n), "points": binary(row.points) }
                };
                self.insert(name::BLOCKS, rows.into_iter().map(block)).await
            }
            Rows::Runs(rows) => {
                let run = |row: Run| doc! { "start": row.start, "series": row.series, "points": binary(row.points) };
                self.insert(name::RUNS, rows.into_iter().map(run)).await
            }
            Rows::FiveMinutes(rows) => self.insert(name::FIVE, rows.iter().map(total)).await,
            Rows::Hours(rows) => self.insert(name::HOURS, rows.iter().map(total)).await,
            Rows::EngineRuns(rows) => {
                let mut documents = Vec::with_capacity(rows.len());
                for run in &rows {
                    let mut document = doc! { "_id": { "engine": &run.engine, "instance": &run.instance } };
                    document.extend(Document::try_from(raw(run)?).map_err(|e| StoreError::Failed(Box::new(e)))?);
                    documents.push(document);
                }
                self.insert(name::ENGINE_RUNS, documents.into_iter()).await
            }
            Rows::Roles(rows) => self.insert_values(name::ROLES, &rows).await,
            Rows::Accounts(rows) => self.insert_values(name::ACCOUNTS, &rows).await,
            Rows::ApiKeys(rows) => self.insert_values(name::API_KEYS, &rows).await,
            Rows::Sessions(rows) => self.insert_values(name::SESSIONS, &rows).await,
        }
    }

    async fn write_alarms(&self, rows: Vec<(Alarm, Vec<Step>)>) -> Result<(), StoreError> {
        let mut steps = Vec::new();
        let mut alarms: Vec<RawDocumentBuf> = Vec::with_capacity(rows.len());
        for (alarm, new_steps) in rows {
            let write = AlarmWrite { alarm, new_steps, is_new: true };
            alarms.push(alarm_document(&write)?);
            for (n, step) in write.numbered_steps(0) {
                let step = Document::try_from(raw(step)?).map_err(|error| StoreError::Failed(Box::new(error)))?;
                steps.push(doc! { "alarm": &write.alarm.id.0, "n": i64::from(n), "step": step });
            }
        }
        let collection = self.store.raw_collection(name::ALARMS);
        within(async { collection.insert_many(alarms).await }).await?;
        self.insert(name::STEPS, steps.into_iter()).await
    }

    async fn insert_values<T: Serialize + Sync>(&self, collection: &str, values: &[T]) -> Result<(), StoreError> {
        let documents = values.iter().map(raw).collect::<Result<Vec<_>, _>>()?;
        let collection = self.store.raw_collection(collection);
        within(async { collection.insert_many(documents).await }).await.map(drop)
    }

    async fn insert(&self, collection: &str, documents: impl Iterator<Item = Document>) -> Result<(), StoreError> {
        let documents: Vec<Document> = documents.collect();
        if documents.is_empty() {
            return Ok(());
        }
        let collection = self.store.collection(collection);
        within(async { collection.insert_many(documents).await }).await.map(drop)
    }

    /// Lets the database be used.
    pub(crate) async fn finish(self) -> Result<(), StoreError> {
        let meta = self.store.collection(name::META);
        let whole = doc! { "$unset": { UNFINISHED: "" } };
        within(async { meta.update_one(doc! { "_id": "schema" }, whole).await }).await.map(drop)
    }
}

fn total(row: &TotalRow) -> Document {
    total_document(row.start, row.series, &row.total)
}

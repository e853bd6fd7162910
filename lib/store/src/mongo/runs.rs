//! What each engine last said about itself.

use async_trait::async_trait;
use mongodb::bson::doc;
use overstory_model::Timestamp;

use super::bulk::raw;
use super::entities::collect;
use super::failure::within_store;
use super::{MongoDb, name};
use crate::error::StoreError;
use crate::runs::{EngineRun, EngineRuns};

/// Reports older than this many seconds are removed when new ones are recorded.
const KEPT_SECONDS: i64 = 7 * 86_400;

#[async_trait]
impl EngineRuns for MongoDb {
    async fn record(&self, runs: &[EngineRun]) -> Result<(), StoreError> {
        let Some(latest) = runs.iter().map(|run| run.at).max() else { return Ok(()) };
        let reports = self.raw_collection(name::ENGINE_RUNS);
        let record = async {
            for run in runs {
                let id = doc! { "_id": { "engine": &run.engine, "instance": &run.instance } };
                reports.replace_one(id, raw(run)?).upsert(true).await?;
            }
            reports.delete_many(doc! { "at": { "$lt": latest.plus(-KEPT_SECONDS).0 } }).await?;
            Ok(())
        };
        within_store(record).await
    }

    async fn list(&self, now: Timestamp, max_age_s: i64) -> Result<Vec<EngineRun>, StoreError> {
        let recent = doc! { "at": { "$gte": now.plus(-max_age_s).0 } };
        let reports = self.collection(name::ENGINE_RUNS);
        collect("engine_runs", async { reports.find(recent).sort(doc! { "engine": 1, "instance": 1 }).await }).await
    }
}

//! What each engine last said about itself.

use async_trait::async_trait;
use overstory_model::Timestamp;
use rusqlite::params;

use super::EnginesDb;
use super::failure::damaged;
use super::sql::collect;
use super::writer::transact;
use crate::error::StoreError;
use crate::runs::{EngineRun, EngineRuns};

/// Reports older than this many seconds are removed when new ones are recorded.
const KEPT_SECONDS: i64 = 7 * 86_400;

#[async_trait]
impl EngineRuns for EnginesDb {
    async fn record(&self, runs: &[EngineRun]) -> Result<(), StoreError> {
        let Some(latest) = runs.iter().map(|run| run.at).max() else { return Ok(()) };
        let runs = runs.to_vec();
        self.writer()?
            .call(move |connection, _| {
                transact(connection, |transaction| {
                    let mut put =
                        transaction.prepare_cached("INSERT OR REPLACE INTO engine_runs VALUES (?, ?, ?, ?)")?;
                    for run in &runs {
                        let doc =
                            serde_json::to_string(run).map_err(|error| damaged("engine_runs", &run.engine, &error))?;
                        put.execute(params![run.engine, run.instance, run.at.0, doc])?;
                    }
                    let old = latest.plus(-KEPT_SECONDS).0;
                    transaction.prepare_cached("DELETE FROM engine_runs WHERE at < ?")?.execute([old])?;
                    Ok(())
                })
            })
            .await
    }

    async fn list(&self, now: Timestamp, max_age_s: i64) -> Result<Vec<EngineRun>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT doc, engine FROM engine_runs WHERE at >= ? ORDER BY engine, instance";
            collect(connection.prepare_cached(sql)?.query([now.plus(-max_age_s).0])?, |row| {
                let doc = row.get_ref(0)?.as_str().unwrap_or_default();
                let engine = row.get_ref(1)?.as_str().unwrap_or_default();
                serde_json::from_str(doc).map_err(|error| damaged("engine_runs", engine, &error))
            })
        })
        .await
    }
}

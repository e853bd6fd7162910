//! What each engine of each process last said about itself.

use async_trait::async_trait;
use overstory_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// The latest report of one engine in one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineRun {
    /// The engine, such as `alarms`.
    pub engine: String,
    /// The process: `host/amqp2engines-0`.
    pub instance: String,
    /// Whether that process holds the queue (the others stand by).
    pub active: bool,
    /// When it reported.
    pub at: Timestamp,
    /// Its process id.
    pub pid: u32,
    /// Events since the previous report.
    pub events: u64,
    /// Errors (rejected events) since the previous report.
    pub errors: u64,
    /// Events per second since the previous report.
    pub events_per_second: f64,
    /// Seconds of work per event since the previous report.
    pub seconds_per_event: f64,
}

/// The reports of the engines.
#[async_trait]
pub trait EngineRuns: Send + Sync {
    /// Replaces the reports of the engines and instances named in `runs`.
    ///
    /// # Errors
    /// The store is not available.
    async fn record(&self, runs: &[EngineRun]) -> Result<(), StoreError>;

    /// All reports that are at most `max_age_s` seconds old at `now`, sorted by engine and instance; older ones of
    /// processes that are gone are not returned.
    ///
    /// # Errors
    /// The store is not available.
    async fn list(&self, now: Timestamp, max_age_s: i64) -> Result<Vec<EngineRun>, StoreError>;
}

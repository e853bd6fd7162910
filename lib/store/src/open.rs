//! Opening the configured store, one function per program.

use std::fmt;
use std::sync::Arc;

use overstory_runtime::Home;

use crate::accounts::Accounts;
use crate::alarms::Alarms;
use crate::commit::Engines;
use crate::config::{StoreConfig, StoreKind};
use crate::entities::Entities;
use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::mongo::MongoDb;
use crate::outbox::Outbox;
use crate::probe::Probe;
use crate::runs::EngineRuns;
use crate::sqlite::{ControlDb, EnginesDb, WebProbe};

/// The store as `amqp2engines` uses it.
#[derive(Clone)]
pub struct EngineSide {
    /// Commits.
    pub engines: Arc<dyn Engines>,
    /// Messages to be published.
    pub outbox: Arc<dyn Outbox>,
    /// Reading alarms.
    pub alarms: Arc<dyn Alarms>,
    /// Reading entities.
    pub entities: Arc<dyn Entities>,
    /// Reading and maintaining metrics.
    pub metrics: Arc<dyn Metrics>,
    /// The engines' reports.
    pub runs: Arc<dyn EngineRuns>,
    /// Whether the store answers.
    pub probe: Arc<dyn Probe>,
}

/// The store as the web server uses it. Of what the engines write it only reads.
#[derive(Clone)]
pub struct WebSide {
    /// Reading alarms.
    pub alarms: Arc<dyn Alarms>,
    /// Reading entities.
    pub entities: Arc<dyn Entities>,
    /// Reading metrics.
    pub metrics: Arc<dyn Metrics>,
    /// Reading the engines' reports.
    pub runs: Arc<dyn EngineRuns>,
    /// Accounts.
    pub accounts: Arc<dyn Accounts>,
    /// Whether the store answers.
    pub probe: Arc<dyn Probe>,
}

impl fmt::Debug for EngineSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineSide").finish_non_exhaustive()
    }
}

impl fmt::Debug for WebSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSide").finish_non_exhaustive()
    }
}

/// Opens the store for the engines; makes what is not there.
///
/// # Errors
/// The store is not available, damaged or too new.
pub async fn open_engines(config: &StoreConfig, _home: &Home) -> Result<EngineSide, StoreError> {
    match &config.kind {
        StoreKind::Embedded { path } => {
            let path = path.clone();
            let db = Arc::new(blocking(move || EnginesDb::open(&path)).await?);
            Ok(EngineSide {
                engines: db.clone(),
                outbox: db.clone(),
                alarms: db.clone(),
                entities: db.clone(),
                metrics: db.clone(),
                runs: db.clone(),
                probe: db,
            })
        }
        StoreKind::MongoDb { uri, database } => {
            let db = Arc::new(MongoDb::open(uri, database).await?);
            Ok(EngineSide {
                engines: db.clone(),
                outbox: db.clone(),
                alarms: db.clone(),
                entities: db.clone(),
                metrics: db.clone(),
                runs: db.clone(),
                probe: db,
            })
        }
    }
}

/// Opens the store for the web server.
///
/// What the engines write need not be there yet: until they made it, reading it says [`StoreError::Unavailable`].
///
/// # Errors
/// The store is not available, damaged or too new.
pub async fn open_web(config: &StoreConfig, _home: &Home) -> Result<WebSide, StoreError> {
    match &config.kind {
        StoreKind::Embedded { path } => {
            let engines = Arc::new(EnginesDb::watch(path));
            let path = path.clone();
            let control = Arc::new(blocking(move || ControlDb::open(&path)).await?);
            Ok(WebSide {
                alarms: engines.clone(),
                entities: engines.clone(),
                metrics: engines.clone(),
                runs: engines.clone(),
                accounts: control.clone(),
                probe: Arc::new(WebProbe { engines, control }),
            })
        }
        StoreKind::MongoDb { uri, database } => {
            let db = Arc::new(MongoDb::open(uri, database).await?);
            Ok(WebSide {
                alarms: db.clone(),
                entities: db.clone(),
                metrics: db.clone(),
                runs: db.clone(),
                accounts: db.clone(),
                probe: db,
            })
        }
    }
}

async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(open).await.map_err(|error| StoreError::Failed(Box::new(error)))?
}

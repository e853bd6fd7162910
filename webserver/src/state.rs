//! What the handlers work with.

use std::sync::Arc;

use overstory_model::Clock;
use overstory_runtime::Shutdown;
use overstory_runtime::admin::Ready;
use overstory_store::{Accounts, Alarms, EngineRuns, Entities, Metrics as MetricStore, PageRequest};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::archive::ArchiveNow;
use crate::auth::Authenticator;
use crate::broker::BrokerWatch;
use crate::config::Settings;
use crate::engines::EngineMap;
use crate::error::ApiError;
use crate::health::HealthCache;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::sink::EventSink;
use crate::supervised::ServiceControl;

/// Bodies of events that are read at the same time: with the limit of a body it bounds the memory they take.
const EVENT_BODIES: usize = 4;

/// Long lists that are put together at the same time: one of 10,000 alarms takes tens of megabytes.
const LONG_LISTS: usize = 2;
/// Pages of archived events that are put together at the same time: each takes tens of megabytes at most.
const SEARCHES: usize = 2;
/// A page of more items is a long list.
const SHORT_LIST: u32 = 200;

/// The aggregates of the store that the API reads, and the accounts.
#[derive(Clone)]
pub struct Stores {
    /// Alarms.
    pub alarms: Arc<dyn Alarms>,
    /// Entities.
    pub entities: Arc<dyn Entities>,
    /// Series and their points.
    pub metrics: Arc<dyn MetricStore>,
    /// What the engines last said about themselves.
    pub runs: Arc<dyn EngineRuns>,
    /// Accounts, sessions and keys.
    pub accounts: Arc<dyn Accounts>,
    /// The store's name for people.
    pub name: &'static str,
}

/// Everything outside of this program that the handlers use.
#[derive(Clone)]
pub struct Ports {
    /// The store.
    pub stores: Stores,
    /// Where events go.
    pub sink: Arc<dyn EventSink>,
    /// The engines as they are configured now.
    pub engines: Arc<dyn Fn() -> EngineMap + Send + Sync>,
    /// The archive of events, if it is switched on.
    pub archive: Option<ArchiveNow>,
    /// The broker's state.
    pub broker: Arc<dyn BrokerWatch>,
    /// The supervised services.
    pub services: Arc<dyn ServiceControl>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

/// The state of the program that all workers share.
pub struct AppState {
    /// The settings.
    pub settings: Settings,
    /// The world.
    pub ports: Ports,
    /// Who calls.
    pub auth: Authenticator,
    /// The runtime for what outlives a request.
    pub shared: Shared,
    /// The last health check.
    pub health: HealthCache,
    /// Turns to read bodies of events.
    pub event_bodies: Semaphore,
    long_lists: Semaphore,
    searches: Arc<Semaphore>,
    /// What has to be in place to serve requests.
    pub ready: Ready,
    /// The wish to stop.
    pub shutdown: Shutdown,
}

impl AppState {
    /// Puts the state together.
    ///
    /// # Errors
    /// No threads can be started to check passwords on.
    pub fn new(
        settings: Settings,
        ports: Ports,
        runtime: Handle,
        ready: Ready,
        shutdown: Shutdown,
    ) -> std::io::Result<Self> {
        let shared = Shared::new(runtime, settings.answer_timeout);
        let accounts = Arc::clone(&ports.stores.accounts);
        let clock = Arc::clone(&ports.clock);
        let auth = Authenticator::new(settings.auth.clone(), accounts, shared.clone(), clock)?;
        let (event_bodies, long_lists) = (Semaphore::new(EVENT_BODIES), Semaphore::new(LONG_LISTS));
        Ok(Self {
            settings,
            ports,
            auth,
            shared,
            health: HealthCache::default(),
            event_bodies,
            long_lists,
            searches: Arc::new(Semaphore::new(SEARCHES)),
            ready,
            shutdown,
        })
    }

    /// Waits for the turn to search the archive. It is held by the search, which may be there longer than who asked for it.
    ///
    /// # Errors
    /// 503 when too many are searching.
    pub(crate) async fn turn_to_search(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let turn = Arc::clone(&self.searches).acquire_owned();
        match tokio::time::timeout(self.settings.answer_timeout, turn).await {
            Ok(turn) => turn.map_err(ApiError::internal),
            Err(_) => Err(ApiError::unavailable("Too many searches at a time", "no turn to search the archive")),
        }
    }

    /// Waits for the turn to put a long list together; short ones need none.
    ///
    /// # Errors
    /// 503 when too many are being put together.
    pub(crate) async fn turn_to_list(&self, page: PageRequest) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        if page.paginate && page.limit <= SHORT_LIST {
            return Ok(None);
        }
        match tokio::time::timeout(self.settings.answer_timeout, self.long_lists.acquire()).await {
            Ok(turn) => turn.map(Some).map_err(ApiError::internal),
            Err(_) => Err(ApiError::unavailable("Too many long lists at a time", "no turn for a long list")),
        }
    }
}

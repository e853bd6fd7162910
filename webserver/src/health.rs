//! The health of the platform, asked at most every few seconds however often clients ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use overstory_model::Timestamp;
use overstory_store::EngineRun;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::broker::QueueLength;
use crate::engines::EngineMap;
use crate::state::{AppState, Ports};

/// How long an answer stands.
const FRESH: Duration = Duration::from_secs(5);
/// A broker or store that takes longer does not run as far as a client can tell.
const PATIENCE: Duration = Duration::from_secs(3);
/// An engine that was silent for longer (it reports each minute) does not run.
const RUN_MAX_AGE_S: i64 = 150;
/// A queue with more messages is overflown.
const MAX_QUEUE_LENGTH: u32 = 10_000;

/// The health of the platform.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Health {
    /// What everything stands on.
    pub services: Vec<ServiceHealth>,
    /// The engines.
    pub engines: Engines,
    /// The queues.
    pub queues: Vec<QueueLength>,
    /// What each engine of each process last reported.
    pub runs: Vec<RunView>,
    /// Beyond this many messages a queue counts as overflown.
    pub max_queue_length: u32,
    /// Messages in all queues of events.
    pub max_messages_length: u64,
    /// Whether the engines are connected in a way that cannot work.
    pub has_invalid_engines_order: bool,
    /// When it was found out.
    pub time: i64,
}

/// Whether something that everything stands on runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ServiceHealth {
    /// `RabbitMQ` and the store's name.
    pub name: String,
    /// Whether it answers.
    pub is_running: bool,
}

/// The engines and how they are connected.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Engines {
    /// Which engine hands events to which.
    pub graph: Graph,
    /// The state of each engine by name.
    pub parameters: BTreeMap<String, EngineHealth>,
}

/// Nodes and edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Graph {
    /// The engines.
    pub nodes: Vec<String>,
    /// Who hands events to whom.
    pub edges: Vec<Edge>,
}

/// One engine hands its events to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Edge {
    /// From this one.
    pub from: String,
    /// To this one.
    pub to: String,
}

/// The state of one engine.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EngineHealth {
    /// Processes that have it, standbys included.
    pub instances: u64,
    /// So many are needed.
    pub min_instances: u64,
    /// So many are better.
    pub optimal_instances: u64,
    /// Messages that wait for it.
    pub queue_length: u32,
    /// When it last reported.
    pub time: i64,
    /// Whether an active process reported lately.
    pub is_running: bool,
    /// Whether too many messages wait.
    pub is_queue_overflown: bool,
    /// Whether there are fewer processes than needed.
    pub is_too_few_instances: bool,
    /// Whether its processes have different configurations; they share one file.
    pub is_diff_instances_config: bool,
}

/// What an engine of a process last reported.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunView {
    /// The engine.
    pub engine: String,
    /// The process.
    pub instance: String,
    /// Whether that process does the work; the others stand by.
    pub active: bool,
    /// When it reported.
    pub time: i64,
    /// Its process id.
    pub pid: u32,
    /// Events since the previous report.
    pub events: u64,
    /// Refused events since the previous report.
    pub errors: u64,
    /// Events per second.
    pub events_per_second: f64,
    /// Seconds of work per event.
    pub seconds_per_event: f64,
}

/// Remembers the last answer; who asks while it is being made waits for it.
#[derive(Default)]
pub struct HealthCache {
    last: Mutex<Option<(Instant, Arc<Health>)>>,
}

impl HealthCache {
    /// The health, a few seconds old at most.
    pub async fn get(&self, state: &AppState) -> Arc<Health> {
        let mut last = self.last.lock().await;
        if let Some((at, health)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Arc::clone(health);
        }
        let health = Arc::new(check(state).await);
        *last = Some((Instant::now(), Arc::clone(&health)));
        health
    }
}

async fn check(state: &AppState) -> Health {
    let now = state.ports.clock.now().secs();
    let Ports { broker, stores, engines, .. } = state.ports.clone();
    let runs = stores.runs;
    let asked = state.shared.runtime().spawn(async move {
        tokio::join!(
            tokio::time::timeout(PATIENCE, broker.queues()),
            tokio::time::timeout(PATIENCE, runs.list(now, RUN_MAX_AGE_S)),
            tokio::task::spawn_blocking(move || engines()),
        )
    });
    let (queues, runs, engines) = match asked.await {
        Ok((queues, runs, engines)) => (
            flat(queues, "the broker does not answer", Clone::clone),
            flat(runs, "the store does not answer", |error| overstory_runtime::program::chain(error)),
            engines.unwrap_or_default(),
        ),
        Err(error) => {
            tracing::error!(%error, "health check failed");
            (None, None, EngineMap::new())
        }
    };
    describe(stores.name, now, queues, runs, &engines)
}

/// What was answered in time; why not goes to the log.
fn flat<T, E>(
    answer: Result<Result<T, E>, tokio::time::error::Elapsed>,
    what: &'static str,
    text: impl Fn(&E) -> String,
) -> Option<T> {
    let reason = match answer {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => text(&error),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(what, reason, "unhealthy");
    None
}

fn describe(
    store: &str,
    now: Timestamp,
    queues: Option<Vec<QueueLength>>,
    runs: Option<Vec<EngineRun>>,
    configured: &EngineMap,
) -> Health {
    let services = vec![
        ServiceHealth { name: "RabbitMQ".to_owned(), is_running: queues.is_some() },
        ServiceHealth { name: store.to_owned(), is_running: runs.is_some() },
    ];
    let queues = queues.unwrap_or_default();
    let runs = runs.unwrap_or_default();
    // One that is configured and does not report is shown too: it does not run.
    let reporting = runs.iter().map(|run| run.engine.as_str());
    let names: BTreeSet<&str> = configured.keys().map(String::as_str).chain(reporting).collect();
    let parameters = names.iter().map(|name| ((*name).to_owned(), engine_health(name, &runs, &queues)));
    let waiting = |queue: &QueueLength| u64::from(queue.messages);
    Health {
        services,
        engines: Engines { graph: graph(&names, configured), parameters: parameters.collect() },
        max_queue_length: MAX_QUEUE_LENGTH,
        max_messages_length: queues.iter().filter(|queue| queue.name != DEAD).map(waiting).sum(),
        queues,
        runs: runs.into_iter().map(run_view).collect(),
        has_invalid_engines_order: configured.values().flatten().any(|next| !configured.contains_key(next)),
        time: now.0,
    }
}

const DEAD: &str = overstory_amqp::topology::ENGINE_DEAD;
const COLLECTD_ENGINE: &str = "collectdgw";
const ARCHIVE_ENGINE: &str = "archive";

fn graph(names: &BTreeSet<&str>, configured: &EngineMap) -> Graph {
    let edge = |(from, to): (&String, &String)| Edge { from: from.clone(), to: to.clone() };
    let edges = configured.iter().flat_map(|(from, next)| next.iter().map(move |to| (from, to)));
    Graph { nodes: names.iter().map(|name| (*name).to_owned()).collect(), edges: edges.map(edge).collect() }
}

fn engine_health(name: &str, runs: &[EngineRun], queues: &[QueueLength]) -> EngineHealth {
    let own: Vec<_> = runs.iter().filter(|run| run.engine == name).collect();
    let queue = match name {
        COLLECTD_ENGINE => overstory_amqp::topology::ENGINE_COLLECTDGW,
        ARCHIVE_ENGINE => overstory_amqp::topology::ENGINE_ARCHIVE,
        _ => overstory_amqp::topology::ENGINE_EVENTS,
    };
    let queue_length = queues.iter().find(|found| found.name == queue).map_or(0, |found| found.messages);
    let instances = own.len() as u64;
    EngineHealth {
        instances,
        min_instances: 1,
        optimal_instances: 2,
        queue_length,
        time: own.iter().map(|run| run.at.0).max().unwrap_or(0),
        is_running: own.iter().any(|run| run.active),
        is_queue_overflown: queue_length > MAX_QUEUE_LENGTH,
        is_too_few_instances: instances < 1,
        is_diff_instances_config: false,
    }
}

fn run_view(run: EngineRun) -> RunView {
    RunView {
        engine: run.engine,
        instance: run.instance,
        active: run.active,
        time: run.at.0,
        pid: run.pid,
        events: run.events,
        errors: run.errors,
        events_per_second: run.events_per_second,
        seconds_per_event: run.seconds_per_event,
    }
}

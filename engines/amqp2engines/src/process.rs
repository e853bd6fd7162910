//! The process: opens what it needs, starts the units, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overstory_amqp::{Consumer, ConsumerOptions, Publisher, PublisherOptions, topology};
use overstory_model::collectd::TypesDb;
use overstory_model::{Clock, SystemClock};
use overstory_runtime::admin::{self, Ready};
use overstory_runtime::backoff::Backoff;
use overstory_runtime::program::{BodyResult, chain};
use overstory_runtime::prometheus::Registry;
use overstory_runtime::watchdog::Watchdog;
use overstory_runtime::{Home, Shutdown};
use overstory_store::{EngineSide, StoreConfig, open_engines};
use tokio::task::JoinSet;

use crate::Configured;
use crate::archive;
use crate::config::Config;
use crate::engine::Engine;
use crate::metrics::{ArchiveMetrics, Metrics};
use crate::pipeline::{CollectdWork, EventsWork};
use crate::report::{Reported, Reporter};
use crate::unit::{Parts, Unit, UnitOptions, UnitStatus, Work};

/// Publishing what is at hand may take so long at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked whether the program is ready.
const READY_EVERY: Duration = Duration::from_secs(1);

/// Runs until shutdown.
pub(crate) async fn body(configured: Configured, admin: SocketAddr, name: String, shutdown: Shutdown) -> BodyResult {
    let Configured { home, amqp, store: store_config, config } = configured;
    let types = Arc::new(read_types(&home, &config)?);
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let ready = Ready::new(&["store", "broker"]);
    let archive_metrics = config.archive.is_some().then(|| ArchiveMetrics::new(&registry)).transpose()?;
    let admin = admin::start(admin, registry, ready.clone(), shutdown.clone()).await?;
    tracing::info!(%admin, process = name, "started");
    let publisher = Publisher::start(amqp.clone(), PublisherOptions::new(&name), shutdown.clone())?;
    let host = host_name(&config)?;
    let holder = format!("{host}/{name}");
    let mut tasks = JoinSet::new();
    let mut reported = Vec::new();
    let mut statuses = Vec::new();
    // It needs no store, and so does not wait for it.
    if let Some((config, counted)) = config.archive.as_ref().zip(archive_metrics) {
        let names = (host.as_str(), holder.as_str());
        let counted = (counted, metrics.engine(Engine::Archive));
        let status = archive::start(&mut tasks, config, amqp.clone(), names, &publisher, counted, &shutdown);
        // Its queue may be full, and has the other engines' statistics each minute.
        reported.push(Reported::new(topology::ENGINE_ARCHIVE, status, &[Engine::Archive], &metrics).unasked());
    } else {
        tasks.spawn(archive::off(amqp.clone(), shutdown.clone()));
    }
    let Some(store) = open_store(&store_config, &home, &shutdown).await? else { return Ok(()) };
    ready.set("store", true);
    let starter =
        Starter { amqp, config: &config, home: &home, metrics: &metrics, publisher: &publisher, shutdown: &shutdown };

    let settings = config.settings.clone();
    let work = EventsWork::new(settings.clone(), store.clone(), &metrics);
    let status = starter.start(&mut tasks, topology::ENGINE_EVENTS, &holder, work, &store, true)?;
    let mut engines = vec![Engine::Cleaner];
    engines.extend(&config.settings.chain);
    if config.stats.enabled {
        engines.push(Engine::Stats);
    }
    reported.push(Reported::new(topology::ENGINE_EVENTS, Arc::clone(&status), &engines, &metrics));
    statuses.push(status);
    if config.collectdgw {
        let work = CollectdWork::new(settings, store.clone(), &metrics, types);
        let status = starter.start(&mut tasks, topology::ENGINE_COLLECTDGW, &holder, work, &store, false)?;
        let engines = [Engine::Collectdgw];
        reported.push(Reported::new(topology::ENGINE_COLLECTDGW, Arc::clone(&status), &engines, &metrics));
        statuses.push(status);
    }
    let reporter = Reporter {
        host: host.clone(),
        instance: holder,
        stats: config.stats.clone(),
        store: store.clone(),
        publisher: publisher.clone(),
        reported,
        stats_tally: metrics.engine(Engine::Stats),
        shutdown: shutdown.clone(),
    };
    tasks.spawn(reporter.run());
    tasks.spawn(watch_ready(ready, store, statuses, shutdown.clone()));

    let mut failure = None;
    while let Some(ended) = tasks.join_next().await {
        // A task that ends before it was asked to ends the process, and supervision starts a new one.
        if let Err(error) = ended {
            failure = Some(error);
        } else if !shutdown.is_requested() {
            tracing::error!("a task ended by itself");
        }
        shutdown.request();
    }
    if let Err(error) = publisher.close(CLOSE_DEADLINE).await {
        tracing::warn!(%error, "not everything was published, it is sent after the next start");
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

struct Starter<'a> {
    amqp: overstory_amqp::AmqpConfig,
    config: &'a Config,
    home: &'a Home,
    metrics: &'a Metrics,
    publisher: &'a Publisher,
    shutdown: &'a Shutdown,
}

impl Starter<'_> {
    fn start<W: Work + 'static>(
        &self,
        tasks: &mut JoinSet<()>,
        queue: &'static str,
        holder: &str,
        work: W,
        store: &EngineSide,
        publishes_left_behind: bool,
    ) -> std::io::Result<Arc<UnitStatus>> {
        let config = self.config;
        let options = UnitOptions {
            queue: queue.to_owned(),
            holder: holder.to_owned(),
            singly_after: config.singly_after,
            poison_attempts: config.poison_attempts,
            patience: config.store_patience,
            pause: config.store_pause,
            beat: config.beat,
            publishes_left_behind,
            intent_file: self.home.lib_dir().join("engines").join(format!("{queue}.intent")),
        };
        let consumer = ConsumerOptions {
            prefetch: config.prefetch,
            byte_budget: config.byte_budget,
            max_body: config.settings.limits.body_bytes,
            linger: config.linger,
            ..ConsumerOptions::new(queue, &format!("{holder} {queue}"))
        };
        let source = Consumer::start(self.amqp.clone(), consumer, self.shutdown.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let parts = Parts {
            store: store.clone(),
            sink: Arc::new(self.publisher.clone()),
            clock,
            watchdog: Watchdog::start(queue, config.watchdog)?,
            metrics: self.metrics.unit(queue),
            shutdown: self.shutdown.clone(),
        };
        let unit = Unit::new(options, work, Box::new(source), parts);
        let status = unit.status();
        tasks.spawn(unit.run());
        Ok(status)
    }
}

/// Opens the store as soon as it is there; `None` when the program is to stop before that.
async fn open_store(
    config: &StoreConfig,
    home: &Home,
    shutdown: &Shutdown,
) -> Result<Option<EngineSide>, overstory_store::StoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut said = false;
    loop {
        let error = match open_engines(config, home).await {
            Ok(store) => return Ok(Some(store)),
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error),
        };
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(error = chain(&error), "waiting for the store");
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(None),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// Keeps readiness true: the store answers and every queue is subscribed to, actively or as a standby.
async fn watch_ready(ready: Ready, store: EngineSide, statuses: Vec<Arc<UnitStatus>>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(READY_EVERY);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        ready.set("broker", statuses.iter().all(|status| status.is_subscribed()));
        // Asking the store costs a little: five times less often.
        if looks.is_multiple_of(5) {
            ready.set("store", store.probe.ping().await.is_ok());
        }
        looks = looks.wrapping_add(1);
    }
}

fn read_types(home: &Home, config: &Config) -> Result<TypesDb, Box<dyn std::error::Error + Send + Sync>> {
    let mut types = TypesDb::builtin().clone();
    for file in &config.types_db {
        let path = home.resolve(file);
        let failed = |error: &dyn std::fmt::Display| format!("cannot use {}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        types.extend_from(&text).map_err(|error| failed(&error))?;
    }
    Ok(types)
}

/// The component of this host's own events: as configured, or the machine's name.
fn host_name(config: &Config) -> std::io::Result<String> {
    if !config.stats.host.is_empty() {
        return Ok(config.stats.host.clone());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim().to_owned())
}

//! The running connector: ticks in one task, sending in another, nothing that waits for the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use overstory_amqp::AmqpConfig;
use overstory_amqp::message::Outgoing;
use overstory_amqp::publisher::{Publisher, PublisherOptions, Receipt, SpoolOptions};
use overstory_model::{Clock, SystemClock};
use overstory_runtime::admin::{self, Ready};
use overstory_runtime::prometheus::Registry;
use overstory_runtime::{Home, Shutdown};
use tokio::sync::mpsc;

use crate::checks::Checks;
use crate::collector::Collector;
use crate::config::CollectdConfig;
use crate::event::Events;
use crate::facts::{self, Facts};
use crate::metrics::Metrics;
use crate::procfs::Roots;
use crate::read::filesystem::{Mounts, SystemMounts};
use crate::ticker::Ticker;

/// Events that may wait for the publisher. It answers at once while the broker is well or away; only a broker that
/// neither confirms nor breaks lets them wait.
const QUEUE: usize = 256;
/// After the first reading the second follows at once, so that rates are there before the first interval is over.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// The window of unconfirmed messages: one host sends a handful at a time.
const WINDOW: usize = 64;
/// How long the end waits for the broker; with a spool nothing is lost by not waiting.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
const LIMITS_EVERY: Duration = Duration::from_secs(60);
const READY: &str = "first reading";

/// Runs until `shutdown` is requested.
///
/// # Errors
/// The configuration of the broker, the admin address or the spool cannot be used.
pub(crate) async fn run(config: CollectdConfig, home: &Home, shutdown: Shutdown) -> anyhow::Result<()> {
    let amqp = AmqpConfig::load(home)?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let ready = Ready::new(&[READY]);
    let host = if config.hostname.is_empty() { facts::host_name()? } else { config.hostname.clone() };
    admin::start(config.admin, registry, ready.clone(), shutdown.clone()).await?;
    let options = PublisherOptions {
        name: crate::PROGRAM.to_owned(),
        window: WINDOW,
        spool: Some(SpoolOptions { dir: home.spool_dir(), max_bytes: config.spool_bytes }),
    };
    let publisher = Publisher::start(amqp, options, shutdown.clone()).context("cannot open the spool")?;
    tracing::info!(host, interval_s = config.interval.as_secs(), "watching");
    let (sender, receiver) = mpsc::channel(QUEUE);
    let sending = tokio::spawn(send(receiver, publisher.clone(), metrics.clone()));
    let collector = Collector::new(&Roots::default(), &config.collect, SystemMounts);
    let mut agent = Agent::new(&config, &host, collector, metrics, sender, Arc::new(SystemClock));
    agent.watch(&publisher, &ready, &shutdown).await;
    // Closing the queue lets the sender finish what is in it.
    drop(agent);
    sending.await.context("the sending task failed")?;
    if let Err(error) = publisher.close(CLOSE_DEADLINE).await {
        tracing::warn!(%error, "not everything was confirmed, it waits in the spool");
    }
    Ok(())
}

/// Publishes what the ticks made, in order.
async fn send(mut events: mpsc::Receiver<Outgoing>, publisher: Publisher, metrics: Metrics) {
    let mut failing = false;
    while let Some(event) = events.recv().await {
        let outcome = match publisher.publish(event).await {
            Ok(Receipt::Confirmed) => "confirmed",
            Ok(Receipt::Spooled) => "spooled",
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot publish");
                }
                "failed"
            }
        };
        failing = outcome == "failed";
        metrics.events.with_label_values(&[outcome]).inc();
    }
}

/// What the ticks need.
struct Agent<M> {
    collector: Collector<M>,
    checks: Checks,
    events: Events,
    host: String,
    ticker: Ticker,
    interval: Duration,
    metrics: Metrics,
    queue: mpsc::Sender<Outgoing>,
    clock: Arc<dyn Clock>,
    started: Instant,
    limits_at: Duration,
}

impl<M: Mounts> Agent<M> {
    fn new(
        config: &CollectdConfig,
        host: &str,
        collector: Collector<M>,
        metrics: Metrics,
        queue: mpsc::Sender<Outgoing>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            events: Events::new(host, &Facts::of_this_host(collector.limits())),
            host: host.to_owned(),
            collector,
            checks: Checks::new(config.thresholds.clone()),
            ticker: Ticker::new(config.interval),
            interval: config.interval,
            metrics,
            queue,
            clock,
            started: Instant::now(),
            limits_at: Duration::ZERO,
        }
    }

    async fn watch(&mut self, publisher: &Publisher, ready: &Ready, shutdown: &Shutdown) {
        self.collector.tick(self.started.elapsed());
        ready.set(READY, true);
        let mut wait = WARM_UP.min(self.interval);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.requested() => return,
            }
            self.tick();
            self.metrics.connected.set(publisher.is_connected().into());
            self.metrics.spool_messages.set(i64::try_from(publisher.stats().spool_messages).unwrap_or(i64::MAX));
            wait = self.ticker.wait(self.clock.now());
        }
    }

    /// Takes one tick and hands its events over; never waits.
    fn tick(&mut self) {
        let begin = Instant::now();
        let now = self.started.elapsed();
        let at = self.ticker.stamp(self.clock.now());
        if now.saturating_sub(self.limits_at) >= LIMITS_EVERY {
            self.limits_at = now;
            let before = self.collector.limits();
            self.collector.refresh_limits();
            if self.collector.limits() != before {
                self.events = Events::new(&self.host, &Facts::of_this_host(self.collector.limits()));
            }
        }
        let readings = self.collector.tick(now);
        let batch = self.collector.batch();
        self.metrics.samples.set(i64::try_from(batch.samples()).unwrap_or(i64::MAX));
        self.metrics.samples_dropped.inc_by(batch.dropped() as u64);
        self.hand_over(self.events.perf(at, batch));
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        for check in self.checks.take(&readings, now_s) {
            if check.changed {
                tracing::info!(resource = check.resource, state = check.state.name(), "state");
            }
            self.hand_over(self.events.check(at, &check));
        }
        self.metrics.ticks.inc();
        self.metrics.tick_seconds.observe(begin.elapsed().as_secs_f64());
    }

    fn hand_over(&self, event: Outgoing) {
        if self.queue.try_send(event).is_err() {
            self.metrics.events.with_label_values(&["dropped"]).inc();
        }
    }
}

/// Reads the host twice, [`WARM_UP`] apart, and returns the body of the perf event of the second reading.
///
/// # Errors
/// The host's name cannot be told.
pub(crate) async fn once(config: &CollectdConfig) -> anyhow::Result<String> {
    let host = if config.hostname.is_empty() { facts::host_name()? } else { config.hostname.clone() };
    let mut collector = Collector::new(&Roots::default(), &config.collect, SystemMounts);
    let started = Instant::now();
    collector.tick(started.elapsed());
    tokio::time::sleep(WARM_UP).await;
    collector.tick(started.elapsed());
    let events = Events::new(&host, &Facts::of_this_host(collector.limits()));
    Ok(events.perf_body(SystemClock.now(), collector.batch()))
}

#[cfg(test)]
mod tests;

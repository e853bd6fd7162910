//! What the engines tell of themselves: statistics as events, reports in the store, and asking who is active.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overstory_amqp::{Outgoing, Publisher, topology};
use overstory_model::{Clock, RoutingKey, SystemClock};
use overstory_runtime::Shutdown;
use overstory_store::{EngineRun, EngineSide};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::StatsConfig;
use crate::engine::Engine;
use crate::engine::stats::{self, Work};
use crate::metrics::{EngineTally, Metrics};
use crate::unit::{UnitStatus, WAKE};

/// How often this looks what is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the reports in the store are renewed.
const RECORD_EVERY: Duration = Duration::from_secs(10);
/// How often a process that is not active asks who is.
const WAKE_EVERY: Duration = Duration::from_secs(10);
/// How long publishing may take.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);

/// A unit that is reported on.
#[derive(Debug)]
pub(crate) struct Reported {
    queue: &'static str,
    status: Arc<UnitStatus>,
    engines: Vec<Counted>,
    /// When its statistics are due; set when it becomes active.
    stats_due: Option<Instant>,
    /// When the queue is asked who is active; never where events come all the time anyway.
    wake_due: Option<Instant>,
    was_subscribed: bool,
}

#[derive(Debug)]
struct Counted {
    engine: Engine,
    tally: EngineTally,
    published: Mark,
    recorded: Mark,
}

/// What had been counted when it was last told.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    events: u64,
    errors: u64,
    work_ns: u64,
}

impl Mark {
    fn of(tally: &EngineTally) -> Self {
        Self {
            at: Instant::now(),
            events: tally.events.get(),
            errors: tally.errors.get(),
            work_ns: tally.work_ns.get(),
        }
    }

    /// The work since the mark, which moves on.
    #[expect(clippy::cast_precision_loss, reason = "a span's nanoseconds fit 53 bits for a hundred days")]
    fn advance(&mut self, tally: &EngineTally) -> Work {
        let now = Self::of(tally);
        let work = Work {
            events: now.events - self.events,
            errors: now.errors - self.errors,
            worked_s: (now.work_ns - self.work_ns) as f64 / 1e9,
            span_s: (now.at - self.at).as_secs_f64(),
        };
        *self = now;
        work
    }
}

impl Reported {
    pub(crate) fn new(queue: &'static str, status: Arc<UnitStatus>, engines: &[Engine], metrics: &Metrics) -> Self {
        let counted = |engine: &Engine| {
            let tally = metrics.engine(*engine);
            let mark = Mark::of(&tally);
            Counted { engine: *engine, tally, published: mark, recorded: mark }
        };
        Self {
            queue,
            status,
            engines: engines.iter().map(counted).collect(),
            stats_due: None,
            wake_due: Some(Instant::now()),
            was_subscribed: false,
        }
    }

    /// Does not ask the queue who is active.
    pub(crate) fn unasked(self) -> Self {
        Self { wake_due: None, ..self }
    }
}

/// The task that reports.
pub(crate) struct Reporter {
    pub(crate) host: String,
    pub(crate) instance: String,
    pub(crate) stats: StatsConfig,
    pub(crate) store: EngineSide,
    pub(crate) publisher: Publisher,
    pub(crate) reported: Vec<Reported>,
    pub(crate) stats_tally: EngineTally,
    pub(crate) shutdown: Shutdown,
}

impl Reporter {
    /// Reports until shutdown.
    pub(crate) async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut record_due = Instant::now();
        loop {
            tokio::select! {
                () = self.shutdown.requested() => return,
                _ = looks.tick() => {}
            }
            let now = Instant::now();
            for place in 0..self.reported.len() {
                self.wake(place, now).await;
                self.publish(place, now).await;
            }
            if now >= record_due {
                record_due = now + RECORD_EVERY;
                self.record().await;
            }
        }
    }

    /// Sends the queue a message without content when this process does not know that it is active.
    ///
    /// The broker does not tell a consumer that it became the active one: the first delivery does. Whoever gets this one
    /// takes the epoch, publishes what was left in the outbox, resolves alarms and publishes statistics, however idle
    /// the queue is.
    async fn wake(&mut self, place: usize, now: Instant) {
        let Some(reported) = self.reported.get_mut(place) else { return };
        let Some(due) = reported.wake_due else { return };
        let subscribed = reported.status.is_subscribed();
        let just_subscribed = subscribed && !std::mem::replace(&mut reported.was_subscribed, subscribed);
        reported.was_subscribed = subscribed;
        if !subscribed || reported.status.is_active() || !(just_subscribed || now >= due) {
            return;
        }
        reported.wake_due = Some(now + WAKE_EVERY);
        let key = RoutingKey::fit(reported.queue.to_owned());
        let mut message = Outgoing::json("", key, Bytes::from_static(b"{}"));
        message.headers.insert(WAKE.to_owned(), self.instance.clone());
        if let Err(error) = self.publisher.publish_confirmed(message, PUBLISH_DEADLINE).await {
            tracing::debug!(%error, "cannot ask who is active");
        }
    }

    /// Publishes the statistics of an active unit's engines when they are due.
    async fn publish(&mut self, place: usize, now: Instant) {
        let Some(reported) = self.reported.get_mut(place) else { return };
        if !self.stats.enabled || !reported.status.is_active() {
            reported.stats_due = None;
            return;
        }
        let due = *reported.stats_due.get_or_insert(now + self.stats.first_after);
        if now < due {
            return;
        }
        reported.stats_due = Some(now + self.stats.interval);
        let clock_now = SystemClock.now();
        let started = std::time::Instant::now();
        let mut messages = Vec::new();
        for counted in &mut reported.engines {
            let work = counted.published.advance(&counted.tally);
            let event = stats::event(counted.engine, &self.host, &work, clock_now);
            messages.push(Outgoing::json(topology::EVENTS, event.routing_key(), event.to_body().into()));
        }
        let count = messages.len();
        self.stats_tally.work_ns.inc_by(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let outcome = tokio::time::timeout(PUBLISH_DEADLINE, self.publisher.publish_all(messages)).await;
        let failed = outcome.map_or(count, |all| all.iter().filter(|one| one.is_err()).count());
        self.stats_tally.events.inc_by(u64::try_from(count - failed).unwrap_or(0));
        self.stats_tally.errors.inc_by(u64::try_from(failed).unwrap_or(0));
        if failed > 0 {
            tracing::warn!(failed, "statistics were not published");
        }
    }

    /// Renews what the health check reads.
    async fn record(&mut self) {
        let at = SystemClock.now().secs();
        let mut runs = Vec::new();
        for reported in &mut self.reported {
            let active = reported.status.is_active();
            for counted in &mut reported.engines {
                let work = counted.recorded.advance(&counted.tally);
                runs.push(EngineRun {
                    engine: counted.engine.name().to_owned(),
                    instance: self.instance.clone(),
                    active,
                    at,
                    pid: std::process::id(),
                    events: work.events,
                    errors: work.errors,
                    events_per_second: work.events_per_second(),
                    seconds_per_event: work.seconds_per_event(),
                });
            }
        }
        if let Err(error) = self.store.runs.record(&runs).await {
            tracing::debug!(%error, "cannot record what the engines do");
        }
    }
}

//! Looks at the queue, judges how the archive is, and tells when that changes and every five minutes.

use std::sync::Arc;
use std::time::Duration;

use overstory_amqp::queues::queue_counts;
use overstory_amqp::{AmqpConfig, Outgoing, Publisher, topology};
use overstory_model::{Clock, SystemClock};
use overstory_runtime::Shutdown;
use tokio::time::{Instant, MissedTickBehavior};

use super::check::{self, Facts, Findings};
use super::config::ArchiveConfig;
use super::nodes::GroupNodes;
use super::shared::Shared;
use crate::metrics::ArchiveMetrics;
use crate::unit::UnitStatus;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the broker is asked for the length of the queue.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// How often the check is published at least.
const TELL_EVERY: Duration = Duration::from_secs(300);
/// How long publishing and asking may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The task that tells. Only the process that takes the queue does.
pub(super) struct Reporter {
    pub(super) host: String,
    pub(super) config: ArchiveConfig,
    pub(super) nodes: Arc<GroupNodes>,
    pub(super) amqp: AmqpConfig,
    pub(super) publisher: Publisher,
    pub(super) shared: Arc<Shared>,
    pub(super) status: Arc<UnitStatus>,
    pub(super) metrics: ArchiveMetrics,
    pub(super) shutdown: Shutdown,
}

impl Reporter {
    /// Reports until shutdown.
    pub(super) async fn run(self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<(Findings, Instant)> = None;
        let mut asked: Option<(u32, Instant)> = None;
        loop {
            tokio::select! {
                () = self.shutdown.requested() => return,
                _ = looks.tick() => {}
            }
            if !self.status.is_active() {
                (told, asked) = (None, None);
                continue;
            }
            let queued = match asked {
                Some((queued, at)) if at.elapsed() < ASK_EVERY => queued,
                _ => {
                    let queued = self.queued().await.or(asked.map(|(queued, _)| queued)).unwrap_or(0);
                    asked = Some((queued, Instant::now()));
                    queued
                }
            };
            let facts = self.facts(queued);
            let verdict = check::judge(&facts, &self.config.check);
            if told.is_some_and(|(findings, at)| findings == verdict.findings && at.elapsed() < TELL_EVERY) {
                continue;
            }
            let event = check::event(&self.host, &verdict, &facts, SystemClock.now());
            let message = Outgoing::json(topology::EVENTS, event.routing_key(), event.to_body().into());
            match self.publisher.publish_confirmed(message, DEADLINE).await {
                Ok(()) => told = Some((verdict.findings, Instant::now())),
                Err(error) => tracing::debug!(%error, "the archive's check was not published"),
            }
        }
    }

    async fn queued(&self) -> Option<u32> {
        let asking = queue_counts(&self.amqp, &[topology::ENGINE_ARCHIVE]);
        let counts = tokio::time::timeout(DEADLINE, asking).await.ok()?.ok()?;
        let ready = counts.first().map(|count| count.ready)?;
        self.metrics.waiting.set(ready.into());
        Some(ready)
    }

    fn facts(&self, queued: u32) -> Facts {
        let state = self.shared.state();
        let waiting = state.waiting_since.map(|since| since.elapsed());
        let seconds = waiting.map_or(0, |waiting| i64::try_from(waiting.as_secs()).unwrap_or(i64::MAX));
        self.metrics.oldest.set(seconds);
        Facts {
            no_nodes: self.nodes.problem(),
            waiting,
            reason: state.reason,
            queued,
            fill: check::fill(queued, self.shared.mean_body(), &self.config.queue),
            dropped: state.dropped,
            dropped_ago: state.dropped_at.map(|at| at.elapsed()),
        }
    }
}

//! archive: keeps every event of `canopsis.events` as it came, in logfiles nodes.
//!
//! It has a queue of its own, which never refuses: while the nodes are away events wait in it, and when it is full the
//! oldest make room. Nothing that happens here is felt by the other engines or by publishers.
//!
//! Each event is put into the channel of its day ([`overstory_model::archive`]) and acknowledged once a node has answered
//! that it has it, so it is kept at least once. Of the processes that subscribe, the broker delivers to one.

pub mod check;
pub mod config;
mod keep;
pub mod nodes;
mod off;
mod report;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use overstory_amqp::{AmqpConfig, Consumed, Consumer, ConsumerOptions, Delivery, DeliveryTag, Publisher, topology};
use overstory_model::{Clock, SystemClock};
use overstory_runtime::Shutdown;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::metrics::{ArchiveMetrics, EngineTally};
use crate::unit::{Sink, Source, UnitStatus};
use config::ArchiveConfig;
use keep::{Keeper, Outcome};
use nodes::{GroupNodes, Nodes};
pub(crate) use off::off;
use report::Reporter;
use shared::Shared;

/// No AMQP message is larger, in bytes.
const MAX_BODY: usize = 16 << 20;
/// An event that waited for so long is given back, so that another process has a try, and before the broker's patience
/// with consumers that do not acknowledge ends (30 minutes).
const TURN: Duration = Duration::from_secs(900);
/// How long the end waits for events that are on their way.
const END_DEADLINE: Duration = Duration::from_secs(3);
/// The pause after something that should not happen.
const PAUSE: Duration = Duration::from_secs(1);

/// What the archive works with.
#[derive(Clone)]
pub(crate) struct Parts {
    /// Where records go.
    pub(crate) nodes: Arc<dyn Nodes>,
    /// Where dead letters go.
    pub(crate) sink: Arc<dyn Sink>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What is counted of archives.
    pub(crate) metrics: ArchiveMetrics,
    /// What is counted of every engine.
    pub(crate) tally: EngineTally,
    /// The wish to stop.
    pub(crate) shutdown: Shutdown,
}

/// An event that was delivered and not acknowledged yet.
struct Slot {
    number: u64,
    tag: DeliveryTag,
    since: Instant,
    done: bool,
}

/// The task that takes the queue.
pub(crate) struct Archive {
    source: Box<dyn Source>,
    /// Events that had to make room; taken only to be counted, by the process that takes the queue.
    dropped: Box<dyn Source>,
    keeper: Keeper,
    parts: Parts,
    shared: Arc<Shared>,
    status: Arc<UnitStatus>,
    /// In the order of delivery, in which they are acknowledged.
    window: VecDeque<Slot>,
    puts: JoinSet<(u64, Outcome)>,
    next_number: u64,
    /// The latest time of arrival; each event gets a later one.
    received: i64,
    turn: Duration,
}

/// Starts the engine: its tasks are added to `tasks`. Without nodes it starts too, and the events wait in the queue.
pub(crate) fn start(
    tasks: &mut JoinSet<()>,
    config: &ArchiveConfig,
    mut amqp: AmqpConfig,
    (host, holder): (&str, &str),
    publisher: &Publisher,
    (metrics, tally): (ArchiveMetrics, EngineTally),
    shutdown: &Shutdown,
) -> Arc<UnitStatus> {
    amqp.queues.archive = Some(config.queue);
    let consumer = |queue: &'static str, prefetch, byte_budget| {
        let name = format!("{holder} {queue}");
        let options =
            ConsumerOptions { prefetch, byte_budget, max_body: MAX_BODY, ..ConsumerOptions::new(queue, &name) };
        Box::new(Consumer::start(amqp.clone(), options, shutdown.clone()))
    };
    let nodes = Arc::new(GroupNodes::new(config.files.clone()));
    let parts = Parts {
        nodes: nodes.clone(),
        sink: Arc::new(publisher.clone()),
        clock: Arc::new(SystemClock),
        metrics,
        tally,
        shutdown: shutdown.clone(),
    };
    let source = consumer(topology::ENGINE_ARCHIVE, config.prefetch, config.byte_budget);
    let dropped = consumer(topology::ARCHIVE_DROPPED, 100, 4 << 20);
    let archive = Archive::new(source, dropped, config.oldest_s, parts.clone());
    let status = Arc::clone(&archive.status);
    let reporter = Reporter {
        host: host.to_owned(),
        config: config.clone(),
        nodes: Arc::clone(&nodes),
        amqp: amqp.clone(),
        publisher: publisher.clone(),
        shared: Arc::clone(&archive.shared),
        status: Arc::clone(&status),
        metrics: parts.metrics,
        shutdown: shutdown.clone(),
    };
    tasks.spawn(archive.run());
    tasks.spawn(reporter.run());
    let shutdown = shutdown.clone();
    tasks.spawn(async move { nodes.follow(&shutdown).await });
    status
}

impl Archive {
    fn new(source: Box<dyn Source>, dropped: Box<dyn Source>, oldest_s: i64, parts: Parts) -> Self {
        let shared = Arc::new(Shared::default());
        Self {
            source,
            dropped,
            keeper: Keeper { oldest_s, parts: parts.clone(), shared: Arc::clone(&shared) },
            parts,
            shared,
            status: Arc::default(),
            window: VecDeque::new(),
            puts: JoinSet::new(),
            next_number: 0,
            received: 0,
            turn: TURN,
        }
    }

    /// Archives until shutdown.
    pub(crate) async fn run(mut self) {
        loop {
            let turn = self.window.front().map(|slot| slot.since + self.turn);
            tokio::select! {
                Some(done) = self.puts.join_next() => self.finished(done).await,
                consumed = self.source.next() => match consumed {
                    Some(consumed) => self.consume(consumed).await,
                    None => break,
                },
                Some(consumed) = self.dropped.next(), if self.status.is_active() => self.count(consumed).await,
                () = tokio::time::sleep_until(turn.unwrap_or_else(Instant::now)), if turn.is_some() => {
                    tracing::warn!("events could not be archived for long, handing them back");
                    self.hand_back(Duration::ZERO).await;
                }
            }
        }
        let deadline = Instant::now() + END_DEADLINE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.puts.join_next()).await {
            self.finished(done).await;
        }
        let left = self.window.len();
        if left > 0 {
            tracing::info!(left, "events that were not archived yet go back to the queue");
        }
        self.source.close().await;
        self.dropped.close().await;
    }

    async fn consume(&mut self, consumed: Consumed) {
        match consumed {
            Consumed::Subscribed => {
                tracing::info!(queue = topology::ENGINE_ARCHIVE, "subscribed");
                self.leave(true).await;
            }
            Consumed::Lost(reason) => {
                tracing::warn!(queue = topology::ENGINE_ARCHIVE, reason, "subscription lost");
                self.leave(false).await;
            }
            Consumed::Batch(batch) => {
                // The first delivery tells that this process is the one that the broker delivers to.
                self.status.set(true, true);
                batch.into_iter().for_each(|delivery| self.take(delivery));
                self.settle().await;
            }
        }
    }

    /// Begins to archive an event.
    fn take(&mut self, delivery: Delivery) {
        let number = self.next_number;
        self.next_number += 1;
        self.window.push_back(Slot { number, tag: delivery.tag, since: Instant::now(), done: false });
        self.shared.saw(delivery.size);
        self.received = self.parts.clock.now().0.saturating_mul(1000).max(self.received + 1);
        let (keeper, received) = (self.keeper.clone(), self.received);
        self.puts.spawn(async move { (number, keeper.keep(&delivery, received).await) });
    }

    /// Acknowledges what is done, as far as nothing before it is not.
    async fn finished(&mut self, done: Result<(u64, Outcome), JoinError>) {
        let mut next = Some(done);
        while let Some(done) = next {
            match done {
                Ok((number, Outcome::Done)) => self.mark(number),
                // The program is to stop.
                Ok((_, Outcome::Left)) => {}
                Err(error) => {
                    tracing::error!(%error, "archiving an event failed");
                    self.hand_back(PAUSE).await;
                    return;
                }
            }
            next = self.puts.try_join_next();
        }
        self.settle().await;
    }

    fn mark(&mut self, number: u64) {
        let Some(first) = self.window.front().map(|slot| slot.number) else { return };
        let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if let Some(slot) = place.and_then(|place| self.window.get_mut(place)) {
            slot.done = true;
        }
    }

    async fn settle(&mut self) {
        let mut last = None;
        while let Some(slot) = self.window.pop_front_if(|slot| slot.done) {
            last = Some(slot.tag);
        }
        let waiting = self.window.front().map(|slot| slot.since);
        if last.is_some() {
            self.shared.progress(waiting);
        } else if let Some(since) = waiting {
            self.shared.waits(since);
        }
        self.parts.metrics.unacknowledged.set(i64::try_from(self.window.len()).unwrap_or(i64::MAX));
        if let Some(tag) = last
            && let Err(error) = self.source.ack_up_to(&tag).await
        {
            // They come again and are archived once more; readers tell each once.
            tracing::warn!(%error, "cannot acknowledge archived events");
        }
    }

    /// Counts events that had to make room.
    async fn count(&mut self, consumed: Consumed) {
        let Consumed::Batch(batch) = consumed else { return };
        let count = u64::try_from(batch.len()).unwrap_or(0);
        self.parts.metrics.dropped.inc_by(count);
        if self.shared.dropped(count) {
            tracing::error!(queue = topology::ENGINE_ARCHIVE, "the queue is full, its oldest events make room");
        }
        if let Some(last) = batch.last()
            && let Err(error) = self.dropped.ack_up_to(&last.tag).await
        {
            tracing::debug!(%error, "dropped events are counted again");
        }
    }

    async fn hand_back(&mut self, pause: Duration) {
        self.leave(false).await;
        self.source.hand_back(pause).await;
    }

    /// Gives up what is on its way: it is delivered again, here or elsewhere.
    async fn leave(&mut self, subscribed: bool) {
        self.status.set(subscribed, false);
        self.window.clear();
        self.puts = JoinSet::new();
        self.parts.metrics.unacknowledged.set(0);
        self.dropped.hand_back(Duration::ZERO).await;
    }
}

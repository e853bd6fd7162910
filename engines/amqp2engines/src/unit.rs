//! A unit: one queue, the work on its messages, and the ownership of both.
//!
//! For every batch: messages seen before are left out, the rest is read, the state of what they are about is loaded, each
//! is decided in order, everything is written in one durable commit, the batch is acknowledged, and what the
//! commit left in the outbox is published while the next batch is worked on.
//!
//! Of the processes that subscribe to a queue the broker delivers to one. That one takes the epoch at its first
//! delivery, and every commit proves it: whoever was stopped or cut off meanwhile finds itself fenced.

mod attempt;
mod intent;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use overstory_amqp::{ConsumeError, Consumed, Consumer, Delivery, DeliveryTag};
use overstory_model::{Clock, Millis};
use overstory_runtime::Shutdown;
use overstory_runtime::backoff::Backoff;
use overstory_runtime::watchdog::Watchdog;
use overstory_store::{Commit, EngineSide, Epoch, StoreError};
use tokio::time::{Instant, MissedTickBehavior};

use crate::engine::{Draft, Refusal};
use crate::metrics::UnitMetrics;
pub use intent::Intent;
use outbox::Sender;
pub use outbox::Sink;

/// Header of a message that only asks who is active.
pub const WAKE: &str = "x-overstory-wake";
/// How many commits one beat makes at most.
const BEAT_COMMITS: usize = 10;
/// How long the end of a unit waits for its outbox.
const OUTBOX_DEADLINE: Duration = Duration::from_secs(5);

/// Where a unit's messages come from; the broker's consumer, or a test.
#[async_trait]
pub trait Source: Send {
    /// Waits for what comes next; `None` at the end. May be dropped and called again.
    async fn next(&mut self) -> Option<Consumed>;

    /// Acknowledges a delivery and all before it.
    ///
    /// # Errors
    /// The subscription ended; the broker delivers again.
    async fn ack_up_to(&mut self, tag: &DeliveryTag) -> Result<(), ConsumeError>;

    /// Gives everything unacknowledged back and subscribes again after `pause`.
    async fn hand_back(&mut self, pause: Duration);

    /// Ends the subscription.
    async fn close(self: Box<Self>);
}

#[async_trait]
impl Source for Consumer {
    async fn next(&mut self) -> Option<Consumed> {
        Self::next(self).await
    }

    async fn ack_up_to(&mut self, tag: &DeliveryTag) -> Result<(), ConsumeError> {
        Self::ack_up_to(self, tag).await
    }

    async fn hand_back(&mut self, pause: Duration) {
        Self::hand_back(self, pause).await;
    }

    async fn close(self: Box<Self>) {
        Self::close(*self).await;
    }
}

/// What is done with the messages of a queue. Everything but `load` and `beat` is pure.
#[async_trait]
pub trait Work: Send {
    /// A message that was read.
    type Input: Send + Sync;

    /// Whether a message that is worked on twice counts twice, so that it has to be recognised.
    fn needs_dedup(&self) -> bool;

    /// Reads a message.
    ///
    /// # Errors
    /// It goes to the dead letters.
    fn read(&mut self, delivery: &Delivery, now: Millis) -> Result<Self::Input, Refusal>;

    /// Loads the state of what `inputs` are about, as far as it is not at hand.
    ///
    /// # Errors
    /// The store is not available.
    async fn load(&mut self, inputs: &[&Self::Input]) -> Result<(), StoreError>;

    /// Decides what one message changes.
    fn decide(&mut self, input: &Self::Input, now: Millis, draft: &mut Draft);

    /// Writes all changes of state into the commit.
    fn finish(&mut self, commit: &mut Commit);

    /// The changes are in the store.
    fn committed(&mut self);

    /// Drops all state at hand: it may not be what the store has.
    fn forget(&mut self);

    /// Work that the time asks for; called again at once while it returns a commit.
    ///
    /// # Errors
    /// The store is not available.
    async fn beat(&mut self, now: Millis, draft: &mut Draft) -> Result<Option<Commit>, StoreError>;
}

/// How a unit runs.
#[derive(Debug, Clone)]
pub struct UnitOptions {
    /// The queue; also the unit's name in the store.
    pub queue: String,
    /// This process, as the store notes it beside the epoch.
    pub holder: String,
    /// Messages that were delivered so often before are worked on one by one.
    pub singly_after: u64,
    /// A message that ended the process so often while it was worked on alone goes to the dead letters.
    pub poison_attempts: u32,
    /// A store that is away is waited for this long, then the messages are handed back.
    pub patience: Duration,
    /// The pause before the next subscription after handing back.
    pub pause: Duration,
    /// The time between two beats.
    pub beat: Duration,
    /// Whether this unit publishes what earlier owners of any unit left in the outbox, which all units share.
    pub publishes_left_behind: bool,
    /// Where it is noted which message is worked on alone.
    pub intent_file: PathBuf,
}

/// What others may know of a unit.
#[derive(Debug, Default)]
pub struct UnitStatus {
    subscribed: AtomicBool,
    active: AtomicBool,
    epoch: AtomicU64,
}

impl UnitStatus {
    /// Whether the queue is subscribed to, active or as a standby.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

    /// Whether this process holds the epoch as far as it knows.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Tells others.
    pub(crate) fn set(&self, subscribed: bool, active: bool) {
        self.subscribed.store(subscribed, Ordering::Relaxed);
        self.active.store(active, Ordering::Relaxed);
    }

    /// The epoch it holds or held last.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }
}

/// What a unit works with.
pub struct Parts {
    /// The store.
    pub store: EngineSide,
    /// Where the outbox goes.
    pub sink: Arc<dyn Sink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ends the process when a batch comes to a standstill.
    pub watchdog: Watchdog,
    /// What is counted.
    pub metrics: UnitMetrics,
    /// The wish to stop.
    pub shutdown: Shutdown,
}

/// The ownership of the queue's unit, from taking the epoch to losing the subscription.
struct Tenure {
    epoch: Epoch,
    outbox: Sender,
}

/// Why a batch was given up.
#[derive(Debug)]
enum GiveUp {
    /// Another process took the epoch.
    Fenced,
    /// The store is away, or the program is to stop.
    Away,
    /// The store refuses this batch for what is in it.
    Refused(StoreError),
    /// The subscription ended.
    Lost,
}

/// One queue and the work on it.
pub struct Unit<W: Work> {
    options: UnitOptions,
    work: W,
    source: Box<dyn Source>,
    parts: Parts,
    status: Arc<UnitStatus>,
    intent: Intent,
    tenure: Option<Tenure>,
}

impl<W: Work> Unit<W> {
    /// Makes a unit that does nothing before [`Self::run`].
    #[must_use]
    pub fn new(options: UnitOptions, work: W, source: Box<dyn Source>, parts: Parts) -> Self {
        let intent = Intent::new(options.intent_file.clone());
        Self { options, work, source, parts, status: Arc::default(), intent, tenure: None }
    }

    /// What others may know of it.
    #[must_use]
    pub fn status(&self) -> Arc<UnitStatus> {
        Arc::clone(&self.status)
    }

    /// Works until the source ends.
    pub async fn run(mut self) {
        let mut beat = tokio::time::interval(self.options.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = beat.tick(), if self.tenure.is_some() => self.beat().await,
                consumed = self.source.next() => match consumed {
                    Some(consumed) => self.consume(consumed).await,
                    None => break,
                },
            }
        }
        let Self { tenure, source, .. } = self;
        if let Some(tenure) = tenure {
            tenure.outbox.finish(OUTBOX_DEADLINE).await;
        }
        source.close().await;
    }

    async fn consume(&mut self, consumed: Consumed) {
        let queue = self.options.queue.as_str();
        match consumed {
            Consumed::Subscribed => {
                tracing::info!(queue, "subscribed");
                self.leave();
                self.status.subscribed.store(true, Ordering::Relaxed);
            }
            Consumed::Lost(reason) => {
                tracing::warn!(queue, reason, "subscription lost");
                self.leave();
                self.status.subscribed.store(false, Ordering::Relaxed);
            }
            Consumed::Batch(batch) => {
                self.parts.watchdog.busy();
                self.run_batch(&batch).await;
                self.parts.watchdog.idle();
            }
        }
    }

    /// Stops being the owner: nothing that is at hand may be used again.
    fn leave(&mut self) {
        self.tenure = None;
        self.work.forget();
        self.status.active.store(false, Ordering::Relaxed);
        self.parts.metrics.active.set(0);
    }

    async fn run_batch(&mut self, batch: &[Delivery]) {
        let started = Instant::now();
        self.parts.metrics.batch_size(batch.len());
        let outcome = self.run_owned(batch).await;
        self.parts.metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
        let pause = match outcome {
            Ok(()) | Err(GiveUp::Lost) => return,
            Err(GiveUp::Fenced) => {
                tracing::warn!(queue = self.options.queue, "another process took over, standing by");
                Duration::from_secs(1)
            }
            Err(GiveUp::Away) => self.options.pause,
            Err(GiveUp::Refused(error)) => {
                let error = overstory_runtime::program::chain(&error);
                tracing::error!(queue = self.options.queue, error, "the store refuses, handing back");
                self.options.pause
            }
        };
        self.leave();
        self.status.subscribed.store(false, Ordering::Relaxed);
        self.source.hand_back(pause).await;
    }

    async fn run_owned(&mut self, batch: &[Delivery]) -> Result<(), GiveUp> {
        self.take_over().await?;
        if batch.iter().any(|delivery| delivery.delivery_count >= self.options.singly_after) {
            return self.run_singly(batch).await;
        }
        let all: Vec<&Delivery> = batch.iter().collect();
        let mut tries = 0;
        loop {
            match self.commit_patiently(&all, &mut BTreeMap::new()).await {
                Err(GiveUp::Refused(error)) => {
                    tries += 1;
                    let error = overstory_runtime::program::chain(&error);
                    tracing::warn!(queue = self.options.queue, error, tries, "commit refused");
                    if tries > 1 {
                        return self.run_singly(batch).await;
                    }
                }
                Err(give_up) => return Err(give_up),
                Ok(()) => break,
            }
        }
        match batch.last() {
            Some(last) => self.acknowledge(last).await,
            None => Ok(()),
        }
    }

    /// Works on each message alone, so that the one that does harm is found.
    async fn run_singly(&mut self, batch: &[Delivery]) -> Result<(), GiveUp> {
        for delivery in batch {
            self.run_one(delivery).await?;
            self.acknowledge(delivery).await?;
        }
        Ok(())
    }

    async fn run_one(&mut self, delivery: &Delivery) -> Result<(), GiveUp> {
        let mut forced = BTreeMap::new();
        let risky = delivery.delivery_count >= self.options.singly_after;
        if risky {
            let earlier = self.intent.begin(attempt::dedup_id(delivery));
            if earlier >= self.options.poison_attempts {
                let detail = format!("the process ended {earlier} times while this message was worked on alone");
                forced.insert(0, Refusal { reason: "poison", detail });
            }
        }
        let mut outcome = self.commit_patiently(&[delivery], &mut forced).await;
        if matches!(outcome, Err(GiveUp::Refused(_))) && forced.is_empty() {
            // What was at hand is dropped by now: stale state is not the reason when it fails again.
            outcome = self.commit_patiently(&[delivery], &mut forced).await;
        }
        if let Err(GiveUp::Refused(error)) = &outcome {
            let detail = overstory_runtime::program::chain(error);
            forced.insert(0, Refusal { reason: "store_refused", detail });
            outcome = self.commit_patiently(&[delivery], &mut forced).await;
        }
        if risky {
            // Whatever happened, the process is still there.
            self.intent.clear();
        }
        outcome
    }

    async fn acknowledge(&mut self, delivery: &Delivery) -> Result<(), GiveUp> {
        match self.source.ack_up_to(&delivery.tag).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // The messages come again and are recognised.
                tracing::warn!(queue = self.options.queue, %error, "cannot acknowledge");
                Err(GiveUp::Lost)
            }
        }
    }

    /// Takes the epoch if it is not held, and starts on what is left in the outbox.
    async fn take_over(&mut self) -> Result<(), GiveUp> {
        if self.tenure.is_some() {
            return Ok(());
        }
        let mut patience = Patience::new(self.options.patience);
        let epoch = loop {
            match self.parts.store.engines.take_epoch(&self.options.queue, &self.options.holder).await {
                Ok(epoch) => break epoch,
                Err(error) => self.wait_for_store(&mut patience, &error).await?,
            }
        };
        tracing::info!(queue = self.options.queue, epoch = epoch.0, "active");
        self.work.forget();
        self.status.epoch.store(epoch.0, Ordering::Relaxed);
        self.status.active.store(true, Ordering::Relaxed);
        self.parts.metrics.active.set(1);
        self.parts.metrics.epoch.set(i64::try_from(epoch.0).unwrap_or(i64::MAX));
        let outbox = Sender::start(&self.parts, self.options.publishes_left_behind);
        self.tenure = Some(Tenure { epoch, outbox });
        Ok(())
    }

    /// Waits before the next try; fails when it took too long or the program is to stop.
    async fn wait_for_store(&mut self, patience: &mut Patience, error: &StoreError) -> Result<(), GiveUp> {
        self.parts.metrics.store_errors.inc();
        let Some(delay) = patience.next() else {
            tracing::error!(queue = self.options.queue, "the store stayed away, handing back");
            return Err(GiveUp::Away);
        };
        if patience.is_first() {
            let error = overstory_runtime::program::chain(error);
            tracing::warn!(queue = self.options.queue, error, "waiting for the store");
        }
        self.parts.watchdog.step();
        tokio::select! {
            () = self.parts.shutdown.requested() => Err(GiveUp::Away),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }

    async fn beat(&mut self) {
        self.parts.watchdog.busy();
        let outcome = self.beat_commits().await;
        self.parts.watchdog.idle();
        match outcome {
            Ok(()) => {}
            Err(StoreError::Fenced { .. }) => {
                tracing::warn!(queue = self.options.queue, "another process took over, standing by");
                self.leave();
                self.status.subscribed.store(false, Ordering::Relaxed);
                self.source.hand_back(Duration::from_secs(1)).await;
            }
            Err(error) => {
                // Nothing is lost: the next beat does it.
                self.parts.metrics.store_errors.inc();
                let error = overstory_runtime::program::chain(&error);
                tracing::warn!(queue = self.options.queue, error, "beat failed");
                self.work.forget();
            }
        }
    }

    async fn beat_commits(&mut self) -> Result<(), StoreError> {
        for _ in 0..BEAT_COMMITS {
            let now = self.parts.clock.now();
            let mut draft = Draft::default();
            let Some(mut commit) = self.work.beat(now, &mut draft).await? else { return Ok(()) };
            commit.at = now.secs();
            commit.outbox.append(&mut draft.outbox);
            self.work.finish(&mut commit);
            self.write(commit).await?;
            self.work.committed();
            self.parts.metrics.count_draft(&draft);
            self.parts.watchdog.step();
        }
        Ok(())
    }
}

/// How long something is waited for, trying again with growing pauses.
struct Patience {
    until: Instant,
    backoff: Backoff,
    tries: u32,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        Self { until: Instant::now() + limit, backoff, tries: 0 }
    }

    fn next(&mut self) -> Option<Duration> {
        self.tries += 1;
        (Instant::now() < self.until).then(|| self.backoff.next_delay())
    }

    const fn is_first(&self) -> bool {
        self.tries == 1
    }
}

//! Publishes what commits left in the outbox, in order, while the next batches are worked on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overstory_amqp::{Outgoing as Message, PublishError, Publisher, topology};
use overstory_model::RoutingKey;
use overstory_runtime::backoff::Backoff;
use overstory_runtime::prometheus::IntGauge;
use overstory_store::{Outbox, OutboxEntry};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Parts;

/// So many batches may wait to be published before the next one waits for them.
const WAITING_BATCHES: usize = 16;
/// So many entries that an earlier owner left are read at once.
const LEFT_BEHIND: u32 = 500;
/// Confirmed entries are removed from the store when there are so many of them, or after [`REMOVE_AFTER`].
const REMOVE_COUNT: usize = 1000;
/// A message that was published and not yet removed is published again after a crash, so this is kept short.
const REMOVE_AFTER: Duration = Duration::from_millis(500);

/// Where messages go; the broker's publisher, or a test.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Publishes in order and waits for the confirmations; each message may fail alone.
    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>>;
}

#[async_trait]
impl Sink for Publisher {
    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        Self::publish_all(self, messages).await.into_iter().map(|outcome| outcome.map(|_| ())).collect()
    }
}

/// The task that publishes during one tenure. Dropped, it stops at once; what it did not finish stays in the store.
#[derive(Debug)]
pub(super) struct Sender {
    batches: mpsc::Sender<Vec<OutboxEntry>>,
    task: JoinHandle<()>,
}

impl Sender {
    /// Starts, with what is in the store if `left_behind` says so.
    pub(super) fn start(parts: &Parts, left_behind: bool) -> Self {
        let (batches, receiver) = mpsc::channel(WAITING_BATCHES);
        let task = Task {
            outbox: Arc::clone(&parts.store.outbox),
            sink: Arc::clone(&parts.sink),
            length: parts.metrics.outbox.clone(),
            confirmed: Vec::new(),
            since: Instant::now(),
        };
        Self { batches, task: tokio::spawn(task.run(receiver, left_behind)) }
    }

    /// Hands over what a commit left; waits while too much is waiting already.
    pub(super) async fn send(&self, entries: Vec<OutboxEntry>, parts: &Parts) {
        if entries.is_empty() {
            return;
        }
        parts.metrics.outbox.add(i64::try_from(entries.len()).unwrap_or(0));
        let mut sending = std::pin::pin!(self.batches.send(entries));
        loop {
            tokio::select! {
                // The entries are in the store: should the task be gone, the next tenure publishes them.
                _ = &mut sending => return,
                () = parts.shutdown.requested() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => parts.watchdog.step(),
            }
        }
    }

    /// Publishes what was handed over, until the deadline.
    pub(super) async fn finish(mut self, deadline: Duration) {
        let (closed, _) = mpsc::channel(1);
        self.batches = closed;
        if tokio::time::timeout(deadline, &mut self.task).await.is_err() {
            tracing::warn!("the outbox is not empty, its messages are sent after the next start");
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    outbox: Arc<dyn Outbox>,
    sink: Arc<dyn Sink>,
    length: IntGauge,
    confirmed: Vec<u64>,
    since: Instant,
}

impl Task {
    async fn run(mut self, mut batches: mpsc::Receiver<Vec<OutboxEntry>>, left_behind: bool) {
        let published = if left_behind { self.publish_left_behind().await } else { 0 };
        loop {
            let due = self.since + REMOVE_AFTER;
            let entries = tokio::select! {
                entries = batches.recv() => entries,
                () = tokio::time::sleep_until(due), if !self.confirmed.is_empty() => {
                    self.remove().await;
                    continue;
                }
            };
            let Some(entries) = entries else { break };
            // What was committed while the store was read has been published already.
            let (old, new): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.number <= published);
            self.length.sub(i64::try_from(old.len()).unwrap_or(0));
            self.publish(new).await;
            if self.confirmed.len() >= REMOVE_COUNT || self.since.elapsed() >= REMOVE_AFTER {
                self.remove().await;
            }
        }
        self.remove().await;
    }

    /// Publishes what earlier owners committed and did not get confirmed; returns the highest number among them.
    async fn publish_left_behind(&mut self) -> u64 {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut highest = 0;
        loop {
            match self.outbox.pending(LEFT_BEHIND).await {
                Ok(entries) if entries.is_empty() => return highest,
                Ok(entries) => {
                    self.length.add(i64::try_from(entries.len()).unwrap_or(0));
                    highest = entries.iter().map(|entry| entry.number).fold(highest, u64::max);
                    self.publish(entries).await;
                    self.remove().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read the outbox, trying again");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Publishes until every entry is confirmed or cannot ever be.
    async fn publish(&mut self, mut entries: Vec<OutboxEntry>) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        while !entries.is_empty() {
            let messages = entries.iter().map(message).collect();
            let outcomes = self.sink.publish_all(messages).await;
            let mut failed = Vec::new();
            let mut reason = None;
            for (entry, outcome) in entries.into_iter().zip(outcomes) {
                match outcome {
                    Ok(()) => self.confirm(entry.number),
                    Err(error @ (PublishError::TooLarge { .. } | PublishError::NameTooLong { .. })) => {
                        tracing::error!(%error, exchange = entry.message.exchange, "a message cannot be sent, dropped");
                        self.confirm(entry.number);
                    }
                    Err(error) => {
                        reason = Some(error);
                        failed.push(entry);
                    }
                }
            }
            entries = failed;
            if let Some(error) = reason {
                tracing::debug!(%error, left = entries.len(), "publishing again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }

    fn confirm(&mut self, number: u64) {
        if self.confirmed.is_empty() {
            self.since = Instant::now();
        }
        self.confirmed.push(number);
        self.length.dec();
    }

    /// Removes what was confirmed; should that fail, it is tried with the next ones.
    async fn remove(&mut self) {
        if self.confirmed.is_empty() {
            return;
        }
        match self.outbox.done(&self.confirmed).await {
            Ok(()) => self.confirmed.clear(),
            Err(error) => tracing::warn!(%error, "cannot remove from the outbox, trying again"),
        }
        self.since = Instant::now();
    }
}

fn message(entry: &OutboxEntry) -> Message {
    let message = &entry.message;
    Message {
        exchange: message.exchange.clone(),
        routing_key: RoutingKey::fit(message.routing_key.clone()),
        body: message.body.clone().into(),
        content_type: message.content_type.clone(),
        message_id: message.message_id.clone(),
        headers: message.headers.iter().cloned().collect(),
        mandatory: message.exchange == topology::DEAD,
    }
}

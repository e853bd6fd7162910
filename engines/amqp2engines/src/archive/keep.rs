//! One event's way into the archive: tried until a node has it, or laid among the dead letters.

use std::sync::Arc;
use std::time::Duration;

use overstory_amqp::{Delivery, dead, topology};
use overstory_model::archive::{Archived, Message, channel};
use overstory_runtime::backoff::Backoff;
use tokio::time::Instant;

use super::Parts;
use super::nodes::PutError;
use super::shared::Shared;

/// A record that nodes refused so often, while they took others, is one that they do not take.
const REFUSALS: u32 = 8;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A node has it, or the dead letters do: it may be acknowledged.
    Done,
    /// The program is to stop; nobody has it for certain.
    Left,
}

/// Archives events.
#[derive(Clone)]
pub(super) struct Keeper {
    /// An older timestamp is not believed, in seconds.
    pub(super) oldest_s: i64,
    pub(super) parts: Parts,
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    pub(super) async fn keep(&self, delivery: &Delivery, received: i64) -> Outcome {
        let started = Instant::now();
        let message = Message {
            body: &delivery.whole,
            routing_key: &delivery.routing_key,
            message_id: delivery.message_id.as_deref(),
            content_type: delivery.content_type.as_deref(),
            headers: &delivery.headers,
            redelivered: delivery.redelivered,
            received,
        };
        let (at, archived) = Archived::of(&message, self.oldest_s);
        let (channel, record) = (channel(at), archived.encode());
        drop(archived);
        self.parts.tally.worked(started.elapsed());
        match self.put(&channel, at.0, &record).await {
            Some(Ok(())) => {
                self.parts.metrics.stored.inc();
                self.parts.metrics.bytes.inc_by(u64::try_from(record.len()).unwrap_or(0));
                Outcome::Done
            }
            Some(Err(why)) => self.bury(delivery, &why).await,
            None => Outcome::Left,
        }
    }

    /// Puts until a node has the record; the error is why none ever will. `None` when the program is to stop.
    async fn put(&self, channel: &str, second: i64, record: &[u8]) -> Option<Result<(), String>> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let others = self.shared.stored();
        let mut refusals = 0;
        loop {
            let why = match self.parts.nodes.put(channel, second, record).await {
                Ok(()) => {
                    self.shared.store();
                    return Some(Ok(()));
                }
                Err(PutError::Never(why)) => return Some(Err(why)),
                Err(PutError::Refused(why)) => {
                    refusals += 1;
                    if refusals >= REFUSALS && self.shared.stored() > others {
                        return Some(Err(why));
                    }
                    why
                }
                Err(PutError::Away(why)) => why,
            };
            self.parts.metrics.failed.inc();
            if self.shared.failed(&why) {
                tracing::warn!(reason = why, "an event could not be archived, trying again");
            }
            self.pause(&mut backoff).await?;
        }
    }

    /// Lays an event among the dead letters.
    async fn bury(&self, delivery: &Delivery, why: &str) -> Outcome {
        self.parts.tally.errors.inc();
        let now = self.parts.clock.now().secs();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let letter = dead::dead_letter(delivery, topology::ENGINE_ARCHIVE, "not_archived", why, now);
            let Err(error) = self.parts.sink.publish_all(vec![letter]).await.pop().unwrap_or(Ok(())) else {
                tracing::warn!(reason = why, "an event that cannot be archived was laid among the dead letters");
                self.parts.metrics.refused.inc();
                return Outcome::Done;
            };
            tracing::warn!(%error, "cannot publish a dead letter, trying again");
            if self.pause(&mut backoff).await.is_none() {
                return Outcome::Left;
            }
        }
    }

    /// Waits before the next try; `None` when the program is to stop.
    async fn pause(&self, backoff: &mut Backoff) -> Option<()> {
        tokio::select! {
            () = self.parts.shutdown.requested() => None,
            () = tokio::time::sleep(backoff.next_delay()) => Some(()),
        }
    }
}

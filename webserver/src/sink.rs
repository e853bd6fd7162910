//! Where accepted events go: the broker, and the spool while it is away.

use async_trait::async_trait;
use overstory_amqp::{Outgoing, PublishError, Publisher, Receipt};

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The broker confirmed it, or it is in the spool: it is durable.
    Durable,
    /// Not now: the queue is full or the broker is away, and there is no room to keep it.
    Later,
    /// Never: it is larger than a message may be.
    Never,
}

/// Takes events.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Takes `messages` in their order; says of each what became of it.
    async fn take(&self, messages: Vec<Outgoing>) -> Vec<Taken>;
}

#[async_trait]
impl EventSink for Publisher {
    async fn take(&self, messages: Vec<Outgoing>) -> Vec<Taken> {
        let results = self.publish_all(messages).await;
        results.into_iter().map(|result| taken(&result)).collect()
    }
}

fn taken(result: &Result<Receipt, PublishError>) -> Taken {
    match result {
        Ok(_) => Taken::Durable,
        Err(error) => {
            tracing::warn!(%error, "event not published");
            match error {
                PublishError::TooLarge { .. } | PublishError::NameTooLong { .. } => Taken::Never,
                _ => Taken::Later,
            }
        }
    }
}

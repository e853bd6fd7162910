//! Asking the broker how it is.

use async_trait::async_trait;
use overstory_amqp::queues::queue_counts;
use overstory_amqp::{AmqpConfig, topology};
use overstory_runtime::program::chain;
use serde::Serialize;
use utoipa::ToSchema;

/// How full a queue is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueLength {
    /// The name.
    pub name: String,
    /// Messages that wait.
    pub messages: u32,
    /// Consumers that messages are delivered to; standbys are not among them.
    pub consumers: u32,
}

/// Asks the broker.
#[async_trait]
pub trait BrokerWatch: Send + Sync {
    /// The queues there are, or why the broker does not answer.
    async fn queues(&self) -> Result<Vec<QueueLength>, String>;
}

/// Asks over AMQP, on a connection of its own.
#[derive(Debug)]
pub struct AmqpWatch {
    config: AmqpConfig,
}

impl AmqpWatch {
    /// Will ask the broker of `config`.
    #[must_use]
    pub const fn new(config: AmqpConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl BrokerWatch for AmqpWatch {
    async fn queues(&self) -> Result<Vec<QueueLength>, String> {
        let names =
            [topology::ENGINE_EVENTS, topology::ENGINE_COLLECTDGW, topology::ENGINE_ARCHIVE, topology::ENGINE_DEAD];
        let counts = queue_counts(&self.config, &names).await.map_err(|error| chain(&error))?;
        let length = |count: overstory_amqp::queues::QueueCount| QueueLength {
            name: count.name,
            messages: count.ready,
            consumers: count.consumers,
        };
        Ok(counts.into_iter().map(length).collect())
    }
}

//! Messages that a durable commit decided to send and that the broker has not confirmed yet.

use async_trait::async_trait;

use crate::commit::Outgoing;
use crate::error::StoreError;

/// A message waiting to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its number; later ones are higher.
    pub number: u64,
    /// The message.
    pub message: Outgoing,
}

/// The messages to be published.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The oldest `limit` entries, in order.
    ///
    /// # Errors
    /// The store is not available.
    async fn pending(&self, limit: u32) -> Result<Vec<OutboxEntry>, StoreError>;

    /// Removes entries that the broker confirmed; numbers that are gone already are ignored.
    ///
    /// # Errors
    /// The store is not available.
    async fn done(&self, numbers: &[u64]) -> Result<(), StoreError>;
}

//! How a store is: reachable, how large, what is in it.

use async_trait::async_trait;

use crate::error::StoreError;

/// What a store says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// `embedded` or `mongodb`.
    pub kind: &'static str,
    /// The version of its layout.
    pub schema: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// What it holds: a word and how many.
    pub counts: Vec<(&'static str, u64)>,
}

/// Looks after a store's health.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Answers when the store does.
    ///
    /// # Errors
    /// The store is not available.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Counts everything; takes longer the more there is.
    ///
    /// # Errors
    /// The store is not available.
    async fn info(&self) -> Result<StoreInfo, StoreError>;
}

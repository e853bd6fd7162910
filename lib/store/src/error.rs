//! What can go wrong with a store.

use std::error::Error;

/// A failure of the store. [`StoreError::is_retryable`] says whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process took the epoch: nothing was written, and this process must stop writing.
    #[error("epoch {held} of {unit} was taken over (now {current})")]
    Fenced {
        /// The unit of ownership.
        unit: String,
        /// The epoch this process held.
        held: u64,
        /// The epoch in the store.
        current: u64,
    },
    /// What was written contradicts what is stored, such as a second open alarm of one entity: caches are stale.
    #[error("conflicts with what is stored: {0}")]
    Conflict(String),
    /// The store cannot be reached or is busy beyond its deadline.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The disk is full: nothing was written.
    #[error("no space left for the store")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// A stored document cannot be understood.
    #[error("damaged document {id} in {collection}: {reason}")]
    Damaged {
        /// Where it is.
        collection: &'static str,
        /// Which it is.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of an embedded store is not what SQLite wrote.
    #[error("{file} is damaged: stop the stack, run `overstory store check`, restore the file from a backup")]
    Corrupt {
        /// The file.
        file: String,
        /// What SQLite found.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store was made by a later version of this software.
    #[error(
        "the store has schema version {found}, this program knows {known}: use the version that wrote it, or later"
    )]
    TooNew {
        /// The version found.
        found: u32,
        /// The latest version that this program knows.
        known: u32,
    },
    /// Anything else, a defect or an unusable configuration.
    #[error("the store failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl StoreError {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

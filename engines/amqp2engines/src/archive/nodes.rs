//! The nodes that the archive writes to.

use async_trait::async_trait;
use overstory_client::{ClientConfig, DlsClient, Error};

use super::config::ArchiveConfig;

/// Why a record was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutError {
    /// No node that may take it answered. It is to be tried again.
    Away(String),
    /// A node answered, and did not take it. It may be short of something, or not take such a record at all.
    Refused(String),
    /// No node will ever take it.
    Never(String),
}

/// Where records are put; the nodes, or a test.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// Stores a record; done once a node has it.
    async fn put(&self, channel: &str, second: i64, record: &[u8]) -> Result<(), PutError>;
}

/// Starts the client of the configured nodes; it connects in the background.
///
/// # Errors
/// The nodes file names none.
pub fn connect(config: &ArchiveConfig) -> Result<DlsClient, Error> {
    let nodes = ClientConfig::neo(config.nodes.clone(), config.identity.clone());
    // A record that is there twice is told once; one that is not there is lost.
    DlsClient::start(ClientConfig { at_least_once: true, ..nodes })
}

#[async_trait]
impl Nodes for DlsClient {
    async fn put(&self, channel: &str, second: i64, record: &[u8]) -> Result<(), PutError> {
        Self::put(self, channel, second, record).await.map_err(|error| {
            let text = error.to_string();
            match error {
                Error::ValueTooBig { .. } | Error::BadChannelName(_) | Error::EmptyValue => PutError::Never(text),
                Error::Node { .. }
                | Error::NotWritten { .. }
                | Error::NotPermitted { .. }
                | Error::Unsupported { .. }
                | Error::NoNodeForTimestamp(_) => PutError::Refused(text),
                _ => PutError::Away(text),
            }
        })
    }
}

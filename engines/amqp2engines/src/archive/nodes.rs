//! The nodes that the archive writes to: those that the nodes file names now.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use overstory_client::{ClientConfig, DlsClient, Error, GroupFiles, Identity, Registry};
use overstory_runtime::Shutdown;

/// How often the files of nodes and credentials are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

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

/// The nodes of a group as its files name them. A put that has begun ends with the nodes that it began with.
pub(crate) struct GroupNodes {
    files: Mutex<GroupFiles>,
    /// The client of these nodes, or why there are none.
    client: Mutex<Result<DlsClient, String>>,
}

impl GroupNodes {
    /// Reads the files; needs a tokio runtime. The client connects in the background.
    pub(crate) fn new(files: GroupFiles) -> Self {
        let nodes = Self { files: Mutex::new(files), client: Mutex::new(Err(String::new())) };
        nodes.look();
        nodes
    }

    /// Why there are no nodes.
    pub(crate) fn problem(&self) -> Option<String> {
        lock(&self.client).as_ref().err().cloned()
    }

    /// Follows the files until shutdown.
    pub(crate) async fn follow(&self, shutdown: &Shutdown) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = looks.tick() => self.look(),
            }
        }
    }

    /// Takes the nodes that the files name now.
    fn look(&self) {
        let Some(read) = lock(&self.files).changed() else { return };
        let client = read.and_then(|group| connect(group).map_err(|error| error.to_string()));
        match &client {
            Ok(client) => tracing::info!(nodes = client.nodes().len(), "the archive's nodes are read"),
            Err(reason) => tracing::warn!(reason, "the archive has no nodes, its events wait"),
        }
        *lock(&self.client) = client;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect((nodes, identity): (Registry, Identity)) -> Result<DlsClient, Error> {
    // A record that is there twice is told once; one that is not there is lost.
    DlsClient::start(ClientConfig { at_least_once: true, ..ClientConfig::neo(nodes, identity) })
}

#[async_trait]
impl Nodes for GroupNodes {
    async fn put(&self, channel: &str, second: i64, record: &[u8]) -> Result<(), PutError> {
        let client = lock(&self.client).clone().map_err(|reason| PutError::Away(format!("no nodes: {reason}")))?;
        client.put(channel, second, record).await.map_err(|error| {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn nodes_come_and_go_with_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let [file, credentials] = ["x.nodes", "x.credentials"].map(|name| dir.path().join(name));
        fs::write(&credentials, format!("me:{}\n", "0".repeat(256))).unwrap();
        let nodes = GroupNodes::new(GroupFiles::new(file.clone(), credentials));
        let reason = nodes.problem().unwrap();
        assert!(reason.contains("x.nodes"), "{reason}");
        assert_eq!(nodes.put("events", 1, b"{}").await, Err(PutError::Away(format!("no nodes: {reason}"))));
        for count in 1..3 {
            let lines: String = (0..count).map(|port| format!("127.0.0.1:{}\n", port + 1)).collect();
            fs::write(&file, lines).unwrap();
            nodes.look();
            assert_eq!(lock(&nodes.client).as_ref().map(|client| client.nodes().len()), Ok(count));
        }
        fs::remove_file(&file).unwrap();
        nodes.look();
        assert_eq!(nodes.problem(), Some(reason));
    }
}

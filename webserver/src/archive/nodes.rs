//! The nodes that hold the archive.

use std::net::SocketAddrV4;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use overstory_client::dls::{Filter, Order};
use overstory_client::{ClientConfig, DlsClient, Error, Identity, Registry};
use overstory_runtime::Home;
use overstory_runtime::config::ConfigError;

use super::{Each, EventArchive, Missing, Part};
use crate::config::{ArchiveSettings, FILE};

/// A node that cannot be reached for so long is away; one that broke off is waited for as long.
const AWAY_AFTER: Duration = Duration::from_secs(2);

/// The configured nodes, each with a client of its own, so that it is known which one is away and the others still tell.
pub struct ArchiveNodes {
    clients: Vec<(SocketAddrV4, DlsClient)>,
}

/// The files that [`ArchiveSettings`] names, read.
pub(crate) struct ArchiveFiles {
    nodes: Registry,
    identity: Identity,
}

impl ArchiveFiles {
    /// Reads them.
    ///
    /// # Errors
    /// One is missing or wrong.
    pub(crate) fn read(home: &Home, settings: &ArchiveSettings) -> Result<Self, ConfigError> {
        let wrong = |key: &str, path: &str, error: String| ConfigError::value(FILE, "archive", key, path, &error);
        let ArchiveSettings { nodes, credentials } = settings;
        Ok(Self {
            nodes: Registry::from_file(&home.resolve(nodes))
                .map_err(|error| wrong("nodes", nodes, error.to_string()))?,
            identity: Identity::from_file(&home.resolve(credentials))
                .map_err(|error| wrong("credentials", credentials, error.to_string()))?,
        })
    }
}

impl ArchiveNodes {
    /// Makes the clients, which connect in the background; needs a tokio runtime. A node that says nothing for `patience`
    /// while it is asked has failed.
    ///
    /// # Errors
    /// A client cannot be made.
    pub(crate) fn start(files: &ArchiveFiles, patience: Duration) -> Result<Self, Error> {
        let client = |&node: &SocketAddrV4| {
            let mut nodes = Registry::new();
            // It is the first one.
            let _ = nodes.add(node);
            let config = ClientConfig {
                connect_timeout: AWAY_AFTER,
                request_timeout: patience,
                patience: AWAY_AFTER,
                ..ClientConfig::neo(nodes, files.identity.clone())
            };
            Ok((node, DlsClient::start(config)?))
        };
        Ok(Self { clients: files.nodes.nodes().iter().map(client).collect::<Result<_, Error>>()? })
    }
}

#[async_trait]
impl EventArchive for ArchiveNodes {
    async fn away(&self) -> Vec<Missing> {
        let answers = futures_util::future::join_all(self.clients.iter().map(|(_, client)| client.ready())).await;
        let away = answers.into_iter().flatten().filter_map(|(node, answer)| {
            let error = answer.err()?;
            Some(Missing { node, why: error.to_string() })
        });
        away.collect()
    }

    async fn read(&self, part: Part<'_>, without: &[SocketAddrV4], each: Each<'_>) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut streams = Vec::new();
        for (node, client) in &self.clients {
            let node = *node;
            if without.contains(&node) {
                continue;
            }
            let filter = Filter::Substring(part.needle.as_bytes().to_vec());
            match client.get_range(part.channel, part.low, part.high, filter, Order::AsTheyCome) {
                Ok(records) => streams.push(Box::pin(stream::unfold(records, move |mut records| async move {
                    let batch = records.next().await?;
                    Some(((node, batch), records))
                }))),
                Err(error) => missing.push(Missing { node, why: error.to_string() }),
            }
        }
        let mut batches = stream::select_all(streams);
        while let Some((node, batch)) = batches.next().await {
            match batch {
                Ok(batch) => batch.records().for_each(|(second, record)| each(second, record)),
                Err(error) => missing.push(Missing { node, why: error.to_string() }),
            }
        }
        missing
    }
}

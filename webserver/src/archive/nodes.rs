//! The nodes that hold the archive.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use overstory_client::dls::{Filter, Order};
use overstory_client::{ClientConfig, DlsClient, Error, GroupFiles, Identity, Registry};
use overstory_runtime::Home;
use tokio::time::Instant;

use super::{Each, EventArchive, Missing, Part, Trouble};
use crate::config::ArchiveSettings;

/// A node that cannot be reached for so long is away; one that broke off is waited for as long.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// The files of nodes and credentials are looked at for a request, but not more often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The configured nodes, each with a client of its own, so that it is known which one is away and the others still tell.
pub(crate) struct ArchiveNodes {
    clients: Vec<(SocketAddrV4, DlsClient)>,
}

/// The archive in the nodes that the files of nodes and credentials name at the time of a request.
pub(crate) struct GroupArchive {
    patience: Duration,
    state: Mutex<State>,
}

struct State {
    files: GroupFiles,
    looked: Option<Instant>,
    archive: Result<Arc<ArchiveNodes>, String>,
}

impl GroupArchive {
    /// Reads nothing yet. A node that says nothing for `patience` while it is asked has failed.
    pub(crate) const fn new(files: GroupFiles, patience: Duration) -> Self {
        let state = State { files, looked: None, archive: Err(String::new()) };
        Self { patience, state: Mutex::new(state) }
    }

    /// The nodes that the files name now; needs a tokio runtime, on which their connections live.
    ///
    /// # Errors
    /// Which file is missing or wrong, and why.
    pub(crate) fn now(&self) -> Result<Arc<dyn EventArchive>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            state.looked = Some(Instant::now());
            if let Some(read) = state.files.changed() {
                let archive = read.and_then(|(nodes, identity)| {
                    ArchiveNodes::start(&nodes, &identity, self.patience).map_err(|error| error.to_string())
                });
                if let Err(reason) = &archive {
                    tracing::warn!(reason, "the archive has no nodes");
                }
                state.archive = archive.map(Arc::new);
            }
        }
        state.archive.clone().map(|archive| archive as Arc<dyn EventArchive>)
    }
}

impl ArchiveSettings {
    /// The files that it names.
    pub(crate) fn files(&self, home: &Home) -> GroupFiles {
        GroupFiles::new(home.resolve(&self.nodes), home.resolve(&self.credentials))
    }
}

impl ArchiveNodes {
    /// Makes the clients, which connect in the background; needs a tokio runtime.
    ///
    /// # Errors
    /// A client cannot be made.
    fn start(registry: &Registry, identity: &Identity, patience: Duration) -> Result<Self, Error> {
        let client = |&node: &SocketAddrV4| {
            let mut nodes = Registry::new();
            // It is the first one.
            let _ = nodes.add(node);
            let config = ClientConfig {
                connect_timeout: AWAY_AFTER,
                request_timeout: patience,
                patience: AWAY_AFTER,
                ..ClientConfig::neo(nodes, identity.clone())
            };
            Ok((node, DlsClient::start(config)?))
        };
        Ok(Self { clients: registry.nodes().iter().map(client).collect::<Result<_, Error>>()? })
    }
}

#[async_trait]
impl EventArchive for ArchiveNodes {
    async fn away(&self) -> Vec<Missing> {
        let answers = futures_util::future::join_all(self.clients.iter().map(|(_, client)| client.ready())).await;
        let away = answers.into_iter().flatten().filter_map(|(node, answer)| Some(missing(node, &answer.err()?)));
        away.collect()
    }

    async fn read(&self, part: Part<'_>, without: &[SocketAddrV4], each: Each<'_>) -> Vec<Missing> {
        let mut failed = Vec::new();
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
                Err(error) => failed.push(missing(node, &error)),
            }
        }
        let mut batches = stream::select_all(streams);
        while let Some((node, batch)) = batches.next().await {
            match batch {
                Ok(batch) => batch.records().for_each(|(second, record)| each(second, record)),
                Err(error) => failed.push(missing(node, &error)),
            }
        }
        failed
    }
}

/// What an error says about the one node that was asked.
fn missing(node: SocketAddrV4, error: &Error) -> Missing {
    let error = match error {
        Error::Incomplete { missing } => missing.first().map_or(error, |(_, cause)| cause),
        Error::Away { cause: Some(cause), .. } => cause.as_ref(),
        error => error,
    };
    let trouble = match error {
        Error::Rejected { .. } | Error::NotPermitted { .. } => Trouble::Refused,
        Error::Unsupported { .. } => Trouble::NoNode,
        Error::LeftOut { .. } | Error::Node { .. } | Error::Protocol { .. } => Trouble::Failed,
        _ => Trouble::Away,
    };
    Missing { node, trouble, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn nodes_come_and_go_with_the_files_and_are_looked_for_only_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let [file, credentials] = ["x.nodes", "x.credentials"].map(|name| dir.path().join(name));
        fs::write(&credentials, format!("me:{}\n", "0".repeat(256))).unwrap();
        let archive = GroupArchive::new(GroupFiles::new(file.clone(), credentials), AWAY_AFTER);
        let later = || archive.state.lock().unwrap().looked = None;
        let reason = archive.now().err().unwrap();
        assert!(reason.contains("x.nodes"), "{reason}");

        fs::write(&file, "127.0.0.1:1\n").unwrap();
        assert_eq!(archive.now().err().unwrap(), reason, "it was looked just now");
        later();
        let one = archive.now().unwrap();
        assert_eq!(one.away().await.len(), 1);
        assert!(Arc::ptr_eq(&one, &archive.now().unwrap()));
        later();
        assert!(Arc::ptr_eq(&one, &archive.now().unwrap()), "connections stay while the files do");

        fs::write(&file, "127.0.0.1:1\n127.0.0.1:2\n").unwrap();
        later();
        assert_eq!(archive.now().unwrap().away().await.len(), 2);
        fs::remove_file(&file).unwrap();
        later();
        assert_eq!(archive.now().err().unwrap(), reason);
    }

    #[test]
    fn what_is_wrong_with_a_node_is_told_apart() {
        let node = "127.0.0.1:1".parse().unwrap();
        let rejected = || Error::Rejected { node, name: "me".to_owned() };
        for (error, trouble) in [
            (rejected(), Trouble::Refused),
            (Error::Away { node, cause: Some(Arc::new(rejected())) }, Trouble::Refused),
            (Error::Incomplete { missing: [(node, rejected())].into() }, Trouble::Refused),
            (Error::Unsupported { node, request: "GetRange" }, Trouble::NoNode),
            // A node that hangs looks like that.
            (Error::OtherProtocol { node, expected: "neo" }, Trouble::Away),
            (Error::LeftOut { node }, Trouble::Failed),
            (Error::Away { node, cause: None }, Trouble::Away),
            (Error::Timeout { node, after: AWAY_AFTER }, Trouble::Away),
        ] {
            assert_eq!(missing(node, &error).trouble, trouble, "{error}");
        }
    }
}

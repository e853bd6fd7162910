//! The nodes of a client that asks any of them, and what is the same for all such clients.

use std::net::SocketAddrV4;
use std::sync::Arc;

use futures_util::future::select_ok;
use tokio::time::Instant;

use crate::answers::{Answers, each};
use crate::config::{ClientConfig, Protocol};
use crate::error::Error;
use crate::legacy::{Limit, Opening, Pool, ask};
use crate::neo::Identity;
use crate::neo::link::Link;
use crate::turns::Turns;

/// Nodes, whose turn it is, and the connections to them.
pub(crate) struct Group {
    pub(crate) config: ClientConfig,
    pub(crate) turns: Turns,
    pub(crate) backend: Backend,
}

pub(crate) enum Backend {
    Neo(Links),
    Legacy(Vec<Arc<Pool>>),
}

/// A connection per node.
pub(crate) struct Links {
    pub(crate) links: Vec<Link>,
    pub(crate) identity: Identity,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.links.iter().for_each(Link::close);
    }
}

impl Group {
    /// Begins to connect; needs a tokio runtime.
    pub(crate) fn start(config: ClientConfig) -> Result<Self, Error> {
        if config.nodes.is_empty() {
            return Err(Error::NoNodes);
        }
        let nodes = config.nodes.nodes();
        let backend = match &config.protocol {
            Protocol::Neo(identity) => {
                let link = |&node| Link::start(node, identity.clone(), config.connect_timeout, None);
                Backend::Neo(Links { links: nodes.iter().map(link).collect(), identity: identity.clone() })
            }
            Protocol::Legacy { .. } => {
                let pool = |&node| Pool::new(node, config.connections, config.queue_limit, config.connect_timeout);
                Backend::Legacy(nodes.iter().map(pool).collect())
            }
        };
        let turns = Turns::new(nodes.len());
        Ok(Self { config, turns, backend })
    }

    /// Which nodes answer: waits for each at most `connect_timeout`. By legacy they are asked for their connections.
    pub(crate) async fn ready(&self, connections: &impl Opening) -> Answers<()> {
        let timeout = self.config.connect_timeout;
        match &self.backend {
            Backend::Neo(links) => {
                let deadline = Instant::now() + timeout;
                each(links.links.clone(), Link::node, |link| async move {
                    link.up(deadline).await.map_err(|error| match error {
                        Error::Away { cause: Some(cause), .. } => Error::clone(&cause),
                        error => error,
                    })
                })
                .await
            }
            Backend::Legacy(pools) => {
                let answers = ask::connections(pools, connections, Limit::within(timeout)).await;
                // Newer published nodes do not tell the number; that is an answer too.
                let there = |answer| match answer {
                    Ok(_) | Err(Error::Unsupported { .. }) => Ok(()),
                    Err(error) => Err(error),
                };
                answers.into_iter().map(|(node, answer)| (node, there(answer))).collect()
            }
        }
    }

    /// Waits until one node is there, at most `request_timeout`; by legacy, which connects for each request, not at all.
    pub(crate) async fn any_ready(&self) -> Result<(), Error> {
        let Backend::Neo(links) = &self.backend else { return Ok(()) };
        let deadline = Instant::now() + self.config.request_timeout;
        select_ok(links.links.iter().map(|link| Box::pin(link.up(deadline)))).await.map(|_| ())
    }

    pub(crate) fn nodes(&self) -> &[SocketAddrV4] {
        self.config.nodes.nodes()
    }

    /// The connections of a request that only legacy has.
    pub(crate) fn pools(&self, request: &'static str) -> Result<&[Arc<Pool>], Error> {
        match &self.backend {
            Backend::Legacy(pools) => Ok(pools),
            Backend::Neo(_) => Err(Error::OtherProtocolOnly { request, protocol: "legacy" }),
        }
    }

    pub(crate) fn limit(&self) -> Limit {
        Limit::within(self.config.request_timeout)
    }

    /// The names that each node lists (legacy only).
    pub(crate) async fn names(&self, request: &impl Opening) -> Result<Answers<Vec<String>>, Error> {
        let answers = ask::names(self.pools(request.name())?, request, self.limit()).await;
        let text = |names: Vec<Vec<u8>>| names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
        Ok(answers.into_iter().map(|(node, names)| (node, names.map(text))).collect())
    }
}

/// The names that all nodes have listed, sorted, each once.
pub(crate) fn union(names: Vec<(SocketAddrV4, Vec<String>)>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().flat_map(|(_, names)| names).collect();
    names.sort_unstable();
    names.dedup();
    names
}

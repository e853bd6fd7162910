//! The client of a dht: every request of both protocols (protocol §1.5, §2.4, §5).

mod changes;
mod legacy;
mod neo;
mod records;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overstory_swarm::key::{HashRange, Key};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::answers::{all, check};
use crate::error::Error;
use crate::group::union;
use crate::legacy::Pool;
use crate::neo::Identity;
use crate::neo::link::{Link, LinkEvent};
use crate::ranges::RangeTable;

pub use crate::answers::{Answers, Size};
pub use crate::config::{ClientConfig, Protocol};
pub use crate::stream::StreamControl;
pub use changes::{Change, Changes};
pub use records::{Batch, Records, Selection};

/// How often a wait looks at what does not wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What [`DhtClient::update`] is to do with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Replaces it.
    Replace(Vec<u8>),
    /// Leaves it as it is.
    Leave,
}

/// A client of a dht. Clones share the connections, which end with the last of them.
#[derive(Clone)]
pub struct DhtClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    routes: Arc<Routes>,
    backend: Backend,
}

enum Backend {
    Neo(Arc<Links>),
    Legacy { pools: Vec<Arc<Pool>>, handshake: Handshake },
}

/// The handshakes of a legacy client.
#[derive(Default)]
struct Handshake {
    /// How many there were that told something.
    done: AtomicU64,
    /// One at a time.
    running: tokio::sync::Mutex<()>,
    /// Who was away, and why, at the last one.
    away: Mutex<Vec<(SocketAddrV4, Error)>>,
}

/// The connections of a neo client.
struct Links {
    links: Mutex<BTreeMap<SocketAddrV4, Link>>,
    identity: Identity,
    connect_timeout: Duration,
    routes: Arc<Routes>,
}

/// The hash ranges, and who waits for one.
#[derive(Default)]
struct Routes {
    table: Mutex<RangeTable>,
    changed: Notify,
}

impl Routes {
    fn lock(&self) -> MutexGuard<'_, RangeTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DhtClient {
    /// Sets a client up and waits until every node has answered, at most `connect_timeout`. Whoever wants to work
    /// while nodes are away takes [`Self::start`].
    ///
    /// # Errors
    /// The first node that could not be reached or did not accept the client; legacy: the nodes' versions differ or
    /// their ranges do not cover every key exactly once.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let client = Self::start(config)?;
        client.ready().await?;
        Ok(client)
    }

    /// Sets a client up without waiting; needs a tokio runtime. A request goes as soon as the node that has its key is
    /// connected, whatever the others do; one whose key no known range has waits for the nodes that have not told
    /// theirs, and fails with [`Error::OwnerAway`] if they do not in its time.
    ///
    /// # Errors
    /// The registry is empty.
    pub fn start(config: ClientConfig) -> Result<Self, Error> {
        if config.nodes.is_empty() {
            return Err(Error::NoNodes);
        }
        let routes = Arc::<Routes>::default();
        let backend = match &config.protocol {
            Protocol::Neo(identity) => {
                let links = Arc::new(Links {
                    links: Mutex::default(),
                    identity: identity.clone(),
                    connect_timeout: config.connect_timeout,
                    routes: Arc::clone(&routes),
                });
                config.nodes.nodes().iter().for_each(|&node| links.add(node));
                Backend::Neo(links)
            }
            Protocol::Legacy { .. } => {
                let pool = |&node| Pool::new(node, config.connections, config.queue_limit, config.connect_timeout);
                let pools = config.nodes.nodes().iter().map(pool).collect();
                Backend::Legacy { pools, handshake: Handshake::default() }
            }
        };
        Ok(Self { inner: Arc::new(Inner { config, routes, backend }) })
    }

    /// Waits until every node has told its range, at most `connect_timeout`.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn ready(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.inner.config.connect_timeout;
        match &self.inner.backend {
            Backend::Legacy { .. } => self.handshake(0, None, deadline).await,
            Backend::Neo(links) => loop {
                let mut changed = pin!(self.inner.routes.changed.notified());
                changed.as_mut().enable();
                let Some(missing) = self.unknown().first().copied() else { return Ok(()) };
                // Nodes that refuse the client do so again: waiting for them is of no use.
                if let Some(error) = self.refusal() {
                    return Err(error);
                }
                let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
                if timeout_at(look_again, changed).await.is_err() && Instant::now() >= deadline {
                    return Err(links.trouble(missing));
                }
            },
        }
    }

    /// The nodes and their ranges, as far as they are known.
    #[must_use]
    pub fn ranges(&self) -> RangeTable {
        self.inner.routes.lock().clone()
    }

    /// The nodes: those of the registry and, by neo, those that they named.
    #[must_use]
    pub fn nodes(&self) -> Vec<SocketAddrV4> {
        match &self.inner.backend {
            Backend::Neo(links) => links.lock().keys().copied().collect(),
            Backend::Legacy { pools, .. } => pools.iter().map(|pool| pool.node()).collect(),
        }
    }

    /// Stores a record.
    ///
    /// # Errors
    /// See [`Error`]; where [`Error::effect_unknown`] holds it may be stored nevertheless.
    pub async fn put(&self, channel: &str, key: Key, value: &[u8]) -> Result<(), Error> {
        check(channel)?;
        if value.is_empty() {
            return Err(Error::EmptyValue);
        }
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_put(links, channel, key, value).await,
            Backend::Legacy { .. } => self.legacy_put(channel, key, value).await,
        }
    }

    /// Reads a record; none if there is no such record.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, channel: &str, key: Key) -> Result<Option<Vec<u8>>, Error> {
        check(channel)?;
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_get(links, channel, key).await,
            Backend::Legacy { .. } => self.legacy_get(channel, key).await,
        }
    }

    /// Whether there is a record.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn exists(&self, channel: &str, key: Key) -> Result<bool, Error> {
        check(channel)?;
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_exists(links, channel, key).await,
            Backend::Legacy { .. } => self.legacy_exists(channel, key).await,
        }
    }

    /// Removes a record. By neo it says whether there was one; legacy does not tell and says yes.
    ///
    /// # Errors
    /// See [`Error`]; where [`Error::effect_unknown`] holds it may be gone nevertheless.
    pub async fn remove(&self, channel: &str, key: Key) -> Result<bool, Error> {
        check(channel)?;
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_remove(links, channel, key).await,
            Backend::Legacy { .. } => self.legacy_remove(channel, key).await.map(|()| true),
        }
    }

    /// Changes a record depending on its value (neo only). `change` sees the value; says whether there was one.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody else changed it meanwhile: nothing was done. Else see [`Error`].
    pub async fn update(
        &self,
        channel: &str,
        key: Key,
        change: impl FnOnce(&[u8]) -> Update + Send,
    ) -> Result<bool, Error> {
        check(channel)?;
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_update(links, channel, key, change).await,
            Backend::Legacy { .. } => Err(Error::OtherProtocolOnly { request: "Update", protocol: "neo" }),
        }
    }

    /// The channels of all nodes, sorted, each once.
    ///
    /// # Errors
    /// The first node that could not tell.
    pub async fn channels(&self) -> Result<Vec<String>, Error> {
        Ok(union(all(self.channels_by_node().await)?))
    }

    /// The channels of each node.
    pub async fn channels_by_node(&self) -> Answers<Vec<String>> {
        let answers = match &self.inner.backend {
            Backend::Neo(links) => self.neo_channels(links).await,
            Backend::Legacy { pools, .. } => self.legacy_channels(pools).await,
        };
        let text = |names: Vec<Vec<u8>>| names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
        answers.into_iter().map(|(node, names)| (node, names.map(text))).collect()
    }

    /// The range of each node. By neo it waits for those that have not told it, at most `connect_timeout`.
    pub async fn ranges_by_node(&self) -> Answers<HashRange> {
        match &self.inner.backend {
            Backend::Neo(links) => {
                // Who is away is told with the rest.
                let _ = self.ready().await;
                let known: BTreeMap<_, _> = self.ranges().iter().collect();
                let range = |node| known.get(&node).copied().ok_or_else(|| links.trouble(node));
                self.nodes().into_iter().map(|node| (node, range(node))).collect()
            }
            Backend::Legacy { pools, .. } => self.legacy_ranges(pools).await,
        }
    }

    /// Removes a channel and its records at all nodes. By neo only the client `admin` may.
    ///
    /// # Errors
    /// The first node that failed; the others may have done it.
    pub async fn remove_channel(&self, channel: &str) -> Result<(), Error> {
        all(self.remove_channel_by_node(channel).await?).map(|_| ())
    }

    /// As [`Self::remove_channel`], and says how it went at each node.
    ///
    /// # Errors
    /// The channel's name is none.
    pub async fn remove_channel_by_node(&self, channel: &str) -> Result<Answers<()>, Error> {
        check(channel)?;
        Ok(match &self.inner.backend {
            Backend::Neo(links) => self.neo_remove_channel(links, channel).await,
            Backend::Legacy { pools, .. } => self.legacy_remove_channel(pools, channel).await,
        })
    }

    /// Reads a channel from all nodes at once.
    ///
    /// # Errors
    /// The channel's name is none. What fails later comes out of the stream.
    pub fn get_all(&self, channel: &str, selection: &Selection) -> Result<Records, Error> {
        check(channel)?;
        Ok(match &self.inner.backend {
            Backend::Neo(links) => self.neo_get_all(links, channel, selection),
            Backend::Legacy { pools, .. } => self.legacy_get_all(pools, channel, selection),
        })
    }

    /// Follows the records that are put from now on. By neo a Mirror without refresh, which also tells removals.
    ///
    /// # Errors
    /// The channel's name is none.
    pub fn listen(&self, channel: &str) -> Result<Changes, Error> {
        check(channel)?;
        Ok(match &self.inner.backend {
            Backend::Neo(links) => self.neo_mirror(links, channel, false, Duration::ZERO),
            Backend::Legacy { pools, .. } => self.legacy_listen(pools, channel),
        })
    }

    /// Follows a channel (neo only): with `initial_refresh` all records first, and again every `periodic_refresh`
    /// (whole seconds, zero for never).
    ///
    /// # Errors
    /// The channel's name is none, or the protocol is legacy.
    pub fn mirror(&self, channel: &str, initial_refresh: bool, periodic_refresh: Duration) -> Result<Changes, Error> {
        check(channel)?;
        match &self.inner.backend {
            Backend::Neo(links) => Ok(self.neo_mirror(links, channel, initial_refresh, periodic_refresh)),
            Backend::Legacy { .. } => Err(Error::OtherProtocolOnly { request: "Mirror", protocol: "neo" }),
        }
    }

    /// How much each node holds (legacy only).
    ///
    /// # Errors
    /// The first node that could not tell.
    pub async fn sizes(&self) -> Result<Vec<Size>, Error> {
        Ok(all(self.sizes_by_node(None).await?)?.into_iter().map(|(_, size)| size).collect())
    }

    /// How much each node holds, of a channel or of all (legacy only).
    ///
    /// # Errors
    /// The channel's name is none, or the protocol is neo.
    pub async fn sizes_by_node(&self, channel: Option<&str>) -> Result<Answers<Size>, Error> {
        channel.map_or(Ok(()), check)?;
        let request = if channel.is_some() { "GetChannelSize" } else { "GetSize" };
        Ok(self.legacy_sizes(self.pools(request)?, channel).await)
    }

    /// How much each node holds of a channel (legacy only).
    ///
    /// # Errors
    /// The first node that could not tell.
    pub async fn channel_sizes(&self, channel: &str) -> Result<Vec<Size>, Error> {
        Ok(all(self.sizes_by_node(Some(channel)).await?)?.into_iter().map(|(_, size)| size).collect())
    }

    /// How many legacy connections each node has (legacy only).
    ///
    /// # Errors
    /// The first node that could not tell.
    pub async fn num_connections(&self) -> Result<Vec<(SocketAddrV4, u64)>, Error> {
        all(self.num_connections_by_node().await?)
    }

    /// As [`Self::num_connections`], from whoever answers.
    ///
    /// # Errors
    /// The protocol is neo.
    pub async fn num_connections_by_node(&self) -> Result<Answers<u64>, Error> {
        Ok(self.legacy_connections(self.pools("GetNumConnections")?).await)
    }

    /// The version that each node tells (legacy only).
    ///
    /// # Errors
    /// The first node that could not tell.
    pub async fn versions(&self) -> Result<Vec<(SocketAddrV4, String)>, Error> {
        all(self.versions_by_node().await?)
    }

    /// As [`Self::versions`], from whoever answers.
    ///
    /// # Errors
    /// The protocol is neo.
    pub async fn versions_by_node(&self) -> Result<Answers<String>, Error> {
        Ok(self.legacy_versions(self.pools("GetVersion")?).await)
    }

    /// Asks a node for its range (legacy only).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn responsible_range(&self, node: SocketAddrV4) -> Result<HashRange, Error> {
        self.legacy_range(self.pool(node, "GetResponsibleRange")?).await
    }

    /// Gives a node another range and tells it which nodes get the rest; returns once all of it was moved (legacy
    /// only). There is no time limit.
    ///
    /// # Errors
    /// [`Error::Node`] if the ranges are wrong or another redistribution runs. After [`Error::Broken`] the node goes
    /// on by itself.
    pub async fn redistribute(
        &self,
        node: SocketAddrV4,
        range: HashRange,
        others: &[(SocketAddrV4, HashRange)],
    ) -> Result<(), Error> {
        self.legacy_redistribute(self.pool(node, "Redistribute")?, range, others).await
    }

    fn pools(&self, request: &'static str) -> Result<&[Arc<Pool>], Error> {
        match &self.inner.backend {
            Backend::Legacy { pools, .. } => Ok(pools),
            Backend::Neo(_) => Err(Error::OtherProtocolOnly { request, protocol: "legacy" }),
        }
    }

    fn pool(&self, node: SocketAddrV4, request: &'static str) -> Result<&Arc<Pool>, Error> {
        let unknown = Error::Away { node, cause: None };
        self.pools(request)?.iter().find(|pool| pool.node() == node).ok_or(unknown)
    }
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddrV4, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to connect to a node, unless that has begun already.
    fn add(self: &Arc<Self>, node: SocketAddrV4) {
        let mut links = self.lock();
        if links.contains_key(&node) || links.len() >= crate::registry::MAX_NODES {
            return;
        }
        // The links must not keep themselves alive.
        let owner = Arc::downgrade(self);
        let on_event = move |from, event| {
            let Some(links) = owner.upgrade() else { return };
            let (of, range) = match event {
                LinkEvent::Range(range) => (from, range),
                LinkEvent::NewNode(other, range) => (other, range),
            };
            links.routes.lock().update(of, range, std::time::Instant::now());
            if of != from {
                links.add(of);
            }
            links.routes.changed.notify_waiters();
        };
        let link = Link::start(node, self.identity.clone(), self.connect_timeout, Some(Box::new(on_event)));
        links.insert(node, link);
    }

    fn get(&self, node: SocketAddrV4) -> Result<Link, Error> {
        self.lock().get(&node).cloned().ok_or(Error::Away { node, cause: None })
    }

    fn all(&self) -> Vec<Link> {
        self.lock().values().cloned().collect()
    }

    /// Why a node is not connected.
    fn trouble(&self, node: SocketAddrV4) -> Error {
        match self.lock().get(&node).and_then(Link::trouble) {
            Some(Error::Away { cause: Some(cause), .. }) => Error::clone(&cause),
            Some(error) => error,
            None => Error::Away { node, cause: None },
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.lock().values().for_each(Link::close);
    }
}

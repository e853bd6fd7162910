//! The client of queue nodes: every request of both protocols (protocol §1.6, §2.5, §5).
//!
//! Push and Pop go to the nodes in turn; one that cannot be reached or refuses is passed over. Consume, Produce,
//! RemoveChannel and what is asked about channels go to all nodes.

mod consumer;
mod legacy;
mod neo;
mod producer;

use std::net::SocketAddrV4;
use std::sync::Arc;

use overstory_swarm::legacy::dmq::Request as LegacyRequest;

use crate::answers::{Answers, Size, all, check};
use crate::config::{ClientConfig, Protocol};
use crate::error::Error;
use crate::group::{Backend, Group, union};
use crate::legacy::ask;

pub use consumer::{Batch, Consumer, Delivery};
pub use producer::Producer;

/// Channels that one PushMulti names at most: neo counts them in a byte.
pub const MAX_CHANNELS: usize = 255;

/// A client of queue nodes. Clones share the connections, which end with the last of them.
#[derive(Clone)]
pub struct DmqClient {
    inner: Arc<Group>,
}

impl DmqClient {
    /// Sets a client up and waits until every node has answered, at most `connect_timeout`. Whoever wants to work
    /// while nodes are away takes [`Self::start`].
    ///
    /// # Errors
    /// The first node that could not be reached or did not accept the client.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let client = Self::start(config)?;
        all(client.ready().await)?;
        Ok(client)
    }

    /// Sets a client up without waiting; needs a tokio runtime. Push and Pop wait, within their time, until one node
    /// is there.
    ///
    /// # Errors
    /// The registry is empty.
    pub fn start(config: ClientConfig) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new(Group::start(config)?) })
    }

    /// Which nodes answer: waits for each at most `connect_timeout`.
    pub async fn ready(&self) -> Answers<()> {
        self.inner.ready(&LegacyRequest::GetNumConnections).await
    }

    /// Waits until one node is there, at most `request_timeout`; by legacy, which connects for each request, not at all.
    /// Requests that begin before are sent in any order once it is.
    ///
    /// # Errors
    /// No node could be reached, or none accepts the client: what the last one said.
    pub async fn any_ready(&self) -> Result<(), Error> {
        self.inner.any_ready().await
    }

    /// The nodes, as the registry names them.
    #[must_use]
    pub fn nodes(&self) -> &[SocketAddrV4] {
        self.inner.nodes()
    }

    /// Appends a record to a channel, at the node whose turn it is or the next one that takes it.
    ///
    /// # Errors
    /// No node took it; see [`Error`]. Where [`Error::effect_unknown`] holds it may be in the queue nevertheless, and was
    /// not tried at another node unless [`ClientConfig::at_least_once`] is set.
    pub async fn push(&self, channel: &str, value: &[u8]) -> Result<(), Error> {
        self.push_multi(&[channel], value).await
    }

    /// Appends a record to several channels, all of them at the same node: to all or to none.
    ///
    /// # Errors
    /// As [`Self::push`]; there are more than [`MAX_CHANNELS`].
    pub async fn push_multi(&self, channels: &[&str], value: &[u8]) -> Result<(), Error> {
        check_all(channels)?;
        if value.is_empty() {
            return Err(Error::EmptyValue);
        }
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_push(&links.links, channels, value).await,
            Backend::Legacy(pools) => self.legacy_push(pools, channels, value).await,
        }
    }

    /// Takes the oldest record of a channel at the node whose turn it is, or at the next one that has any; none if those
    /// nodes that answer have none. Dropped before it is done, a record that was on its way is lost.
    ///
    /// # Errors
    /// No node answered; the channel has subscribers. Where [`Error::effect_unknown`] holds a record may be lost.
    pub async fn pop(&self, channel: &str) -> Result<Option<Vec<u8>>, Error> {
        check(channel)?;
        match &self.inner.backend {
            Backend::Neo(links) => self.neo_pop(&links.links, channel).await,
            Backend::Legacy(pools) => self.legacy_pop(pools, channel).await,
        }
    }

    /// Consumes a channel at all nodes, together with the other consumers of the subscriber. Every subscriber gets every
    /// record; the empty name is the one that legacy clients consume as. Each node has a connection of its own for it.
    ///
    /// # Errors
    /// A name is none; a subscriber by legacy, which has no names for them.
    pub fn consume(&self, channel: &str, subscriber: &str) -> Result<Consumer, Error> {
        check(channel)?;
        let config = &self.inner.config;
        match &config.protocol {
            _ if subscriber.is_empty() => {}
            Protocol::Neo(_) => check(subscriber)?,
            Protocol::Legacy { .. } => {
                return Err(Error::OtherProtocolOnly { request: "Consume with a subscriber", protocol: "neo" });
            }
        }
        Ok(match &self.inner.backend {
            Backend::Neo(links) => Consumer::neo(config, &links.identity, channel, subscriber),
            Backend::Legacy(_) => Consumer::legacy(config, channel),
        })
    }

    /// Begins to stream records into channels, over all nodes in turn (legacy only). No record is acknowledged before
    /// [`Producer::finish`]; whoever must know of each takes [`Self::push`].
    ///
    /// # Errors
    /// A name is none; the protocol is neo.
    pub fn produce(&self, channels: &[&str]) -> Result<Producer, Error> {
        check_all(channels)?;
        self.inner.pools("Produce")?;
        Ok(Producer::new(&self.inner.config, channels))
    }

    /// Removes a channel, its subscribers and its records at all nodes, and says how it went at each (legacy only).
    ///
    /// # Errors
    /// The channel's name is none, or the protocol is neo.
    pub async fn remove_channel_by_node(&self, channel: &str) -> Result<Answers<()>, Error> {
        check(channel)?;
        let request = LegacyRequest::RemoveChannel { channel: channel.as_bytes() };
        Ok(ask::all_done(self.inner.pools("RemoveChannel")?, &request, self.inner.limit()).await)
    }

    /// As [`Self::remove_channel_by_node`].
    ///
    /// # Errors
    /// The first node that failed; the others may have done it.
    pub async fn remove_channel(&self, channel: &str) -> Result<(), Error> {
        all(self.remove_channel_by_node(channel).await?).map(|_| ())
    }

    /// The channels of each node (legacy only).
    ///
    /// # Errors
    /// The protocol is neo.
    pub async fn channels_by_node(&self) -> Result<Answers<Vec<String>>, Error> {
        self.inner.names(&LegacyRequest::GetChannels).await
    }

    /// The channels of all nodes, sorted, each once (legacy only).
    ///
    /// # Errors
    /// The first node that could not tell; the protocol is neo.
    pub async fn channels(&self) -> Result<Vec<String>, Error> {
        Ok(union(all(self.channels_by_node().await?)?))
    }

    /// How much each node holds, of a channel with all its subscribers or of all channels (legacy only).
    ///
    /// # Errors
    /// The channel's name is none, or the protocol is neo.
    pub async fn sizes_by_node(&self, channel: Option<&str>) -> Result<Answers<Size>, Error> {
        channel.map_or(Ok(()), check)?;
        let request = match channel {
            Some(channel) => LegacyRequest::GetChannelSize { channel: channel.as_bytes() },
            None => LegacyRequest::GetSize,
        };
        Ok(ask::sizes(self.inner.pools(request.name())?, &request, self.inner.limit()).await)
    }

    /// How many legacy connections each node has (legacy only).
    ///
    /// # Errors
    /// The protocol is neo.
    pub async fn num_connections_by_node(&self) -> Result<Answers<u64>, Error> {
        let request = LegacyRequest::GetNumConnections;
        Ok(ask::connections(self.inner.pools(request.name())?, &request, self.inner.limit()).await)
    }
}

fn check_all(channels: &[&str]) -> Result<(), Error> {
    if channels.len() > MAX_CHANNELS {
        return Err(Error::TooManyChannels { given: channels.len(), limit: MAX_CHANNELS });
    }
    // To push to no channel at all is as good as a wrong name.
    if channels.is_empty() {
        return check("");
    }
    channels.iter().try_for_each(|channel| check(channel))
}

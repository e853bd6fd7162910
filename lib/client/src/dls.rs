//! The client of logfiles nodes: every request of both protocols (protocol §1.7, §2.6, §5).
//!
//! A Put goes to the nodes in turn; where they tell ranges of timestamps, only to those whose range holds the record's.
//! What is read, removed and asked comes from all nodes: data may lie where it was put before ranges were changed.

mod batch;
mod legacy;
mod neo;
mod order;
mod place;
mod ranges;
mod reader;
mod records;

use std::net::SocketAddrV4;
use std::sync::Arc;

use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dls::{MAX_BATCH, Request as LegacyRequest};
use overstory_swarm::wire::MAX_ARRAY;

use crate::answers::{Answers, Size, all, check};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::group::{Backend, Group, union};
use crate::legacy::ask;
use ranges::Ranges;

pub use batch::Batch;
pub use ranges::TimestampRange;
pub use records::{Filter, Order, Records};

/// Bytes of a value that is put by neo, at most. By legacy it is [`overstory_swarm::legacy::dls::MAX_VALUE`].
pub const MAX_VALUE: usize = 8 << 20;

/// A client of logfiles nodes. Clones share the connections, which end with the last of them.
///
/// Timestamps are whatever the channel's users mean by them, seconds since 1970 mostly. By legacy they are sent as
/// unsigned numbers, with the same bits.
#[derive(Clone)]
pub struct DlsClient {
    inner: Arc<Inner>,
}

struct Inner {
    group: Group,
    ranges: Ranges,
}

impl DlsClient {
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

    /// Sets a client up without waiting; needs a tokio runtime. A Put waits, within its time, until one node is there
    /// that takes it; a read waits for each node.
    ///
    /// # Errors
    /// The registry is empty.
    pub fn start(config: ClientConfig) -> Result<Self, Error> {
        let ranges = Ranges::new(config.nodes.nodes().len());
        Ok(Self { inner: Arc::new(Inner { group: Group::start(config)?, ranges }) })
    }

    /// Which nodes answer: waits for each at most `connect_timeout`.
    pub async fn ready(&self) -> Answers<()> {
        self.inner.group.ready(&LegacyRequest::GetNumConnections).await
    }

    /// Waits until one node is there, at most `request_timeout`; by legacy, which connects for each request, not at all.
    ///
    /// # Errors
    /// No node could be reached, or none accepts the client: what the last one said.
    pub async fn any_ready(&self) -> Result<(), Error> {
        self.inner.group.any_ready().await
    }

    /// The nodes, as the registry names them.
    #[must_use]
    pub fn nodes(&self) -> &[SocketAddrV4] {
        self.inner.group.nodes()
    }

    /// Appends a record to a channel, at the node whose turn it is among those that take records of its time, or at the
    /// next one of them. Several records may have the same timestamp. By legacy a value cannot be empty, by
    /// neo not that of the timestamp 0.
    ///
    /// # Errors
    /// No node took it; see [`Error`]. Where [`Error::effect_unknown`] holds it may be stored nevertheless, and was not
    /// tried at another node unless [`ClientConfig::at_least_once`] is set.
    pub async fn put(&self, channel: &str, timestamp: i64, value: &[u8]) -> Result<(), Error> {
        check(channel)?;
        if timestamp == 0 && value.is_empty() {
            return Err(Error::EmptyAtZero);
        }
        match &self.inner.group.backend {
            Backend::Neo(links) => self.neo_put(&links.links, channel, timestamp, value).await,
            Backend::Legacy(pools) => self.legacy_put(pools, channel, timestamp, value).await,
        }
    }

    /// Appends records to a channel at one node, all at once (legacy only): at most 16 MiB together with 40 bytes for
    /// each, and no empty value. The node stores them one after another: of a batch that failed a part may be there.
    ///
    /// # Errors
    /// The node did not take it, or is none of the registry's; the records are too much for one batch; see [`Error`].
    pub async fn put_batch<'a>(
        &self,
        node: SocketAddrV4,
        channel: &str,
        records: impl IntoIterator<Item = (i64, &'a [u8])> + Send,
    ) -> Result<(), Error> {
        check(channel)?;
        let group = &self.inner.group;
        let pools = group.pools("PutBatch")?;
        let pool = pools.iter().find(|pool| pool.node() == node).ok_or(Error::NoNodes)?;
        let batch = encode(records)?;
        let request = LegacyRequest::PutBatch { channel: channel.as_bytes(), batch: &batch };
        ask::done(pool, &request, group.limit()).await
    }

    /// Reads the records of a channel from one timestamp to another, both in it, from all nodes at once.
    ///
    /// # Errors
    /// The channel's name is none, or the range ends before it begins. What fails later comes out of the stream.
    pub fn get_range(
        &self,
        channel: &str,
        low: i64,
        high: i64,
        filter: Filter,
        order: Order,
    ) -> Result<Records, Error> {
        check(channel)?;
        if low > high {
            return Err(Error::BadRange { low, high });
        }
        Ok(records::spawn(&self.inner.group, channel, (low, high), filter, order))
    }

    /// Reads all records of a channel, from all nodes at once.
    ///
    /// # Errors
    /// The channel's name is none. What fails later comes out of the stream.
    pub fn get_all(&self, channel: &str, filter: Filter, order: Order) -> Result<Records, Error> {
        self.get_range(channel, i64::MIN, i64::MAX, filter, order)
    }

    /// The timestamps that each node takes; none where it does not tell: then it takes all of them. A node that was asked
    /// before is asked again. By neo it waits for those that are away, at most `request_timeout`.
    pub async fn ranges_by_node(&self) -> Answers<Option<TimestampRange>> {
        match &self.inner.group.backend {
            Backend::Neo(links) => self.neo_ranges(&links.links).await,
            Backend::Legacy(pools) => self.legacy_ranges(pools).await,
        }
    }

    /// Removes a channel and its records at all nodes, and says how it went at each (legacy only).
    ///
    /// # Errors
    /// The channel's name is none, or the protocol is neo.
    pub async fn remove_channel_by_node(&self, channel: &str) -> Result<Answers<()>, Error> {
        check(channel)?;
        let (group, request) = (&self.inner.group, LegacyRequest::RemoveChannel { channel: channel.as_bytes() });
        Ok(ask::all_done(group.pools("RemoveChannel")?, &request, group.limit()).await)
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
        self.inner.group.names(&LegacyRequest::GetChannels).await
    }

    /// The channels of all nodes, sorted, each once (legacy only).
    ///
    /// # Errors
    /// The first node that could not tell; the protocol is neo.
    pub async fn channels(&self) -> Result<Vec<String>, Error> {
        Ok(union(all(self.channels_by_node().await?)?))
    }

    /// How much each node holds, of a channel or of all (legacy only). Published nodes do not know the request.
    ///
    /// # Errors
    /// The channel's name is none, or the protocol is neo.
    pub async fn sizes_by_node(&self, channel: Option<&str>) -> Result<Answers<Size>, Error> {
        channel.map_or(Ok(()), check)?;
        let request = match channel {
            Some(channel) => LegacyRequest::GetChannelSize { channel: channel.as_bytes() },
            None => LegacyRequest::GetSize,
        };
        let group = &self.inner.group;
        Ok(ask::sizes(group.pools(request.name())?, &request, group.limit()).await)
    }

    /// How many legacy connections each node has (legacy only).
    ///
    /// # Errors
    /// The protocol is neo.
    pub async fn num_connections_by_node(&self) -> Result<Answers<u64>, Error> {
        let (group, request) = (&self.inner.group, LegacyRequest::GetNumConnections);
        Ok(ask::connections(group.pools(request.name())?, &request, group.limit()).await)
    }
}

/// Makes the batch of a PutBatch.
fn encode<'a>(records: impl IntoIterator<Item = (i64, &'a [u8])>) -> Result<Vec<u8>, Error> {
    let mut builder = BatchBuilder::new(MAX_BATCH);
    for (timestamp, value) in records {
        if value.is_empty() {
            return Err(Error::EmptyValue);
        }
        if builder.pair(&Key(timestamp.cast_unsigned()).hex16(), value) != Added::Yes {
            let length = builder.plain_len().saturating_add(value.len());
            return Err(Error::ValueTooBig { length, limit: MAX_BATCH });
        }
    }
    let mut batch = Vec::new();
    builder.finish(&mut batch);
    if batch.len() > MAX_ARRAY {
        return Err(Error::ValueTooBig { length: batch.len(), limit: MAX_ARRAY });
    }
    Ok(batch)
}

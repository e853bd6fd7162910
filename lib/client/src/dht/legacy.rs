//! The legacy requests of a dht client, and its handshake (protocol §1.5).

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::dht::Request;
use overstory_swarm::legacy::{Limits, NodeAddress, NodeRange, Ranges, reply};
use tokio::time::{Instant, sleep};

use super::changes::{self, Changes};
use super::records::{self, Records, Selection};
use super::{Backend, DhtClient, Protocol, Size};
use crate::error::Error;
use crate::legacy::{Limit, Pool, keep};
use crate::ranges::RangeTable;

impl DhtClient {
    /// Asks every node for its version and range; `seen` is the number of handshakes before, so that of many callers
    /// one does it.
    pub(super) async fn handshake(&self, seen: u64, deadline: Instant) -> Result<(), Error> {
        let Backend::Legacy { pools, handshake } = &self.inner.backend else { return Ok(()) };
        let mut done = handshake.lock().await;
        if *done > seen {
            return Ok(());
        }
        let wait = Duration::from_millis(20);
        let table = loop {
            match self.ask_ranges(pools, deadline).await {
                Ok(table) => break table,
                // A node that is just starting.
                Err(error @ Error::Connect { .. }) => {
                    if Instant::now() + wait >= deadline {
                        return Err(error);
                    }
                    sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        };
        table.check(matches!(self.inner.config.protocol, Protocol::Legacy { gaps: true }))?;
        *self.inner.routes.lock() = table;
        *done += 1;
        Ok(())
    }

    async fn ask_ranges(&self, pools: &[Arc<Pool>], deadline: Instant) -> Result<RangeTable, Error> {
        let timeout = self.inner.config.connect_timeout;
        let limit = Limit::Until(deadline, timeout);
        let each = pools.iter().map(|pool| async move { tokio::try_join!(version(pool, limit), range(pool, limit)) });
        let answers = futures_util::future::try_join_all(each).await?;
        let mut table = RangeTable::default();
        let mut first: Option<(SocketAddrV4, String)> = None;
        for (pool, (version, range)) in pools.iter().zip(answers) {
            table.update(pool.node(), range, std::time::Instant::now());
            match &first {
                None => first = Some((pool.node(), version)),
                Some((node, said)) if *said != version => {
                    let (first, first_version) = (*node, said.clone());
                    return Err(Error::Versions { first, first_version, second: pool.node(), second_version: version });
                }
                Some(_) => {}
            }
        }
        Ok(table)
    }

    /// The pool of the node that is responsible for a key, and the number of handshakes until now.
    async fn route(&self, key: Key, limit: Limit) -> Result<(&Arc<Pool>, u64), Error> {
        let Backend::Legacy { handshake, .. } = &self.inner.backend else { return Err(Error::NoNodes) };
        let seen = *handshake.lock().await;
        if seen == 0 {
            let Limit::Until(deadline, _) = limit else { return Err(Error::NoResponsibleNode(key)) };
            self.handshake(0, deadline).await?;
        }
        let node = self.inner.routes.lock().newest(key).ok_or(Error::NoResponsibleNode(key))?;
        Ok((self.pool(node, "")?, seen.max(1)))
    }

    /// Sends a request to the node of its key; when that is the wrong one, asks for the ranges anew and tries once
    /// more, which is safe: the wrong node has done nothing.
    async fn single<T>(
        &self,
        key: Key,
        request: &Request<'_>,
        read: impl AsyncFn(crate::legacy::Lease, Limit) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let limit = Limit::within(self.inner.config.request_timeout);
        let (pool, seen) = self.route(key, limit).await?;
        match pool.send(request, limit).await {
            Ok(lease) => read(lease, limit).await,
            Err(error @ Error::WrongNode { node }) => {
                let deadline = Instant::now() + self.inner.config.connect_timeout;
                self.handshake(seen, deadline).await?;
                let (pool, _) = self.route(key, limit).await?;
                if pool.node() == node {
                    return Err(error);
                }
                read(pool.send(request, limit).await?, limit).await
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn legacy_put(&self, channel: &str, key: Key, value: &[u8]) -> Result<(), Error> {
        let hex = key.hex16();
        let request = Request::Put { channel: channel.as_bytes(), key: &hex, value };
        self.single(key, &request, async |lease, _| {
            lease.finish();
            Ok(())
        })
        .await
    }

    pub(super) async fn legacy_get(&self, channel: &str, key: Key) -> Result<Option<Vec<u8>>, Error> {
        let hex = key.hex16();
        let request = Request::Get { channel: channel.as_bytes(), key: &hex };
        let value = self.single(key, &request, async |mut lease, limit| {
            let value =
                lease.read(limit, |input| Ok(keep(reply::array(input, &Limits::DEFAULT)?, <[u8]>::to_vec))).await?;
            lease.finish();
            Ok(value)
        });
        Ok(Some(value.await?).filter(|value| !value.is_empty()))
    }

    pub(super) async fn legacy_exists(&self, channel: &str, key: Key) -> Result<bool, Error> {
        let hex = key.hex16();
        let request = Request::Exists { channel: channel.as_bytes(), key: &hex };
        self.single(key, &request, async |mut lease, limit| {
            let exists = lease.read(limit, reply::boolean).await?;
            lease.finish();
            Ok(exists)
        })
        .await
    }

    pub(super) async fn legacy_remove(&self, channel: &str, key: Key) -> Result<(), Error> {
        let hex = key.hex16();
        let request = Request::Remove { channel: channel.as_bytes(), key: &hex };
        self.single(key, &request, async |lease, _| {
            lease.finish();
            Ok(())
        })
        .await
    }

    pub(super) async fn legacy_channels(&self, pools: &[Arc<Pool>]) -> Result<Vec<Vec<u8>>, Error> {
        let limit = Limit::within(self.inner.config.request_timeout);
        let each = pools.iter().map(|pool| async move {
            let mut lease = pool.send(&Request::GetChannels, limit).await?;
            let mut names = Vec::new();
            loop {
                let decode =
                    |input: &[u8]| Ok(keep(reply::item(input, &Limits::DEFAULT)?, |name| name.map(<[u8]>::to_vec)));
                match lease.read(limit, decode).await? {
                    Some(name) => names.push(name),
                    None => break,
                }
            }
            lease.finish();
            Ok::<_, Error>(names)
        });
        let names = futures_util::future::try_join_all(each).await?;
        Ok(names.into_iter().flatten().collect())
    }

    pub(super) async fn legacy_remove_channel(&self, pools: &[Arc<Pool>], channel: &str) -> Result<(), Error> {
        let limit = Limit::within(self.inner.config.request_timeout);
        let request = Request::RemoveChannel { channel: channel.as_bytes() };
        let each = pools.iter().map(|pool| async move {
            pool.send(&request, limit).await?.finish();
            Ok::<_, Error>(())
        });
        futures_util::future::try_join_all(each).await.map(|_| ())
    }

    pub(super) async fn legacy_sizes(&self, pools: &[Arc<Pool>], channel: Option<&str>) -> Result<Vec<Size>, Error> {
        let limit = Limit::within(self.inner.config.request_timeout);
        let request = match channel {
            Some(channel) => Request::GetChannelSize { channel: channel.as_bytes() },
            None => Request::GetSize,
        };
        let each = pools.iter().map(|pool| async move {
            let mut lease = pool.send(&request, limit).await?;
            let node = pool.node();
            let decode = |input: &[u8]| {
                let size = reply::size(input, &Limits::DEFAULT)?;
                Ok(keep(size, |size| Size { node, records: size.records, bytes: size.bytes }))
            };
            let size = lease.read(limit, decode).await?;
            lease.finish();
            Ok(size)
        });
        futures_util::future::try_join_all(each).await
    }

    pub(super) async fn legacy_connections(&self, pools: &[Arc<Pool>]) -> Result<Vec<(SocketAddrV4, u64)>, Error> {
        let limit = Limit::within(self.inner.config.request_timeout);
        let each = pools.iter().map(|pool| async move {
            let mut lease = pool.send(&Request::GetNumConnections, limit).await?;
            let decode = |input: &[u8]| {
                Ok(keep(reply::connections(input, &Limits::DEFAULT)?, |connections| connections.connections))
            };
            let connections = lease.read(limit, decode).await?;
            lease.finish();
            Ok((pool.node(), connections))
        });
        futures_util::future::try_join_all(each).await
    }

    pub(super) async fn legacy_versions(&self, pools: &[Arc<Pool>]) -> Result<Vec<(SocketAddrV4, String)>, Error> {
        let limit = Limit::within(self.inner.config.request_timeout);
        let each = pools.iter().map(|pool| async move { Ok((pool.node(), version(pool, limit).await?)) });
        futures_util::future::try_join_all(each).await
    }

    pub(super) async fn legacy_range(&self, pool: &Arc<Pool>) -> Result<HashRange, Error> {
        range(pool, Limit::within(self.inner.config.request_timeout)).await
    }

    pub(super) async fn legacy_redistribute(
        &self,
        pool: &Arc<Pool>,
        own: HashRange,
        others: &[(SocketAddrV4, HashRange)],
    ) -> Result<(), Error> {
        let addresses: Vec<String> = others.iter().map(|(node, _)| node.ip().to_string()).collect();
        let entries = others.iter().zip(&addresses).map(|((node, range), address)| NodeRange {
            node: NodeAddress { address: address.as_bytes(), port: node.port() },
            min: range.min(),
            max: range.max(),
        });
        let mut buffer = Vec::new();
        let nodes = Ranges::new(entries, &mut buffer);
        let request = Request::Redistribute { min: own.min(), max: own.max(), nodes };
        // The status comes when everything was moved.
        pool.send(&request, Limit::None).await?.finish();
        Ok(())
    }

    pub(super) fn legacy_get_all(&self, pools: &[Arc<Pool>], channel: &str, selection: &Selection) -> Records {
        let each = Limit::Each(self.inner.config.request_timeout);
        records::spawn(
            pools.to_vec(),
            |pool, tx, control| records::read_legacy(pool, channel.to_owned(), selection.clone(), each, tx, control),
            selection.suspended,
        )
    }

    pub(super) fn legacy_listen(&self, pools: &[Arc<Pool>], channel: &str) -> Changes {
        let first = self.inner.config.request_timeout;
        changes::spawn(pools.to_vec(), |pool, tx, control| {
            changes::follow_legacy(pool, channel.to_owned(), first, tx, control)
        })
    }
}

async fn version(pool: &Arc<Pool>, limit: Limit) -> Result<String, Error> {
    let mut lease = pool.send(&Request::GetVersion, limit).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let version = lease.read(limit, |input| Ok(keep(reply::array(input, &Limits::DEFAULT)?, text))).await?;
    lease.finish();
    Ok(version)
}

async fn range(pool: &Arc<Pool>, limit: Limit) -> Result<HashRange, Error> {
    let mut lease = pool.send(&Request::GetResponsibleRange, limit).await?;
    let (min, max) = lease.read(limit, reply::range).await?;
    lease.finish();
    HashRange::new(min, max).map_err(|what| Error::protocol(pool.node(), what))
}

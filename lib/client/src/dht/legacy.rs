//! The legacy requests of a dht client, and its handshake (protocol §1.5).

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use overstory_runtime::backoff::Backoff;
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::dht::Request;
use overstory_swarm::legacy::{Limits, NodeAddress, NodeRange, Ranges, reply};
use tokio::time::{Instant, sleep, timeout_at};

use super::changes::{self, Changes};
use super::records::{self, Records, Selection};
use super::{Backend, DhtClient, Handshake, Protocol};
use crate::answers::{Answers, Size, each};
use crate::error::Error;
use crate::legacy::{Limit, Pool, ask, keep};
use crate::ranges::RangeTable;

/// How long the other nodes are waited for once the node of a key has told its range.
const GRACE: Duration = Duration::from_millis(20);
/// What is added to the time of all nodes, so that each can say itself that it was too short.
const LAST_WORD: Duration = Duration::from_millis(50);

/// The ranges of those that answered, and the others.
type Asked = (RangeTable, Vec<(SocketAddrV4, Error)>);

impl Handshake {
    fn away(&self) -> MutexGuard<'_, Vec<(SocketAddrV4, Error)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no node is known for a key.
    fn nobody(&self, key: Key) -> Error {
        let away = self.away();
        let Some((_, cause)) = away.first() else { return Error::NoResponsibleNode(key) };
        Error::OwnerAway { key, away: away.iter().map(|(node, _)| *node).collect(), cause: Arc::new(cause.clone()) }
    }
}

impl DhtClient {
    /// Asks the nodes for their versions and ranges; `seen` is the number of handshakes before, so that of many callers
    /// one does it. Without a key every node has to answer. With one it is enough that a node has the key: the others
    /// are waited for a moment, and are [away](Handshake) if they do not answer.
    pub(super) async fn handshake(&self, seen: u64, key: Option<Key>, deadline: Instant) -> Result<(), Error> {
        let Backend::Legacy { pools, handshake } = &self.inner.backend else { return Ok(()) };
        // Whoever does not get to it in time has waited for the nodes that are away.
        let Ok(_running) = timeout_at(deadline, handshake.running.lock()).await else { return Ok(()) };
        let enough = match key {
            Some(key) => self.inner.routes.lock().newest(key).is_some(),
            None => handshake.away().is_empty(),
        };
        if handshake.done.load(Ordering::Acquire) > seen && enough {
            return Ok(());
        }
        let (fresh, away) = self.ask_ranges(pools, key, deadline).await?;
        let gaps = !away.is_empty() || matches!(self.inner.config.protocol, Protocol::Legacy { gaps: true });
        fresh.check(gaps)?;
        let mut table = RangeTable::default();
        let mut routes = self.inner.routes.lock();
        // What those that are away said before still holds, unless somebody else has it by now.
        let earlier: Vec<_> = routes.iter().filter(|(node, _)| !fresh.knows(*node)).collect();
        for (node, range) in earlier.into_iter().chain(fresh.iter()) {
            table.update(node, range, std::time::Instant::now());
        }
        *routes = table;
        drop(routes);
        *handshake.away() = away;
        handshake.done.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The ranges of those that answer, and who does not.
    async fn ask_ranges(&self, pools: &[Arc<Pool>], key: Option<Key>, deadline: Instant) -> Result<Asked, Error> {
        let limit = Limit::Until(deadline, self.inner.config.connect_timeout);
        let troubles = Mutex::new(BTreeMap::new());
        let note = |node, error: &Error| {
            troubles.lock().unwrap_or_else(PoisonError::into_inner).insert(node, error.clone());
        };
        let ask = async |pool: &Arc<Pool>| {
            let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(250));
            loop {
                let error = match tokio::try_join!(version(pool, limit), range(pool, limit)) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                note(pool.node(), &error);
                let wait = backoff.next_delay();
                // A node that is just starting, or restarting.
                let again = match error {
                    Error::Connect { .. } => true,
                    Error::Broken { .. } => key.is_some(),
                    _ => false,
                };
                if !again || Instant::now() + wait >= deadline {
                    return Err(error);
                }
                sleep(wait).await;
            }
        };
        let ask = &ask;
        let mut asking: FuturesUnordered<_> =
            pools.iter().map(|pool| async move { (pool.node(), ask(pool).await) }).collect();
        let mut table = RangeTable::default();
        let mut first: Option<(SocketAddrV4, String)> = None;
        let mut until = deadline + LAST_WORD;
        loop {
            let answered = match timeout_at(until, asking.next()).await {
                Ok(Some(answered)) => answered,
                Ok(None) | Err(_) => break,
            };
            let (node, (version, range)) = match answered {
                (node, Ok(answer)) => (node, answer),
                (_, Err(error)) if key.is_none() => return Err(error),
                (_, Err(_)) => continue,
            };
            table.update(node, range, std::time::Instant::now());
            if key.is_some_and(|key| range.contains(key)) {
                until = until.min(Instant::now() + GRACE);
            }
            match &first {
                None => first = Some((node, version)),
                Some((first, said)) if *said != version => {
                    let (first, first_version) = (*first, said.clone());
                    return Err(Error::Versions { first, first_version, second: node, second_version: version });
                }
                Some(_) => {}
            }
        }
        drop(asking);
        let mut troubles = troubles.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing = pools.iter().map(|pool| pool.node()).filter(|node| !table.knows(*node));
        let silent = |node| Error::Timeout { node, after: self.inner.config.connect_timeout };
        let away = missing.map(|node| (node, troubles.remove(&node).unwrap_or_else(|| silent(node)))).collect();
        Ok((table, away))
    }

    /// The pool of the node that is responsible for a key, and the number of handshakes until now.
    async fn route(&self, key: Key, limit: Limit) -> Result<(&Arc<Pool>, u64), Error> {
        let Backend::Legacy { handshake, .. } = &self.inner.backend else { return Err(Error::NoNodes) };
        let seen = handshake.done.load(Ordering::Acquire);
        let found = self.inner.routes.lock().newest(key);
        let node = match found {
            Some(node) => node,
            None => {
                let Limit::Until(deadline, _) = limit else { return Err(Error::NoResponsibleNode(key)) };
                if seen == 0 || !handshake.away().is_empty() {
                    self.handshake(seen, Some(key), deadline).await?;
                }
                let found = self.inner.routes.lock().newest(key);
                found.ok_or_else(|| handshake.nobody(key))?
            }
        };
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
        let limit = self.limit();
        let (pool, seen) = self.route(key, limit).await?;
        match pool.send(request, limit).await {
            Ok(lease) => read(lease, limit).await,
            Err(error @ Error::WrongNode { node }) => {
                let deadline = Instant::now() + self.inner.config.connect_timeout;
                self.handshake(seen, Some(key), deadline).await?;
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

    pub(super) async fn legacy_channels(&self, pools: &[Arc<Pool>]) -> Answers<Vec<Vec<u8>>> {
        ask::names(pools, &Request::GetChannels, self.limit()).await
    }

    pub(super) async fn legacy_remove_channel(&self, pools: &[Arc<Pool>], channel: &str) -> Answers<()> {
        ask::all_done(pools, &Request::RemoveChannel { channel: channel.as_bytes() }, self.limit()).await
    }

    pub(super) async fn legacy_sizes(&self, pools: &[Arc<Pool>], channel: Option<&str>) -> Answers<Size> {
        let request = match channel {
            Some(channel) => Request::GetChannelSize { channel: channel.as_bytes() },
            None => Request::GetSize,
        };
        ask::sizes(pools, &request, self.limit()).await
    }

    pub(super) async fn legacy_connections(&self, pools: &[Arc<Pool>]) -> Answers<u64> {
        ask::connections(pools, &Request::GetNumConnections, self.limit()).await
    }

    fn limit(&self) -> Limit {
        Limit::within(self.inner.config.request_timeout)
    }

    pub(super) async fn legacy_versions(&self, pools: &[Arc<Pool>]) -> Answers<String> {
        let limit = self.limit();
        each(pools.to_vec(), Pool::of, |pool| async move { version(&pool, limit).await }).await
    }

    pub(super) async fn legacy_ranges(&self, pools: &[Arc<Pool>]) -> Answers<HashRange> {
        let limit = self.limit();
        each(pools.to_vec(), Pool::of, |pool| async move { range(&pool, limit).await }).await
    }

    pub(super) async fn legacy_range(&self, pool: &Arc<Pool>) -> Result<HashRange, Error> {
        range(pool, self.limit()).await
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
        let patience = Limit::Each(self.inner.config.request_timeout);
        records::spawn(
            pools.to_vec(),
            |pool, tx, control| {
                records::read_legacy(pool, channel.to_owned(), selection.clone(), patience, tx, control)
            },
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
    let version = ask::value(pool, &Request::GetVersion, limit).await?;
    Ok(String::from_utf8_lossy(&version).into_owned())
}

async fn range(pool: &Arc<Pool>, limit: Limit) -> Result<HashRange, Error> {
    let mut lease = pool.send(&Request::GetResponsibleRange, limit).await?;
    let (min, max) = lease.read(limit, reply::range).await?;
    lease.finish();
    HashRange::new(min, max).map_err(|what| Error::protocol(pool.node(), what))
}

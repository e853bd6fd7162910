//! A stream of records into the nodes (protocol §1.6): the fastest way in, without an answer for each.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use overstory_runtime::backoff::Backoff;
use overstory_swarm::legacy::dmq::Request;
use overstory_swarm::legacy::{Names, Status};
use overstory_swarm::wire::{MAX_ARRAY, put_array, put_end};
use tokio::time::{Instant, timeout};

use crate::answers::Answers;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::legacy::{Lease, Limit, Pool};

/// Bytes that wait for a node before it is passed over.
const UNSENT: usize = 64 << 10;

/// How long a node that could not be reached is left alone while another one is there, at first and at most.
const AWAY_FIRST: Duration = Duration::from_millis(20);
const AWAY_MOST: Duration = Duration::from_millis(2500);

/// Records on their way into one or more channels, over all nodes in turn.
///
/// A node whose queue is full takes nothing until there is room: it is passed over while others take more. Nothing is
/// acknowledged before [`Self::finish`]; dropping it instead may lose what was sent last.
#[derive(Debug)]
pub struct Producer {
    lanes: Vec<Lane>,
    turn: usize,
    channels: Vec<String>,
    config: ClientConfig,
}

/// One node.
#[derive(Debug)]
struct Lane {
    pool: Arc<Pool>,
    lease: Option<Lease>,
    out: Vec<u8>,
    sent: usize,
    /// Records that nothing says anything of yet.
    records: u64,
    /// Why the node could not be reached at the last attempt, and when the next one is due.
    away: Option<(Error, Instant)>,
    backoff: Backoff,
}

impl Producer {
    pub(super) fn new(config: &ClientConfig, channels: &[&str]) -> Self {
        let lane = |&node| Lane {
            pool: Pool::new(node, 1, 1, config.connect_timeout),
            lease: None,
            out: Vec::new(),
            sent: 0,
            records: 0,
            away: None,
            backoff: Backoff::new(AWAY_FIRST, AWAY_MOST),
        };
        let channels = channels.iter().map(|&name| name.to_owned()).collect();
        Self { lanes: config.nodes.nodes().iter().map(lane).collect(), turn: 0, channels, config: config.clone() }
    }

    /// Sends a record to the node whose turn it is, or the next one that takes more.
    ///
    /// # Errors
    /// This record was not sent: no node can be reached or took more within [`ClientConfig::patience`]. Or a node was
    /// lost: what it had been sent and not told of may be lost as well. The following records go to the others.
    pub async fn send(&mut self, value: &[u8]) -> Result<(), Error> {
        match value.len() {
            0 => return Err(Error::EmptyValue),
            length if length > MAX_ARRAY => return Err(Error::ValueTooBig { length, limit: MAX_ARRAY }),
            _ => {}
        }
        let patience = self.config.patience;
        let (count, mut unreached) = (self.lanes.len(), None);
        let one_is_there = self.lanes.iter().any(|lane| lane.lease.is_some());
        for _ in 0..count {
            let index = self.turn % count;
            self.turn = (index + 1) % count;
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            if lane.lease.is_none() {
                if one_is_there && lane.away.as_ref().is_some_and(|(_, until)| *until > Instant::now()) {
                    continue;
                }
                if let Err(error) = lane.open(&self.channels, &self.config).await {
                    lane.away = Some((error.clone(), Instant::now() + lane.backoff.next_delay()));
                    unreached = Some(error);
                    continue;
                }
                lane.away = None;
                lane.backoff.reset();
            }
            if lane.takes()? {
                lane.add(value);
                return Ok(());
            }
        }
        let full: Vec<_> = self.lanes.iter_mut().filter(|lane| lane.lease.is_some()).collect();
        let Some(node) = full.first().map(|lane| lane.pool.node()) else {
            return Err(unreached.unwrap_or(Error::NoNodes));
        };
        let waiting = select_all(full.into_iter().map(|lane| {
            Box::pin(async move {
                lane.send_some().await?;
                Ok::<_, Error>(lane)
            })
        }));
        let (free, ..) = timeout(patience, waiting).await.map_err(|_| Error::Timeout { node, after: patience })?;
        free?.add(value);
        Ok(())
    }

    /// Sends what waits until the system has all of it: before that, up to 64 KiB per node wait for more to come.
    ///
    /// # Errors
    /// As [`Self::send`] for nodes that were lost.
    pub async fn flush(&mut self) -> Result<(), Error> {
        for lane in &mut self.lanes {
            lane.flush(self.config.patience).await?;
        }
        Ok(())
    }

    /// Sends what waits, and asks each node whether it has all of it: gives how many records each has taken, or what
    /// went wrong there. Of a node that was away at the last attempt it gives why; the others have taken its part.
    pub async fn finish(mut self) -> Answers<u64> {
        let mut answers = Vec::new();
        for lane in &mut self.lanes {
            if lane.lease.is_some() {
                answers.push((lane.pool.node(), lane.finish(&self.config).await));
            } else if let Some((error, _)) = lane.away.take() {
                answers.push((lane.pool.node(), Err(error)));
            }
        }
        answers
    }

    /// The nodes, in turn.
    pub fn nodes(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.lanes.iter().map(|lane| lane.pool.node())
    }
}

impl Lane {
    async fn open(&mut self, channels: &[String], config: &ClientConfig) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let names = channels.iter().map(|name| name.as_bytes());
        let request = match channels {
            [channel] => Request::Produce { channel: channel.as_bytes() },
            _ => Request::ProduceMulti { channels: Names::new(names, &mut buffer) },
        };
        self.lease = Some(self.pool.send(&request, Limit::within(config.request_timeout)).await?);
        Ok(())
    }

    fn add(&mut self, value: &[u8]) {
        put_array(&mut self.out, value);
        self.records += 1;
    }

    /// Whether the node takes more.
    fn takes(&mut self) -> Result<bool, Error> {
        if self.out.len() - self.sent < UNSENT {
            return Ok(true);
        }
        let Some(lease) = &self.lease else { return Ok(false) };
        let sent = lease.try_send(self.out.get(self.sent..).unwrap_or_default());
        self.noted(sent)?;
        Ok(self.out.len() - self.sent < UNSENT)
    }

    /// Sends something of what waits.
    async fn send_some(&mut self) -> Result<(), Error> {
        let Some(lease) = &mut self.lease else { return Err(Error::Closed) };
        let sent = lease.send_some(self.out.get(self.sent..).unwrap_or_default()).await;
        self.noted(sent)
    }

    /// Notes what was sent; a connection that broke is given up with all that went over it.
    fn noted(&mut self, sent: Result<usize, Error>) -> Result<(), Error> {
        match sent {
            Ok(sent) => self.sent += sent,
            Err(error) => {
                (self.lease, self.sent, self.records) = (None, 0, 0);
                self.out.clear();
                return Err(error);
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > UNSENT * 4 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    async fn flush(&mut self, patience: Duration) -> Result<(), Error> {
        let node = self.pool.node();
        while self.sent < self.out.len() {
            timeout(patience, self.send_some()).await.map_err(|_| Error::Timeout { node, after: patience })??;
        }
        Ok(())
    }

    async fn finish(&mut self, config: &ClientConfig) -> Result<u64, Error> {
        let (node, patience) = (self.pool.node(), config.patience);
        put_end(&mut self.out);
        self.flush(patience).await?;
        let Some(mut lease) = self.lease.take() else { return Err(Error::Closed) };
        // Nothing answers the end of a Produce. The next request on the connection is only read once the records before
        // it are in the queue, and whatever is answered to it says so.
        match lease.and_then(&Request::GetNumConnections, Limit::within(patience)).await? {
            Status::Error => Err(Error::Node { node }),
            _ => Ok(self.records),
        }
    }
}

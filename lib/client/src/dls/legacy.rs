//! Put and GetResponsibleRange by legacy (protocol §1.7).

use std::sync::Arc;

use overstory_swarm::key::Key;
use overstory_swarm::legacy::dls::{MAX_VALUE, Request};
use overstory_swarm::legacy::reply;
use tokio::time::Instant;

use super::{DlsClient, TimestampRange};
use crate::answers::{Answers, each};
use crate::error::Error;
use crate::failover::{self, Round};
use crate::legacy::{Limit, Pool, ask};

/// By legacy what a node has told holds until it was away.
const ANY: u64 = 0;

impl DlsClient {
    pub(super) async fn legacy_put(
        &self,
        pools: &[Arc<Pool>],
        channel: &str,
        timestamp: i64,
        value: &[u8],
    ) -> Result<(), Error> {
        match value.len() {
            0 => return Err(Error::EmptyValue),
            length if length > MAX_VALUE => return Err(Error::ValueTooBig { length, limit: MAX_VALUE }),
            _ => {}
        }
        let key = Key(timestamp.cast_unsigned()).hex16();
        let request = Request::Put { channel: channel.as_bytes(), key: &key, value };
        let (group, after) = (&self.inner.group, self.inner.group.config.request_timeout);
        let deadline = Instant::now() + after;
        let round = Round { deadline, repeat: group.config.at_least_once, settles: false };
        let (request, limit) = (&request, Limit::Until(deadline, after));
        let put = |index| async move {
            match pools.get(index) {
                Some(pool) => self.put_at(index, pool, timestamp, request, limit).await,
                None => Ok(None),
            }
        };
        failover::in_turn(&group.turns, round, put).await?.ok_or(Error::NoNodeForTimestamp(timestamp))
    }

    /// Puts a record at a node that takes records of its time; none if it does not.
    async fn put_at(
        &self,
        index: usize,
        pool: &Arc<Pool>,
        timestamp: i64,
        request: &Request<'_>,
        limit: Limit,
    ) -> Result<Option<()>, Error> {
        let ranges = &self.inner.ranges;
        // Once more if its range has changed.
        for again in [false, true] {
            let range = match ranges.of(index, ANY) {
                Some(range) => range,
                None => {
                    let range = range(pool, limit).await?;
                    ranges.told(index, ANY, range);
                    range.unwrap_or(TimestampRange::ALL)
                }
            };
            if !range.holds(timestamp) {
                return Ok(None);
            }
            match ask::done(pool, request, limit).await {
                Ok(()) => return Ok(Some(())),
                Err(Error::WrongNode { .. }) if !again => ranges.forget(index),
                Err(Error::Node { node }) => return Err(Error::NotWritten { node }),
                Err(error) => {
                    if matches!(error, Error::Connect { .. } | Error::Broken { .. } | Error::WrongNode { .. }) {
                        ranges.forget(index);
                    }
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn legacy_ranges(&self, pools: &[Arc<Pool>]) -> Answers<Option<TimestampRange>> {
        let limit = self.inner.group.limit();
        each(pools.to_vec(), Pool::of, |pool| async move { range(&pool, limit).await }).await
    }
}

/// The range that a node tells; none if it does not know the request.
async fn range(pool: &Arc<Pool>, limit: Limit) -> Result<Option<TimestampRange>, Error> {
    // Every node answers this one.
    ask::value(pool, &Request::GetVersion, limit).await?;
    let asked = match pool.send(&Request::GetResponsibleRange, limit).await {
        Ok(mut lease) => {
            let range = lease.read(limit, reply::range).await;
            if range.is_ok() {
                lease.finish();
            }
            range
        }
        Err(error) => Err(error),
    };
    match asked {
        Ok((min, max)) => Ok(Some(TimestampRange { min, max })),
        Err(Error::Unsupported { .. }) => Ok(None),
        // A published node closes the connection, and is there nevertheless.
        Err(Error::Broken { .. }) => ask::value(pool, &Request::GetVersion, limit).await.map(|_| None),
        Err(error) => Err(error),
    }
}

//! Push and Pop by legacy (protocol §1.6).

use std::sync::Arc;

use overstory_swarm::legacy::Names;
use overstory_swarm::legacy::dmq::Request;
use overstory_swarm::wire::MAX_ARRAY;
use tokio::time::Instant;

use super::DmqClient;
use crate::error::Error;
use crate::failover::{self, Round};
use crate::legacy::{Limit, Pool, ask};

impl DmqClient {
    pub(super) async fn legacy_push(&self, pools: &[Arc<Pool>], channels: &[&str], value: &[u8]) -> Result<(), Error> {
        if value.len() > MAX_ARRAY {
            return Err(Error::ValueTooBig { length: value.len(), limit: MAX_ARRAY });
        }
        let mut buffer = Vec::new();
        let request = match channels {
            [channel] => Request::Push { channel: channel.as_bytes(), value },
            _ => {
                let names = channels.iter().map(|name| name.as_bytes());
                Request::PushMulti { channels: Names::new(names, &mut buffer), value }
            }
        };
        self.in_turn(pools, &request, self.inner.config.at_least_once).await.map(|_| ())
    }

    pub(super) async fn legacy_pop(&self, pools: &[Arc<Pool>], channel: &str) -> Result<Option<Vec<u8>>, Error> {
        self.in_turn(pools, &Request::Pop { channel: channel.as_bytes() }, false).await
    }

    /// Asks the nodes in turn until one has something to say; none if nobody has and one of them said so.
    async fn in_turn(
        &self,
        pools: &[Arc<Pool>],
        request: &Request<'_>,
        repeat: bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let after = self.inner.config.request_timeout;
        let deadline = Instant::now() + after;
        let round = Round { deadline, repeat, settles: true };
        let ask = |index| async move {
            match pools.get(index) {
                Some(pool) => one(pool, request, Limit::Until(deadline, after)).await,
                None => Ok(None),
            }
        };
        failover::in_turn(&self.inner.turns, round, ask).await
    }
}

/// Asks one node: the record of a Pop; nothing in particular if a Push was done; none if there is nothing.
async fn one(pool: &Arc<Pool>, request: &Request<'_>, limit: Limit) -> Result<Option<Vec<u8>>, Error> {
    if !matches!(request, Request::Pop { .. }) {
        return match ask::done(pool, request, limit).await {
            Err(Error::Node { node }) => Err(Error::NotPushed { node }),
            done => done.map(|()| Some(Vec::new())),
        };
    }
    match ask::value(pool, request, limit).await {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        // The published status for a channel with subscribers (protocol §1.6).
        Err(Error::Node { node }) => Err(Error::Subscribed { node }),
        Err(error) => Err(error),
    }
}

//! Push and Pop by neo (protocol §2.5).

use overstory_swarm::neo::dmq::{Channels, PopReply, PushReply, Request};
use overstory_swarm::neo::frame::MAX_BODY;
use tokio::time::Instant;

use super::{DmqClient, MAX_CHANNELS};
use crate::error::Error;
use crate::failover::{self, Refused};
use crate::neo::link::{Done, Link};

/// Bytes that a value has at most: the message carries the names of the channels as well.
const MAX_VALUE: usize = MAX_BODY - (128 << 10);

impl DmqClient {
    pub(super) async fn neo_push(&self, links: &[Link], channels: &[&str], value: &[u8]) -> Result<(), Error> {
        if value.len() > MAX_VALUE {
            return Err(Error::ValueTooBig { length: value.len(), limit: MAX_VALUE });
        }
        let (mut buffer, given) = (Vec::new(), channels.len());
        let names = Channels::new(channels.iter().map(|name| name.as_bytes()), &mut buffer);
        let channels = names.ok_or(Error::TooManyChannels { given, limit: MAX_CHANNELS })?;
        let request = Request::Push { channels, value };
        let (after, deadline) = (self.inner.config.request_timeout, Instant::now() + self.inner.config.request_timeout);
        let mut refused = Refused::default();
        loop {
            let round = self.inner.turns.round();
            let (index, mut call) = failover::begin(links, round, &request, &mut refused, deadline).await?;
            let node = call.node();
            match call.done(deadline, after).await? {
                Done::Code(code) if code == PushReply::Pushed.code() => return Ok(()),
                Done::Code(code) if code == PushReply::Error.code() => {
                    refused.add(index, Error::NotPushed { node });
                }
                Done::Unsupported => refused.add(index, call.unexpected(Done::Unsupported)),
                // Whether it is in the queue is unknown.
                Done::Broken(Error::Broken { .. }) if self.inner.config.at_least_once => {}
                done => return Err(call.unexpected(done)),
            }
        }
    }

    pub(super) async fn neo_pop(&self, links: &[Link], channel: &str) -> Result<Option<Vec<u8>>, Error> {
        let request = Request::Pop { channel: channel.as_bytes() };
        let (after, deadline) = (self.inner.config.request_timeout, Instant::now() + self.inner.config.request_timeout);
        let (mut refused, mut empty) = (Refused::default(), false);
        loop {
            let round = self.inner.turns.round();
            let (index, mut call) = match failover::begin(links, round, &request, &mut refused, deadline).await {
                Ok(begun) => begun,
                // Those that are there have nothing.
                Err(_) if empty => return Ok(None),
                Err(error) => return Err(error),
            };
            let node = call.node();
            let error = match call.done(deadline, after).await? {
                Done::Value(value) => return Ok(Some(value)),
                Done::Code(code) => match PopReply::decode(&[code]) {
                    Ok(PopReply::Empty) => {
                        empty = true;
                        Error::Node { node }
                    }
                    Ok(PopReply::Subscribed) => return Err(Error::Subscribed { node }),
                    _ => Error::Node { node },
                },
                Done::Unsupported => call.unexpected(Done::Unsupported),
                done => return Err(call.unexpected(done)),
            };
            refused.add(index, error);
        }
    }
}

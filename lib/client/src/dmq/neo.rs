//! Push and Pop by neo (protocol §2.5).

use futures_util::future::select_ok;
use overstory_swarm::neo::dmq::{Channels, PopReply, PushReply, Request};
use overstory_swarm::neo::frame::MAX_BODY;
use tokio::time::Instant;

use super::{DmqClient, MAX_CHANNELS};
use crate::error::Error;
use crate::neo::link::{Call, Done, Link};

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
            let (index, mut call) = self.begin(links, &request, &mut refused, deadline).await?;
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
            let (index, mut call) = match self.begin(links, &request, &mut refused, deadline).await {
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

    /// Begins a request at the node whose turn it is, or at the next that is there and has not refused it. Waits for one
    /// as long as none has refused.
    async fn begin(
        &self,
        links: &[Link],
        request: &Request<'_>,
        refused: &mut Refused,
        deadline: Instant,
    ) -> Result<(usize, Call), Error> {
        for index in self.inner.turns.round() {
            if !refused.has(index)
                && let Some(link) = links.get(index)
                && let Some(call) = link.try_begin(request)?
            {
                return Ok((index, call));
            }
        }
        // Somebody was asked: who is away is not waited for, who only has too much to do is.
        let mut waiting = Vec::new();
        for (index, link) in links.iter().enumerate() {
            if !refused.has(index) && (refused.is_empty() || link.trouble().is_none()) {
                waiting.push(Box::pin(async move { Ok((index, link.begin(request, deadline).await?)) }));
            }
        }
        if waiting.is_empty() {
            return Err(refused.last.take().unwrap_or(Error::NoNodes));
        }
        select_ok(waiting).await.map(|(begun, _)| begun)
    }
}

/// The nodes that have refused a request.
#[derive(Default)]
struct Refused {
    nodes: Vec<usize>,
    last: Option<Error>,
}

impl Refused {
    fn add(&mut self, node: usize, error: Error) {
        self.nodes.push(node);
        self.last = Some(error);
    }

    fn has(&self, node: usize) -> bool {
        self.nodes.contains(&node)
    }

    const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

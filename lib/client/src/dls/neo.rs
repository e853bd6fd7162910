//! Put and GetTimestampRange by neo (protocol §2.6).

use std::time::Duration;

use futures_util::future::{join_all, select_ok};
use overstory_swarm::neo::dls::{PutReply, RangeLimits, Request};
use tokio::time::Instant;

use super::{DlsClient, MAX_VALUE, TimestampRange};
use crate::answers::{Answers, each};
use crate::error::Error;
use crate::failover::{self, Refused};
use crate::neo::link::{Done, Link};

impl DlsClient {
    pub(super) async fn neo_put(
        &self,
        links: &[Link],
        channel: &str,
        timestamp: i64,
        value: &[u8],
    ) -> Result<(), Error> {
        if value.len() > MAX_VALUE {
            return Err(Error::ValueTooBig { length: value.len(), limit: MAX_VALUE });
        }
        let request = Request::Put { channel: channel.as_bytes(), timestamp, value };
        let config = &self.inner.group.config;
        let (after, deadline) = (config.request_timeout, Instant::now() + config.request_timeout);
        let mut refused = Refused::default();
        loop {
            let failure = self.learn(links, deadline).await;
            // What a node has told holds as long as it is there.
            let told = |index: usize, link: &Link| {
                self.inner.ranges.of(index, link.connections()).filter(|_| link.trouble().is_none())
            };
            let takes = |&index: &usize| {
                let range = links.get(index).and_then(|link| told(index, link));
                range.is_some_and(|range| range.holds(timestamp)) && !refused.has(index)
            };
            let turns = &self.inner.group.turns;
            let takers: Vec<usize> = turns.trusted_first().filter(takes).collect();
            if takers.is_empty() {
                if let Some(error) = refused.take().or(failure.filter(|_| Instant::now() >= deadline)) {
                    return Err(error);
                }
                // Of those that are away, or have not told anything yet, some may take it.
                let may = |(index, link): &(usize, &Link)| {
                    let last = self.inner.ranges.last(*index);
                    told(*index, link).is_none() && last.is_none_or(|range| range.holds(timestamp))
                };
                let waiting: Vec<_> =
                    links.iter().enumerate().filter(may).map(|(_, link)| Box::pin(link.up(deadline))).collect();
                if waiting.is_empty() {
                    return Err(Error::NoNodeForTimestamp(timestamp));
                }
                select_ok(waiting).await?;
                continue;
            }
            let (index, mut call) =
                failover::begin(links, takers.into_iter(), &request, &mut refused, deadline).await?;
            let node = call.node();
            let done = match call.done(deadline, after).await {
                Ok(done) => done,
                Err(error) => {
                    // It may hang, and hold up every put whose turn is there.
                    if matches!(error, Error::Timeout { .. }) {
                        turns.away(index);
                    }
                    return Err(error);
                }
            };
            turns.there(index);
            match done {
                Done::Code(code) if code == PutReply::Put.code() => return Ok(()),
                Done::Code(code) if code == PutReply::Error.code() => {
                    // It may have another range than it told.
                    self.inner.ranges.forget(index);
                    refused.add(index, Error::NotWritten { node });
                }
                Done::Unsupported => refused.add(index, call.unexpected(Done::Unsupported)),
                // Whether it is stored is unknown.
                Done::Broken(Error::Broken { .. }) if config.at_least_once => {}
                done => return Err(call.unexpected(done)),
            }
        }
    }

    /// Asks the nodes that are there for their ranges, if they have not told them on these connections; gives what went
    /// wrong. They are asked again when they are there again.
    async fn learn(&self, links: &[Link], deadline: Instant) -> Option<Error> {
        let (ranges, after) = (&self.inner.ranges, self.inner.group.config.request_timeout);
        let unknown = |(index, link): &(usize, &Link)| {
            ranges.of(*index, link.connections()).is_none() && link.trouble().is_none()
        };
        let mut asked = links.iter().enumerate().filter(unknown).peekable();
        asked.peek()?;
        let told = join_all(asked.map(|(index, link)| async move {
            let connection = link.connections();
            range(link, deadline, after).await.map(|range| ranges.told(index, connection, range))
        }));
        told.await.into_iter().find_map(Result::err)
    }

    pub(super) async fn neo_ranges(&self, links: &[Link]) -> Answers<Option<TimestampRange>> {
        let after = self.inner.group.config.request_timeout;
        let deadline = Instant::now() + after;
        each(links.to_vec(), Link::node, |link| async move { range(&link, deadline, after).await }).await
    }
}

/// The range that a node tells; none if it does not know the request.
pub(super) async fn range(link: &Link, deadline: Instant, after: Duration) -> Result<Option<TimestampRange>, Error> {
    let connection = link.connections();
    let mut call = link.begin(&Request::GetTimestampRange, deadline).await?;
    match call.done(deadline, after).await? {
        Done::Value(limits) => match RangeLimits::decode(&limits) {
            Ok(limits) => {
                link.listens(connection);
                Ok(Some(TimestampRange { min: limits.min, max: limits.max }))
            }
            Err(what) => Err(Error::protocol(call.node(), what)),
        },
        Done::Unsupported => Ok(None),
        done => Err(call.unexpected(done)),
    }
}

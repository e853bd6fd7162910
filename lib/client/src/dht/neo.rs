//! The neo requests of a dht client: which node is asked, and what its answers mean (protocol §2.4, §5).

use std::net::SocketAddrV4;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use overstory_swarm::key::{Key, fnv1a};
use overstory_swarm::neo::dht::{
    ChannelsMessage, ExistsReply, GetReply, MAX_VALUE, PutReply, RemoveChannelReply, RemoveReply, Request,
    UpdateAnswer, UpdateReply, UpdateStart,
};
use tokio::time::{Instant, timeout_at};

use super::changes::{self, Changes};
use super::records::{self, Records, Selection};
use super::{DhtClient, LOOK_AGAIN, Links, Update};
use crate::answers::{Answers, each};
use crate::error::Error;
use crate::neo::link::{Call, Done, Link, Next};

/// What one node says about a record.
enum Found<T> {
    Yes(T),
    /// It has none, or is not responsible.
    No {
        wrong_node: bool,
    },
}

impl DhtClient {
    pub(super) async fn neo_put(&self, links: &Links, channel: &str, key: Key, value: &[u8]) -> Result<(), Error> {
        if value.len() > MAX_VALUE {
            return Err(Error::ValueTooBig { length: value.len(), limit: MAX_VALUE });
        }
        let request = Request::Put { channel: channel.as_bytes(), key, value };
        let deadline = self.deadline();
        // A node that has just given a key away says so before it names the new one: then the newest is asked anew.
        let mut before = None;
        loop {
            let node = self.newest(key, before, deadline).await?;
            let (mut call, done) = self.ask(&links.get(node)?, &request, deadline).await?;
            return match code(&mut call, done, PutReply::decode)? {
                PutReply::Put => Ok(()),
                PutReply::WrongNode if before != Some(node) => {
                    before = Some(node);
                    continue;
                }
                PutReply::WrongNode => Err(Error::WrongNode { node }),
                PutReply::Error => Err(Error::NotStored { node }),
            };
        }
    }

    pub(super) async fn neo_get(&self, links: &Links, channel: &str, key: Key) -> Result<Option<Vec<u8>>, Error> {
        let request = Request::Get { channel: channel.as_bytes(), key };
        self.search(links, key, &request, |mut call, done| match done {
            Done::Value(value) => Ok(Found::Yes(value)),
            done => match code(&mut call, done, GetReply::decode)? {
                GetReply::NoRecord => Ok(Found::No { wrong_node: false }),
                GetReply::WrongNode => Ok(Found::No { wrong_node: true }),
                GetReply::Got | GetReply::Error => Err(Error::Node { node: call.node() }),
            },
        })
        .await
    }

    pub(super) async fn neo_exists(&self, links: &Links, channel: &str, key: Key) -> Result<bool, Error> {
        let request = Request::Exists { channel: channel.as_bytes(), key };
        let found = self.search(links, key, &request, |mut call, done| {
            Ok(match code(&mut call, done, ExistsReply::decode)? {
                ExistsReply::Exists => Found::Yes(()),
                ExistsReply::NoRecord => Found::No { wrong_node: false },
                ExistsReply::WrongNode => Found::No { wrong_node: true },
                ExistsReply::Error => return Err(Error::Node { node: call.node() }),
            })
        });
        Ok(found.await?.is_some())
    }

    /// Asks the nodes that may have a record, newest first, until one has it.
    async fn search<T>(
        &self,
        links: &Links,
        key: Key,
        request: &Request<'_>,
        judge: impl Fn(Call, Done) -> Result<Found<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let deadline = self.deadline();
        let nodes = self.candidates(key, deadline).await?;
        let mut responsible = false;
        for &node in &nodes {
            let (call, done) = self.ask(&links.get(node)?, request, deadline).await?;
            match judge(call, done)? {
                Found::Yes(found) => return Ok(Some(found)),
                Found::No { wrong_node } => responsible |= !wrong_node,
            }
        }
        match nodes.first() {
            Some(&node) if !responsible => Err(Error::WrongNode { node }),
            _ => Ok(None),
        }
    }

    /// Asks every node that may have the record, oldest first: a record on its way must not escape.
    pub(super) async fn neo_remove(&self, links: &Links, channel: &str, key: Key) -> Result<bool, Error> {
        let request = Request::Remove { channel: channel.as_bytes(), key };
        let deadline = self.deadline();
        let nodes = self.candidates(key, deadline).await?;
        let (mut removed, mut responsible) = (false, false);
        for &node in nodes.iter().rev() {
            let (mut call, done) = self.ask(&links.get(node)?, &request, deadline).await?;
            match code(&mut call, done, RemoveReply::decode)? {
                RemoveReply::Removed => (removed, responsible) = (true, true),
                RemoveReply::NoRecord => responsible = true,
                RemoveReply::WrongNode => {}
                RemoveReply::Error => return Err(Error::Node { node }),
            }
        }
        match nodes.first() {
            Some(&node) if !responsible => Err(Error::WrongNode { node }),
            _ => Ok(removed),
        }
    }

    pub(super) async fn neo_update(
        &self,
        links: &Links,
        channel: &str,
        key: Key,
        change: impl FnOnce(&[u8]) -> Update,
    ) -> Result<bool, Error> {
        let (after, deadline) = (self.inner.config.request_timeout, self.deadline());
        let request = Request::Update { channel: channel.as_bytes(), key, start: UpdateStart::GetRecord };
        let nodes = self.candidates(key, deadline).await?;
        for &node in &nodes {
            let mut call = links.get(node)?.begin(&request, deadline).await?;
            let next = timeout_at(deadline, call.next()).await.map_err(|_| Error::Timeout { node, after })?;
            let message = match next {
                Next::Item(message) => message,
                Next::Done(done) => match reply(&call, done)? {
                    Reply::NoRecord | Reply::WrongNode => continue,
                    _ => return Err(Error::Node { node }),
                },
            };
            let Ok(UpdateReply::RecordValue(value)) = UpdateReply::decode(&message) else {
                return Err(Error::protocol(node, "no value in an Update"));
            };
            let original_hash = fnv1a(value);
            let new = match change(value) {
                Update::Leave => {
                    call.answer(&UpdateAnswer::LeaveRecord);
                    return end(&mut call, deadline, after).await;
                }
                Update::Replace(new) if new.is_empty() => return Err(Error::EmptyValue),
                Update::Replace(new) if new.len() > MAX_VALUE => {
                    return Err(Error::ValueTooBig { length: new.len(), limit: MAX_VALUE });
                }
                Update::Replace(new) => new,
            };
            let newest = nodes.first().copied().unwrap_or(node);
            if newest == node {
                call.answer(&UpdateAnswer::UpdateRecord { original_hash, value: &new });
                return end(&mut call, deadline, after).await;
            }
            // The record has not moved yet: the new value goes to the newer node, then the old one is removed.
            let start = UpdateStart::UpdateRecord { original_hash, value: &new };
            let request = Request::Update { channel: channel.as_bytes(), key, start };
            let mut second = links.get(newest)?.begin(&request, deadline).await?;
            end(&mut second, deadline, after).await?;
            call.answer(&UpdateAnswer::RemoveRecord);
            return end(&mut call, deadline, after).await;
        }
        Ok(false)
    }

    pub(super) async fn neo_channels(&self, links: &Links) -> Answers<Vec<Vec<u8>>> {
        let (after, deadline) = (self.inner.config.request_timeout, self.deadline());
        each(links.all(), Link::node, |link| async move {
            let mut call = link.begin(&Request::GetChannels, deadline).await?;
            let node = call.node();
            let mut names = Vec::new();
            loop {
                let next = timeout_at(deadline, call.next()).await.map_err(|_| Error::Timeout { node, after })?;
                match next {
                    Next::Item(message) => match ChannelsMessage::decode(&message) {
                        Ok(ChannelsMessage::Name(name)) => names.push(name.to_vec()),
                        _ => return Err(Error::protocol(node, "no name in a GetChannels")),
                    },
                    Next::Done(Done::Code(3)) => return Ok(names),
                    Next::Done(Done::Code(_)) => return Err(Error::Node { node }),
                    Next::Done(done) => return Err(call.unexpected(done)),
                }
            }
        })
        .await
    }

    pub(super) async fn neo_remove_channel(&self, links: &Links, channel: &str) -> Answers<()> {
        let deadline = self.deadline();
        let request = &Request::RemoveChannel { channel: channel.as_bytes() };
        each(links.all(), Link::node, |link| async move {
            let (mut call, done) = self.ask(&link, request, deadline).await?;
            match code(&mut call, done, RemoveChannelReply::decode)? {
                RemoveChannelReply::ChannelRemoved => Ok(()),
                RemoveChannelReply::NotPermitted => Err(Error::NotPermitted { node: call.node() }),
                RemoveChannelReply::Error => Err(Error::Node { node: call.node() }),
            }
        })
        .await
    }

    pub(super) fn neo_get_all(&self, links: &Links, channel: &str, selection: &Selection) -> Records {
        let config = &self.inner.config;
        records::spawn(
            links.all(),
            |link, tx, control| {
                let (channel, selection) = (channel.to_owned(), selection.clone());
                records::read_neo(link, channel, selection, config.patience, config.request_timeout, tx, control)
            },
            selection.suspended,
        )
    }

    pub(super) fn neo_mirror(&self, links: &Arc<Links>, channel: &str, refresh: bool, period: Duration) -> Changes {
        let period = u32::try_from(period.as_secs()).unwrap_or(u32::MAX);
        changes::spawn(links.all(), |link, tx, control| {
            changes::follow_neo(link, channel.to_owned(), refresh, period, tx, control)
        })
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.inner.config.request_timeout
    }

    async fn ask(&self, link: &Link, request: &Request<'_>, deadline: Instant) -> Result<(Call, Done), Error> {
        let mut call = link.begin(request, deadline).await?;
        let done = call.done(deadline, self.inner.config.request_timeout).await?;
        Ok((call, done))
    }

    /// The node to put a key to; waits for one while none is known, or only one that has refused it.
    async fn newest(&self, key: Key, not: Option<SocketAddrV4>, deadline: Instant) -> Result<SocketAddrV4, Error> {
        let routes = &self.inner.routes;
        let wait = if not.is_some() { deadline.min(Instant::now() + Duration::from_secs(1)) } else { deadline };
        loop {
            let mut changed = pin!(routes.changed.notified());
            changed.as_mut().enable();
            let found = routes.lock().newest(key);
            match found {
                Some(node) if not != Some(node) => return Ok(node),
                _ => {}
            }
            // Those that might have it refuse this client: they will not tell more.
            if found.is_none()
                && let Some(refusal) = self.refusal()
            {
                return Err(refusal);
            }
            let look_again = wait.min(Instant::now() + LOOK_AGAIN);
            if timeout_at(look_again, changed).await.is_err() && Instant::now() >= wait {
                return found.ok_or_else(|| self.nobody(key));
            }
        }
    }

    async fn candidates(&self, key: Key, deadline: Instant) -> Result<Vec<SocketAddrV4>, Error> {
        self.newest(key, None, deadline).await?;
        Ok(self.inner.routes.lock().candidates(key, std::time::Instant::now()))
    }

    /// Why no node is known for a key: one that could not be reached may be it.
    fn nobody(&self, key: Key) -> Error {
        let away = self.unknown();
        match (&self.inner.backend, away.first()) {
            (super::Backend::Neo(links), Some(&first)) => {
                Error::OwnerAway { key, cause: Arc::new(links.trouble(first)), away: away.into() }
            }
            _ => Error::NoResponsibleNode(key),
        }
    }

    /// The registry's nodes whose ranges are not known.
    pub(super) fn unknown(&self) -> Vec<SocketAddrV4> {
        let table = self.inner.routes.lock();
        self.inner.config.nodes.nodes().iter().copied().filter(|&node| !table.knows(node)).collect()
    }

    /// What the nodes with unknown ranges say, if all of them refuse the client.
    pub(super) fn refusal(&self) -> Option<Error> {
        let super::Backend::Neo(links) = &self.inner.backend else { return None };
        let mut first = None;
        for node in self.unknown() {
            let refusal = links.get(node).ok()?.refusal()?;
            first.get_or_insert(refusal);
        }
        first
    }
}

/// Reads an end of one byte.
fn code<T, E>(call: &mut Call, done: Done, decode: impl Fn(&[u8]) -> Result<T, E>) -> Result<T, Error> {
    match done {
        Done::Code(code) => {
            decode(&[code]).map_err(|_| Error::protocol(call.node(), format_args!("unknown answer {code}")))
        }
        other => Err(call.unexpected(other)),
    }
}

enum Reply {
    Ok,
    NoRecord,
    WrongNode,
    Conflict,
    Error,
}

fn reply(call: &Call, done: Done) -> Result<Reply, Error> {
    match done {
        Done::Code(code) => Ok(match UpdateReply::decode(&[code]) {
            Ok(UpdateReply::Ok) => Reply::Ok,
            Ok(UpdateReply::NoRecord) => Reply::NoRecord,
            Ok(UpdateReply::WrongNode) => Reply::WrongNode,
            Ok(UpdateReply::UpdateConflict) => Reply::Conflict,
            _ => Reply::Error,
        }),
        other => Err(call.unexpected(other)),
    }
}

/// Waits for the end of an Update.
async fn end(call: &mut Call, deadline: Instant, after: Duration) -> Result<bool, Error> {
    let node = call.node();
    let done = call.done(deadline, after).await?;
    match reply(call, done)? {
        Reply::Ok => Ok(true),
        Reply::Conflict => Err(Error::Conflict { node }),
        Reply::WrongNode => Err(Error::WrongNode { node }),
        Reply::NoRecord | Reply::Error => Err(Error::Node { node }),
    }
}

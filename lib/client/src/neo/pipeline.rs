//! One connection, one thread, very many requests in flight: for those who count microseconds.

use std::net::SocketAddrV4;
use std::time::Duration;

use overstory_swarm::key::Key;
use overstory_swarm::neo::dht::{ExistsReply, GetReply, PutReply, RemoveReply, Request};
use overstory_swarm::neo::dls;
use overstory_swarm::neo::dmq::{self, Channels, PopReply, PushReply};
use tokio::time::timeout;

use super::conn::Conn;
use super::core::{Event, Opening};
use super::identity::Identity;
use crate::error::Error;

/// Bytes that are read at once.
const READ: usize = 256 << 10;
/// Bytes that may wait to be sent before [`Pipeline::complete`] has to run; more are refused.
const MAX_UNSENT: usize = 16 << 20;

/// What a node answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// A Put was stored.
    Stored,
    /// The value of a Get or of a Pop.
    Value(&'a [u8]),
    /// An Exists found the record.
    Exists,
    /// A Remove removed the record.
    Removed,
    /// There is no such record.
    NoRecord,
    /// The node is not responsible for the key.
    WrongNode,
    /// A Push is in every channel it names.
    Pushed,
    /// A Pop found nothing.
    Empty,
    /// A Pop of a channel that has subscribers: its records can only be consumed.
    Subscribed,
    /// The node could not do it. Of a Push: the queue is full, or the node's log says what is wrong.
    Failed,
    /// The node does not know the request.
    Unsupported,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Put,
    Get,
    Exists,
    Remove,
    Push,
    Pop,
    /// A Put of a dls.
    Log,
}

/// A neo connection to one node that keeps many requests in flight.
///
/// Requests are queued with a token of the caller's and sent together; [`Self::complete`] hands over the answers, which
/// come in any order. Nothing is allocated per request. Names and values are not checked: the node does that.
#[derive(Debug)]
pub struct Pipeline {
    conn: Conn<(Asked, u64)>,
    stall: Duration,
    /// The channels of a Push, as they are sent.
    channels: Vec<u8>,
}

impl Pipeline {
    /// Connects and authenticates within `timeout`, which is also how long [`Self::complete`] waits for an answer.
    ///
    /// # Errors
    /// The node cannot be reached, speaks something else, or does not accept the identity.
    pub async fn connect(node: SocketAddrV4, identity: &Identity, timeout: Duration) -> Result<Self, Error> {
        let conn = Conn::connect(node, identity, timeout, READ).await?;
        Ok(Self { conn, stall: timeout, channels: Vec::new() })
    }

    /// How many requests have no answer yet.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.conn.core.in_flight()
    }

    /// Queues a Put; false if it has to wait for answers.
    #[inline]
    pub fn put(&mut self, token: u64, channel: &str, key: Key, value: &[u8]) -> bool {
        self.begin(Asked::Put, token, &Request::Put { channel: channel.as_bytes(), key, value })
    }

    /// Queues a Get; false if it has to wait for answers.
    #[inline]
    pub fn get(&mut self, token: u64, channel: &str, key: Key) -> bool {
        self.begin(Asked::Get, token, &Request::Get { channel: channel.as_bytes(), key })
    }

    /// Queues an Exists; false if it has to wait for answers.
    #[inline]
    pub fn exists(&mut self, token: u64, channel: &str, key: Key) -> bool {
        self.begin(Asked::Exists, token, &Request::Exists { channel: channel.as_bytes(), key })
    }

    /// Queues a Remove; false if it has to wait for answers.
    #[inline]
    pub fn remove(&mut self, token: u64, channel: &str, key: Key) -> bool {
        self.begin(Asked::Remove, token, &Request::Remove { channel: channel.as_bytes(), key })
    }

    /// Queues a Push into one channel of a dmq; false if it has to wait for answers.
    #[inline]
    pub fn push(&mut self, token: u64, channel: &str, value: &[u8]) -> bool {
        self.push_multi(token, &[channel], value)
    }

    /// Queues a Push into up to 255 channels; false if it has to wait for answers, or if there are more.
    #[inline]
    pub fn push_multi(&mut self, token: u64, channels: &[&str], value: &[u8]) -> bool {
        let mut buffer = std::mem::take(&mut self.channels);
        let names = channels.iter().map(|name| name.as_bytes());
        let begun = Channels::new(names, &mut buffer)
            .is_some_and(|channels| self.begin(Asked::Push, token, &dmq::Request::Push { channels, value }));
        self.channels = buffer;
        begun
    }

    /// Queues a Put of a record into logfiles, at a timestamp; false if it has to wait for answers.
    #[inline]
    pub fn put_dls(&mut self, token: u64, channel: &str, timestamp: i64, value: &[u8]) -> bool {
        self.begin(Asked::Log, token, &dls::Request::Put { channel: channel.as_bytes(), timestamp, value })
    }

    /// Queues a Pop of a dmq; false if it has to wait for answers.
    #[inline]
    pub fn pop(&mut self, token: u64, channel: &str) -> bool {
        self.begin(Asked::Pop, token, &dmq::Request::Pop { channel: channel.as_bytes() })
    }

    #[inline]
    fn begin(&mut self, asked: Asked, token: u64, request: &impl Opening) -> bool {
        self.conn.unsent() < MAX_UNSENT && self.conn.core.begin(request, (asked, token)).is_some()
    }

    /// Sends what is queued and waits until at least one answer has come; says how many were handed to `on`.
    /// Returns 0 at once when nothing is in flight. May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// The connection broke, the node broke the protocol, or it did not answer in time. The effect of the requests in
    /// flight is unknown then; the pipeline cannot be used any more.
    pub async fn complete(&mut self, mut on: impl FnMut(u64, Outcome<'_>)) -> Result<usize, Error> {
        let (node, stall) = (self.conn.node, self.stall);
        let mut done = 0;
        while done == 0 && self.conn.core.in_flight() > 0 {
            let turn = self.conn.turn(|&mut (asked, token), event| {
                done += 1;
                on(token, outcome(asked, event));
                false
            });
            timeout(stall, turn).await.map_err(|_| Error::Timeout { node, after: stall })??;
        }
        Ok(done)
    }
}

#[inline]
fn outcome(asked: Asked, event: Event<'_>) -> Outcome<'_> {
    let payload = match event {
        Event::Value(value) => return Outcome::Value(value),
        Event::Last(payload) => payload,
        Event::Unsupported => return Outcome::Unsupported,
        Event::Item(_) | Event::Stopped => return Outcome::Failed,
    };
    match asked {
        Asked::Put => match PutReply::decode(payload) {
            Ok(PutReply::Put) => Outcome::Stored,
            Ok(PutReply::WrongNode) => Outcome::WrongNode,
            _ => Outcome::Failed,
        },
        Asked::Get => match GetReply::decode(payload) {
            Ok(GetReply::NoRecord) => Outcome::NoRecord,
            Ok(GetReply::WrongNode) => Outcome::WrongNode,
            _ => Outcome::Failed,
        },
        Asked::Exists => match ExistsReply::decode(payload) {
            Ok(ExistsReply::Exists) => Outcome::Exists,
            Ok(ExistsReply::NoRecord) => Outcome::NoRecord,
            Ok(ExistsReply::WrongNode) => Outcome::WrongNode,
            _ => Outcome::Failed,
        },
        Asked::Remove => match RemoveReply::decode(payload) {
            Ok(RemoveReply::Removed) => Outcome::Removed,
            Ok(RemoveReply::NoRecord) => Outcome::NoRecord,
            Ok(RemoveReply::WrongNode) => Outcome::WrongNode,
            _ => Outcome::Failed,
        },
        Asked::Push => match PushReply::decode(payload) {
            Ok(PushReply::Pushed) => Outcome::Pushed,
            _ => Outcome::Failed,
        },
        Asked::Log => match dls::PutReply::decode(payload) {
            Ok(dls::PutReply::Put) => Outcome::Stored,
            _ => Outcome::Failed,
        },
        Asked::Pop => match PopReply::decode(payload) {
            Ok(PopReply::Empty) => Outcome::Empty,
            Ok(PopReply::Subscribed) => Outcome::Subscribed,
            _ => Outcome::Failed,
        },
    }
}

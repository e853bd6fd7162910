//! Reading a range from one node, over as many connections as it takes.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dls::{self as legacy, Interval};
use overstory_swarm::legacy::{Limits, reply};
use overstory_swarm::neo::dls::{self as neo, GetRangeMessage};
use tokio::time::{Instant, sleep, timeout};

use super::batch::{Batch, WalkError};
use super::neo::range;
use super::place::{Place, Ranks};
use super::records::Filter;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::legacy::{Lease, Limit, Pool, keep};
use crate::neo::link::{Call, Done, Link, Next};

/// Waits before a node is connected to again.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MOST: Duration = Duration::from_millis(2500);
/// How often a connection may break without anything new having come before.
const FRUITLESS: u32 = 5;

/// What is asked of all nodes.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) channel: String,
    pub(super) filter: Filter,
    /// How long a node may take to be there, and to say something.
    pub(super) first: Duration,
    /// How long it may take to come back.
    pub(super) patience: Duration,
}

impl Question {
    pub(super) fn new(config: &ClientConfig, channel: &str, filter: Filter) -> Self {
        let (first, patience) = (config.request_timeout, config.patience);
        Self { channel: channel.to_owned(), filter, first, patience }
    }
}

/// Where a node is asked.
pub(super) enum Source {
    Neo(Link),
    Legacy {
        pool: Arc<Pool>,
        /// For the question whether the node still lives: the others may all be busy.
        probe: Arc<Pool>,
    },
}

/// What is under way.
enum Stream {
    Neo(Call),
    Legacy(Lease),
}

/// One node's records of some ranges, batch by batch, bucket by bucket.
pub(super) struct Reader {
    source: Source,
    question: Arc<Question>,
    /// The ranges that come after this one.
    ranges: VecDeque<(u64, u64)>,
    place: Place,
    stream: Option<Stream>,
    /// How often it broke since something new has come.
    fruitless: u32,
    /// The connection by neo on which the node was asked what it is.
    known: u64,
    /// The node said that it left records out.
    left_out: bool,
}

impl Reader {
    /// Begins with nothing to read: see [`Self::begin`].
    pub(super) fn new(source: Source, question: Arc<Question>) -> Self {
        // Nothing is in it.
        let place = Place::new(1, 0);
        Self { source, question, ranges: VecDeque::new(), place, stream: None, fruitless: 0, known: 0, left_out: false }
    }

    /// Reads these timestamps instead of what was asked for before. Those of a legacy node that lie on both sides of 0 come
    /// in the order of time with `sorted`, else as the node has them.
    pub(super) fn begin(&mut self, low: i64, high: i64, sorted: bool) {
        self.stream = None;
        self.ranges.clear();
        let (ranks, all) = (self.ranks(), low == i64::MIN && high == i64::MAX);
        let mut add = |low, high| self.ranges.push_back((ranks.of(low), ranks.of(high)));
        match ranks {
            Ranks::Unsigned if all && !sorted => self.ranges.push_back((0, u64::MAX)),
            Ranks::Unsigned if low < 0 && high >= 0 => {
                add(low, -1);
                add(0, high);
            }
            _ => add(low, high),
        }
        self.place = Place::new(1, 0);
        self.fruitless = 0;
        self.next_range();
    }

    fn next_range(&mut self) -> bool {
        let next = self.ranges.pop_front();
        if let Some((low, high)) = next {
            self.place = Place::new(low, high);
        }
        next.is_some()
    }

    fn ranks(&self) -> Ranks {
        match self.source {
            Source::Neo(_) => Ranks::Signed,
            Source::Legacy { .. } => Ranks::Unsigned,
        }
    }

    /// Whether all is well when there is nothing more to read.
    ///
    /// # Errors
    /// The node has left records out of anything that was read so far.
    pub(super) fn whole(&self) -> Result<(), Error> {
        if self.left_out { Err(Error::LeftOut { node: self.node() }) } else { Ok(()) }
    }

    pub(super) fn node(&self) -> SocketAddrV4 {
        match &self.source {
            Source::Neo(link) => link.node(),
            Source::Legacy { pool, .. } => pool.node(),
        }
    }

    /// Whether the node has sent the buckets in their order.
    pub(super) const fn in_order(&self) -> bool {
        self.place.in_order()
    }

    /// The next batch, which is not empty; none at the end. Dropped while it waits, the reader has to begin anew.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            match self.step().await {
                Ok(Some(batch)) if batch.is_empty() => {}
                Ok(Some(batch)) => {
                    self.fruitless = 0;
                    return Ok(Some(batch));
                }
                Ok(None) => {
                    self.stream = None;
                    self.place.end().map_err(|what| Error::protocol(self.node(), what))?;
                    if !self.next_range() {
                        return Ok(None);
                    }
                }
                // All others have come.
                Err(Error::LeftOut { .. }) => {
                    self.stream = None;
                    self.left_out = true;
                    return Ok(None);
                }
                Err(error @ Error::Broken { .. }) if self.fruitless < FRUITLESS => {
                    self.stream = None;
                    self.fruitless += 1;
                    if !self.place.again() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks if nothing is under way, then waits for a batch, which may be empty; none at the end of a range.
    async fn step(&mut self) -> Result<Option<Batch>, Error> {
        let (low, high) = self.place.rest();
        if low > high {
            return Ok(None);
        }
        if self.stream.is_none() {
            self.stream = Some(self.open(low, high).await?);
        }
        let ranks = self.ranks();
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let received = match stream {
            Stream::Neo(call) => receive_neo(call, &self.source, &self.question).await?,
            Stream::Legacy(lease) => receive_legacy(lease, &self.source, &self.question).await?,
        };
        let Some(mut batch) = received else {
            if let Some(Stream::Legacy(lease)) = self.stream.take() {
                lease.finish();
            }
            return Ok(None);
        };
        let (node, place) = (self.node(), &mut self.place);
        match batch.walk(|timestamp, value| place.take(ranks.of(timestamp), value)) {
            Ok(()) => Ok(Some(batch)),
            Err(WalkError::Record) => Err(Error::protocol(node, "a record that is none in a batch")),
            Err(WalkError::Other(what)) => Err(Error::protocol(node, what)),
        }
    }

    /// Sends the request.
    async fn open(&mut self, low: u64, high: u64) -> Result<Stream, Error> {
        let question = &*self.question;
        let channel = question.channel.as_bytes();
        let wait = if self.fruitless == 0 { question.first } else { question.patience };
        let deadline = Instant::now() + wait;
        match &self.source {
            Source::Neo(link) => {
                let (filter, mode) = question.filter.neo();
                let (low, high) = (Ranks::Signed.timestamp(low), Ranks::Signed.timestamp(high));
                let request = neo::Request::GetRange { channel, low, high, filter, mode };
                let call = link.begin(&request, deadline).await?;
                // Meanwhile: how it can be stopped depends on what it is. Whoever does not say it is not known.
                if std::mem::replace(&mut self.known, link.connections()) != link.connections() {
                    let _ = range(link, deadline, question.first).await;
                }
                Ok(Stream::Neo(call))
            }
            Source::Legacy { pool, .. } => {
                let (first, last) = (Key(low).hex16(), Key(high).hex16());
                let range = Interval { low: &first, high: &last };
                let request = question.filter.legacy(channel, range, (low, high) == (0, u64::MAX));
                let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
                loop {
                    match pool.send(&request, Limit::within(question.first)).await {
                        Ok(lease) => return Ok(Stream::Legacy(lease)),
                        // It is back soon if it was there before.
                        Err(error @ Error::Connect { .. }) if self.fruitless > 0 => {
                            let pause = backoff.next_delay();
                            if Instant::now() + pause >= deadline {
                                return Err(error);
                            }
                            sleep(pause).await;
                        }
                        Err(Error::Node { node }) if question.filter.is_pattern() => {
                            return Err(Error::FilterRefused { node });
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}

/// Waits for a batch of a GetRange, and lets the node send the next one at once: it lies here until it is asked for.
async fn receive_neo(call: &mut Call, source: &Source, question: &Question) -> Result<Option<Batch>, Error> {
    let node = call.node();
    loop {
        let next = match timeout(question.first, call.next()).await {
            Ok(next) => next,
            Err(_) => {
                source.lives(question.first).await?;
                continue;
            }
        };
        return match next {
            Next::Item(message) => match GetRangeMessage::decode(&message) {
                Ok(GetRangeMessage::Records(records)) => {
                    call.go_on();
                    Batch::raw(node, &records).map(Some)
                }
                _ => Err(Error::protocol(node, "no records in a GetRange")),
            },
            Next::Done(Done::Code(5)) => Ok(None),
            Next::Done(Done::Code(7)) if question.filter.is_pattern() => Err(Error::LeftOut { node }),
            Next::Done(Done::Code(3)) if question.filter.is_pattern() => Err(Error::FilterRefused { node }),
            Next::Done(Done::Code(_)) => Err(Error::Node { node }),
            Next::Done(done) => Err(call.unexpected(done)),
        };
    }
}

async fn receive_legacy(lease: &mut Lease, source: &Source, question: &Question) -> Result<Option<Batch>, Error> {
    let node = source.node();
    let decode =
        |input: &[u8]| Ok(keep(reply::item(input, &Limits::DEFAULT)?, |item| item.map(|item| Batch::text(node, item))));
    loop {
        match lease.read(Limit::Each(question.first), decode).await {
            Ok(item) => return item.transpose(),
            Err(Error::Timeout { .. }) => source.lives(question.first).await?,
            Err(error) => return Err(error),
        }
    }
}

impl Source {
    fn node(&self) -> SocketAddrV4 {
        match self {
            Self::Neo(link) => link.node(),
            Self::Legacy { pool, .. } => pool.node(),
        }
    }

    /// A node may read for long before it finds a record. Whether it still does anything is asked by another request.
    async fn lives(&self, within: Duration) -> Result<(), Error> {
        let silent = |error| match error {
            Error::Timeout { .. } | Error::Away { .. } | Error::Connect { .. } => {
                Error::Timeout { node: self.node(), after: within }
            }
            error => error,
        };
        match self {
            Self::Neo(link) => {
                let deadline = Instant::now() + within;
                let mut call = link.begin(&neo::Request::GetTimestampRange, deadline).await.map_err(silent)?;
                // Whatever it says, if it does.
                call.done(deadline, within).await.map_err(silent)?;
                Ok(())
            }
            Self::Legacy { probe, .. } => match probe.send(&legacy::Request::GetVersion, Limit::within(within)).await {
                Ok(_) | Err(Error::Unsupported { .. } | Error::Node { .. }) => Ok(()),
                Err(error) => Err(silent(error)),
            },
        }
    }
}

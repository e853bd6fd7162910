//! Reading from all nodes: what is wanted, and the stream that it comes out of.

use std::net::SocketAddrV4;
use std::sync::Arc;

use overstory_swarm::legacy::dls::{Interval, Request as LegacyRequest, mode as legacy_mode};
use overstory_swarm::neo::dls::mode as neo_mode;
use tokio::sync::{mpsc, watch};

use super::batch::Batch;
use super::order::{self, Merge};
use super::reader::{Question, Reader, Source};
use crate::error::Error;
use crate::group::{Backend, Group};
use crate::legacy::Pool;
use crate::stream::{StreamControl, Want};

/// Batches that wait for the reader, beside one per node.
const QUEUE: usize = 4;

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// All.
    #[default]
    None,
    /// Those whose value holds these bytes; none for all.
    Substring(Vec<u8>),
    /// Those whose value matches this regular expression (PCRE).
    Pcre(Vec<u8>),
    /// The same, whatever the case of letters.
    PcreCaseless(Vec<u8>),
}

impl Filter {
    pub(super) fn neo(&self) -> (&[u8], u8) {
        match self {
            Self::None => (&[], neo_mode::NONE),
            Self::Substring(bytes) if bytes.is_empty() => (&[], neo_mode::NONE),
            Self::Substring(bytes) => (bytes, neo_mode::STRING_MATCH),
            Self::Pcre(pattern) => (pattern, neo_mode::PCRE),
            Self::PcreCaseless(pattern) => (pattern, neo_mode::PCRE_CASE_INSENSITIVE),
        }
    }

    /// The request by legacy, which has several of them.
    pub(super) fn legacy<'a>(&'a self, channel: &'a [u8], range: Interval<'a>, all: bool) -> LegacyRequest<'a> {
        let (mode, pattern) = match self {
            Self::Substring(filter) if !filter.is_empty() && all => {
                return LegacyRequest::GetAllFilter { channel, filter };
            }
            Self::Substring(filter) if !filter.is_empty() => {
                return LegacyRequest::GetRangeFilter { channel, range, filter };
            }
            Self::None | Self::Substring(_) if all => return LegacyRequest::GetAll { channel },
            Self::None | Self::Substring(_) => return LegacyRequest::GetRange { channel, range },
            Self::Pcre(pattern) => (legacy_mode::PCRE, pattern),
            Self::PcreCaseless(pattern) => (legacy_mode::PCRE_CASE_INSENSITIVE, pattern),
        };
        LegacyRequest::GetRangeRegex { channel, range, mode, pattern }
    }

    pub(super) const fn is_pattern(&self) -> bool {
        matches!(self, Self::Pcre(_) | Self::PcreCaseless(_))
    }
}

/// In which order records come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// As the nodes send them: each by buckets of 4,096 timestamps, within a bucket in the order of writing.
    #[default]
    AsTheyCome,
    /// By timestamp over all nodes; of one timestamp node after node, in the order of writing. Each node's bucket is
    /// sorted here, in 64 MiB at most: a larger one is asked for several times.
    ByTime,
}

/// What comes from a node.
pub(super) type Message = Result<Batch, (SocketAddrV4, Error)>;
pub(super) type Sender = mpsc::Sender<Message>;

/// The records of a channel. Dropping it stops the nodes.
///
/// It never ends silently short: where a node's records are missing, the last thing that comes is
/// [`Error::Incomplete`]. Whoever stops reading earlier looks at [`Self::missing`].
#[derive(Debug)]
pub struct Records {
    stream: Stream,
    missing: Vec<(SocketAddrV4, Error)>,
    told: bool,
    control: StreamControl,
}

#[derive(Debug)]
enum Stream {
    AsTheyCome(mpsc::Receiver<Message>),
    ByTime(Merge),
}

impl Records {
    /// The next batch; none when all nodes have sent all they have, or the stream was stopped. Nothing is lost if it is
    /// dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Incomplete`], once, after all that came: it names the nodes whose records are missing or not complete.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        loop {
            let message = match &mut self.stream {
                Stream::AsTheyCome(batches) => batches.recv().await,
                Stream::ByTime(merge) => merge.next().await,
            };
            match message {
                Some(Ok(batch)) => return Some(Ok(batch)),
                Some(Err(missing)) => self.missing.push(missing),
                None if self.missing.is_empty() || std::mem::replace(&mut self.told, true) => return None,
                None => return Some(Err(Error::Incomplete { missing: self.missing.as_slice().into() })),
            }
        }
    }

    /// The nodes whose records are missing, as far as it is known: what has come so far may lack theirs.
    #[must_use]
    pub fn missing(&self) -> &[(SocketAddrV4, Error)] {
        &self.missing
    }

    /// Ends it: [`Self::next`] brings what has arrived already, then nothing more.
    pub fn stop(&self) {
        self.control.stop();
    }

    /// What suspends, resumes and stops this stream, from wherever. Reading slowly is enough to slow the nodes down.
    #[must_use]
    pub fn control(&self) -> StreamControl {
        self.control.clone()
    }
}

/// Reads from all nodes at once.
pub(super) fn spawn(group: &Group, channel: &str, (low, high): (i64, i64), filter: Filter, wanted: Order) -> Records {
    let config = &group.config;
    let question = Arc::new(Question::new(config, channel, filter));
    let (control, want) = StreamControl::new(false);
    let sources: Vec<Source> = match &group.backend {
        Backend::Neo(links) => links.links.iter().cloned().map(Source::Neo).collect(),
        Backend::Legacy(pools) => {
            let probe = |pool: &Arc<Pool>| Pool::new(pool.node(), 1, 1, config.connect_timeout);
            pools.iter().map(|pool| Source::Legacy { pool: Arc::clone(pool), probe: probe(pool) }).collect()
        }
    };
    let readers = sources.into_iter().map(|source| Reader::new(source, Arc::clone(&question)));
    let stream = match wanted {
        Order::AsTheyCome => {
            let (tx, batches) = mpsc::channel(QUEUE);
            for mut reader in readers {
                reader.begin(low, high, false);
                tokio::spawn(read(reader, tx.clone(), want.clone()));
            }
            Stream::AsTheyCome(batches)
        }
        Order::ByTime => {
            let lanes = readers.map(|reader| {
                let (tx, batches) = mpsc::channel(1);
                tokio::spawn(order::read(reader, (low, high), tx, want.clone()));
                batches
            });
            Stream::ByTime(Merge::new(lanes.collect()))
        }
    };
    Records { stream, missing: Vec::new(), told: false, control }
}

/// Hands over what a node sends as it comes.
async fn read(mut reader: Reader, tx: Sender, mut want: watch::Receiver<Want>) {
    let node = reader.node();
    while go_on(&mut want, &tx).await {
        let next = tokio::select! {
            next = reader.next() => next,
            _ = want.wait_for(|want| *want == Want::Stop) => return,
            () = tx.closed() => return,
        };
        let message = match next {
            Ok(Some(batch)) => Ok(batch),
            Ok(None) => match reader.whole() {
                Ok(()) => return,
                Err(error) => Err((node, error)),
            },
            Err(error) => Err((node, error)),
        };
        let over = message.is_err();
        if tx.send(message).await.is_err() || over {
            return;
        }
    }
}

/// Waits while the stream is suspended; false once it is stopped.
pub(super) async fn go_on(want: &mut watch::Receiver<Want>, tx: &Sender) -> bool {
    tokio::select! {
        want = want.wait_for(|want| *want != Want::Suspend) => want.is_ok_and(|want| *want == Want::Run),
        () = tx.closed() => false,
    }
}

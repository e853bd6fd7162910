//! Following a channel: Mirror by neo, Listen by legacy, from all nodes, again when a connection breaks.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use overstory_swarm::batch::{self, Refreshed};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dht::Request as LegacyRequest;
use overstory_swarm::legacy::{Limits, reply};
use overstory_swarm::neo::dht::{MirrorMessage, Request};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::legacy::{Limit, Pool, keep};
use crate::neo::link::{Call, Done, Link, Next};
use crate::stream::{StreamControl, Want};

/// Changes that wait for the reader.
const QUEUE: usize = 256;
/// Bytes that a batch of a refresh may hold, decompressed.
const MAX_BATCH: usize = 16 << 20;

/// What happened to a channel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// A record was put. By legacy the value is empty if it was removed meanwhile.
    Put {
        /// Its key.
        key: Key,
        /// Its newest value.
        value: Vec<u8>,
    },
    /// A record as it is, from a refresh.
    Refreshed {
        /// Its key.
        key: Key,
        /// Its value.
        value: Vec<u8>,
    },
    /// A record was removed (neo only).
    Removed {
        /// Its key.
        key: Key,
    },
    /// The channel was removed at a node; nothing more comes from there.
    ChannelRemoved {
        /// Which node.
        node: SocketAddrV4,
    },
    /// Changes may have been lost at a node: it had too many, or the connection broke.
    Lost {
        /// Which node.
        node: SocketAddrV4,
        /// How the connection broke, if it did.
        cause: Option<Error>,
    },
}

pub(super) type Sender = mpsc::Sender<Result<Change, Error>>;

/// The changes of a channel, from all nodes. Dropping it ends the requests.
#[derive(Debug)]
pub struct Changes {
    changes: mpsc::Receiver<Result<Change, Error>>,
    control: StreamControl,
}

impl Changes {
    /// The next change; none when the channel was removed at all nodes, or the stream was stopped.
    ///
    /// # Errors
    /// A node cannot be followed at all; the others go on.
    pub async fn next(&mut self) -> Option<Result<Change, Error>> {
        self.changes.recv().await
    }

    /// What suspends, resumes and stops this stream.
    #[must_use]
    pub fn control(&self) -> StreamControl {
        self.control.clone()
    }
}

/// Follows all sources at once.
pub(super) fn spawn<S, F>(sources: Vec<S>, follow: impl Fn(S, Sender, watch::Receiver<Want>) -> F) -> Changes
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tx, changes) = mpsc::channel(QUEUE);
    let (control, wanted) = StreamControl::new(false);
    for source in sources {
        tokio::spawn(follow(source, tx.clone(), wanted.clone()));
    }
    Changes { changes, control }
}

enum Ended {
    Complete,
    Broken(Error),
}

/// Follows a node by neo until the channel is removed or the reader has enough.
pub(super) async fn follow_neo(
    link: Link,
    channel: String,
    initial_refresh: bool,
    periodic_refresh_s: u32,
    tx: Sender,
    mut control: watch::Receiver<Want>,
) {
    loop {
        let want = *control.borrow_and_update();
        if want == Want::Stop {
            return;
        }
        let request = Request::Mirror {
            start_suspended: want == Want::Suspend,
            channel: channel.as_bytes(),
            initial_refresh,
            periodic_refresh_s,
        };
        // A node may be away for as long as it likes.
        let begun = tokio::select! {
            begun = link.begin(&request, Instant::now() + Duration::from_secs(60)) => begun,
            () = tx.closed() => return,
            Ok(_) = control.wait_for(|want| *want == Want::Stop) => return,
        };
        let ended = match begun {
            Ok(call) => mirror(call, &tx, &mut control).await,
            Err(Error::Away { .. } | Error::QueueFull { .. }) => continue,
            Err(error) => Err(error),
        };
        let change = match ended {
            Ok(Ended::Complete) => return,
            Ok(Ended::Broken(cause)) => Ok(Change::Lost { node: link.node(), cause: Some(cause) }),
            Err(error) => Err(error),
        };
        let over = change.is_err();
        if tx.send(change).await.is_err() || over {
            return;
        }
    }
}

async fn mirror(mut call: Call, tx: &Sender, control: &mut watch::Receiver<Want>) -> Result<Ended, Error> {
    let node = call.node();
    loop {
        let next = tokio::select! {
            next = call.next() => next,
            Ok(()) = control.changed() => {
                match *control.borrow_and_update() {
                    Want::Stop => call.stop(),
                    want => call.hold(want == Want::Suspend),
                }
                continue;
            }
            () = tx.closed() => return Ok(Ended::Complete),
        };
        let message = match next {
            Next::Item(message) => message,
            Next::Done(Done::Stopped) => return Ok(Ended::Complete),
            Next::Done(Done::Code(10)) => {
                let _ = tx.send(Ok(Change::ChannelRemoved { node })).await;
                return Ok(Ended::Complete);
            }
            Next::Done(Done::Code(_)) => return Err(Error::Node { node }),
            Next::Done(Done::Broken(error @ (Error::Broken { .. } | Error::Protocol { .. }))) => {
                return Ok(Ended::Broken(error));
            }
            Next::Done(done) => return Err(call.unexpected(done)),
        };
        let change = match MirrorMessage::decode(&message).map_err(|what| Error::protocol(node, what))? {
            MirrorMessage::RecordChanged { key, value } => Change::Put { key, value: value.to_vec() },
            MirrorMessage::RecordDeleted { key } => Change::Removed { key },
            MirrorMessage::UpdateOverflow => Change::Lost { node, cause: None },
            MirrorMessage::RecordRefreshBatch(bytes) => {
                let mut plain = Vec::new();
                batch::decode(bytes, MAX_BATCH, &mut plain).map_err(|what| Error::protocol(node, what))?;
                for record in Refreshed::new(&plain) {
                    let (key, value) = record.map_err(|what| Error::protocol(node, what))?;
                    let change = Change::Refreshed { key: Key(key), value: value.to_vec() };
                    if tx.send(Ok(change)).await.is_err() {
                        return Ok(Ended::Complete);
                    }
                }
                continue;
            }
            _ => continue,
        };
        if tx.send(Ok(change)).await.is_err() {
            return Ok(Ended::Complete);
        }
    }
}

/// Follows a node by legacy until the channel is removed or the reader has enough.
pub(super) async fn follow_legacy(
    pool: Arc<Pool>,
    channel: String,
    first: Duration,
    tx: Sender,
    mut control: watch::Receiver<Want>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(2500));
    let mut stopped = control.clone();
    let follow = async {
        loop {
            let ended = match listen(&pool, &channel, first, &tx, &mut control, &mut backoff).await {
                Ok(()) => return,
                Err(error @ (Error::Broken { .. } | Error::Connect { .. } | Error::Timeout { .. })) => error,
                Err(error) => {
                    let _ = tx.send(Err(error)).await;
                    return;
                }
            };
            // Told once, and not at each attempt to come back.
            if !matches!(ended, Error::Connect { .. }) {
                let lost = Change::Lost { node: pool.node(), cause: Some(ended) };
                if tx.send(Ok(lost)).await.is_err() {
                    return;
                }
            }
            sleep(backoff.next_delay()).await;
        }
    };
    tokio::select! {
        () = follow => {}
        () = tx.closed() => {}
        Ok(_) = stopped.wait_for(|want| *want == Want::Stop) => {}
    }
}

async fn listen(
    pool: &Arc<Pool>,
    channel: &str,
    first: Duration,
    tx: &Sender,
    control: &mut watch::Receiver<Want>,
    backoff: &mut Backoff,
) -> Result<(), Error> {
    let node = pool.node();
    let request = LegacyRequest::Listen { channel: channel.as_bytes() };
    let mut lease = pool.send(&request, Limit::within(first)).await?;
    backoff.reset();
    loop {
        // Suspended: nothing is read; the node's queue is bounded and drops what is too much.
        let _ = control.wait_for(|want| *want != Want::Suspend).await;
        let decode = |input: &[u8]| {
            let record = reply::record(input, &Limits::DEFAULT)?;
            Ok(keep(record, |record| record.map(|record| (Key::from_hex16(record.key), record.value.to_vec()))))
        };
        match lease.read(Limit::None, decode).await? {
            Some((Some(key), value)) => {
                if tx.send(Ok(Change::Put { key, value })).await.is_err() {
                    return Ok(());
                }
            }
            Some((None, _)) => return Err(Error::protocol(node, "a key that is none in a Listen")),
            None => break,
        }
    }
    lease.finish();
    let _ = tx.send(Ok(Change::ChannelRemoved { node })).await;
    Ok(())
}

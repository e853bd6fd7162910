//! Reading a whole channel: one task per node, batches through a small queue (protocol §2.4, §2.7).

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_swarm::batch::{self, Keys, Pairs};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dht::Request as LegacyRequest;
use overstory_swarm::legacy::{Limits, ProtocolError, reply};
use overstory_swarm::neo::dht::{GetAll, GetAllMessage, Request};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::error::Error;
use crate::legacy::{Limit, Pool, keep};
use crate::neo::link::{Call, Done, Link, Next};
use crate::stream::{StreamControl, Want};

/// Batches that wait for the reader; a node is not read from while there are more.
const QUEUE: usize = 4;
/// Bytes that a batch may hold, decompressed.
const MAX_BATCH: usize = 16 << 20;

/// What is wanted of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Keys without values. By legacy not together with a filter, which then wins.
    pub keys_only: bool,
    /// Only records whose value holds these bytes; none for all.
    pub filter: Vec<u8>,
    /// Begins suspended: [`StreamControl::resume`] makes the records come.
    pub suspended: bool,
}

/// Some records of one node.
#[derive(Debug)]
pub struct Batch {
    node: SocketAddrV4,
    plain: Vec<u8>,
    keys_only: bool,
    last: Option<Key>,
    count: usize,
}

impl Batch {
    /// Decompresses a batch and looks at every record, so that whoever iterates it meets no error.
    fn decode(node: SocketAddrV4, bytes: &[u8], keys_only: bool) -> Result<Self, Error> {
        let mut plain = Vec::new();
        batch::decode(bytes, MAX_BATCH, &mut plain).map_err(|what| Error::protocol(node, what))?;
        let (mut last, mut count) = (None, 0);
        let mut check = |key: &[u8]| -> Result<(), Error> {
            last = Some(parse_key(key).ok_or_else(|| Error::protocol(node, "a key that is none in a batch"))?);
            count += 1;
            Ok(())
        };
        if keys_only {
            Keys::new(&plain).try_for_each(|key| check(key.map_err(|what| Error::protocol(node, what))?))?;
        } else {
            Pairs::new(&plain).try_for_each(|pair| check(pair.map_err(|what| Error::protocol(node, what))?.0))?;
        }
        Ok(Self { node, plain, keys_only, last, count })
    }

    /// The node that has the records.
    #[must_use]
    pub const fn node(&self) -> SocketAddrV4 {
        self.node
    }

    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records; without values if only keys were asked for.
    pub fn records(&self) -> impl Iterator<Item = (Key, &[u8])> + '_ {
        let keys = self.keys_only.then(|| Keys::new(&self.plain).flatten().map(|key| (key, &[][..])));
        let pairs = (!self.keys_only).then(|| Pairs::new(&self.plain).flatten());
        let all = keys.into_iter().flatten().chain(pairs.into_iter().flatten());
        all.filter_map(|(key, value)| Some((parse_key(key)?, value)))
    }
}

/// A key as batches carry it: raw by neo, as text by legacy.
fn parse_key(bytes: &[u8]) -> Option<Key> {
    match bytes.try_into() {
        Ok(raw) => Some(Key(u64::from_le_bytes(raw))),
        Err(_) => Key::from_hex16(bytes),
    }
}

pub(super) type Sender = mpsc::Sender<Result<Batch, Error>>;

/// The records of a channel, as the nodes send them. Dropping it stops the nodes.
#[derive(Debug)]
pub struct Records {
    batches: mpsc::Receiver<Result<Batch, Error>>,
    control: StreamControl,
}

impl Records {
    /// The next batch, from any node; none when all nodes have sent all they have, or the stream was stopped.
    ///
    /// # Errors
    /// A node's records are not complete and no more of them will come; those of other nodes still do.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        self.batches.recv().await
    }

    /// What suspends, resumes and stops this stream.
    #[must_use]
    pub fn control(&self) -> StreamControl {
        self.control.clone()
    }
}

/// Reads from all sources at once.
pub(super) fn spawn<S, F>(
    sources: Vec<S>,
    read: impl Fn(S, Sender, watch::Receiver<Want>) -> F,
    suspended: bool,
) -> Records
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tx, batches) = mpsc::channel(QUEUE);
    let (control, wanted) = StreamControl::new(suspended);
    for source in sources {
        tokio::spawn(read(source, tx.clone(), wanted.clone()));
    }
    Records { batches, control }
}

/// Reads a node's records by neo; goes on after the last key when the connection breaks.
pub(super) async fn read_neo(
    link: Link,
    channel: String,
    selection: Selection,
    patience: Duration,
    silence: Duration,
    tx: Sender,
    mut control: watch::Receiver<Want>,
) {
    let mut after = None;
    loop {
        let want = *control.borrow_and_update();
        if want == Want::Stop || tx.is_closed() {
            return;
        }
        let request = Request::GetAll(GetAll {
            start_suspended: want == Want::Suspend,
            channel: channel.as_bytes(),
            after,
            keys_only: selection.keys_only,
            filter: &selection.filter,
        });
        let begun = tokio::select! {
            begun = link.begin(&request, Instant::now() + patience) => begun,
            () = tx.closed() => return,
        };
        let ended = match begun {
            Ok(call) => stream_neo(call, &selection, silence, &mut after, &tx, &mut control).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(Ended::Complete) => return,
            // Whatever came is delivered; the node is asked for the rest once it is there again.
            Ok(Ended::Broken) => {}
            Err(error) => {
                let _ = tx.send(Err(error)).await;
                return;
            }
        }
    }
}

enum Ended {
    Complete,
    Broken,
}

async fn stream_neo(
    mut call: Call,
    selection: &Selection,
    silence: Duration,
    after: &mut Option<Key>,
    tx: &Sender,
    control: &mut watch::Receiver<Want>,
) -> Result<Ended, Error> {
    let node = call.node();
    let mut running = *control.borrow() == Want::Run;
    loop {
        let next = async { if running { timeout(silence, call.next()).await.ok() } else { Some(call.next().await) } };
        let next = tokio::select! {
            next = next => next.ok_or(Error::Timeout { node, after: silence })?,
            Ok(()) = control.changed() => {
                let want = *control.borrow_and_update();
                running = want == Want::Run;
                match want {
                    Want::Stop => call.stop(),
                    want => call.hold(want == Want::Suspend),
                }
                continue;
            }
            () = tx.closed() => return Ok(Ended::Complete),
        };
        match next {
            Next::Item(message) => match GetAllMessage::decode(&message) {
                Ok(GetAllMessage::RecordBatch(bytes)) => {
                    let batch = Batch::decode(node, bytes, selection.keys_only)?;
                    *after = batch.last.or(*after);
                    if !batch.is_empty() && tx.send(Ok(batch)).await.is_err() {
                        return Ok(Ended::Complete);
                    }
                }
                Ok(_) => {}
                Err(what) => return Err(Error::protocol(node, what)),
            },
            Next::Done(Done::Code(8) | Done::Stopped) => return Ok(Ended::Complete),
            Next::Done(Done::Code(_)) => return Err(Error::Node { node }),
            Next::Done(Done::Broken(Error::Broken { .. })) => return Ok(Ended::Broken),
            Next::Done(done) => return Err(call.unexpected(done)),
        }
    }
}

/// Reads a node's records by legacy. A connection that breaks ends it with an error: the protocol cannot go on.
pub(super) async fn read_legacy(
    pool: Arc<Pool>,
    channel: String,
    selection: Selection,
    each: Limit,
    tx: Sender,
    mut control: watch::Receiver<Want>,
) {
    let outcome = tokio::select! {
        outcome = stream_legacy(&pool, &channel, &selection, each, &tx, &mut control) => outcome,
        () = tx.closed() => return,
    };
    if let Err(error) = outcome {
        let _ = tx.send(Err(error)).await;
    }
}

async fn stream_legacy(
    pool: &Arc<Pool>,
    channel: &str,
    selection: &Selection,
    each: Limit,
    tx: &Sender,
    control: &mut watch::Receiver<Want>,
) -> Result<(), Error> {
    let channel = channel.as_bytes();
    let keys_only = selection.keys_only && selection.filter.is_empty();
    let request = match (keys_only, selection.filter.as_slice()) {
        (true, _) => LegacyRequest::GetAllKeys { channel },
        (false, []) => LegacyRequest::GetAll { channel },
        (false, filter) => LegacyRequest::GetAllFilter { channel, filter },
    };
    let node = pool.node();
    let mut lease = pool.send(&request, each).await?;
    loop {
        // Suspended: nothing is read, so the node stops when the system's buffers are full.
        match control.wait_for(|want| *want != Want::Suspend).await.map(|want| *want) {
            Ok(Want::Stop) => return Ok(()),
            _ => {
                let decode = |input: &[u8]| -> Result<_, ProtocolError> {
                    Ok(keep(reply::item(input, &Limits::DEFAULT)?, |item| {
                        item.map(|bytes| Batch::decode(node, bytes, keys_only))
                    }))
                };
                let Some(batch) = lease.read(each, decode).await? else { break };
                let batch = batch?;
                if !batch.is_empty() && tx.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    lease.finish();
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use overstory_swarm::batch::BatchBuilder;

    use super::*;

    fn node() -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), 1)
    }

    #[test]
    fn batches_of_both_protocols_are_read() {
        for (keys_only, text) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut builder = BatchBuilder::new(65536);
            for key in [Key(1), Key(0xffee)] {
                let (raw, hex) = (key.0.to_le_bytes(), key.hex16());
                let key: &[u8] = if text { &hex } else { &raw };
                let _ = if keys_only { builder.key_only(key) } else { builder.pair(key, b"v") };
            }
            let mut bytes = Vec::new();
            builder.finish(&mut bytes);
            let batch = Batch::decode(node(), &bytes, keys_only).unwrap();
            let value: &[u8] = if keys_only { b"" } else { b"v" };
            assert_eq!(batch.records().collect::<Vec<_>>(), [(Key(1), value), (Key(0xffee), value)]);
            assert_eq!((batch.len(), batch.last), (2, Some(Key(0xffee))));
        }
    }

    #[test]
    fn a_batch_with_a_key_that_is_none_is_refused_as_a_whole() {
        let mut builder = BatchBuilder::new(65536);
        let _ = builder.pair(&1u64.to_le_bytes(), b"v");
        let _ = builder.pair(b"odd", b"v");
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        assert!(matches!(Batch::decode(node(), &bytes, false), Err(Error::Protocol { .. })));
        assert!(matches!(Batch::decode(node(), b"x", false), Err(Error::Protocol { .. })));
    }
}

//! One pass of a redistribution over a channel: picks the records, sends them in batches, removes what arrived.

use std::ops::ControlFlow;
use std::time::Duration;

use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dht::Request;
use overstory_swarm::legacy::{Need, Status, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::warn;

use super::core::Core;
use super::redistribution::Target;
use crate::storage::Scan;

/// Plain bytes of a batch between nodes.
const BATCH: usize = 65_536;

/// Records that one slice looks at.
const SLICE_RECORDS: usize = 4096;

/// Time to connect, and then for each batch to be taken and answered.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// What goes to one node.
pub(super) struct Sender {
    target: Target,
    stream: Option<TcpStream>,
    batch: BatchBuilder,
    /// What is in the batch, to see afterwards whether it still is the same: key and where its value ends.
    keys: Vec<(Key, usize)>,
    values: Vec<u8>,
    /// Whether something went wrong in this pass: nothing more is tried then.
    failed: bool,
}

/// Why a slice ended.
enum Slice {
    End,
    Yield,
    /// The batch of this sender has to go first.
    Full(usize),
    /// This record goes alone.
    Large(usize, Key, Vec<u8>),
}

/// Sends the records of a channel that this node is not responsible for to the nodes that are. Whether all of them
/// went.
pub(super) async fn pass(core: &Core, channel: &str, senders: &mut [Sender], moved: &mut u64) -> bool {
    senders.iter_mut().for_each(|sender| sender.failed = false);
    let mut after = None;
    loop {
        match slice(core, channel, senders, &mut after) {
            Slice::Yield => tokio::task::yield_now().await,
            Slice::Full(index) => {
                if let Some(sender) = senders.get_mut(index) {
                    *moved += sender.flush(core, channel).await;
                }
            }
            Slice::Large(index, key, value) => {
                if let Some(sender) = senders.get_mut(index) {
                    *moved += sender.flush(core, channel).await;
                    *moved += sender.large(core, channel, key, &value).await;
                }
                after = Some(key);
            }
            Slice::End => break,
        }
    }
    for sender in senders.iter_mut() {
        *moved += sender.flush(core, channel).await;
    }
    senders.iter().all(|sender| !sender.failed)
}

fn slice(core: &Core, channel: &str, senders: &mut [Sender], after: &mut Option<Key>) -> Slice {
    let store = core.store.borrow();
    let own = core.range.get();
    let mut left = SLICE_RECORDS;
    let mut broke = Slice::End;
    let from = *after;
    let scan = store.scan(channel, from, &mut |key, value| {
        let foreign = !own.contains(key);
        let target = senders.iter_mut().enumerate().find(|(_, sender)| foreign && sender.target.range.contains(key));
        if let Some((index, sender)) = target {
            match sender.add(key, value) {
                Added::Yes => {}
                Added::Full => {
                    broke = Slice::Full(index);
                    return ControlFlow::Break(());
                }
                Added::TooLarge => {
                    broke = Slice::Large(index, key, value.to_vec());
                    return ControlFlow::Break(());
                }
            }
        }
        *after = Some(key);
        left -= 1;
        if left == 0 {
            broke = Slice::Yield;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    if scan == Scan::End { Slice::End } else { broke }
}

impl Sender {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            stream: None,
            batch: BatchBuilder::new(BATCH),
            keys: Vec::new(),
            values: Vec::new(),
            failed: false,
        }
    }

    fn add(&mut self, key: Key, value: &[u8]) -> Added {
        if self.failed {
            return Added::Yes;
        }
        let added = self.batch.pair(&key.hex16(), value);
        if added == Added::Yes {
            self.note(key, value);
        }
        added
    }

    fn note(&mut self, key: Key, value: &[u8]) {
        self.values.extend_from_slice(value);
        self.keys.push((key, self.values.len()));
    }

    /// Sends what was collected; how many records have moved.
    async fn flush(&mut self, core: &Core, channel: &str) -> u64 {
        if self.batch.is_empty() {
            return 0;
        }
        let mut payload = Vec::new();
        self.batch.finish(&mut payload);
        self.send(core, channel, &payload).await
    }

    /// Sends a record that no batch has room for, as a batch of its own: unlike a Put it does not take the place of
    /// what the other node was given meanwhile, and it is not bound to the length of a legacy value, which values that
    /// were put by neo may pass.
    async fn large(&mut self, core: &Core, channel: &str, key: Key, value: &[u8]) -> u64 {
        if self.failed {
            return 0;
        }
        let mut batch = BatchBuilder::new(value.len().saturating_add(64));
        let _ = batch.pair(&key.hex16(), value);
        self.note(key, value);
        let mut payload = Vec::new();
        batch.finish(&mut payload);
        self.send(core, channel, &payload).await
    }

    async fn send(&mut self, core: &Core, channel: &str, payload: &[u8]) -> u64 {
        let mut request = Vec::with_capacity(payload.len() + channel.len() + 20);
        Request::PutBatch { channel: channel.as_bytes(), batch: payload }.encode(&mut request);
        core.redistribution.takes_off(channel, self.keys.iter().map(|(key, _)| *key));
        let answer = tokio::time::timeout(ANSWER, self.exchange(&request)).await;
        let moved = match answer {
            Ok(Ok(Status::Ok)) => self.remove(core, channel),
            Ok(Ok(status)) => self.failed(channel, status.name()),
            Ok(Err(error)) => self.failed(channel, &error.to_string()),
            Err(_) => self.failed(channel, "no answer"),
        };
        core.redistribution.lands();
        self.keys.clear();
        self.values.clear();
        moved
    }

    /// Removes what has arrived, unless it is another value now.
    fn remove(&self, core: &Core, channel: &str) -> u64 {
        let mut store = core.store.borrow_mut();
        let (mut start, mut moved) = (0, 0);
        for &(key, end) in &self.keys {
            if store.get(channel, key) == self.values.get(start..end) && store.remove(channel, key).is_some() {
                moved += 1;
            }
            start = end;
        }
        moved
    }

    fn failed(&mut self, channel: &str, problem: &str) -> u64 {
        warn!(
            target: "dhtnode.request.RedistributeRequest",
            address = %self.target.address, channel, problem, "batch not taken by a node: it is sent again"
        );
        self.failed = true;
        self.stream = None;
        0
    }

    async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Status> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => tokio::time::timeout(CONNECT, TcpStream::connect(self.target.address)).await??,
        };
        stream.write_all(request).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        let invalid = |error: overstory_swarm::legacy::ProtocolError| std::io::Error::other(error);
        match reply::status(&answer).map_err(invalid)? {
            Need::Done { value, .. } => {
                self.stream = Some(stream);
                Ok(value)
            }
            Need::More(_) => Err(std::io::Error::other("half a status")),
        }
    }
}

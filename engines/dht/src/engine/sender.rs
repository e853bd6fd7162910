//! One pass of a redistribution over a channel: picks the records, sends them in batches, removes what arrived.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use overstory_node::peer_node::PeerNode;
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::{Key, fnv1a};
use overstory_swarm::legacy::dht::Request;
use tokio::time::Instant;
use tracing::warn;

use super::core::Core;
use super::redistribution::Target;
use crate::storage::Scan;

/// Plain bytes of a batch between nodes.
const BATCH: usize = 65_536;

/// Plain bytes of a record in it besides its value.
const RECORD: usize = 8 + 16 + 8;

/// Records that one slice looks at.
const SLICE_RECORDS: usize = 4096;

/// How long a record is kept after it has arrived. A client that has asked the new node in vain just before asks here
/// next; without this it would find the record nowhere.
const GRACE: Duration = Duration::from_millis(100);

/// Batches whose records are kept like that, at most; more of them wait.
const MAX_ARRIVED: usize = 4096;

/// What goes to one node.
pub(super) struct Sender {
    target: Target,
    node: PeerNode,
    /// What the next batch is to hold. Values are read when it is made: until then a record may be removed.
    keys: Vec<Key>,
    plain: usize,
    /// Whether something went wrong in this pass: nothing more is tried then.
    failed: bool,
}

/// Records that have arrived at another node and are still here.
struct Arrived {
    at: Instant,
    /// Keys and what the values hash to.
    records: Vec<(Key, u64)>,
}

/// One pass over a channel.
pub(super) struct Pass<'a> {
    core: &'a Core,
    channel: &'a str,
    senders: &'a mut [Sender],
    arrived: VecDeque<Arrived>,
    /// Records that were removed here.
    moved: u64,
}

/// Why a slice ended.
enum Slice {
    End,
    Yield,
    /// The batch of this sender has to go first.
    Full(usize),
    /// This record goes alone.
    Large(usize, Key),
}

impl<'a> Pass<'a> {
    pub(super) fn new(core: &'a Core, channel: &'a str, senders: &'a mut [Sender]) -> Self {
        Self { core, channel, senders, arrived: VecDeque::new(), moved: 0 }
    }

    /// Sends the records of the channel that this node is not responsible for to the nodes that are. Returns how many
    /// have moved, and whether that were all.
    pub(super) async fn run(mut self) -> (u64, bool) {
        self.senders.iter_mut().for_each(|sender| sender.failed = false);
        let mut after = None;
        loop {
            match self.slice(&mut after) {
                Slice::Yield => tokio::task::yield_now().await,
                Slice::Full(index) => self.flush(index).await,
                Slice::Large(index, key) => {
                    self.flush(index).await;
                    if let Some(sender) = self.senders.get_mut(index).filter(|sender| !sender.failed) {
                        sender.keys.push(key);
                    }
                    self.flush(index).await;
                    after = Some(key);
                }
                Slice::End => break,
            }
            self.remove_arrived();
            while self.arrived.len() >= MAX_ARRIVED {
                self.wait_for_arrived().await;
            }
        }
        for index in 0..self.senders.len() {
            self.flush(index).await;
        }
        while !self.arrived.is_empty() {
            self.wait_for_arrived().await;
        }
        (self.moved, self.senders.iter().all(|sender| !sender.failed))
    }

    fn slice(&mut self, after: &mut Option<Key>) -> Slice {
        let store = self.core.store.borrow();
        let own = self.core.range.get();
        let mut left = SLICE_RECORDS;
        let mut broke = Slice::End;
        let from = *after;
        let senders = &mut *self.senders;
        let scan = store.scan(self.channel, from, &mut |key, value| {
            let foreign = !own.contains(key);
            let target =
                senders.iter_mut().enumerate().find(|(_, sender)| foreign && sender.target.range.contains(key));
            if let Some((index, sender)) = target {
                match sender.add(key, value.len()) {
                    Added::Yes => {}
                    Added::Full => {
                        broke = Slice::Full(index);
                        return ControlFlow::Break(());
                    }
                    Added::TooLarge => {
                        broke = Slice::Large(index, key);
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

    /// Sends what a sender has collected.
    async fn flush(&mut self, index: usize) {
        let Some(sender) = self.senders.get_mut(index) else { return };
        let records = sender.flush(self.core, self.channel).await;
        if !records.is_empty() {
            self.arrived.push_back(Arrived { at: Instant::now(), records });
        }
    }

    async fn wait_for_arrived(&mut self) {
        if let Some(first) = self.arrived.front() {
            tokio::time::sleep_until(first.at + GRACE).await;
        }
        self.remove_arrived();
    }

    /// Removes what has arrived long enough ago, unless it is another value now.
    fn remove_arrived(&mut self) {
        let now = Instant::now();
        let mut store = self.core.store.borrow_mut();
        while let Some(batch) = self.arrived.pop_front_if(|batch| now >= batch.at + GRACE) {
            for (key, hash) in batch.records {
                let same = store.get(self.channel, key).is_some_and(|value| fnv1a(value) == hash);
                if same && store.remove(self.channel, key).is_some() {
                    self.moved += 1;
                }
            }
        }
    }
}

impl Sender {
    pub(super) const fn new(target: Target) -> Self {
        Self { target, node: PeerNode::new(target.address), keys: Vec::new(), plain: 0, failed: false }
    }

    fn add(&mut self, key: Key, value: usize) -> Added {
        let size = value.saturating_add(RECORD);
        if self.failed {
            return Added::Yes;
        }
        if size > BATCH {
            return Added::TooLarge;
        }
        if self.plain + size > BATCH {
            return Added::Full;
        }
        self.plain += size;
        self.keys.push(key);
        Added::Yes
    }

    /// Sends what was collected and is still there; what has arrived.
    ///
    /// A record that no batch has room for goes as a batch of its own: unlike a Put it does not take the place of what
    /// the other node was given meanwhile, and it is not bound to the length of a legacy value, which values that were
    /// put by neo may pass.
    async fn flush(&mut self, core: &Core, channel: &str) -> Vec<(Key, u64)> {
        let keys = std::mem::take(&mut self.keys);
        self.plain = 0;
        let (batch, records) = collect(core, channel, &keys);
        if records.is_empty() {
            return records;
        }
        let mut request = Vec::with_capacity(batch.len() + channel.len() + 20);
        Request::PutBatch { channel: channel.as_bytes(), batch: &batch }.encode(&mut request);
        core.redistribution.takes_off(channel, records.iter().map(|(key, _)| *key));
        let sent = self.node.send(&request).await;
        core.redistribution.lands();
        let Err(problem) = sent else { return records };
        warn!(
            target: "dhtnode.request.RedistributeRequest",
            address = %self.target.address, channel, %problem, "batch not taken by a node: it is sent again"
        );
        self.failed = true;
        Vec::new()
    }
}

/// Makes a batch of the records that are there now, and says what is in it.
fn collect(core: &Core, channel: &str, keys: &[Key]) -> (Vec<u8>, Vec<(Key, u64)>) {
    let store = core.store.borrow();
    let alone =
        keys.first().filter(|_| keys.len() == 1).and_then(|key| store.get(channel, *key)).map_or(0, <[u8]>::len);
    let mut builder = BatchBuilder::new(BATCH.max(alone.saturating_add(RECORD)));
    let mut records = Vec::with_capacity(keys.len());
    for key in keys {
        let Some(value) = store.get(channel, *key) else { continue };
        if builder.pair(&key.hex16(), value) == Added::Yes {
            records.push((*key, fnv1a(value)));
        }
    }
    let mut batch = Vec::new();
    builder.finish(&mut batch);
    (batch, records)
}

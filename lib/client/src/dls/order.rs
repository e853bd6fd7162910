//! Records in order of time: each node's buckets sorted, then the nodes merged.
//!
//! A bucket is sorted in a window of bounded size. Of a larger one the window keeps the lowest timestamps, as many as fit,
//! and the rest is asked for again behind them, as often as it takes. Records of one timestamp need no sorting: they are
//! passed on as they come.

use std::net::SocketAddrV4;

use tokio::sync::{mpsc, watch};

use super::batch::Batch;
use super::place::{Ranks, bucket};
use super::reader::Reader;
use super::records::{Message, Sender, go_on};
use crate::error::Error;
use crate::stream::Want;

/// Bytes of records that one node's window holds.
const WINDOW: usize = 64 << 20;
/// Bytes of a batch that is made of sorted records.
const BATCH: usize = 256 << 10;
/// Bytes that a record takes in a window beside its value.
const EACH: usize = size_of::<Entry>();

/// Timestamps are compared as signed numbers here, whatever the node does.
const RANKS: Ranks = Ranks::Signed;

/// Records of one bucket.
struct Window {
    limit: usize,
    bucket: u64,
    values: Vec<u8>,
    entries: Vec<Entry>,
    sorted: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    rank: u64,
    at: usize,
    length: usize,
}

/// What a full window has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// All up to this rank; what is above is for another time.
    Up(u64),
    /// Nothing: all is of this one rank, and lower ones may still come.
    Below(u64),
}

impl Window {
    const fn new(limit: usize) -> Self {
        Self { limit, bucket: 0, values: Vec::new(), entries: Vec::new(), sorted: true }
    }

    const fn bytes(&self) -> usize {
        self.values.len() + self.entries.len() * EACH
    }

    fn push(&mut self, rank: u64, value: &[u8]) {
        self.sorted &= self.entries.last().is_none_or(|last| last.rank <= rank);
        self.entries.push(Entry { rank, at: self.values.len(), length: value.len() });
        self.values.extend_from_slice(value);
    }

    fn sort(&mut self) {
        if !std::mem::replace(&mut self.sorted, true) {
            // Stable: records of one timestamp keep their order.
            self.entries.sort_by_key(|entry| entry.rank);
        }
    }

    /// Keeps the lower half, whole timestamps only; `low` is the lowest one that can come.
    fn shrink(&mut self, low: u64) -> Cut {
        self.sort();
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else { return Cut::Up(low) };
        let (first, last) = (first.rank, last.rank);
        if first == last {
            if first > low {
                self.clear();
                return Cut::Below(first);
            }
            return Cut::Up(first);
        }
        let (mut bytes, mut keep, mut top) = (0, 0, first);
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.rank != top {
                if bytes > self.limit / 2 || entry.rank == last {
                    break;
                }
                top = entry.rank;
            }
            bytes += entry.length + EACH;
            keep = index + 1;
        }
        self.entries.truncate(keep);
        self.compact();
        Cut::Up(top)
    }

    /// Forgets the values of records that were dropped.
    fn compact(&mut self) {
        let mut values = Vec::with_capacity(self.entries.iter().map(|entry| entry.length).sum());
        for entry in &mut self.entries {
            let value = self.values.get(entry.at..entry.at + entry.length).unwrap_or_default();
            entry.at = values.len();
            values.extend_from_slice(value);
        }
        self.values = values;
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.sorted = true;
        // The room that only a large bucket needed is not kept.
        self.values.truncate(0);
        self.values.shrink_to(BATCH * 4);
        self.entries.shrink_to(BATCH);
    }

    /// Hands the records over in order of time; false if nobody wants them.
    async fn send(&mut self, node: SocketAddrV4, tx: &Sender) -> bool {
        self.sort();
        let mut entries = self.entries.iter().peekable();
        while entries.peek().is_some() {
            let mut batch = Batch::sorted(Some(node), BATCH.min(self.bytes()));
            while let Some(entry) = entries.next_if(|_| batch.plain_len() < BATCH) {
                let value = self.values.get(entry.at..entry.at + entry.length).unwrap_or_default();
                batch.push(RANKS.timestamp(entry.rank), value);
            }
            if tx.send(Ok(batch)).await.is_err() {
                return false;
            }
        }
        self.clear();
        true
    }
}

/// What a node's records come out of.
trait Batches: Send {
    fn node(&self) -> SocketAddrV4;
    /// Begins with these timestamps.
    fn begin(&mut self, low: i64, high: i64);
    fn next(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + Send;
    /// Whether the buckets have come in order.
    fn in_order(&self) -> bool;
}

impl Batches for Reader {
    fn node(&self) -> SocketAddrV4 {
        Self::node(self)
    }

    fn begin(&mut self, low: i64, high: i64) {
        Self::begin(self, low, high, true);
    }

    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        Self::next(self).await
    }

    fn in_order(&self) -> bool {
        Self::in_order(self)
    }
}

/// Hands over a node's records in order of time.
pub(super) async fn read(mut reader: Reader, (low, high): (i64, i64), tx: Sender, mut want: watch::Receiver<Want>) {
    let mut stopped = want.clone();
    let outcome = tokio::select! {
        outcome = sort(&mut reader, (low, high), WINDOW, &tx, &mut want) => outcome,
        _ = stopped.wait_for(|want| *want == Want::Stop) => return,
        () = tx.closed() => return,
    };
    if let Err(error) = outcome.and_then(|()| reader.whole()) {
        let _ = tx.send(Err((reader.node(), error))).await;
    }
}

async fn sort(
    reader: &mut impl Batches,
    (low, high): (i64, i64),
    limit: usize,
    tx: &Sender,
    want: &mut watch::Receiver<Want>,
) -> Result<(), Error> {
    let (mut window, node) = (Window::new(limit), reader.node());
    let (mut low, high) = (RANKS.of(low), RANKS.of(high));
    loop {
        reader.begin(RANKS.timestamp(low), RANKS.timestamp(high));
        let mut cut = None;
        while go_on(want, tx).await
            && let Some(batch) = reader.next().await?
        {
            if !reader.in_order() {
                return Err(Error::protocol(node, "the records are not in the order of buckets"));
            }
            let mut over = false;
            for (timestamp, value) in batch.records() {
                let rank = RANKS.of(timestamp);
                if bucket(rank) != window.bucket {
                    // The rest of the bucket that did not fit comes first.
                    if cut.is_some() {
                        over = true;
                        break;
                    }
                    if !window.send(node, tx).await {
                        return Ok(());
                    }
                    window.bucket = bucket(rank);
                }
                let left_out = match cut {
                    Some(Cut::Up(top)) => rank > top,
                    Some(Cut::Below(above)) => rank >= above,
                    None => false,
                };
                if left_out {
                    continue;
                }
                window.push(rank, value);
                if window.bytes() <= limit {
                    continue;
                }
                cut = Some(window.shrink(low));
                // Of the lowest timestamp there is: nothing can come before these.
                if cut == Some(Cut::Up(low)) && !window.send(node, tx).await {
                    return Ok(());
                }
            }
            if over {
                break;
            }
        }
        if !window.send(node, tx).await {
            return Ok(());
        }
        low = match cut {
            Some(Cut::Up(top)) if top < high => top + 1,
            Some(Cut::Below(above)) => above,
            _ => return Ok(()),
        };
    }
}

/// Several nodes' records in order of time.
#[derive(Debug)]
pub(super) struct Merge {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    batches: mpsc::Receiver<Message>,
    /// What has come and was not taken; not empty.
    batch: Option<(i64, Batch)>,
}

impl Merge {
    pub(super) fn new(lanes: Vec<mpsc::Receiver<Message>>) -> Self {
        Self { lanes: lanes.into_iter().map(|batches| Lane { batches, batch: None }).collect() }
    }

    /// The next records, or what is wrong with a node. Nothing is lost if it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Message> {
        // Each of them may have the lowest timestamp.
        let mut index = 0;
        while let Some(lane) = self.lanes.get_mut(index) {
            if lane.batch.is_none() {
                match lane.batches.recv().await {
                    Some(Ok(batch)) => {
                        lane.batch = batch.first().map(|first| (first, batch));
                        continue;
                    }
                    ended => {
                        drop(self.lanes.remove(index));
                        match ended {
                            Some(failed) => return Some(failed),
                            None => continue,
                        }
                    }
                }
            }
            index += 1;
        }
        if let [lane] = &mut self.lanes[..] {
            return lane.batch.take().map(|(_, batch)| Ok(batch));
        }
        let mut merged = Batch::sorted(None, BATCH);
        while merged.plain_len() < BATCH {
            let heads = |lane: &Lane| lane.batch.as_ref().map(|(first, _)| *first);
            // The first of equal ones.
            let lowest = self.lanes.iter().enumerate().min_by_key(|(index, lane)| (heads(lane), *index));
            let Some((lowest, _)) = lowest else { break };
            let others = self.lanes.iter().enumerate().filter(|(index, _)| *index != lowest);
            let limit = others.filter_map(|(index, lane)| Some((heads(lane)?, index))).min();
            let Some(lane) = self.lanes.get_mut(lowest) else { break };
            let Some((_, mut batch)) = lane.batch.take() else { break };
            let fits = |timestamp| limit.is_none_or(|limit| (timestamp, lowest) < limit);
            lane.batch = batch.move_to(&mut merged, BATCH, fits).map(|next| (next, batch));
            // It may have more of the same time.
            if lane.batch.is_none() {
                break;
            }
        }
        (!merged.is_empty()).then_some(Ok(merged))
    }
}

#[cfg(test)]
mod tests;

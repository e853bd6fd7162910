//! The last records, and those that come.
//!
//! Each node is asked on its own, from where its records were read to. So that what comes late, and what comes at a
//! timestamp that has been seen, is neither lost nor printed twice, a look begins a little earlier than the last one ended,
//! and of each timestamp so many records are passed over as have been printed: a node keeps their order.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, Write as _};
use std::net::SocketAddrV4;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use overstory_client::dls::{Filter, Order};
use overstory_client::{ClientConfig, DlsClient, Error, Registry};
use overstory_runtime::program;
use tokio::time::sleep;

use super::{Tail, write};
use crate::swarm::commands::Out;
use crate::swarm::{FAILED, NOT_FOUND, USAGE};

/// Timestamps whose records are counted, per node.
const COUNTED: usize = 1 << 20;
/// Bytes of records that are sorted before they are printed.
const SORTED: usize = 4 << 20;
/// How far the search for the last records looks back at first, in seconds, and how much further each time.
const REACH: i64 = 60;
const FURTHER: i64 = 8;

/// Prints the last records; with `--follow` goes on with those that come.
pub(super) async fn run(config: &ClientConfig, tail: &Tail, out: Out) -> anyhow::Result<u8> {
    let mut nodes = Vec::new();
    for &node in config.nodes.nodes() {
        nodes.push(Node::new(config, node, tail)?);
    }
    let now = tail.unit.unit.now();
    let number = tail.number as usize;
    let told = join_all(nodes.iter_mut().map(|node| async move { (node.last(number, now).await, node.address) })).await;
    let (mut last, mut failed, mut refused) = (Vec::new(), 0, 0);
    for (answer, _) in told {
        match answer {
            Ok((records, left_out)) => {
                last.extend(records);
                if let Some(error) = left_out {
                    eprintln!("swarm: {error}");
                    failed += 1;
                }
            }
            Err(error) => {
                eprintln!("swarm: {error}");
                failed += 1;
                refused += usize::from(is_refused(&error));
            }
        }
    }
    last.sort_by_key(|(timestamp, _)| *timestamp);
    let sink = RefCell::new(Sink { out, tail, waiting: Vec::new(), bytes: 0, failure: None });
    let beyond = last.len().saturating_sub(number);
    let printed = last.len() - beyond;
    for (timestamp, value) in last.into_iter().skip(beyond) {
        sink.borrow_mut().add(timestamp, value);
    }
    sink.borrow_mut().flush()?;
    if refused == nodes.len() {
        return Ok(USAGE);
    }
    if !tail.follow {
        return Ok(match (failed, printed) {
            (0, 0) if number > 0 => NOT_FOUND,
            (0, _) => 0,
            _ => FAILED,
        });
    }
    let follow = try_join_all(nodes.iter_mut().map(|node| node.follow(tail, &sink)));
    let mut interrupted = pin!(program::interrupted());
    tokio::select! {
        biased;
        interrupted = &mut interrupted => interrupted?,
        ended = follow => drop(ended?),
    }
    Ok(0)
}

/// The refusal of a filter, which no patience changes.
fn is_refused(error: &Error) -> bool {
    match error {
        Error::FilterRefused { .. } => true,
        Error::Incomplete { missing } => missing.iter().all(|(_, error)| is_refused(error)),
        _ => false,
    }
}

/// Where records are printed.
struct Sink<'a> {
    out: Out,
    tail: &'a Tail,
    waiting: Vec<(i64, Vec<u8>)>,
    bytes: usize,
    /// Why nothing more can be printed.
    failure: Option<io::Error>,
}

impl Sink<'_> {
    fn add(&mut self, timestamp: i64, value: Vec<u8>) {
        self.bytes += value.len() + size_of::<(i64, Vec<u8>)>();
        self.waiting.push((timestamp, value));
        if self.bytes > SORTED {
            self.failure = self.flush().err();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.waiting.sort_by_key(|(timestamp, _)| *timestamp);
        for (timestamp, value) in self.waiting.drain(..) {
            write(self.tail.records, &mut self.out, timestamp, &value)?;
        }
        self.bytes = 0;
        self.out.flush()
    }
}

/// One node, and how far it was read.
struct Node {
    address: SocketAddrV4,
    client: DlsClient,
    channel: String,
    filter: Filter,
    seen: Seen,
    /// What a second of the channel's time is.
    second: i64,
    /// So much of the channel's time is looked at again.
    overlap: i64,
    away: bool,
    /// That it leaves records out was said.
    short: bool,
}

/// What a node left out of an answer that is complete otherwise.
type LeftOut = Option<Error>;

/// The records that were read, by timestamp.
#[derive(Debug, Default)]
struct Seen {
    /// Where the next look begins.
    low: i64,
    newest: Option<i64>,
    counts: BTreeMap<i64, u64>,
}

impl Seen {
    /// What was read by a look that is complete: the next one begins shortly before its end.
    fn complete(self, overlap: i64) -> Self {
        let Self { low, newest, mut counts } = self;
        let Some(newest) = newest else { return Self { low, newest, counts } };
        let low = low.max(newest.saturating_sub(overlap));
        let counts = counts.split_off(&low);
        Self { low, newest: Some(newest), counts }
    }

    /// Notes a record; says which one of its timestamp it is, from 1 on.
    fn add(&mut self, timestamp: i64) -> u64 {
        self.newest = self.newest.max(Some(timestamp));
        let count = self.counts.entry(timestamp).or_default();
        *count += 1;
        let number = *count;
        if self.counts.len() > COUNTED
            && let Some((oldest, _)) = self.counts.pop_first()
        {
            self.low = self.low.max(oldest.saturating_add(1));
        }
        number
    }
}

impl Node {
    fn new(config: &ClientConfig, address: SocketAddrV4, tail: &Tail) -> anyhow::Result<Self> {
        let mut nodes = Registry::new();
        nodes.add(address)?;
        let client = DlsClient::start(ClientConfig { nodes, ..config.clone() })?;
        let second = tail.unit.unit.per_second();
        let overlap = if tail.follow { tail.lookback.saturating_mul(second) } else { 0 };
        let (channel, filter) = (tail.channel.clone(), tail.matching.filter());
        let seen = Seen::default();
        Ok(Self { address, client, channel, filter, seen, second, overlap, away: false, short: false })
    }

    /// The last records, `number` of them at most, in order; from here on it is followed.
    async fn last(&mut self, number: usize, now: i64) -> Result<(Vec<(i64, Vec<u8>)>, LeftOut), Error> {
        // If it cannot be asked now, what has come since then is news.
        self.seen.low = now;
        let low = self.search(number, now).await?;
        // What may come late is told from what has been there.
        self.seen.low = low.min(now).saturating_sub(self.overlap);
        let mut newest = BinaryHeap::new();
        let mut order = 0u64;
        let look = self.look(|timestamp, value| {
            order += 1;
            if timestamp >= low {
                newest.push(Reverse((timestamp, order, value.to_vec())));
            }
            if newest.len() > number {
                newest.pop();
            }
        });
        let left_out = look.await?;
        self.short = left_out.is_some();
        let sorted = newest.into_sorted_vec().into_iter().rev();
        Ok((sorted.map(|Reverse((timestamp, _, value))| (timestamp, value)).collect(), left_out))
    }

    /// The highest timestamp from which on there are so many records, or the lowest one of all. What lies above the range
    /// that is searched has fewer, and is not read again.
    async fn search(&self, number: usize, now: i64) -> Result<i64, Error> {
        let (mut missing, mut top) = (number as u64, i64::MAX);
        if missing == 0 {
            return Ok(i64::MAX);
        }
        let (mut low, mut reach) = (now.saturating_add(1), self.second.saturating_mul(REACH));
        let mut floor = loop {
            match self.count(low, top, missing).await? {
                found if found >= missing => break low,
                _ if low == i64::MIN => return Ok(i64::MIN),
                found => missing -= found,
            }
            top = low - 1;
            low = now.checked_sub(reach).unwrap_or(i64::MIN);
            reach = reach.checked_mul(FURTHER).unwrap_or(i64::MAX);
            // The rest, of which there is nothing in most channels.
            if low < 0 || reach == i64::MAX {
                low = i64::MIN;
            }
        };
        while floor < top {
            let middle = floor.midpoint(top).max(floor.saturating_add(1));
            match self.count(middle, top, missing).await? {
                found if found >= missing => floor = middle,
                found => {
                    missing -= found;
                    top = middle - 1;
                }
            }
        }
        Ok(floor)
    }

    /// How many records there are in a range; if there are more than `most`, that is enough.
    async fn count(&self, low: i64, high: i64, most: u64) -> Result<u64, Error> {
        let mut records = self.client.get_range(&self.channel, low, high, self.filter.clone(), Order::AsTheyCome)?;
        let mut found = 0;
        while found < most
            && let Some(batch) = records.next().await
        {
            match batch.map_err(first) {
                Ok(batch) => found += batch.len() as u64,
                // It is told of what is printed.
                Err(Error::LeftOut { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Prints what comes, for ever. A node that is away is named once and asked again.
    async fn follow(&mut self, tail: &Tail, sink: &RefCell<Sink<'_>>) -> anyhow::Result<()> {
        loop {
            sleep(Duration::from_secs_f64(tail.interval)).await;
            let looked = self.look(|timestamp, value| sink.borrow_mut().add(timestamp, value.to_vec())).await;
            sink.borrow_mut().flush()?;
            match looked {
                Ok(left_out) => {
                    self.away = false;
                    if let Some(error) = left_out
                        && !std::mem::replace(&mut self.short, true)
                    {
                        eprintln!("swarm: {error}");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.away, true) {
                        eprintln!("swarm: {error}; trying again");
                    }
                }
            }
        }
    }

    /// Reads what is new.
    async fn look(&mut self, mut each: impl FnMut(i64, &[u8])) -> Result<LeftOut, Error> {
        let before = &self.seen;
        let mut now = Seen { low: before.low, newest: before.newest, counts: BTreeMap::new() };
        let (low, filter) = (before.low, self.filter.clone());
        let mut records = self.client.get_range(&self.channel, low, i64::MAX, filter, Order::AsTheyCome)?;
        let mut failure = None;
        while let Some(batch) = records.next().await {
            match batch {
                Ok(batch) => {
                    for (timestamp, value) in batch.records() {
                        let number = now.add(timestamp);
                        if before.counts.get(&timestamp).is_none_or(|&count| number > count) {
                            each(timestamp, value);
                        }
                    }
                }
                Err(error) => failure = Some(first(error)),
            }
        }
        match failure {
            left_out @ (None | Some(Error::LeftOut { .. })) => {
                self.seen = now.complete(self.overlap);
                Ok(left_out)
            }
            // Not all has come: what did is not printed again.
            Some(error) => {
                for (timestamp, count) in now.counts {
                    let counted = self.seen.counts.entry(timestamp).or_default();
                    *counted = count.max(*counted);
                }
                Err(error)
            }
        }
    }
}

/// What is wrong with the one node that was asked.
fn first(error: Error) -> Error {
    match &error {
        Error::Incomplete { missing } => missing.first().map_or(error.clone(), |(_, cause)| cause.clone()),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_begins_shortly_before_the_newest_record_and_keeps_the_counts_from_there_on() {
        let mut seen = Seen { low: 10, ..Seen::default() };
        assert_eq!((seen.add(10), seen.add(20), seen.add(20), seen.add(19), seen.add(10)), (1, 1, 2, 1, 2));
        let seen = seen.complete(2);
        assert_eq!((seen.low, seen.newest), (18, Some(20)));
        assert_eq!(seen.counts.into_iter().collect::<Vec<_>>(), [(19, 1), (20, 2)]);
        let nothing = Seen { low: 18, newest: Some(20), counts: BTreeMap::new() }.complete(2);
        assert_eq!((nothing.low, nothing.newest), (18, Some(20)));
    }

    #[test]
    fn more_timestamps_than_are_counted_are_not_looked_at_again() {
        let mut seen = Seen::default();
        for timestamp in 0..=COUNTED as i64 {
            seen.add(timestamp);
        }
        assert_eq!((seen.counts.len(), seen.low), (COUNTED, 1));
    }
}

//! Giving a part of the records away (protocol §1.7, §3.3).
//!
//! Bucket by bucket, with the probability that was asked for: everything that was put before is brought to the file,
//! and the records of the file are sent. When a node has answered Ok to each of them, and all that are known to be in
//! the file were among them, it is asked by an empty batch, for many buckets at once, whether they are durable: a node of
//! this kind answers Ok when they are. Only then that part of the file is removed. What is put meanwhile stays.
//!
//! Whatever dies when, a record is at one node at least. It is at two when an answer was lost, when a node has refused a
//! batch in the middle, when its connection broke before it was asked, or when this node dies before the removal: a batch
//! is then sent again. The receiver cannot tell it from one that is the same by chance: records may be there as often as
//! they were put.
//!
//! A bucket with records that no node takes, because they lie outside of all ranges or have no value, stays.
//!
//! It goes on when the client that asked for it has gone, and ends where it is when the node stops.

mod targets;

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overstory_model::State;
use overstory_node::inspect::Finding;
use overstory_node::wake::{Sleeper, Waker};
use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::{MAX_BATCH, code};
use overstory_swarm::wire::{Reader, put_array};
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use self::targets::{Connection, Targets};
use super::core::{Action, Core};
use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::catalogue::Entry;
use crate::filter::Filter;
use crate::read::{After, BucketView, Next, ReadRequest, Scan, Shape, Views};
use crate::storage::Unwritten;

/// From an attempt that failed to the next one.
const RETRY: Duration = Duration::from_secs(2);

/// How long nodes may not take what is sent until that is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// So often it is tried to read a bucket, or to remove what was sent of it. Nodes are tried for ever.
const ATTEMPTS: u32 = 30;

/// Channels or buckets that are looked at in one go.
const PORTION: usize = 1000;

/// Buckets, and bytes of values in them, that are sent before it is asked whether they are durable.
const UNCONFIRMED: usize = 250;
const UNCONFIRMED_BYTES: u64 = 8 << 20;

/// So often a bucket is sent to nodes that then do not say that it is durable.
const SENDINGS: u32 = 5;

/// The redistribution of a node, if one is running.
#[derive(Default)]
pub(super) struct Redistribution {
    task: RefCell<Option<AbortHandle>>,
    /// How many buckets the last one was to move and did not, and which the last of them is.
    kept: RefCell<Option<(u64, String)>>,
    /// Since when no node has taken what is to be sent, and what the last one said.
    waits: RefCell<Option<(Instant, String)>>,
}

impl Redistribution {
    fn running(&self) -> bool {
        self.task.borrow().as_ref().is_some_and(|task| !task.is_finished())
    }

    fn keeps(&self, channel: &str, number: BucketNumber) {
        let mut kept = self.kept.borrow_mut();
        let count = kept.take().map_or(0, |(count, _)| count);
        *kept = Some((count + 1, format!("{channel}/{number}")));
    }

    /// A node did not take what is to be sent.
    fn waits(&self, problem: String) {
        let mut waits = self.waits.borrow_mut();
        let since = waits.take().map_or_else(Instant::now, |(since, _)| since);
        *waits = Some((since, problem));
    }

    /// What is to be told of it.
    pub(super) fn finding(&self) -> Option<Finding> {
        if let Some((since, problem)) = &*self.waits.borrow()
            && since.elapsed() >= PATIENCE
        {
            let text = format!("no node takes what a redistribution sends: {problem}");
            return Some(Finding { check: "redistribution", state: State::Minor, text });
        }
        let kept = self.kept.borrow();
        let (count, last) = kept.as_ref()?;
        let text = format!("{count} buckets that were to be sent away are still here, {last} among them, see root.log");
        Some(Finding { check: "redistribution", state: State::Minor, text })
    }

    /// Ends it where it is: what was not sent yet stays here.
    pub(super) fn stop(&self) {
        self.waits.take();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Begins one; the receiver gets the final status.
///
/// # Errors
/// It cannot be done: why, for the log. Nothing has changed then.
pub(super) fn start(
    core: &Rc<Core>,
    fraction: f32,
    targets: Vec<SocketAddrV4>,
) -> Result<oneshot::Receiver<Status>, &'static str> {
    if core.redistribution.running() {
        return Err("another redistribution is running");
    }
    // This holds for no NaN.
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err("the fraction is not above 0 and at most 1");
    }
    if targets.is_empty() {
        return Err("no nodes");
    }
    if targets.contains(&core.settings.address) {
        return Err("a target is this node");
    }
    info!(target: "node.request", fraction, targets = targets.len(), "redistribution begins");
    core.redistribution.kept.take();
    let (done, status) = oneshot::channel();
    let task = tokio::task::spawn_local(run(Rc::clone(core), fraction, Targets::new(targets), done));
    core.redistribution.task.replace(Some(task.abort_handle()));
    Ok(status)
}

async fn run(core: Rc<Core>, fraction: f32, mut targets: Targets, done: oneshot::Sender<Status>) {
    let begun = Instant::now();
    let mut last: Option<Box<str>> = None;
    let (mut sent, mut ended) = (Vec::new(), Ended::default());
    loop {
        let channels = core.storage.channels(last.as_deref(), PORTION);
        for channel in &channels {
            let mut behind = None;
            loop {
                let numbers = core.storage.bucket_numbers(channel, behind, PORTION);
                let Some(end) = numbers.last().copied() else { break };
                for number in numbers {
                    if rand::rng().random::<f32>() >= fraction {
                        continue;
                    }
                    let given = give_away(&core, channel, number, &mut targets, 1).await;
                    ended.take(&core, channel, number, given, &mut sent);
                    let bytes: u64 = sent.iter().map(|sent: &Sent| sent.entry.bytes).sum();
                    if sent.len() >= UNCONFIRMED || bytes >= UNCONFIRMED_BYTES {
                        confirm(&core, &mut targets, &mut sent, &mut ended).await;
                    }
                }
                behind = Some(end);
            }
        }
        last = channels.last().cloned();
        if last.is_none() {
            break;
        }
    }
    confirm(&core, &mut targets, &mut sent, &mut ended).await;
    let Ended { moved: buckets, kept } = ended;
    info!(
        target: "node.request",
        buckets, kept, seconds = begun.elapsed().as_secs_f64(), "redistribution finished"
    );
    // The client may have gone.
    let _ = done.send(Status::Ok);
}

/// What became of a bucket.
enum Given {
    /// There is nothing of it here any more.
    Moved,
    Kept,
    /// Nodes have taken it, which may not have made it durable.
    Sent(Box<Sent>),
}

/// A bucket that nodes have taken.
struct Sent {
    view: BucketView,
    entry: Entry,
    /// By which connections.
    by: Vec<Connection>,
    /// How often it was sent.
    times: u32,
}

/// How many buckets have gone and stayed.
#[derive(Default)]
struct Ended {
    moved: u64,
    kept: u64,
}

impl Ended {
    fn take(&mut self, core: &Core, channel: &str, number: BucketNumber, given: Given, sent: &mut Vec<Sent>) {
        match given {
            Given::Moved => self.moved += 1,
            Given::Kept => {
                self.kept += 1;
                core.redistribution.keeps(channel, number);
            }
            Given::Sent(one) => sent.push(*one),
        }
    }
}

/// Removes what was sent when those that have it say that it is durable. What they do not say that of is sent again.
async fn confirm(core: &Core, targets: &mut Targets, sent: &mut Vec<Sent>, ended: &mut Ended) {
    while !sent.is_empty() {
        let by_all = sent.iter().flat_map(|sent| sent.by.iter().map(|by| (*by, &sent.view.channel)));
        let good = targets.confirm(by_all).await;
        let mut again = Vec::new();
        for one in std::mem::take(sent) {
            let channel = Arc::clone(&one.view.channel);
            let is_durable = one.by.iter().all(|by| good.contains(&(*by, Arc::clone(&channel))));
            if is_durable {
                let number = one.view.number;
                let given = take_away(core, one).await;
                ended.take(core, &channel, number, given, &mut again);
            } else {
                again.push(one);
            }
        }
        for one in again {
            let (channel, number, times) = (Arc::clone(&one.view.channel), one.view.number, one.times);
            warn!(target: "node.request", channel = &*channel, bucket = %number, times, "bucket sent, but not known to be durable");
            let given = if times < SENDINGS {
                give_away(core, &channel, number, targets, times + 1).await
            } else {
                Given::Kept
            };
            ended.take(core, &channel, number, given, sent);
        }
    }
}

/// Removes what has arrived.
async fn take_away(core: &Core, sent: Sent) -> Given {
    let Sent { view, entry, .. } = sent;
    core.count(Action::Redistributed, entry.records, entry.bytes);
    // Whatever is wrong here, it is not sent once more.
    for _ in 0..ATTEMPTS {
        let Err(problem) = core.storage.take_front(&view, &entry).await else { return Given::Moved };
        warn!(
            target: "node.request",
            channel = &*view.channel, bucket = %view.number, %problem, "bucket sent away and still here"
        );
        tokio::time::sleep(RETRY).await;
    }
    Given::Kept
}

/// Sends a bucket away, however long it takes until a node has it.
async fn give_away(core: &Core, channel: &str, number: BucketNumber, targets: &mut Targets, times: u32) -> Given {
    targets.next();
    for _ in 0..ATTEMPTS {
        match attempt(core, channel, number, targets).await {
            Ok(Attempt::Sent(view, entry)) => {
                return Given::Sent(Box::new(Sent { view, entry, by: targets.taken_by(), times }));
            }
            Ok(Attempt::Gone) => return Given::Moved,
            Ok(Attempt::Stays) => return Given::Kept,
            Err(Again(problem)) => {
                warn!(target: "node.request", channel, bucket = %number, problem, "bucket not sent away");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    Given::Kept
}

/// It did not work, for a reason that may go away.
struct Again(String);

impl From<Unwritten> for Again {
    fn from(problem: Unwritten) -> Self {
        Self(problem.to_string())
    }
}

/// How an attempt has ended.
enum Attempt {
    Gone,
    Stays,
    Sent(BucketView, Entry),
}

async fn attempt(core: &Core, channel: &str, number: BucketNumber, targets: &mut Targets) -> Result<Attempt, Again> {
    let Some((mut view, mut entry)) = core.storage.file_view(channel, number).await? else { return Ok(Attempt::Gone) };
    if !entry.counted {
        core.storage.rescan(channel, number).await?;
        let Some(again) = core.storage.file_view(channel, number).await? else { return Ok(Attempt::Gone) };
        (view, entry) = again;
    }
    if entry.records == 0 {
        return Ok(Attempt::Gone);
    }
    if lacks_value(core, view.clone()).await? {
        warn!(
            target: "node.request",
            channel, bucket = %number, records = entry.records,
            "bucket kept here: it has a record without a value, which no node takes from another"
        );
        return Ok(Attempt::Stays);
    }
    targets.begin();
    let (sent, refused) = send(core, view.clone(), targets).await?;
    if refused || sent != (entry.records, entry.bytes) {
        keep(core, channel, number, &entry, (sent.0, refused));
        return Ok(Attempt::Stays);
    }
    Ok(Attempt::Sent(view, entry))
}

/// Leaves a bucket where it is: removing it would remove what nobody could read, or nobody takes.
fn keep(core: &Core, channel: &str, number: BucketNumber, entry: &Entry, (sent, refused): (u64, bool)) {
    // The channel may have been removed meanwhile.
    if core.storage.entry(channel, number).is_none() {
        return;
    }
    let records = entry.records;
    if refused {
        warn!(
            target: "node.request",
            channel, bucket = %number, records, sent, "bucket kept here: no node takes all of its records"
        );
    } else {
        warn!(
            target: "node.request",
            channel, bucket = %number, records, sent,
            "bucket sent away and kept here too: a part of it cannot be read"
        );
    }
}

/// Sends the records of a file; how many, and the bytes of their values, and whether it ended because no node takes more.
async fn send(core: &Core, view: BucketView, targets: &mut Targets) -> Result<((u64, u64), bool), Again> {
    let (waker, sleeper) = Sleeper::new();
    let channel = Arc::clone(&view.channel);
    let compress = targets.addresses().any(|address| core.settings.compresses(address));
    let mut scan = read(core, view, compress, waker);
    let (mut records, mut bytes, mut message) = (0, 0, Vec::new());
    loop {
        match scan.poll() {
            Next::Batch(batch) => {
                message.clear();
                message.extend_from_slice(&code::PUT_BATCH.to_le_bytes());
                put_array(&mut message, channel.as_bytes());
                // It is an array already.
                message.extend_from_slice(&batch);
                if !targets.send(&message, &core.redistribution).await {
                    return Ok(((records, bytes), true));
                }
                records += batch.records();
                bytes += batch.value_bytes();
            }
            Next::Wait => sleeper.sleep().await,
            Next::End => return Ok(((records, bytes), false)),
            Next::Failed => return Err(unread()),
        }
    }
}

/// Whether there is a record without a value: neo puts such, and PutBatch cannot carry them. Looked for before anything is
/// sent, so that no part of the bucket is at two nodes.
async fn lacks_value(core: &Core, view: BucketView) -> Result<bool, Again> {
    let (waker, sleeper) = Sleeper::new();
    let mut scan = read(core, view, false, waker);
    let mut plain = Vec::new();
    loop {
        match scan.poll() {
            Next::Batch(bytes) => {
                plain.clear();
                let payload = Reader::new(&bytes).array().map_err(|_| unread())?;
                batch::decode(payload, MAX_BATCH, &mut plain).map_err(|_| unread())?;
                if Pairs::new(&plain).flatten().any(|(_, value)| value.is_empty()) {
                    return Ok(true);
                }
            }
            Next::Wait => sleeper.sleep().await,
            Next::End => return Ok(false),
            Next::Failed => return Err(unread()),
        }
    }
}

fn unread() -> Again {
    Again("the bucket could not be read to its end".to_owned())
}

/// Reads all of a bucket.
fn read(core: &Core, view: BucketView, compress: bool, waker: Waker) -> Scan {
    let range = KeyRange { low: view.number.first_key(), high: view.number.last_key() };
    let (channel, ranges, filter) = (Arc::clone(&view.channel), Ranges::one(range), Filter::none());
    let request = ReadRequest { channel, ranges, filter, shape: Shape::Legacy, compress };
    core.reads.start(Rc::new(OneBucket(view)), request, waker)
}

/// What is to be read: one bucket, as it was.
struct OneBucket(BucketView);

impl Views for OneBucket {
    fn views(&self, _: &str, _: &Ranges, after: Option<After>, _: usize, out: &mut Vec<BucketView>) {
        if after.is_none() {
            out.push(self.0.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_nodes_take_nothing_is_told_after_a_minute_and_until_one_does() {
        let redistribution = Redistribution::default();
        let told = || redistribution.finding().map(|finding| finding.text);
        redistribution.waits("first".to_owned());
        tokio::time::advance(PATIENCE / 2).await;
        redistribution.waits("away".to_owned());
        assert_eq!(told(), None);
        tokio::time::advance(PATIENCE / 2).await;
        assert_eq!(told().as_deref(), Some("no node takes what a redistribution sends: away"));
        redistribution.waits.take();
        redistribution.keeps("c", BucketNumber::of(0));
        assert!(told().is_some_and(|text| text.starts_with("1 buckets")));
    }
}

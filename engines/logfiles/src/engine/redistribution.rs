//! Giving a part of the records away (protocol §1.7, §3.3).
//!
//! Bucket by bucket, with the probability that was asked for: everything that was put before is brought to the file,
//! the records of the file are sent, and only when a node has answered Ok to each of them, and all that are known to be in
//! the file were among them, that part of the file is removed. What is put meanwhile stays.
//!
//! Whatever dies when, a record is at one node at least. It is at two when an answer was lost, when a node has refused a
//! batch in the middle, or when this node dies between the last answer and the removal: a batch is then sent again.
//!
//! It goes on when the client that asked for it has gone, and ends where it is when the node stops.

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overstory_node::peer_node::PeerNode;
use overstory_node::throttle::Throttle;
use overstory_node::wake::Sleeper;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::code;
use overstory_swarm::wire::put_array;
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::core::{Action, Core};
use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::catalogue::Entry;
use crate::filter::Filter;
use crate::read::{After, BucketView, Next, ReadRequest, Shape, Views};
use crate::storage::Unwritten;

/// From an attempt that failed to the next one.
const RETRY: Duration = Duration::from_secs(2);

/// Channels or buckets that are looked at in one go.
const PORTION: usize = 1000;

/// The redistribution of a node, if one is running.
#[derive(Default)]
pub(super) struct Redistribution {
    task: RefCell<Option<AbortHandle>>,
}

impl Redistribution {
    fn running(&self) -> bool {
        self.task.borrow().as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Ends it where it is: what was not sent yet stays here.
    pub(super) fn stop(&self) {
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
    let (done, status) = oneshot::channel();
    let task = tokio::task::spawn_local(run(Rc::clone(core), fraction, Targets::new(targets), done));
    core.redistribution.task.replace(Some(task.abort_handle()));
    Ok(status)
}

async fn run(core: Rc<Core>, fraction: f32, mut targets: Targets, done: oneshot::Sender<Status>) {
    let begun = Instant::now();
    let mut last: Option<Box<str>> = None;
    let (mut buckets, mut kept) = (0_u64, 0_u64);
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
                    match give_away(&core, channel, number, &mut targets).await {
                        Given::Moved => buckets += 1,
                        Given::Kept => kept += 1,
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
    info!(
        target: "node.request",
        buckets, kept, seconds = begun.elapsed().as_secs_f64(), "redistribution finished"
    );
    // The client may have gone.
    let _ = done.send(Status::Ok);
}

/// What became of a bucket.
enum Given {
    Moved,
    Kept,
}

/// Sends a bucket away, however often it has to be tried.
async fn give_away(core: &Core, channel: &str, number: BucketNumber, targets: &mut Targets) -> Given {
    targets.next();
    loop {
        match attempt(core, channel, number, targets).await {
            Ok(given) => return given,
            Err(Again(problem)) => {
                warn!(target: "node.request", channel, bucket = %number, problem, "bucket not sent away: tried again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// It did not work, for a reason that may go away.
struct Again(String);

impl From<Unwritten> for Again {
    fn from(problem: Unwritten) -> Self {
        Self(problem.to_string())
    }
}

async fn attempt(core: &Core, channel: &str, number: BucketNumber, targets: &mut Targets) -> Result<Given, Again> {
    let Some((mut view, mut entry)) = core.storage.file_view(channel, number).await? else { return Ok(Given::Moved) };
    if !entry.counted {
        core.storage.rescan(channel, number).await?;
        let Some(again) = core.storage.file_view(channel, number).await? else { return Ok(Given::Moved) };
        (view, entry) = again;
    }
    if entry.records == 0 {
        return Ok(Given::Moved);
    }
    let sent = send(core, view.clone(), targets).await?;
    if sent != (entry.records, entry.bytes) {
        return Ok(keep(core, channel, number, &entry, sent.0));
    }
    core.storage.take_front(&view, &entry).await?;
    core.count(Action::Redistributed, sent.0, sent.1);
    Ok(Given::Moved)
}

/// Leaves a bucket where it is: removing it would remove what nobody could read.
fn keep(core: &Core, channel: &str, number: BucketNumber, entry: &Entry, sent: u64) -> Given {
    // The channel may have been removed meanwhile.
    if core.storage.entry(channel, number).is_some() {
        warn!(
            target: "node.request",
            channel, bucket = %number, records = entry.records, sent,
            "bucket sent away and kept here too: a part of it cannot be read"
        );
    }
    Given::Kept
}

/// Sends the records of a file; how many, and the bytes of their values.
async fn send(core: &Core, view: BucketView, targets: &mut Targets) -> Result<(u64, u64), Again> {
    let (waker, sleeper) = Sleeper::new();
    let channel = Arc::clone(&view.channel);
    let range = KeyRange { low: view.number.first_key(), high: view.number.last_key() };
    let compress = targets.nodes.iter().any(|node| core.settings.compresses(node.address()));
    let (ranges, filter, shape) = (Ranges::one(range), Filter::none(), Shape::Legacy);
    let request = ReadRequest { channel: Arc::clone(&channel), ranges, filter, shape, compress };
    let mut scan = core.reads.start(Rc::new(OneBucket(view)), request, waker);
    let (mut records, mut bytes, mut message) = (0, 0, Vec::new());
    loop {
        match scan.poll() {
            Next::Batch(batch) => {
                message.clear();
                message.extend_from_slice(&code::PUT_BATCH.to_le_bytes());
                put_array(&mut message, channel.as_bytes());
                // It is an array already.
                message.extend_from_slice(&batch);
                targets.send(&message).await;
                records += batch.records();
                bytes += batch.value_bytes();
            }
            Next::Wait => sleeper.sleep().await,
            Next::End => return Ok((records, bytes)),
            Next::Failed => return Err(Again("the bucket could not be read to its end".to_owned())),
        }
    }
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

/// Who gets the records.
struct Targets {
    nodes: Vec<PeerNode>,
    turn: usize,
    warnings: Throttle,
}

impl Targets {
    fn new(addresses: Vec<SocketAddrV4>) -> Self {
        let nodes: Vec<_> = addresses.into_iter().map(PeerNode::new).collect();
        Self { turn: nodes.len().saturating_sub(1), nodes, warnings: Throttle::default() }
    }

    /// The next bucket goes to the next node.
    fn next(&mut self) {
        self.turn = (self.turn + 1) % self.nodes.len().max(1);
    }

    /// Sends a request to the node in turn, or to another one if that does not take it, until one does.
    async fn send(&mut self, request: &[u8]) {
        let mut failed = 0;
        while let Some(node) = self.nodes.get_mut(self.turn) {
            let Err(problem) = node.send(request).await else { return };
            if self.warnings.allows() {
                warn!(
                    target: "node.request",
                    address = %node.address(), problem, "batch not taken by a node: it is sent again"
                );
            }
            self.next();
            failed += 1;
            if failed % self.nodes.len() == 0 {
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

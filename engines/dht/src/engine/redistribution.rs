//! Giving a part of the hash range away (protocol §3.1).
//!
//! Why nothing is lost or overtaken:
//! * The configuration is rewritten first, then the range is changed, then records move. From the moment of the change
//!   no request stores a key outside of the new range here, so a record that moves cannot change here any more; it can
//!   only be removed. Whatever a client puts goes to the new node at once.
//! * The new node keeps what it has when a batch comes ([`super::put_batch`]): what it has is newer.
//! * A record is removed here only after the new node has answered Ok, and only if its value still is the one that was
//!   sent. A lost reply leads to the batch being sent again, which changes nothing.
//! * Until then, and for a moment longer, the record is served from here: by legacy Get, and by neo although the key is
//!   out of the range. The moment is for clients that have asked the new node just before the record came.
//! * A client that comes meanwhile is told the former range first and then what all were told
//!   ([`Redistribution::story`]), so that it looks here too, and removes here first.
//! * A record that is removed before its batch is made is not in the batch.
//! * A removal of a record that is on its way waits for the answer of the new node ([`Redistribution::on_its_way`]):
//!   clients remove from the oldest node to the newest, so that the removal at the new node comes after the record.
//! * After a crash the records that a dump still holds are out of the new range, are served as before, and move when
//!   the redistribution is asked for again.
//!
//! It runs in slices beside the requests, and goes on when the client that asked for it has gone.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::{Duration, Instant};

use overstory_node::wake::Waker;
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::Status;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

use super::core::Core;
use super::range::RangeEvent;
use super::sender::{Pass, Sender};

/// From a pass with an error to the next one.
const RETRY: Duration = Duration::from_secs(2);

/// What neo ports are above legacy ports.
const NEO_PORT_OFFSET: u16 = 100;

/// A node that gets records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Its legacy address.
    pub(super) address: SocketAddrV4,
    pub(super) range: HashRange,
}

/// The redistribution of a node, if one is running.
#[derive(Default)]
pub(super) struct Redistribution {
    task: RefCell<Option<AbortHandle>>,
    /// What the node was responsible for before, and what clients were told then.
    story: RefCell<Option<(HashRange, Vec<RangeEvent>)>>,
    /// Bytes that the node may hold meanwhile; more is refused by PutBatch.
    limit: Cell<Option<u64>>,
    flight: RefCell<Flight>,
}

/// The batch that was sent and not answered yet.
#[derive(Default)]
struct Flight {
    number: u64,
    channel: String,
    keys: HashSet<Key>,
    waiting: Vec<Waker>,
}

impl Redistribution {
    /// Whether one is running.
    pub(super) fn running(&self) -> bool {
        self.limit.get().is_some()
    }

    /// What clients were told when it began: the range until then, and the events.
    ///
    /// A client that comes meanwhile is told the same, so that it too knows where to look for what has not moved yet.
    pub(super) fn story(&self) -> Option<(HashRange, Vec<RangeEvent>)> {
        self.story.borrow().clone()
    }

    /// Whether an incoming batch may not fill the node so far.
    pub(super) fn refuses(&self, bytes: u64) -> bool {
        self.limit.get().is_some_and(|limit| bytes > limit)
    }

    /// The number of the batch that this record is on its way in, if it is; its answer will wake `waker`.
    pub(super) fn on_its_way(&self, channel: &str, key: Key, waker: &Waker) -> Option<u64> {
        if !self.running() {
            return None;
        }
        let mut flight = self.flight.borrow_mut();
        let there = flight.channel == channel && flight.keys.contains(&key);
        there.then(|| {
            flight.waiting.push(waker.clone());
            flight.number
        })
    }

    /// Whether that batch was answered.
    pub(super) fn has_landed(&self, number: u64) -> bool {
        let flight = self.flight.borrow();
        flight.number != number || flight.keys.is_empty()
    }

    pub(super) fn takes_off(&self, channel: &str, keys: impl Iterator<Item = Key>) {
        let mut flight = self.flight.borrow_mut();
        flight.number += 1;
        channel.clone_into(&mut flight.channel);
        flight.keys.extend(keys);
    }

    pub(super) fn lands(&self) {
        let mut flight = self.flight.borrow_mut();
        flight.keys.clear();
        let waiting = std::mem::take(&mut flight.waiting);
        drop(flight);
        waiting.iter().for_each(Waker::wake);
    }

    fn over(&self) {
        self.limit.set(None);
        self.story.take();
    }

    /// Ends it where it is: what was not sent yet stays here.
    pub(super) fn stop(&self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.over();
        self.lands();
    }
}

/// Begins one; the receiver gets the final status.
///
/// # Errors
/// It cannot be done: why, for the log. Nothing has changed then.
pub(super) fn start(
    core: &Rc<Core>,
    range: HashRange,
    targets: Vec<Target>,
) -> Result<oneshot::Receiver<Status>, &'static str> {
    check(core, range, &targets)?;
    if let Err(reason) = core.hooks.save_range(range) {
        error!(target: "dhtnode.request.RedistributeRequest", reason, "hash range not written to the configuration");
        return Err("the hash range could not be written to the configuration");
    }
    info!(
        target: "dhtnode.request.RedistributeRequest",
        old = %core.range.get(), new = %range, targets = targets.len(), "redistribution begins"
    );
    let former = core.range.replace(range);
    let events = events(range, &targets);
    core.range_watchers.tell(&events);
    core.redistribution.story.replace(Some((former, events)));
    core.redistribution.limit.set(Some(memory_limit(core)));
    let (done, status) = oneshot::channel();
    let task = tokio::task::spawn_local(run(Rc::clone(core), targets, done));
    core.redistribution.task.replace(Some(task.abort_handle()));
    Ok(status)
}

fn check(core: &Core, range: HashRange, targets: &[Target]) -> Result<(), &'static str> {
    if core.redistribution.running() {
        return Err("another redistribution is running");
    }
    for (index, target) in targets.iter().enumerate() {
        if target.address == core.settings.address {
            return Err("a target is this node");
        }
        // A record that two nodes are responsible for could change at both: neither value would be the newest.
        let others = targets.iter().skip(index + 1);
        if target.range.overlaps(range) || others.into_iter().any(|other| other.range.overlaps(target.range)) {
            return Err("the hash ranges overlap");
        }
    }
    Ok(())
}

fn events(range: HashRange, targets: &[Target]) -> Vec<RangeEvent> {
    let mut events = vec![RangeEvent::Change(range)];
    for target in targets {
        match target.address.port().checked_add(NEO_PORT_OFFSET) {
            Some(port) => {
                events.push(RangeEvent::NewNode(SocketAddrV4::new(*target.address.ip(), port), target.range));
            }
            None => warn!(
                target: "dhtnode.request.RedistributeRequest",
                address = %target.address, "no neo port belongs to this port: clients are not told of the node"
            ),
        }
    }
    events
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "saturates")]
fn memory_limit(core: &Core) -> u64 {
    (core.store.borrow().totals().bytes as f64 * core.settings.redist_memory_limit_multiplier) as u64
}

async fn run(core: Rc<Core>, targets: Vec<Target>, done: oneshot::Sender<Status>) {
    let begun = Instant::now();
    let mut senders: Vec<Sender> = targets.into_iter().map(Sender::new).collect();
    let channels = core.store.borrow().channel_names();
    let mut moved = 0;
    for channel in &channels {
        loop {
            let (records, all) = Pass::new(&core, channel, &mut senders).run().await;
            moved += records;
            if all {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
    core.redistribution.over();
    core.redistribution.task.take();
    info!(
        target: "dhtnode.request.RedistributeRequest",
        records = moved, seconds = begun.elapsed().as_secs_f64(), "redistribution finished"
    );
    // The client may have gone.
    let _ = done.send(Status::Ok);
}

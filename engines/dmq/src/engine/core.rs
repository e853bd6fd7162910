//! What all requests share: the queues and what is counted.

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use overstory_node::commit::Commits;
use overstory_node::engine::Unsettled;
use overstory_node::inspect::Totals;
use overstory_node::replies::Channels;
use overstory_node::stats::{NodeStats, add};
use overstory_node::throttle::Throttle;
use overstory_node::wake::Waker;
use overstory_swarm::legacy::Limits;
use tracing::error;

use crate::disk::{DiskError, QueueId};
use crate::store::{PushError, Store, Taken};

/// A Produce that waits for room on the disk tries again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What `stats.log` counts of records, in its order.
pub(super) const ACTIONS: &[&str] = &["pushed", "popped"];

/// The index of an action in [`ACTIONS`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Pushed,
    Popped,
}

/// What an engine is told about its node.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// What the node tells of itself in GetSize, and its legacy port.
    pub address: SocketAddrV4,
}

/// The state of a node.
pub(super) struct Core {
    pub(super) store: RefCell<Store>,
    pub(super) stats: Rc<NodeStats>,
    pub(super) settings: EngineSettings,
    pub(super) commits: Option<Rc<Commits>>,
    pub(super) limits: Limits,
    pub(super) push_warnings: Throttle,
    settle_warnings: Throttle,
}

/// Why a record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has no bytes.
    Empty,
    /// There is no room for it, now or ever.
    Full,
    /// The disk fails.
    Failed,
}

/// What became of a record of a Produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sunk {
    /// It is in all queues.
    Pushed,
    /// There is no room now; the waker will be used.
    Blocked,
    /// There will never be room.
    Never,
    /// The disk fails.
    Failed,
}

impl Core {
    pub(super) fn new(
        store: Store,
        settings: EngineSettings,
        stats: Rc<NodeStats>,
        commits: Option<Rc<Commits>>,
    ) -> Self {
        Self {
            store: RefCell::new(store),
            stats,
            settings,
            commits,
            limits: Limits::DEFAULT,
            push_warnings: Throttle::default(),
            settle_warnings: Throttle::default(),
        }
    }

    /// Appends a record to all queues of a channel.
    #[inline]
    pub(super) fn push(&self, channel: &str, value: &[u8]) -> Result<(), Refused> {
        if value.is_empty() {
            return Err(Refused::Empty);
        }
        let pushed = self.store.borrow_mut().push(channel, value);
        self.pushed(pushed, value)
    }

    /// Appends a record to all queues of some channels, or to none.
    pub(super) fn push_all(&self, channels: &[&str], value: &[u8]) -> Result<(), Refused> {
        if value.is_empty() {
            return Err(Refused::Empty);
        }
        let pushed = self.store.borrow_mut().push_all(channels, value);
        self.pushed(pushed, value)
    }

    #[inline]
    fn pushed(&self, pushed: Result<u64, PushError>, value: &[u8]) -> Result<(), Refused> {
        match pushed {
            Ok(records) => {
                self.count(Action::Pushed, records, records.saturating_mul(value.len() as u64));
                Ok(())
            }
            Err(error) => Err(self.refuse(&error)),
        }
    }

    /// Says why a push was refused, where that is for the node to be looked after.
    #[cold]
    fn refuse(&self, error: &PushError) -> Refused {
        match error {
            PushError::Disk(problem) => {
                self.complain(problem);
                if matches!(problem, DiskError::Full(_)) { Refused::Full } else { Refused::Failed }
            }
            _ => Refused::Full,
        }
    }

    fn complain(&self, problem: &DiskError) {
        if self.push_warnings.allows() {
            error!(target: "node.storage", %problem, "pushes are refused");
        }
    }

    /// Appends a record of a Produce, or arranges for being woken when there is room.
    pub(super) fn sink(&self, channels: &[&str], value: &[u8], waker: &Waker) -> Sunk {
        let mut store = self.store.borrow_mut();
        let pushed = match *channels {
            [channel] => store.push(channel, value),
            _ => store.push_all(channels, value),
        };
        match pushed {
            Ok(records) => {
                self.count(Action::Pushed, records, records.saturating_mul(value.len() as u64));
                Sunk::Pushed
            }
            Err(PushError::Full { queue }) => {
                store.when_room(queue, waker.clone());
                Sunk::Blocked
            }
            Err(PushError::TooLarge) => Sunk::Never,
            Err(PushError::Disk(problem)) => {
                self.complain(&problem);
                if !matches!(problem, DiskError::Full(_)) {
                    return Sunk::Failed;
                }
                let waker = waker.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(RETRY).await;
                    waker.wake();
                });
                Sunk::Blocked
            }
        }
    }

    /// The queue of a subscriber, which is made where it is not there; nothing if that cannot be written.
    pub(super) fn subscribe(&self, channel: &str, subscriber: &str) -> Option<QueueId> {
        let subscribed = self.store.borrow_mut().subscribe(channel, subscriber);
        subscribed.inspect_err(|problem| self.complain(problem)).ok()
    }

    /// What all queues hold, in memory and on disk.
    pub(super) fn totals(&self) -> Totals {
        let totals = self.store.borrow().totals();
        Totals {
            records: totals.records_memory.saturating_add(totals.records_overflow),
            bytes: totals.bytes_memory.saturating_add(totals.bytes_overflow),
        }
    }

    /// Counts records that were taken.
    #[inline]
    pub(super) fn count_taken(&self, taken: &Taken) {
        self.count(Action::Popped, taken.to.saturating_sub(taken.from), taken.bytes);
    }

    #[inline]
    pub(super) fn count(&self, action: Action, records: u64, bytes: u64) {
        if let Some(counter) = self.stats.actions.get(action as usize) {
            add(&counter.records, records);
            add(&counter.records_total, records);
            add(&counter.bytes, bytes);
        }
    }

    /// Brings to the disk what has to be there before replies are sent.
    #[inline]
    pub(super) fn settle(&self) -> Result<(), Unsettled> {
        self.store.borrow_mut().settle().map_err(|problem| {
            if self.settle_warnings.allows() {
                error!(target: "node.storage", %problem, "replies are not sent: what they say could not be written");
            }
            Unsettled
        })
    }
}

impl Channels for Core {
    fn names(&self, after: Option<&str>, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) {
        self.store.borrow().channels(after, &mut |name, _| visit(name));
    }
}

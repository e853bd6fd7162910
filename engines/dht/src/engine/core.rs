//! What all requests share: the records, the range, and what is told to whom when they change.

use std::cell::{Cell, RefCell};
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::rc::Rc;

use overstory_node::replies::Channels;
use overstory_node::stats::{NodeStats, add};
use overstory_node::throttle::Throttle;
use overstory_swarm::batch::BatchBuilder;
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::Limits;
use tracing::warn;

use super::range::RangeWatchers;
use super::redistribution::Redistribution;
use super::watch::{Change, Watchers};
use crate::storage::{Full, Store};

/// Bytes of a value in a batch of neo GetAll: the client refuses to put more (protocol §2.4).
const NEO_VALUE: usize = 65_536 - 8 - 16;

/// Plain bytes of a batch of neo GetAll.
const NEO_BATCH: usize = 65_536;

/// A refresh batch is sent once it has so many plain bytes; its last record may pass that.
pub(super) const REFRESH_BATCH: usize = 65_536;

/// What the engine does to the world besides its answers.
pub trait Hooks {
    /// Writes a new range into the node's configuration, before anything else of it is done.
    ///
    /// # Errors
    /// It could not be written; the text goes to the log, and the range stays as it was.
    fn save_range(&self, range: HashRange) -> Result<(), String>;

    /// The channel was removed: its file is put aside.
    fn channel_removed(&self, channel: &str);
}

/// What an engine is told about its node.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// What the node tells of itself in GetSize, and its legacy port.
    pub address: SocketAddrV4,
    /// The range that the node begins with.
    pub range: HashRange,
    /// Plain bytes of a legacy batch (`batch_size`); a legacy value has at most 32 less.
    pub batch_size: usize,
    /// How far incoming batches may fill the node while it redistributes, times the bytes it held at the beginning.
    pub redist_memory_limit_multiplier: f64,
}

/// The three builders of batches, which differ in how much goes into one. Shared by all streams, since none of them
/// keeps anything in one from one turn to the next.
pub(super) struct Builders {
    pub(super) legacy: BatchBuilder,
    pub(super) neo: BatchBuilder,
    pub(super) refresh: BatchBuilder,
}

/// The state of a node.
pub(super) struct Core {
    pub(super) store: RefCell<Store>,
    pub(super) range: Cell<HashRange>,
    pub(super) watchers: Rc<Watchers>,
    pub(super) range_watchers: Rc<RangeWatchers>,
    pub(super) redistribution: Redistribution,
    pub(super) builders: RefCell<Builders>,
    /// What a PutBatch decodes to.
    pub(super) plain: RefCell<Vec<u8>>,
    pub(super) stats: Rc<NodeStats>,
    pub(super) settings: EngineSettings,
    pub(super) limits: Limits,
    pub(super) hooks: Box<dyn Hooks>,
    overflow_warnings: Throttle,
    pub(super) skip_warnings: Throttle,
}

/// The index of an action in [`super::ACTIONS`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Written,
    Read,
    Forwarded,
    Deleted,
    Iterated,
}

/// Why a record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    WrongNode,
    Empty,
    TooLong,
    Full,
}

impl From<Full> for Refused {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

impl Core {
    pub(super) fn new(store: Store, settings: EngineSettings, stats: Rc<NodeStats>, hooks: Box<dyn Hooks>) -> Self {
        let builders = Builders {
            legacy: BatchBuilder::new(settings.batch_size),
            neo: BatchBuilder::new(NEO_BATCH),
            // Two records of the largest kind fit: the last one may pass the limit.
            refresh: BatchBuilder::new(REFRESH_BATCH * 2 + 16),
        };
        Self {
            store: RefCell::new(store),
            range: Cell::new(settings.range),
            watchers: Rc::default(),
            range_watchers: Rc::default(),
            redistribution: Redistribution::default(),
            builders: RefCell::new(builders),
            plain: RefCell::default(),
            stats,
            limits: Limits::DEFAULT.with_value(settings.batch_size.saturating_sub(32)),
            settings,
            hooks,
            overflow_warnings: Throttle::default(),
            skip_warnings: Throttle::default(),
        }
    }

    /// Whether the node is responsible for the key.
    #[inline]
    pub(super) fn responsible(&self, key: Key) -> bool {
        self.range.get().contains(key)
    }

    /// Counts a record of so many bytes.
    #[inline]
    pub(super) fn count(&self, action: Action, bytes: usize) {
        if let Some(counter) = self.stats.actions.get(action as usize) {
            counter.add(bytes);
        }
    }

    /// Counts many records at once.
    pub(super) fn count_many(&self, action: Action, records: u64, bytes: u64) {
        if let Some(counter) = self.stats.actions.get(action as usize) {
            add(&counter.records, records);
            add(&counter.records_total, records);
            add(&counter.bytes, bytes);
        }
    }

    /// Bytes of a value that a neo request may store: what a client sends at most, and no more than a dump keeps.
    pub(super) fn neo_value_limit(&self) -> usize {
        NEO_VALUE.min(self.settings.batch_size)
    }

    /// Stores what a client put, and tells those who watch.
    #[inline]
    pub(super) fn put(&self, channel: &str, key: Key, value: &[u8], limit: usize) -> Result<(), Refused> {
        if !self.responsible(key) {
            return Err(Refused::WrongNode);
        }
        if value.len() > limit {
            return Err(Refused::TooLong);
        }
        if value.is_empty() {
            return Err(Refused::Empty);
        }
        self.store.borrow_mut().put(channel, key, value)?;
        self.count(Action::Written, value.len());
        self.tell(channel, Change::Put(key));
        Ok(())
    }

    /// Removes what a client wants removed, and tells those who watch. Whether it was there.
    pub(super) fn remove(&self, channel: &str, key: Key) -> bool {
        let Some(bytes) = self.store.borrow_mut().remove(channel, key) else { return false };
        self.count(Action::Deleted, bytes);
        self.tell(channel, Change::Removed(key));
        true
    }

    /// Removes a channel, and tells those who watch, whether it was there or not.
    pub(super) fn remove_channel(&self, channel: &str) {
        self.store.borrow_mut().remove_channel(channel);
        self.watchers.end(channel);
        self.hooks.channel_removed(channel);
    }

    fn tell(&self, channel: &str, change: Change) {
        let lost = self.watchers.tell(channel, change);
        if lost > 0 && self.overflow_warnings.allows() {
            warn!(
                target: "dhtnode.storage.Listeners",
                channel, clients = lost, "clients do not keep up with the changes of a channel: changes discarded"
            );
        }
    }
}

impl Channels for Core {
    fn names(&self, after: Option<&str>, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) {
        let store = self.store.borrow();
        let _ = store.names_after(after).try_for_each(visit);
    }
}

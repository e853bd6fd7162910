//! What all requests share: the records, who reads them, and what is counted.

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use overstory_node::commit::Commits;
use overstory_node::engine::Peer;
use overstory_node::inspect::Totals;
use overstory_node::replies::Channels;
use overstory_node::stats::{NodeStats, add};
use overstory_node::throttle::Throttle;
use overstory_node::wake::Waker;
use overstory_swarm::legacy::Limits;
use overstory_swarm::legacy::dls::MAX_BATCH;
use tracing::error;

use super::redistribution::Redistribution;
use crate::bucket::{KeyRange, Ranges};
use crate::config::Compress;
use crate::filter::Filter;
use crate::read::{ReadRequest, Reads, Scan, Shape, Views};
use crate::storage::{PutError, Storage};

/// What `stats.log` counts of records, in its order.
pub(super) const ACTIONS: &[&str] = &["handled", "redistributed"];

/// Names of channels that are looked at in one go.
const NAMES: usize = 1000;

/// The index of an action in [`ACTIONS`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Handled,
    Redistributed,
}

/// What an engine is told about its node.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// What the node tells of itself in GetSize, and its legacy port.
    pub address: SocketAddrV4,
    /// The keys that it takes.
    pub range: KeyRange,
    /// Whether batches are compressed.
    pub compress: Compress,
}

impl EngineSettings {
    /// Whether what goes to this address is compressed.
    pub(super) const fn compresses(&self, to: SocketAddrV4) -> bool {
        match self.compress {
            Compress::Auto => !to.ip().is_loopback(),
            Compress::Always => true,
            Compress::Never => false,
        }
    }
}

/// The state of a node.
pub(super) struct Core {
    pub(super) storage: Rc<Storage>,
    pub(super) reads: Reads,
    pub(super) settings: EngineSettings,
    pub(super) stats: Rc<NodeStats>,
    pub(super) commits: Rc<Commits>,
    pub(super) limits: Limits,
    pub(super) redistribution: Redistribution,
    /// What a PutBatch decodes to.
    pub(super) plain: RefCell<Vec<u8>>,
    put_warnings: Throttle,
}

/// Why a record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its key is not one of this node's.
    WrongNode,
    /// It is too large, or could not be told from zeros.
    Invalid,
    /// There is no room for it now.
    NoRoom,
    /// The disk fails.
    Failed,
}

impl Core {
    pub(super) fn new(
        storage: Rc<Storage>,
        reads: Reads,
        settings: EngineSettings,
        stats: Rc<NodeStats>,
        commits: Rc<Commits>,
    ) -> Self {
        // A batch that does not compress is a little longer than its content.
        let array = MAX_BATCH + MAX_BATCH / 16;
        Self {
            storage,
            reads,
            settings,
            stats,
            commits,
            limits: Limits { array, request: array + (2 << 20), ..Limits::DEFAULT },
            redistribution: Redistribution::default(),
            plain: RefCell::default(),
            put_warnings: Throttle::default(),
        }
    }

    /// Appends a record to a channel.
    #[inline]
    pub(super) fn put(&self, channel: &str, key: u64, value: &[u8]) -> Result<(), Refused> {
        if !self.settings.range.holds(key) {
            return Err(Refused::WrongNode);
        }
        match self.storage.put(channel, key, value) {
            Ok(()) => {
                self.count(Action::Handled, 1, value.len() as u64);
                Ok(())
            }
            Err(error) => Err(self.refuse(error)),
        }
    }

    #[cold]
    fn refuse(&self, problem: PutError) -> Refused {
        let refused = match problem {
            PutError::Invalid => return Refused::Invalid,
            PutError::NoSpace | PutError::Overloaded => Refused::NoRoom,
            PutError::Failed | PutError::Bucket => Refused::Failed,
        };
        if self.put_warnings.allows() {
            error!(target: "node.storage", %problem, "puts are refused");
        }
        refused
    }

    /// Begins to read records for a client.
    pub(super) fn read(
        &self,
        channel: &str,
        ranges: Ranges,
        filter: Filter,
        shape: Shape,
        peer: &Peer,
        waker: &Waker,
    ) -> Scan {
        let compress = self.settings.compresses(peer.address);
        let request = ReadRequest { channel: Arc::from(channel), ranges, filter, shape, compress };
        let views: Rc<dyn Views> = Rc::<Storage>::clone(&self.storage);
        self.reads.start(views, request, waker.clone())
    }

    /// What all channels hold.
    pub(super) fn totals(&self) -> Totals {
        let totals = self.storage.totals();
        Totals { records: totals.records, bytes: totals.bytes }
    }

    #[inline]
    pub(super) fn count(&self, action: Action, records: u64, bytes: u64) {
        if let Some(counter) = self.stats.actions.get(action as usize) {
            add(&counter.records, records);
            add(&counter.records_total, records);
            add(&counter.bytes, bytes);
        }
    }
}

impl Channels for Core {
    fn names(&self, after: Option<&str>, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) {
        let mut names = self.storage.channels(after, NAMES);
        while !names.is_empty() {
            if names.iter().any(|name| visit(name).is_break()) || names.len() < NAMES {
                return;
            }
            names = self.storage.channels(names.last().map(AsRef::as_ref), NAMES);
        }
    }
}

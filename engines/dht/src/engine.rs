//! What a dht node answers: all requests of both protocols over one [`Store`].

mod core;
mod dumps;
mod get_all;
mod inspect;
mod iterate;
mod legacy;
mod legacy_streams;
mod mirror;
mod neo;
mod put_batch;
mod range;
mod redistribution;
mod sender;
mod update;
mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, Peer, Support};
use overstory_node::inspect::DumpFacts;
use overstory_node::stats::{NodeStats, RequestSpec};
use overstory_node::wake::Waker;
use overstory_swarm::key::HashRange;
use overstory_swarm::neo::Replies;

pub use self::core::{EngineSettings, Hooks};
pub use self::dumps::Dumps;
pub use self::watch::{LISTEN_QUEUE, MIRROR_QUEUE};

use self::core::Core;
use crate::storage::Store;

/// What `stats.log` counts of records, in its order.
const ACTIONS: &[&str] = &["written", "read", "forwarded", "deleted", "iterated"];

/// The engine of a dht node.
pub struct DhtEngine {
    core: Rc<Core>,
    load_rejected: Cell<u64>,
    dump_facts: RefCell<DumpFacts>,
    dumps: RefCell<Option<Dumps>>,
    backup_problem: RefCell<Option<String>>,
}

impl DhtEngine {
    /// Makes an engine of what was loaded.
    #[must_use]
    pub fn new(store: Store, settings: EngineSettings, stats: Rc<NodeStats>, hooks: Box<dyn Hooks>) -> Self {
        Self {
            core: Rc::new(Core::new(store, settings, stats, hooks)),
            load_rejected: Cell::new(0),
            dump_facts: RefCell::default(),
            dumps: RefCell::default(),
            backup_problem: RefCell::default(),
        }
    }

    /// The range that the node is responsible for now.
    #[must_use]
    pub fn range(&self) -> HashRange {
        self.core.range.get()
    }

    /// The records. Never borrowed across an `await`.
    #[must_use]
    pub fn store(&self) -> &RefCell<Store> {
        &self.core.store
    }

    /// Whether a redistribution is running.
    #[must_use]
    pub fn redistributing(&self) -> bool {
        self.core.redistribution.running()
    }

    /// Ends what goes on by itself: a redistribution stays where it is.
    pub fn stop(&self) {
        self.core.redistribution.stop();
    }
}

impl Engine for DhtEngine {
    const LEGACY_REQUESTS: &'static [RequestSpec] = legacy::REQUESTS;
    const NEO_REQUESTS: &'static [RequestSpec] = neo::REQUESTS;
    const ACTIONS: &'static [&'static str] = ACTIONS;

    #[inline]
    fn legacy(&self, _: &Peer, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
        legacy::handle(&self.core, waker, input, out)
    }

    #[inline]
    fn supports(&self, code: u8, version: u8) -> Support {
        neo::supports(code, version)
    }

    #[inline]
    fn neo(&self, request: NeoRequest<'_>, out: &mut Replies<'_>) -> Begun {
        neo::begin(&self.core, &request, out)
    }
}

//! What a queue node answers: all requests of both protocols over one [`Store`].

mod consume;
mod core;
mod inspect;
mod legacy;
mod legacy_streams;
mod neo;
mod survey;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use overstory_node::commit::Commits;
use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, Peer, Support, Unsettled};
use overstory_node::stats::{NodeStats, RequestSpec};
use overstory_node::wake::Waker;
use overstory_swarm::neo::Replies;

pub use self::core::EngineSettings;
pub use self::inspect::Watch;

use self::core::{ACTIONS, Core};
use crate::disk::DiskError;
use crate::persistence::Persistence;
use crate::store::Store;

/// The engine of a queue node.
pub struct DmqEngine {
    core: Rc<Core>,
    watch: RefCell<Watch>,
    persistence: RefCell<Option<Persistence>>,
}

impl DmqEngine {
    /// Makes an engine of what was loaded. `commits` are those of a journal behind the store.
    #[must_use]
    pub fn new(store: Store, settings: EngineSettings, stats: Rc<NodeStats>, commits: Option<Rc<Commits>>) -> Self {
        let core = Rc::new(Core::new(store, settings, stats, commits));
        Self { core, watch: RefCell::default(), persistence: RefCell::default() }
    }

    /// The queues. Never borrowed across an `await`.
    #[must_use]
    pub fn store(&self) -> &RefCell<Store> {
        &self.core.store
    }

    /// Says where the queues are saved at the end; without, they are not.
    pub fn set_persistence(&self, persistence: Persistence) {
        self.persistence.replace(Some(persistence));
    }

    /// Looks at the queues; about once a second.
    pub fn observe(&self, now: Instant) {
        self.core.store.borrow_mut().observe(now);
    }

    /// Writes the index of the overflow, if there is one.
    ///
    /// # Errors
    /// It, or the one before it, could not be written.
    pub fn save_index(&self) -> Result<(), DiskError> {
        self.persistence.borrow().as_ref().map_or(Ok(()), Persistence::save_index)
    }

    /// Saves everything, as the last thing; the connections are gone by then.
    ///
    /// # Errors
    /// Names what could not be saved.
    pub fn close(&self) -> anyhow::Result<()> {
        let persistence = self.persistence.take();
        persistence.map_or(Ok(()), |persistence| persistence.close(&mut self.core.store.borrow_mut()))
    }

    /// Says what is to be watched beside the queues.
    pub fn set_watch(&self, watch: Watch) {
        self.watch.replace(watch);
    }
}

impl Engine for DmqEngine {
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

    #[inline]
    fn commits(&self) -> Option<&Commits> {
        self.core.commits.as_deref()
    }

    #[inline]
    fn settle(&self) -> Result<(), Unsettled> {
        self.core.settle()
    }
}

//! What a logfiles node answers: all requests of both protocols over the [`Storage`] and its readers.

mod core;
mod get_range;
mod inspect;
mod legacy;
mod legacy_streams;
mod neo;
mod put_batch;
mod redistribution;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use overstory_node::commit::Commits;
use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, Peer, Support};
use overstory_node::stats::{NodeStats, RequestSpec};
use overstory_node::wake::Waker;
use overstory_swarm::neo::Replies;
use tokio::task::AbortHandle;
use tracing::warn;

pub use self::core::EngineSettings;
pub use self::inspect::Watch;

use self::core::{ACTIONS, Core};
use crate::read::{Reads, Told};
use crate::retention::Keeper;
use crate::storage::{Storage, Unwritten};

/// The engine of a logfiles node.
pub struct LogfilesEngine {
    core: Rc<Core>,
    watch: Watch,
    keeper: RefCell<Option<(Rc<Keeper>, AbortHandle)>>,
}

impl LogfilesEngine {
    /// Makes an engine of what was opened. `commits` are those of the storage.
    #[must_use]
    pub fn new(
        storage: Rc<Storage>,
        reads: Reads,
        settings: EngineSettings,
        stats: Rc<NodeStats>,
        commits: Rc<Commits>,
        watch: Watch,
    ) -> Self {
        Self { core: Rc::new(Core::new(storage, reads, settings, stats, commits)), watch, keeper: RefCell::default() }
    }

    /// The records.
    #[must_use]
    pub fn storage(&self) -> &Rc<Storage> {
        &self.core.storage
    }

    /// Begins to keep the buckets: until the node stops.
    ///
    /// # Panics
    /// Outside a `LocalSet` or `LocalRuntime`.
    pub fn keep(&self, keeper: Keeper) {
        let keeper = Rc::new(keeper);
        let kept = Rc::clone(&keeper);
        let task = tokio::task::spawn_local(async move { kept.run().await });
        self.keeper.replace(Some((keeper, task.abort_handle())));
    }

    /// What goes on by itself: records are written, readers are heard. Ends when the storage is closed.
    pub async fn drive(&self) {
        let core = &self.core;
        tokio::select! {
            () = core.storage.drive() => {}
            () = core.reads.drive(|told| self.hear(told)) => {}
        }
    }

    fn hear(&self, told: Told) {
        match told {
            Told::Damage(damage) => self.core.storage.damaged(damage),
            Told::Undecided { channel, records } => {
                warn!(
                    target: "node.request",
                    channel = &*channel, records, "records left out of an answer: a pattern takes too many steps on them"
                );
                self.watch.undecided(&channel, records);
            }
            Told::Failed { channel, why } => {
                warn!(target: "node.request", channel = &*channel, why, "an answer was not finished");
                self.watch.failed();
            }
        }
    }

    /// Ends what goes on beside the requests: a redistribution stays where it is, buckets are kept no longer.
    pub fn stop(&self) {
        self.core.redistribution.stop();
        if let Some((_, task)) = self.keeper.take() {
            task.abort();
        }
    }

    /// Writes and syncs everything, as the last thing; the connections are gone by then.
    ///
    /// # Errors
    /// Something could not be written.
    pub async fn close(&self) -> Result<(), Unwritten> {
        self.stop();
        self.core.storage.close().await
    }
}

impl Engine for LogfilesEngine {
    const LEGACY_REQUESTS: &'static [RequestSpec] = legacy::REQUESTS;
    const NEO_REQUESTS: &'static [RequestSpec] = neo::REQUESTS;
    const ACTIONS: &'static [&'static str] = ACTIONS;

    #[inline]
    fn legacy(&self, peer: &Peer, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
        legacy::handle(&self.core, peer, waker, input, out)
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
        Some(&self.core.commits)
    }
}

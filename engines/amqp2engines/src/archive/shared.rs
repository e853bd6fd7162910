//! What the tasks of the archive tell each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The mean size follows the latest so many bodies.
const MEAN_OF: u64 = 64;
/// Drops this long after the last are a new incident for the log.
const QUIET: Duration = Duration::from_secs(900);

/// What is known of the archive's work.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Events that the nodes have taken.
    stored: AtomicU64,
    mean_body: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    /// Since when the event waits that waits longest. It stays when events are given back, until one is archived.
    pub(super) waiting_since: Option<Instant>,
    /// What the last failed attempt said.
    pub(super) reason: String,
    /// Events that had to make room.
    pub(super) dropped: u64,
    /// When the last of them was counted.
    pub(super) dropped_at: Option<Instant>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.lock().clone()
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(super) fn store(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes why an attempt failed; whether none had since the last success.
    pub(super) fn failed(&self, reason: &str) -> bool {
        let mut state = self.lock();
        let first = state.reason.is_empty();
        if state.reason != reason {
            reason.clone_into(&mut state.reason);
        }
        first
    }

    /// Events were archived; the oldest of those that are on their way waits since then.
    pub(super) fn progress(&self, waiting: Option<Instant>) {
        let mut state = self.lock();
        state.waiting_since = waiting;
        state.reason.clear();
    }

    /// An event waits since then, if none has for longer.
    pub(super) fn waits(&self, since: Instant) {
        self.lock().waiting_since.get_or_insert(since);
    }

    /// Counts events that had to make room; whether the log is to tell.
    pub(super) fn dropped(&self, count: u64) -> bool {
        let mut state = self.lock();
        state.dropped += count;
        let now = Instant::now();
        state.dropped_at.replace(now).is_none_or(|before| now - before >= QUIET)
    }

    /// Notes the size of a body. One task alone calls this.
    pub(super) fn saw(&self, size: usize) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        let mean = match self.mean_body.load(Ordering::Relaxed) {
            0 => size,
            mean => (mean.saturating_mul(MEAN_OF - 1).saturating_add(size)).div_ceil(MEAN_OF),
        };
        self.mean_body.store(mean, Ordering::Relaxed);
    }

    /// The mean size of the latest bodies, in bytes.
    pub(super) fn mean_body(&self) -> u64 {
        self.mean_body.load(Ordering::Relaxed)
    }
}

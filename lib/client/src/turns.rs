//! Whose turn it is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use tokio::time::Instant;

/// How long a node that could not be reached comes last, the first time and at most.
const DOUBT_FIRST: Duration = Duration::from_secs(1);
const DOUBT_MOST: Duration = Duration::from_secs(30);

/// The nodes in turn, those that could not be reached last.
#[derive(Debug)]
pub(crate) struct Turns {
    next: AtomicUsize,
    doubts: Vec<Mutex<Option<Doubt>>>,
}

#[derive(Debug)]
struct Doubt {
    until: Instant,
    backoff: Backoff,
}

impl Turns {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { next: AtomicUsize::new(0), doubts: (0..nodes).map(|_| Mutex::default()).collect() }
    }

    /// The numbers of all nodes, beginning with the one whose turn it is.
    pub(crate) fn round(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let count = self.doubts.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count.max(1);
        (first..count).chain(0..first)
    }

    /// The same with those last that could not be reached a short time ago.
    pub(crate) fn trusted_first(&self) -> impl Iterator<Item = usize> + use<'_> {
        let (now, round) = (Instant::now(), self.round());
        let doubtful = move |node: &usize| self.lock(*node).is_some_and(|d| d.as_ref().is_some_and(|d| d.until > now));
        round.clone().filter(move |node| !doubtful(node)).chain(round.filter(move |node| doubtful(node)))
    }

    /// A node could not be reached.
    pub(crate) fn away(&self, node: usize) {
        if let Some(mut doubt) = self.lock(node) {
            let mut backoff = doubt.take().map_or_else(|| Backoff::new(DOUBT_FIRST, DOUBT_MOST), |doubt| doubt.backoff);
            *doubt = Some(Doubt { until: Instant::now() + backoff.next_delay(), backoff });
        }
    }

    /// A node has answered.
    pub(crate) fn there(&self, node: usize) {
        if let Some(mut doubt) = self.lock(node) {
            *doubt = None;
        }
    }

    fn lock(&self, node: usize) -> Option<MutexGuard<'_, Option<Doubt>>> {
        Some(self.doubts.get(node)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_node_has_its_turn_and_the_unreachable_come_last_for_a_while() {
        let turns = Turns::new(3);
        let order = || turns.trusted_first().collect::<Vec<_>>();
        assert_eq!((order(), order(), order(), order()), (vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1], vec![0, 1, 2]));
        turns.away(2);
        assert_eq!((order(), order(), order()), (vec![1, 0, 2], vec![0, 1, 2], vec![0, 1, 2]));
        tokio::time::advance(DOUBT_FIRST * 2).await;
        assert_eq!(order(), [1, 2, 0]);
        turns.away(2);
        assert_eq!(order(), [0, 1, 2]);
        turns.there(2);
        assert_eq!(order(), [0, 1, 2]);
        assert_eq!(order(), [1, 2, 0]);
    }
}

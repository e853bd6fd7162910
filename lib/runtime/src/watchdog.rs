//! Ends a process whose work has come to a standstill, so that another can take it over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How often a watchdog looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches one activity from a thread of its own. Clones watch the same; it ends with the last of them.
///
/// Time is counted in the looks of that thread: a process that was stopped and continued has not aged meanwhile.
#[derive(Debug, Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Odd while busy; every step forward adds two, so that no two looks at different work see the same number.
    state: AtomicU64,
}

impl Watchdog {
    /// Starts watching `activity`: busy for `limit` without a step forward, it ends the process with code 1.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(activity: &'static str, limit: Duration) -> io::Result<Self> {
        Self::start_with(activity, limit, LOOK_EVERY, move || {
            tracing::error!(activity, limit_s = limit.as_secs(), "no step forward, ending");
            std::process::exit(1);
        })
    }

    fn start_with(
        activity: &str,
        limit: Duration,
        look_every: Duration,
        stuck: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let watchdog = Self { shared: Arc::default() };
        let shared = Arc::downgrade(&watchdog.shared);
        let looks = limit.as_nanos().div_ceil(look_every.as_nanos().max(1)).max(1);
        thread::Builder::new().name(format!("watch {activity}")).spawn(move || {
            let mut seen = 0;
            let mut same = 0;
            loop {
                thread::park_timeout(look_every);
                let Some(shared) = shared.upgrade() else { return };
                let state = shared.state.load(Ordering::Relaxed);
                same = if state % 2 == 1 && state == seen { same + 1 } else { 0 };
                seen = state;
                if same >= looks {
                    stuck();
                    return;
                }
            }
        })?;
        Ok(watchdog)
    }

    /// Says that work is at hand.
    pub fn busy(&self) {
        self.shared.state.fetch_or(1, Ordering::Relaxed);
        self.step();
    }

    /// Says that the work goes forward, or that it waits for something that is watched elsewhere.
    pub fn step(&self) {
        self.shared.state.fetch_add(2, Ordering::Relaxed);
    }

    /// Says that there is nothing to do.
    pub fn idle(&self) {
        self.shared.state.fetch_and(!1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::sync::mpsc::{RecvTimeoutError, sync_channel};

    use super::*;

    fn watched() -> (Watchdog, std::sync::mpsc::Receiver<()>) {
        let (sender, receiver) = sync_channel(1);
        let limit = Duration::from_millis(200);
        let stuck = move || sender.send(()).unwrap();
        (Watchdog::start_with("test", limit, Duration::from_millis(20), stuck).unwrap(), receiver)
    }

    #[test]
    fn a_standstill_is_found() {
        let (watchdog, stuck) = watched();
        watchdog.busy();
        stuck.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn idleness_and_progress_are_no_standstill() {
        let (watchdog, stuck) = watched();
        watchdog.busy();
        for _ in 0..20 {
            watchdog.step();
            assert_eq!(stuck.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
        }
        watchdog.idle();
        assert_eq!(stuck.recv_timeout(Duration::from_millis(400)), Err(RecvTimeoutError::Timeout));
        drop(watchdog);
        assert_eq!(stuck.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    }
}

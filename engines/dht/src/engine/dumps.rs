//! When the records go to the disk.

use std::rc::Rc;
use std::time::Duration;

use overstory_model::Timestamp;
use overstory_model::clock::Clock;
use overstory_node::inspect::DumpFacts;
use overstory_runtime::Shutdown;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::DhtEngine;
use crate::dump::{self, DataDir, DumpOptions, DumpReport};

/// The least time from the end of a dump to the next one, however short the period.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// Where dumps go.
#[derive(Debug, Clone)]
pub struct Dumps {
    /// The data directory.
    pub dir: DataDir,
    /// How they are written.
    pub options: DumpOptions,
    /// From the beginning of one to that of the next; `None`: only when [`DhtEngine::dump`] is called.
    pub period: Option<Duration>,
}

impl DhtEngine {
    /// Says where dumps go. Before that there are none.
    pub fn set_dumps(&self, dumps: Dumps) {
        self.note_dump(|facts| facts.period = dumps.period);
        self.dumps.replace(Some(dumps));
    }

    /// Dumps every channel beside the requests; nothing if it was not said where to.
    pub async fn dump(&self, clock: &dyn Clock) -> Option<DumpReport> {
        let Dumps { dir, options, .. } = self.dumps.borrow().clone()?;
        self.note_dump(|facts| facts.running = true);
        let running = Running(self);
        let report = dump::dump(&self.core.store, &dir, options).await;
        drop(running);
        self.note_dump(|facts| conclude(facts, &report, clock.now().secs()));
        tell(&report);
        Some(report)
    }

    /// Dumps again and again until `shutdown` is requested; a dump that is running then is given up.
    pub async fn dump_periodically(self: Rc<Self>, clock: &dyn Clock, shutdown: &Shutdown) {
        let Some(period) = self.dumps.borrow().as_ref().and_then(|dumps| dumps.period) else { return };
        let mut next = Instant::now() + period;
        loop {
            let wait = i64::try_from(next.saturating_duration_since(Instant::now()).as_secs()).unwrap_or(i64::MAX);
            self.note_dump(|facts| facts.next = Some(clock.now().secs().plus(wait)));
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep_until(next) => {}
            }
            next += period;
            tokio::select! {
                () = shutdown.requested() => return,
                _ = self.dump(clock) => {}
            }
            next = next.max(Instant::now() + MIN_WAIT);
        }
    }
}

/// Takes the mark of a running dump away, also if the dump is given up.
struct Running<'a>(&'a DhtEngine);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.note_dump(|facts| facts.running = false);
    }
}

fn conclude(facts: &mut DumpFacts, report: &DumpReport, now: Timestamp) {
    facts.last_ok = Some(report.is_ok());
    facts.problem = report.failures().next().map(|(channel, error)| format!("{channel}: {error}"));
    if report.is_ok() {
        facts.last = Some(now);
    }
}

fn tell(report: &DumpReport) {
    for (channel, problem) in report.failures() {
        error!(target: "dhtnode.storage.DumpManager", channel, %problem, "channel not dumped: its old file stays");
    }
    let (channels, failed, seconds) = (report.channels.len(), report.failures().count(), report.took.as_secs_f64());
    let (records, bytes) = (report.records, report.bytes);
    if failed == 0 {
        info!(target: "dhtnode.storage.DumpManager", channels, records, bytes, seconds, failed, "dump finished");
    } else {
        warn!(target: "dhtnode.storage.DumpManager", channels, records, bytes, seconds, failed, "dump finished");
    }
}

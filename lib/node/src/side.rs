//! The second thread: `stats.log`, console, `/metrics` and the report to the platform, with a runtime of its own, so that
//! none of them ever holds up the node's thread.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use overstory_amqp::AmqpConfig;
use overstory_model::{Clock, Millis, State, SystemClock};
use overstory_runtime::admin::{self, Ready};
use overstory_runtime::prometheus::Registry;
use overstory_runtime::{Home, Shutdown};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::sections::ReportSection;
use crate::console;
use crate::inspect::Finding;
use crate::logs::{Level, LineFile, Logs};
use crate::metrics::Metrics;
use crate::report::Reporter;
use crate::report::sender::Sender;
use crate::stats::Fields;
use crate::stats::process::ProcessStats;
use crate::watch::{Identity, Interval, Phase, Snapshot};

/// Lines that may wait for this thread.
const QUEUE: usize = 4;
/// Without a snapshot for so long the last one is taken again: the node's thread is busy.
const BUSY_AFTER: Duration = Duration::from_secs(2);
/// From then on that is a finding.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How long the end waits for this thread.
const END_DEADLINE: Duration = Duration::from_secs(6);

/// What the thread needs.
pub(crate) struct SideOptions {
    pub(crate) identity: Arc<Identity>,
    pub(crate) logs: Logs,
    pub(crate) stats_log: LineFile,
    pub(crate) admin: Option<TcpListener>,
    pub(crate) broker: Option<AmqpConfig>,
    pub(crate) report: ReportSection,
    pub(crate) home: Home,
    pub(crate) with_console: bool,
    pub(crate) ready: Ready,
    pub(crate) shutdown: Shutdown,
}

/// The node's end of the thread. Nothing but [`Side::finish`] waits.
#[derive(Debug)]
pub(crate) struct Side {
    snapshots: watch::Sender<Arc<Snapshot>>,
    intervals: mpsc::Sender<Interval>,
    end: oneshot::Sender<Option<String>>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Side {
    /// Starts the thread.
    pub(crate) fn start(options: SideOptions) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (snapshots, new_snapshots) = watch::channel(Arc::default());
        let (intervals, new_intervals) = mpsc::channel(QUEUE);
        let (end, asked_to_end) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let body = async move {
            let watching = Watching::new(options);
            if let Some(mut watching) = watching {
                watching.run(new_snapshots, new_intervals, asked_to_end).await;
            }
            // The node may have given up waiting.
            let _ = done.send(());
        };
        let thread = std::thread::Builder::new().name("side".to_owned()).spawn(move || {
            runtime.block_on(body);
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        Ok(Self { snapshots, intervals, end, ended, thread })
    }

    /// Hands over how the node is.
    pub(crate) fn show(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    /// Hands over a line of `stats.log`.
    pub(crate) fn interval(&self, interval: Interval) {
        if self.intervals.try_send(interval).is_err() {
            tracing::warn!(target: "node.stats", "a line of stats.log is lost, the last ones are not written yet");
        }
    }

    /// Says that the program has ended, `problem` being what went wrong, and waits for what is still to be said.
    pub(crate) async fn finish(self, problem: Option<String>) {
        let _ = self.end.send(problem);
        if tokio::time::timeout(END_DEADLINE, self.ended).await.is_ok() {
            // It has nothing left to do but to end.
            let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
        }
    }
}

struct Watching {
    identity: Arc<Identity>,
    logs: Logs,
    stats_log: LineFile,
    with_console: bool,
    process: ProcessStats,
    metrics: Metrics,
    reporter: Reporter,
    sender: Option<Sender>,
    clock: SystemClock,
}

impl Watching {
    fn new(options: SideOptions) -> Option<Self> {
        let SideOptions { identity, logs, stats_log, admin, broker, report, home, with_console, ready, shutdown } =
            options;
        let registry = Registry::new();
        let metrics = match Metrics::new(&registry, &identity) {
            Ok(metrics) => metrics,
            Err(error) => {
                tracing::error!(target: "node.stats", %error, "no statistics and no report");
                return None;
            }
        };
        if let Some(listener) = admin {
            let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
            match listener {
                Ok(listener) => {
                    tokio::spawn(admin::serve(listener, registry, ready, shutdown));
                }
                Err(error) => tracing::error!(target: "node.stats", %error, "no admin listener"),
            }
        }
        let sender = broker.and_then(|broker| match Sender::start(broker, &report, &home) {
            Ok(sender) => Some(sender),
            Err(error) => {
                tracing::warn!(target: "node.report", %error, "no report to the platform");
                None
            }
        });
        let reporter = Reporter::new(Arc::clone(&identity), &report);
        let process = ProcessStats::new();
        Some(Self { identity, logs, stats_log, with_console, process, metrics, reporter, sender, clock: SystemClock })
    }

    async fn run(
        &mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        mut intervals: mpsc::Receiver<Interval>,
        mut end: oneshot::Receiver<Option<String>>,
    ) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let problem = loop {
            tokio::select! {
                biased;
                problem = &mut end => break problem.ok().flatten(),
                Some(interval) = intervals.recv() => self.line(interval),
                Ok(()) = snapshots.changed() => {
                    heard = Instant::now();
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    self.take(&snapshot);
                }
                _ = ticks.tick() => {
                    let silent = heard.elapsed();
                    if silent >= BUSY_AFTER {
                        let last = Arc::clone(&snapshots.borrow());
                        self.take(&again(&last, self.clock.now(), silent));
                    }
                }
            }
        };
        while let Ok(interval) = intervals.try_recv() {
            self.line(interval);
        }
        let last = Snapshot { at: self.clock.now(), ..Snapshot::clone(&snapshots.borrow()) };
        if let Some(sender) = self.sender.take() {
            self.reporter.stopped(&last, problem.as_deref()).into_iter().for_each(|event| sender.send(event));
            sender.close().await;
        }
        if self.with_console {
            self.logs.show(Vec::new());
        }
    }

    fn take(&mut self, snapshot: &Snapshot) {
        let (events, verdict) = self.reporter.take(snapshot);
        if let Some(sender) = &self.sender {
            events.into_iter().for_each(|event| sender.send(event));
        }
        self.metrics.take(snapshot, &verdict);
        self.metrics.refresh(self.sender.as_ref());
        if self.with_console {
            self.logs.show(console::block(&self.identity, snapshot));
        }
    }

    /// Completes a line of `stats.log` and writes it.
    fn line(&mut self, interval: Interval) {
        let mut fields = Fields::default();
        self.process.add_to(&mut fields);
        fields.append(interval.head);
        for (name, totals) in &interval.channels {
            fields.of("channel", name, "bytes", totals.bytes);
            fields.of("channel", name, "records", totals.records);
        }
        fields.append(interval.tail);
        for (level, count) in Level::ALL.iter().zip(self.logs.take_counts()) {
            fields.int(level.counter(), count);
        }
        fields.append(interval.last);
        let mut text = String::new();
        fields.write(&mut text);
        self.stats_log.write(interval.at, &text);
        self.reporter.line(fields);
    }
}

/// The last snapshot once more, at a time at which there should have been a new one.
fn again(last: &Snapshot, now: Millis, silent: Duration) -> Snapshot {
    let mut snapshot = Snapshot { at: now, ..last.clone() };
    if silent >= STUCK_AFTER && snapshot.phase == Phase::Running {
        let text = format!("no answer from the node's own thread for {} s", silent.as_secs());
        snapshot.findings.push(Finding { check: "stuck", state: State::Critical, text });
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_busy_for_long_is_stuck_unless_it_saves_its_data() {
        let snapshot = |phase| Snapshot { phase, ..Snapshot::default() };
        let findings = |phase, seconds| again(&snapshot(phase), Millis(5), Duration::from_secs(seconds)).findings.len();
        assert_eq!(findings(Phase::Running, 9), 0);
        assert_eq!(findings(Phase::Running, 10), 1);
        assert_eq!(findings(Phase::Stopping, 900), 0);
        assert_eq!(again(&snapshot(Phase::Running), Millis(5), BUSY_AFTER).at, Millis(5));
    }
}

//! Publishes the report. The broker may be away: what is said then waits in the spool, and nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overstory_amqp::AmqpConfig;
use overstory_amqp::message::Outgoing;
use overstory_amqp::publisher::{PublishError, Publisher, PublisherOptions, Receipt, SpoolOptions};
use overstory_runtime::{Home, Shutdown};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::sections::ReportSection;

/// Events that may wait for the publisher, which answers at once but for a broker that neither confirms nor breaks.
const QUEUE: usize = 64;
const WINDOW: usize = 64;
/// How long the end waits for the broker; with a spool nothing is lost by not waiting.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// How many events went where.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) confirmed: AtomicU64,
    pub(crate) spooled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Hands events to the publisher.
#[derive(Debug)]
pub(crate) struct Sender {
    queue: mpsc::Sender<Outgoing>,
    publisher: Publisher,
    sending: JoinHandle<()>,
    sent: Arc<Sent>,
}

/// Reads how the broker is reached; `None`, with a line in the log, when there is no report.
pub(crate) fn broker(section: &ReportSection, home: &Home) -> Option<AmqpConfig> {
    let file = home.config_file(overstory_amqp::config::FILE);
    if !section.enabled {
        tracing::info!(target: "node.report", "the report to the platform is switched off");
        return None;
    }
    if !file.exists() {
        tracing::info!(target: "node.report", file = %file.display(), "no report to the platform, there is no such file");
        return None;
    }
    match AmqpConfig::load(home) {
        Ok(config) => Some(config),
        Err(error) => {
            tracing::warn!(target: "node.report", %error, "no report to the platform");
            None
        }
    }
}

impl Sender {
    /// Starts the publisher on this thread's runtime.
    pub(crate) fn start(config: AmqpConfig, section: &ReportSection, home: &Home) -> Result<Self, PublishError> {
        let spool = SpoolOptions { dir: home.spool_dir(), max_bytes: section.spool_bytes };
        let options = PublisherOptions { name: section.instance.clone(), window: WINDOW, spool: Some(spool) };
        // Its wish to stop is the one of `close`: the node still reports while it saves its data.
        let publisher = Publisher::start(config, options, Shutdown::new())?;
        let (queue, events) = mpsc::channel(QUEUE);
        let sent = Arc::new(Sent::default());
        let sending = tokio::spawn(send(events, publisher.clone(), Arc::clone(&sent)));
        Ok(Self { queue, publisher, sending, sent })
    }

    /// Hands an event over, or drops it when too many wait. Never waits.
    pub(crate) fn send(&self, event: Outgoing) {
        if self.queue.try_send(event).is_err() {
            self.sent.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sent(&self) -> &Sent {
        &self.sent
    }

    /// Events that wait in the spool.
    pub(crate) fn waiting(&self) -> u64 {
        self.publisher.stats().spool_messages
    }

    /// Gives what was handed over a short time to leave; then it waits in the spool.
    pub(crate) async fn close(self) {
        drop(self.queue);
        let closing = async {
            let _ = tokio::time::timeout(CLOSE_DEADLINE, self.sending).await;
            self.publisher.close(CLOSE_DEADLINE).await
        };
        if let Err(error) = closing.await {
            tracing::info!(target: "node.report", %error, "the last of the report waits in the spool");
        }
    }
}

async fn send(mut events: mpsc::Receiver<Outgoing>, publisher: Publisher, sent: Arc<Sent>) {
    let mut is_failing = false;
    while let Some(event) = events.recv().await {
        let outcome = publisher.publish(event).await;
        let counter = match &outcome {
            Ok(Receipt::Confirmed) => &sent.confirmed,
            Ok(Receipt::Spooled) => &sent.spooled,
            Err(_) => &sent.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &outcome
            && !is_failing
        {
            tracing::warn!(target: "node.report", %error, "cannot report");
        }
        is_failing = outcome.is_err();
    }
}

//! What is counted, for `/metrics`. Every label has a bounded set of values.

use overstory_model::event::Note;
use overstory_runtime::prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

use crate::engine::{Draft, Engine};

const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];
const SIZES: [f64; 8] = [1.0, 3.0, 10.0, 30.0, 60.0, 100.0, 200.0, 300.0];

/// All families of this program.
#[derive(Debug, Clone)]
pub struct Metrics {
    events: IntCounterVec,
    rejects: IntCounterVec,
    notes: IntCounterVec,
    changes: IntCounterVec,
    batch_size: HistogramVec,
    batch_seconds: HistogramVec,
    commit_seconds: HistogramVec,
    store_errors: IntCounterVec,
    outbox: IntGaugeVec,
    active: IntGaugeVec,
    epoch: IntGaugeVec,
    engine_events: IntCounterVec,
    engine_errors: IntCounterVec,
    engine_work: IntCounterVec,
}

/// What one unit counts.
#[derive(Debug, Clone)]
pub struct UnitMetrics {
    /// Messages whose effects are in the store.
    pub done: IntCounter,
    /// Messages that had been worked on before.
    pub duplicates: IntCounter,
    /// The size of a batch.
    batch_size: Histogram,
    /// From a batch's arrival to its acknowledgement.
    pub batch_seconds: Histogram,
    /// The durable commit alone.
    pub commit_seconds: Histogram,
    /// Calls of the store that failed.
    pub store_errors: IntCounter,
    /// Messages that wait to be published.
    pub outbox: IntGauge,
    /// 1 while this process holds the queue.
    pub active: IntGauge,
    /// The epoch held last.
    pub epoch: IntGauge,
    refused: IntCounter,
    rejects: IntCounterVec,
    notes: IntCounterVec,
    changes: IntCounterVec,
}

/// What the archive counts.
#[derive(Debug, Clone)]
pub struct ArchiveMetrics {
    /// Events that a node has taken.
    pub stored: IntCounter,
    /// Events that no node takes.
    pub refused: IntCounter,
    /// Bytes of records that nodes have taken.
    pub bytes: IntCounter,
    /// Attempts that failed.
    pub failed: IntCounter,
    /// Events that had to make room in the queue.
    pub dropped: IntCounter,
    /// Events in the queue.
    pub waiting: IntGauge,
    /// Events on their way to the nodes.
    pub unacknowledged: IntGauge,
    /// How long the event waits that waits longest.
    pub oldest: IntGauge,
}

/// What one engine counts.
#[derive(Debug, Clone)]
pub struct EngineTally {
    /// Events worked on.
    pub events: IntCounter,
    /// Events refused.
    pub errors: IntCounter,
    /// Nanoseconds of work.
    pub work_ns: IntCounter,
}

impl Metrics {
    /// Registers all families.
    ///
    /// # Errors
    /// A name is taken.
    pub fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(format!("overstory_engines_{name}"), help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, overstory_runtime::prometheus::Error>(family)
        };
        let gauge = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(format!("overstory_engines_{name}"), help), &["unit"])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, overstory_runtime::prometheus::Error>(family)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(format!("overstory_engines_{name}"), help).buckets(buckets.to_vec());
            let family = HistogramVec::new(options, &["unit"])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, overstory_runtime::prometheus::Error>(family)
        };
        Ok(Self {
            events: counter("events_total", "Messages by outcome.", &["unit", "outcome"])?,
            rejects: counter("rejects_total", "Messages laid among the dead letters, by reason.", &["unit", "reason"])?,
            notes: counter("notes_total", "What was put right in events.", &["note"])?,
            changes: counter("alarm_changes_total", "Changes of alarms.", &["change"])?,
            batch_size: histogram("batch_events", "Messages per batch.", &SIZES)?,
            batch_seconds: histogram("batch_seconds", "From a batch's arrival to its acknowledgement.", &SECONDS)?,
            commit_seconds: histogram("commit_seconds", "The durable commit of a batch.", &SECONDS)?,
            store_errors: counter("store_errors_total", "Calls of the store that failed.", &["unit"])?,
            outbox: gauge("outbox_messages", "Messages that wait to be published.")?,
            active: gauge("active", "1 while this process holds the queue.")?,
            epoch: gauge("epoch", "The epoch held last.")?,
            engine_events: counter("engine_events_total", "Events worked on, by engine.", &["engine"])?,
            engine_errors: counter("engine_errors_total", "Events refused, by engine.", &["engine"])?,
            engine_work: counter("engine_work_nanoseconds_total", "Work, by engine.", &["engine"])?,
        })
    }

    /// The metrics of a unit.
    #[must_use]
    pub fn unit(&self, unit: &str) -> UnitMetrics {
        for note in Note::ALL {
            self.notes.with_label_values(&[note.code()]);
        }
        let outcome = |outcome| self.events.with_label_values(&[unit, outcome]);
        UnitMetrics {
            done: outcome("done"),
            duplicates: outcome("duplicate"),
            refused: outcome("rejected"),
            batch_size: self.batch_size.with_label_values(&[unit]),
            batch_seconds: self.batch_seconds.with_label_values(&[unit]),
            commit_seconds: self.commit_seconds.with_label_values(&[unit]),
            store_errors: self.store_errors.with_label_values(&[unit]),
            outbox: self.outbox.with_label_values(&[unit]),
            active: self.active.with_label_values(&[unit]),
            epoch: self.epoch.with_label_values(&[unit]),
            rejects: self.rejects.clone(),
            notes: self.notes.clone(),
            changes: self.changes.clone(),
        }
    }

    /// The metrics of an engine.
    #[must_use]
    pub fn engine(&self, engine: Engine) -> EngineTally {
        let name = &[engine.name()];
        EngineTally {
            events: self.engine_events.with_label_values(name),
            errors: self.engine_errors.with_label_values(name),
            work_ns: self.engine_work.with_label_values(name),
        }
    }
}

impl ArchiveMetrics {
    /// Registers all families.
    ///
    /// # Errors
    /// A name is taken.
    pub fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("overstory_engines_archive_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, overstory_runtime::prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("overstory_engines_archive_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, overstory_runtime::prometheus::Error>(gauge)
        };
        Ok(Self {
            stored: counter("stored_events_total", "Events that a node has taken.")?,
            refused: counter("refused_events_total", "Events that no node takes, laid among the dead letters.")?,
            bytes: counter("stored_bytes_total", "Bytes of the records that nodes have taken.")?,
            failed: counter("failed_attempts_total", "Attempts to store an event that failed and were repeated.")?,
            dropped: counter("dropped_events_total", "Events that had to make room in the queue and are lost.")?,
            waiting: gauge("waiting_events", "Events in the queue.")?,
            unacknowledged: gauge("unacknowledged_events", "Events on their way to the nodes.")?,
            oldest: gauge("oldest_event_seconds", "How long the event on its way waits that waits longest.")?,
        })
    }
}

impl UnitMetrics {
    /// Counts a batch.
    #[expect(clippy::cast_precision_loss, reason = "a batch has at most a few hundred messages")]
    pub fn batch_size(&self, messages: usize) {
        self.batch_size.observe(messages as f64);
    }

    /// Counts a message laid among the dead letters.
    pub fn refused(&self, unit: &str, reason: &str) {
        self.refused.inc();
        self.rejects.with_label_values(&[unit, reason]).inc();
    }

    /// Counts what a committed batch says of itself.
    pub fn count_draft(&self, draft: &Draft) {
        for (note, count) in &draft.notes {
            self.notes.with_label_values(&[note]).inc_by(*count);
        }
        for (change, count) in &draft.changes {
            self.changes.with_label_values(&[change]).inc_by(*count);
        }
    }
}

impl EngineTally {
    /// Counts one event and the time it took.
    pub fn worked(&self, elapsed: std::time::Duration) {
        self.events.inc();
        self.work_ns.inc_by(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }
}

//! Exchanges, queues and bindings: all of them, in this one place.
//!
//! Every connection that publishes or consumes declares them all; declaring what exists changes nothing. A queue that
//! exists with other arguments is reported and used as it is: arguments cannot be changed, only a queue of another
//! name can have others.

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};

use crate::config::{ArchiveLimits, QueueLimits};

/// Topic exchange that everything publishes events to.
pub const EVENTS: &str = "canopsis.events";
/// Topic exchange on which subscribers get every change of an alarm.
pub const ALERTS: &str = "canopsis.alerts";
/// Topic exchange on which subscribers get every change of a group of alarms.
pub const INCIDENTS: &str = "canopsis.incidents";
/// Fanout exchange for messages that could not be worked on.
pub const DEAD: &str = "canopsis.dead";
/// Fanout exchange with hints that rules have changed.
pub const CONFIG: &str = "overstory.config";
/// The broker's own topic exchange, which real collectd publishes to.
pub const COLLECTD: &str = "amq.topic";
/// Queue of the event engines.
pub const ENGINE_EVENTS: &str = "Engine_events";
/// Queue that keeps dead letters for the operator.
pub const ENGINE_DEAD: &str = "Engine_dead";
/// Queue of messages of real collectd.
pub const ENGINE_COLLECTDGW: &str = "Engine_collectdgw";
/// Queue of the event archive, if there is one.
pub const ENGINE_ARCHIVE: &str = "Engine_archive";
/// Queue of the events that had to make room in [`ENGINE_ARCHIVE`], for counting them.
pub const ARCHIVE_DROPPED: &str = "Engine_archive_dropped";
/// Dropped events that wait to be counted, and bytes of their bodies.
const DROPPED_MAX: (u32, u64) = (10_000, 16 << 20);

/// What is declared on every connection.
#[derive(Debug, Clone)]
pub struct Topology {
    pub(crate) exchanges: Vec<(&'static str, ExchangeKind)>,
    pub(crate) queues: Vec<QueueSpec>,
    pub(crate) bindings: Vec<(&'static str, &'static str, &'static str)>,
}

/// One durable quorum queue.
///
/// Quorum queues only: classic ones can crash with a single active consumer. No delivery limit: it would dead-letter
/// the innocent messages of a whole window each time that a consumer dies; the engine singles the culprit out.
#[derive(Debug, Clone)]
pub(crate) struct QueueSpec {
    pub(crate) name: &'static str,
    single_active_consumer: bool,
    reject_publish: bool,
    max_messages: u32,
    max_bytes: u64,
    /// The queue that gets what made room for others.
    dropped_to: Option<&'static str>,
}

impl QueueSpec {
    pub(crate) fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        if self.single_active_consumer {
            table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        if self.reject_publish {
            table.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        }
        if let Some(queue) = self.dropped_to {
            // By the default exchange, which routes by queue name.
            table.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
            table.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
        }
        let bytes = i64::try_from(self.max_bytes).unwrap_or(i64::MAX);
        table.insert("x-max-length".into(), AMQPValue::LongLongInt(self.max_messages.into()));
        table.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(bytes));
        table
    }
}

impl Topology {
    /// The platform's topology with these limits.
    #[must_use]
    pub fn new(limits: &QueueLimits) -> Self {
        let events = QueueSpec {
            name: ENGINE_EVENTS,
            single_active_consumer: true,
            reject_publish: true,
            max_messages: limits.events_max_messages,
            max_bytes: limits.events_max_bytes,
            dropped_to: None,
        };
        // Real collectd publishes without confirms: a refusal would drop the newest samples unseen, so the oldest go.
        let collectd = QueueSpec { name: ENGINE_COLLECTDGW, reject_publish: false, ..events.clone() };
        let dead = QueueSpec {
            name: ENGINE_DEAD,
            single_active_consumer: false,
            reject_publish: false,
            max_messages: limits.dead_max_messages,
            max_bytes: limits.dead_max_bytes,
            dropped_to: None,
        };
        let mut topology = Self {
            exchanges: vec![
                (EVENTS, ExchangeKind::Topic),
                (ALERTS, ExchangeKind::Topic),
                (INCIDENTS, ExchangeKind::Topic),
                (DEAD, ExchangeKind::Fanout),
                (CONFIG, ExchangeKind::Fanout),
            ],
            queues: vec![events, dead, collectd],
            bindings: vec![
                (ENGINE_EVENTS, EVENTS, "#"),
                (ENGINE_DEAD, DEAD, ""),
                // `#` stands for no word too, so this takes the key `collectd` as well.
                (ENGINE_COLLECTDGW, COLLECTD, "collectd.#"),
            ],
        };
        if let Some(archive) = limits.archive {
            topology.add_archive(archive);
        }
        topology
    }

    /// The archive's queue never refuses: an archive that is away must not stop publishers.
    fn add_archive(&mut self, limits: ArchiveLimits) {
        let dropped = QueueSpec {
            name: ARCHIVE_DROPPED,
            single_active_consumer: false,
            reject_publish: false,
            max_messages: DROPPED_MAX.0,
            max_bytes: DROPPED_MAX.1,
            dropped_to: None,
        };
        self.queues.push(QueueSpec {
            name: ENGINE_ARCHIVE,
            single_active_consumer: true,
            max_messages: limits.max_messages,
            max_bytes: limits.max_bytes,
            dropped_to: Some(ARCHIVE_DROPPED),
            ..dropped.clone()
        });
        self.queues.push(dropped);
        self.bindings.push((ENGINE_ARCHIVE, EVENTS, "#"));
    }

    /// Whether `exchange` exists on a broker that this was declared on; the broker's own exchanges count.
    pub(crate) fn has_exchange(&self, exchange: &str) -> bool {
        matches!(exchange, "" | COLLECTD | "amq.direct" | "amq.fanout")
            || self.exchanges.iter().any(|(name, _)| *name == exchange)
    }
}

//! What an engine writes: one durable commit per batch of events, fenced by an epoch.

use async_trait::async_trait;
use overstory_model::alarm::MAX_STEPS;
use overstory_model::ids::MessageId;
use overstory_model::metric::MetricKind;
use overstory_model::{Alarm, Entity, EntityId, Millis, SeriesKey, Step, StepKind, Timestamp};

use crate::error::StoreError;

/// Proof that a process took the ownership of a unit (a queue) last. Grows by one with every taking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A message to be published once the commit that holds it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The exchange.
    pub exchange: String,
    /// The routing key, at most 255 bytes.
    pub routing_key: String,
    /// The AMQP `message-id`; stays the same when it has to be sent again.
    pub message_id: String,
    /// The body's type.
    pub content_type: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An alarm as it is after a batch, with the steps that the batch added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmWrite {
    /// The whole alarm; replaces the stored one of the same id.
    pub alarm: Alarm,
    /// The steps to append, in order, numbered on from those stored.
    pub new_steps: Vec<Step>,
    /// Whether the alarm is new: then no alarm of that id and no other open alarm of the entity may exist.
    pub is_new: bool,
}

impl AlarmWrite {
    /// The new steps that are kept, with their numbers, when so many are stored: beyond [`MAX_STEPS`] only those that end
    /// something.
    pub(crate) fn numbered_steps(&self, stored: u32) -> impl Iterator<Item = (u32, &Step)> {
        let mut next = stored.saturating_add(1);
        self.new_steps.iter().filter_map(move |step| {
            let number = next;
            if number > MAX_STEPS && step.val != 0 && step.kind != StepKind::Resolve {
                return None;
            }
            next = next.saturating_add(1);
            Some((number, step))
        })
    }
}

/// One point of one series, with what is known of the series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The series; made when it is not there yet.
    pub series: SeriesKey,
    /// The unit, kept as the series' latest when given.
    pub unit: Option<String>,
    /// How values relate.
    pub kind: MetricKind,
    /// Least, greatest, warning and critical values, kept as the series' latest when given.
    pub limits: [Option<f64>; 4],
    /// When; a point at the same time of the same series is replaced.
    pub at: Millis,
    /// The value, finite.
    pub value: f64,
}

/// Everything that a batch of events changes. All of it becomes durable at once or none of it.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The messages that the batch consists of: they are known as seen from now on.
    pub seen: Vec<MessageId>,
    /// When the batch was decided; `seen` entries expire by it.
    pub at: Timestamp,
    /// Entities to insert or replace whole.
    pub entities: Vec<Entity>,
    /// Entities of which only the time of the last event moved on (never backwards).
    pub heard_of: Vec<(EntityId, Timestamp)>,
    /// Alarms to insert or replace.
    pub alarms: Vec<AlarmWrite>,
    /// Points to append.
    pub points: Vec<Point>,
    /// Messages to publish afterwards, in order.
    pub outbox: Vec<Outgoing>,
}

impl Commit {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
            && self.entities.is_empty()
            && self.heard_of.is_empty()
            && self.alarms.is_empty()
            && self.points.is_empty()
            && self.outbox.is_empty()
    }
}

/// The writing side of the engines.
#[async_trait]
pub trait Engines: Send + Sync {
    /// Takes the ownership of `unit` for `holder`; whoever had it can commit no more.
    ///
    /// # Errors
    /// The store is not available.
    async fn take_epoch(&self, unit: &str, holder: &str) -> Result<Epoch, StoreError>;

    /// Writes `commit` durably if `epoch` is still the latest of `unit`, checked in the same transaction. Returns the
    /// outbox numbers given to `commit.outbox`, in its order.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the epoch was taken over, [`StoreError::Conflict`] when an alarm that is not new is
    /// missing or a second open one would arise. In every case of error nothing was written, except that
    /// [`StoreError::Unavailable`] may leave the outcome open when the connection to a server broke while it committed:
    /// then [`Engines::seen`] tells.
    async fn commit(&self, unit: &str, epoch: Epoch, commit: Commit) -> Result<Vec<u64>, StoreError>;

    /// Says for each of `ids` whether a commit has seen it. The store remembers at least the latest
    /// [`DEDUP_WINDOW`] messages and, as long as they are not more than [`DEDUP_LIMIT`], those of the last
    /// [`DEDUP_SECONDS`].
    ///
    /// # Errors
    /// The store is not available.
    async fn seen(&self, ids: &[MessageId]) -> Result<Vec<bool>, StoreError>;

    /// Forgets message ids beyond the window, counted back from `now`; returns how many.
    ///
    /// # Errors
    /// The store is not available.
    async fn forget_seen(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// The store remembers at least this many message ids: more than prefetch and spools can hold back.
pub const DEDUP_WINDOW: u64 = 200_000;
/// The store remembers message ids for at least this long, in seconds.
pub const DEDUP_SECONDS: i64 = 24 * 3600;
/// The store remembers at most about this many message ids, which bounds the memory of the process that asks.
pub const DEDUP_LIMIT: u64 = 400_000;

//! The engines: what each decides about one event, without any I/O.
//!
//! An engine works on the [`Working`](crate::working::Working) set (entities and open alarms as they are at this point
//! of the batch) and adds what is to be written and sent to a [`Draft`].

pub mod alarms;
pub mod cleaner;
pub mod collectdgw;
pub mod context;
pub mod metrics;
pub mod stats;

use std::collections::BTreeMap;

use overstory_model::event::Note;
use overstory_model::notice::AlarmNotice;
use overstory_store::{Outgoing, Point};

/// The engines there are. Their names are those of their files in `etc/engines` and of their statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Reads, validates and normalises events.
    Cleaner,
    /// Keeps the entities.
    Context,
    /// Keeps the alarms.
    Alarms,
    /// Turns perf data into points.
    Metrics,
    /// Takes the messages of a real collectd.
    Collectdgw,
    /// Publishes what the engines do.
    Stats,
    /// Keeps every event as it came.
    Archive,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Cleaner, Self::Context, Self::Alarms, Self::Metrics, Self::Collectdgw, Self::Stats, Self::Archive];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cleaner => "cleaner",
            Self::Context => "context",
            Self::Alarms => "alarms",
            Self::Metrics => "metrics",
            Self::Collectdgw => "collectdgw",
            Self::Stats => "stats",
            Self::Archive => "archive",
        }
    }

    /// The engine of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// Why an event is not worked on and goes to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable word in `snake_case`.
    pub reason: &'static str,
    /// A sentence.
    pub detail: String,
}

/// What a batch is going to write and send, besides the working set.
#[derive(Debug, Default)]
pub struct Draft {
    /// Points to append.
    pub points: Vec<Point>,
    /// Messages to publish afterwards.
    pub outbox: Vec<Outgoing>,
    /// What was put right in events, and how often.
    pub notes: BTreeMap<&'static str, u64>,
    /// Changes of alarms by word.
    pub changes: BTreeMap<&'static str, u64>,
}

impl Draft {
    /// Counts what was put right in an event.
    pub fn note(&mut self, note: &'static str) {
        *self.notes.entry(note).or_default() += 1;
    }

    /// Counts the notes of a parsed event.
    pub fn take_notes(&mut self, notes: &[Note]) {
        for note in notes {
            self.note(note.code());
        }
    }

    /// Sends subscribers the change of an alarm.
    pub fn notify(&mut self, exchange: &str, notice: &AlarmNotice) {
        *self.changes.entry(notice.change.name()).or_default() += 1;
        // A notice is made of strings, numbers and finite JSON: writing it to memory cannot fail.
        let body = serde_json::to_vec(notice).unwrap_or_default();
        self.outbox.push(Outgoing {
            exchange: exchange.to_owned(),
            routing_key: notice.routing_key().as_str().to_owned(),
            message_id: overstory_model::ids::random_id(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body,
        });
    }
}

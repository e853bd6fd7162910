//! Alarms: what is or was wrong with an entity, and the steps it went through.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::entity::EntityId;
use crate::state::{State, Status};

/// The identity of an alarm: a random UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlarmId(pub String);

/// What a step did. The names in JSON are the published ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StepKind {
    /// The state got worse.
    StateInc,
    /// The state got better.
    StateDec,
    /// The status number grew.
    StatusInc,
    /// The status number shrank.
    StatusDec,
    /// Earlier state steps were folded into this one.
    StateCounter,
    /// The alarm ended.
    Resolve,
}

impl StepKind {
    /// The published name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StateInc => "stateinc",
            Self::StateDec => "statedec",
            Self::StatusInc => "statusinc",
            Self::StatusDec => "statusdec",
            Self::StateCounter => "statecounter",
            Self::Resolve => "resolve",
        }
    }
}

/// Who caused a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// An operator.
    User,
    /// The platform.
    System,
    /// A source of events.
    #[default]
    External,
}

/// One thing that happened to an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What happened.
    #[serde(rename = "_t")]
    pub kind: StepKind,
    /// When.
    pub t: Timestamp,
    /// Who did it.
    #[serde(rename = "a")]
    pub author: String,
    /// The message.
    #[serde(rename = "m")]
    pub message: String,
    /// The new state or status number.
    pub val: i64,
    /// On whose behalf.
    pub initiator: Initiator,
}

/// The body of an alarm, `v` in the published document, without its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmValue {
    /// The step that set the present state.
    pub state: Step,
    /// The step that set the present status.
    pub status: Step,
    /// The source.
    pub connector: String,
    /// The source's instance.
    pub connector_name: String,
    /// The component.
    pub component: String,
    /// The resource, for a resource's alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// A short name for talking about the alarm.
    pub display_name: String,
    /// When the alarm was made.
    pub creation_date: Timestamp,
    /// When an event last changed the state.
    pub last_update_date: Timestamp,
    /// When an event was last received.
    pub last_event_date: Timestamp,
    /// The first output.
    pub initial_output: String,
    /// The latest output.
    pub output: String,
    /// The first long output.
    pub initial_long_output: String,
    /// The latest long output.
    pub long_output: String,
    /// Distinct long outputs, the latest last, at most 100.
    pub long_output_history: Vec<String>,
    /// How many events arrived while it was open.
    pub events_count: u64,
    /// How many times the state changed.
    pub total_state_changes: u64,
    /// How many times the state changed since the status last did.
    pub state_changes_since_status_update: u64,
    /// When it ended; `null` while it is open, always written.
    pub resolved: Option<Timestamp>,
    /// Seconds from creation to the end, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<i64>,
    /// Seconds the present state has lasted at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_state_duration: Option<i64>,
    /// Alarms that contain this one.
    #[serde(default)]
    pub parents: Vec<EntityId>,
    /// Alarms that this one contains.
    #[serde(default)]
    pub children: Vec<EntityId>,
    /// Information attached by rules.
    #[serde(default)]
    pub infos: serde_json::Map<String, serde_json::Value>,
    /// The versions of the rules that attached it.
    #[serde(default)]
    pub infos_rule_version: serde_json::Map<String, serde_json::Value>,
}

/// An alarm without its steps, as lists show it and engines work on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The identity.
    #[serde(rename = "_id")]
    pub id: AlarmId,
    /// When it was made.
    pub t: Timestamp,
    /// The entity it is about.
    #[serde(rename = "d")]
    pub entity: EntityId,
    /// Labels, `key: value`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The body.
    pub v: AlarmValue,
    /// How many steps are stored; at most [`MAX_STEPS`].
    pub steps_count: u32,
}

/// Beyond this many steps only those that end something (to ok, to off) are kept.
pub const MAX_STEPS: u32 = 2000;

impl Alarm {
    /// The present state.
    #[must_use]
    pub fn state(&self) -> State {
        u8::try_from(self.v.state.val).ok().and_then(|n| State::try_from(n).ok()).unwrap_or_default()
    }

    /// The present status.
    #[must_use]
    pub fn status(&self) -> Status {
        u8::try_from(self.v.status.val).ok().and_then(|n| Status::try_from(n).ok()).unwrap_or_default()
    }

    /// Whether it has not ended.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.v.resolved.is_none()
    }

    /// When its latest step happened; the resolve rule counts from here.
    #[must_use]
    pub fn last_step_at(&self) -> Timestamp {
        self.v.state.t.max(self.v.status.t)
    }
}

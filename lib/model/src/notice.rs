//! Notices: what subscribers of `canopsis.alerts` receive when an alarm changes.

use serde::{Deserialize, Serialize};

use crate::alarm::{Alarm, Step};
use crate::clock::Timestamp;
use crate::entity::EntityKind;
use crate::event;
use crate::routing_key::RoutingKey;

/// What happened to an alarm; the third word of the routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Change {
    /// It was made.
    Create,
    /// Its state got worse.
    StateInc,
    /// Its state got better.
    StateDec,
    /// Its status changed while the state did not.
    ChangeStatus,
    /// It ended.
    Resolve,
}

impl Change {
    /// The word used in the routing key and in the body.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::StateInc => "stateinc",
            Self::StateDec => "statedec",
            Self::ChangeStatus => "changestatus",
            Self::Resolve => "resolve",
        }
    }
}

/// One change of one alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmNotice {
    /// What happened.
    pub change: Change,
    /// When the engines decided it.
    pub timestamp: Timestamp,
    /// The sort of entity.
    pub source_type: EntityKind,
    /// The entity's identity, again in `alarm.d`.
    pub entity_id: crate::entity::EntityId,
    /// The state before, 0 for a new alarm.
    pub previous_state: u8,
    /// The steps that this change added.
    pub steps: Vec<Step>,
    /// The alarm as it is after the change.
    pub alarm: Alarm,
}

impl AlarmNotice {
    /// `connector.connector_name.change.source_type.component[.resource]`.
    #[must_use]
    pub fn routing_key(&self) -> RoutingKey {
        let v = &self.alarm.v;
        event::routing_key(
            &v.connector,
            &v.connector_name,
            self.change.name(),
            self.source_type,
            &v.component,
            v.resource.as_deref(),
        )
    }
}

//! Events: what sources report, in one form whatever dialect they came in.
//!
//! [`parse`] reads the published forms, [`Event::to_body`] writes one; docs/EVENTS.md tells sources what counts.

mod emit;
mod fields;
mod json;
mod outcome;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod types;

pub use outcome::{Limits, Note, Parsed, Reason, Reject};
pub use parse::{oversized, parse, state_type};

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::alarm::Initiator;
use crate::clock::Millis;
use crate::entity::{EntityId, EntityKind};
use crate::metric::Sample;
use crate::routing_key::RoutingKey;
use crate::state::State;

/// What an event is about, with the names its entities are made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The connector itself.
    Connector,
    /// A component.
    Component {
        /// Its name, never empty.
        component: String,
    },
    /// A resource of a component.
    Resource {
        /// The component's name, never empty.
        component: String,
        /// The resource's name, never empty.
        resource: String,
    },
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The entity is in this state (`check` and the types that carry a state like it).
    Check {
        /// The state.
        state: State,
    },
    /// Only measurements.
    Perf,
    /// Something to write down; changes no state.
    Log,
}

impl EventKind {
    /// The published name of the type.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Check { .. } => "check",
            Self::Perf => "perf",
            Self::Log => "log",
        }
    }
}

/// An event, valid and normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it says.
    pub kind: EventKind,
    /// The kind of source, never empty.
    pub connector: String,
    /// The source's instance, never empty.
    pub connector_name: String,
    /// What it is about.
    pub source: Source,
    /// When it happened, at most a day from when it was received.
    pub at: Millis,
    /// One line for operators, cut to the configured length.
    pub output: String,
    /// More for operators, cut to the configured length.
    pub long_output: String,
    /// Who sent it: for external events `connector.connector_name`.
    pub author: String,
    /// On whose behalf.
    pub initiator: Initiator,
    /// Measurements.
    pub samples: Vec<Sample>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Every key that is not part of the format.
    pub extra: Map<String, Value>,
}

impl Event {
    /// The identity of the entity the event is about.
    #[must_use]
    pub fn entity_id(&self) -> EntityId {
        match &self.source {
            Source::Connector => self.connector_id(),
            Source::Component { component } => EntityId::component(component),
            Source::Resource { component, resource } => EntityId::resource(resource, component),
        }
    }

    /// The identity of the source.
    #[must_use]
    pub fn connector_id(&self) -> EntityId {
        EntityId::connector(&self.connector, &self.connector_name)
    }

    /// The component, empty for an event about a connector.
    #[must_use]
    pub fn component(&self) -> &str {
        match &self.source {
            Source::Connector => "",
            Source::Component { component } | Source::Resource { component, .. } => component,
        }
    }

    /// The resource, if it is about one.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        match &self.source {
            Source::Resource { resource, .. } => Some(resource),
            _ => None,
        }
    }

    /// The sort of entity it is about.
    #[must_use]
    pub const fn entity_kind(&self) -> EntityKind {
        match self.source {
            Source::Connector => EntityKind::Connector,
            Source::Component { .. } => EntityKind::Component,
            Source::Resource { .. } => EntityKind::Resource,
        }
    }

    /// The key under which it is published on `canopsis.events`.
    #[must_use]
    pub fn routing_key(&self) -> RoutingKey {
        routing_key(
            &self.connector,
            &self.connector_name,
            self.kind.name(),
            self.entity_kind(),
            self.component(),
            self.resource(),
        )
    }
}

/// Makes `connector.connector_name.WORD.source_type.component[.resource]`.
#[must_use]
pub fn routing_key(
    connector: &str,
    connector_name: &str,
    word: &str,
    kind: EntityKind,
    component: &str,
    resource: Option<&str>,
) -> RoutingKey {
    let head = [connector, connector_name, word, kind.name(), component];
    RoutingKey::from_words(head.into_iter().chain(resource))
}

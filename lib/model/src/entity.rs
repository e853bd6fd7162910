//! Entities: the things that are watched.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The identity of an entity: `resource/component`, `component` or `connector/connector_name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityId(pub String);

impl EntityId {
    /// The identity of a component.
    #[must_use]
    pub fn component(component: &str) -> Self {
        Self(component.to_owned())
    }

    /// The identity of a resource of a component.
    #[must_use]
    pub fn resource(resource: &str, component: &str) -> Self {
        Self(format!("{resource}/{component}"))
    }

    /// The identity of a source of events.
    #[must_use]
    pub fn connector(connector: &str, connector_name: &str) -> Self {
        Self(format!("{connector}/{connector_name}"))
    }

    /// The identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What sort of thing an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// A source of events.
    Connector,
    /// A machine, an instance, anything that has resources.
    Component,
    /// A part of a component.
    Resource,
    /// A group of entities with a state of its own.
    Service,
}

impl EntityKind {
    /// The word used in documents and routing keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Component => "component",
            Self::Resource => "resource",
            Self::Service => "service",
        }
    }
}

/// A piece of information about an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The name, the same as its key.
    pub name: String,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// Any JSON value.
    pub value: serde_json::Value,
}

/// A thing that is watched, as the store keeps it and the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// The identity.
    #[serde(rename = "_id")]
    pub id: EntityId,
    /// The name: of a resource the resource, of a component the component.
    pub name: String,
    /// The sort.
    #[serde(rename = "type")]
    pub kind: EntityKind,
    /// False when operators switched it off; its events are then not turned into alarms.
    pub enabled: bool,
    /// How much depends on it, 1 to 10.
    pub impact_level: u8,
    /// The component it belongs to; of a component itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// The connector (`connector/connector_name`) that spoke of it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// What is known about it.
    #[serde(default)]
    pub infos: BTreeMap<String, Info>,
    /// When it was first heard of.
    pub created: Timestamp,
    /// When it was last heard of.
    pub last_event_date: Timestamp,
}

impl Entity {
    /// Makes an enabled entity of impact 1 that was first and last heard of at `now`.
    #[must_use]
    pub fn new(id: EntityId, name: &str, kind: EntityKind, now: Timestamp) -> Self {
        Self {
            id,
            name: name.to_owned(),
            kind,
            enabled: true,
            impact_level: 1,
            component: None,
            connector: None,
            infos: BTreeMap::new(),
            created: now,
            last_event_date: now,
        }
    }
}

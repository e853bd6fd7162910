//! context: the entities that events speak of, made when they are first heard of.

use overstory_model::entity::Info;
use overstory_model::{Entity, EntityId, EntityKind, Event, Source, Timestamp, node};

use crate::working::Working;

/// How the engine works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The time of an entity's last event is written when it moved on by so many seconds.
    pub heard_resolution_s: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { heard_resolution_s: 10 }
    }
}

/// The entities that an event is about: their state has to be in the working set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What the event is about.
    pub entity: EntityId,
    /// The component of a resource.
    pub component: Option<EntityId>,
    /// The source, unless the event is about it.
    pub connector: Option<EntityId>,
}

impl Subject {
    /// Says what an event is about.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let component = match &event.source {
            Source::Resource { component, .. } => Some(EntityId::component(component)),
            _ => None,
        };
        let connector = (event.source != Source::Connector).then(|| event.connector_id());
        Self { entity: event.entity_id(), component, connector }
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = &EntityId> {
        [Some(&self.entity), self.component.as_ref(), self.connector.as_ref()].into_iter().flatten()
    }
}

/// What an entity is, apart from what is known about it.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The sort.
    pub kind: EntityKind,
    /// The name.
    pub name: &'a str,
    /// The component it belongs to.
    pub component: Option<&'a str>,
    /// The connector that speaks of it.
    pub connector: Option<&'a EntityId>,
}

/// Makes the entities that are not there yet and moves on the time of their last event.
///
/// Two things of different sorts can have the same id, such as connector `collectd/host1` and resource `collectd` of
/// component `host1`; they share one entity, which shows the resource or component. Returns whether that is the case.
pub fn apply(event: &Event, subject: &Subject, working: &mut Working, now: Timestamp, settings: &Settings) -> bool {
    let connector = subject.connector.as_ref();
    let of_connector =
        Identity { kind: EntityKind::Connector, name: &event.connector_name, component: None, connector: None };
    let of_component =
        |component| Identity { kind: EntityKind::Component, name: component, component: Some(component), connector };
    let identity = match &event.source {
        Source::Connector => of_connector,
        Source::Component { component } => of_component(component),
        Source::Resource { component, resource } => {
            Identity { kind: EntityKind::Resource, name: resource, component: Some(component), connector }
        }
    };
    let mut shared = hear_of(working, &subject.entity, &identity, now, settings);
    if let Some(id) = &subject.component {
        shared |= hear_of(working, id, &of_component(event.component()), now, settings);
    }
    if let Some(id) = connector {
        shared |= hear_of(working, id, &of_connector, now, settings);
    }
    if event.connector == node::CONNECTOR
        && let Some(object) = event.extra.get(node::INFO)
    {
        keep_node(working, &subject.entity, object, event.at.secs(), now);
    }
    shared
}

/// Keeps what a node says of itself, the latest report; one of a clock that goes ahead counts as of now.
fn keep_node(working: &mut Working, id: &EntityId, object: &serde_json::Value, at: Timestamp, now: Timestamp) {
    let Some(value) = node::keep(object, at.min(now)) else { return };
    let slot = working.slot(id);
    let Some(entity) = &mut slot.entity else { return };
    let known = entity.infos.get(node::INFO).and_then(|info| node::NodeReport::read(&info.value));
    if known.is_some_and(|known| known.reported > at) {
        // From a spool: what came after it was here first.
        return;
    }
    if node::is_removed(object) {
        if entity.infos.remove(node::INFO).is_some() {
            slot.write_entity();
        }
        return;
    }
    let description = "what the node says of itself".to_owned();
    let info = Info { name: node::INFO.to_owned(), description, value };
    entity.infos.insert(node::INFO.to_owned(), info);
    slot.write_entity();
}

/// Makes sure that the entity is there and not older than the resolution; returns whether another sort has its id.
pub(super) fn hear_of(
    working: &mut Working,
    id: &EntityId,
    identity: &Identity<'_>,
    now: Timestamp,
    settings: &Settings,
) -> bool {
    let slot = working.slot(id);
    let Some(entity) = &mut slot.entity else {
        slot.entity = Some(make(id, identity, now));
        slot.write_entity();
        return false;
    };
    let shared = entity.kind != identity.kind || entity.component.as_deref() != identity.component;
    if shared && entity.kind == EntityKind::Connector {
        let made = make(id, identity, now);
        (entity.name, entity.kind) = (made.name, made.kind);
        (entity.component, entity.connector) = (made.component, made.connector);
        entity.last_event_date = now;
        slot.write_entity();
    } else if now.since(entity.last_event_date) >= settings.heard_resolution_s {
        entity.last_event_date = now;
        slot.write_heard();
    }
    shared
}

fn make(id: &EntityId, identity: &Identity<'_>, now: Timestamp) -> Entity {
    Entity {
        component: identity.component.map(str::to_owned),
        connector: identity.connector.map(|connector| connector.0.clone()),
        ..Entity::new(id.clone(), identity.name, identity.kind, now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_model::Millis;

    use super::*;
    use crate::engine::alarms::tests::check;
    use crate::working::EntityWrite;

    const SETTINGS: Settings = Settings { heard_resolution_s: 10 };

    fn hear(event: &Event, working: &mut Working, now: i64) -> bool {
        apply(event, &Subject::of(event), working, Timestamp(now), &SETTINGS)
    }

    fn writes(working: &Working) -> Vec<(String, EntityWrite)> {
        let mut writes: Vec<_> = working.touched().map(|(id, slot)| (id.0.clone(), slot.entity_write())).collect();
        writes.sort_by(|a, b| a.0.cmp(&b.0));
        writes
    }

    #[test]
    fn the_first_event_of_a_resource_makes_three_entities() {
        let mut working = Working::new(1 << 20);
        let event = check("disk", 2, Millis(5_000));
        assert_eq!(Subject::of(&event).ids().count(), 3);
        assert!(!hear(&event, &mut working, 5));
        let whole = |id: &str| (id.to_owned(), EntityWrite::Whole);
        assert_eq!(writes(&working), [whole("disk/host1"), whole("host1"), whole("nagios/poller1")]);
        let resource = working.slot(&event.entity_id()).entity.clone().unwrap();
        assert_eq!((resource.name.as_str(), resource.component.as_deref()), ("disk", Some("host1")));
        assert_eq!(resource.connector.as_deref(), Some("nagios/poller1"));
    }

    #[test]
    fn the_last_event_is_written_when_it_moved_on_by_the_resolution() {
        let mut working = Working::new(1 << 20);
        let event = check("disk", 0, Millis(0));
        hear(&event, &mut working, 100);
        working.committed();
        hear(&event, &mut working, 109);
        assert!(writes(&working).iter().all(|(_, write)| *write == EntityWrite::None));
        hear(&event, &mut working, 110);
        assert!(writes(&working).iter().all(|(_, write)| *write == EntityWrite::Heard));
    }

    fn report(records: u64, at: i64) -> Event {
        let mut event = check("dht-a", 0, Millis(at * 1000));
        (event.connector, event.connector_name) = ("swarm".to_owned(), "dht".to_owned());
        let node = serde_json::json!({"type": "dht", "instance": "dht-a", "records": records});
        event.extra.insert("node".to_owned(), node);
        event
    }

    fn records(working: &mut Working, event: &Event) -> Option<u64> {
        let entity = working.slot(&event.entity_id()).entity.clone().unwrap();
        entity.infos.get("node")?.value["records"].as_u64()
    }

    #[test]
    fn the_latest_report_of_a_node_is_kept() {
        let mut working = Working::new(1 << 20);
        let first = report(1, 100);
        hear(&first, &mut working, 101);
        assert_eq!(records(&mut working, &first), Some(1));
        working.committed();
        hear(&report(2, 102), &mut working, 102);
        assert_eq!(writes(&working)[0].1, EntityWrite::Whole);
        // What waited in a spool comes late, and what comes at the same second counts.
        hear(&report(3, 101), &mut working, 103);
        assert_eq!(records(&mut working, &first), Some(2));
        hear(&report(4, 102), &mut working, 103);
        assert_eq!(records(&mut working, &first), Some(4));
        // A clock that went an hour ahead and was put right does not stop the reports.
        hear(&report(5, 3_800), &mut working, 200);
        hear(&report(6, 201), &mut working, 201);
        assert_eq!(records(&mut working, &first), Some(6));
        let kept = working.slot(&first.entity_id()).entity.clone().unwrap().infos["node"].value.clone();
        assert_eq!(kept["reported"], 201);
    }

    #[test]
    fn nothing_is_known_of_a_node_that_was_removed() {
        let mut working = Working::new(1 << 20);
        hear(&report(1, 100), &mut working, 100);
        working.committed();
        let mut removed = report(1, 101);
        removed.extra["node"]["state"] = "removed".into();
        hear(&removed, &mut working, 101);
        assert_eq!(records(&mut working, &removed), None);
        assert_eq!(writes(&working)[0].1, EntityWrite::Whole);
        // An instance of the same name is a new one.
        hear(&report(2, 102), &mut working, 102);
        assert_eq!(records(&mut working, &removed), Some(2));
    }

    #[test]
    fn what_is_no_report_of_a_node_is_not_kept() {
        let mut working = Working::new(1 << 20);
        let mut foreign = report(1, 1);
        foreign.connector = "nagios".to_owned();
        hear(&foreign, &mut working, 1);
        assert_eq!(records(&mut working, &foreign), None);
        for object in
            [serde_json::json!("x"), serde_json::json!({"type": "dht", "instance": "a", "x": "y".repeat(5000)})]
        {
            let mut broken = report(1, 1);
            broken.extra.insert("node".to_owned(), object);
            hear(&broken, &mut working, 1);
            assert_eq!(records(&mut working, &broken), None);
        }
    }

    #[test]
    fn a_resource_named_like_a_connector_takes_over_its_entity() {
        let mut working = Working::new(1 << 20);
        let mut first = check("disk", 0, Millis(0));
        (first.connector, first.connector_name) = ("disk".to_owned(), "host1".to_owned());
        first.source = Source::Component { component: "other".to_owned() };
        assert!(!hear(&first, &mut working, 1));
        working.committed();
        let second = check("disk", 0, Millis(0));
        assert!(hear(&second, &mut working, 2));
        let entity = working.slot(&second.entity_id()).entity.clone().unwrap();
        assert_eq!((entity.kind, entity.created), (EntityKind::Resource, Timestamp(1)));
        // Hearing of the connector again changes nothing back.
        assert!(hear(&first, &mut working, 3));
        assert_eq!(working.slot(&second.entity_id()).entity.as_ref().unwrap().kind, EntityKind::Resource);
    }
}

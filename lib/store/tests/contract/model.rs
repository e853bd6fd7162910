//! Things to store.

use overstory_model::alarm::{AlarmValue, Initiator};
use overstory_model::ids::MessageId;
use overstory_model::metric::MetricKind;
use overstory_model::{Alarm, AlarmId, Entity, EntityId, EntityKind, Millis, SeriesKey, Step, StepKind, Timestamp};
use overstory_store::{AlarmWrite, Commit, Outgoing, Point};

pub(crate) const UNIT: &str = "Engine_events";
/// A time on an hour.
pub(crate) const NOW: i64 = 1_700_002_800;

pub(crate) fn step(kind: StepKind, val: i64, t: i64) -> Step {
    Step {
        kind,
        t: Timestamp(t),
        author: "test.t1".to_owned(),
        message: "load is 12".to_owned(),
        val,
        initiator: Initiator::External,
    }
}

/// An open alarm of a resource.
pub(crate) fn alarm(id: &str, resource: &str, component: &str, state: i64, t: i64) -> Alarm {
    Alarm {
        id: AlarmId(id.to_owned()),
        t: Timestamp(t),
        entity: EntityId::resource(resource, component),
        tags: vec!["env: test".to_owned()],
        v: AlarmValue {
            state: step(StepKind::StateInc, state, t),
            status: step(StepKind::StatusInc, 1, t),
            connector: "test".to_owned(),
            connector_name: "t1".to_owned(),
            component: component.to_owned(),
            resource: Some(resource.to_owned()),
            display_name: format!("ABC-{id}"),
            creation_date: Timestamp(t),
            last_update_date: Timestamp(t),
            last_event_date: Timestamp(t),
            initial_output: "load is 12".to_owned(),
            output: "load is 12".to_owned(),
            initial_long_output: String::new(),
            long_output: String::new(),
            long_output_history: vec![],
            events_count: 1,
            total_state_changes: 1,
            state_changes_since_status_update: 0,
            resolved: None,
            duration: None,
            current_state_duration: None,
            parents: vec![],
            children: vec![],
            infos: serde_json::Map::new(),
            infos_rule_version: serde_json::Map::new(),
        },
        steps_count: 2,
    }
}

pub(crate) fn new_alarm(alarm: &Alarm) -> AlarmWrite {
    let new_steps = vec![alarm.v.state.clone(), alarm.v.status.clone()];
    AlarmWrite { alarm: alarm.clone(), new_steps, is_new: true }
}

pub(crate) fn changed(alarm: &Alarm) -> AlarmWrite {
    AlarmWrite { alarm: alarm.clone(), new_steps: vec![], is_new: false }
}

/// The same alarm, ended.
pub(crate) fn ended(alarm: &Alarm, at: i64) -> Alarm {
    let mut alarm = alarm.clone();
    alarm.v.resolved = Some(Timestamp(at));
    alarm
}

pub(crate) fn entity(id: &str, at: i64) -> Entity {
    let mut entity = Entity::new(EntityId(id.to_owned()), id, EntityKind::Component, Timestamp(at));
    entity.component = Some(id.to_owned());
    entity
}

pub(crate) fn message(n: u64) -> MessageId {
    MessageId::from_property(&n.to_string())
}

pub(crate) fn key(entity: &str, metric: &str) -> SeriesKey {
    SeriesKey { entity: EntityId(entity.to_owned()), metric: metric.to_owned() }
}

pub(crate) fn point(entity: &str, metric: &str, at: i64, value: f64) -> Point {
    Point { series: key(entity, metric), unit: None, kind: MetricKind::Gauge, limits: [None; 4], at: Millis(at), value }
}

pub(crate) fn outgoing(id: &str) -> Outgoing {
    Outgoing {
        exchange: "canopsis.alerts".to_owned(),
        routing_key: "test.t1.create.resource.web1.load".to_owned(),
        message_id: id.to_owned(),
        content_type: "application/json".to_owned(),
        headers: vec![("x".to_owned(), "y".to_owned())],
        body: vec![0, 255, b'{'],
    }
}

/// A commit of a bit of everything about `web1`.
pub(crate) fn batch(n: u64) -> Commit {
    Commit {
        seen: vec![message(n)],
        at: Timestamp(NOW),
        entities: vec![entity("web1", NOW)],
        heard_of: vec![(EntityId("web1".to_owned()), Timestamp(NOW + 5))],
        alarms: vec![new_alarm(&alarm(&format!("a{n}"), &format!("load{n}"), "web1", 2, NOW))],
        points: vec![point("web1", "cpu", NOW * 1000, 0.5)],
        outbox: vec![outgoing(&format!("m{n}"))],
    }
}

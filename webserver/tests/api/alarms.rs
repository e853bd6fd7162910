use overstory_model::alarm::{AlarmValue, Initiator};
use overstory_model::{Alarm, AlarmId, Entity, EntityId, EntityKind, Step, StepKind, Timestamp};
use overstory_store::{AlarmWrite, Commit};
use serde_json::{Value, json};

use crate::support::{NOW, Server, start};

fn step(kind: StepKind, val: i64, at: i64) -> Step {
    Step {
        kind,
        t: Timestamp(at),
        author: "test-connector.test-connector-name".into(),
        message: "O".into(),
        val,
        initiator: Initiator::External,
    }
}

/// An alarm of resource `R` of component `C`, as the engines make it of an event of ten seconds ago.
pub(crate) fn alarm(id: &str, component: &str, state: i64, created: i64) -> AlarmWrite {
    let steps = vec![step(StepKind::StateInc, state, created - 10), step(StepKind::StatusInc, 1, created - 10)];
    let alarm = Alarm {
        id: AlarmId(id.into()),
        t: Timestamp(created),
        entity: EntityId::resource("R", component),
        tags: vec![],
        v: AlarmValue {
            state: steps[0].clone(),
            status: steps[1].clone(),
            connector: "test-connector".into(),
            connector_name: "test-connector-name".into(),
            component: component.into(),
            resource: Some("R".into()),
            display_name: format!("AB-{id}"),
            creation_date: Timestamp(created),
            last_update_date: Timestamp(created - 10),
            last_event_date: Timestamp(created),
            initial_output: "O".into(),
            output: "O".into(),
            initial_long_output: "L".into(),
            long_output: "L".into(),
            long_output_history: vec!["L".into()],
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
    };
    AlarmWrite { alarm, new_steps: steps, is_new: true }
}

fn entity(component: &str) -> Entity {
    let id = EntityId::resource("R", component);
    let mut entity = Entity::new(id, "R", EntityKind::Resource, Timestamp(NOW));
    entity.impact_level = 3;
    entity.component = Some(component.into());
    entity.connector = Some("test-connector/test-connector-name".into());
    entity
}

/// Three alarms: `one` open and critical, `two` open and minor, `three` resolved an hour ago.
async fn seed(server: &Server) {
    let mut three = alarm("three", "Z", 2, NOW - 7200);
    three.alarm.v.resolved = Some(Timestamp(NOW - 3600));
    let alarms = vec![alarm("one", "C", 3, NOW), alarm("two", "D", 1, NOW - 60), three];
    let entities = vec![entity("C"), entity("D")];
    server.commit(Commit { at: Timestamp(NOW), entities, alarms, ..Commit::default() }).await;
}

fn ids(document: &Value) -> Vec<&str> {
    document["data"].as_array().unwrap().iter().map(|alarm| alarm["_id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_has_the_published_shape() {
    let server = start().await;
    seed(&server).await;
    let expected = json!({
        "_id": "one",
        "t": NOW,
        "entity": {
            "_id": "R/C", "name": "R", "type": "resource", "enabled": true, "impact_level": 3, "component": "C",
            "connector": "test-connector/test-connector-name", "infos": {}, "created": NOW, "last_event_date": NOW
        },
        "v": {
            "state": {"_t": "stateinc", "t": NOW - 10, "a": "test-connector.test-connector-name", "m": "O", "val": 3,
                "initiator": "external"},
            "status": {"_t": "statusinc", "t": NOW - 10, "a": "test-connector.test-connector-name", "m": "O", "val": 1,
                "initiator": "external"},
            "connector": "test-connector", "connector_name": "test-connector-name", "component": "C", "resource": "R",
            "display_name": "AB-one", "creation_date": NOW, "last_update_date": NOW - 10, "last_event_date": NOW,
            "initial_output": "O", "output": "O", "initial_long_output": "L", "long_output": "L",
            "long_output_history": ["L"], "events_count": 1, "total_state_changes": 1,
            "state_changes_since_status_update": 0, "resolved": null, "parents": [], "children": [], "infos": {},
            "infos_rule_version": {}
        },
        "tags": [], "infos": {}, "impact_state": 9, "links": {}, "children": 0, "opened_children": 0,
        "closed_children": 0, "parents": 0, "is_meta_alarm": false, "bookmark": false, "steps_count": 2
    });
    let meta = json!({"page": 1, "per_page": 10, "page_count": 1, "total_count": 1});
    let listed = server.get("/api/v4/alarms?search=R/C").await;
    assert_eq!(listed.pair(), (200, json!({"data": [expected], "meta": meta})));
    assert_eq!(server.get("/api/v4/alarms/one").await.pair(), (200, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_sorted_and_paged() {
    let server = start().await;
    seed(&server).await;
    for (query, expected) in [
        ("", vec!["one", "two", "three"]),
        ("?opened=true", vec!["one", "two"]),
        ("?opened=false", vec!["three"]),
        ("?sort=asc", vec!["three", "two", "one"]),
        ("?sort_by=v.state.val", vec!["two", "three", "one"]),
        ("?sort_by=v.state.val&sort=desc", vec!["one", "three", "two"]),
        ("?sort_by=v.component", vec!["one", "two", "three"]),
        ("?search=ab-TWO", vec!["two"]),
        ("?search=nothing", vec![]),
        ("?entity=R/D", vec!["two"]),
        ("?state=1,3", vec!["one", "two"]),
        (&format!("?tstart={}", NOW - 60), vec!["one", "two"]),
        (&format!("?tstop={}", NOW - 60), vec!["two", "three"]),
        ("?page=2&limit=2", vec!["three"]),
        ("?page=9", vec![]),
        ("?paginate=false&limit=1", vec!["one", "two", "three"]),
    ] {
        let answer = server.get(&format!("/api/v4/alarms{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        assert_eq!(ids(&answer.json()), expected, "{query}");
    }
    let second = server.get("/api/v4/alarms?page=2&limit=2").await.json();
    assert_eq!(second["meta"], json!({"page": 2, "per_page": 2, "page_count": 2, "total_count": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_ended_long_ago_is_only_among_the_ended() {
    let server = start().await;
    seed(&server).await;
    server.clock.advance_secs(720 * 3600 - 3599);
    assert_eq!(ids(&server.get("/api/v4/alarms").await.json()), ["one", "two"]);
    assert_eq!(ids(&server.get("/api/v4/alarms?opened=false").await.json()), ["three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_named() {
    let server = start().await;
    let answer = server.get("/api/v4/alarms?opened=maybe&limit=0&sort_by=v.ack&state=7&tstart=5&tstop=4").await;
    let expected = json!({"errors": {
        "opened": "has to be true or false",
        "limit": "has to be a number from 1 to 1000",
        "sort_by": "has to be one of t, v.creation_date, v.state.val, v.status.val, v.last_update_date, \
                    v.last_event_date, v.component, v.resource, v.connector, v.output",
        "state": "has to be 0, 1, 2 or 3",
        "tstop": "has to be at or after tstart",
    }});
    assert_eq!(answer.pair(), (400, expected));
    let long = format!("/api/v4/alarms?search={}", "x".repeat(2000));
    assert_eq!(server.get(&long).await.json(), json!({"errors": {"search": "has more than 1024 bytes"}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_come_in_pages_and_only_when_asked_for() {
    let server = start().await;
    seed(&server).await;
    let author = "test-connector.test-connector-name";
    let state = json!({"_t": "stateinc", "t": NOW - 10, "a": author, "m": "O", "val": 3, "initiator": "external"});
    let status = json!({"_t": "statusinc", "t": NOW - 10, "a": author, "m": "O", "val": 1, "initiator": "external"});
    let meta = |page: u32, per_page: u32, page_count: u32| json!({"page": page, "per_page": per_page, "page_count": page_count, "total_count": 2});
    let steps = server.get("/api/v4/alarms/one/steps").await;
    assert_eq!(steps.pair(), (200, json!({"data": [state, status], "meta": meta(1, 10, 1)})));
    let second = server.get("/api/v4/alarms/one/steps?page=2&limit=1").await;
    assert_eq!(second.pair(), (200, json!({"data": [status], "meta": meta(2, 1, 2)})));

    let asked = json!([
        {"_id": "one", "steps": {"page": 1}},
        {"_id": "one", "steps": {"page": 1, "limit": 1, "reversed": true}},
        {"_id": "none", "steps": {"page": 1}},
        {"_id": "one", "steps": {"page": 0}},
    ]);
    let details = server.post("/api/v4/alarm-details", &asked).await;
    let expected = json!([
        {"status": 200, "_id": "one", "data": {"steps": {"data": [state, status], "meta": meta(1, 10, 1)}}},
        {"status": 200, "_id": "one", "data": {"steps": {"data": [status], "meta": meta(1, 1, 2)}}},
        {"status": 404, "_id": "none", "error": "Not found"},
        {"status": 400, "_id": "one", "error": "steps.page counts from 1, steps.limit is 1 to 1000"},
    ]);
    assert_eq!(details.pair(), (207, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_is_not_there_is_not_found() {
    let server = start().await;
    for path in ["/api/v4/alarms/none", "/api/v4/alarms/none/steps"] {
        assert_eq!(server.get(path).await.pair(), (404, json!({"error": "Not found"})), "{path}");
    }
    let answer = server.post("/api/v4/alarm-details", &json!({"_id": "one"})).await;
    assert_eq!(answer.status, 400);
    let many: Vec<_> = (0..101).map(|n| json!({"_id": n.to_string()})).collect();
    let answer = server.post("/api/v4/alarm-details", &json!(many)).await;
    assert_eq!(answer.pair(), (400, json!({"error": "There are more than 100 items"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_listed() {
    let server = start().await;
    seed(&server).await;
    let answer = server.get("/api/v4/entities?search=r/c&type=resource&component=C").await;
    let expected = json!({
        "data": [{"_id": "R/C", "name": "R", "type": "resource", "enabled": true, "impact_level": 3, "component": "C",
            "connector": "test-connector/test-connector-name", "infos": {}, "created": NOW, "last_event_date": NOW}],
        "meta": {"page": 1, "per_page": 10, "page_count": 1, "total_count": 1}
    });
    assert_eq!(answer.pair(), (200, expected));
    assert_eq!(ids(&server.get("/api/v4/entities?sort=desc").await.json()), ["R/D", "R/C"]);
    assert_eq!(ids(&server.get("/api/v4/entities?type=component").await.json()), [""; 0]);
    let answer = server.get("/api/v4/entities?type=alien&sort_by=age").await;
    let expected = json!({"errors": {
        "type": "has to be connector, component, resource or service",
        "sort_by": "has to be one of _id, name, type, last_event_date"
    }});
    assert_eq!(answer.pair(), (400, expected));
}

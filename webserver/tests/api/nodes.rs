use overstory_model::entity::Info;
use overstory_model::{Entity, EntityId, EntityKind, Timestamp};
use overstory_store::Commit;
use serde_json::{Value, json};

use crate::alarms::alarm;
use crate::support::{NOW, Server, basic, start};

/// The entity of a node that reported so many seconds ago.
fn node(id: &str, age: i64, report: Value) -> Entity {
    let (instance, host) = id.split_once('/').unwrap();
    let mut entity = Entity::new(EntityId(id.into()), instance, EntityKind::Resource, Timestamp(NOW - age));
    let mut value = json!({"type": "dht", "instance": instance, "host": host, "reported": NOW - age, "interval_s": 30});
    value.as_object_mut().unwrap().extend(report.as_object().unwrap().clone());
    let info = Info { name: "node".into(), description: String::new(), value };
    entity.infos.insert("node".into(), info);
    entity
}

fn range(min: &str, max: &str) -> Value {
    json!({"min": min, "max": max})
}

const LOW: [&str; 2] = ["0x0000000000000000", "0x7fffffffffffffff"];
const HIGH: [&str; 2] = ["0x8000000000000000", "0xffffffffffffffff"];

/// Two nodes that share a hash space, the dump process of one, one that is silent, one that was stopped, and an entity
/// that is no node.
async fn seed(server: &Server) {
    let whole = json!({
        "program": "dhtnode", "version": "0.1.0", "address": "127.0.0.1", "port": 21_000, "neo_port": 21_100,
        "range": range(LOW[0], LOW[1]), "started": NOW - 500, "state": "running", "records": 10, "bytes": 1000,
        "memory": 4096, "memory_limit": null, "connections": 3, "connection_limit": 5000, "channels": 2,
        "last_dump": NOW - 100, "last_dump_ok": true, "dump_period_s": 0
    });
    let entities = vec![
        node("dht-a/h1", 5, whole),
        node("dht-b/h2", 7, json!({"range": range(HIGH[0], HIGH[1]), "records": 20})),
        node("dhtdump-a/h1", 9, json!({"type": "dhtdump", "range": null})),
        node("dht-c/h1", 100, json!({"range": range(LOW[0], HIGH[1]), "group": "cache"})),
        node("dht-d/h2", 9, json!({"range": range("0x0", "0x1"), "state": "stopped"})),
        Entity::new(EntityId("h1".into()), "h1", EntityKind::Component, Timestamp(NOW)),
        node("broken/h1", 1, json!({"type": 7})),
    ];
    let mut late = alarm("late", "h1", 2, NOW);
    late.alarm.entity = EntityId("dht-a/h1".into());
    late.alarm.v.output = "the dump is overdue".into();
    server.commit(Commit { at: Timestamp(NOW), entities, alarms: vec![late], ..Commit::default() }).await;
}

fn ids(document: &Value) -> Vec<&str> {
    document["data"].as_array().unwrap().iter().map(|node| node["_id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_layout_is_shown() {
    let server = start().await;
    seed(&server).await;
    let answer = server.get("/api/v4/nodes?limit=1").await;
    let expected = json!({
        "data": [{
            "_id": "dht-a/h1", "instance": "dht-a", "type": "dht", "group": "dht", "program": "dhtnode",
            "version": "0.1.0", "host": "h1", "address": "127.0.0.1", "port": 21_000, "neo_port": 21_100,
            "range": range(LOW[0], LOW[1]), "status": "running", "started": NOW - 500, "records": 10, "bytes": 1000,
            "memory": 4096, "memory_limit": null, "connections": 3, "connection_limit": 5000, "channels": 2,
            "last_dump": NOW - 100, "last_dump_ok": true, "dump_period_s": 0, "interval_s": 30, "reported": NOW - 5,
            "age_s": 5, "alarm": {"_id": "late", "state": 2, "output": "the dump is overdue"}
        }],
        "meta": {"page": 1, "per_page": 1, "page_count": 5, "total_count": 5},
        "coverage": [
            {"type": "dht", "group": "cache", "running": 0, "complete": false, "gaps": [range(LOW[0], HIGH[1])],
                "overlaps": []},
            {"type": "dht", "group": "dht", "running": 2, "complete": true, "gaps": [], "overlaps": []}
        ]
    });
    assert_eq!(answer.pair(), (200, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_filtered_sorted_and_paged() {
    let server = start().await;
    seed(&server).await;
    let list = async |query: &str| {
        let answer = server.get(&format!("/api/v4/nodes?{query}")).await.json();
        ids(&answer).iter().map(|id| (*id).to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list("").await, "dht-a/h1 dht-b/h2 dht-c/h1 dht-d/h2 dhtdump-a/h1");
    assert_eq!(list("type=dhtdump").await, "dhtdump-a/h1");
    assert_eq!(list("type=dhtdump,dht&host=h1").await, "dht-a/h1 dht-c/h1 dhtdump-a/h1");
    assert_eq!(list("group=cache").await, "dht-c/h1");
    assert_eq!(list("status=silent,stopped").await, "dht-c/h1 dht-d/h2");
    assert_eq!(list("search=DHT-B").await, "dht-b/h2");
    assert_eq!(list("sort_by=records&sort=desc&limit=2").await, "dht-b/h2 dht-a/h1");
    assert_eq!(list("sort_by=age_s&page=2&limit=2").await, "dht-d/h2 dhtdump-a/h1");
    assert_eq!(list("sort_by=status&paginate=false").await, "dht-a/h1 dht-b/h2 dhtdump-a/h1 dht-d/h2 dht-c/h1");
    assert_eq!(list("page=9").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_silent_leaves_a_gap() {
    let server = start().await;
    seed(&server).await;
    // The report of dht-b is 7 seconds old and counts for 90.
    server.clock.advance_secs(84);
    let answer = server.get("/api/v4/nodes?search=dht-b").await.json();
    assert_eq!((&answer["data"][0]["status"], &answer["data"][0]["age_s"]), (&json!("silent"), &json!(91)));
    let group = &answer["coverage"][1];
    assert_eq!((&group["complete"], &group["gaps"]), (&json!(false), &json!([range(HIGH[0], HIGH[1])])));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_keep_the_same_are_named() {
    let server = start().await;
    let entities = vec![
        node("dht-a/h1", 0, json!({"range": range(LOW[0], HIGH[1])})),
        node("dht-b/h1", 0, json!({"range": range(HIGH[0], HIGH[1])})),
        node("dht-new/h1", 0, json!({"range": range("0xffffffffffffffff", "0x0000000000000000")})),
    ];
    server.commit(Commit { at: Timestamp(NOW), entities, ..Commit::default() }).await;
    let coverage = server.get("/api/v4/nodes").await.json()["coverage"].clone();
    let overlap = json!({"min": HIGH[0], "max": HIGH[1], "nodes": ["dht-a/h1", "dht-b/h1"]});
    let expected = json!([{"type": "dht", "group": "dht", "running": 3, "complete": false, "gaps": [],
        "overlaps": [overlap]}]);
    assert_eq!(coverage, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_have_no_part_of_the_hash_space() {
    let server = start().await;
    let dmq = |id: &str, report: Value| {
        let mut report = report;
        report["type"] = "dmq".into();
        report["range"] = Value::Null;
        node(id, 0, report)
    };
    let entities = vec![
        dmq("dmq-a/h1", json!({"records": 5, "bytes": 50, "channels": 2, "neo_port": 22_100, "last_dump": null})),
        dmq("dmq-b/h1", json!({"records": 7, "group": "dht"})),
        node("dht-a/h1", 0, json!({"range": range(LOW[0], HIGH[1])})),
    ];
    server.commit(Commit { at: Timestamp(NOW), entities, ..Commit::default() }).await;
    let answer = server.get("/api/v4/nodes?type=dmq&sort_by=records&sort=desc").await.json();
    assert_eq!(ids(&answer), ["dmq-b/h1", "dmq-a/h1"]);
    let first = &answer["data"][1];
    assert_eq!((&first["range"], &first["group"], &first["neo_port"]), (&Value::Null, &json!("dmq"), &json!(22_100)));
    // A queue in a group of the same name leaves the dht's coverage alone.
    let expected = json!([{"type": "dht", "group": "dht", "running": 1, "complete": true, "gaps": [], "overlaps": []}]);
    assert_eq!(answer["coverage"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn logfiles_nodes_have_timestamps_that_several_may_take() {
    let server = start().await;
    let logfiles = |name: &str, min: &str, max: &str| {
        node(&format!("{name}/h1"), 0, json!({"type": "logfiles", "range": range(min, max), "neo_port": 23_100}))
    };
    let all = |name: &str| logfiles(name, LOW[0], HIGH[1]);
    let commit = async |entities: Vec<Entity>| {
        server.commit(Commit { at: Timestamp(NOW), entities, ..Commit::default() }).await;
        let answer = server.get("/api/v4/nodes?type=logfiles").await.json();
        (answer["data"].clone(), answer["coverage"].clone())
    };
    let group = |running: usize, complete: bool, overlaps: Value| {
        json!([{"type": "logfiles", "group": "logfiles", "running": running, "complete": complete, "gaps": [],
            "overlaps": overlaps}])
    };
    let (data, coverage) = commit(vec![all("logfiles-a"), all("logfiles-b")]).await;
    assert_eq!((&data[0]["_id"], &data[0]["range"]), (&json!("logfiles-a/h1"), &range(LOW[0], HIGH[1])));
    assert_eq!(coverage, group(2, true, json!([])));
    let (_, coverage) = commit(vec![logfiles("logfiles-c", HIGH[0], HIGH[1])]).await;
    let overlap = json!({"min": HIGH[0], "max": HIGH[1], "nodes": ["logfiles-a/h1", "logfiles-c/h1"]});
    assert_eq!(coverage, group(3, false, json!([overlap])));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_about_nodes_are_refused() {
    let server = start().await;
    let answer = server.get("/api/v4/nodes?status=dead&sort_by=size&limit=0").await;
    let expected = json!({"errors": {
        "status": "has to be running, stopped or silent",
        "sort_by": "has to be one of _id, type, host, status, records, bytes, memory, connections, channels, \
            last_dump, age_s",
        "limit": "has to be a number from 1 to 1000"
    }});
    assert_eq!(answer.pair(), (400, expected));
    assert_eq!(server.request("GET", "/api/v4/nodes", &[], None).await.status, 401);
    let eve = [basic("eve", crate::support::PASSWORD)];
    let eve: Vec<&str> = eve.iter().map(String::as_str).collect();
    assert_eq!(server.request("GET", "/api/v4/nodes", &eve, None).await.status, 403);
    let empty =
        json!({"data": [], "meta": {"page": 1, "per_page": 10, "page_count": 1, "total_count": 0}, "coverage": []});
    assert_eq!(server.get("/api/v4/nodes").await.pair(), (200, empty));
}

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use overstory_model::archive::{Archived, Message, channel};
use overstory_webserver::archive::{Each, EventArchive, Missing, Part, Trouble};
use serde_json::{Value, json};

use crate::support::{NOW, PASSWORD, Server, basic, start, start_with_archive};

#[derive(Default)]
struct FakeArchive {
    records: Mutex<Vec<(String, i64, Vec<u8>)>>,
    away: Mutex<Vec<Missing>>,
}

#[async_trait]
impl EventArchive for FakeArchive {
    async fn away(&self) -> Vec<Missing> {
        self.away.lock().unwrap().clone()
    }

    async fn read(&self, part: Part<'_>, _without: &[SocketAddrV4], each: Each<'_>) -> Vec<Missing> {
        for (channel, second, record) in self.records.lock().unwrap().iter() {
            let text = String::from_utf8_lossy(record);
            if channel == part.channel && (part.low..=part.high).contains(second) && text.contains(part.needle) {
                each(*second, record);
            }
        }
        Vec::new()
    }
}

impl FakeArchive {
    fn put(&self, received_s: i64, body: &[u8]) {
        let headers = BTreeMap::new();
        let number = i64::try_from(self.records.lock().unwrap().len()).unwrap();
        let id = format!("id-{number}");
        let message = Message {
            body,
            routing_key: "nagios.poller1.check.resource.host1.disk",
            message_id: Some(&id),
            content_type: Some("application/json"),
            headers: &headers,
            redelivered: false,
            received: received_s * 1_000_000 + number,
        };
        let (at, archived) = Archived::of(&message, 366 * 86_400);
        self.records.lock().unwrap().push((channel(at), at.0, archived.encode()));
    }

    fn check(&self, at: i64, component: &str, resource: Option<&str>, output: &str) {
        let mut event = json!({"connector": "nagios", "connector_name": "poller1", "event_type": "check",
            "component": component, "state": 0, "output": output, "timestamp": at});
        if let Some(resource) = resource {
            event["resource"] = resource.into();
        }
        self.put(at, event.to_string().as_bytes());
    }
}

async fn archived() -> (Arc<FakeArchive>, Server) {
    let archive = Arc::<FakeArchive>::default();
    let now = Arc::clone(&archive);
    let server = start_with_archive(Arc::new(move || Ok(now.clone()))).await;
    (archive, server)
}

/// The outputs on the page that `query` asks for.
async fn outputs(server: &Server, query: &str) -> Vec<String> {
    let answer = server.get(&format!("/api/v4/events?{query}")).await.json();
    let text = |event: &Value| event["event"]["output"].as_str().unwrap().to_owned();
    answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_event_is_shown_with_all_that_came_with_it() {
    let (archive, server) = archived().await;
    archive.check(NOW - 5, "host1", Some("disk"), "full");
    archive.put(NOW - 4, b"no event \"at all\"");
    archive.put(NOW - 3, b"\xff");
    let expected = json!({
        "data": [
            {"t": NOW - 5, "received": NOW - 5, "entity": "disk/host1", "connector": "nagios/poller1",
             "component": "host1", "event_type": "check", "routing_key": "nagios.poller1.check.resource.host1.disk",
             "message_id": "id-0", "content_type": "application/json", "headers": {},
             "event": {"connector": "nagios", "connector_name": "poller1", "event_type": "check", "component": "host1",
                "resource": "disk", "state": 0, "output": "full", "timestamp": NOW - 5}},
            {"t": NOW - 4, "received": 0, "entity": null, "connector": null, "component": null, "event_type": null,
             "routing_key": "nagios.poller1.check.resource.host1.disk", "message_id": "id-1",
             "content_type": "application/json", "headers": {}, "text": "no event \"at all\""},
            {"t": NOW - 3, "received": 0, "entity": null, "connector": null, "component": null, "event_type": null,
             "routing_key": "nagios.poller1.check.resource.host1.disk", "message_id": "id-2",
             "content_type": "application/json", "headers": {}, "base64": "/w=="}
        ],
        "meta": {"next": null, "limit": 100, "complete": true, "missing": []}
    });
    let (status, mut answer) = server.get("/api/v4/events").await.pair();
    let received: Vec<f64> = (0..3).map(|at| answer["data"][at]["received"].as_f64().unwrap()).collect();
    assert!(received.iter().all(|at| (at - NOW as f64).abs() < 6.0), "{received:?}");
    for (at, received) in [(NOW - 5).into(), 0.into(), Value::from(0)].into_iter().enumerate() {
        answer["data"][at]["received"] = received;
    }
    assert_eq!((status, answer), (200, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_exact_and_can_be_combined() {
    let (archive, server) = archived().await;
    archive.check(NOW - 50, "host1", None, "a");
    archive.check(NOW - 40, "host11", None, "b");
    archive.check(NOW - 30, "host1", Some("disk"), "c host1");
    archive.check(NOW - 20, "host11", Some("disk"), "d caf\u{e9}");
    for (query, expected) in [
        ("entity=host1", &["a"][..]),
        ("entity=host11", &["b"]),
        ("entity=disk/host1", &["c host1"]),
        ("entity=ost1", &[]),
        ("entity=nagios/poller1&limit=3", &["a", "b", "c host1"]),
        ("component=host1", &["a", "c host1"]),
        ("component=host11&contains=caf%C3%A9", &["d caf\u{e9}"]),
        ("contains=host1&event_type=check", &["a", "b", "c host1", "d caf\u{e9}"]),
        ("event_type=log", &[]),
        (&format!("from={}&to={}", NOW - 40, NOW - 20), &["b", "c host1"]),
        (&format!("from={}.5", NOW - 20), &["d caf\u{e9}"]),
        (&format!("to={}", NOW - 3700), &[]),
    ] {
        assert_eq!(outputs(&server, query).await, expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_on_where_the_page_ended() {
    let (archive, server) = archived().await;
    (0..5).for_each(|number| archive.check(NOW - 9, "host1", None, &number.to_string()));
    let (mut told, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = server.get(&format!("/api/v4/events?limit=2&to={NOW}{cursor}")).await.json();
        told.extend(answer["data"].as_array().unwrap().iter().map(|event| event["event"]["output"].clone()));
        let Some(next) = answer["meta"]["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(told, ["0", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_what_is_missing_too() {
    let (archive, server) = archived().await;
    let query = format!("/api/v4/events?from={NOW}&to={NOW}&limit=1001&cursor=x&partial=perhaps");
    let answer = server.get(&query).await;
    let errors = json!({"errors": {"from": "has to be before to", "limit": "has to be a number from 1 to 1000",
        "cursor": "has to be what the page before gave as next", "partial": "has to be true or false"}});
    assert_eq!(answer.pair(), (400, errors));
    let answer = server.get(&format!("/api/v4/events?from={}", NOW - 367 * 86_400)).await;
    assert_eq!(answer.pair(), (400, json!({"errors": {"from": "has to be at most 366 days before to"}})));
    let eve = server.request("GET", "/api/v4/events", &[&basic("eve", PASSWORD)], None).await;
    assert_eq!((eve.status, server.request("GET", "/api/v4/events", &[], None).await.status), (403, 401));

    archive.check(NOW, "host1", None, "a");
    let node = "127.0.0.1:23100".parse().unwrap();
    let away = Missing { node, trouble: Trouble::Away, why: "not connected".to_owned() };
    archive.away.lock().unwrap().push(away.clone());
    let answer = server.get("/api/v4/events").await;
    let error = json!({"error": "The archive is not complete: 127.0.0.1:23100 does not answer; \
        partial=true shows what the others have"});
    assert_eq!(answer.headers["retry-after"], "5");
    assert_eq!(answer.pair(), (503, error));
    let answer = server.get("/api/v4/events?partial=true").await.json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 1);
    let missing = json!([{"node": "127.0.0.1:23100", "reason": "not connected"}]);
    assert_eq!((&answer["meta"]["complete"], &answer["meta"]["missing"]), (&json!(false), &missing));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_archive_that_is_said() {
    let server = start().await;
    let error = json!({"error": "There is no archive of events: [archive] in etc/webserver.conf is not enabled"});
    assert_eq!(server.get("/api/v4/events").await.pair(), (503, error));

    let server =
        start_with_archive(Arc::new(|| Err("cannot read etc/nodes/logfiles.nodes: no such file".to_owned()))).await;
    let error = json!({"error": "The archive has no nodes: cannot read etc/nodes/logfiles.nodes: no such file"});
    assert_eq!(server.get("/api/v4/events").await.pair(), (503, error));
    assert_eq!(server.get("/api/v4/app-info").await.status, 200, "everything else is served");
}

/// It said that the node did not answer and to try again, while the node had refused the key, and would do so for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_the_key_does_answer_and_trying_again_does_not_help() {
    let (archive, server) = archived().await;
    let missing = |port, trouble| Missing {
        node: std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port),
        trouble,
        why: "why".to_owned(),
    };
    *archive.away.lock().unwrap() = vec![missing(1, Trouble::Away), missing(2, Trouble::Refused)];
    let answer = server.get("/api/v4/events").await;
    assert!(!answer.headers.contains_key("retry-after"));
    let error = json!({"error": "The archive is not complete: 127.0.0.1:1 does not answer, 127.0.0.1:2 refuses the name \
        and key that [archive] of etc/webserver.conf names; partial=true shows what the others have"});
    assert_eq!(answer.pair(), (502, error));
}

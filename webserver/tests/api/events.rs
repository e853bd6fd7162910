use overstory_webserver::sink::Taken;
use serde_json::{Value, json};

use crate::support::{PASSWORD, Server, basic, start, start_with};

fn event(resource: &str) -> Value {
    json!({"event_type": "check", "connector": "c", "connector_name": "cn", "component": "h.example", "resource": resource,
        "state": 2, "output": "down"})
}

fn published(server: &Server) -> Vec<(String, String, Value)> {
    let messages = server.sink.messages.lock().unwrap();
    let one = |message: &overstory_amqp::Outgoing| {
        let body = serde_json::from_slice(&message.body).unwrap();
        (message.exchange.clone(), message.routing_key.to_string(), body)
    };
    messages.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_published_with_its_key_and_an_id() {
    let server = start().await;
    let answer = server.post("/api/v4/event", &event("cpu")).await;
    let mut sent = event("cpu");
    for (name, value) in [("source_type", "resource"), ("author", "admin"), ("user_id", "admin")] {
        sent[name] = value.into();
    }
    assert_eq!(answer.pair(), (200, json!({"sent_events": [sent], "failed_events": [], "retry_events": []})));
    let key = "c.cn.check.resource.h/example.cpu".to_owned();
    assert_eq!(published(&server), [("canopsis.events".to_owned(), key, sent)]);
    let messages = server.sink.messages.lock().unwrap();
    assert_eq!((messages[0].message_id.len(), messages[0].content_type.as_str()), (36, "application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_an_array_has_its_own_fate() {
    let server = start().await;
    *server.sink.fates.lock().unwrap() = vec![Taken::Durable, Taken::Later, Taken::Never, Taken::Durable];
    let bad = json!({"event_type": "check", "connector": "c"});
    let events = json!([event("a"), bad, event("b"), 7, event("c"), event("d")]);
    let answer = server.post("/api/v4/event", &events).await;
    assert_eq!(answer.status, 200);
    let document = answer.json();
    let resources = |list: &str| -> Vec<Value> {
        document[list].as_array().unwrap().iter().map(|event| event["resource"].clone()).collect()
    };
    assert_eq!(resources("sent_events"), [json!("a"), json!("d")]);
    assert_eq!(resources("retry_events"), [json!("b")]);
    assert_eq!(document["failed_events"].as_array().unwrap().len(), 3);
    assert_eq!(document["failed_events"][0], bad);
    let errors = json!([
        {"index": 1, "error": "connector_name is missing"},
        {"index": 3, "error": "an event is a JSON object"},
        {"index": 4, "error": "it is too large"},
    ]);
    assert_eq!(document["errors"], errors);
    let order: Vec<_> = published(&server).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(order, ["c.cn.check.resource.h/example.a", "c.cn.check.resource.h/example.d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_kept_are_not_answered_as_if_they_were() {
    let server = start().await;
    *server.sink.fates.lock().unwrap() = vec![Taken::Later, Taken::Later];
    let answer = server.post("/api/v4/event", &json!([event("a"), event("b")])).await;
    let expected = json!({"error": "The events could not be kept, send them again later"});
    assert_eq!(answer.pair(), (503, expected));
    assert_eq!(answer.headers["retry-after"], "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_are_taken_too() {
    let server = start().await;
    let headers = [&*basic("admin", PASSWORD), "Content-Type: application/x-www-form-urlencoded; charset=utf-8"];
    let bodies = [
        "event_type=check&connector=c&connector_name=cn&component=h&state=1&output=a+b%21",
        "event=%7B%22event_type%22%3A%22log%22%2C%22connector%22%3A%22c%22%2C%22connector_name%22%3A%22cn%22%2C%22component%22%3A%22h%22%7D",
        // What `curl -d` sends when it is not told the type.
        "{\"event_type\":\"log\",\"connector\":\"c\",\"connector_name\":\"cn\",\"component\":\"h\"}",
    ];
    for body in bodies {
        let answer = server.request("POST", "/api/v4/event", &headers, Some(body.as_bytes())).await;
        let document = answer.json();
        assert_eq!((answer.status, document["sent_events"].as_array().map(Vec::len)), (200, Some(1)), "{document}");
    }
    let first = &published(&server)[0].2;
    assert_eq!((&first["state"], &first["output"]), (&json!(1), &json!("a b!")));
    let empty = server.request("POST", "/api/v4/event", &headers, Some(b"")).await;
    assert_eq!(empty.pair(), (400, json!({"error": "The form is empty"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_events_are_refused() {
    let server = start().await;
    let headers = [&*basic("admin", PASSWORD), "Content-Type: application/json"];
    for body in [&b""[..], b"7", b"null", b"\"x\"", b"{", b"[{]", b"{\"a\":1}x", b"[1,2", b"\xff\xfe", b"[\"\xff\"]"] {
        let answer = server.request("POST", "/api/v4/event", &headers, Some(body)).await;
        assert_eq!(answer.status, 400, "{}: {}", body.escape_ascii(), answer.body);
        assert!(answer.json()["error"].is_string());
    }
    let deep = "[".repeat(100_000);
    assert_eq!(server.request("POST", "/api/v4/event", &headers, Some(deep.as_bytes())).await.status, 400);
    let none = server.post("/api/v4/event", &json!([])).await;
    assert_eq!(none.pair(), (200, json!({"sent_events": [], "failed_events": [], "retry_events": []})));
    let other = [&*basic("admin", PASSWORD), "Content-Type: application/xml"];
    assert_eq!(server.request("POST", "/api/v4/event", &other, Some(b"<e/>")).await.status, 415);
    assert!(published(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_and_too_large_events_are_refused() {
    let server = start_with(|settings| {
        settings.max_events = 3;
        settings.max_body_bytes = 3 << 20;
    })
    .await;
    let many = json!(vec![event("x"); 4]);
    let answer = server.post("/api/v4/event", &many).await;
    assert_eq!(answer.pair(), (400, json!({"error": "There are more than 3 events"})));
    let mut large = event("x");
    large["long"] = "y".repeat(1 << 20).into();
    let document = server.post("/api/v4/event", &json!([large, event("fine")])).await.json();
    assert_eq!(document["errors"], json!([{"index": 0, "error": "it has more than 1048576 bytes"}]));
    assert_eq!(document["sent_events"].as_array().map(Vec::len), Some(1));
    large["long"] = "y".repeat(3 << 20).into();
    let answer = server.post("/api/v4/event", &large).await;
    assert_eq!(answer.pair(), (413, json!({"error": "The body has more than 3145728 bytes"})));
}

use overstory_model::Timestamp;
use overstory_store::EngineRun;
use overstory_webserver::broker::QueueLength;
use serde_json::json;

use crate::support::{NOW, PASSWORD, basic, start, start_with};

fn run(engine: &str, instance: &str, active: bool) -> EngineRun {
    EngineRun {
        engine: engine.into(),
        instance: instance.into(),
        active,
        at: Timestamp(NOW - 5),
        pid: 42,
        events: 600,
        errors: 1,
        events_per_second: 10.0,
        seconds_per_event: 0.001,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_shows_services_engines_and_queues() {
    let server = start().await;
    let queue = |name: &str, messages| QueueLength { name: name.into(), messages, consumers: 2 };
    *server.broker.queues.lock().unwrap() = Some(vec![queue("Engine_events", 10_001), queue("Engine_dead", 3)]);
    let runs = [run("alarms", "h/amqp2engines-0", true), run("cleaner", "h/amqp2engines-0", true)];
    server.engines.runs.record(&runs).await.unwrap();
    let engine = json!({
        "instances": 1, "min_instances": 1, "optimal_instances": 2, "queue_length": 10_001, "time": NOW - 5,
        "is_running": true, "is_queue_overflown": true, "is_too_few_instances": false,
        "is_diff_instances_config": false
    });
    let mut silent = engine.clone();
    silent["instances"] = 0.into();
    silent["time"] = 0.into();
    silent["is_running"] = false.into();
    silent["is_too_few_instances"] = true.into();
    let report = |engine: &str| {
        json!({"engine": engine, "instance": "h/amqp2engines-0", "active": true, "time": NOW - 5, "pid": 42,
            "events": 600, "errors": 1, "events_per_second": 10.0, "seconds_per_event": 0.001})
    };
    let expected = json!({
        "services": [{"name": "RabbitMQ", "is_running": true}, {"name": "SQLite", "is_running": true}],
        "engines": {
            "graph": {"nodes": ["alarms", "cleaner", "stats"], "edges": [{"from": "cleaner", "to": "alarms"}]},
            "parameters": {"alarms": engine, "cleaner": engine, "stats": silent}
        },
        "queues": [
            {"name": "Engine_events", "messages": 10_001, "consumers": 2},
            {"name": "Engine_dead", "messages": 3, "consumers": 2}
        ],
        "runs": [report("alarms"), report("cleaner")],
        "max_queue_length": 10_000, "max_messages_length": 10_001, "has_invalid_engines_order": false, "time": NOW
    });
    assert_eq!(server.get("/api/v4/healthcheck").await.pair(), (200, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_not_asked_each_time_and_its_absence_is_told() {
    let server = start().await;
    for _ in 0..20 {
        let health = server.get("/api/v4/healthcheck").await;
        assert_eq!(health.status, 200);
        assert_eq!(health.json()["services"][0], json!({"name": "RabbitMQ", "is_running": false}));
    }
    assert_eq!(*server.broker.asked.lock().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_listed_started_and_stopped() {
    let server = start().await;
    let own_pid = std::process::id();
    let web = json!({"name": "webserver", "service": "webserver", "state": "RUNNING", "pid": own_pid, "uptime_s": 5,
        "restarts": 0, "detail": ""});
    let stopped = json!({"name": "collectd", "service": "collectd", "state": "STOPPED", "pid": null, "uptime_s": null,
        "restarts": 0, "detail": ""});
    let running = json!({"name": "collectd", "service": "collectd", "state": "RUNNING", "pid": 1, "uptime_s": 5,
        "restarts": 0, "detail": ""});
    assert_eq!(server.get("/api/v4/services").await.pair(), (200, json!({"data": [stopped, web]})));
    let failed = server.put("/api/v4/services/collectd/restart").await;
    assert_eq!(failed.pair(), (409, json!({"error": "collectd crashed"})));
    let started = server.put("/api/v4/services/collectd/start").await;
    assert_eq!(started.pair(), (200, json!({"done": true, "data": [running]})));
    let ended = server.put("/api/v4/services/collectd/stop").await;
    assert_eq!(ended.pair(), (200, json!({"done": true, "data": [stopped]})));
    let unknown = server.put("/api/v4/services/none/start").await;
    assert_eq!(unknown.pair(), (404, json!({"error": "Not found"})));
    let action = server.put("/api/v4/services/collectd/explode").await;
    assert_eq!(action.pair(), (404, json!({"error": "Not found"})));
    *server.services.away.lock().unwrap() = true;
    let away = server.get("/api/v4/services").await;
    assert_eq!(away.pair(), (503, json!({"error": "supervisord does not answer"})));
    assert_eq!(away.headers["retry-after"], "5");
    assert_eq!(server.put("/api/v4/services/collectd/start").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_server_answers_before_it_is_stopped() {
    let server = start().await;
    let answer = server.put("/api/v4/services/webserver/stop").await;
    assert_eq!((answer.status, &answer.json()["done"]), (202, &json!(false)));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while server.services.stop_signals.lock().unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "no stop signal");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let answer = server.put("/api/v4/services/webserver/restart").await;
    assert_eq!(answer.status, 202);
    tokio::time::timeout(std::time::Duration::from_secs(20), server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_need_no_credentials_and_tell_the_truth() {
    let server = start().await;
    let ok = json!({"ok": true});
    assert_eq!(server.request("GET", "/healthz", &[], None).await.pair(), (200, ok.clone()));
    assert_eq!(server.request("GET", "/readyz", &[], None).await.pair(), (200, ok));
    server.ready.set("store", false);
    let waiting = server.request("GET", "/readyz", &[], None).await;
    assert_eq!(waiting.pair(), (503, json!({"error": "The store is not available"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_switched_off_is_not_there() {
    let server = start_with(|settings| {
        settings.webservices.alarms = false;
        settings.webservices.services = false;
    })
    .await;
    for path in ["/api/v4/alarms", "/api/v4/alarms/x", "/api/v4/services"] {
        assert_eq!(server.get(path).await.pair(), (404, json!({"error": "Not found"})), "{path}");
    }
    assert_eq!(server.get("/api/v4/entities").await.status, 200);
    let info = server.get("/api/v4/app-info").await.json();
    let switches = json!({"event": true, "events": true, "alarms": false, "entities": true, "metrics": true, "healthcheck": true,
        "services": false});
    assert_eq!(info["webservices"], switches);
    assert_eq!((&info["title"], &info["store"]), (&json!("Overstory"), &json!("SQLite")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_by_route() {
    let server = start().await;
    server.get("/api/v4/alarms/none").await;
    server.get("/made/up").await;
    server.request("BREW", "/made/up", &[&basic("admin", PASSWORD)], None).await;
    let text = overstory_runtime::prometheus::TextEncoder::new().encode_to_string(&server.registry.gather()).unwrap();
    for line in [
        r#"overstory_webserver_requests_total{method="GET",route="/api/v4/alarms/{id}",status="404"} 1"#,
        r#"overstory_webserver_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"overstory_webserver_requests_total{method="other",route="none",status="404"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

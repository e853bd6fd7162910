//! Events of both dialects, malformed ones, the life of an alarm, statistics, configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use overstory_amqp::{Outgoing, fanout, topology};
use overstory_model::RoutingKey;
use overstory_store::{AlarmQuery, Openness, SeriesQuery};
use overstory_testkit::{broker, mongo};
use serde_json::{Value, json};

use crate::rig::{DEADLINE, Rig, check, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_lives_and_subscribers_hear_of_it() {
    alarm_lives(Rig::new(broker::shared().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_on_mongodb_too() {
    alarm_lives(Rig::on_mongodb(broker::shared().unwrap(), mongo::shared().unwrap())).await;
}

async fn alarm_lives(mut rig: Rig) {
    rig.set("ALARMS__ALARMS__RESOLVE_AFTER_S", "1");
    rig.set("AMQP2ENGINES__PROCESS__BEAT_S", "1");
    let engines = rig.start(0);
    engines.is_ready().await;
    let mut alerts = fanout::subscribe(&rig.amqp, "test", topology::ALERTS, "nagios.#").await.unwrap();
    let long_name = "c".repeat(400);
    let of_2015 = |state: &str| {
        json!({"connector": "nagios", "connector_name": "poller1", "event_type": "check", "source_type": "resource",
            "component": long_name, "resource": "load", "state": state, "state_type": "1", "timestamp": "0",
            "perf_data": "load1=0.25;5;10;0;"})
    };
    let of_v4 = |state: u8| {
        json!({"connector": "nagios", "connector_name": "poller1", "event_type": "check", "source_type": "resource",
            "component": long_name, "resource": "load", "state": state, "output": "v4", "tags": {"env": "prod"}})
    };
    rig.events(&[of_2015("1"), of_v4(3), of_v4(0)]).await;
    let mut changes = Vec::new();
    for _ in 0..4 {
        let notice = tokio::time::timeout(DEADLINE, alerts.next()).await.unwrap().unwrap();
        let body: Value = serde_json::from_slice(&notice.body).unwrap();
        let word = notice.routing_key.split('.').nth(2).unwrap_or_default().to_owned();
        assert_eq!(word, body["change"]);
        assert_eq!(body["alarm"]["v"]["component"], long_name.as_str(), "the body has what the key has no room for");
        changes.push((word, body["alarm"]["v"]["state"]["val"].clone()));
    }
    let expected = [("create", 1), ("stateinc", 3), ("statedec", 0), ("resolve", 0)];
    assert_eq!(changes, expected.map(|(word, state)| (word.to_owned(), Value::from(state))));
    alerts.close().await;

    let store = rig.store().await;
    let query = AlarmQuery { openness: Openness::Resolved, ..AlarmQuery::default() };
    let alarms = store.alarms.list(&query).await.unwrap().items;
    assert_eq!(alarms.len(), 1);
    assert_eq!((alarms[0].v.events_count, alarms[0].tags.as_slice()), (3, &["env: prod".to_owned()][..]));
    let kinds: Vec<_> = rig.steps(&store, &alarms[0]).await.iter().map(|step| step.kind.name()).collect();
    assert_eq!(kinds, ["stateinc", "statusinc", "stateinc", "statedec", "statusdec", "resolve"]);
    let series = SeriesQuery { search: Some("load".to_owned()), ..SeriesQuery::default() };
    let names: Vec<_> =
        store.metrics.series(&series).await.unwrap().items.into_iter().map(|series| series.key.metric).collect();
    assert_eq!(names, ["cps_state", "load1"]);
    assert_eq!(engines.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_laid_aside_with_its_reason_and_the_rest_is_done() {
    let rig = Rig::new(broker::shared().unwrap());
    let engines = rig.start(0);
    let raw = |body: Vec<u8>| {
        let key = RoutingKey::fit("test.engines.check.resource.host1.bad".to_owned());
        Outgoing::json(topology::EVENTS, key, body.into())
    };
    let changed = |key: &str, value: Value| {
        let mut event = check("bad", 1);
        event[key] = value;
        raw(event.to_string().into_bytes())
    };
    let bad = vec![
        (raw(b"{not json".to_vec()), "bad_json"),
        (raw(b"[1, 2]".to_vec()), "not_an_object"),
        (
            raw(br#"{"connector": "c", "connector_name": "n", "component": "h", "state": NaN}"#.to_vec()),
            "invalid_state",
        ),
        (changed("state", "critical".into()), "invalid_state"),
        (changed("component", json!({"a": 1})), "wrong_type"),
        (changed("connector", Value::Null), "missing_connector"),
        (changed("event_type", "nonsense".into()), "unknown_type"),
        (changed("event_type", "ack".into()), "unsupported_type"),
        (changed("component", "x".repeat(5000).into()), "name_too_long"),
        (changed("padding", "x".repeat(2 << 20).into()), "oversized"),
    ];
    let mut good = Vec::new();
    for (number, (key, value)) in [
        ("output", Value::from("x".repeat(300 * 1024))),
        ("timestamp", json!(1_000_000)),
        ("output", "a\u{0}b\u{7}".into()),
        ("state", "2".into()),
        ("long_output", "line\r\nline".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let mut event = check(&format!("good{number}"), 1);
        event[key] = value;
        good.push(event);
    }
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    let mut messages = Vec::new();
    for (message, reason) in bad {
        *expected.entry(reason).or_default() += 1;
        messages.push(message);
    }
    // One bad event among five hundred good ones is found without holding up the others.
    for number in 0..250 {
        messages.push(crate::rig::message(&check(&format!("r{number}"), 1)));
    }
    messages.push(raw(b"\xff\xfe".to_vec()));
    *expected.entry("bad_json").or_default() += 1;
    for number in 250..500 {
        messages.push(crate::rig::message(&check(&format!("r{number}"), 1)));
    }
    rig.publish(messages).await;
    rig.events(&good).await;

    let store = rig.store().await;
    wait_for("the last event", async || rig.alarm(&store, "good4/host1").await.is_some()).await;
    let query = AlarmQuery { openness: Openness::Open, ..AlarmQuery::default() };
    assert_eq!(store.alarms.list(&query).await.unwrap().total, 505);
    let letters = async || {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for letter in rig.dead_letters().await {
            assert_eq!(letter.origin, topology::ENGINE_EVENTS);
            *found.entry(letter.reason).or_default() += 1;
        }
        found
    };
    let expected: BTreeMap<String, usize> =
        expected.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    wait_for("the dead letters", async || letters().await == expected).await;
    let oversized = rig.dead_letters().await.into_iter().find(|letter| letter.reason == "oversized").unwrap();
    assert!(oversized.body.len() > 2 << 20, "kept whole");
    let metric = "overstory_engines_rejects_total{reason=\"bad_json\",unit=\"Engine_events\"}";
    assert!((engines.metric(metric).await - 2.0).abs() < 0.5);
    assert_eq!(engines.stop().await, Some(0));
}

/// A process that nobody sends events finds out by itself that it is the active one, and says what its engines do.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_publishes_its_statistics() {
    let mut rig = Rig::new(broker::shared().unwrap());
    rig.set("STATS__STATS__HOST", "here.example.org");
    rig.set("STATS__STATS__FIRST_AFTER_S", "1");
    rig.set("STATS__STATS__INTERVAL_S", "1");
    let (first, second) = (rig.start(0), rig.start(1));
    first.is_ready().await;
    second.is_ready().await;
    let store = rig.store().await;
    let query = SeriesQuery { metric: Some("cps_evt_per_sec".to_owned()), ..SeriesQuery::default() };
    let entities = async || {
        let Ok(page) = store.metrics.series(&query).await else { return Vec::new() };
        page.items.into_iter().map(|series| series.key.entity.0).collect::<Vec<_>>()
    };
    let expected = ["alarms", "cleaner", "collectdgw", "context", "metrics", "stats"]
        .map(|e| format!("Engine_{e}/here.example.org"));
    wait_for("the statistics of all engines", async || entities().await == expected).await;
    let now = overstory_model::Clock::now(&overstory_model::SystemClock).secs();
    let runs = async || store.runs.list(now, 60).await.unwrap();
    wait_for("the reports of both processes", async || runs().await.len() == 12).await;
    let active = async || runs().await.iter().filter(|run| run.active).count();
    wait_for("one active process per queue", async || active().await == 6).await;
    assert_eq!([first.stop().await, second.stop().await], [Some(0); 2]);
}

/// The example of docs/EVENTS.md, on a durable queue: what happened while it was away comes first.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_subscriber_prints_every_change() {
    let rig = Rig::new(broker::shared().unwrap());
    let engines = rig.start(0);
    engines.is_ready().await;
    // Debian's, for which Debian has pika.
    let subscribe = |count: &str| {
        let mut command = std::process::Command::new("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/subscriber.py"));
        command.args(["--port", &rig.amqp.port.to_string(), "--vhost", &rig.amqp.vhost, "--user", &rig.amqp.user]);
        command.arg("--password-file").arg(rig.home().resolve("etc/secrets/amqp"));
        command.args(["--queue", "night-shift", "--key", "*.*.*.resource.host1.a", "--count", count]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let first = subscribe("1");
    // Published again and again until the queue is there to take the notice of a change.
    let mut published = 0;
    let output = tokio::task::spawn_blocking(|| first.wait_with_output().unwrap());
    while !output.is_finished() {
        published += 1;
        rig.events(&[check("a", 1 + u8::try_from(published % 2).unwrap()), check("b", 1)]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(published < 300, "the subscriber got nothing");
    }
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    rig.events(&[check("a", 0), check("a", 3)]).await;
    let last = published + 2;
    let store = rig.store().await;
    wait_for("the last event", async || {
        rig.alarm(&store, "a/host1").await.is_some_and(|alarm| alarm.v.events_count == last)
    })
    .await;
    let changes = rig.alarm(&store, "a/host1").await.unwrap().v.total_state_changes;
    let mut second = subscribe(&changes.to_string());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(second.stdout.take().unwrap()));
    let wanted = tokio::task::spawn_blocking(move || {
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("stateinc a/host1 ok -> critical"))).is_some()
    });
    assert!(tokio::time::timeout(DEADLINE, wanted).await.unwrap().unwrap());
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(engines.stop().await, Some(0));
}

#[test]
fn a_configuration_that_cannot_be_used_is_named_before_anything_starts() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let mut rig = Rig::new(overstory_amqp::AmqpConfig { port: 1, ..overstory_amqp::AmqpConfig::default() });
    let output = rig.command(0, &["--check-config"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    rig.set("AMQP2ENGINES__QUEUE__PREFETCH", "1000");
    for arguments in [&["--check-config"][..], &[]] {
        let output = rig.command(0, arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(message.contains("[queue] prefetch = 1000: 1 to 300"), "{message}");
    }
    let output = rig.command(0, &["--version"]).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"amqp2engines "), "{output:?}");
}

/// Without a broker the process is there, not ready, and ends when asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_broker_waits_and_can_be_stopped() {
    let rig = Rig::new(overstory_amqp::AmqpConfig { port: 1, ..overstory_amqp::AmqpConfig::default() });
    let engines = rig.start(0);
    wait_for("the admin listener", async || engines.page("/readyz").await.contains("waiting for broker")).await;
    assert!(engines.page("/healthz").await.starts_with("HTTP/1.1 200"));
    let stopping = tokio::time::timeout(Duration::from_secs(10), engines.stop()).await;
    assert_eq!(stopping.unwrap(), Some(0));
}

//! Says what a commit of 300 events costs: `commit_cost [COMMITS] [MONGODB-URI]`.
//!
//! 10,000 entities with two series each; per commit 300 entities heard of, 30 alarms changed with a step each, 600
//! points, 300 message ids, 30 messages for the outbox, which are confirmed afterwards. A minute of points passes with
//! every 30 commits, and maintenance runs then.
#![allow(clippy::unwrap_used, reason = "an example may end like this")]

use std::fs;
use std::time::{Duration, Instant};

use overstory_model::alarm::{AlarmValue, Initiator};
use overstory_model::ids::MessageId;
use overstory_model::metric::MetricKind;
use overstory_model::{Alarm, AlarmId, Entity, EntityId, EntityKind, Millis, SeriesKey, Step, StepKind, Timestamp};
use overstory_runtime::{Home, program};
use overstory_store::{AlarmWrite, Commit, EngineSide, Epoch, Outgoing, Point, Retention, StoreConfig, open_engines};

const ENTITIES: usize = 10_000;
const START: i64 = 1_700_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = program::arguments().iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let commits: usize = arguments.get(1).map_or(500, |n| n.parse().unwrap());
    let dir = tempfile::tempdir_in(".").unwrap();
    let config = match arguments.get(2) {
        Some(uri) => StoreConfig::mongodb(uri.as_str(), format!("cost_{}", std::process::id())),
        None => StoreConfig::embedded(dir.path()),
    };
    let store = open_engines(&config, &Home::at(dir.path())).await.unwrap();
    let epoch = store.engines.take_epoch("Engine_events", "example").await.unwrap();
    fill(&store, epoch).await;

    let (mut spent, mut cpu, mut longest, mut maintenance) =
        (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut longest_maintenance = Duration::ZERO;
    for n in 0..commits {
        let now = START + i64::try_from(n).unwrap() * 2;
        let commit = batch(n, now);
        let (at, cpu_at) = (Instant::now(), cpu_time());
        let numbers = store.engines.commit("Engine_events", epoch, commit).await.unwrap();
        cpu += cpu_time() - cpu_at;
        spent += at.elapsed();
        longest = longest.max(at.elapsed());
        store.outbox.done(&numbers).await.unwrap();
        if n % 30 == 0 {
            let cpu_at = cpu_time();
            let mut more = true;
            while more {
                let at = Instant::now();
                more = store.metrics.maintain(Millis(now * 1000), Retention::default()).await.unwrap().more;
                longest_maintenance = longest_maintenance.max(at.elapsed());
            }
            maintenance += cpu_time() - cpu_at;
        }
    }
    let count = u32::try_from(commits).unwrap();
    let rss = fs::read_to_string("/proc/self/status").unwrap();
    let rss = rss.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
    println!(
        "per commit: {:?} cpu, {:?} in all, longest {longest:?}; maintenance {:?} cpu per commit, \
         longest piece {longest_maintenance:?}; {rss}",
        cpu / count,
        spent / count,
        maintenance / count
    );
    println!("{:?}", store.probe.info().await.unwrap());
}

/// CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let nanoseconds = |path: std::path::PathBuf| -> u64 {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(|task| nanoseconds(task.unwrap().path().join("schedstat"))).sum())
}

fn name(n: usize) -> String {
    format!("host-{n:05}.example.org")
}

async fn fill(store: &EngineSide, epoch: Epoch) {
    for chunk in (0..ENTITIES).collect::<Vec<_>>().chunks(500) {
        let commit = Commit {
            at: Timestamp(START),
            entities: chunk
                .iter()
                .map(|n| Entity::new(EntityId(name(*n)), &name(*n), EntityKind::Component, Timestamp(START)))
                .collect(),
            alarms: chunk
                .iter()
                .filter(|n| *n % 10 == 0)
                .map(|n| AlarmWrite { alarm: alarm(*n, START), new_steps: vec![step(START)], is_new: true })
                .collect(),
            points: chunk.iter().flat_map(|n| points(*n, START)).collect(),
            ..Commit::default()
        };
        store.engines.commit("Engine_events", epoch, commit).await.unwrap();
    }
}

fn batch(n: usize, now: i64) -> Commit {
    let entities: Vec<usize> = (0..300).map(|i| (n * 7919 + i * 104_729) % ENTITIES).collect();
    let alarms = (0..30).map(|i| ((n * 31 + i * 37) % (ENTITIES / 10)) * 10);
    Commit {
        seen: (0..300).map(|i| MessageId::from_property(&format!("{n}/{i}"))).collect(),
        at: Timestamp(now),
        entities: vec![],
        heard_of: entities.iter().map(|n| (EntityId(name(*n)), Timestamp(now))).collect(),
        alarms: alarms
            .map(|n| AlarmWrite { alarm: alarm(n, now), new_steps: vec![step(now)], is_new: false })
            .collect(),
        points: entities.iter().flat_map(|n| points(*n, now)).collect(),
        outbox: (0..30)
            .map(|i| Outgoing {
                exchange: "canopsis.alerts".to_owned(),
                routing_key: "test.bench.stateinc.component.host-00001/example/org".to_owned(),
                message_id: format!("{n}/{i}"),
                content_type: "application/json".to_owned(),
                headers: vec![],
                body: vec![b'x'; 1500],
            })
            .collect(),
    }
}

fn points(n: usize, now: i64) -> impl Iterator<Item = Point> {
    ["cpu", "memory"].into_iter().map(move |metric| Point {
        series: SeriesKey { entity: EntityId(name(n)), metric: metric.to_owned() },
        unit: Some("%".to_owned()),
        kind: MetricKind::Gauge,
        limits: [Some(0.0), Some(100.0), None, None],
        at: Millis(now * 1000),
        value: 12.5,
    })
}

fn step(t: i64) -> Step {
    Step {
        kind: StepKind::StateInc,
        t: Timestamp(t),
        author: "test.bench".to_owned(),
        message: "cpu is at 97 % since 5 minutes, limit 90 %".to_owned(),
        val: 2,
        initiator: Initiator::External,
    }
}

fn alarm(n: usize, t: i64) -> Alarm {
    Alarm {
        id: AlarmId(format!("5c7a0000-0000-4000-8000-{n:012}")),
        t: Timestamp(START),
        entity: EntityId(name(n)),
        tags: vec![],
        v: AlarmValue {
            state: step(t),
            status: step(t),
            connector: "test".to_owned(),
            connector_name: "bench".to_owned(),
            component: name(n),
            resource: None,
            display_name: format!("ABC-{n}"),
            creation_date: Timestamp(START),
            last_update_date: Timestamp(t),
            last_event_date: Timestamp(t),
            initial_output: "cpu is at 97 % since 5 minutes, limit 90 %".to_owned(),
            output: "cpu is at 98 % since 15 minutes, limit 90 %".to_owned(),
            initial_long_output: String::new(),
            long_output: String::new(),
            long_output_history: vec![],
            events_count: 5,
            total_state_changes: 3,
            state_changes_since_status_update: 1,
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

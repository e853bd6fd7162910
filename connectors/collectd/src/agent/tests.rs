//! The connector against a real broker.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod peer;

use std::fs;

use overstory_amqp::{Consumed, Consumer, ConsumerOptions, topology};
use overstory_model::event::{Event, Limits, parse};
use overstory_model::{EventKind, State};
use overstory_testkit::broker::{self, PrivateBroker};
use tokio::task::JoinHandle;

use super::*;
use crate::threshold::Levels;

const HOST: &str = "host1.example.org";
const DEADLINE: Duration = Duration::from_secs(60);

/// A connector in a prefix of its own.
struct Running {
    prefix: tempfile::TempDir,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

fn start(broker: &AmqpConfig) -> Running {
    let prefix = tempfile::tempdir().unwrap();
    fs::create_dir_all(prefix.path().join("etc/secrets")).unwrap();
    let AmqpConfig { host, port, vhost, user, password, .. } = broker;
    let text = format!("[broker]\nhost = {host:?}\nport = {port}\nvhost = {vhost:?}\nuser = {user:?}\n");
    fs::write(prefix.path().join("etc/amqp.conf"), text).unwrap();
    fs::write(prefix.path().join("etc/secrets/amqp"), password).unwrap();
    let mut config = CollectdConfig { interval: Duration::from_secs(1), ..CollectdConfig::default() };
    config.hostname = HOST.to_owned();
    config.admin = ([127, 0, 0, 1], 0).into();
    config.thresholds.rule.consecutive = 1;
    // Every machine uses a thousandth of a percent of its memory.
    config.thresholds.memory = Levels { minor: Some(0.001), major: None, critical: None };
    let (shutdown, home) = (Shutdown::new(), Home::at(prefix.path()));
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { run(config, &home, shutdown).await }
    });
    Running { prefix, shutdown, task }
}

impl Running {
    /// Waits until so many bytes wait for the broker.
    async fn spooled(&self, bytes: u64) {
        let waiting = || -> u64 {
            let files = fs::read_dir(self.prefix.path().join("var/spool/collectd")).into_iter().flatten().flatten();
            files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
        };
        let filled = async {
            while waiting() < bytes {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, filled).await.unwrap();
    }

    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }
}

/// The events in the engines' queue, one after the other.
struct Queue {
    consumer: Consumer,
    waiting: Vec<Event>,
}

impl Queue {
    fn new(broker: &AmqpConfig) -> Self {
        let options = ConsumerOptions::new(topology::ENGINE_EVENTS, "test");
        Self { consumer: Consumer::start(broker.clone(), options, Shutdown::new()), waiting: Vec::new() }
    }

    async fn next(&mut self) -> Event {
        let next = async {
            while self.waiting.is_empty() {
                if let Consumed::Batch(batch) = self.consumer.next().await.unwrap() {
                    let read = |d: &overstory_amqp::Delivery| {
                        let content_type = d.content_type.as_deref();
                        let parsed =
                            parse(&d.body, &d.routing_key, content_type, SystemClock.now(), &Limits::default());
                        let parsed = parsed.unwrap();
                        assert_eq!(parsed.notes, []);
                        parsed.event
                    };
                    self.waiting = batch.iter().rev().map(read).collect();
                    // A lost connection delivers again what was not acknowledged.
                    let _ = self.consumer.ack_up_to(&batch.last().unwrap().tag).await;
                }
            }
            self.waiting.pop().unwrap()
        };
        tokio::time::timeout(DEADLINE, next).await.unwrap()
    }

    async fn next_perf(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if event.kind == EventKind::Perf {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn the_host_arrives_at_the_engines_with_series_and_states() {
    let broker = tokio::task::spawn_blocking(broker::shared).await.unwrap().unwrap();
    let running = start(&broker);
    let mut queue = Queue::new(&broker);
    let first = queue.next().await;
    assert_eq!(first.kind, EventKind::Perf);
    assert_eq!(first.entity_id().as_str(), HOST);
    assert_eq!(first.connector_id().as_str(), format!("collectd/{HOST}"));
    for metric in ["cpu/percent-active", "memory/memory-used", "load/load/shortterm", "uptime/uptime"] {
        assert!(first.samples.iter().any(|sample| sample.metric == metric), "{metric} in the first event");
    }
    let mut states = Vec::new();
    while states.len() < 3 {
        let event = queue.next().await;
        if let EventKind::Check { state } = event.kind {
            states.push((event.resource().unwrap().to_owned(), state));
        }
    }
    assert_eq!(states[1], ("memory".to_owned(), State::Minor));
    assert!(states.iter().any(|(resource, _)| resource == "cpu"));
    running.stop().await;
}

#[tokio::test]
async fn no_tick_is_lost_while_the_broker_is_down() {
    let broker = tokio::task::spawn_blocking(PrivateBroker::start).await.unwrap().unwrap();
    let vhost = broker.vhost().unwrap();
    let running = start(&vhost);
    let mut queue = Queue::new(&vhost);
    let first = queue.next_perf().await.at;
    broker.kill().await.unwrap();
    let killed = SystemClock.now();
    // Some ticks' worth.
    running.spooled(20_000).await;
    broker.start_again().await.unwrap();
    let back = SystemClock.now();
    let mut last = first;
    while last <= back {
        let at = queue.next_perf().await.at;
        let gap = at.since(last);
        // One that was not yet acknowledged comes twice.
        assert!((0..=3000).contains(&gap), "{gap} ms without a tick after {last:?}, broker down from {killed:?}");
        last = at;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_connector_without_broker_keeps_what_it_saw_for_the_next_one() {
    let nowhere = AmqpConfig { port: 1, ..AmqpConfig::default() };
    let running = start(&nowhere);
    running.spooled(4000).await;
    let spool = running.prefix.path().join("var/spool/collectd");
    let Running { prefix, shutdown, task } = running;
    shutdown.request();
    tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
    let left: u64 = fs::read_dir(&spool).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(left >= 4000, "{left} bytes in {}", prefix.path().display());
}

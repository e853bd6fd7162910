#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Mutex;

use async_trait::async_trait;
use overstory_amqp::{ConsumeError, Outgoing, PublishError, dead};
use overstory_model::Millis;
use overstory_model::archive::Archived;
use overstory_model::clock::ManualClock;
use overstory_runtime::prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::nodes::PutError;
use super::*;
use crate::engine::Engine;
use crate::metrics::Metrics;

const DEADLINE: Duration = Duration::from_secs(30);
const NOW: i64 = 1_795_245_631;

/// What the task did with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Acknowledged,
    HandedBack,
    Closed,
}

struct FakeSource {
    consumed: mpsc::Receiver<Consumed>,
    did: mpsc::Sender<Did>,
}

#[async_trait]
impl Source for FakeSource {
    async fn next(&mut self) -> Option<Consumed> {
        self.consumed.recv().await
    }

    async fn ack_up_to(&mut self, _tag: &DeliveryTag) -> Result<(), ConsumeError> {
        self.did.send(Did::Acknowledged).await.unwrap();
        Ok(())
    }

    async fn hand_back(&mut self, _pause: Duration) {
        self.did.send(Did::HandedBack).await.unwrap();
    }

    async fn close(self: Box<Self>) {
        self.did.send(Did::Closed).await.unwrap();
    }
}

/// Nodes that do with a record what the text in it says.
#[derive(Default)]
struct FakeNodes {
    stored: Mutex<Vec<(String, i64, Vec<u8>)>>,
    away: Mutex<bool>,
    hold: tokio::sync::Notify,
}

#[async_trait]
impl Nodes for FakeNodes {
    async fn put(&self, channel: &str, second: i64, record: &[u8]) -> Result<(), PutError> {
        let text = String::from_utf8_lossy(record).into_owned();
        if *self.away.lock().unwrap() {
            return Err(PutError::Away("127.0.0.1:1: not connected".to_owned()));
        }
        if text.contains("never") {
            return Err(PutError::Never("a value of 9000000 bytes is too long".to_owned()));
        }
        if text.contains("refuse") {
            return Err(PutError::Refused("did not store the record".to_owned()));
        }
        assert!(!text.contains("panic"), "as the test wants it");
        if text.contains("hold") {
            self.hold.notified().await;
        }
        self.stored.lock().unwrap().push((channel.to_owned(), second, record.to_vec()));
        Ok(())
    }
}

impl FakeNodes {
    fn bodies(&self) -> Vec<String> {
        let stored = self.stored.lock().unwrap();
        stored.iter().map(|(_, _, record)| Archived::decode(record).unwrap().body.stored().to_owned()).collect()
    }
}

struct FakeSink(mpsc::Sender<Outgoing>);

#[async_trait]
impl Sink for FakeSink {
    async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        messages.into_iter().map(|message| self.0.try_send(message).map_err(|_| PublishError::Closed)).collect()
    }
}

struct Bench {
    events: Option<mpsc::Sender<Consumed>>,
    dropped: Option<mpsc::Sender<Consumed>>,
    did: mpsc::Receiver<Did>,
    counted: mpsc::Receiver<Did>,
    letters: mpsc::Receiver<Outgoing>,
    nodes: Arc<FakeNodes>,
    shared: Arc<Shared>,
    status: Arc<UnitStatus>,
    metrics: ArchiveMetrics,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Bench {
    fn start() -> Self {
        Self::with_turn(TURN)
    }

    fn with_turn(turn: Duration) -> Self {
        let (events, consumed) = mpsc::channel(100);
        let (did_sender, did) = mpsc::channel(100);
        let source = Box::new(FakeSource { consumed, did: did_sender });
        let (dropped, consumed) = mpsc::channel(100);
        let (counted_sender, counted) = mpsc::channel(100);
        let dropped_source = Box::new(FakeSource { consumed, did: counted_sender });
        let (letters_sender, letters) = mpsc::channel(100);
        let (nodes, registry, shutdown) = (Arc::<FakeNodes>::default(), Registry::new(), Shutdown::new());
        let metrics = ArchiveMetrics::new(&registry).unwrap();
        let parts = Parts {
            nodes: nodes.clone(),
            sink: Arc::new(FakeSink(letters_sender)),
            clock: Arc::new(ManualClock::new(Millis(NOW * 1000))),
            metrics: metrics.clone(),
            tally: Metrics::new(&registry).unwrap().engine(Engine::Archive),
            shutdown: shutdown.clone(),
        };
        let mut archive = Archive::new(source, dropped_source, 366 * 86_400, parts);
        archive.turn = turn;
        let (shared, status) = (Arc::clone(&archive.shared), Arc::clone(&archive.status));
        let task = tokio::spawn(archive.run());
        let (events, dropped) = (Some(events), Some(dropped));
        Self { events, dropped, did, counted, letters, nodes, shared, status, metrics, shutdown, task }
    }

    async fn deliver(&self, bodies: &[&str]) {
        let deliveries = bodies.iter().map(|body| {
            let body = format!(r#"{{"connector":"a","connector_name":"b","component":"c","output":"{body}"}}"#);
            Delivery::local("canopsis.events", "a.b.check.component.c", body.into())
        });
        self.send(Consumed::Batch(deliveries.collect())).await;
    }

    async fn send(&self, consumed: Consumed) {
        self.events.as_ref().unwrap().send(consumed).await.unwrap();
    }

    async fn did(&mut self) -> Did {
        tokio::time::timeout(DEADLINE, self.did.recv()).await.unwrap().unwrap()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What is left to be told once the task has ended.
    async fn stop(mut self) -> Vec<Did> {
        self.shutdown.request();
        (self.events, self.dropped) = (None, None);
        tokio::time::timeout(DEADLINE, &mut self.task).await.unwrap().unwrap();
        let mut rest = Vec::new();
        while let Some(did) = self.did.recv().await {
            rest.push(did);
        }
        rest
    }
}

#[tokio::test]
async fn an_event_is_acknowledged_once_a_node_has_it_and_all_before_it() {
    let mut bench = Bench::start();
    bench.deliver(&["hold", "one", "two"]).await;
    bench.until("two to be stored", |bench| bench.nodes.bodies().len() == 2).await;
    assert_eq!(bench.metrics.unacknowledged.get(), 3);
    bench.nodes.hold.notify_one();
    assert_eq!(bench.did().await, Did::Acknowledged);
    let stored = bench.nodes.stored.lock().unwrap().clone();
    assert!(stored.iter().all(|(channel, second, _)| (channel.as_str(), *second) == ("events-2026-11-21", NOW)));
    let mut received: Vec<_> = stored.iter().map(|stored| Archived::decode(&stored.2).unwrap().received).collect();
    received.sort_unstable();
    assert_eq!(received, [NOW * 1_000_000, NOW * 1_000_000 + 1, NOW * 1_000_000 + 2], "each has a time of its own");
    assert_eq!((bench.metrics.stored.get(), bench.metrics.unacknowledged.get()), (3, 0));
    assert!(bench.status.is_active());
    assert_eq!(bench.stop().await, [Did::Closed]);
}

#[tokio::test]
async fn while_nodes_are_away_events_are_kept_and_tried_again_and_it_can_be_seen() {
    let mut bench = Bench::start();
    *bench.nodes.away.lock().unwrap() = true;
    bench.deliver(&["one", "two"]).await;
    bench.until("attempts to fail", |bench| bench.metrics.failed.get() > 3).await;
    let state = bench.shared.state();
    assert!(state.waiting_since.is_some() && state.reason.contains("not connected"), "{state:?}");
    *bench.nodes.away.lock().unwrap() = false;
    bench.until("both to be stored", |bench| bench.nodes.bodies().len() == 2).await;
    bench.until("them to be acknowledged", |bench| bench.shared.state().waiting_since.is_none()).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.shared.state().reason, "");
    bench.stop().await;
}

#[tokio::test]
async fn what_no_node_takes_is_a_dead_letter_and_the_rest_goes_on() {
    let mut bench = Bench::start();
    bench.deliver(&["never", "one"]).await;
    let letter = tokio::time::timeout(DEADLINE, bench.letters.recv()).await.unwrap().unwrap();
    assert_eq!(letter.headers[dead::REASON], "not_archived");
    assert_eq!(letter.headers[dead::DETAIL], "a value of 9000000 bytes is too long");
    assert_eq!(letter.headers[dead::ORIGIN], "Engine_archive");
    bench.until("the rest", |bench| bench.nodes.bodies().len() == 1).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!((bench.metrics.refused.get(), bench.metrics.stored.get()), (1, 1));
    bench.stop().await;
}

/// A full disk refuses everything, and must not send the events to the dead letters.
#[tokio::test]
async fn what_is_refused_waits_while_everything_is_and_is_given_up_when_others_are_taken() {
    let mut bench = Bench::start();
    bench.deliver(&["refuse"]).await;
    bench.until("many refusals", |bench| bench.metrics.failed.get() > 3).await;
    assert!(bench.letters.try_recv().is_err());
    bench.deliver(&["one"]).await;
    bench.until("the other to be stored", |bench| bench.nodes.bodies().len() == 1).await;
    let letter = tokio::time::timeout(DEADLINE, bench.letters.recv()).await.unwrap().unwrap();
    assert_eq!(letter.headers[dead::DETAIL], "did not store the record");
    assert!(bench.metrics.failed.get() >= 7);
    assert_eq!(bench.did().await, Did::Acknowledged);
    bench.stop().await;
}

#[tokio::test]
async fn a_lost_subscription_voids_what_is_on_its_way() {
    let mut bench = Bench::start();
    bench.deliver(&["hold"]).await;
    bench.until("it to be on its way", |bench| bench.metrics.unacknowledged.get() == 1).await;
    bench.send(Consumed::Lost("as the test wants it".to_owned())).await;
    bench.until("it to be given up", |bench| bench.metrics.unacknowledged.get() == 0).await;
    assert!(!bench.status.is_active() && !bench.status.is_subscribed());
    bench.send(Consumed::Subscribed).await;
    bench.deliver(&["one"]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.nodes.bodies().len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn what_waits_too_long_is_handed_back_and_still_counts_as_waiting() {
    let mut bench = Bench::with_turn(Duration::from_millis(200));
    *bench.nodes.away.lock().unwrap() = true;
    let began = Instant::now();
    bench.deliver(&["one"]).await;
    assert_eq!(bench.did().await, Did::HandedBack);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(!bench.status.is_active());
    bench.send(Consumed::Subscribed).await;
    bench.deliver(&["one"]).await;
    bench.until("it to be on its way", |bench| bench.metrics.unacknowledged.get() == 1).await;
    let waiting = bench.shared.state().waiting_since.unwrap();
    assert!(waiting.elapsed() >= Duration::from_millis(200), "it waits since it first came");
    bench.stop().await;
}

#[tokio::test]
async fn a_panic_hands_back() {
    let mut bench = Bench::start();
    bench.deliver(&["panic"]).await;
    assert_eq!(bench.did().await, Did::HandedBack);
    bench.stop().await;
}

#[tokio::test]
async fn events_that_had_to_make_room_are_counted_by_the_process_that_archives() {
    let mut bench = Bench::start();
    let batch = || Consumed::Batch((0..3).map(|_| Delivery::local("", "k", b"{}"[..].into())).collect());
    bench.dropped.as_ref().unwrap().send(batch()).await.unwrap();
    bench.send(Consumed::Subscribed).await;
    assert_eq!(bench.counted.recv().await.unwrap(), Did::HandedBack);
    assert_eq!(bench.metrics.dropped.get(), 0, "a standby leaves them alone");
    bench.deliver(&["one"]).await;
    assert_eq!(bench.counted.recv().await.unwrap(), Did::Acknowledged);
    assert_eq!((bench.metrics.dropped.get(), bench.shared.state().dropped), (3, 3));
    assert!(bench.shared.state().dropped_at.is_some());
    bench.stop().await;
}

#[tokio::test]
async fn at_the_end_what_is_on_its_way_arrives_and_what_waits_for_nodes_goes_back() {
    let bench = Bench::start();
    bench.deliver(&["hold"]).await;
    bench.until("it to be on its way", |bench| bench.metrics.unacknowledged.get() == 1).await;
    bench.nodes.hold.notify_one();
    let nodes = Arc::clone(&bench.nodes);
    let rest = bench.stop().await;
    assert_eq!((rest, nodes.bodies().len()), (vec![Did::Acknowledged, Did::Closed], 1));

    let bench = Bench::start();
    *bench.nodes.away.lock().unwrap() = true;
    bench.deliver(&["one"]).await;
    bench.until("an attempt", |bench| bench.metrics.failed.get() > 0).await;
    let began = Instant::now();
    assert_eq!(bench.stop().await, [Did::Closed]);
    assert!(began.elapsed() < END_DEADLINE, "there is nothing to wait for");
}

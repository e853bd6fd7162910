//! A unit over a real embedded store, with messages and broker made up, and faults on demand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use overstory_amqp::{ConsumeError, Consumed, Delivery, DeliveryTag, Outgoing, PublishError};
use overstory_model::clock::ManualClock;
use overstory_model::ids::MessageId;
use overstory_model::{Alarm, EntityId, Millis, Timestamp};
use overstory_runtime::prometheus::Registry;
use overstory_runtime::watchdog::Watchdog;
use overstory_runtime::{Home, Shutdown};
use overstory_store::{Commit, EngineSide, Engines, Epoch, StoreConfig, StoreError, open_engines};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::engine::{Draft, Refusal};
use crate::metrics::Metrics;
use crate::pipeline::{EventsWork, Item, Settings};
use crate::unit::{Parts, Sink, Source, Unit, UnitOptions, UnitStatus, Work};

/// No condition takes longer than this to come true.
const DEADLINE: Duration = Duration::from_secs(30);
const NOW: Millis = Millis(1_795_236_274_000);

/// A check of a resource of `host1`; each call gives the same bytes.
pub(super) fn check(resource: &str, state: u8) -> Delivery {
    let body = format!(
        r#"{{"connector":"nagios","connector_name":"poller1","event_type":"check","source_type":"resource",
        "component":"host1","resource":"{resource}","state":{state},"output":"o"}}"#
    );
    Delivery::local("canopsis.events", "nagios.poller1.check.resource.host1.x", body.into())
}

/// The same with a name for the message.
pub(super) fn named(id: &str, resource: &str, state: u8) -> Delivery {
    Delivery { message_id: Some(id.to_owned()), ..check(resource, state) }
}

/// What a unit did with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    Acknowledged,
    HandedBack(Duration),
}

/// What shall go wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// So many commits find the store away.
    pub(super) unavailable: AtomicU32,
    /// So many commits are made without their caller hearing of it.
    pub(super) answer_lost: AtomicU32,
    /// So many times nothing can be published.
    pub(super) publishing_fails: AtomicU32,
    refused: Mutex<Option<EntityId>>,
    commits: AtomicU32,
    epochs: AtomicU32,
}

impl Faults {
    /// Makes the store refuse every commit with an alarm of this entity.
    pub(super) fn refuse_entity(&self, id: &str) {
        *self.refused.lock().unwrap() = Some(EntityId(id.to_owned()));
    }

    fn strikes(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("as the test wants it".into())
}

struct Faulty {
    inner: Arc<dyn Engines>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Engines for Faulty {
    async fn take_epoch(&self, unit: &str, holder: &str) -> Result<Epoch, StoreError> {
        self.faults.epochs.fetch_add(1, Ordering::SeqCst);
        self.inner.take_epoch(unit, holder).await
    }

    async fn commit(&self, unit: &str, epoch: Epoch, commit: Commit) -> Result<Vec<u64>, StoreError> {
        if Faults::strikes(&self.faults.unavailable) {
            return Err(away());
        }
        let refused = self.faults.refused.lock().unwrap().clone();
        if commit.alarms.iter().any(|write| Some(&write.alarm.entity) == refused.as_ref()) {
            return Err(StoreError::Conflict("as the test wants it".to_owned()));
        }
        let numbers = self.inner.commit(unit, epoch, commit).await?;
        self.faults.commits.fetch_add(1, Ordering::SeqCst);
        if Faults::strikes(&self.faults.answer_lost) { Err(away()) } else { Ok(numbers) }
    }

    async fn seen(&self, ids: &[MessageId]) -> Result<Vec<bool>, StoreError> {
        self.inner.seen(ids).await
    }

    async fn forget_seen(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.forget_seen(now).await
    }
}

/// The chain of engines, made to panic by the names of resources.
struct Panicking(EventsWork);

#[async_trait]
impl Work for Panicking {
    type Input = Item;

    fn needs_dedup(&self) -> bool {
        self.0.needs_dedup()
    }

    fn read(&mut self, delivery: &Delivery, now: Millis) -> Result<Item, Refusal> {
        assert!(!contains(delivery, "read panic"), "panic while reading");
        self.0.read(delivery, now)
    }

    async fn load(&mut self, inputs: &[&Item]) -> Result<(), StoreError> {
        self.0.load(inputs).await
    }

    fn decide(&mut self, input: &Item, now: Millis, draft: &mut Draft) {
        self.0.decide(input, now, draft);
        assert!(!format!("{input:?}").contains("panic"), "panic after the state was changed");
    }

    fn finish(&mut self, commit: &mut Commit) {
        self.0.finish(commit);
    }

    fn committed(&mut self) {
        self.0.committed();
    }

    fn forget(&mut self) {
        self.0.forget();
    }

    async fn beat(&mut self, now: Millis, draft: &mut Draft) -> Result<Option<Commit>, StoreError> {
        self.0.beat(now, draft).await
    }
}

fn contains(delivery: &Delivery, word: &str) -> bool {
    String::from_utf8_lossy(&delivery.body).contains(word)
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

    async fn hand_back(&mut self, pause: Duration) {
        self.did.send(Did::HandedBack(pause)).await.unwrap();
    }

    async fn close(self: Box<Self>) {}
}

struct FakeSink {
    messages: mpsc::Sender<Outgoing>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Sink for FakeSink {
    async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        if Faults::strikes(&self.faults.publishing_fails) {
            return messages.iter().map(|_| Err(PublishError::Unavailable)).collect();
        }
        let mut outcomes = Vec::new();
        for message in messages {
            self.messages.send(message).await.unwrap();
            outcomes.push(Ok(()));
        }
        outcomes
    }
}

/// A running unit and everything around it.
pub(super) struct Bench {
    pub(super) store: EngineSide,
    pub(super) faults: Arc<Faults>,
    pub(super) status: Arc<UnitStatus>,
    pub(super) clock: Arc<ManualClock>,
    consumed: mpsc::Sender<Consumed>,
    did: mpsc::Receiver<Did>,
    messages: mpsc::Receiver<Outgoing>,
    task: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::embedded(dir.path().join("store"));
        let store = open_engines(&config, &Home::at(dir.path())).await.unwrap();
        let faults = Arc::<Faults>::default();
        let (consumed, source) = mpsc::channel(16);
        let (did_sender, did) = mpsc::channel(1000);
        let (message_sender, messages) = mpsc::channel(1000);
        let clock = Arc::new(ManualClock::new(NOW));
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let faulty = Arc::new(Faulty { inner: Arc::clone(&store.engines), faults: Arc::clone(&faults) });
        let parts = Parts {
            store: EngineSide { engines: faulty, ..store.clone() },
            sink: Arc::new(FakeSink { messages: message_sender, faults: Arc::clone(&faults) }),
            clock: clock.clone(),
            watchdog: Watchdog::start("test", DEADLINE).unwrap(),
            metrics: metrics.unit("test"),
            shutdown: Shutdown::new(),
        };
        let options = UnitOptions {
            queue: "Engine_events".to_owned(),
            holder: "test".to_owned(),
            singly_after: 3,
            poison_attempts: 3,
            patience: Duration::from_millis(500),
            pause: Duration::from_secs(5),
            beat: Duration::from_millis(100),
            publishes_left_behind: true,
            intent_file: dir.path().join("intent"),
        };
        let work = Panicking(EventsWork::new(Settings::default(), store.clone(), &metrics));
        let source = FakeSource { consumed: source, did: did_sender };
        let unit = Unit::new(options, work, Box::new(source), parts);
        let status = unit.status();
        let task = tokio::spawn(unit.run());
        let bench = Self { store, faults, status, clock, consumed, did, messages, task, dir };
        bench.send(Consumed::Subscribed).await;
        bench
    }

    pub(super) async fn send(&self, consumed: Consumed) {
        self.consumed.send(consumed).await.unwrap();
    }

    pub(super) async fn deliver(&self, batch: Vec<Delivery>) {
        self.send(Consumed::Batch(batch)).await;
    }

    /// Waits for what the unit does next with its source.
    pub(super) async fn did(&mut self) -> Did {
        tokio::time::timeout(DEADLINE, self.did.recv()).await.unwrap().unwrap()
    }

    /// Waits for so many published messages.
    pub(super) async fn published(&mut self, count: usize) -> Vec<Outgoing> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(tokio::time::timeout(DEADLINE, self.messages.recv()).await.unwrap().unwrap());
        }
        messages
    }

    pub(super) async fn alarm(&self, resource: &str) -> Option<Alarm> {
        self.store.alarms.open_of(&[EntityId::resource(resource, "host1")]).await.unwrap().pop()
    }

    pub(super) async fn entities(&self, ids: &[&str]) -> usize {
        let ids: Vec<EntityId> = ids.iter().map(|id| EntityId((*id).to_owned())).collect();
        self.store.entities.by_ids(&ids).await.unwrap().len()
    }

    /// Leaves a message in the outbox, as a process that died after its commit does.
    pub(super) async fn leave_behind(&self, message_id: &str) {
        let epoch = self.store.engines.take_epoch("Engine_events", "earlier").await.unwrap();
        let message = overstory_store::Outgoing {
            exchange: "canopsis.alerts".to_owned(),
            routing_key: "a.b".to_owned(),
            message_id: message_id.to_owned(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: b"{}".to_vec(),
        };
        let commit = Commit { outbox: vec![message], ..Commit::default() };
        self.store.engines.commit("Engine_events", epoch, commit).await.unwrap();
    }

    /// Waits until everything that was published is out of the outbox.
    pub(super) async fn outbox_is_empty(&self) {
        let empty = async {
            while !self.store.outbox.pending(1).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, empty).await.unwrap();
    }

    pub(super) fn intent_file(&self) -> PathBuf {
        self.dir.path().join("intent")
    }

    pub(super) fn commits(&self) -> u32 {
        self.faults.commits.load(Ordering::SeqCst)
    }

    pub(super) fn epochs(&self) -> u32 {
        self.faults.epochs.load(Ordering::SeqCst)
    }

    /// Ends the source and waits for the unit.
    pub(super) async fn stop(self) {
        drop(self.consumed);
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

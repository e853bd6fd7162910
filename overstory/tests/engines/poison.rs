//! One message that ends the process whenever it is worked on.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overstory_amqp::{AmqpConfig, Consumer, ConsumerOptions, Delivery, Publisher, PublisherOptions, topology};
use overstory_amqp2engines::engine::{Draft, Refusal};
use overstory_amqp2engines::metrics::Metrics;
use overstory_amqp2engines::pipeline::{EventsWork, Item, Settings};
use overstory_amqp2engines::unit::{Parts, Unit, UnitOptions, Work};
use overstory_model::{Millis, SystemClock};
use overstory_runtime::prometheus::Registry;
use overstory_runtime::watchdog::Watchdog;
use overstory_runtime::{Home, Shutdown, program};
use overstory_store::{Commit, StoreConfig, StoreError, open_engines};
use overstory_testkit::broker;

use crate::rig::{Rig, check, wait_for};

/// Set in the process that this test starts to play the engines.
const HOME: &str = "OVERSTORY_TEST_POISON_HOME";

/// The chain of engines, with a defect: an event about `poison` ends the process.
struct Mortal(EventsWork);

#[async_trait]
impl Work for Mortal {
    type Input = Item;

    fn needs_dedup(&self) -> bool {
        self.0.needs_dedup()
    }

    fn read(&mut self, delivery: &Delivery, now: Millis) -> Result<Item, Refusal> {
        if String::from_utf8_lossy(&delivery.body).contains("poison") {
            std::process::abort();
        }
        self.0.read(delivery, now)
    }

    async fn load(&mut self, inputs: &[&Item]) -> Result<(), StoreError> {
        self.0.load(inputs).await
    }

    fn decide(&mut self, input: &Item, now: Millis, draft: &mut Draft) {
        self.0.decide(input, now, draft);
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

/// The body of the mortal process; in the test run itself, where the variable is not set, there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn mortal_engines() {
    let Some(home) = program::variable(HOME).map(Home::at) else { return };
    let amqp = AmqpConfig::load(&home).unwrap();
    let config = StoreConfig::load(&home, &[]).unwrap();
    let store = open_engines(&config, &home).await.unwrap();
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let shutdown = Shutdown::new();
    let publisher = Publisher::start(amqp.clone(), PublisherOptions::new("mortal"), shutdown.clone()).unwrap();
    let parts = Parts {
        store: store.clone(),
        sink: Arc::new(publisher),
        clock: Arc::new(SystemClock),
        watchdog: Watchdog::start("mortal", Duration::from_secs(60)).unwrap(),
        metrics: metrics.unit("mortal"),
        shutdown: shutdown.clone(),
    };
    let options = UnitOptions {
        queue: topology::ENGINE_EVENTS.to_owned(),
        holder: "mortal".to_owned(),
        singly_after: 3,
        poison_attempts: 3,
        patience: Duration::from_secs(60),
        pause: Duration::from_secs(1),
        beat: Duration::from_secs(5),
        publishes_left_behind: true,
        intent_file: home.lib_dir().join("engines/Engine_events.intent"),
    };
    let source = Consumer::start(amqp, ConsumerOptions::new(topology::ENGINE_EVENTS, "mortal"), shutdown);
    let work = Mortal(EventsWork::new(Settings::default(), store, &metrics));
    Unit::new(options, work, Box::new(source), parts).run().await;
}

/// With a delivery limit at the broker, all that was prefetched beside the culprit would be dead-lettered with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_among_five_hundred_is_laid_aside_alone() {
    let rig = Rig::new(broker::shared().unwrap());
    let mut events: Vec<_> = (0..500).map(|n| check(&format!("r{n}"), 1)).collect();
    events.insert(250, check("poison", 1));
    rig.events(&events).await;
    let mut deaths = 0;
    let store = rig.store().await;
    loop {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "poison::mortal_engines", "--nocapture"]).env(HOME, rig.home().root());
        let mut mortal = rig.spawn(command, 9, 0);
        let last = async || wait_for("the last event", async || rig.alarm(&store, "r499/host1").await.is_some()).await;
        tokio::select! {
            _ = mortal.end() => deaths += 1,
            () = last() => break,
        }
        assert!(deaths <= 6, "it does not learn: {}", rig.logs());
    }
    assert_eq!(deaths, 6, "three times beside the others, three times alone");
    for n in 0..500 {
        let alarm = rig.alarm(&store, &format!("r{n}/host1")).await.unwrap();
        assert_eq!(alarm.v.events_count, 1, "r{n}");
    }
    wait_for("the dead letter", async || rig.dead_letters().await.len() == 1).await;
    assert_eq!(rig.dead_letters().await[0].reason, "poison");
}

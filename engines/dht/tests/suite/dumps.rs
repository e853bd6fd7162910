//! The node's own dumps: what they leave, and what is known about them.

use std::rc::Rc;
use std::time::Duration;

use overstory_dht::dump::{DataDir, DumpOptions};
use overstory_dht::engine::{DhtEngine, Dumps, EngineSettings};
use overstory_dht::load::{LoadOptions, load};
use overstory_dht::storage::Store;
use overstory_model::clock::ManualClock;
use overstory_model::{Millis, Timestamp};
use overstory_node::inspect::Inspect;
use overstory_node::stats::NodeStats;
use overstory_runtime::Shutdown;
use overstory_swarm::key::{HashRange, Key};

use crate::rig::{Recorder, Setup};

fn engine() -> Rc<DhtEngine> {
    let setup = Setup::default();
    let settings = EngineSettings {
        address: setup.address,
        range: HashRange::FULL,
        batch_size: setup.batch_size,
        redist_memory_limit_multiplier: setup.multiplier,
    };
    let mut store = Store::new(0);
    (0..500).for_each(|key| store.put("c", Key(key), &[b'x'; 100]).unwrap());
    let stats = Rc::new(NodeStats::new::<DhtEngine>());
    Rc::new(DhtEngine::new(store, settings, stats, Box::new(Recorder::default())))
}

fn dumps(dir: &DataDir, period: Option<Duration>) -> Dumps {
    Dumps { dir: dir.clone(), options: DumpOptions { disable_direct_io: true }, period }
}

#[tokio::test]
async fn a_dump_is_loaded_again_and_known() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let (engine, clock) = (engine(), ManualClock::new(Millis(1_000_000)));
    assert!(engine.dump(&clock).await.is_none());
    engine.set_dumps(dumps(&dir, None));
    assert!(engine.dump(&clock).await.unwrap().is_ok());
    let facts = engine.facts().dump.unwrap();
    assert_eq!((facts.last, facts.last_ok, facts.running), (Some(Timestamp(1000)), Some(true), false));
    let mut store = Store::new(0);
    load(&dir, &LoadOptions::default(), &mut store).unwrap();
    assert_eq!(store.totals(), engine.store().borrow().totals());
}

#[tokio::test]
async fn a_dump_that_fails_is_told_and_keeps_the_time_of_the_last_good_one() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let dir = DataDir::open(&data).unwrap();
    let (engine, clock) = (engine(), ManualClock::new(Millis(1_000_000)));
    engine.set_dumps(dumps(&dir, None));
    assert!(engine.dump(&clock).await.unwrap().is_ok());
    std::fs::remove_dir_all(&data).unwrap();
    let later = ManualClock::new(Millis(2_000_000));
    assert!(!engine.dump(&later).await.unwrap().is_ok());
    let facts = engine.facts().dump.unwrap();
    assert_eq!((facts.last, facts.last_ok, facts.running), (Some(Timestamp(1000)), Some(false), false));
    assert!(facts.problem.is_some_and(|problem| problem.starts_with("c: ")));
}

#[tokio::test]
async fn dumps_follow_their_period_until_the_node_stops() {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let (engine, clock, shutdown) = (engine(), ManualClock::new(Millis(1_000_000)), Shutdown::new());
    engine.set_dumps(dumps(&dir, Some(Duration::from_millis(20))));
    let twice = async {
        while !dir.backup_file("c").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(engine.facts().dump.unwrap().next.is_some());
        shutdown.request();
    };
    let both = async { tokio::join!(Rc::clone(&engine).dump_periodically(&clock, &shutdown), twice) };
    tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert!(dir.file("c").exists());
}

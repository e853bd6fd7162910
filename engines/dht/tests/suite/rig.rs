//! Dht nodes on free ports.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use overstory_dht::engine::{DhtEngine, EngineSettings, Hooks};
use overstory_dht::storage::Store;
use overstory_node::stats::NodeStats;
use overstory_replay::Host;
use overstory_runtime::Shutdown;
use overstory_swarm::key::{HashRange, Key};

pub(crate) use overstory_replay::client::message;
pub(crate) use overstory_replay::{Connection, NeoClient, eventually};

/// How a node is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub range: HashRange,
    pub batch_size: usize,
    pub size_limit: u64,
    pub multiplier: f64,
    /// Records that are there from the beginning.
    pub records: Vec<(String, u64, Vec<u8>)>,
    /// What the node calls its legacy address.
    pub address: SocketAddrV4,
    /// Whether the neo port is 100 above the legacy port and the clock goes, as clients expect of a node.
    pub real: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            range: HashRange::FULL,
            batch_size: 65_535,
            size_limit: 0,
            multiplier: 1.1,
            records: Vec::new(),
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 21_000),
            real: false,
        }
    }
}

/// What the engine did outside of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    SavedRange(HashRange),
    ChannelRemoved(String),
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Effect>>>);

impl Hooks for Recorder {
    fn save_range(&self, range: HashRange) -> Result<(), String> {
        self.0.lock().unwrap().push(Effect::SavedRange(range));
        Ok(())
    }

    fn channel_removed(&self, channel: &str) {
        self.0.lock().unwrap().push(Effect::ChannelRemoved(channel.to_owned()));
    }
}

/// How the engine begins and ends.
struct Dht {
    setup: Setup,
    effects: Recorder,
}

impl Host for Dht {
    type Engine = DhtEngine;

    fn is_real(&self) -> bool {
        self.setup.real
    }

    async fn start(&mut self, stats: Rc<NodeStats>, _: Shutdown) -> Rc<DhtEngine> {
        let setup = &self.setup;
        let mut store = Store::new(setup.size_limit);
        for (channel, key, value) in &setup.records {
            store.put(channel, Key(*key), value).unwrap();
        }
        let settings = EngineSettings {
            address: setup.address,
            range: setup.range,
            batch_size: setup.batch_size,
            redist_memory_limit_multiplier: setup.multiplier,
        };
        Rc::new(DhtEngine::new(store, settings, stats, Box::new(self.effects.clone())))
    }

    async fn stop(self, engine: Rc<DhtEngine>) {
        engine.stop();
    }
}

/// A node on a thread of its own; dropping it stops it.
pub(crate) struct Node {
    node: overstory_replay::Node<DhtEngine>,
    effects: Recorder,
}

impl Deref for Node {
    type Target = overstory_replay::Node<DhtEngine>;

    fn deref(&self) -> &Self::Target {
        &self.node
    }
}

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let effects = Recorder::default();
        let node = overstory_replay::Node::start(Dht { setup, effects: effects.clone() });
        Self { node, effects }
    }

    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.effects.0.lock().unwrap().clone()
    }

    /// Every record of a channel, by key.
    pub(crate) fn records(&self, channel: &'static str) -> Vec<(u64, Vec<u8>)> {
        let mut records = self.with(move |engine| {
            let mut records = Vec::new();
            let _ = engine.store().borrow().scan(channel, None, &mut |key, value| {
                records.push((key.0, value.to_vec()));
                std::ops::ControlFlow::Continue(())
            });
            records
        });
        records.sort();
        records
    }

    pub(crate) fn channels(&self) -> Vec<String> {
        self.with(|engine| engine.store().borrow().channel_names())
    }
}

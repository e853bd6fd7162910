//! `dmqnode`: keeps queues of records, with subscribers, and on disk what finds no room in memory.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use overstory_node::app::{self, NodeContext, NodeProgram};
use overstory_node::config::{Config, ConfigError, sections};
use overstory_node::cpu;
use overstory_node::heap::Heap;
use overstory_runtime::Shutdown;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::config::{DmqSettings, Durability};
use crate::engine::{DmqEngine, EngineSettings, Watch};
use crate::persistence::{self, Opened};

/// From one look at the queues to the next.
const TICK: Duration = Duration::from_secs(1);

/// Runs the node; `args` begins with its name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run::<DmqNode>(args)
}

/// The program.
#[derive(Debug)]
pub struct DmqNode;

impl NodeProgram for DmqNode {
    const NAME: &'static str = "dmqnode";
    const TYPE: &'static str = "dmq";
    const CRATES: &'static [&'static str] = &["overstory_dmq"];
    const ABOUT: &'static str = "keeps queues of records in memory, and on disk what finds no room there";
    type Settings = DmqSettings;
    type Engine = DmqEngine;

    fn check(config: &Config) -> Result<DmqSettings, ConfigError> {
        DmqSettings::read(config, Durability::Overflow)
    }

    fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError> {
        sections::neo_port(config, port)
    }

    async fn open(settings: DmqSettings, context: NodeContext) -> anyhow::Result<Rc<DmqEngine>> {
        open(&settings, context)
    }

    async fn close(engine: Rc<DmqEngine>) -> anyhow::Result<()> {
        engine.close()
    }
}

/// Opens the data and begins what goes on by itself until the node stops.
pub(crate) fn open(settings: &DmqSettings, context: NodeContext) -> anyhow::Result<Rc<DmqEngine>> {
    let Opened { store, commits, damaged, persistence } = persistence::open(settings, &context.data_dir)?;
    let engine_settings = EngineSettings { address: SocketAddrV4::new(context.address, context.port) };
    let engine = Rc::new(DmqEngine::new(store, engine_settings, context.stats, commits));
    engine.set_watch(Watch::new(settings.durability, settings.thresholds, context.data_dir).damaged(damaged));
    // Threads that are there already, and do what waits for disks and brokers, stay free.
    cpu::pin(settings.cpu)?;
    if let Some(drive) = persistence.drive() {
        tokio::task::spawn_local(drive);
    }
    engine.set_persistence(persistence);
    tokio::task::spawn_local(keep(Rc::clone(&engine), settings.write_index, context.shutdown));
    let totals = overstory_node::inspect::Inspect::totals(&*engine);
    info!(
        target: "node.main",
        durability = settings.durability.name(), records = totals.records, bytes = totals.bytes,
        "Starting queue node --------------------------------"
    );
    Ok(engine)
}

/// What goes on by itself until the node stops.
async fn keep(engine: Rc<DmqEngine>, write_index: Duration, shutdown: Shutdown) {
    let every = |period| {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut look, mut index) = (every(TICK), every(write_index));
    let mut heap = Heap::default();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = look.tick() => {
                engine.observe(Instant::now());
                heap.look();
            }
            _ = index.tick() => {
                if let Err(problem) = engine.save_index() {
                    error!(target: "node.storage", %problem, "index of the overflow not written");
                }
            }
        }
    }
}

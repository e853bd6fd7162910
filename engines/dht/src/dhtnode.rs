//! `dhtnode`: keeps records of channels in memory and answers for a range of keys.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use overstory_model::clock::SystemClock;
use overstory_node::app::{self, NodeContext, NodeProgram};
use overstory_node::config::rewrite::set_range;
use overstory_node::config::{Config, ConfigError};
use overstory_runtime::Shutdown;
use overstory_swarm::key::HashRange;
use tracing::{error, info, warn};

use crate::config::DhtSettings;
use crate::dump::{DataDir, DumpOptions};
use crate::engine::{DhtEngine, Dumps, EngineSettings, Hooks};
use crate::load::{self, LoadOptions};
use crate::storage::Store;

/// The neo port is this much above the legacy port (protocol §4.1).
const NEO_PORT_OFFSET: u16 = 100;

/// From one look whether memory can be given back to the next, while there is nothing to give back.
const TIDY: Duration = Duration::from_secs(1);

/// Runs the node; `args` begins with its name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run::<DhtNode>(args)
}

/// The program.
#[derive(Debug)]
pub struct DhtNode;

impl NodeProgram for DhtNode {
    const NAME: &'static str = "dhtnode";
    const TYPE: &'static str = "dht";
    const CRATES: &'static [&'static str] = &["overstory_dht"];
    const ABOUT: &'static str = "keeps records in memory and answers for a range of keys";
    type Settings = DhtSettings;
    type Engine = DhtEngine;

    fn check(config: &Config) -> Result<DhtSettings, ConfigError> {
        DhtSettings::read(config)
    }

    fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError> {
        port.checked_add(NEO_PORT_OFFSET)
            .ok_or_else(|| config.section("Server").wrong("port", "at most 65435: the neo port is 100 above it"))
    }

    async fn open(settings: DhtSettings, context: NodeContext) -> anyhow::Result<Rc<DhtEngine>> {
        open(&settings, context)
    }

    async fn close(engine: Rc<DhtEngine>) -> anyhow::Result<()> {
        engine.stop();
        let Some(report) = engine.dump(&SystemClock).await else { return Ok(()) };
        let failed = report.failures().count();
        if failed > 0 {
            bail!("{failed} of {} channels could not be dumped: their old files stay", report.channels.len());
        }
        Ok(())
    }
}

fn open(settings: &DhtSettings, context: NodeContext) -> anyhow::Result<Rc<DhtEngine>> {
    if settings.lock_memory {
        lock_memory();
    }
    let dir = DataDir::open(&context.data_dir)
        .with_context(|| format!("cannot open the data directory {}", context.data_dir.display()))?;
    let options = LoadOptions {
        range: settings.range,
        allow_out_of_range: settings.allow_out_of_range,
        abort_after_all_out_of_range: settings.abort_after_all_out_of_range,
        max_value: settings.batch_size,
    };
    let mut store = Store::new(settings.size_limit);
    let loaded = load::load(&dir, &options, &mut store)?;
    let engine_settings = EngineSettings {
        address: std::net::SocketAddrV4::new(context.address, context.port),
        range: settings.range,
        batch_size: settings.batch_size,
        redist_memory_limit_multiplier: settings.redist_memory_limit_multiplier,
    };
    let hooks = NodeHooks { config: context.config_file, dir: dir.clone() };
    let engine = Rc::new(DhtEngine::new(store, engine_settings, context.stats, Box::new(hooks)));
    let rejected = &loaded.rejected;
    engine.set_load_rejected(
        rejected.bad_keys
            + rejected.empty_values
            + rejected.too_large
            + rejected.damaged
            + rejected.cut
            + rejected.no_memory,
    );
    let dump_options = DumpOptions { disable_direct_io: settings.disable_direct_io };
    engine.set_dumps(Dumps { dir, options: dump_options, period: settings.dump_period });
    tokio::task::spawn_local(keep(Rc::clone(&engine), context.shutdown));
    info!(target: "dhtnode.main", range = %settings.range, records = loaded.records, "Starting DHT node --------------------------------");
    Ok(engine)
}

/// What goes on by itself until the node stops.
async fn keep(engine: Rc<DhtEngine>, shutdown: Shutdown) {
    tokio::join!(Rc::clone(&engine).dump_periodically(&SystemClock, &shutdown), tidy(&engine, &shutdown));
}

/// Gives memory of removed channels back while nothing else is to be done.
async fn tidy(engine: &DhtEngine, shutdown: &Shutdown) {
    loop {
        let more = engine.store().borrow_mut().tidy();
        if more {
            if shutdown.is_requested() {
                return;
            }
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(TIDY) => {}
            }
        }
    }
}

/// Keeps the node's memory from being swapped out, as far as it may.
fn lock_memory() {
    if let Err(problem) = crate::storage::lock_memory() {
        warn!(target: "dhtnode.main", %problem, "memory not locked: it may be swapped out (lock_memory = false silences this)");
    }
}

/// What the engine changes outside of itself.
struct NodeHooks {
    config: PathBuf,
    dir: DataDir,
}

impl Hooks for NodeHooks {
    fn save_range(&self, range: HashRange) -> Result<(), String> {
        // What cannot be replaced in place is left with a warning of its own.
        set_range(&self.config, range.min(), range.max()).map(drop).map_err(|error| error.to_string())
    }

    fn channel_removed(&self, channel: &str) {
        if let Err(problem) = self.dir.move_to_deleted(channel) {
            error!(
                target: "dhtnode.storage.DumpManager",
                channel, %problem, "file of a removed channel not put aside: it would be loaded at the next start"
            );
        }
    }
}

//! `dhtnode`: keeps records of channels in memory and answers for a range of keys.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use overstory_model::clock::{Clock, SystemClock};
use overstory_node::app::{self, NodeContext, NodeProgram};
use overstory_node::config::rewrite::set_range;
use overstory_node::config::{Config, ConfigError};
use overstory_runtime::Shutdown;
use overstory_swarm::key::HashRange;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::backup::date::Local;
use crate::backup::{self, BackupOptions, Date, next_run};
use crate::config::{BackupSettings, DhtSettings};
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
    let last = crate::dhtdump::last_dump(&dir);
    engine.note_dump(|facts| facts.last = last);
    engine.set_dumps(Dumps { dir, options: dump_options, period: settings.dump_period });
    tokio::task::spawn_local(keep(Rc::clone(&engine), context.data_dir, settings.backup.clone(), context.shutdown));
    info!(target: "dhtnode.main", range = %settings.range, records = loaded.records, "Starting DHT node --------------------------------");
    Ok(engine)
}

/// What goes on by itself until the node stops.
async fn keep(engine: Rc<DhtEngine>, data: PathBuf, backup: Option<BackupSettings>, shutdown: Shutdown) {
    tokio::join!(Rc::clone(&engine).dump_periodically(&SystemClock, &shutdown), tidy(&engine, &shutdown), async {
        if let Some(settings) = backup {
            back_up_daily(&engine, &data, &settings, &shutdown).await;
        }
    },);
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

/// Copies the dumps each day.
async fn back_up_daily(engine: &DhtEngine, data: &Path, settings: &BackupSettings, shutdown: &Shutdown) {
    const HOUR: u64 = 3600;
    loop {
        let wait = next_run(settings.schedule, Local::at(SystemClock.now().secs().0));
        // A day with a change of the clock is longer or shorter: ask again when it is near.
        let near = wait <= HOUR;
        let wait = if near { wait } else { (wait - HOUR).min(HOUR) };
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        }
        if near {
            let options =
                BackupOptions { data: data.to_owned(), directory: settings.dir.clone(), keep_days: settings.keep_days };
            back_up(engine, options).await;
        }
    }
}

async fn back_up(engine: &DhtEngine, options: BackupOptions) {
    let (done, report) = oneshot::channel();
    let today = Date::of(Local::at(SystemClock.now().secs().0));
    let started = backup::spawn(options, today, |report| {
        // Nobody waits any more when the node stops.
        let _ = done.send(report);
    });
    let problem = match (started, report.await) {
        (Ok(_), Ok(report)) => {
            info!(
                target: "dhtnode.storage.Backup",
                files = report.files, bytes = report.bytes, compressed = report.compressed, removed = report.removed,
                failed = report.failures.len(), seconds = report.took.as_secs_f64(), "backup finished"
            );
            report.failures.first().map(ToString::to_string)
        }
        (Err(problem), _) => Some(problem.to_string()),
        (Ok(_), Err(_)) => Some("the thread ended early".to_owned()),
    };
    if let Some(problem) = &problem {
        error!(target: "dhtnode.storage.Backup", problem, "backup failed");
    }
    engine.note_backup(problem);
}

/// Keeps the node's memory from being swapped out, as far as it may.
///
/// A limit below what the node will take is no help: with it the lock succeeds at first, and later every page beyond
/// the limit fails to be allocated.
fn lock_memory() {
    let limited = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(true, |(soft, _)| soft != RLIM_INFINITY);
    let problem = if limited && !may_lock_without_limit() {
        Some("RLIMIT_MEMLOCK is limited".to_owned())
    } else {
        crate::storage::lock_memory().err().map(|error| error.to_string())
    };
    if let Some(problem) = problem {
        warn!(
            target: "dhtnode.main",
            problem, "memory not locked, it may be swapped out (raise the limit, or set lock_memory = false)"
        );
    }
}

/// Whether the process has `CAP_IPC_LOCK`.
fn may_lock_without_limit() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = capabilities.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    bits >> CAP_IPC_LOCK & 1 == 1
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

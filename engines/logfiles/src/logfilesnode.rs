//! `logfilesnode`: keeps records on disk by channel and timestamp.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use overstory_model::SystemClock;
use overstory_node::app::{self, NodeContext, NodeProgram};
use overstory_node::commit::Commits;
use overstory_node::config::{Config, ConfigError, sections};
use overstory_node::cpu;
use overstory_node::heap::Heap;
use overstory_runtime::Shutdown;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::config::LogfilesSettings;
use crate::disk::{Disk, SystemDisk};
use crate::engine::{EngineSettings, LogfilesEngine, Watch};
use crate::read::{Reads, ReadsOptions};
use crate::recovery::OpenReport;
use crate::retention::{Keeper, Policy};
use crate::storage::{Storage, StorageOptions};

/// Files that are open beside those for writing: those for reading, and what the node has of its own.
const OTHER_FILES: u64 = 768;

/// From one look at the heap to the next.
const TICK: Duration = Duration::from_secs(1);

/// Where Linux tells one run of the machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs the node; `args` begins with its name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run::<LogfilesNode>(args)
}

/// The program.
#[derive(Debug)]
pub struct LogfilesNode;

impl NodeProgram for LogfilesNode {
    const NAME: &'static str = "logfilesnode";
    const TYPE: &'static str = "logfiles";
    const CRATES: &'static [&'static str] = &["overstory_logfiles"];
    const ABOUT: &'static str = "keeps records on disk by channel and timestamp";
    type Settings = LogfilesSettings;
    type Engine = LogfilesEngine;

    fn check(config: &Config) -> Result<LogfilesSettings, ConfigError> {
        LogfilesSettings::read(config)
    }

    fn files(settings: &LogfilesSettings) -> u64 {
        OTHER_FILES.saturating_add(settings.open_files as u64)
    }

    fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError> {
        sections::neo_port(config, port)
    }

    async fn open(settings: LogfilesSettings, context: NodeContext) -> anyhow::Result<Rc<LogfilesEngine>> {
        open(&settings, context)
    }

    async fn close(engine: Rc<LogfilesEngine>) -> anyhow::Result<()> {
        engine.close().await.context("not everything was saved")
    }
}

/// Opens the data and begins what goes on by itself until the node stops.
fn open(settings: &LogfilesSettings, context: NodeContext) -> anyhow::Result<Rc<LogfilesEngine>> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let commits = Rc::new(Commits::new());
    let options = storage_options(settings, boot_id());
    let (storage, report) = Storage::open(Arc::clone(&disk), &context.data_dir, options, Rc::clone(&commits))
        .with_context(|| format!("the data in {} cannot be opened", context.data_dir.display()))?;
    tell(&report);
    let reads_options = ReadsOptions { threads: settings.read_threads, ..ReadsOptions::default() };
    let reads = Reads::new(Arc::clone(&disk), reads_options).context("the threads that read cannot be started")?;
    let engine_settings = EngineSettings {
        address: SocketAddrV4::new(context.address, context.port),
        range: settings.range,
        compress: settings.compress,
    };
    let storage = Rc::new(storage);
    let policy = Policy {
        compress_after: settings.compress_after.clone(),
        delete_after: settings.delete_after.clone(),
        unit: settings.unit,
        level: settings.level,
    };
    let keeper = Keeper::start(Rc::clone(&storage), disk, &context.data_dir, Arc::new(SystemClock), policy)
        .context("the thread that keeps the buckets cannot be started")?;
    // Threads that are there already, and wait for the disk, stay free.
    cpu::pin(settings.cpu)?;
    let watch = Watch::new(settings.thresholds, context.data_dir).problems(report.problems);
    let engine = Rc::new(LogfilesEngine::new(storage, reads, engine_settings, context.stats, commits, watch));
    let driven = Rc::clone(&engine);
    tokio::task::spawn_local(async move { driven.drive().await });
    engine.keep(keeper);
    tokio::task::spawn_local(keep(Rc::clone(&engine), context.shutdown));
    let totals = engine.storage().totals();
    info!(
        target: "node.main",
        records = totals.records, bytes = totals.bytes, buckets = totals.buckets,
        "Starting logfiles node --------------------------------"
    );
    Ok(engine)
}

fn storage_options(settings: &LogfilesSettings, boot_id: String) -> StorageOptions {
    StorageOptions {
        sync: settings.sync,
        write_buffer_size: settings.write_buffer,
        write_after: settings.write_after,
        checkpoint: settings.checkpoint,
        open_files: settings.open_files,
        format_v2: settings.format_v2.clone(),
        level: settings.level,
        queue_bytes: settings.queue_bytes,
        boot_id,
        ..StorageOptions::default()
    }
}

/// What tells this run of the machine from others; nothing where the system does not say.
fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Says how the data was found.
fn tell(report: &OpenReport) {
    if report.recovered > 0 || report.found > 0 {
        info!(
            target: "node.storage",
            last_end = ?report.end, recovered = report.recovered, found = report.found, cut = report.cut.len(),
            "buckets were looked into"
        );
    }
    if report.strange > 0 {
        info!(target: "node.storage", count = report.strange, "names in the data directory that are none of a channel or slot are left alone");
    }
    for problem in &report.problems {
        warn!(target: "node.storage", problem, "data is not as it should be");
    }
}

/// What goes on by itself until the node stops.
async fn keep(engine: Rc<LogfilesEngine>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heap = Heap::default();
    loop {
        tokio::select! {
            () = shutdown.requested() => return engine.stop(),
            _ = ticks.tick() => heap.look(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use super::*;

    /// A node that may have 65,536 buckets open for writing asked the system for 1,024 files.
    #[test]
    fn as_many_files_are_asked_for_as_the_configuration_allows_to_be_open() {
        let files = |text: &str| {
            let config = Config::parse(Path::new("config.ini"), text, Vec::new()).unwrap();
            LogfilesNode::files(&LogfilesNode::check(&config).unwrap())
        };
        assert_eq!((files(""), files("[Sync]\nmax_open_files = 65536\n")), (1024, 66_304));
    }
}

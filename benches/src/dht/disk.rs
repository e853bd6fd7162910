//! Iteration, dump and load of the node: next to the disk's own speed, and what a dump does to a waiting client.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use overstory_client::dht::Selection;
use overstory_client::{ClientConfig, DhtClient, Registry};
use tokio::runtime::Runtime;

use super::{CHANNEL, get_all, kind, put_all};
use crate::Setting;
use crate::disk::{self, forget_pages, megabytes_per_second, read_file, write_file};
use crate::figure::{Figure, Target};
use crate::node::{self, Node};
use crate::process::{self, Meter};
use crate::value::text;

/// What a sequential reader or writer passes to the system at once.
const BLOCK: usize = 4 << 20;
/// The size of the values.
const SIZE: usize = 100;
/// The dump period while gets are timed, as short as it can be set.
const DUMP_PERIOD_S: u64 = 1;
/// Gets are timed until so many were answered while a dump was being written.
const TIMED: usize = 5_000;
/// Longest time for that.
const TIMING: Duration = Duration::from_secs(120);

/// Measures all of it as often as it is told.
pub(super) fn run(setting: &Setting, runtime: &Runtime, keys: &[u64]) -> Result<Vec<Figure>> {
    let value = text(SIZE);
    let (mut iterate, mut p99) = (Vec::new(), Vec::new());
    let (mut dump, mut write, mut load, mut read) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        let home = tempfile::tempdir()?;
        let node = Node::start(&setting.executable, home.path(), &kind(0))?;
        runtime.block_on(async { put_all(&mut node.connect().await?, keys, &value, 1024).await })?;
        iterate.push(runtime.block_on(iterated(&node, keys.len()))?);
        let took = node.stop()?;
        let file = home.path().join("data").join(format!("{CHANNEL}.tcm"));
        let bytes = fs::metadata(&file)?.len();
        dump.push(megabytes_per_second(bytes, took));
        write.push(megabytes_per_second(bytes, write_file(&home.path().join("sequential"), bytes, BLOCK)?));
        forget_pages()?;
        read.push(megabytes_per_second(bytes, read_file(&file, BLOCK)?));
        forget_pages()?;
        let began = Instant::now();
        let node = Node::start(&setting.executable, home.path(), &kind(DUMP_PERIOD_S))?;
        load.push(megabytes_per_second(bytes, began.elapsed()));
        p99.push(runtime.block_on(p99_during_dump(&node, keys))?);
    }
    let half = Some(Target::RatioAtLeast(0.5));
    Ok(vec![
        Figure::alone("dht: CPU per iterated record, 100 B", "us", &iterate, Some(Target::AtMost(0.5))),
        Figure::paired("dht: dump at the end", "MB/s", &dump, disk::NAME, &write, half),
        Figure::paired("dht: load at the start", "MB/s", &load, disk::NAME, &read, half),
        Figure::alone("dht: p99 of a get during a dump", "ms", &p99, Some(Target::AtMost(5.0))),
    ])
}

/// The node's CPU per record of a GetAll.
async fn iterated(node: &Node, records: usize) -> Result<f64> {
    let mut registry = Registry::new();
    registry.add(node.neo())?;
    let client = DhtClient::connect(ClientConfig::neo(registry, node::identity())).await?;
    let meter = Meter::start(node.pid())?;
    let mut batches = client.get_all(CHANNEL, &Selection::default())?;
    let mut seen = 0;
    while let Some(batch) = batches.next().await {
        seen += batch?.records().count();
    }
    ensure!(seen == records, "{seen} of {records} records were iterated");
    Ok(meter.cost(seen)?.cpu_us)
}

/// The 99th percentile, in milliseconds, of gets one at a time that were answered while a dump was being written.
async fn p99_during_dump(node: &Node, keys: &[u64]) -> Result<f64> {
    let mut client = node.connect().await?;
    let (dumping, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (data, dumping, over) = (node.data(), Arc::clone(&dumping), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                dumping.store(is_dumping(&data), Ordering::Relaxed);
                process::pause(Duration::from_micros(500));
            }
        })
    };
    let (mut latencies, deadline) = (Vec::with_capacity(TIMED), Instant::now() + TIMING);
    for key in keys.iter().cycle() {
        let began = Instant::now();
        get_all(&mut client, std::slice::from_ref(key), SIZE, 1).await?;
        if dumping.load(Ordering::Relaxed) {
            latencies.push(began.elapsed());
        }
        if latencies.len() >= TIMED || Instant::now() > deadline {
            break;
        }
    }
    over.store(true, Ordering::Relaxed);
    ensure!(watcher.join().is_ok(), "the watcher of the dumps ended early");
    ensure!(latencies.len() >= TIMED, "only {} gets were answered during dumps", latencies.len());
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    Ok(p99.as_secs_f64() * 1e3)
}

/// Whether a temporary file of a dump is there.
fn is_dumping(data: &Path) -> bool {
    let Ok(entries) = fs::read_dir(data) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".dumping"))
}

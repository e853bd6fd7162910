//! The logfiles node next to what the disk itself reads and writes.

mod scan;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use overstory_client::dls::{Filter, Order};
use overstory_client::{ClientConfig, DlsClient, Outcome, Registry};
use tokio::runtime::Runtime;

use self::scan::Scanner;
use crate::Setting;
use crate::disk::{self, megabytes_per_second, read_file, write_file};
use crate::figure::{Figure, Target};
use crate::node::{self, Kind, Node};
use crate::process::{self, Cost, Meter};
use crate::value::text;

const CHANNEL: &str = "bench";
const SMALL: usize = 100;
const LARGE: usize = 1024;
/// Puts in flight.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
/// Puts in flight with `sync = always`.
const DURABLE: [usize; 2] = [64, 1024];
/// Puts in flight where the disk is what limits.
const WINDOW: usize = 1024;
/// Records with the same timestamp.
const PER_SECOND: usize = 10;
/// The first timestamp.
const BEGIN: i64 = 1_700_000_000;
/// What every value of the bench has in it.
const HIT: &str = "campaign=summer";
/// What none has.
const MISS: &str = "campaign=winter";
/// What the plain loops pass to the system at once, as `dd` is told usually.
const BLOCK: usize = 1 << 20;
/// Bytes of a key in a legacy batch, and of the lengths of key and value.
const OVERHEAD: usize = 16 + 16;

/// How the node is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Records of 100 bytes.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(10_000..=100_000_000))]
    records: u32,
    /// Records of 1 KiB.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=20_000_000))]
    large: u32,
    /// Puts with one in flight, or with `sync = always`.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    single: u32,
}

/// Runs the node and the plain loops in turn and returns the figures.
pub(crate) fn run(setting: &Setting, options: &Options) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        small.push(measure_small(setting, options, &runtime)?);
        large.push(measure_large(setting, options, &runtime)?);
    }
    let mut figures = Vec::new();
    small_figures(&mut figures, &small);
    large_figures(&mut figures, &large);
    Ok(figures)
}

fn small_figures(figures: &mut Vec<Figure>, runs: &[Small]) {
    let column = |of: &dyn Fn(&Small) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let mut alone = |title: &str, unit: &str, of: &dyn Fn(&Small) -> f64, target| {
        figures.push(Figure::alone(&format!("logfiles: {title}"), unit, &column(of), target));
    };
    for (index, in_flight) in IN_FLIGHT.into_iter().enumerate() {
        let target = (in_flight == 64).then_some(Target::AtMost(4.0));
        alone(&format!("CPU per put, 100 B, {in_flight} in flight"), "us", &|run| run.puts[index].cpu_us, target);
        alone(&format!("puts, 100 B, {in_flight} in flight"), "/s", &|run| run.puts[index].per_second, None);
    }
    for (index, in_flight) in DURABLE.into_iter().enumerate() {
        let title = format!("puts, 100 B, {in_flight} in flight, sync = always");
        alone(&title, "/s", &|run| run.durable[index].per_second, None);
        alone(&format!("CPU per put of these, {in_flight} in flight"), "us", &|run| run.durable[index].cpu_us, None);
    }
    let target = Some(Target::AtMost(0.3));
    alone("CPU per record read, 100 B, legacy", "us", &|run| run.legacy.cpu_us, target);
    alone("records read, 100 B, legacy", "/s", &|run| run.legacy.per_second, None);
    alone("CPU per record read, 100 B, neo", "us", &|run| run.neo.cpu_us, target);
    alone("records read, 100 B, neo", "/s", &|run| run.neo.per_second, None);
    alone("CPU per record read, 100 B, compress = always", "us", &|run| run.compressed.cpu_us, None);
    let whole = column(&|run| run.legacy.cpu_us);
    let mut filtered = |title: &str, of: &dyn Fn(&Small) -> f64| {
        let (title, target) = (format!("logfiles: {title}"), Some(Target::RatioAtMost(2.0)));
        figures.push(Figure::paired(&title, "us", &column(of), "the same without filter", &whole, target));
    };
    filtered("CPU per record, 100 B, substring that all have", &|run| run.hit.cpu_us);
    filtered("CPU per record, 100 B, substring that none has", &|run| run.miss.cpu_us);
}

fn large_figures(figures: &mut Vec<Figure>, runs: &[Large]) {
    let column = |of: &dyn Fn(&Large) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let mut paired = |title: &str, of: &dyn Fn(&Large) -> f64, peer: &dyn Fn(&Large) -> f64, target| {
        let title = format!("logfiles: {title}");
        figures.push(Figure::paired(&title, "MB/s", &column(of), disk::NAME, &column(peer), target));
    };
    let write = Some(Target::RatioAtLeast(0.6));
    paired("puts down to the disk, 1 KiB, 1024 in flight", &|run| run.put, &|run| run.disk_write, write);
    paired("PutBatch down to the disk, 1 KiB", &|run| run.batch, &|run| run.disk_write, None);
    paired("read from the page cache, 1 KiB", &|run| run.read, &|run| run.disk_read, Some(Target::AtLeast(1000.0)));
    let mut alone = |title: &str, unit: &str, of: &dyn Fn(&Large) -> f64| {
        figures.push(Figure::alone(&format!("logfiles: {title}"), unit, &column(of), None));
    };
    alone("CPU per put, 1 KiB, 1024 in flight", "us", &|run| run.put_cpu_us);
    alone("CPU per record read, 1 KiB", "us", &|run| run.read_cpu_us);
    alone("peak RSS", "MB", &|run| run.peak);
}

/// What one run with records of 100 bytes gave.
struct Small {
    puts: Vec<Cost>,
    /// With `sync = always`, 64 and 1,024 in flight.
    durable: Vec<Cost>,
    legacy: Cost,
    neo: Cost,
    compressed: Cost,
    hit: Cost,
    miss: Cost,
}

fn measure_small(setting: &Setting, options: &Options, runtime: &Runtime) -> Result<Small> {
    let home = home(&setting.executable)?;
    let (value, records) = (text(SMALL), options.records as usize);
    let node = Node::start(&setting.executable, home.path(), &kind("interval", "auto"))?;
    let mut puts = Vec::new();
    for in_flight in IN_FLIGHT {
        let count = if in_flight == 1 { options.single as usize } else { records };
        puts.push(runtime.block_on(put(&node, &channel(in_flight), count, &value, in_flight))?);
    }
    let channel = channel(WINDOW);
    let legacy = scan(&node, &channel, None, records, SMALL)?;
    let hit = scan(&node, &channel, Some(HIT), records, SMALL)?;
    let miss = scan(&node, &channel, Some(MISS), records, SMALL)?;
    let neo = runtime.block_on(get_range(&node, &channel, records))?;
    node.stop()?;
    let node = Node::start(&setting.executable, home.path(), &kind("always", "always"))?;
    let compressed = scan(&node, &channel, None, records, SMALL)?;
    let single = options.single as usize;
    let durable = DURABLE
        .map(|in_flight| runtime.block_on(put(&node, &format!("durable-{in_flight}"), single * 4, &value, in_flight)));
    let durable = durable.into_iter().collect::<Result<_>>()?;
    node.stop()?;
    Ok(Small { puts, durable, legacy, neo, compressed, hit, miss })
}

/// What one run with records of 1 KiB gave: MB/s of values and files.
struct Large {
    put: f64,
    put_cpu_us: f64,
    batch: f64,
    read: f64,
    read_cpu_us: f64,
    disk_write: f64,
    disk_read: f64,
    peak: f64,
}

fn measure_large(setting: &Setting, options: &Options, runtime: &Runtime) -> Result<Large> {
    let home = home(&setting.executable)?;
    let (value, records) = (text(LARGE), options.large as usize);
    let bytes = (records * LARGE) as u64;
    let plain = home.path().join("sequential");
    disk::settle()?;
    let disk_write = megabytes_per_second(bytes, write_file(&plain, bytes, BLOCK)?);
    let disk_read = megabytes_per_second(bytes, read_file(&plain, BLOCK)?);
    fs::remove_file(&plain)?;
    disk::settle()?;

    // Stopping the node makes everything durable, as the plain loop does at its end.
    let node = Node::start(&setting.executable, home.path(), &kind("interval", "auto"))?;
    let began = Instant::now();
    let cost = runtime.block_on(put(&node, CHANNEL, records, &value, WINDOW))?;
    let took = began.elapsed();
    let peak = process::peak_rss(node.pid())? as f64 / 1e6;
    let put = megabytes_per_second(bytes, took + node.stop()?);

    let node = Node::start(&setting.executable, home.path(), &kind("interval", "auto"))?;
    let read = scan(&node, CHANNEL, None, records, LARGE)?;
    let peak = peak.max(process::peak_rss(node.pid())? as f64 / 1e6);
    node.stop()?;
    drop(home);
    disk::settle()?;

    let home = self::home(&setting.executable)?;
    let node = Node::start(&setting.executable, home.path(), &kind("interval", "auto"))?;
    let (batched, took) = scan::put_batches(node.legacy(), CHANNEL, BEGIN.cast_unsigned(), &value, records)?;
    let batch = megabytes_per_second((batched * LARGE) as u64, took + node.stop()?);
    Ok(Large {
        put,
        put_cpu_us: cost.cpu_us,
        batch,
        read: read.per_second * LARGE as f64 / 1e6,
        read_cpu_us: read.cpu_us,
        disk_write,
        disk_read,
        peak,
    })
}

/// A directory on the executable's disk: a temporary one may lie in memory.
fn home(executable: &Path) -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(executable.parent().context("the executable is in no directory")?)?)
}

fn kind(sync: &str, compress: &str) -> Kind {
    let config = format!("neoport = NEO_PORT\n[Sync]\nmode = {sync}\n[Performance]\ncompress = {compress}\n");
    Kind { program: "logfilesnode", config }
}

fn channel(in_flight: usize) -> String {
    format!("{CHANNEL}-{in_flight}")
}

fn timestamp(number: usize) -> i64 {
    BEGIN + (number / PER_SECOND) as i64
}

/// Puts records, `in_flight` at most without an answer.
async fn put(node: &Node, channel: &str, count: usize, value: &[u8], in_flight: usize) -> Result<Cost> {
    let mut client = node.connect().await?;
    let meter = Meter::start(node.pid())?;
    let (mut asked, mut wrong) = (0, 0);
    while asked < count || client.in_flight() > 0 {
        // A window that slides: the node is never left without work.
        while asked < count && client.in_flight() < in_flight {
            ensure!(client.put_dls(0, channel, timestamp(asked), value), "the pipeline takes no more");
            asked += 1;
        }
        client.complete(|_, outcome| wrong += usize::from(outcome != Outcome::Stored)).await?;
    }
    ensure!(wrong == 0, "{wrong} puts failed");
    meter.cost(count)
}

/// Reads a channel of `records` records by the legacy protocol.
fn scan(node: &Node, channel: &str, filter: Option<&str>, records: usize, size: usize) -> Result<Cost> {
    let mut scanner = Scanner::connect(node.legacy())?;
    let meter = Meter::start(node.pid())?;
    let bytes = scanner.all(channel, filter)?;
    let cost = meter.cost(records)?;
    let expected = if filter == Some(MISS) { 0 } else { records * (size + OVERHEAD) };
    ensure!(bytes == expected as u64, "{bytes} bytes were read instead of {expected}");
    Ok(cost)
}

/// Reads a channel as an application does.
async fn get_range(node: &Node, channel: &str, records: usize) -> Result<Cost> {
    let mut registry = Registry::new();
    registry.add(node.neo())?;
    let client = DlsClient::connect(ClientConfig::neo(registry, node::identity())).await?;
    let meter = Meter::start(node.pid())?;
    let mut batches = client.get_range(channel, i64::MIN, i64::MAX, Filter::None, Order::AsTheyCome)?;
    let mut seen = 0;
    while let Some(batch) = batches.next().await {
        seen += batch?.records().count();
    }
    ensure!(seen == records, "{seen} of {records} records were read");
    meter.cost(records)
}

//! The dht node next to Redis: CPU per request, throughput, memory per record; and what only the node does.

mod disk;

use std::cell::Cell;

use anyhow::{Result, ensure};
use overstory_client::{Outcome, Pipeline};
use overstory_swarm::key::Key;

use crate::Setting;
use crate::figure::{Figure, Target};
use crate::node::{Kind, Node};
use crate::process::{self, Cost, Meter};
use crate::redis::{self, Redis};
use crate::value::{scatter, text};

const CHANNEL: &str = "bench";
/// Value sizes.
const SIZES: [usize; 2] = [100, 1024];
/// Requests in flight; targets hold from the second on.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// How the node is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Records stored.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    records: u64,
    /// Requests per run and figure with one in flight (the others use all records).
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    single: u64,
}

/// Runs node and peer in turn and returns the figures.
pub(crate) fn run(setting: &Setting, options: &Options) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keys: Vec<u64> = (0..options.records).map(scatter).collect();
    // Asked for in another order than stored: who stores records as they come would find each next to the last one.
    let mut order = keys.clone();
    order.sort_unstable_by_key(|key| scatter(*key));
    let mut figures = Vec::new();
    for size in SIZES {
        let value = text(size);
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..setting.runs {
            ours.push(runtime.block_on(measure_node(setting, options, (&keys, &order), &value))?);
            peers.push(measure_redis(options, (&keys, &order), &value)?);
        }
        compare(&mut figures, size, &ours, &peers);
    }
    figures.extend(disk::run(setting, &runtime, &keys)?);
    Ok(figures)
}

/// What one run of one server gave: puts and gets by [`IN_FLIGHT`], and bytes of memory per record.
struct Run {
    puts: Vec<Cost>,
    gets: Vec<Cost>,
    memory: f64,
}

fn compare(figures: &mut Vec<Figure>, size: usize, ours: &[Run], peers: &[Run]) {
    for (name, requests) in [("put", puts as fn(&Run) -> &[Cost]), ("get", gets)] {
        for (index, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let column = |runs: &[Run], of: fn(Cost) -> f64| -> Vec<f64> {
                runs.iter().filter_map(|run| requests(run).get(index).copied().map(of)).collect()
            };
            let mut add = |what: &str, unit: &str, of: fn(Cost) -> f64, target| {
                let title = format!("dht: {what} per {name}, {size} B, {in_flight} in flight");
                figures.push(Figure::paired(&title, unit, &column(ours, of), redis::NAME, &column(peers, of), target));
            };
            let held = in_flight > 1;
            add("CPU", "us", |cost| cost.cpu_us, held.then_some(Target::RatioAtMost(1.0)));
            add("throughput", "/s", |cost| cost.per_second, held.then_some(Target::RatioAtLeast(1.2)));
        }
    }
    let memory = |runs: &[Run]| runs.iter().map(|run| run.memory).collect::<Vec<_>>();
    let target = (size == 100).then_some(Target::RatioAtMost(0.65));
    let title = format!("dht: memory per record, {size} B");
    figures.push(Figure::paired(&title, "B", &memory(ours), redis::NAME, &memory(peers), target));
}

fn puts(run: &Run) -> &[Cost] {
    &run.puts
}

fn gets(run: &Run) -> &[Cost] {
    &run.gets
}

/// A node for all keys that dumps so often; 0: at its end only.
fn kind(dump_period_s: u64) -> Kind {
    let config = format!(
        "minval = 0x0000000000000000\nmaxval = 0xffffffffffffffff\n[Options_Memory]\nlock_memory = false\n\
         [Dump]\nperiod_s = {dump_period_s}\n"
    );
    Kind { program: "dhtnode", config }
}

async fn measure_node(
    setting: &Setting,
    options: &Options,
    (keys, order): (&[u64], &[u64]),
    value: &[u8],
) -> Result<Run> {
    let home = tempfile::tempdir()?;
    let node = Node::start(&setting.executable, home.path(), &kind(0))?;
    let mut client = node.connect().await?;
    let before = process::pss(node.pid())?;
    put_all(&mut client, keys, value, 1024).await?;
    let memory = process::pss(node.pid())?.saturating_sub(before) as f64 / keys.len() as f64;
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for in_flight in IN_FLIGHT {
        let keys = part(order, in_flight, options);
        let meter = Meter::start(node.pid())?;
        put_all(&mut client, keys, value, in_flight).await?;
        puts.push(meter.cost(keys.len())?);
        let meter = Meter::start(node.pid())?;
        get_all(&mut client, keys, value.len(), in_flight).await?;
        gets.push(meter.cost(keys.len())?);
    }
    Ok(Run { puts, gets, memory })
}

fn measure_redis(options: &Options, (keys, order): (&[u64], &[u64]), value: &[u8]) -> Result<Run> {
    let redis = Redis::start()?;
    let mut client = redis.connect()?;
    let before = process::pss(redis.pid())?;
    client.set(keys, value, 1024)?;
    let memory = process::pss(redis.pid())?.saturating_sub(before) as f64 / keys.len() as f64;
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for in_flight in IN_FLIGHT {
        let keys = part(order, in_flight, options);
        let meter = Meter::start(redis.pid())?;
        client.set(keys, value, in_flight)?;
        puts.push(meter.cost(keys.len())?);
        let meter = Meter::start(redis.pid())?;
        client.get(keys, value.len(), in_flight)?;
        gets.push(meter.cost(keys.len())?);
    }
    Ok(Run { puts, gets, memory })
}

fn part<'a>(keys: &'a [u64], in_flight: usize, options: &Options) -> &'a [u64] {
    let single = usize::try_from(options.single).unwrap_or(usize::MAX);
    if in_flight == 1 { keys.get(..single).unwrap_or(keys) } else { keys }
}

/// Stores `value` under each key, `in_flight` at a time, as the peer's client does.
async fn put_all(client: &mut Pipeline, keys: &[u64], value: &[u8], in_flight: usize) -> Result<()> {
    let failed = Cell::new(0_usize);
    for batch in keys.chunks(in_flight) {
        for key in batch {
            ensure!(client.put(0, CHANNEL, Key(*key), value), "the pipeline takes no more");
        }
        while client.in_flight() > 0 {
            client.complete(|_, outcome| failed.set(failed.get() + usize::from(outcome != Outcome::Stored))).await?;
        }
    }
    ensure!(failed.get() == 0, "{} puts failed", failed.get());
    Ok(())
}

/// Reads the value of each key, `in_flight` at a time.
async fn get_all(client: &mut Pipeline, keys: &[u64], value_len: usize, in_flight: usize) -> Result<()> {
    let failed = Cell::new(0_usize);
    for batch in keys.chunks(in_flight) {
        for key in batch {
            ensure!(client.get(0, CHANNEL, Key(*key)), "the pipeline takes no more");
        }
        while client.in_flight() > 0 {
            let count = |_, outcome: Outcome<'_>| {
                let right = matches!(outcome, Outcome::Value(value) if value.len() == value_len);
                failed.set(failed.get() + usize::from(!right));
            };
            client.complete(count).await?;
        }
    }
    ensure!(failed.get() == 0, "{} gets failed", failed.get());
    Ok(())
}

//! The queue node next to Redis lists and RabbitMQ: what a push, a pop and a consumed record cost.

mod rabbit;

use std::cell::Cell;

use anyhow::{Context, Result, bail, ensure};
use overstory_client::dmq::Delivery;
use overstory_client::{ClientConfig, DmqClient, Outcome, Pipeline, Registry};
use overstory_testkit::broker::PrivateBroker;
use tokio::runtime::Runtime;

use crate::Setting;
use crate::figure::{Figure, Target};
use crate::node::{self, Kind, Node};
use crate::process::{Cost, Meter};
use crate::redis::{self, Redis};
use crate::value::text;
use rabbit::Rabbit;

const CHANNEL: &str = "bench";
/// Record sizes.
const SIZES: [usize; 2] = [100, 1024];
/// Requests in flight; targets hold from the second on.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
/// Messages that wait for a confirm, or that a consumer of RabbitMQ has at hand.
const WINDOW: usize = 1024;
/// What a queue of the node may hold in memory.
const LIMIT: u64 = 8 << 30;
const QUORUM: &str = "RabbitMQ 3.10, quorum queue";
const CLASSIC: &str = "RabbitMQ 3.10, classic queue";

/// How the node is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Records per figure.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=20_000_000))]
    records: u32,
    /// Records per figure with one in flight.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    single: u32,
    /// Records per figure next to RabbitMQ.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10_000..=5_000_000))]
    durable: u32,
}

/// Runs node and peers in turn and returns the figures.
pub(crate) fn run(setting: &Setting, options: &Options) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for size in SIZES {
        let value = text(size);
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..setting.runs {
            ours.push(runtime.block_on(measure_node(setting, options, &value))?);
            peers.push(measure_redis(options, &value)?);
        }
        compare_lists(&mut figures, size, &ours, &peers);
    }
    let broker = PrivateBroker::start()?;
    for size in SIZES {
        let value = text(size);
        let (mut ours, mut quorum, mut classic) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..setting.runs {
            ours.push(measure_journal(setting, &runtime, options.durable as usize, &value)?);
            quorum.push(measure_rabbit(&broker, "quorum", options.durable as usize, &value)?);
            classic.push(measure_rabbit(&broker, "classic", options.durable as usize, &value)?);
        }
        compare_durable(&mut figures, size, (&ours, &quorum), QUORUM, Some(Target::RatioAtLeast(3.0)));
        compare_durable(&mut figures, size, (&ours, &classic), CLASSIC, None);
    }
    Ok(figures)
}

/// What one run gave next to Redis: pushes and pops by [`IN_FLIGHT`].
struct Run {
    pushes: Vec<Cost>,
    pops: Vec<Cost>,
    /// Redis has none.
    consumed: Option<Cost>,
}

/// What one run gave next to RabbitMQ.
struct Durable {
    pushed: Cost,
    consumed: Cost,
}

fn compare_lists(figures: &mut Vec<Figure>, size: usize, ours: &[Run], peers: &[Run]) {
    for (name, requests) in [("push", pushes as fn(&Run) -> &[Cost]), ("pop", pops)] {
        for (index, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let column = |runs: &[Run], of: fn(Cost) -> f64| -> Vec<f64> {
                runs.iter().filter_map(|run| requests(run).get(index).copied().map(of)).collect()
            };
            let mut add = |what: &str, unit: &str, of: fn(Cost) -> f64, target| {
                let title = format!("dmq: {what} per {name}, {size} B, {in_flight} in flight");
                figures.push(Figure::paired(&title, unit, &column(ours, of), redis::NAME, &column(peers, of), target));
            };
            add("CPU", "us", |cost| cost.cpu_us, (in_flight > 1).then_some(Target::RatioAtMost(1.0)));
            add("throughput", "/s", |cost| cost.per_second, None);
        }
    }
    let consumed = |of: fn(Cost) -> f64| ours.iter().filter_map(|run| run.consumed.map(of)).collect::<Vec<_>>();
    let small = size == 100;
    let mut alone = |what: &str, unit: &str, of, target: Target| {
        let title = format!("dmq: {what} consumed record, {size} B");
        figures.push(Figure::alone(&title, unit, &consumed(of), small.then_some(target)));
    };
    alone("CPU per", "us", |cost| cost.cpu_us, Target::AtMost(0.2));
    alone("throughput per", "/s", |cost| cost.per_second, Target::AtLeast(1e6));
}

fn pushes(run: &Run) -> &[Cost] {
    &run.pushes
}

fn pops(run: &Run) -> &[Cost] {
    &run.pops
}

fn compare_durable(
    figures: &mut Vec<Figure>,
    size: usize,
    (ours, peers): (&[Durable], &[Durable]),
    peer: &str,
    target: Option<Target>,
) {
    let mut add = |what: &str, unit: &str, of: fn(&Durable) -> f64, target| {
        let column = |runs: &[Durable]| runs.iter().map(of).collect::<Vec<_>>();
        let title = format!("dmq, journal: {what}, {size} B, {WINDOW} in flight");
        figures.push(Figure::paired(&title, unit, &column(ours), peer, &column(peers), target));
    };
    add("confirmed pushes", "/s", |run| run.pushed.per_second, target);
    add("CPU per confirmed push", "us", |run| run.pushed.cpu_us, None);
    add("consumed records", "/s", |run| run.consumed.per_second, None);
    add("CPU per consumed record", "us", |run| run.consumed.cpu_us, None);
}

fn kind(durability: &str) -> Kind {
    let config = format!("neoport = NEO_PORT\nchannel_size_limit = {LIMIT}\n[Queue]\ndurability = {durability}\n");
    Kind { program: "dmqnode", config }
}

async fn measure_node(setting: &Setting, options: &Options, value: &[u8]) -> Result<Run> {
    let home = tempfile::tempdir()?;
    let node = Node::start(&setting.executable, home.path(), &kind("overflow"))?;
    let mut client = node.connect().await?;
    let (mut pushes, mut pops) = (Vec::new(), Vec::new());
    for in_flight in IN_FLIGHT {
        let count = part(in_flight, options);
        let meter = Meter::start(node.pid())?;
        push_all(&mut client, count, value, in_flight).await?;
        pushes.push(meter.cost(count)?);
        let meter = Meter::start(node.pid())?;
        pop_all(&mut client, count, value.len(), in_flight).await?;
        pops.push(meter.cost(count)?);
    }
    let count = options.records as usize;
    push_all(&mut client, count, value, WINDOW).await?;
    let meter = Meter::start(node.pid())?;
    consume_all(&node, count, value.len()).await?;
    Ok(Run { pushes, pops, consumed: Some(meter.cost(count)?) })
}

fn measure_redis(options: &Options, value: &[u8]) -> Result<Run> {
    let redis = Redis::start()?;
    let mut client = redis.connect()?;
    let (mut pushes, mut pops) = (Vec::new(), Vec::new());
    for in_flight in IN_FLIGHT {
        let count = part(in_flight, options);
        let meter = Meter::start(redis.pid())?;
        client.lpush(CHANNEL, count, value, in_flight)?;
        pushes.push(meter.cost(count)?);
        let meter = Meter::start(redis.pid())?;
        client.rpop(CHANNEL, count, value.len(), in_flight)?;
        pops.push(meter.cost(count)?);
    }
    Ok(Run { pushes, pops, consumed: None })
}

fn measure_journal(setting: &Setting, runtime: &Runtime, count: usize, value: &[u8]) -> Result<Durable> {
    // Not in a temporary directory that may lie in memory: beside the executable, where the broker's disk is.
    let home = tempfile::tempdir_in(setting.executable.parent().context("the executable is in no directory")?)?;
    let node = Node::start(&setting.executable, home.path(), &kind("journal"))?;
    runtime.block_on(async {
        let mut client = node.connect().await?;
        let meter = Meter::start(node.pid())?;
        push_all(&mut client, count, value, WINDOW).await?;
        let pushed = meter.cost(count)?;
        let meter = Meter::start(node.pid())?;
        consume_all(&node, count, value.len()).await?;
        Ok(Durable { pushed, consumed: meter.cost(count)? })
    })
}

fn measure_rabbit(broker: &PrivateBroker, kind: &str, count: usize, value: &[u8]) -> Result<Durable> {
    let config = broker.vhost()?;
    let pid = broker.pid()?;
    let mut client = Rabbit::connect(&config)?;
    client.declare(CHANNEL, kind)?;
    let meter = Meter::start(pid)?;
    client.publish(CHANNEL, count, value, WINDOW)?;
    let pushed = meter.cost(count)?;
    let meter = Meter::start(pid)?;
    client.consume(CHANNEL, count, u16::try_from(WINDOW)?)?;
    Ok(Durable { pushed, consumed: meter.cost(count)? })
}

const fn part(in_flight: usize, options: &Options) -> usize {
    if in_flight == 1 { options.single as usize } else { options.records as usize }
}

/// Pushes records, `in_flight` at most without an answer.
async fn push_all(client: &mut Pipeline, count: usize, value: &[u8], in_flight: usize) -> Result<()> {
    let right = |outcome: &Outcome<'_>| matches!(outcome, Outcome::Pushed);
    request_all(client, count, in_flight, |client| client.push(0, CHANNEL, value), right).await
}

/// Pops records, `in_flight` requests at most without an answer.
async fn pop_all(client: &mut Pipeline, count: usize, length: usize, in_flight: usize) -> Result<()> {
    let right = |outcome: &Outcome<'_>| matches!(outcome, Outcome::Value(value) if value.len() == length);
    request_all(client, count, in_flight, |client| client.pop(0, CHANNEL), right).await
}

async fn request_all(
    client: &mut Pipeline,
    count: usize,
    in_flight: usize,
    ask: impl Fn(&mut Pipeline) -> bool,
    is_right: impl Fn(&Outcome<'_>) -> bool,
) -> Result<()> {
    let (mut asked, wrong) = (0, Cell::new(0_usize));
    // Batch by batch, as the client of Redis does, unless the answers wait for a disk: that is for the node to bundle.
    while asked < count {
        let batch = in_flight.min(count - asked);
        for _ in 0..batch {
            ensure!(ask(client), "the pipeline takes no more");
        }
        asked += batch;
        while client.in_flight() > 0 {
            client.complete(|_, outcome| wrong.set(wrong.get() + usize::from(!is_right(&outcome)))).await?;
        }
    }
    ensure!(wrong.get() == 0, "{} requests failed", wrong.get());
    Ok(())
}

/// Takes records as a consumer does.
async fn consume_all(node: &Node, count: usize, length: usize) -> Result<()> {
    let mut registry = Registry::new();
    registry.add(node.neo())?;
    let client = DmqClient::connect(ClientConfig::neo(registry, node::identity())).await?;
    let mut consumer = client.consume(CHANNEL, "")?;
    let mut consumed = 0;
    while consumed < count {
        match consumer.next().await.context("the consumer has ended")?? {
            Delivery::Records(batch) => {
                ensure!(batch.records().all(|record| record.len() == length), "a record of another length");
                consumed += batch.len();
            }
            other => bail!("{other:?}"),
        }
    }
    ensure!(consumed == count, "{consumed} records instead of {count}");
    consumer.accept();
    Ok(())
}

//! The event engines: publish, broker, engines, durable commit, acknowledgement. The peer is the least that a consumer
//! of the same queue can do: it only acknowledges.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use overstory_amqp::{
    AmqpConfig, Consumed, Consumer, ConsumerOptions, Delivery, Outgoing, Publisher, PublisherOptions, fanout, topology,
};
use overstory_model::RoutingKey;
use overstory_runtime::Shutdown;
use overstory_testkit::broker::PrivateBroker;
use overstory_testkit::mongo::MongoServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::Setting;
use crate::figure::{Figure, Target};
use crate::process;

const PEER_NAME: &str = "consumer that only acks";
const ENTITIES: usize = 10_000;
/// One event in so many changes its entity's state.
const CHANGES_ONE_IN: u64 = 10;
/// Events handed to the publisher at once.
const CHUNK: usize = 500;
/// No phase takes longer.
const DEADLINE: Duration = Duration::from_secs(300);
/// Events per second while latency is measured, and how many are published per tick.
const LATENCY_RATE: u64 = 1000;
const LATENCY_TICK: Duration = Duration::from_millis(10);

/// How the engines are measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Events per run of the throughput phase.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    events: u32,
    /// Seconds of the latency phase of each run.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Measure on MongoDB instead of the embedded store, each run in a database of its own: on the server at URI, or on
    /// the stand-in that the tests use.
    #[arg(long, value_name = "URI", num_args = 0..=1, default_missing_value = "")]
    mongodb: Option<String>,
}

#[derive(Debug, Default)]
struct Run {
    per_second: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    peak_rss_mb: f64,
}

/// Runs engines and peer in turn and returns the figures.
pub(crate) fn run(setting: &Setting, options: &Options) -> Result<Vec<Figure>> {
    let mut options = options.clone();
    let stand_in = match options.mongodb.as_deref() {
        Some("") => Some(MongoServer::start()?),
        _ => None,
    };
    options.mongodb = stand_in.as_ref().map(MongoServer::uri).or(options.mongodb);
    let options = &options;
    let broker = PrivateBroker::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for number in 0..setting.runs {
        ours.push(runtime.block_on(measure_engines(setting, options, &broker.vhost()?, number))?);
        peers.push(runtime.block_on(measure_peer(options, &broker.vhost()?))?);
    }
    let column = |runs: &[Run], of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let paired = |name: &str, unit: &str, of: fn(&Run) -> f64, target| {
        Figure::paired(name, unit, &column(&ours, of), PEER_NAME, &column(&peers, of), target)
    };
    let alone =
        |name: &str, unit: &str, of: fn(&Run) -> f64, target| Figure::alone(name, unit, &column(&ours, of), target);
    // The targets are those of the embedded store.
    let target = |target| options.mongodb.is_none().then_some(target);
    Ok(vec![
        paired("events: sustained", "1/s", |run| run.per_second, target(Target::AtLeast(5000.0))),
        alone("events: CPU per event", "us", |run| run.cpu_us, target(Target::AtMost(100.0))),
        paired("events: p50 at 1,000/s", "ms", |run| run.p50_ms, None),
        paired("events: p99 at 1,000/s", "ms", |run| run.p99_ms, target(Target::AtMost(250.0))),
        alone("events: peak RSS", "MB", |run| run.peak_rss_mb, target(Target::AtMost(150.0))),
    ])
}

/// Makes events of many entities, of which some change their state.
struct Generator {
    states: Vec<u8>,
    random: u64,
    made: u64,
}

impl Generator {
    const fn new() -> Self {
        Self { states: Vec::new(), random: 0x9E37_79B9_7F4A_7C15, made: 0 }
    }

    fn next_random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// The next event, and whether it changes a state. The first events go round all entities.
    fn next(&mut self) -> Result<(Outgoing, bool)> {
        let (entity, changes) = if self.states.len() < ENTITIES {
            self.states.push(0);
            (self.states.len() - 1, false)
        } else {
            let entity = usize::try_from(self.next_random(ENTITIES as u64))?;
            (entity, self.next_random(CHANGES_ONE_IN) == 0)
        };
        if changes {
            let step = u8::try_from(1 + self.next_random(3))?;
            self.states[entity] = (self.states[entity] + step) % 4;
        }
        let state = self.states[entity];
        let (component, resource) = (entity % 100, entity / 100);
        let number = self.made;
        self.made += 1;
        let body = format!(
            r#"{{"connector":"nagios","connector_name":"poller1","event_type":"check","source_type":"resource","component":"host{component}.example.org","resource":"service{resource}","state":{state},"output":"{number} is the number of this event","perf_data":"time=0.{number}s;5;10;0;"}}"#
        );
        let key =
            RoutingKey::fit(format!("nagios.poller1.check.resource.host{component}/example/org.service{resource}"));
        Ok((Outgoing::json(topology::EVENTS, key, body.into_bytes().into()), changes))
    }

    fn take(&mut self, count: usize) -> Result<Vec<Outgoing>> {
        (0..count).map(|_| self.next().map(|(message, _)| message)).collect()
    }
}

fn publisher(amqp: &AmqpConfig) -> Result<Publisher> {
    let options = PublisherOptions { window: 1000, ..PublisherOptions::new("overstory-bench") };
    Ok(Publisher::start(amqp.clone(), options, Shutdown::new())?)
}

/// Publishes all of them as fast as they are confirmed.
async fn publish(publisher: &Publisher, mut messages: Vec<Outgoing>) -> Result<()> {
    while !messages.is_empty() {
        let rest = messages.split_off(messages.len().min(CHUNK));
        for outcome in publisher.publish_all(messages).await {
            outcome?;
        }
        messages = rest;
    }
    Ok(())
}

/// Publishes at the fixed rate; returns when the events that matter were published.
async fn publish_evenly(
    publisher: &Publisher,
    generator: &mut Generator,
    seconds: u64,
    only_changes: bool,
) -> Result<HashMap<u64, Instant>> {
    let per_tick = LATENCY_RATE * u64::try_from(LATENCY_TICK.as_millis())? / 1000;
    let mut published = HashMap::new();
    let mut ticks = tokio::time::interval(LATENCY_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..seconds * LATENCY_RATE / per_tick {
        ticks.tick().await;
        let mut messages = Vec::new();
        for _ in 0..per_tick {
            let number = generator.made;
            let (message, changes) = generator.next()?;
            if changes || !only_changes {
                published.insert(number, Instant::now());
            }
            messages.push(message);
        }
        let publisher = publisher.clone();
        sending.spawn(async move { publisher.publish_all(messages).await });
    }
    while let Some(outcomes) = sending.join_next().await {
        for outcome in outcomes? {
            outcome?;
        }
    }
    Ok(published)
}

/// The number in an output, wherever the JSON has it.
fn number_of(delivery: &Delivery) -> Option<u64> {
    let text = std::str::from_utf8(&delivery.body).ok()?;
    let (head, _) = text.rsplit_once(" is the number of this event")?;
    head.rsplit('"').next()?.parse().ok()
}

/// The latencies in milliseconds that half and all but one in a hundred stay below.
fn percentiles(mut latencies: Vec<f64>) -> Result<(f64, f64)> {
    ensure!(!latencies.is_empty(), "no latency was measured");
    latencies.sort_by(f64::total_cmp);
    Ok((latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]))
}

async fn measure_engines(setting: &Setting, options: &Options, amqp: &AmqpConfig, number: u32) -> Result<Run> {
    let prefix = prepare(amqp, options, number)?;
    let engines = Engines::start(&setting.executable, prefix.path())?;
    let publisher = publisher(amqp)?;
    let mut generator = Generator::new();
    engines.are_ready().await?;
    publish(&publisher, generator.take(ENTITIES)?).await?;
    engines.have_done(generator.made).await?;

    let count = usize::try_from(options.events)?;
    let messages = generator.take(count)?;
    let (cpu, started) = (process::cpu(engines.pid())?, Instant::now());
    publish(&publisher, messages).await?;
    engines.have_done(generator.made).await?;
    let (cpu, elapsed) = (process::cpu(engines.pid())? - cpu, started.elapsed());

    let mut alerts = fanout::subscribe(amqp, "overstory-bench", topology::ALERTS, "#").await?;
    let published = publish_evenly(&publisher, &mut generator, options.seconds, true);
    let mut arrived: HashMap<u64, Instant> = HashMap::new();
    let listen = async {
        loop {
            match alerts.next().await {
                Ok(notice) => arrived.extend(number_of(&notice).map(|number| (number, Instant::now()))),
                Err(error) => return error,
            }
        }
    };
    let published = tokio::select! {
        published = async {
            let published = published.await?;
            engines.have_done(generator_made(&published)).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, anyhow::Error>(published)
        } => published?,
        error = listen => return Err(error.into()),
    };
    let (p50_ms, p99_ms) = percentiles(latencies(&published, &arrived))?;
    let peak_rss_mb = megabytes(process::peak_rss(engines.pid())?);
    publisher.close(Duration::from_secs(5)).await?;
    #[expect(clippy::cast_precision_loss, reason = "counts of a run")]
    let events = count as f64;
    Ok(Run {
        per_second: events / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / events,
        p50_ms,
        p99_ms,
        peak_rss_mb,
    })
}

/// One more than the highest number: so many events have been made.
fn generator_made(published: &HashMap<u64, Instant>) -> u64 {
    published.keys().max().map_or(0, |number| number + 1)
}

fn latencies(published: &HashMap<u64, Instant>, arrived: &HashMap<u64, Instant>) -> Vec<f64> {
    let pairs = published.iter().filter_map(|(number, sent)| arrived.get(number).map(|arrived| (sent, arrived)));
    pairs.map(|(sent, arrived)| (*arrived - *sent).as_secs_f64() * 1000.0).collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a process")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

async fn measure_peer(options: &Options, amqp: &AmqpConfig) -> Result<Run> {
    let shutdown = Shutdown::new();
    let consumer_options = ConsumerOptions::new(topology::ENGINE_EVENTS, "peer");
    let mut consumer = Consumer::start(amqp.clone(), consumer_options, shutdown.clone());
    ensure!(matches!(consumer.next().await, Some(Consumed::Subscribed)), "the peer cannot subscribe");
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(u64, Instant)>(200_000);
    let peer = tokio::spawn(async move {
        while let Some(consumed) = consumer.next().await {
            let Consumed::Batch(batch) = consumed else { continue };
            let now = Instant::now();
            for number in batch.iter().filter_map(number_of) {
                sender.send((number, now)).await?;
            }
            if let Some(last) = batch.last() {
                consumer.ack_up_to(&last.tag).await?;
            }
        }
        consumer.close().await;
        Ok::<_, anyhow::Error>(())
    });
    let publisher = publisher(amqp)?;
    let mut generator = Generator::new();
    let messages = generator.take(usize::try_from(options.events)?)?;
    let started = Instant::now();
    publish(&publisher, messages).await?;
    let mut seen = 0;
    while seen < generator.made {
        receiver.recv().await.context("the peer ended")?;
        seen += 1;
    }
    let elapsed = started.elapsed();
    let published = publish_evenly(&publisher, &mut generator, options.seconds, false).await?;
    let mut arrived = HashMap::new();
    while arrived.len() < published.len() {
        let (number, at) = receiver.recv().await.context("the peer ended")?;
        arrived.insert(number, at);
    }
    let (p50_ms, p99_ms) = percentiles(latencies(&published, &arrived))?;
    publisher.close(Duration::from_secs(5)).await?;
    shutdown.request();
    peer.await??;
    Ok(Run { per_second: f64::from(options.events) / elapsed.as_secs_f64(), p50_ms, p99_ms, ..Run::default() })
}

/// A prefix with the shipped configuration.
fn prepare(amqp: &AmqpConfig, options: &Options, number: u32) -> Result<tempfile::TempDir> {
    let prefix = tempfile::tempdir()?;
    let root = prefix.path();
    for folder in ["etc/engines", "etc/secrets", "var/lib/store"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/engines");
    for file in fs::read_dir(shipped)? {
        let file = file?.path();
        fs::copy(&file, root.join("etc/engines").join(file.file_name().context("no name")?))?;
    }
    let broker = format!(
        "[broker]\nhost = {:?}\nport = {}\nvhost = {:?}\nuser = {:?}\n",
        amqp.host, amqp.port, amqp.vhost, amqp.user
    );
    fs::write(root.join("etc/amqp.conf"), broker)?;
    fs::write(root.join("etc/secrets/amqp"), &amqp.password)?;
    let store = match &options.mongodb {
        None => String::new(),
        Some(uri) => {
            fs::write(root.join("etc/secrets/mongodb-uri"), uri)?;
            let database = format!("bench_{}_{number}", std::process::id());
            format!("[store]\nkind = \"mongodb\"\n[mongodb]\ndatabase = {database:?}\n")
        }
    };
    fs::write(root.join("etc/store.conf"), store)?;
    Ok(prefix)
}

/// The process under test; killed when dropped.
struct Engines {
    child: Child,
    admin: u16,
}

impl Engines {
    fn start(executable: &Path, prefix: &Path) -> Result<Self> {
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new(fs::canonicalize(executable)?)
            .args(["amqp2engines", "--admin", &format!("127.0.0.1:{admin}")])
            .env("OVERSTORY_HOME", prefix)
            .stdin(Stdio::null())
            .stdout(fs::File::create(prefix.join("log"))?)
            .spawn()?;
        Ok(Self { child, admin })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin)).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    async fn are_ready(&self) -> Result<()> {
        self.until(async || Ok(self.page("/readyz").await.is_ok_and(|page| page.contains(" 200 ")))).await
    }

    /// Waits until so many events are in the store; the engines' own statistics count too, so it may be a few early.
    async fn have_done(&self, events: u64) -> Result<()> {
        const DONE: &str = "overstory_engines_events_total{outcome=\"done\",unit=\"Engine_events\"} ";
        self.until(async || {
            let page = self.page("/metrics").await?;
            let done = page.lines().find_map(|line| line.strip_prefix(DONE));
            Ok(done.and_then(|done| done.parse::<u64>().ok()).unwrap_or(0) >= events)
        })
        .await
    }

    async fn until(&self, condition: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !condition().await? {
            ensure!(started.elapsed() < DEADLINE, "the engines did not get there in {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The host connector next to collectd: CPU per tick and memory, the same plugins, interval and broker.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use overstory_amqp::{AmqpConfig, fanout, topology};
use overstory_testkit::broker::PrivateBroker;

use crate::Setting;
use crate::figure::{Figure, Target};
use crate::process;

const PEER: &str = "/usr/sbin/collectd";
const PEER_NAME: &str = "collectd 5.12";
/// Both read the host once a second, so that a run is short.
const INTERVAL_S: u64 = 1;
/// After its first message a process is given this long to settle.
const SETTLE: Duration = Duration::from_secs(5);
const FIRST_MESSAGE: Duration = Duration::from_secs(60);

/// How the connector is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How long each process is watched, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
}

struct Usage {
    cpu_us: f64,
    peak_rss_mb: f64,
    pss_mb: f64,
}

/// Runs both in turn and returns the figures.
pub(crate) fn run(setting: &Setting, options: &Options) -> Result<Vec<Figure>> {
    anyhow::ensure!(Path::new(PEER).exists(), "{PEER} is missing: overstory-bench --install-peers");
    let broker = PrivateBroker::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        ours.push(runtime.block_on(measure_ours(setting, &broker.vhost()?, options))?);
        peers.push(runtime.block_on(measure_peer(&broker.vhost()?, options))?);
    }
    let column = |usages: &[Usage], of: fn(&Usage) -> f64| usages.iter().map(of).collect::<Vec<_>>();
    let figure = |name: &str, unit: &str, of: fn(&Usage) -> f64, target| {
        Figure::paired(name, unit, &column(&ours, of), PEER_NAME, &column(&peers, of), target)
    };
    Ok(vec![
        figure("connector: CPU per tick", "us", |usage| usage.cpu_us, Some(Target::RatioAtMost(1.0))),
        figure("connector: peak RSS", "MB", |usage| usage.peak_rss_mb, None),
        figure("connector: PSS", "MB", |usage| usage.pss_mb, None),
    ])
}

async fn measure_ours(setting: &Setting, broker: &AmqpConfig, options: &Options) -> Result<Usage> {
    let home = tempfile::tempdir()?;
    let etc = home.path().join("etc");
    fs::create_dir_all(etc.join("secrets"))?;
    fs::write(etc.join("secrets/amqp"), &broker.password)?;
    let AmqpConfig { host, port, vhost, user, .. } = broker;
    fs::write(
        etc.join("amqp.conf"),
        format!("[broker]\nhost = {host:?}\nport = {port}\nvhost = {vhost:?}\nuser = {user:?}\n"),
    )?;
    let admin = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    fs::write(
        etc.join("collectd.conf"),
        format!("[connector]\ninterval_s = {INTERVAL_S}\nhostname = \"bench\"\n[admin]\nlisten = \"{admin}\"\n"),
    )?;
    let mut command = Command::new(fs::canonicalize(&setting.executable)?);
    command.arg("collectd").env("OVERSTORY_HOME", home.path());
    measure(command, broker, (topology::EVENTS, "collectd.#"), options).await
}

async fn measure_peer(broker: &AmqpConfig, options: &Options) -> Result<Usage> {
    let home = tempfile::tempdir()?;
    let config = home.path().join("collectd.conf");
    fs::write(&config, peer_config(home.path(), broker))?;
    let mut command = Command::new(PEER);
    command.arg("-f").arg("-C").arg(&config);
    measure(command, broker, ("amq.topic", "collectd.#"), options).await
}

/// The plugins that the connector covers, with what it shows of each.
fn peer_config(home: &Path, broker: &AmqpConfig) -> String {
    let AmqpConfig { host, port, vhost, user, password, .. } = broker;
    let home = home.display();
    format!(
        r#"Hostname "bench"
FQDNLookup false
BaseDir "{home}"
PIDFile "{home}/pid"
PluginDir "/usr/lib/collectd"
TypesDB "/usr/share/collectd/types.db"
Interval {INTERVAL_S}
LoadPlugin cpu
LoadPlugin memory
LoadPlugin swap
LoadPlugin load
LoadPlugin df
LoadPlugin disk
LoadPlugin interface
LoadPlugin uptime
LoadPlugin processes
LoadPlugin amqp
<Plugin cpu>
  ReportByCpu false
  ValuesPercentage true
</Plugin>
<Plugin memory>
  ValuesAbsolute true
  ValuesPercentage true
</Plugin>
<Plugin swap>
  ValuesAbsolute true
  ValuesPercentage true
</Plugin>
<Plugin df>
  FSType "/^(tmpfs|devtmpfs|proc|sysfs|cgroup2?|devpts|overlay)$/"
  IgnoreSelected true
  ValuesAbsolute true
  ValuesPercentage true
</Plugin>
<Plugin disk>
  Disk "/^(loop|ram)/"
  IgnoreSelected true
</Plugin>
<Plugin amqp>
  <Publish "bench">
    Host "{host}"
    Port "{port}"
    VHost "{vhost}"
    User "{user}"
    Password "{password}"
    Exchange "amq.topic"
    Format "JSON"
    StoreRates true
  </Publish>
</Plugin>
"#
    )
}

/// Starts a process, waits until its messages arrive, and watches it.
async fn measure(
    mut command: Command,
    broker: &AmqpConfig,
    (exchange, pattern): (&str, &str),
    options: &Options,
) -> Result<Usage> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = Watched(child.with_context(|| format!("cannot start {}", command.get_program().display()))?);
    let pid = child.0.id();
    tokio::time::timeout(FIRST_MESSAGE, first_message(broker, exchange, pattern))
        .await
        .with_context(|| format!("{} published nothing in {FIRST_MESSAGE:?}", command.get_program().display()))?;
    tokio::time::sleep(SETTLE).await;
    let (begin, cpu) = (Instant::now(), process::cpu(pid)?);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let spent = process::cpu(pid)?.saturating_sub(cpu).as_secs_f64();
    let ticks = begin.elapsed().as_secs_f64() / INTERVAL_S as f64;
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Usage {
        cpu_us: spent * 1e6 / ticks,
        peak_rss_mb: megabytes(process::peak_rss(pid)?),
        pss_mb: megabytes(process::pss(pid)?),
    })
}

/// Waits for one message; the exchange may be made by the one who publishes.
async fn first_message(broker: &AmqpConfig, exchange: &str, pattern: &str) {
    loop {
        if let Ok(mut tail) = fanout::subscribe(broker, "overstory-bench", exchange, pattern).await
            && tail.next().await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A process that is ended when it is no longer watched.
struct Watched(Child);

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

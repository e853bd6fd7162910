//! `dhtdump`: saves the data of one dht node to disk, as a process of its own (protocol §3.1, seed 000).
//!
//! It reads every channel by GetAll over a legacy connection, record by record, and never holds more of a channel than
//! a few batches. A file takes the place of the old one only after the node has said that the channel is complete.
//!
//! ```text
//! start ── random part of the period ──► cycle ──► wait: period from the cycle's start, at least min_wait ──► cycle …
//!                                         │ failed
//!                                         └──► wait: retry_wait ──► cycle
//! ```
//!
//! With `--oneshot` there is one cycle, at once, and the exit code tells how it went.

mod cycle;
mod progress;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use overstory_model::{Clock as _, SystemClock, Timestamp};
use overstory_node::app::{Flag, ToolContext, ToolProgram, run_tool};
use overstory_node::config::{Config, ConfigError};
use overstory_node::inspect::{DumpFacts, Facts, Finding, ToolInspect, Totals};
use overstory_node::stats::Fields;
use overstory_runtime::Shutdown;
use tokio::time::{Instant, sleep};

use crate::dump::{DataDir, DumpOptions};
use progress::Progress;

/// Runs `dhtdump`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    run_tool::<DhtDump>(args)
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node, its legacy port.
    pub node: SocketAddrV4,
    /// Where the files go: the node's own data directory.
    pub data_dir: PathBuf,
    /// From the start of one cycle to the start of the next.
    pub period: Duration,
    /// The least pause between two cycles.
    pub min_wait: Duration,
    /// The pause after a failed cycle.
    pub retry_wait: Duration,
    /// Whether files are written through the page cache.
    pub disable_direct_io: bool,
    /// Dump once and end.
    pub oneshot: bool,
}

impl Settings {
    fn read(config: &Config) -> Result<Self, ConfigError> {
        let (dht, dump) = (config.section("Dht"), config.section("Dump"));
        let address = dht.required("address", "an IPv4 address", |text| text.parse::<Ipv4Addr>().ok())?;
        let port = dht.required_number("port", 1..=u16::MAX)?;
        let seconds = |key, default, least| dump.number(key, default, least..=366 * 86_400).map(Duration::from_secs);
        Ok(Self {
            node: SocketAddrV4::new(address, port),
            data_dir: PathBuf::from(dump.text("data_dir").unwrap_or("data")),
            period: seconds("period_s", 14_400, 1)?,
            min_wait: seconds("min_wait_s", 60, 0)?,
            retry_wait: seconds("retry_wait_s", 30, 1)?,
            disable_direct_io: dump.flag("disable_direct_io", false)?,
            oneshot: config.flag(ONESHOT),
        })
    }

    /// What is really between two dumps, apart from the time that they take; nothing with `--oneshot`.
    fn between(&self) -> Option<Duration> {
        (!self.oneshot).then_some(self.period.max(self.min_wait))
    }
}

const ONESHOT: &str = "oneshot";

struct DhtDump;

impl ToolProgram for DhtDump {
    const NAME: &'static str = "dhtdump";
    const TYPE: &'static str = "dhtdump";
    const CRATES: &'static [&'static str] = &["overstory_dht"];
    const ABOUT: &'static str = "Saves the data of a dht node to disk, periodically";
    const FLAGS: &'static [Flag] =
        &[Flag { short: Some('o'), long: ONESHOT, help: "Dump once, at once, and end (0: everything is saved)" }];
    type Settings = Settings;
    type State = State;

    fn check(config: &Config) -> Result<Settings, ConfigError> {
        Settings::read(config)
    }

    fn open(settings: Settings, context: ToolContext) -> anyhow::Result<Rc<State>> {
        let dir = DataDir::open(&settings.data_dir);
        let dir = dir.with_context(|| format!("cannot use the data directory {}", settings.data_dir.display()))?;
        let progress = Progress::default();
        progress.dump.borrow_mut().last = last_dump(&dir);
        Ok(Rc::new(State { settings, dir, shutdown: context.shutdown, progress }))
    }

    async fn run(state: Rc<State>) -> anyhow::Result<()> {
        let shutdown = state.shutdown.clone();
        tokio::select! {
            done = state.work() => done,
            // What is not complete is thrown away with its temporary file.
            () = shutdown.requested() => Ok(()),
        }
    }
}

/// The program's state.
struct State {
    settings: Settings,
    dir: DataDir,
    shutdown: Shutdown,
    progress: Progress,
}

impl State {
    /// Dumps, for ever or once.
    async fn work(&self) -> anyhow::Result<()> {
        if self.settings.oneshot {
            return self.cycle().await;
        }
        let limit = u64::try_from(self.settings.period.as_millis()).unwrap_or(u64::MAX).max(1);
        // Many that were started together shall not read and write together.
        let mut wait = Duration::from_millis(rand::random_range(0..limit));
        loop {
            self.wait(wait).await;
            let started = Instant::now();
            wait = match self.cycle().await {
                Ok(()) => pause(&self.settings, started.elapsed()),
                Err(_) => self.settings.retry_wait,
            };
        }
    }

    async fn wait(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let at = now().plus(seconds);
        self.progress.dump.borrow_mut().next = Some(at);
        tracing::info!(target: "dhtdump.DumpCycle", at = %at.utc(), in_s = seconds, "next dump cycle");
        sleep(time).await;
    }

    /// One cycle, counted and logged.
    async fn cycle(&self) -> anyhow::Result<()> {
        {
            let mut dump = self.progress.dump.borrow_mut();
            (dump.running, dump.next) = (true, None);
        }
        let options = DumpOptions { disable_direct_io: self.settings.disable_direct_io };
        let done = cycle::run(self.settings.node, &self.dir, options, &self.progress).await;
        let mut dump = self.progress.dump.borrow_mut();
        dump.running = false;
        dump.last_ok = Some(done.is_ok());
        match done {
            Ok(()) => {
                (dump.last, dump.problem) = (Some(now()), None);
                Ok(())
            }
            Err(error) => {
                let cause = overstory_runtime::program::chain(error.as_ref());
                tracing::error!(target: "dhtdump.DumpCycle", %cause, "dump cycle failed");
                dump.problem = Some(cause);
                Err(error)
            }
        }
    }
}

/// How long to wait after a cycle that took `took`: it began a period before the next, but a pause there must be.
fn pause(settings: &Settings, took: Duration) -> Duration {
    settings.period.saturating_sub(took).max(settings.min_wait)
}

/// When the newest dump was written, as far as the files tell: not later than now.
pub(crate) fn last_dump(dir: &DataDir) -> Option<Timestamp> {
    let since = dir.newest()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp(i64::try_from(since.as_secs()).ok()?).min(now()))
}

fn now() -> Timestamp {
    SystemClock.now().secs()
}

impl ToolInspect for State {
    fn stats(&self, fields: &mut Fields) {
        self.progress.stats(fields);
    }

    fn totals(&self) -> Totals {
        self.progress.totals()
    }

    fn facts(&self) -> Facts {
        let period = self.settings.between();
        let dump = DumpFacts { period, ..self.progress.dump.borrow().clone() };
        Facts { channels: self.progress.channels(), dump: Some(dump), ..Facts::default() }
    }

    fn checks(&self, _: &mut Vec<Finding>) {}

    fn console(&self, lines: &mut Vec<String>) {
        lines.push(format!("node {}, data in {}", self.settings.node, self.dir.path().display()));
        if let Some(channel) = &*self.progress.current.borrow() {
            lines.push(format!("dumping {channel}"));
        }
    }
}

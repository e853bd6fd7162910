//! What nodes and tools have in common: from the arguments to the exit code.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use overstory_model::{Clock, SystemClock};
use overstory_runtime::admin::Ready;
use overstory_runtime::program::{self, Hangups};
use overstory_runtime::{Home, Shutdown, host, terminal};

use super::Flag;
use crate::cli::{self, Run, Wish};
use crate::config::sections::{OperationSection, ReportSection, StatsSection, directory_name};
use crate::config::{Config, ConfigError};
use crate::control::ControlSocket;
use crate::control::commands::{ProgramCommands, reopen};
use crate::logs::{LineFile, LogSettings, Logs};
use crate::pid::PidLock;
use crate::report::sender;
use crate::side::{Side, SideOptions};
use crate::watch::{Identity, Phase, Subject};

const VERSION_LOG: &str = "log/version.log";
/// The condition of `/readyz`.
const READY: &str = "data";

/// What the configuration says about everything that is not the program's own.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) crates: &'static [&'static str],
    pub(super) logs: LogSettings,
    pub(super) stats: StatsSection,
    pub(super) operation: OperationSection,
    pub(super) report: ReportSection,
    /// Keys that mean nothing, accepted because the command line says so.
    pub(super) unknown: Option<ConfigError>,
}

/// What a program calls itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) name: &'static str,
    pub(super) crates: &'static [&'static str],
    pub(super) about: &'static str,
    pub(super) flags: &'static [Flag],
}

/// Reads arguments and configuration; `own` reads what is the program's own.
///
/// # Errors
/// The code to end with, everything having been said: also when there is nothing more to do.
pub(super) fn plan<T>(
    about: About,
    args: Vec<OsString>,
    own: impl FnOnce(&Config) -> Result<T, ConfigError>,
) -> Result<(Plan, T), ExitCode> {
    let name = about.name;
    let run = match cli::parse(name, about.about, about.flags, args) {
        Wish::Run(run) => run,
        Wish::Print(text, code) => return Err(cli::print(&text, code)),
    };
    match read(about, &run, own) {
        Ok(_) if run.check_only => {
            println!("ok");
            Err(ExitCode::SUCCESS)
        }
        Ok(plan) => Ok(plan),
        Err(error) => {
            eprintln!("{name}: {error}");
            Err(if error.is_unreadable() { ExitCode::from(cli::UNREADABLE_CONFIG) } else { ExitCode::FAILURE })
        }
    }
}

fn read<T>(
    About { name, crates, .. }: About,
    run: &Run,
    own: impl FnOnce(&Config) -> Result<T, ConfigError>,
) -> Result<(Plan, T), ConfigError> {
    let config = run.load()?;
    // The buffers are written at once, so the time after which they would be has no meaning here.
    config.section("Performance").number("write_flush_ms", 250, 0..=u64::MAX)?;
    let mut plan = Plan {
        name,
        crates,
        logs: LogSettings::read(&config)?,
        stats: StatsSection::read(&config)?,
        operation: OperationSection::read(&config)?,
        report: ReportSection::read(&config, &directory_name(Path::new(".")))?,
        unknown: None,
    };
    let own = own(&config)?;
    match config.finish() {
        Err(error) if run.loose => plan.unknown = Some(error),
        other => other?,
    }
    Ok((plan, own))
}

/// A program that is being run: what it holds until its end.
pub(super) struct Life {
    pub(super) plan: Plan,
    pub(super) logs: Logs,
    pub(super) shutdown: Shutdown,
    pub(super) phase: Rc<Cell<Phase>>,
    pub(super) host: String,
    ready: Ready,
    stats_log: LineFile,
    admin: Option<TcpListener>,
}

/// What the program itself runs with, beside what everybody has.
pub(super) struct Running {
    pub(super) side: Side,
    with_console: bool,
    stats_interval: Duration,
    phase: Rc<Cell<Phase>>,
    ready: Ready,
}

/// Runs a program: `live` does everything between the logs and the end.
pub(super) fn run<F>(plan: Plan, live: F) -> ExitCode
where
    F: AsyncFnOnce(Life) -> anyhow::Result<()>,
{
    let name = plan.name;
    let ran = program::run_saving(async |shutdown, hangups| {
        // Held to the end, and given up last.
        let _pid = match plan.operation.pid_lock.as_deref().map(PidLock::acquire).transpose() {
            Ok(pid) => pid,
            Err(error) => return fail(name, &error),
        };
        let logs = match Logs::start(&plan.logs, name, plan.crates) {
            Ok(logs) => logs,
            Err(error) => return fail(name, &error),
        };
        log_panics();
        let code = match in_logs(plan, logs.clone(), shutdown, hangups, live).await {
            Ok(()) => {
                tracing::info!(target: "node.main", "Event loop exited");
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!(target: "node.main", fatal = true, "{error:#}");
                ExitCode::FAILURE
            }
        };
        logs.flush();
        code
    });
    ran.unwrap_or_else(|error| fail(name, &error))
}

fn fail(name: &str, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{name}: {error}");
    ExitCode::FAILURE
}

async fn in_logs<F>(plan: Plan, logs: Logs, shutdown: Shutdown, hangups: Hangups, live: F) -> anyhow::Result<()>
where
    F: AsyncFnOnce(Life) -> anyhow::Result<()>,
{
    if let Some(unknown) = &plan.unknown {
        unknown.to_string().lines().for_each(|line| tracing::warn!(target: "node.config", "{line}"));
    }
    if plan.operation.version_log {
        let text = cli::build_info(plan.name);
        let file = logs.line_file(Path::new(VERSION_LOG)).context("cannot open the version log")?;
        file.write(SystemClock.now(), &format!("Info [{}.version] - {}", plan.name, text.trim_end()));
    }
    let stats_log = logs.line_file(&plan.stats.file).context("cannot open stats.log")?;
    let admin = plan
        .operation
        .admin
        .map(|address| TcpListener::bind(address).with_context(|| format!("cannot listen on {address} (admin)")));
    let admin = admin.transpose()?;
    if let Some(address) = admin.as_ref().and_then(|listener| listener.local_addr().ok()) {
        tracing::info!(target: "node.main", %address, "admin listener");
    }
    let socket = plan.operation.socket.as_deref().map(|path| ControlSocket::bind(path, plan.operation.socket_mode));
    let socket = socket.transpose()?;
    let host = host::name().unwrap_or_else(|error| {
        tracing::warn!(target: "node.main", %error, "reporting as localhost");
        "localhost".to_owned()
    });
    let commands = ProgramCommands { name: plan.name, logs: logs.clone() };
    let life = Life {
        plan,
        logs: logs.clone(),
        shutdown,
        phase: Rc::default(),
        host,
        ready: Ready::new(&[READY]),
        stats_log,
        admin,
    };
    let serving = async {
        if let Some(socket) = socket {
            socket.serve(commands).await;
        }
        never().await
    };
    tokio::select! {
        ended = live(life) => ended,
        never = serving => match never {},
        never = reopen_when_told(&logs, hangups) => match never {},
    }
}

async fn reopen_when_told(logs: &Logs, mut hangups: Hangups) -> Infallible {
    loop {
        hangups.next().await;
        match reopen(logs, None).await {
            Ok(()) => tracing::info!(target: "node.main", "log files reopened"),
            Err(problem) => tracing::error!(target: "node.main", problem, "cannot reopen log files"),
        }
    }
}

/// Does not end.
pub(super) async fn never() -> Infallible {
    std::future::pending().await
}

impl Life {
    /// Starts the second thread.
    pub(super) fn start(&mut self, identity: Identity) -> anyhow::Result<Running> {
        let home = Home::find();
        let with_console = self.plan.operation.console && terminal::stdout_is_terminal();
        let side = Side::start(SideOptions {
            identity: Arc::new(identity),
            logs: self.logs.clone(),
            stats_log: self.stats_log.clone(),
            admin: self.admin.take(),
            broker: sender::broker(&self.plan.report, &home),
            report: self.plan.report.clone(),
            home,
            with_console,
            ready: self.ready.clone(),
            shutdown: self.shutdown.clone(),
        })
        .context("cannot start a thread")?;
        let (phase, stats_interval) = (Rc::clone(&self.phase), self.plan.stats.interval);
        Ok(Running { side, with_console, stats_interval, phase, ready: self.ready.clone() })
    }
}

impl Running {
    /// Says that the program does its work from now on.
    pub(super) fn begin(&self) {
        self.phase.set(Phase::Running);
        self.ready.set(READY, true);
    }

    /// Hands over a snapshot each second, and a line of `stats.log` at each multiple of its interval.
    pub(super) async fn watch(&self, subject: &mut impl Subject) -> Infallible {
        let interval_s = i64::try_from(self.stats_interval.as_secs()).unwrap_or(30).max(1);
        let mut last = SystemClock.now().secs().0.div_euclid(interval_s);
        loop {
            let at = SystemClock.now();
            let mut snapshot = subject.snapshot(at, self.with_console);
            snapshot.phase = self.phase.get();
            self.side.show(snapshot);
            let current = at.secs().0.div_euclid(interval_s);
            if current != last {
                last = current;
                self.side.interval(subject.interval(at).await);
            }
            let into_second = u64::try_from(SystemClock.now().0.rem_euclid(1000)).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(1000_u64.saturating_sub(into_second).max(1))).await;
        }
    }

    /// Hands over the last figures.
    pub(super) async fn last(&self, subject: &mut impl Subject, with_line: bool) {
        let at = SystemClock.now();
        if with_line {
            self.side.interval(subject.interval(at).await);
        }
        let mut snapshot = subject.snapshot(at, self.with_console);
        snapshot.phase = self.phase.get();
        self.side.show(snapshot);
    }

    /// Tells how it ended and waits, a bounded time, until everybody knows.
    pub(super) async fn end(self, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        let problem = ended.as_ref().err().map(|error| format!("{error:#}"));
        self.side.finish(problem).await;
        ended
    }
}

/// A panic is a defect: where it was goes to the log as well.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(target: "node.main", fatal = true, "{panic}");
        before(panic);
    }));
}

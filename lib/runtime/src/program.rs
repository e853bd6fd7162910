//! The life of a program: runtime, signals, drain, exit code.

#![allow(unsafe_code, reason = "restoring SIGPIPE needs sigaction, and no Rust handler is installed by it")]

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::signal::unix::{SignalKind, signal as listen};

use crate::logging;
use crate::shutdown::Shutdown;

/// After a request to stop a program ends by itself within this time or is ended.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// How many threads run a program's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// One: the least memory.
    CurrentThread,
    /// This many.
    MultiThread(usize),
}

/// What a program's body returns; any error type of the libraries fits.
pub type BodyResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs a long-lived program until its body returns.
///
/// SIGTERM and SIGINT ask the body to stop; a second signal, or [`DRAIN_DEADLINE`], ends the process with code 1. Below
/// supervisord the program also ends when supervisord dies, so that no orphan is left.
pub fn run<F, Fut>(name: &'static str, flavor: Flavor, body: F) -> ExitCode
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = BodyResult>,
{
    logging::init_program();
    die_with_supervisor();
    let runtime = match build_runtime(flavor) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let shutdown = Shutdown::new();
    let code = runtime.block_on(async {
        if let Err(error) = watch_signals(shutdown.clone()) {
            tracing::error!(%error, "cannot install signal handlers");
            return ExitCode::FAILURE;
        }
        match body(shutdown).await {
            Ok(()) => {
                tracing::info!(program = name, "stopped");
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!(program = name, error = %chain(error.as_ref()), "failed");
                ExitCode::FAILURE
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Runs a program that owns data and saves it when it ends: on one thread, on which tasks that cannot leave it may be
/// spawned, logs being its own affair.
///
/// SIGTERM, SIGINT and SIGQUIT ask the body to stop. It may then take as long as its data needs: neither a deadline nor
/// a further signal ends it, only SIGKILL does. The body says with which code the process ends. SIGHUP, SIGUSR1 and SIGUSR2
/// do nothing but tell [`Hangups`]: whoever rotates logs sends one of them. Below supervisord the program stops when supervisord dies.
///
/// # Errors
/// No runtime can be built, or the signals cannot be received.
pub fn run_saving<F, Fut>(body: F) -> std::io::Result<ExitCode>
where
    F: FnOnce(Shutdown, Hangups) -> Fut,
    Fut: Future<Output = ExitCode>,
{
    // A local runtime costs a request a tenth less than a `LocalSet` in another one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let code = runtime.block_on(async {
        let shutdown = Shutdown::new();
        stop_when_asked(shutdown.clone())?;
        let kinds = [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()];
        let [hangup, first, second] = kinds.map(listen);
        let hangups = Hangups { signals: [hangup?, first?, second?] };
        die_with_supervisor();
        Ok(body(shutdown, hangups).await)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Tells when a signal came by which logs are reopened.
#[derive(Debug)]
pub struct Hangups {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Hangups {
    /// Waits for the next one. Can be given up and called again.
    pub async fn next(&mut self) {
        // One that cannot come any more is never ready.
        std::future::poll_fn(|context| {
            let came = |signal: &mut tokio::signal::unix::Signal| signal.poll_recv(context) == Poll::Ready(Some(()));
            if self.signals.iter_mut().any(came) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Runs the asynchronous part of a command on one thread; Ctrl-C ends it as the system does by default.
///
/// # Errors
/// What `body` returns, or that no runtime could be built.
pub fn block_on<T, E>(body: impl Future<Output = Result<T, E>>) -> Result<T, E>
where
    E: From<std::io::Error>,
{
    build_runtime(Flavor::CurrentThread)?.block_on(body)
}

/// Waits until the user interrupts a command (Ctrl-C) or the system asks it to end.
///
/// # Errors
/// When the signals cannot be received.
pub async fn interrupted() -> std::io::Result<()> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Makes a command end quietly when the reader of its output goes away, as others do.
pub fn end_quietly_on_closed_pipe() {
    // SAFETY: SIG_DFL installs no handler; nothing of ours relies on SIGPIPE being ignored in a command.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// The arguments of this process, its name first.
#[must_use]
pub fn arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// Reads a variable of the environment; empty counts as absent.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An error with all its causes in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn build_runtime(flavor: Flavor) -> std::io::Result<tokio::runtime::Runtime> {
    match flavor {
        Flavor::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Flavor::MultiThread(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads.max(1));
            builder
        }
    }
    .enable_all()
    .build()
}

fn die_with_supervisor() {
    if std::env::var_os("SUPERVISOR_ENABLED").is_some()
        && let Err(errno) = prctl::set_pdeathsig(Signal::SIGTERM)
    {
        tracing::warn!(%errno, "would outlive supervisord");
    }
}

fn stop_when_asked(shutdown: Shutdown) -> std::io::Result<()> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
            }
            if shutdown.is_requested() {
                tracing::warn!("stopping already, data is being saved; only a kill ends it sooner, and loses data");
            }
            shutdown.request();
        }
    });
    Ok(())
}

fn watch_signals(shutdown: Shutdown) -> std::io::Result<()> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.request();
        tokio::select! {
            _ = terminate.recv() => tracing::error!("second signal, ending at once"),
            _ = interrupt.recv() => tracing::error!("second signal, ending at once"),
            () = tokio::time::sleep(DRAIN_DEADLINE) => tracing::error!("still busy at the deadline, ending"),
        }
        std::process::exit(1);
    });
    Ok(())
}

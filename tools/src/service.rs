//! `service`: one supervised service, or a group of them, at a time.
//!
//! Exit codes: 0 running or done, 1 failed, 2 wrong usage, 3 stopped, 4 unknown.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use overstory_runtime::{Home, program};
use overstory_supervisor::services::{ActionOutcome, Done, Failure, ProcessStatus, Services};
use overstory_supervisor::{ProcessDef, Target, privileges};

use crate::hypcontrol::check;

mod logs;
pub(crate) mod text;

/// Exit code of a service that is stopped.
const STOPPED: u8 = 3;
/// Exit code for a service that does not exist, or whose state cannot be found out.
const UNKNOWN: u8 = 4;

/// Controls the services that supervisord runs.
#[derive(Debug, Parser)]
#[command(name = "service", version, arg_required_else_help = true)]
#[command(
    after_help = "NAME is a service, SERVICE:PROCESS, a beginning followed by *, or a file of etc/supervisord.d.\n\
    Exit codes: 0 running or done, 1 failed, 2 wrong usage, 3 stopped, 4 unknown."
)]
struct Args {
    /// The service
    #[arg(required_unless_present = "status_all")]
    name: Option<String>,
    /// What to do with it
    #[arg(value_enum, required_unless_present = "status_all")]
    action: Option<Action>,
    /// Shows the state of every service
    #[arg(long, conflicts_with_all = ["name", "action"])]
    status_all: bool,
    /// Writes states as JSON
    #[arg(long)]
    json: bool,
    /// With logs: shows what is added until interrupted
    #[arg(short, long)]
    follow: bool,
    /// With logs: how many of the last lines are shown
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Starts it and waits until it stays up
    Start,
    /// Stops it and waits until it has ended
    Stop,
    /// Stops and starts it; a changed configuration is applied
    Restart,
    /// Shows its state
    Status,
    /// Shows the end of its log
    Logs,
    /// Starts every service of a pattern
    Mstart,
    /// Stops every service of a pattern
    Mstop,
    /// Restarts every service of a pattern
    Mrestart,
}

/// Runs `service`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    match Args::try_parse_from(args) {
        Ok(args) => execute(&args, &Home::find(), &mut io::stdout().lock()),
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}

fn execute(args: &Args, home: &Home, out: &mut impl Write) -> ExitCode {
    if let Err(error) = privileges::become_owner(home.root()) {
        eprintln!("service: no installation at {}: {error}", home.root().display());
        return ExitCode::from(UNKNOWN);
    }
    let services = Services::open(home.root());
    for problem in &services.catalogue().problems {
        eprintln!("service: {problem}");
    }
    let outcome = program::block_on(async { perform(args, &services, out).await });
    outcome.unwrap_or_else(|error: anyhow::Error| {
        eprintln!("service: {}", program::chain(error.as_ref()));
        let asked_only = args.status_all || args.action == Some(Action::Status);
        ExitCode::from(if asked_only { UNKNOWN } else { 1 })
    })
}

async fn perform(args: &Args, services: &Services, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (Some(name), Some(action)) = (&args.name, args.action) else {
        show(&services.list().await?, args.json, out)?;
        // A list that may lack a service must not look like a whole one.
        let is_whole = services.catalogue().problems.is_empty();
        return Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let targets = services.catalogue().resolve(name);
    if targets.is_empty() {
        eprintln!("service: unknown service: {name}");
        let known: Vec<_> = services.catalogue().services().map(|s| s.name.as_str()).collect();
        eprintln!("known services: {}", known.join(", "));
        return Ok(ExitCode::from(UNKNOWN));
    }
    match action {
        Action::Status => {
            let all = services.status(&targets).await?;
            show(&all, args.json, out)?;
            Ok(status_code(&all))
        }
        Action::Start | Action::Mstart => {
            let refused = refused(&targets, Before::Start, services).await?;
            if !refused.is_empty() {
                return report(&refused, false, services, args.json, out);
            }
            let outcomes = services.start(&targets).await?;
            report(&outcomes, false, services, args.json, out)
        }
        Action::Stop | Action::Mstop => {
            let outcomes = services.stop(&targets).await?;
            report(&outcomes, false, services, args.json, out)
        }
        Action::Restart | Action::Mrestart => {
            let refused = refused(&targets, Before::Restart, services).await?;
            if !refused.is_empty() {
                return report(&refused, true, services, args.json, out);
            }
            let outcomes = services.restart(&targets).await?;
            report(&outcomes, true, services, args.json, out)
        }
        Action::Logs => show_logs(&targets, args, out).await,
    }
}

/// Says what is to be done when the configurations are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Start,
    Restart,
}

/// Lets the programs that are to be started check their configurations: the failures of those that refuse, upon which
/// nothing is started or stopped. What runs is not asked before a start, which leaves it as it is.
async fn refused(targets: &[Target<'_>], before: Before, services: &Services) -> anyhow::Result<Vec<ActionOutcome>> {
    let infos = services.infos().await?;
    let mut outcomes = Vec::new();
    for target in targets {
        let runs = |process: &&ProcessDef| infos.iter().any(|i| i.name == process.name && i.state.has_process());
        if before == Before::Start && target.processes.iter().all(runs) {
            continue;
        }
        let said = check::refusals(services, target.service).await;
        if said.is_empty() {
            continue;
        }
        let done = if before == Before::Start { "nothing was started" } else { "nothing was stopped" };
        let reason = format!("{}; {done}", said.join("; "));
        outcomes.extend(target.processes.iter().map(|process| ActionOutcome {
            name: process.name.clone(),
            result: Err(Failure {
                reason: reason.clone(),
                exit: None,
                log: process.stdout_log.clone(),
                last_lines: Vec::new(),
            }),
            note: None,
        }));
    }
    Ok(outcomes)
}

fn show(all: &[ProcessStatus], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(all).map_err(io::Error::other)?);
    }
    let width = all.iter().map(|s| s.name.to_string().len()).max().unwrap_or(0).max(24);
    for status in all {
        writeln!(out, "{}", text::status_line(status, width))?;
    }
    Ok(())
}

/// 0 when all run, 1 when one failed, 3 when one is stopped.
fn status_code(all: &[ProcessStatus]) -> ExitCode {
    if all.iter().all(|s| s.state.is_up()) {
        ExitCode::SUCCESS
    } else if all.iter().any(ProcessStatus::is_failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::from(STOPPED)
    }
}

fn report(
    outcomes: &[ActionOutcome],
    restarted: bool,
    services: &Services,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    if json {
        writeln!(out, "{}", serde_json::to_string(outcomes)?)?;
    }
    for outcome in outcomes {
        let name = &outcome.name;
        match &outcome.result {
            Ok(_) if json => {}
            Ok(Done::Started) if restarted => writeln!(out, "{name}: restarted")?,
            Ok(done) => writeln!(out, "{name}: {}", text::done(*done))?,
            Err(failure) => eprint!("{}", text::failure(&name.to_string(), failure, services.layout())),
        }
        if let Some(note) = &outcome.note {
            eprintln!("{name}: {note}");
        }
    }
    let failed = outcomes.iter().any(|outcome| outcome.result.is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn show_logs(targets: &[Target<'_>], args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let processes = targets.iter().flat_map(|t| t.processes.iter());
    let logs: Vec<_> = processes.filter_map(|p| Some((p.name.name.clone(), p.stdout_log.clone()?))).collect();
    if logs.is_empty() {
        eprintln!("service: it has no log: its section has no stdout_logfile");
        return Ok(ExitCode::FAILURE);
    }
    logs::show(&logs, args.lines, args.follow, out).await?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_that_of_the_original() {
        for action in ["start", "stop", "restart", "status", "mstart", "mstop", "mrestart"] {
            assert!(parse(&format!("service amqp2engines* {action}")).is_ok(), "{action}");
        }
        let logs = parse("service web logs -f -n 3").unwrap();
        assert!(logs.follow && logs.lines == 3);
        assert!(parse("service --status-all").unwrap().status_all);
        assert!(parse("service web").is_err());
        assert!(parse("service web dance").is_err());
    }
}

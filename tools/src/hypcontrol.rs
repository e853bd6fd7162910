//! `hypcontrol`: the whole stack, section by section, in order.
//!
//! Exit codes: 0 done or everything ready, 1 failed, 2 wrong usage, 3 stopped (status), 130 interrupted.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Parser, Subcommand};
use overstory_runtime::{Home, program, terminal};
use overstory_supervisor::lock;
use overstory_supervisor::process_table::Stray;
use overstory_supervisor::{Services, privileges};

pub(crate) mod check;
mod plan;
mod report;
mod start;
mod status;
mod stop;
mod strays;

use check::{Depth, Finding, Level};
use plan::{Plan, StackConfig};
use report::{Reporter, Style};
use status::StackStatus;
use stop::Outcome;

/// Exit code of a command that the user interrupted.
const INTERRUPTED: u8 = 130;

/// Starts, stops and watches the whole stack: the sections of etc/hypcontrol.conf in their order.
#[derive(Debug, Parser)]
#[command(name = "hypcontrol", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, or everything ready; 1 failed; 2 wrong usage; 3 stopped (status); 130 interrupted."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Starts every service, each section ready before the next; what runs already is verified
    Start(ActionArgs),
    /// Stops every service in the reverse order, and supervisord
    Stop(ActionArgs),
    /// Stops and starts
    Restart(ActionArgs),
    /// Shows every service and whether it is ready
    Status(OutputArgs),
    /// Looks for what would make a start fail
    Check(OutputArgs),
    /// Ends what a dead supervisord left behind
    Reap(OutputArgs),
}

#[derive(Debug, Clone, Copy, ClapArgs)]
struct ActionArgs {
    /// Writes one JSON object per transition and a table at the end
    #[arg(long)]
    json: bool,
    /// Does not wait until services are ready, or have ended
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
struct OutputArgs {
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    const fn json(&self) -> bool {
        match self {
            Self::Start(args) | Self::Stop(args) | Self::Restart(args) => args.json,
            Self::Status(args) | Self::Check(args) | Self::Reap(args) => args.json,
        }
    }
}

/// Runs `hypcontrol`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    match Args::try_parse_from(args) {
        Ok(args) => execute(&args.command, &Home::find()),
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}

fn execute(command: &Command, home: &Home) -> ExitCode {
    if let Err(error) = privileges::become_owner(home.root()) {
        eprintln!("hypcontrol: no installation at {}: {error}", home.root().display());
        return ExitCode::FAILURE;
    }
    let services = Services::open(home.root());
    let style = match (command.json(), terminal::stdout_is_terminal()) {
        (true, _) => Style::Json,
        (false, true) => Style::Terminal,
        (false, false) => Style::Plain,
    };
    let outcome = program::block_on(async {
        tokio::select! {
            outcome = perform(command, home, &services, style) => outcome,
            interrupted = program::interrupted() => {
                interrupted?;
                eprintln!("\ninterrupted: services stay as they are; `hypcontrol status` shows them");
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    });
    outcome.unwrap_or_else(|error: anyhow::Error| {
        eprintln!("hypcontrol: {}", program::chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

async fn perform(command: &Command, home: &Home, services: &Services, style: Style) -> anyhow::Result<ExitCode> {
    let config = StackConfig::load(home);
    let plan = config.map_err(anyhow::Error::from);
    let plan = plan.and_then(|config| Ok(Plan::new(&config, services.catalogue())?));
    if plan.is_err() || matches!(command, Command::Status(_)) {
        // A service that the plan misses may be defined in a file that cannot be read.
        services.catalogue().problems.iter().for_each(|problem| eprintln!("hypcontrol: {problem}"));
    }
    let stack = Stack { services, style };
    match command {
        Command::Start(args) => {
            let _held = stack.lock().await?;
            stack.start(&plan?, *args).await
        }
        Command::Stop(args) => {
            let _held = stack.lock().await?;
            let outcome = stack.stop(&plan_to_stop(plan), *args).await?;
            Ok(if outcome == Outcome::Well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Restart(args) => {
            let _held = stack.lock().await?;
            let plan = plan?;
            stack.restart(&plan, *args).await
        }
        Command::Status(args) => match plan {
            Ok(plan) => stack.status(&plan, args.json).await,
            Err(error) => {
                // What runs is shown all the same.
                stack.status(&Plan { sections: Vec::new() }, args.json).await?;
                Err(error)
            }
        },
        Command::Check(args) => stack.check(&plan?, args.json).await,
        Command::Reap(args) => {
            let _held = stack.lock().await?;
            stack.reap(args.json).await
        }
    }
}

/// Stopping must not depend on a configuration that somebody broke: without a plan everything is stopped at once.
fn plan_to_stop(plan: anyhow::Result<Plan<'_>>) -> Plan<'_> {
    plan.unwrap_or_else(|error| {
        eprintln!("hypcontrol: {}; stopping everything at once", program::chain(error.as_ref()));
        Plan { sections: Vec::new() }
    })
}

/// Is the stack of a prefix and the way its progress is shown.
struct Stack<'a> {
    services: &'a Services,
    style: Style,
}

impl Stack<'_> {
    async fn lock(&self) -> anyhow::Result<overstory_runtime::lock::FileLock> {
        let path = self.services.layout().stack_lock();
        let tell = |holder: &str| eprintln!("hypcontrol: waiting for {holder}");
        lock::acquire(&path, tell).await.with_context(|| path.display().to_string())
    }

    fn reporter(&self, plan: &Plan<'_>) -> Reporter<io::Stdout> {
        let mut reporter = Reporter::new(io::stdout(), self.style, self.services.layout());
        plan.nodes().for_each(|(section, node)| reporter.add(section, &node.service.name));
        reporter
    }

    async fn start(&self, plan: &Plan<'_>, args: ActionArgs) -> anyhow::Result<ExitCode> {
        let mut reporter = self.reporter(plan);
        for stray in strays::reap(self.services).await? {
            reporter.say(&format!("ended {}", strays::describe(&stray)))?;
        }
        let findings = check::check(self.services, plan, Depth::Start).await?;
        if self.show_findings(&findings, &mut reporter)? {
            reporter.say("nothing was started; `hypcontrol check` looks again")?;
            return Ok(ExitCode::FAILURE);
        }
        self.services.ensure_up().await?;
        if args.no_wait {
            start::start_without_waiting(self.services, plan, &mut reporter).await?;
        } else {
            start::start(self.services, plan, &mut reporter).await?;
        }
        let failed = reporter.has_failed();
        let count = plan.nodes().count();
        reporter.finish(&match (failed, args.no_wait) {
            (true, _) => "not everything is ready".to_owned(),
            (false, true) => format!("{count} services told to start"),
            (false, false) => format!("all {count} services are ready"),
        })?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Stops and starts, unless the start would fail: then everything stays as it is.
    async fn restart(&self, plan: &Plan<'_>, args: ActionArgs) -> anyhow::Result<ExitCode> {
        let mut reporter = self.reporter(plan);
        for stray in strays::reap(self.services).await? {
            reporter.say(&format!("ended {}", strays::describe(&stray)))?;
        }
        let findings = check::check(self.services, plan, Depth::Restart).await?;
        if findings.iter().any(|finding| finding.level == Level::Failure) {
            self.show_findings(&findings, &mut reporter)?;
            reporter.say("nothing was stopped; `hypcontrol check` looks again")?;
            return Ok(ExitCode::FAILURE);
        }
        let stopped = self.stop(plan, ActionArgs { no_wait: false, ..args }).await?;
        if stopped == Outcome::Incomplete {
            return Ok(ExitCode::FAILURE);
        }
        // What ended badly is down all the same, and its failure has been told.
        let started = self.start(plan, args).await?;
        Ok(if stopped == Outcome::Well { started } else { ExitCode::FAILURE })
    }

    /// Shows warnings and failures; whether there are failures.
    fn show_findings(&self, findings: &[Finding], reporter: &mut Reporter<impl Write>) -> io::Result<bool> {
        for finding in findings.iter().filter(|finding| finding.level > Level::Ok) {
            reporter.say(&finding.text())?;
        }
        Ok(findings.iter().any(|finding| finding.level == Level::Failure))
    }

    async fn stop(&self, plan: &Plan<'_>, args: ActionArgs) -> anyhow::Result<Outcome> {
        let mut reporter = self.reporter(plan);
        if args.no_wait {
            stop::stop_without_waiting(self.services).await?;
            reporter.finish("supervisord told to stop everything")?;
            return Ok(Outcome::Well);
        }
        let outcome = stop::stop(self.services, plan, &mut reporter).await?;
        if outcome != Outcome::Incomplete {
            for stray in strays::reap(self.services).await? {
                reporter.say(&format!("ended {}", strays::describe(&stray)))?;
            }
        }
        reporter.finish(match outcome {
            Outcome::Well => "everything is stopped",
            Outcome::Badly => "everything is stopped, and not all of it ended well",
            Outcome::Incomplete => "not everything has ended",
        })?;
        Ok(outcome)
    }

    async fn status(&self, plan: &Plan<'_>, json: bool) -> anyhow::Result<ExitCode> {
        let status = StackStatus::take(self.services, plan).await?;
        let mut out = io::stdout();
        if json {
            writeln!(out, "{}", serde_json::to_string(&status)?)?;
        } else {
            status.write(&mut out)?;
        }
        Ok(ExitCode::from(status.exit_code()))
    }

    async fn check(&self, plan: &Plan<'_>, json: bool) -> anyhow::Result<ExitCode> {
        let mut findings = check::check(self.services, plan, Depth::Full).await?;
        let strays = strays::find(self.services).await?;
        findings.extend(strays.iter().map(|stray| Finding {
            level: Level::Warning,
            subject: "strays",
            message: strays::describe(stray),
            remedy: "hypcontrol reap; a start does it, too".to_owned(),
        }));
        let mut out = io::stdout();
        if json {
            writeln!(out, "{}", serde_json::to_string(&findings)?)?;
        } else {
            findings.iter().try_for_each(|finding| writeln!(out, "{}", finding.text()))?;
        }
        let failed = findings.iter().any(|finding| finding.level == Level::Failure);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn reap(&self, json: bool) -> anyhow::Result<ExitCode> {
        let ended: Vec<Stray> = strays::reap(self.services).await?;
        let mut out = io::stdout();
        if json {
            writeln!(out, "{}", serde_json::to_string(&ended)?)?;
        } else if ended.is_empty() {
            writeln!(out, "there are no strays")?;
        } else {
            ended.iter().try_for_each(|stray| writeln!(out, "ended {}", strays::describe(stray)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_that_of_the_original() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        for action in ["start", "stop", "restart", "status"] {
            assert!(parse(&format!("hypcontrol {action}")).is_ok(), "{action}");
            assert!(parse(&format!("hypcontrol {action} --json")).unwrap().command.json());
        }
        assert!(parse("hypcontrol start --no-wait").is_ok());
        assert!(parse("hypcontrol status --no-wait").is_err());
        assert!(parse("hypcontrol").is_err());
        assert!(parse("hypcontrol dance").is_err());
    }
}

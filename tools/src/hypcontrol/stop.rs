//! Stopping the stack: the reverse of starting it, then supervisord, then whatever is left.

use std::io::Write;
use std::time::Duration;

use overstory_supervisor::control::{Pace, Stopped, Stopper};
use overstory_supervisor::services::{Failure, Services};
use overstory_supervisor::{ProcessDef, ProcessState};

use super::plan::Plan;
use super::report::{Reporter, Stage};
use crate::service::text;

/// How long supervisord may take to end when nothing runs below it any more; it takes up to a second per group.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(60);

/// Says how stopping went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Everything has ended as it should.
    Well,
    /// Everything has ended, and something with an error.
    Badly,
    /// Something still runs.
    Incomplete,
}

/// Stops every service of a plan, what else supervisord runs, and supervisord. Failures are in the reporter.
///
/// # Errors
/// When supervisord does not answer or nothing can be written.
pub(crate) async fn stop(
    services: &Services,
    plan: &Plan<'_>,
    reporter: &mut Reporter<impl Write>,
) -> anyhow::Result<Outcome> {
    if services.infos().await?.is_empty() && is_down(services).await? {
        for (_, node) in plan.nodes() {
            reporter.stage(&node.service.name, Stage::Stopped, "")?;
        }
        return Ok(Outcome::Well);
    }
    // Somebody may have started a service that no section names; it may use those that do.
    let planned: Vec<_> = plan.processes().map(|p| &p.name).collect();
    let others: Vec<_> = services.catalogue().services().flat_map(|s| &s.processes).collect();
    let others: Vec<_> = others.into_iter().filter(|p| !planned.contains(&&p.name)).collect();
    let others: Vec<_> = others.iter().map(|p| (None, *p)).collect();
    let mut outcome = stop_level(services, &others, reporter).await?;
    for section in plan.sections.iter().rev() {
        for level in section.stop_levels() {
            let level: Vec<_> = level
                .iter()
                .flat_map(|node| node.processes.iter().map(|p| (Some(node.service.name.as_str()), *p)))
                .collect();
            outcome = outcome.max(stop_level(services, &level, reporter).await?);
        }
    }
    if outcome == Outcome::Incomplete {
        return Ok(outcome);
    }
    if let Some(daemon) = services.daemon() {
        daemon.shut_down(SHUTDOWN_LIMIT).await?;
    }
    Ok(outcome)
}

/// Asks supervisord to stop everything and to end, and does not wait.
///
/// # Errors
/// When supervisord does not answer.
pub(crate) async fn stop_without_waiting(services: &Services) -> anyhow::Result<()> {
    match services.supervisor().shutdown().await {
        Err(error) if error.is_not_running() => Ok(()),
        other => Ok(other?),
    }
}

async fn is_down(services: &Services) -> anyhow::Result<bool> {
    match services.supervisor().state().await {
        Err(error) if error.is_not_running() => Ok(true),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(false),
    }
}

/// Stops processes side by side; those of a service that is shown have its name.
async fn stop_level(
    services: &Services,
    level: &[(Option<&str>, &ProcessDef)],
    reporter: &mut Reporter<impl Write>,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Well;
    let processes: Vec<_> = level.iter().map(|(_, process)| *process).collect();
    let service_of = |process: &ProcessDef| level.iter().find(|(_, p)| p.name == process.name).and_then(|(s, _)| *s);
    let (mut stopper, down) = Stopper::begin(services.supervisor(), &processes).await?;
    let mut left: Vec<_> = processes.iter().filter(|p| !down.iter().any(|d| d.name == p.name)).copied().collect();
    for (service, process) in level {
        if let Some(service) = service {
            let stage =
                if left.iter().any(|p| p.name.group == process.name.group) { Stage::Stopping } else { Stage::Stopped };
            reporter.stage(service, stage, "")?;
        }
    }
    let mut pace = Pace::new();
    while !stopper.is_done() {
        pace.wait().await;
        let infos = services.supervisor().processes().await?;
        for (process, stopped) in stopper.look(&infos).await? {
            left.retain(|p| p.name != process.name);
            let failure = if stopped == Stopped::Refuses {
                outcome = Outcome::Incomplete;
                let state = infos.iter().find(|i| i.name == process.name).map_or(ProcessState::Unknown, |i| i.state);
                let reason = format!("does not end, not even by SIGKILL; it is {state}");
                Some(Failure { reason, exit: None, log: process.stdout_log.clone(), last_lines: Vec::new() })
            } else {
                services.failed_stop(process, &infos).await
            };
            let is_last = !left.iter().any(|p| p.name.group == process.name.group);
            if failure.is_some() {
                outcome = outcome.max(Outcome::Badly);
            }
            match (service_of(process), failure) {
                (Some(service), Some(failure)) => reporter.failed(service, &process.name, &failure)?,
                (None, Some(failure)) => {
                    let report = text::failure(&process.name.to_string(), &failure, services.layout());
                    reporter.say(report.trim_end())?;
                }
                (Some(service), None) if is_last && reporter.stage_of(service) != Some(Stage::Failed) => {
                    reporter.stage(service, Stage::Stopped, "")?;
                }
                _ => {}
            }
        }
        reporter.tick()?;
    }
    Ok(outcome)
}

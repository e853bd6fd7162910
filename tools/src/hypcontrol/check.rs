//! Looking before leaping: what would make a start fail, with what to do about it.

use std::path::Path;
use std::time::Duration;

use overstory_supervisor::{ProcessInfo, ServiceDef, Services, SupervisorError};
use serde::Serialize;

use super::plan::Plan;

mod machine;
mod ports;
mod programs;

/// How long a program may take to check its configuration.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// Says how bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// A start would fail.
    Failure,
}

/// Is one thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What was looked at: ports, disk, memory, permissions, configuration, versions.
    pub(crate) subject: &'static str,
    pub(crate) message: String,
    /// What to do; empty when nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) remedy: String,
}

impl Finding {
    fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, message: message.into(), remedy: String::new() }
    }

    fn warning(subject: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject, message: message.into(), remedy: remedy.into() }
    }

    fn failure(subject: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Failure, subject, message: message.into(), remedy: remedy.into() }
    }

    /// The finding for people.
    pub(crate) fn text(&self) -> String {
        let word = match self.level {
            Level::Ok => "ok",
            Level::Warning => "WARN",
            Level::Failure => "FAIL",
        };
        let mut text = format!("{word:<5} {}: {}", self.subject, self.message);
        if !self.remedy.is_empty() {
            text += &format!("\n      to do: {}", self.remedy);
        }
        text
    }
}

/// Says how much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What a start needs; fast.
    Start,
    /// What a start needs, for what runs now and is started again, too.
    Restart,
    /// Everything, slow version queries included.
    Full,
}

/// Looks at everything that the services of a plan need.
///
/// # Errors
/// When supervisord runs and does not answer.
pub(crate) async fn check(services: &Services, plan: &Plan<'_>, depth: Depth) -> anyhow::Result<Vec<Finding>> {
    let infos = services.infos().await?;
    let layout = services.layout();
    let mut findings = Vec::new();
    let configured = async {
        let mut findings = programs::check_commands(plan);
        findings.extend(programs::check_configurations(plan, layout.prefix(), &infos, depth).await);
        findings
    };
    let (configured, reread, versions) =
        tokio::join!(configured, reread(services), programs::check_versions(services, plan, depth));
    findings.extend(ports::check_ports(plan, &infos));
    findings.push(machine::check_disk(&layout.prefix().join("var")));
    findings.extend(machine::check_memory(nothing_runs(plan, &infos)));
    findings.extend(machine::check_permissions(layout.prefix()));
    findings.extend(configured);
    findings.extend(
        services
            .catalogue()
            .problems
            .iter()
            .map(|problem| Finding::failure("configuration", problem.clone(), "correct the file")),
    );
    findings.extend(reread);
    findings.extend(versions);
    Ok(findings)
}

/// What the programs of a service refuse of its configuration, in words; empty when it may be started.
pub(crate) async fn refusals(services: &Services, service: &ServiceDef) -> Vec<String> {
    programs::refusals(service, services.layout().prefix()).await
}

fn nothing_runs(plan: &Plan<'_>, infos: &[ProcessInfo]) -> bool {
    super::start::running(plan, infos).is_empty()
}

/// Whether a supervisord that runs can parse the files; one that does not will say so when it is started.
async fn reread(services: &Services) -> Option<Finding> {
    match services.supervisor().reread().await {
        Err(SupervisorError::Fault(refusal)) => {
            Some(Finding::failure("configuration", refusal.text, "correct the file in etc/supervisord.d"))
        }
        _ => None,
    }
}

/// Whether a path can be executed by us.
fn is_executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests;

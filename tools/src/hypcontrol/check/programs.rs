//! Commands, their configuration and their versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures_util::future::join_all;
use overstory_supervisor::{ProcessDef, ProcessInfo, ServiceDef, Services};
use tokio::process::Command;

use super::{CHECK_LIMIT, Depth, Finding, Level, is_executable};
use crate::hypcontrol::plan::Plan;

const CONFIGURATION: &str = "configuration";
const VERSIONS: &str = "versions";
/// How many of the last lines of a program are shown, and how many characters of each.
const MAX_LINES: usize = 3;
const MAX_LINE: usize = 400;
/// Where Debian keeps the broker; a folder per version.
const BROKER_DIR: &str = "/usr/lib/rabbitmq/lib";

/// Looks whether the command of each process is there.
pub(super) fn check_commands(plan: &Plan<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for process in plan.processes() {
        let Some(executable) = missing_executable(process) else { continue };
        let message = format!("{} cannot be executed: {executable}", process.name.group);
        let remedy = "install the program, or correct command in its file in etc/supervisord.d";
        let finding = Finding::failure(CONFIGURATION, message, remedy);
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// The executable of a process when it cannot be executed.
fn missing_executable(process: &ProcessDef) -> Option<&str> {
    let executable = process.command.split_ascii_whitespace().next()?.trim_matches(['"', '\'']);
    // Names without a folder are searched in supervisord's PATH, unexpanded ones are unknown to us.
    let known = executable.starts_with('/') && !executable.contains('%');
    (known && !is_executable(Path::new(executable))).then_some(executable)
}

/// Lets each program that can check its own configuration; at a start only those that are to be started. One that is
/// not there is a finding of its own.
pub(super) async fn check_configurations(
    plan: &Plan<'_>,
    prefix: &Path,
    infos: &[ProcessInfo],
    depth: Depth,
) -> Vec<Finding> {
    let runs = |service: &str| infos.iter().any(|i| i.name.group == service && i.state.has_process());
    let checks = plan.nodes().filter(|(_, node)| depth != Depth::Start || !runs(&node.service.name));
    let checks = checks.filter(|(_, node)| !node.processes.iter().any(|p| missing_executable(p).is_some()));
    let checks = checks.flat_map(|(_, node)| node.service.checks.iter().map(|c| (node.service, c)));
    join_all(checks.map(|(service, command)| {
        let directory = service.directory.as_deref().unwrap_or(prefix);
        check_configuration(&service.name, command, prefix, directory)
    }))
    .await
}

/// Lets the programs of a service check its configuration: what one of them refuses, in words.
pub(super) async fn refusals(service: &ServiceDef, prefix: &Path) -> Vec<String> {
    // A start tells of a missing program better than a check that cannot run.
    if service.processes.iter().any(|process| missing_executable(process).is_some()) {
        return Vec::new();
    }
    let directory = service.directory.as_deref().unwrap_or(prefix);
    let findings = service.checks.iter().map(|command| check_configuration(&service.name, command, prefix, directory));
    let failures = join_all(findings).await.into_iter().filter(|finding| finding.level == Level::Failure);
    failures.map(|finding| format!("{}; {}", finding.message, finding.remedy)).collect()
}

async fn check_configuration(service: &str, command: &str, prefix: &Path, directory: &Path) -> Finding {
    let remedy = format!("correct what it names; try again with: {command}");
    let remedy = if directory == prefix { remedy } else { format!("{remedy} (in {})", directory.display()) };
    match output_of(command, prefix, directory).await {
        Ok((true, _)) => Finding::ok(CONFIGURATION, format!("{service} accepts its own")),
        Ok((false, said)) => Finding::failure(CONFIGURATION, format!("{service} refuses its own: {said}"), remedy),
        Err(problem) => Finding::failure(CONFIGURATION, format!("{service}: `{command}` {problem}"), remedy),
    }
}

/// Runs a command; whether it succeeded, and its last words.
async fn output_of(command: &str, prefix: &Path, directory: &Path) -> Result<(bool, String), String> {
    let mut words = command.split_ascii_whitespace();
    let mut child = Command::new(words.next().unwrap_or_default());
    child.args(words).current_dir(directory).env("OVERSTORY_HOME", prefix).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CHECK_LIMIT, child.output()).await;
    let output = output.map_err(|_| format!("does not end within {} s", CHECK_LIMIT.as_secs()))?;
    let output = output.map_err(|error| format!("cannot be run: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Ok((output.status.success(), last_words(&said)))
}

/// The last lines of what a program says as one, without the excerpts that a parser draws: they are of use only
/// in the columns of a terminal.
fn last_words(said: &str) -> String {
    let drawn = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !drawn(line));
    let lines: Vec<String> = lines.map(|line| line.chars().take(MAX_LINE).collect()).collect();
    lines.get(lines.len().saturating_sub(MAX_LINES)..).unwrap_or_default().join("; ")
}

/// Looks at the versions of supervisord and of the broker.
pub(super) async fn check_versions(services: &Services, plan: &Plan<'_>, depth: Depth) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(version) = supervisord_version(services, depth).await {
        findings.push(judge("supervisord", &version, (4, 2), "install supervisor 4.2 or later"));
    } else if depth == Depth::Full {
        let remedy = "apt-get install supervisor, or put it into the prefix' bin";
        findings.push(Finding::failure(VERSIONS, "supervisord is not installed", remedy));
    }
    if plan.nodes().any(|(_, node)| node.service.name == "rabbitmq-server") {
        match broker_version() {
            Some(version) => {
                findings.push(judge("RabbitMQ", &version, (3, 10), "install rabbitmq-server 3.10 or later"))
            }
            None => findings.push(Finding::warning(
                VERSIONS,
                format!("RabbitMQ is not in {BROKER_DIR}"),
                "apt-get install rabbitmq-server, unless another one is used",
            )),
        }
    }
    findings
}

async fn supervisord_version(services: &Services, depth: Depth) -> Option<String> {
    if let Ok(identity) = services.supervisor().identity().await {
        return Some(identity.version);
    }
    if depth != Depth::Full {
        // Asking costs half a second of Python; the one that is started then tells.
        return None;
    }
    let own = services.layout().prefix().join("bin/supervisord");
    let debian = PathBuf::from("/usr/bin/supervisord");
    let executable = [own, debian].into_iter().find(|path| path.is_file());
    let command = executable.map_or_else(|| "supervisord".to_owned(), |path| path.display().to_string());
    let prefix = services.layout().prefix();
    let (success, said) = output_of(&format!("{command} --version"), prefix, prefix).await.ok()?;
    success.then_some(said)
}

fn broker_version() -> Option<String> {
    let entries = fs::read_dir(BROKER_DIR).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("rabbitmq_server-").map(str::to_owned)).max()
}

fn judge(what: &str, version: &str, least: (u32, u32), remedy: &str) -> Finding {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let message = format!("{what} {version}");
    if found >= least { Finding::ok(VERSIONS, message) } else { Finding::failure(VERSIONS, message, remedy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(judge("x", "4.2.5", (4, 2), "").level, Level::Ok);
        assert_eq!(judge("x", "3.10.8", (3, 10), "").level, Level::Ok);
        assert_eq!(judge("x", "3.9.27", (3, 10), "").level, Level::Failure);
        assert_eq!(judge("x", "nonsense", (4, 2), "").level, Level::Failure);
    }

    #[test]
    fn a_syntax_error_keeps_its_file_and_line() {
        let said = "collectd: /p/etc/amqp.conf: TOML parse error at line 2, column 1\n  |\n2 | = 5\n  | ^\n\
                    unquoted keys cannot be empty\n\n";
        let expected =
            "collectd: /p/etc/amqp.conf: TOML parse error at line 2, column 1; unquoted keys cannot be empty";
        assert_eq!(last_words(said), expected);
        assert_eq!(last_words("a\nb\nc\nd"), "b; c; d");
        assert_eq!(last_words(&"x".repeat(5000)).len(), MAX_LINE);
    }

    #[tokio::test]
    async fn a_refused_configuration_is_told_in_the_programs_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check");
        fs::write(&path, "echo starting; echo 'x.conf: [a] b = 1: too small' >&2; exit 1").unwrap();
        let finding = check_configuration("web", &format!("sh {}", path.display()), dir.path(), dir.path()).await;
        assert_eq!(finding.level, Level::Failure);
        assert_eq!(finding.message, "web refuses its own: starting; x.conf: [a] b = 1: too small");
        assert_eq!(check_configuration("web", "true", dir.path(), dir.path()).await.level, Level::Ok);
        let missing = check_configuration("web", "/nowhere/x", dir.path(), dir.path()).await;
        let elsewhere = dir.path().join("srv");
        fs::create_dir(&elsewhere).unwrap();
        let said = check_configuration("dht-a", "sh -c pwd;false", dir.path(), &elsewhere).await;
        assert!(said.remedy.ends_with(&format!("(in {})", elsewhere.display())), "{}", said.remedy);
        assert!(missing.message.contains("cannot be run"), "{}", missing.message);
    }
}

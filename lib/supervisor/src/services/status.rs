//! The state of a process as an operator has to see it: supervisord's word, corrected by its log.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::api::{ProcessInfo, ProcessName, ProcessState};
use crate::journal::{CRASH_LOOP_WINDOW, ExitOutcome, History, Journal};
use crate::programs::Target;

/// Is the state of a process as an operator has to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum Condition {
    /// What supervisord says.
    Plain(ProcessState),
    /// It keeps dying and being restarted, even if it runs at this moment.
    CrashLoop,
}

impl Condition {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain(state) => state.as_str(),
            Self::CrashLoop => "CRASHLOOP",
        }
    }

    /// Whether the process runs, or is about to, and does not keep dying.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Plain(ProcessState::Running | ProcessState::Starting))
    }
}

impl From<Condition> for &'static str {
    fn from(condition: Condition) -> Self {
        condition.as_str()
    }
}

/// Is what there is to say about a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// Which process; for a service of one process the service's name.
    pub name: ProcessName,
    /// Its service.
    pub service: String,
    /// Its state.
    pub state: Condition,
    /// Its process id.
    pub pid: Option<i32>,
    /// Seconds since its start.
    pub uptime_s: Option<u64>,
    /// How often it ended by itself in the last ten minutes.
    pub restarts: usize,
    /// How it ended last.
    pub last_exit: Option<ExitOutcome>,
    /// Where its output goes.
    pub log: Option<PathBuf>,
    /// What supervisord or we have to add, such as why it could not be spawned.
    pub detail: String,
}

impl ProcessStatus {
    /// Whether the program failed, as opposed to having been stopped.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        match self.state {
            Condition::CrashLoop => true,
            Condition::Plain(ProcessState::Exited) => self.last_exit != Some(ExitOutcome::Code(0)),
            Condition::Plain(state) => state.is_failed(),
        }
    }
}

pub(super) fn state_of(info: Option<&ProcessInfo>) -> ProcessState {
    info.map_or(ProcessState::Stopped, |info| info.state)
}

/// Whether the log has to be read to describe a process: it has just started, or it has ended.
pub(super) fn wants_journal(info: &ProcessInfo) -> bool {
    let young = info.uptime().is_some_and(|up| up < CRASH_LOOP_WINDOW);
    (young && info.stop > 0)
        || (info.start > 0 && info.state != ProcessState::Running && info.state != ProcessState::Stopped)
}

pub(super) fn describe_targets(
    targets: &[Target<'_>],
    infos: &[ProcessInfo],
    journal: Option<&Journal>,
) -> Vec<ProcessStatus> {
    let processes = targets.iter().flat_map(|t| t.processes.iter().map(|p| (&t.service.name, *p)));
    processes
        .map(|(service, process)| {
            let info = infos.iter().find(|i| i.name == process.name);
            describe(service, &process.name, process.stdout_log.as_deref(), info, journal)
        })
        .collect()
}

pub(super) fn describe(
    service: &str,
    name: &ProcessName,
    defined_log: Option<&Path>,
    info: Option<&ProcessInfo>,
    journal: Option<&Journal>,
) -> ProcessStatus {
    let history = match (journal, info) {
        (Some(journal), Some(info)) => journal.history(&name.name, info.now),
        _ => History::default(),
    };
    let state = state_of(info);
    let looping = history.is_crash_loop() && !matches!(state, ProcessState::Stopped | ProcessState::Fatal);
    let exit_status = info.filter(|i| i.state == ProcessState::Exited).and_then(|i| i32::try_from(i.exit_status).ok());
    ProcessStatus {
        name: name.clone(),
        service: service.to_owned(),
        state: if looping { Condition::CrashLoop } else { Condition::Plain(state) },
        pid: info.and_then(|i| i.pid),
        uptime_s: info.and_then(ProcessInfo::uptime).map(|up| up.as_secs()),
        restarts: history.restarts,
        last_exit: history.last_outcome.or(exit_status.map(ExitOutcome::Code)),
        log: info.and_then(|i| i.stdout_log.clone()).or_else(|| defined_log.map(Path::to_owned)),
        detail: info.map(|i| i.spawn_error.clone()).unwrap_or_default(),
    }
}

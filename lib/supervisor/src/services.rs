//! One service at a time: its state, and starting, stopping, restarting it, as `service` and the web server do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::api::{ProcessInfo, ProcessName, ProcessState, Supervisor, SupervisorError};
use crate::control::{self, Applied, Pace, Stopped};
use crate::daemon::{Daemon, DaemonError};
use crate::journal::{ExitOutcome, Journal, TAIL_BYTES};
use crate::layout::Layout;
use crate::lock;
use crate::logs;
use crate::programs::{Catalogue, ProcessDef, ServiceDef, Target};
use crate::settle::{Settle, Verdict};
use crate::xmlrpc::fault;

mod status;

pub use status::{Condition, ProcessStatus};
use status::{describe, describe_targets, state_of, wants_journal};

/// How long a start may take beyond the program's `startsecs`.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How many lines of a program's log belong to the report of its failure.
pub const REPORT_LINES: usize = 10;

/// Controls the services of a prefix.
#[derive(Clone)]
pub struct Services {
    layout: Layout,
    catalogue: Arc<Catalogue>,
    supervisor: Arc<dyn Supervisor>,
    daemon: Option<Daemon>,
}

/// Is what an action did to a process.
#[derive(Debug, Clone, Serialize)]
pub struct ActionOutcome {
    /// Which process.
    pub name: ProcessName,
    /// What was done, or why it failed.
    pub result: Result<Done, Failure>,
    /// What the operator should know besides.
    pub note: Option<String>,
}

/// Is an action that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It was started and stayed up.
    Started,
    /// It was up.
    AlreadyStarted,
    /// It was stopped.
    Stopped,
    /// It was down.
    AlreadyStopped,
}

/// Is the report of a program that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// How the program ended, from supervisord's log.
    pub exit: Option<ExitOutcome>,
    /// The program's log.
    pub log: Option<PathBuf>,
    /// The last lines of it.
    pub last_lines: Vec<String>,
}

impl Services {
    /// The services of the prefix `root` and its supervisord.
    #[must_use]
    pub fn open(root: impl Into<PathBuf>) -> Self {
        let layout = Layout::new(root);
        let daemon = Daemon::new(layout.clone());
        let supervisor = Arc::new(daemon.client().clone());
        Self { catalogue: Arc::new(Catalogue::load(&layout)), supervisor, daemon: Some(daemon), layout }
    }

    /// The services of a catalogue on a supervisor that needs no starting, such as the fake.
    #[must_use]
    pub fn with_supervisor(layout: Layout, catalogue: Catalogue, supervisor: Arc<dyn Supervisor>) -> Self {
        Self { layout, catalogue: Arc::new(catalogue), supervisor, daemon: None }
    }

    /// The same services after definitions were written or removed.
    #[must_use]
    pub fn reloaded(&self) -> Self {
        Self { catalogue: Arc::new(Catalogue::load(&self.layout)), ..self.clone() }
    }

    /// The definitions.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The paths of the prefix.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The supervisor.
    #[must_use]
    pub fn supervisor(&self) -> &dyn Supervisor {
        self.supervisor.as_ref()
    }

    /// supervisord itself; `None` for one that needs no starting.
    #[must_use]
    pub const fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// Every process that supervisord has loaded; empty when it is not running.
    ///
    /// # Errors
    /// When supervisord does not answer.
    pub async fn infos(&self) -> Result<Vec<ProcessInfo>, SupervisorError> {
        match self.supervisor.processes().await {
            Err(error) if error.is_not_running() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The state of every service, and of what runs although the definitions do not tell of it, such as a service whose
    /// file cannot be read any more.
    ///
    /// # Errors
    /// When supervisord does not answer.
    pub async fn list(&self) -> Result<Vec<ProcessStatus>, SupervisorError> {
        let targets: Vec<_> = self.catalogue.services().flat_map(|s| self.catalogue.resolve(&s.name)).collect();
        let infos = self.infos().await?;
        let journal = self.journal_if_wanted(&infos).await;
        let mut all = describe_targets(&targets, &infos, journal.as_ref());
        let undefined = infos.iter().filter(|i| i.state.has_process() && self.catalogue.process(&i.name).is_none());
        all.extend(undefined.map(|info| {
            let status = describe(&info.name.group, &info.name, None, Some(info), journal.as_ref());
            ProcessStatus { detail: "its definition cannot be read or is gone".to_owned(), ..status }
        }));
        Ok(all)
    }

    /// The state of the processes meant by `targets`. Starts nothing: without supervisord all are stopped.
    ///
    /// # Errors
    /// When supervisord does not answer.
    pub async fn status(&self, targets: &[Target<'_>]) -> Result<Vec<ProcessStatus>, SupervisorError> {
        let infos = self.infos().await?;
        let journal = self.journal_if_wanted(&infos).await;
        Ok(describe_targets(targets, &infos, journal.as_ref()))
    }

    async fn journal_if_wanted(&self, infos: &[ProcessInfo]) -> Option<Journal> {
        if infos.iter().any(wants_journal) { Some(self.journal(infos).await) } else { None }
    }

    /// supervisord's log, read for exit codes.
    pub async fn journal(&self, infos: &[ProcessInfo]) -> Journal {
        // supervisord refuses to hand its log out when the piece begins inside a character; the file is ours to read.
        let text = match self.supervisor.read_main_log(TAIL_BYTES).await {
            Ok(text) => text,
            Err(_) => {
                let length = u64::try_from(TAIL_BYTES).unwrap_or_default();
                logs::last_bytes(&self.layout.supervisord_log(), length).unwrap_or_default()
            }
        };
        Journal::parse(&text, infos)
    }

    /// Sees to it that supervisord is up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn ensure_up(&self) -> Result<(), DaemonError> {
        match &self.daemon {
            Some(daemon) => daemon.ensure_up().await.map(drop),
            None => Ok(()),
        }
    }

    /// Applies the configuration of one service, see [`control::apply_config`].
    ///
    /// # Errors
    /// When the lock cannot be taken or supervisord refuses.
    pub async fn apply(&self, service: &ServiceDef) -> Result<Applied, DaemonError> {
        let path = self.layout.daemon_lock();
        let held = lock::acquire(&path, |_| ()).await;
        let _held = held.map_err(|source| DaemonError::File { path, source })?;
        Ok(control::apply_config(self.supervisor(), service).await?)
    }

    /// Unloads a stopped service whose definition is gone; whether it was loaded. Without supervisord nothing is.
    ///
    /// # Errors
    /// When the lock cannot be taken or supervisord refuses, see [`control::forget_group`].
    pub async fn forget(&self, group: &str) -> Result<bool, DaemonError> {
        let path = self.layout.daemon_lock();
        let held = lock::acquire(&path, |_| ()).await;
        let _held = held.map_err(|source| DaemonError::File { path, source })?;
        match control::forget_group(self.supervisor(), group).await {
            Err(error) if error.is_not_running() => Ok(false),
            other => Ok(other?),
        }
    }

    /// Starts the processes meant by `targets` with their present configuration, after the services that they require,
    /// and waits until they stay up. Brings supervisord up when it is not.
    ///
    /// # Errors
    /// When supervisord cannot be started or does not answer; a program that fails is in its own outcome.
    pub async fn start(&self, targets: &[Target<'_>]) -> Result<Vec<ActionOutcome>, DaemonError> {
        self.ensure_up().await?;
        let mut outcomes = Vec::new();
        for required in self.required_by(targets) {
            let up = |info: &ProcessInfo| info.name.group == required.name && info.state == ProcessState::Running;
            if self.infos().await?.iter().filter(|info| up(info)).count() == required.processes.len() {
                continue;
            }
            let target = Target { service: required, processes: required.processes.iter().collect() };
            outcomes.extend(self.start_side_by_side(&[target]).await?);
            if outcomes.iter().any(|outcome| outcome.result.is_err()) {
                let left_out = targets.iter().flat_map(|t| &t.processes);
                outcomes.extend(left_out.map(|process| ActionOutcome {
                    name: process.name.clone(),
                    result: Err(Failure {
                        reason: format!("needs {}, which failed", required.name),
                        exit: None,
                        log: process.stdout_log.clone(),
                        last_lines: Vec::new(),
                    }),
                    note: None,
                }));
                return Ok(outcomes);
            }
        }
        outcomes.extend(self.start_side_by_side(targets).await?);
        Ok(outcomes)
    }

    /// The services that `targets` require and do not name, each after those that it requires itself.
    fn required_by<'a>(&'a self, targets: &[Target<'_>]) -> Vec<&'a ServiceDef> {
        fn visit<'a>(catalogue: &'a Catalogue, name: &str, seen: &mut Vec<String>, found: &mut Vec<&'a ServiceDef>) {
            let Some(service) = catalogue.service(name).filter(|_| !seen.iter().any(|s| s == name)) else { return };
            seen.push(name.to_owned());
            service.requires.iter().for_each(|required| visit(catalogue, required, seen, found));
            found.push(service);
        }
        let mut seen: Vec<_> = targets.iter().map(|target| target.service.name.clone()).collect();
        let mut found = Vec::new();
        for required in targets.iter().flat_map(|target| &target.service.requires) {
            visit(&self.catalogue, required, &mut seen, &mut found);
        }
        found
    }

    async fn start_side_by_side(&self, targets: &[Target<'_>]) -> Result<Vec<ActionOutcome>, DaemonError> {
        let mut outcomes = Vec::new();
        let mut waiting = Vec::new();
        for target in targets {
            let applied = self.apply(target.service).await?;
            let infos = self.infos().await?;
            for process in &target.processes {
                let info = infos.iter().find(|i| i.name == process.name);
                if info.is_some_and(|i| matches!(i.state, ProcessState::Running | ProcessState::Starting)) {
                    waiting.push(Waiting::new(process, &applied, Done::AlreadyStarted));
                    continue;
                }
                match control::start_process(self.supervisor(), &process.name).await {
                    Ok(()) => waiting.push(Waiting::new(process, &applied, Done::Started)),
                    Err(SupervisorError::Fault(refusal)) => {
                        let failure = self.refusal(process, &applied, &refusal);
                        outcomes.push(ActionOutcome { name: process.name.clone(), result: Err(failure), note: None });
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        outcomes.extend(self.wait_until_up(waiting).await?);
        Ok(outcomes)
    }

    async fn wait_until_up(&self, mut waiting: Vec<Waiting<'_>>) -> Result<Vec<ActionOutcome>, SupervisorError> {
        let mut outcomes = Vec::new();
        let mut pace = Pace::new();
        while !waiting.is_empty() {
            let infos = self.supervisor.processes().await?;
            let now = Instant::now();
            let mut still = Vec::new();
            for mut one in waiting {
                let info = infos.iter().find(|i| i.name == one.process.name);
                let verdict = info.map_or(Verdict::Ended, |info| one.settle.look(info, now));
                let result = match verdict {
                    Verdict::Up => Ok(one.done),
                    Verdict::Crashed | Verdict::Ended => Err(self.failure(one.process, info, None).await),
                    Verdict::Pending | Verdict::Alive if now > one.deadline => {
                        let reason = format!("is still {} after {:?}", state_of(info), START_LIMIT);
                        Err(self.failure(one.process, info, Some(reason)).await)
                    }
                    Verdict::Pending | Verdict::Alive => {
                        still.push(one);
                        continue;
                    }
                };
                outcomes.push(ActionOutcome { name: one.process.name.clone(), result, note: one.note });
            }
            waiting = still;
            if !waiting.is_empty() {
                pace.wait().await;
            }
        }
        Ok(outcomes)
    }

    /// Stops the processes meant by `targets` and waits until they have ended.
    ///
    /// # Errors
    /// When supervisord does not answer. One that is not running has nothing to stop.
    pub async fn stop(&self, targets: &[Target<'_>]) -> Result<Vec<ActionOutcome>, DaemonError> {
        let processes: Vec<_> = targets.iter().flat_map(|t| t.processes.iter().copied()).collect();
        let stopped = match control::stop_processes(self.supervisor(), &processes).await {
            Err(error) if error.is_not_running() => processes.into_iter().map(|p| (p, Stopped::WasDown)).collect(),
            other => other?,
        };
        let infos = self.infos().await?;
        let mut outcomes = Vec::new();
        for (process, stopped) in stopped {
            let result = match stopped {
                Stopped::WasDown => Ok(Done::AlreadyStopped),
                Stopped::Ended => self.failed_stop(process, &infos).await.map_or(Ok(Done::Stopped), Err),
                Stopped::Refuses => Err(Failure {
                    reason: "does not end, not even by SIGKILL".to_owned(),
                    exit: None,
                    log: process.stdout_log.clone(),
                    last_lines: Vec::new(),
                }),
            };
            outcomes.push(ActionOutcome { name: process.name.clone(), result, note: None });
        }
        Ok(outcomes)
    }

    /// The report of a program that was stopped and did not end well: with a code that is none of its `exitcodes`, or
    /// by SIGKILL, because it did not end within its `stopwaitsecs` for instance. `None` when the last thing that
    /// happened to it was no stop, or a good one: an end by the stop signal itself is good, and so is the code by
    /// which a shell tells of it.
    pub async fn failed_stop(&self, process: &ProcessDef, infos: &[ProcessInfo]) -> Option<Failure> {
        let info = infos.iter().find(|info| info.name == process.name)?;
        if info.state != ProcessState::Stopped || info.start == 0 || info.exit_status == 0 {
            return None;
        }
        // supervisord tells every signal as -1; its log has the name.
        let exit = match i32::try_from(info.exit_status).ok()? {
            code if code > 0 => ExitOutcome::Code(code),
            _ => self.journal(infos).await.history(&process.name.name, info.now).last_outcome?,
        };
        let reason = match &exit {
            ExitOutcome::Code(code) if process.is_good_end(*code) => return None,
            ExitOutcome::Code(_) => "was stopped and ended with an error",
            ExitOutcome::Signal(name) if name.starts_with("SIGKILL") && process.stop_signal_name() != "KILL" => {
                "was stopped and had to be killed"
            }
            ExitOutcome::Signal(_) => return None,
        };
        let log = info.stdout_log.clone().or_else(|| process.stdout_log.clone());
        let last_lines = log.as_deref().map(|path| logs::last_lines(path, REPORT_LINES)).unwrap_or_default();
        Some(Failure { reason: reason.to_owned(), exit: Some(exit), log, last_lines })
    }

    /// Stops and starts the processes meant by `targets`; a changed configuration is applied. What ended badly is started
    /// again all the same, and its failure is told before the outcome of the start; nothing is started while something
    /// does not end.
    ///
    /// # Errors
    /// When supervisord cannot be started or does not answer.
    pub async fn restart(&self, targets: &[Target<'_>]) -> Result<Vec<ActionOutcome>, DaemonError> {
        let mut outcomes = self.stop(targets).await?;
        outcomes.retain(|outcome| outcome.result.is_err());
        // A failure without an end is that of a program that still runs.
        if outcomes.iter().all(|outcome| outcome.result.as_ref().is_err_and(|failure| failure.exit.is_some())) {
            outcomes.extend(self.start(targets).await?);
        }
        Ok(outcomes)
    }

    /// The report of a program that failed.
    pub async fn failure(&self, process: &ProcessDef, info: Option<&ProcessInfo>, reason: Option<String>) -> Failure {
        let journal = self.journal(info.map(std::slice::from_ref).unwrap_or_default()).await;
        let exit = journal.history(&process.name.name, info.map_or(0, |i| i.now)).last_outcome;
        let log = info.and_then(|i| i.stdout_log.clone()).or_else(|| process.stdout_log.clone());
        let spawn_error = info.map(|i| i.spawn_error.as_str()).filter(|text| !text.is_empty());
        let reason = reason.unwrap_or_else(|| match (info.map(|i| i.state), spawn_error) {
            (None, _) => "is not loaded".to_owned(),
            (Some(ProcessState::Stopped | ProcessState::Stopping), _) => "was stopped by somebody else".to_owned(),
            (Some(ProcessState::Exited), _) => "ended".to_owned(),
            (Some(ProcessState::Fatal), Some(text)) => format!("FATAL: {text}"),
            (Some(ProcessState::Backoff), Some(text)) => format!("BACKOFF: {text}"),
            (Some(state), _) => format!("crashed and is {state} again"),
        });
        let last_lines = log.as_deref().map(|path| logs::last_lines(path, REPORT_LINES)).unwrap_or_default();
        Failure { reason, exit, log, last_lines }
    }

    /// The report of a start that supervisord refused.
    #[must_use]
    pub fn refusal(&self, process: &ProcessDef, applied: &Applied, refusal: &crate::xmlrpc::Fault) -> Failure {
        let group = &process.name.group;
        let reason = match (refusal.code, applied) {
            (fault::BAD_NAME, Applied::Unread(text)) => format!("its configuration cannot be read: {text}"),
            (fault::BAD_NAME, Applied::Postponed) => {
                format!("is new in {group}, which runs as it was before; `service {group} restart` starts it")
            }
            (fault::NO_FILE, _) => format!("the command does not exist: {}", process.command),
            (fault::NOT_EXECUTABLE, _) => format!("the command cannot be executed: {}", process.command),
            _ => refusal.text.clone(),
        };
        Failure { reason, exit: None, log: process.stdout_log.clone(), last_lines: Vec::new() }
    }
}

/// Is a process whose start is watched.
struct Waiting<'a> {
    process: &'a ProcessDef,
    done: Done,
    note: Option<String>,
    settle: Settle,
    deadline: Instant,
}

impl<'a> Waiting<'a> {
    fn new(process: &'a ProcessDef, applied: &Applied, done: Done) -> Self {
        Self {
            process,
            done,
            note: note_on(&process.name.group, applied),
            settle: Settle::new(process.start_secs),
            deadline: Instant::now() + START_LIMIT + Duration::from_secs(u64::from(process.start_secs)),
        }
    }
}

/// What an operator should know about the configuration that a service was started with.
#[must_use]
pub fn note_on(group: &str, applied: &Applied) -> Option<String> {
    match applied {
        Applied::Current | Applied::Loaded => None,
        Applied::Postponed => {
            Some(format!("its configuration has changed since it was started; `service {group} restart` applies it"))
        }
        Applied::Unread(text) => Some(format!("the configuration cannot be read, the loaded one stays: {text}")),
    }
}

#[cfg(test)]
mod tests;

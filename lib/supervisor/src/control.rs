//! The steps that starting and stopping are made of, on any [`Supervisor`].

use std::time::Duration;

use tokio::time::Instant;

use crate::api::{ProcessInfo, ProcessName, ProcessState, Supervisor, SupervisorError};
use crate::process_table;
use crate::programs::{ProcessDef, ServiceDef};
use crate::xmlrpc::fault;

/// When a stop signal is sent again to a process that has not ended.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A signal can be lost only between the fork and the exec of a new process; an older one has had it, and a second
/// one would tell it to give up what it is finishing.
const YOUNG: Duration = Duration::from_secs(2);
/// After this many seconds supervisord has restarted a program that ended, if it means to.
const REVIVAL_SECS: i64 = 2;
/// How long supervisord may take to kill a process after its `stopwaitsecs`.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Says what became of the configuration of a service that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is loaded as it stands in its file.
    Current,
    /// It was loaded now.
    Loaded,
    /// It has changed, and processes run with the earlier one: only a restart can apply it.
    Postponed,
    /// The files cannot be parsed; what is loaded stays.
    Unread(String),
}

/// Loads the configuration of one service when it is new or changed, and that of no other.
///
/// Callers hold the prefix's daemon lock: supervisord keeps one parsed configuration for all its clients.
///
/// # Errors
/// When supervisord refuses.
pub async fn apply_config(supervisor: &dyn Supervisor, service: &ServiceDef) -> Result<Applied, SupervisorError> {
    let group = &service.name;
    let diff = match supervisor.reread().await {
        Ok(diff) => diff,
        Err(SupervisorError::Fault(f)) if f.code == fault::CANT_REREAD => return Ok(Applied::Unread(f.text)),
        Err(error) => return Err(error),
    };
    if diff.added.contains(group) {
        return supervisor.add_group(group).await.map(|()| Applied::Loaded);
    }
    if !diff.changed.contains(group) {
        return Ok(Applied::Current);
    }
    let infos = supervisor.processes().await?;
    let members = || infos.iter().filter(|info| info.name.group == *group);
    if members().any(|info| info.state.has_process()) {
        return Ok(Applied::Postponed);
    }
    for member in members().filter(|info| !info.state.is_down()) {
        ignore_fault(supervisor.stop(&member.name).await, fault::NOT_RUNNING)?;
    }
    supervisor.remove_group(group).await?;
    supervisor.add_group(group).await.map(|()| Applied::Loaded)
}

/// Unloads a service whose definition is gone from the files, and no other; whether it was loaded.
///
/// Callers hold the prefix's daemon lock, and have stopped it.
///
/// # Errors
/// When supervisord refuses: the service runs, or the files cannot be parsed.
pub async fn forget_group(supervisor: &dyn Supervisor, group: &str) -> Result<bool, SupervisorError> {
    let diff = supervisor.reread().await?;
    if !diff.removed.iter().any(|name| name == group) {
        return Ok(false);
    }
    let infos = supervisor.processes().await?;
    // One that supervisord is about to try again is not down for it.
    for member in infos.iter().filter(|info| info.name.group == group && info.state == ProcessState::Backoff) {
        ignore_fault(supervisor.stop(&member.name).await, fault::NOT_RUNNING)?;
    }
    supervisor.remove_group(group).await.map(|()| true)
}

/// Starts a process that does not run. One that supervisord is about to try again is tried now, from the first try.
/// One that could not be spawned, or was dead before supervisord answered, is in BACKOFF after it, as one that dies
/// later is.
///
/// # Errors
/// When supervisord refuses.
pub async fn start_process(supervisor: &dyn Supervisor, name: &ProcessName) -> Result<(), SupervisorError> {
    if supervisor.process(name).await?.state == ProcessState::Backoff {
        ignore_fault(supervisor.stop(name).await, fault::NOT_RUNNING)?;
    }
    let started = ignore_fault(supervisor.start(name).await, fault::SPAWN_ERROR);
    ignore_fault(started, fault::ALREADY_STARTED)
}

fn ignore_fault(result: Result<(), SupervisorError>, code: i64) -> Result<(), SupervisorError> {
    match result {
        Err(error) if error.fault_code() == Some(code) => Ok(()),
        other => other,
    }
}

/// Stops processes side by side.
pub struct Stopper<'a> {
    supervisor: &'a dyn Supervisor,
    waiting: Vec<Stopping<'a>>,
}

struct Stopping<'a> {
    process: &'a ProcessDef,
    begun: Instant,
    /// Whether the stop signal may have been lost.
    young: bool,
}

/// Is what became of a process that was to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// It did not run.
    WasDown,
    /// It ended.
    Ended,
    /// It did not end, although supervisord should have killed it by now.
    Refuses,
}

impl<'a> Stopper<'a> {
    /// Sends the stop signal to those of `processes` that run; returns with it those that were down already.
    ///
    /// # Errors
    /// When supervisord refuses.
    pub async fn begin(
        supervisor: &'a dyn Supervisor,
        processes: &[&'a ProcessDef],
    ) -> Result<(Self, Vec<&'a ProcessDef>), SupervisorError> {
        let infos = supervisor.processes().await?;
        let mut stopper = Self { supervisor, waiting: Vec::new() };
        let mut down = Vec::new();
        for process in processes {
            let info = infos.iter().find(|info| info.name == process.name);
            let Some(info) = info.filter(|info| !stays_down(info)) else {
                down.push(*process);
                continue;
            };
            let young = info.pid.and_then(process_table::age_of).is_some_and(|age| age < YOUNG);
            if wants_stop(info.state) {
                ignore_fault(supervisor.stop(&process.name).await, fault::NOT_RUNNING)?;
            }
            stopper.waiting.push(Stopping { process, begun: Instant::now(), young });
        }
        Ok((stopper, down))
    }

    /// Takes a look: returns the processes that have come to an end since the last one, and the way they did.
    ///
    /// # Errors
    /// When supervisord does not answer.
    pub async fn look(&mut self, infos: &[ProcessInfo]) -> Result<Vec<(&'a ProcessDef, Stopped)>, SupervisorError> {
        let mut done = Vec::new();
        let mut again = Vec::new();
        let mut revived = Vec::new();
        self.waiting.retain_mut(|stopping| {
            let info = infos.iter().find(|info| info.name == stopping.process.name);
            let waited = stopping.begun.elapsed();
            match info {
                None => done.push((stopping.process, Stopped::Ended)),
                Some(info) if stays_down(info) => done.push((stopping.process, Stopped::Ended)),
                Some(_) if waited > stopping.process.stop_wait + KILL_LIMIT => {
                    done.push((stopping.process, Stopped::Refuses));
                }
                Some(info) => {
                    if wants_stop(info.state) {
                        revived.push(stopping.process);
                    }
                    if stopping.young && waited >= AGAIN_AFTER {
                        stopping.young = false;
                        again.push(stopping.process);
                    }
                    return true;
                }
            }
            false
        });
        for process in revived {
            ignore_fault(self.supervisor.stop(&process.name).await, fault::NOT_RUNNING)?;
        }
        for process in again {
            let sent = self.supervisor.signal(&process.name, &process.stop_signal).await;
            ignore_fault(sent, fault::NOT_RUNNING)?;
        }
        Ok(done)
    }

    /// Whether every process has come to an end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Whether a process is in a state in which supervisord accepts a stop.
const fn wants_stop(state: ProcessState) -> bool {
    matches!(state, ProcessState::Running | ProcessState::Starting | ProcessState::Backoff)
}

/// Whether a process is down and will not come back by itself: supervisord starts a program that has just ended again
/// about a second later, and until then refuses to stop it.
const fn stays_down(info: &ProcessInfo) -> bool {
    info.state.is_down() && !(matches!(info.state, ProcessState::Exited) && info.now - info.stop < REVIVAL_SECS)
}

/// Stops processes side by side and waits until they have ended, in the order of `processes`.
///
/// # Errors
/// When supervisord refuses or does not answer.
pub async fn stop_processes<'a>(
    supervisor: &'a dyn Supervisor,
    processes: &[&'a ProcessDef],
) -> Result<Vec<(&'a ProcessDef, Stopped)>, SupervisorError> {
    let (mut stopper, down) = Stopper::begin(supervisor, processes).await?;
    let mut outcomes: Vec<_> = down.into_iter().map(|process| (process, Stopped::WasDown)).collect();
    let mut pace = Pace::new();
    while !stopper.is_done() {
        pace.wait().await;
        outcomes.extend(stopper.look(&supervisor.processes().await?).await?);
    }
    outcomes.sort_by_key(|(process, _)| processes.iter().position(|p| p.name == process.name));
    Ok(outcomes)
}

/// The time between two looks: short at first, longer when it takes long.
#[derive(Debug)]
pub struct Pace {
    next: Duration,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_millis(100);

    /// Begins with the shortest.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: Self::SHORTEST }
    }

    /// Waits until the next look.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next + self.next / 8).min(Self::LONGEST);
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

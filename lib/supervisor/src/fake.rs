//! A supervisor in memory that keeps supervisord's rules, for tests of what stands above it.
//!
//! Time is tokio's: with a paused clock a start that takes a minute takes none. The rules are those measured on
//! supervisord 4.2.5, and the contract tests hold the two against each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::api::{
    ConfigDiff, DaemonState, Identity, LogTail, ProcessInfo, ProcessName, ProcessState, Supervisor, SupervisorError,
};
use crate::xmlrpc::{Fault, fault};

/// Unix second at which a fake begins: 2026-11-21 00:00:00.
const EPOCH: i64 = 1_795_219_200;
/// How long after its end a program is started again.
const REVIVAL: Duration = Duration::from_secs(1);

/// Is a program of the fake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeProgram {
    /// Its process.
    pub name: ProcessName,
    /// supervisord's `startsecs`.
    pub start_secs: u32,
    /// supervisord's `startretries`.
    pub start_retries: u32,
    /// How long it lives, and with which code it then exits; `None` for ever.
    pub life: Option<(Duration, i32)>,
    /// How long it takes to end after its stop signal; `None` when it ignores the first one.
    pub ends_in: Option<Duration>,
    /// supervisord's `stopwaitsecs`.
    pub stop_wait: Duration,
    /// With which code it ends when it is told to; `None` by the signal.
    pub stop_code: Option<i32>,
    /// Whether its command does not exist.
    pub is_missing: bool,
    /// Where its output goes.
    pub log: Option<PathBuf>,
}

impl FakeProgram {
    /// A lone program that runs for ever and ends when told to.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::member(name, name)
    }

    /// A member of a group, otherwise the same.
    #[must_use]
    pub fn member(group: &str, name: &str) -> Self {
        Self {
            name: ProcessName::new(group, name),
            start_secs: 1,
            start_retries: 3,
            life: None,
            ends_in: Some(Duration::from_millis(50)),
            stop_wait: Duration::from_secs(10),
            stop_code: None,
            is_missing: false,
            log: None,
        }
    }

    /// The same, ending with `code` when it is told to.
    #[must_use]
    pub fn that_stops_with(self, code: i32) -> Self {
        Self { stop_code: Some(code), ..self }
    }

    /// The same, ending by itself with `code` after `life`.
    #[must_use]
    pub fn that_exits(self, life: Duration, code: i32) -> Self {
        Self { life: Some((life, code)), ..self }
    }
}

/// Keeps supervisord's rules in memory.
#[derive(Debug)]
pub struct FakeSupervisor {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is loaded.
    processes: BTreeMap<ProcessName, Process>,
    /// What the configuration files say.
    files: Vec<FakeProgram>,
    /// What was parsed last.
    parsed: Vec<FakeProgram>,
    syntax_error: Option<String>,
    is_down: bool,
    log: String,
    last_pid: i32,
}

#[derive(Debug)]
struct Process {
    program: FakeProgram,
    state: ProcessState,
    pid: Option<i32>,
    started: Option<Instant>,
    stopped: Option<Instant>,
    /// When the next thing happens by itself.
    due: Option<Instant>,
    tries: u32,
    exit_status: i32,
    spawn_error: String,
    /// Whether it is going to be killed, as it ignored its stop signal.
    ignores: bool,
}

impl FakeSupervisor {
    /// A supervisor that has loaded `programs`.
    #[must_use]
    pub fn new(programs: Vec<FakeProgram>) -> Self {
        let processes = programs.iter().cloned().map(|p| (p.name.clone(), Process::new(p))).collect();
        let inner = Inner { processes, files: programs.clone(), parsed: programs, last_pid: 1000, ..Inner::default() };
        Self { begun: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Changes what the configuration files say; nothing is loaded by it.
    pub fn write_files(&self, programs: Vec<FakeProgram>) {
        self.lock().files = programs;
    }

    /// Makes the configuration files unreadable, or readable again.
    pub fn set_syntax_error(&self, text: Option<&str>) {
        self.lock().syntax_error = text.map(str::to_owned);
    }

    /// Ends a process as a signal from outside does.
    pub fn kill(&self, name: &ProcessName) {
        let now = Instant::now();
        let mut inner = self.catch_up(now);
        let stamp = self.stamp(now);
        let Inner { processes, log, .. } = &mut *inner;
        if let Some(process) = processes.get_mut(name).filter(|p| p.pid.is_some()) {
            process.end(now, -1, &stamp, log);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets happen what was due until now.
    fn catch_up(&self, now: Instant) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        loop {
            let next = inner.processes.iter().filter_map(|(name, p)| Some((p.due?, name.clone()))).min();
            let Some((due, name)) = next.filter(|(due, _)| *due <= now) else { return inner };
            let stamp = self.stamp(due);
            let Inner { processes, log, last_pid, .. } = &mut *inner;
            if let Some(process) = processes.get_mut(&name) {
                process.step(due, &stamp, log, last_pid);
            }
        }
    }

    /// The start of a line of the log.
    fn stamp(&self, at: Instant) -> String {
        let ms = at.saturating_duration_since(self.begun).as_millis();
        let (s, ms) = (ms / 1000, ms % 1000);
        format!("2026-11-21 {:02}:{:02}:{:02},{ms:03} INFO", s / 3600, s / 60 % 60, s % 60)
    }

    fn unix(&self, at: Option<Instant>) -> i64 {
        let seconds = at.map(|at| at.saturating_duration_since(self.begun).as_secs());
        seconds.map_or(0, |s| EPOCH + i64::try_from(s).unwrap_or_default())
    }

    fn info(&self, process: &Process, now: Instant) -> ProcessInfo {
        ProcessInfo {
            name: process.program.name.clone(),
            state: process.state,
            pid: process.pid,
            start: self.unix(process.started),
            stop: self.unix(process.stopped),
            now: self.unix(Some(now)),
            spawn_error: process.spawn_error.clone(),
            exit_status: i64::from(process.exit_status),
            stdout_log: process.program.log.clone(),
        }
    }

    /// Runs a call: supervisord must be up.
    fn call<T>(
        &self,
        call: impl FnOnce(&mut Inner, Instant) -> Result<T, SupervisorError>,
    ) -> Result<T, SupervisorError> {
        let now = Instant::now();
        let mut inner = self.catch_up(now);
        if inner.is_down {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            return Err(SupervisorError::NotRunning { socket: "fake".into(), source });
        }
        call(&mut inner, now)
    }

    fn with_process<T>(
        &self,
        name: &ProcessName,
        call: impl FnOnce(&mut Process, &mut String, &mut i32, Instant) -> Result<T, SupervisorError>,
    ) -> Result<T, SupervisorError> {
        self.call(|inner, now| {
            let Inner { processes, log, last_pid, .. } = inner;
            let process =
                processes.get_mut(name).ok_or_else(|| refuse(fault::BAD_NAME, "BAD_NAME", &name.namespec()))?;
            call(process, log, last_pid, now)
        })
    }
}

fn refuse(code: i64, word: &str, about: &str) -> SupervisorError {
    SupervisorError::Fault(Fault { code, text: format!("{word}: {about}") })
}

impl Process {
    const fn new(program: FakeProgram) -> Self {
        Self {
            program,
            state: ProcessState::Stopped,
            pid: None,
            started: None,
            stopped: None,
            due: None,
            tries: 0,
            exit_status: 0,
            spawn_error: String::new(),
            ignores: false,
        }
    }

    fn spawn(&mut self, now: Instant, stamp: &str, log: &mut String, last_pid: &mut i32) {
        *last_pid += 1;
        self.pid = Some(*last_pid);
        self.started = Some(now);
        self.spawn_error.clear();
        self.exit_status = 0;
        *log += &format!("{stamp} spawned: '{}' with pid {last_pid}\n", self.program.name.name);
        self.state = ProcessState::Starting;
        let start = Duration::from_secs(u64::from(self.program.start_secs));
        let life = self.program.life.map(|(life, _)| life);
        if start.is_zero() {
            self.state = ProcessState::Running;
            self.tries = 0;
            self.due = life.map(|life| now + life);
        } else {
            self.due = Some(now + life.map_or(start, |life| life.min(start)));
        }
    }

    /// Does what is due at `now`.
    fn step(&mut self, now: Instant, stamp: &str, log: &mut String, last_pid: &mut i32) {
        self.due = None;
        let lived = self.started.map(|started| now.saturating_duration_since(started)).unwrap_or_default();
        let dies = self.program.life.filter(|(life, _)| *life <= lived);
        match (self.state, dies) {
            (ProcessState::Starting | ProcessState::Running, Some((_, code))) => self.end(now, code, stamp, log),
            (ProcessState::Starting, None) => {
                self.state = ProcessState::Running;
                self.tries = 0;
                self.due = self.program.life.zip(self.started).map(|((life, _), started)| started + life);
            }
            (ProcessState::Backoff | ProcessState::Exited, _) => self.spawn(now, stamp, log, last_pid),
            (ProcessState::Stopping, _) => {
                self.state = ProcessState::Stopped;
                self.pid = None;
                self.stopped = Some(now);
                let (status, how) = match (self.ignores, self.program.stop_code) {
                    (true, _) => (-1, "terminated by SIGKILL".to_owned()),
                    (false, None) => (-1, "terminated by SIGTERM".to_owned()),
                    (false, Some(code)) => (code, format!("exit status {code}")),
                };
                self.exit_status = status;
                *log += &format!("{stamp} stopped: {} ({how})\n", self.program.name.name);
            }
            _ => {}
        }
    }

    /// It ended by itself, or by a signal when `code` is negative.
    fn end(&mut self, now: Instant, code: i32, stamp: &str, log: &mut String) {
        let how = if code < 0 { "terminated by SIGKILL".to_owned() } else { format!("exit status {code}") };
        let expected = if code == 0 && self.state == ProcessState::Running { "expected" } else { "not expected" };
        *log += &format!("{stamp} exited: {} ({how}; {expected})\n", self.program.name.name);
        self.pid = None;
        self.stopped = Some(now);
        self.due = None;
        if self.state == ProcessState::Starting {
            self.exit_status = 0;
            self.spawn_error = "Exited too quickly".to_owned();
            self.tries += 1;
            if self.tries > self.program.start_retries {
                self.state = ProcessState::Fatal;
            } else {
                self.state = ProcessState::Backoff;
                self.due = Some(now + Duration::from_secs(u64::from(self.tries)));
            }
        } else {
            self.state = ProcessState::Exited;
            self.exit_status = code;
            self.due = (code != 0).then_some(now + REVIVAL);
        }
    }
}

#[async_trait]
impl Supervisor for FakeSupervisor {
    async fn state(&self) -> Result<DaemonState, SupervisorError> {
        self.call(|_, _| Ok(DaemonState::Running))
    }

    async fn identity(&self) -> Result<Identity, SupervisorError> {
        self.call(|_, _| Ok(Identity { pid: 999, identification: "fake".to_owned(), version: "4.2.5".to_owned() }))
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>, SupervisorError> {
        self.call(|inner, now| Ok(inner.processes.values().map(|p| self.info(p, now)).collect()))
    }

    async fn process(&self, name: &ProcessName) -> Result<ProcessInfo, SupervisorError> {
        self.with_process(name, |process, _, _, now| Ok(self.info(process, now)))
    }

    async fn start(&self, name: &ProcessName) -> Result<(), SupervisorError> {
        self.with_process(name, |process, log, last_pid, now| {
            let namespec = name.namespec();
            if process.program.is_missing {
                return Err(refuse(fault::NO_FILE, "NO_FILE", &namespec));
            }
            match process.state {
                ProcessState::Running | ProcessState::Starting | ProcessState::Backoff => {
                    Err(refuse(fault::ALREADY_STARTED, "ALREADY_STARTED", &namespec))
                }
                ProcessState::Stopping => Err(refuse(fault::FAILED, "FAILED", &namespec)),
                _ => {
                    process.tries = 0;
                    process.spawn(now, &self.stamp(now), log, last_pid);
                    Ok(())
                }
            }
        })
    }

    async fn stop(&self, name: &ProcessName) -> Result<(), SupervisorError> {
        self.with_process(name, |process, _, _, now| match process.state {
            ProcessState::Running | ProcessState::Starting => {
                process.state = ProcessState::Stopping;
                process.ignores = process.program.ends_in.is_none();
                process.due = Some(now + process.program.ends_in.unwrap_or(process.program.stop_wait));
                Ok(())
            }
            ProcessState::Backoff => {
                process.state = ProcessState::Stopped;
                process.due = None;
                Ok(())
            }
            _ => Err(refuse(fault::NOT_RUNNING, "NOT_RUNNING", &name.namespec())),
        })
    }

    async fn signal(&self, name: &ProcessName, _signal: &str) -> Result<(), SupervisorError> {
        self.with_process(name, |process, _, _, now| match process.state {
            ProcessState::Running | ProcessState::Starting => Ok(()),
            ProcessState::Stopping => {
                // The signal that was lost the first time arrives now.
                process.ignores = false;
                process.due = process.due.map(|due| due.min(now + Duration::from_millis(50)));
                Ok(())
            }
            _ => Err(refuse(fault::NOT_RUNNING, "NOT_RUNNING", &name.namespec())),
        })
    }

    async fn reread(&self) -> Result<ConfigDiff, SupervisorError> {
        self.call(|inner, _| {
            if let Some(text) = &inner.syntax_error {
                return Err(refuse(fault::CANT_REREAD, "CANT_REREAD", text));
            }
            inner.parsed = inner.files.clone();
            let group_of = |programs: &[FakeProgram], group: &str| -> Vec<FakeProgram> {
                programs.iter().filter(|p| p.name.group == group).cloned().collect()
            };
            let loaded: Vec<_> = inner.processes.values().map(|p| p.program.clone()).collect();
            let groups = |programs: &[FakeProgram]| -> std::collections::BTreeSet<String> {
                programs.iter().map(|p| p.name.group.clone()).collect()
            };
            let (old, new) = (groups(&loaded), groups(&inner.parsed));
            let sorted = |mut programs: Vec<FakeProgram>| {
                programs.sort_by(|a, b| a.name.cmp(&b.name));
                programs
            };
            let is_changed =
                |group: &&String| sorted(group_of(&loaded, group)) != sorted(group_of(&inner.parsed, group));
            Ok(ConfigDiff {
                added: new.difference(&old).cloned().collect(),
                changed: new.intersection(&old).filter(is_changed).cloned().collect(),
                removed: old.difference(&new).cloned().collect(),
            })
        })
    }

    async fn add_group(&self, group: &str) -> Result<(), SupervisorError> {
        self.call(|inner, _| {
            if inner.processes.keys().any(|name| name.group == group) {
                return Err(refuse(fault::ALREADY_ADDED, "ALREADY_ADDED", group));
            }
            let members: Vec<_> = inner.parsed.iter().filter(|p| p.name.group == group).cloned().collect();
            if members.is_empty() {
                return Err(refuse(fault::BAD_NAME, "BAD_NAME", group));
            }
            inner.processes.extend(members.into_iter().map(|p| (p.name.clone(), Process::new(p))));
            Ok(())
        })
    }

    async fn remove_group(&self, group: &str) -> Result<(), SupervisorError> {
        self.call(|inner, _| {
            let mut members = inner.processes.iter().filter(|(name, _)| name.group == group).peekable();
            if members.peek().is_none() {
                return Err(refuse(fault::BAD_NAME, "BAD_NAME", group));
            }
            if members.any(|(_, p)| !p.state.is_down()) {
                return Err(refuse(fault::STILL_RUNNING, "STILL_RUNNING", group));
            }
            inner.processes.retain(|name, _| name.group != group);
            Ok(())
        })
    }

    async fn tail_log(&self, name: &ProcessName, _offset: i64, _length: i64) -> Result<LogTail, SupervisorError> {
        // As the real one does for a program without a log file.
        self.with_process(name, |_, _, _, _| Ok(LogTail { text: String::new(), next_offset: 0, overflow: false }))
    }

    async fn read_main_log(&self, length: i64) -> Result<String, SupervisorError> {
        self.call(|inner, _| {
            let keep = usize::try_from(length).unwrap_or_default();
            let from = inner.log.len().saturating_sub(keep);
            Ok(inner.log.get(from..).unwrap_or_default().to_owned())
        })
    }

    async fn shutdown(&self) -> Result<(), SupervisorError> {
        self.call(|inner, _| {
            inner.is_down = true;
            inner.processes.clear();
            Ok(())
        })
    }
}

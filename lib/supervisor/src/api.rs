//! What supervisord offers: the trait that everything above it is written against, and its types.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::http::HttpError;
use crate::xmlrpc::{CodecError, Fault, fault};

/// Controls a supervisord: the real one ([`crate::UnixClient`]) or the fake with its rules
/// ([`crate::fake::FakeSupervisor`]).
#[async_trait]
pub trait Supervisor: Send + Sync {
    /// Whether supervisord itself runs, stops or restarts.
    async fn state(&self) -> Result<DaemonState, SupervisorError>;
    /// Which supervisord answers.
    async fn identity(&self) -> Result<Identity, SupervisorError>;
    /// Every process of every group that is loaded.
    async fn processes(&self) -> Result<Vec<ProcessInfo>, SupervisorError>;
    /// One process.
    async fn process(&self, name: &ProcessName) -> Result<ProcessInfo, SupervisorError>;
    /// Starts a process and does not wait until it stayed up.
    async fn start(&self, name: &ProcessName) -> Result<(), SupervisorError>;
    /// Sends a process its stop signal and does not wait until it ended.
    async fn stop(&self, name: &ProcessName) -> Result<(), SupervisorError>;
    /// Sends a signal, `TERM` or a number, to a process that runs or stops.
    async fn signal(&self, name: &ProcessName, signal: &str) -> Result<(), SupervisorError>;
    /// Parses the configuration and says how it differs from what is loaded; loads nothing.
    async fn reread(&self) -> Result<ConfigDiff, SupervisorError>;
    /// Loads a group from the configuration parsed last.
    async fn add_group(&self, group: &str) -> Result<(), SupervisorError>;
    /// Unloads a group none of whose processes runs.
    async fn remove_group(&self, group: &str) -> Result<(), SupervisorError>;
    /// The end of what a process wrote to its standard output, from `offset` on.
    async fn tail_log(&self, name: &ProcessName, offset: i64, length: i64) -> Result<LogTail, SupervisorError>;
    /// The last `length` bytes of supervisord's own log.
    async fn read_main_log(&self, length: i64) -> Result<String, SupervisorError>;
    /// Stops everything and ends supervisord; answers before that has happened.
    async fn shutdown(&self) -> Result<(), SupervisorError>;
}

/// Tells why a call to supervisord failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// No supervisord answers on the socket.
    #[error("supervisord is not running ({socket}: {source})", socket = .socket.display())]
    NotRunning {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The caller may not use the socket: nothing is known about supervisord.
    #[error("not permitted to ask supervisord at {socket}: call it as root or as {owner}", socket = .socket.display())]
    NotPermitted {
        /// The socket that was tried.
        socket: PathBuf,
        /// Who may use it.
        owner: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// supervisord understood the call and refused it.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// supervisord did not answer in time.
    #[error("supervisord did not answer {method} within {limit:?}")]
    Timeout {
        /// The call.
        method: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The exchange failed.
    #[error("{method}: {source}")]
    Http {
        /// The call.
        method: &'static str,
        /// What failed.
        source: HttpError,
    },
    /// The answer could not be read.
    #[error("{method}: {source}")]
    Codec {
        /// The call.
        method: &'static str,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The answer has another shape than supervisord's documentation says.
    #[error("{method}: {missing} is missing from the answer")]
    Shape {
        /// The call.
        method: &'static str,
        /// What was looked for.
        missing: &'static str,
    },
}

impl SupervisorError {
    /// The code of the fault, when supervisord refused the call.
    #[must_use]
    pub const fn fault_code(&self) -> Option<i64> {
        match self {
            Self::Fault(fault) => Some(fault.code),
            _ => None,
        }
    }

    /// Whether no supervisord answers on the socket.
    #[must_use]
    pub const fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    /// Whether the same call can succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Timeout { .. } | Self::Http { .. } => true,
            Self::Fault(f) => f.code == fault::SHUTDOWN_STATE,
            Self::NotPermitted { .. } | Self::Codec { .. } | Self::Shape { .. } => false,
        }
    }
}

/// Says what supervisord itself is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum DaemonState {
    /// Everything is as it should be.
    Running,
    /// It restarts.
    Restarting,
    /// It stops.
    Shutdown,
    /// It failed.
    Fatal,
}

/// Identifies the supervisord that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process id.
    pub pid: i32,
    /// Its `identifier=`.
    pub identification: String,
    /// Its version.
    pub version: String,
}

/// Names a process: its group and its name in it; a lone program is a group of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ProcessName {
    /// The group.
    pub group: String,
    /// The name in the group.
    pub name: String,
}

impl ProcessName {
    /// Names a process of a group.
    #[must_use]
    pub fn new(group: impl Into<String>, name: impl Into<String>) -> Self {
        Self { group: group.into(), name: name.into() }
    }

    /// Names a lone program's process.
    #[must_use]
    pub fn lone(name: &str) -> Self {
        Self::new(name, name)
    }

    /// The form that supervisord's calls take.
    #[must_use]
    pub fn namespec(&self) -> String {
        format!("{}:{}", self.group, self.name)
    }
}

/// Is text that names no process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a process")]
pub struct BadProcessName(String);

impl FromStr for ProcessName {
    type Err = BadProcessName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, name) = text.split_once(':').unwrap_or((text, text));
        let fine = |part: &str| !part.is_empty() && !part.contains([':', '*']) && !part.contains(char::is_whitespace);
        if fine(group) && fine(name) { Ok(Self::new(group, name)) } else { Err(BadProcessName(text.to_owned())) }
    }
}

impl TryFrom<String> for ProcessName {
    type Error = BadProcessName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProcessName> for String {
    fn from(name: ProcessName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group == self.name { f.pad(&self.name) } else { f.pad(&self.namespec()) }
    }
}

/// Is supervisord's state of a process. `Running` says no more than that it stayed up for `startsecs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProcessState {
    /// Stopped, or never started.
    Stopped,
    /// Started less than `startsecs` ago.
    Starting,
    /// Up since at least `startsecs`.
    Running,
    /// Ended within `startsecs`; supervisord waits before it tries again.
    Backoff,
    /// Has been sent its stop signal.
    Stopping,
    /// Ended by itself.
    Exited,
    /// Could not be started; only an explicit start changes that.
    Fatal,
    /// supervisord does not know.
    Unknown,
}

impl ProcessState {
    /// The state with supervisord's number.
    #[must_use]
    pub const fn from_code(code: i64) -> Self {
        match code {
            0 => Self::Stopped,
            10 => Self::Starting,
            20 => Self::Running,
            30 => Self::Backoff,
            40 => Self::Stopping,
            100 => Self::Exited,
            200 => Self::Fatal,
            _ => Self::Unknown,
        }
    }

    /// supervisord's word for the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Backoff => "BACKOFF",
            Self::Stopping => "STOPPING",
            Self::Exited => "EXITED",
            Self::Fatal => "FATAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Whether there is a process now.
    #[must_use]
    pub const fn has_process(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }

    /// Whether supervisord has nothing more to do for it: no process and no attempt to come.
    #[must_use]
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Stopped | Self::Exited | Self::Fatal | Self::Unknown)
    }

    /// Whether the program failed.
    #[must_use]
    pub const fn is_failed(self) -> bool {
        matches!(self, Self::Backoff | Self::Fatal)
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Is what supervisord tells about a process. Times are Unix seconds, 0 for never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Which process.
    pub name: ProcessName,
    /// Its state.
    pub state: ProcessState,
    /// Its process id, while it has one.
    pub pid: Option<i32>,
    /// When it was started last.
    pub start: i64,
    /// When it ended last.
    pub stop: i64,
    /// supervisord's clock.
    pub now: i64,
    /// What happened at the last spawn that failed; empty otherwise.
    pub spawn_error: String,
    /// The exit code; meaningful in state `Exited` only: a process that ends within `startsecs` reports 0.
    pub exit_status: i64,
    /// Where its standard output goes; `None` when nowhere.
    pub stdout_log: Option<PathBuf>,
}

impl ProcessInfo {
    /// How long it has been up.
    #[must_use]
    pub fn uptime(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.now.saturating_sub(self.start)).unwrap_or(0);
        self.state.has_process().then(|| Duration::from_secs(seconds))
    }
}

/// Says how the configuration files differ from what is loaded, by group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigDiff {
    /// Groups in the files that are not loaded.
    pub added: Vec<String>,
    /// Groups that are loaded with another configuration.
    pub changed: Vec<String>,
    /// Groups that are loaded and no longer in the files.
    pub removed: Vec<String>,
}

/// Is a piece of a log and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTail {
    /// The text.
    pub text: String,
    /// Pass this as the next offset.
    pub next_offset: i64,
    /// Whether text before this piece was left out.
    pub overflow: bool,
}

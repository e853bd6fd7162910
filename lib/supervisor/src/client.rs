//! The real supervisord, over its unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::api::{
    ConfigDiff, DaemonState, Identity, LogTail, ProcessInfo, ProcessName, ProcessState, Supervisor, SupervisorError,
};
use crate::http::{self, HttpError};
use crate::privileges;
use crate::programs::normalise;
use crate::xmlrpc::{Value, decode_response, encode_call};

/// How long an answer may take. supervisord answers in milliseconds; a machine under load is slower.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Speaks to the supervisord that listens on a unix socket.
#[derive(Debug, Clone)]
pub struct UnixClient {
    socket: PathBuf,
    limit: Duration,
}

impl UnixClient {
    /// Speaks to the supervisord on `socket`; connects at each call.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), limit: CALL_LIMIT }
    }

    /// Sets how long an answer may take.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn call(&self, method: &'static str, params: &[Value]) -> Result<Value, SupervisorError> {
        let codec = |source| SupervisorError::Codec { method, source };
        let body = encode_call(method, params).map_err(codec)?;
        let exchange = tokio::time::timeout(self.limit, http::post(&self.socket, &body)).await;
        let answer = exchange.map_err(|_| SupervisorError::Timeout { method, limit: self.limit })?;
        let answer = answer.map_err(|source| match source {
            HttpError::Connect(source) => unreachable_because(&self.socket, source),
            source => SupervisorError::Http { method, source },
        })?;
        Ok(decode_response(&answer).map_err(codec)??)
    }

    async fn text(&self, method: &'static str) -> Result<String, SupervisorError> {
        let value = self.call(method, &[]).await?;
        value.as_str().map(str::to_owned).ok_or(SupervisorError::Shape { method, missing: "text" })
    }
}

#[async_trait]
impl Supervisor for UnixClient {
    async fn state(&self) -> Result<DaemonState, SupervisorError> {
        let method = "supervisor.getState";
        let value = self.call(method, &[]).await?;
        match value.get("statecode").and_then(Value::as_int) {
            Some(1) => Ok(DaemonState::Running),
            Some(0) => Ok(DaemonState::Restarting),
            Some(-1) => Ok(DaemonState::Shutdown),
            Some(_) => Ok(DaemonState::Fatal),
            None => Err(SupervisorError::Shape { method, missing: "statecode" }),
        }
    }

    async fn identity(&self) -> Result<Identity, SupervisorError> {
        let method = "supervisor.getPID";
        let pid = self.call(method, &[]).await?.as_int().and_then(|pid| i32::try_from(pid).ok());
        Ok(Identity {
            pid: pid.ok_or(SupervisorError::Shape { method, missing: "pid" })?,
            identification: self.text("supervisor.getIdentification").await?,
            version: self.text("supervisor.getSupervisorVersion").await?,
        })
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>, SupervisorError> {
        let method = "supervisor.getAllProcessInfo";
        let value = self.call(method, &[]).await?;
        let all = value.as_array().ok_or(SupervisorError::Shape { method, missing: "the list" })?;
        all.iter().map(|info| read_info(method, info)).collect()
    }

    async fn process(&self, name: &ProcessName) -> Result<ProcessInfo, SupervisorError> {
        let method = "supervisor.getProcessInfo";
        read_info(method, &self.call(method, &[name.namespec().as_str().into()]).await?)
    }

    async fn start(&self, name: &ProcessName) -> Result<(), SupervisorError> {
        self.call("supervisor.startProcess", &[name.namespec().as_str().into(), false.into()]).await.map(drop)
    }

    async fn stop(&self, name: &ProcessName) -> Result<(), SupervisorError> {
        self.call("supervisor.stopProcess", &[name.namespec().as_str().into(), false.into()]).await.map(drop)
    }

    async fn signal(&self, name: &ProcessName, signal: &str) -> Result<(), SupervisorError> {
        self.call("supervisor.signalProcess", &[name.namespec().as_str().into(), signal.into()]).await.map(drop)
    }

    async fn reread(&self) -> Result<ConfigDiff, SupervisorError> {
        let method = "supervisor.reloadConfig";
        let value = self.call(method, &[]).await?;
        let lists = value.as_array().and_then(|outer| outer.first()).and_then(Value::as_array);
        let names = |at: usize| -> Option<Vec<String>> {
            let list = lists?.get(at)?.as_array()?;
            list.iter().map(|name| name.as_str().map(str::to_owned)).collect()
        };
        match (names(0), names(1), names(2)) {
            (Some(added), Some(changed), Some(removed)) => Ok(ConfigDiff { added, changed, removed }),
            _ => Err(SupervisorError::Shape { method, missing: "the three lists" }),
        }
    }

    async fn add_group(&self, group: &str) -> Result<(), SupervisorError> {
        self.call("supervisor.addProcessGroup", &[group.into()]).await.map(drop)
    }

    async fn remove_group(&self, group: &str) -> Result<(), SupervisorError> {
        self.call("supervisor.removeProcessGroup", &[group.into()]).await.map(drop)
    }

    async fn tail_log(&self, name: &ProcessName, offset: i64, length: i64) -> Result<LogTail, SupervisorError> {
        let method = "supervisor.tailProcessStdoutLog";
        let value = self.call(method, &[name.namespec().as_str().into(), offset.into(), length.into()]).await?;
        let parts = value.as_array().unwrap_or_default();
        let text = parts.first().and_then(Value::as_str);
        let next_offset = parts.get(1).and_then(Value::as_int);
        let overflow = parts.get(2).and_then(Value::as_bool);
        match (text, next_offset, overflow) {
            (Some(text), Some(next_offset), Some(overflow)) => {
                Ok(LogTail { text: text.to_owned(), next_offset, overflow })
            }
            _ => Err(SupervisorError::Shape { method, missing: "text, offset or overflow" }),
        }
    }

    async fn read_main_log(&self, length: i64) -> Result<String, SupervisorError> {
        let method = "supervisor.readLog";
        let value = self.call(method, &[(-length.abs()).into(), 0.into()]).await?;
        value.as_str().map(str::to_owned).ok_or(SupervisorError::Shape { method, missing: "text" })
    }

    async fn shutdown(&self) -> Result<(), SupervisorError> {
        self.call("supervisor.shutdown", &[]).await.map(drop)
    }
}

/// What it means that nobody could be reached on the socket. Without the permission to look, nothing is known: to say
/// that supervisord is down would be a lie.
fn unreachable_because(socket: &Path, source: io::Error) -> SupervisorError {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            SupervisorError::NotPermitted { owner: privileges::owner_of(&socket), socket, source }
        }
        _ => SupervisorError::NotRunning { socket, source },
    }
}

fn read_info(method: &'static str, value: &Value) -> Result<ProcessInfo, SupervisorError> {
    let int = |name| value.get(name).and_then(Value::as_int);
    let text = |name| value.get(name).and_then(Value::as_str);
    let missing = |missing| SupervisorError::Shape { method, missing };
    let pid = int("pid").ok_or(missing("pid"))?;
    Ok(ProcessInfo {
        name: ProcessName::new(text("group").ok_or(missing("group"))?, text("name").ok_or(missing("name"))?),
        state: ProcessState::from_code(int("state").ok_or(missing("state"))?),
        pid: i32::try_from(pid).ok().filter(|pid| *pid > 0),
        start: int("start").ok_or(missing("start"))?,
        stop: int("stop").ok_or(missing("stop"))?,
        now: int("now").ok_or(missing("now"))?,
        // The hint is for those who do not see the log beside it.
        spawn_error: text("spawnerr").unwrap_or_default().replace(" (process log may have details)", ""),
        exit_status: int("exitstatus").unwrap_or_default(),
        stdout_log: text("stdout_logfile").filter(|path| !path.is_empty()).map(|path| normalise(Path::new(path))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root may connect to everything, so what the system says to others is put in by hand.
    #[test]
    fn a_socket_that_may_not_be_used_does_not_count_as_down() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("var/run/supervisor.sock");
        let refused = unreachable_because(&socket, io::ErrorKind::PermissionDenied.into());
        assert!(!refused.is_not_running() && !refused.is_retryable());
        let text = refused.to_string();
        let start = format!("not permitted to ask supervisord at {}: call it as root or as ", socket.display());
        assert_eq!(text.strip_prefix(&start), Some(privileges::owner_of(dir.path()).as_str()), "{text}");
        for down in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            assert!(unreachable_because(&socket, down.into()).is_not_running());
        }
    }
}

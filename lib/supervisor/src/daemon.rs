//! supervisord itself: brought up when it is needed, ended when it is not.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{DaemonState, Identity, Supervisor, SupervisorError};
use crate::client::UnixClient;
use crate::layout::Layout;
use crate::lock;

/// How often it is looked whether supervisord has come up or gone.
const POLL: Duration = Duration::from_millis(10);
/// How long supervisord may take to come up: 0.3 s on an idle machine, 1 s after a crash.
const UP_LIMIT: Duration = Duration::from_secs(20);
/// How long an answer to "are you there" may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Longest path that a unix socket can have, and what supervisord adds to it while it binds.
const MAX_SOCKET_BYTES: usize = 107 - ".1234567".len();

/// Starts and ends the supervisord of a prefix.
#[derive(Debug, Clone)]
pub struct Daemon {
    layout: Layout,
    client: UnixClient,
}

/// Says what had to be done to have supervisord up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Nothing: it was up.
    WasUp,
    /// It was started.
    Started,
}

/// Tells why supervisord could not be started or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// There is no supervisord on this machine.
    #[error(
        "supervisord is not installed: neither {prefix}/bin/supervisord nor /usr/bin/supervisord nor one in the PATH; \
         install Debian's package \"supervisor\"",
        prefix = .0.display()
    )]
    NotInstalled(PathBuf),
    /// The prefix holds no configuration for it.
    #[error("{conf} is missing: this prefix holds no installation", conf = .0.display())]
    NotConfigured(PathBuf),
    /// The socket's path does not fit.
    #[error("the path of the socket is longer than {MAX_SOCKET_BYTES} bytes, choose a shorter prefix: {path}", path = .0.display())]
    PathTooLong(PathBuf),
    /// It ended instead of coming up.
    #[error("supervisord did not start: {said}\nits log: {log}", log = .log.display())]
    Refused {
        /// What it said.
        said: String,
        /// Its log.
        log: PathBuf,
    },
    /// It did not come up, or did not end, in time.
    #[error("supervisord did not {what} within {limit:?}; its log: {log}", log = .log.display())]
    TooSlow {
        /// What was expected.
        what: &'static str,
        /// How long was waited.
        limit: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// A call failed.
    #[error(transparent)]
    Call(#[from] SupervisorError),
    /// A file could not be used.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl Daemon {
    /// The supervisord of a prefix.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let client = UnixClient::new(layout.socket());
        Self { layout, client }
    }

    /// Speaks to it.
    #[must_use]
    pub const fn client(&self) -> &UnixClient {
        &self.client
    }

    /// Which supervisord answers; `None` when none does.
    ///
    /// # Errors
    /// When something listens on the socket and does not answer as supervisord does.
    pub async fn identity(&self) -> Result<Option<Identity>, SupervisorError> {
        match self.client.clone().with_limit(ANSWER_LIMIT).identity().await {
            Ok(identity) => Ok(Some(identity)),
            Err(error) if error.is_not_running() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that supervisord is up. Any number of processes may ask at once: one starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn ensure_up(&self) -> Result<Upkeep, DaemonError> {
        if self.is_up().await? {
            return Ok(Upkeep::WasUp);
        }
        let path = self.layout.daemon_lock();
        let held = lock::acquire(&path, |_| ()).await;
        let _held = held.map_err(|source| DaemonError::File { path, source })?;
        let deadline = Instant::now() + UP_LIMIT;
        loop {
            match self.client.state().await {
                Ok(DaemonState::Running) => return Ok(Upkeep::WasUp),
                Err(error) if error.is_not_running() => break,
                Err(error) if !error.is_retryable() || Instant::now() > deadline => return Err(error.into()),
                // It is on its way down: a new one cannot bind before it is gone.
                Ok(_) if Instant::now() > deadline => return Err(self.too_slow("end")),
                Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
        self.spawn().await?;
        Ok(Upkeep::Started)
    }

    async fn is_up(&self) -> Result<bool, DaemonError> {
        match self.client.clone().with_limit(ANSWER_LIMIT).state().await {
            Ok(state) => Ok(state == DaemonState::Running),
            Err(error) if error.is_not_running() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn spawn(&self) -> Result<(), DaemonError> {
        let conf = self.layout.supervisord_conf();
        if !conf.is_file() {
            return Err(DaemonError::NotConfigured(conf));
        }
        if self.layout.socket().as_os_str().len() > MAX_SOCKET_BYTES {
            return Err(DaemonError::PathTooLong(self.layout.socket()));
        }
        let stderr_path = self.layout.supervisord_stderr();
        let stderr = File::create(&stderr_path);
        let stderr = stderr.map_err(|source| DaemonError::File { path: stderr_path.clone(), source })?;
        let mut child = self.command(&conf).stderr(stderr).spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DaemonError::NotInstalled(self.layout.prefix().to_owned()),
            _ => DaemonError::File { path: self.executable(), source },
        })?;
        let deadline = Instant::now() + UP_LIMIT;
        loop {
            if self.client.state().await.is_ok_and(|state| state == DaemonState::Running) {
                // Reaps the process that made itself a daemon; one that did not stays until we end.
                let _ = child.try_wait();
                return Ok(());
            }
            let ended = child.try_wait().map_err(|source| DaemonError::File { path: self.executable(), source })?;
            if ended.is_some_and(|status| !status.success()) {
                let said = std::fs::read_to_string(&stderr_path).unwrap_or_default();
                return Err(DaemonError::Refused { said: self.translate(&said), log: self.layout.supervisord_log() });
            }
            if Instant::now() > deadline {
                return Err(self.too_slow("come up"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn executable(&self) -> PathBuf {
        let own = self.layout.prefix().join("bin/supervisord");
        let debian = PathBuf::from("/usr/bin/supervisord");
        // The last one is searched in the PATH by the system.
        [own, debian].into_iter().find(|path| path.is_file()).unwrap_or_else(|| "supervisord".into())
    }

    fn command(&self, conf: &std::path::Path) -> Command {
        let mut command = Command::new(self.executable());
        command.arg("-c").arg(conf).current_dir(self.layout.prefix());
        // A group of its own, so that Ctrl-C does not reach it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("OVERSTORY_HOME", self.layout.prefix());
        // Called from a program that is supervised itself, it must not pass that program's mark on.
        for mark in ["ENABLED", "SERVER_URL", "PROCESS_NAME", "GROUP_NAME"] {
            command.env_remove(format!("SUPERVISOR_{mark}"));
        }
        if let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::Uid::effective()) {
            command.env("HOME", user.dir).env("USER", &user.name).env("LOGNAME", user.name);
        }
        command
    }

    /// supervisord's own words for the cases that people meet, put right.
    fn translate(&self, said: &str) -> String {
        let said = said.trim();
        if said.contains("Another program is already listening") {
            return format!("another supervisord listens on {}", self.layout.socket().display());
        }
        let line = said.lines().find(|line| line.starts_with("Error: ")).unwrap_or(said);
        if line.is_empty() { "it said nothing".to_owned() } else { line.to_owned() }
    }

    fn too_slow(&self, what: &'static str) -> DaemonError {
        DaemonError::TooSlow { what, limit: UP_LIMIT, log: self.layout.supervisord_log() }
    }

    /// Ends supervisord, and with it everything that still runs below it, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn shut_down(&self, limit: Duration) -> Result<(), DaemonError> {
        let path = self.layout.daemon_lock();
        let held = lock::acquire(&path, |_| ()).await;
        let _held = held.map_err(|source| DaemonError::File { path, source })?;
        let Some(identity) = self.identity().await? else { return Ok(()) };
        let started = crate::process_table::started_ticks(identity.pid);
        match self.client.shutdown().await {
            Ok(()) => {}
            // It is ending already.
            Err(error) if error.is_not_running() || error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + limit;
        while crate::process_table::is_running(identity.pid, started) {
            if Instant::now() > deadline {
                return Err(DaemonError::TooSlow { what: "end", limit, log: self.layout.supervisord_log() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

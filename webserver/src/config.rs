//! `etc/webserver.conf`.

use std::net::SocketAddr;
use std::time::Duration;

use overstory_runtime::Home;
use overstory_runtime::config::{self, ConfigError};
use serde::Deserialize;

/// The name of the file in `etc`.
pub const FILE: &str = "webserver.conf";

/// What the web server needs to know, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Threads that handle requests.
    pub workers: usize,
    /// Connections at a time; more wait in the backlog.
    pub max_connections: usize,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Within which a request's head has to arrive.
    pub head_timeout: Duration,
    /// Within which a request's body has to arrive.
    pub body_timeout: Duration,
    /// Within which the store or the broker has to answer.
    pub answer_timeout: Duration,
    /// How long requests in flight may take once the program is to stop.
    pub shutdown_timeout: Duration,
    /// The largest body of events, in bytes.
    pub max_body_bytes: usize,
    /// The most events in one body.
    pub max_events: usize,
    /// How the callers are known.
    pub auth: AuthSettings,
    /// Which groups of routes there are.
    pub webservices: Webservices,
    /// Events that wait while the broker is away, in bytes.
    pub spool_bytes: u64,
    /// An ended alarm counts as recent for so many seconds.
    pub recent_s: i64,
    /// Where the archive of events is; `None` when there is none.
    pub archive: Option<ArchiveSettings>,
    /// Where `/metrics` is.
    pub admin_listen: SocketAddr,
}

/// Where the archive of events is. Relative paths count from the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// The nodes file, with neo ports.
    pub nodes: String,
    /// The file with this program's name and key.
    pub credentials: String,
}

/// How the callers are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// How long a login is valid, in seconds.
    pub session_s: i64,
    /// How long verified basic credentials are remembered.
    pub basic_cache: Duration,
    /// How long accounts, sessions and keys are remembered.
    pub cache: Duration,
    /// Passwords that are checked at the same time.
    pub password_checks: usize,
    /// Failed logins of one account from one address before it has to wait.
    pub failures_allowed: u32,
    /// The longest wait.
    pub slowest: Duration,
}

/// Which groups of routes there are; a group that is switched off answers 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webservices {
    /// `/api/v4/event`.
    pub event: bool,
    /// `/api/v4/events`.
    pub events: bool,
    /// `/api/v4/alarms` and `/api/v4/alarm-details`.
    pub alarms: bool,
    /// `/api/v4/entities`.
    pub entities: bool,
    /// `/api/v4/metrics`.
    pub metrics: bool,
    /// `/api/v4/healthcheck`.
    pub healthcheck: bool,
    /// `/api/v4/services`.
    pub services: bool,
}

impl Default for Webservices {
    fn default() -> Self {
        Self {
            event: true,
            events: true,
            alarms: true,
            entities: true,
            metrics: true,
            healthcheck: true,
            services: true,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    server: RawServer,
    auth: RawAuth,
    webservices: Webservices,
    alarms: RawAlarms,
    archive: RawArchive,
    spool: RawSpool,
    admin: RawAdmin,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawServer {
    workers: u64,
    max_connections: u64,
    keep_alive_s: u64,
    head_timeout_s: u64,
    body_timeout_s: u64,
    answer_timeout_s: u64,
    shutdown_timeout_s: u64,
    max_body_bytes: u64,
    max_events: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAuth {
    session_s: u64,
    basic_cache_s: u64,
    cache_s: u64,
    password_checks: u64,
    failures_allowed: u64,
    slowest_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAlarms {
    recent_hours: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawArchive {
    enabled: bool,
    nodes: String,
    credentials: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSpool {
    max_bytes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAdmin {
    listen: String,
}

impl Default for RawServer {
    fn default() -> Self {
        Self {
            workers: 2,
            max_connections: 512,
            keep_alive_s: 15,
            head_timeout_s: 5,
            body_timeout_s: 30,
            answer_timeout_s: 10,
            shutdown_timeout_s: 10,
            max_body_bytes: 5 << 20,
            max_events: 1000,
        }
    }
}

impl Default for RawAuth {
    fn default() -> Self {
        Self {
            session_s: 43_200,
            basic_cache_s: 60,
            cache_s: 5,
            password_checks: 2,
            failures_allowed: 5,
            slowest_s: 60,
        }
    }
}

impl Default for RawAlarms {
    fn default() -> Self {
        Self { recent_hours: 720 }
    }
}

impl Default for RawArchive {
    fn default() -> Self {
        Self {
            enabled: false,
            nodes: "etc/nodes/logfiles.nodes".to_owned(),
            credentials: "etc/secrets/logfiles.credentials".to_owned(),
        }
    }
}

impl Default for RawSpool {
    fn default() -> Self {
        Self { max_bytes: 64 << 20 }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8083".to_owned() }
    }
}

/// Refuses a number outside of its range.
struct Checked<'a> {
    section: &'a str,
}

impl Checked<'_> {
    fn number<T: TryFrom<u64>>(&self, key: &str, value: u64, least: u64, greatest: u64) -> Result<T, ConfigError> {
        let refused =
            || ConfigError::value(FILE, self.section, key, value, &format!("a number from {least} to {greatest}"));
        if !(least..=greatest).contains(&value) {
            return Err(refused());
        }
        T::try_from(value).map_err(|_| refused())
    }

    fn seconds(&self, key: &str, value: u64, least: u64, greatest: u64) -> Result<Duration, ConfigError> {
        self.number(key, value, least, greatest).map(Duration::from_secs)
    }
}

impl Settings {
    /// Reads the file and what the environment overrides in it.
    ///
    /// # Errors
    /// The file is missing or a value is not allowed.
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        Self::validated(config::load(home, FILE, "WEBSERVER", &[])?)
    }

    fn validated(raw: Raw) -> Result<Self, ConfigError> {
        let Raw { server, auth, webservices, alarms, archive, spool, admin } = raw;
        let RawArchive { enabled, nodes, credentials } = archive;
        for (key, value) in [("nodes", &nodes), ("credentials", &credentials)] {
            if enabled && value.is_empty() {
                return Err(ConfigError::value(FILE, "archive", key, value, "a file"));
            }
        }
        let at = Checked { section: "server" };
        let login = Checked { section: "auth" };
        Ok(Self {
            workers: at.number("workers", server.workers, 1, 64)?,
            max_connections: at.number("max_connections", server.max_connections, 8, 65_536)?,
            keep_alive: at.seconds("keep_alive_s", server.keep_alive_s, 1, 3600)?,
            head_timeout: at.seconds("head_timeout_s", server.head_timeout_s, 1, 300)?,
            body_timeout: at.seconds("body_timeout_s", server.body_timeout_s, 1, 3600)?,
            answer_timeout: at.seconds("answer_timeout_s", server.answer_timeout_s, 1, 300)?,
            shutdown_timeout: at.seconds("shutdown_timeout_s", server.shutdown_timeout_s, 1, 20)?,
            max_body_bytes: at.number("max_body_bytes", server.max_body_bytes, 1024, 64 << 20)?,
            max_events: at.number("max_events", server.max_events, 1, 100_000)?,
            auth: AuthSettings {
                session_s: login.number("session_s", auth.session_s, 60, 366 * 86_400)?,
                basic_cache: login.seconds("basic_cache_s", auth.basic_cache_s, 1, 3600)?,
                cache: login.seconds("cache_s", auth.cache_s, 1, 60)?,
                password_checks: login.number("password_checks", auth.password_checks, 1, 64)?,
                failures_allowed: login.number("failures_allowed", auth.failures_allowed, 1, 1000)?,
                slowest: login.seconds("slowest_s", auth.slowest_s, 1, 3600)?,
            },
            webservices,
            spool_bytes: Checked { section: "spool" }.number("max_bytes", spool.max_bytes, 1 << 20, 1 << 40)?,
            recent_s: Checked { section: "alarms" }.number::<i64>("recent_hours", alarms.recent_hours, 0, 87_600)?
                * 3600,
            archive: enabled.then_some(ArchiveSettings { nodes, credentials }),
            admin_listen: admin.listen.parse().map_err(|_| {
                ConfigError::value(FILE, "admin", "listen", &admin.listen, "ADDRESS:PORT, such as 127.0.0.1:8083")
            })?,
        })
    }
}

impl Default for Settings {
    /// What an empty file means.
    fn default() -> Self {
        match Self::validated(Raw::default()) {
            Ok(settings) => settings,
            // The defaults are constants, and a test validates them.
            Err(error) => unreachable!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn load(text: &str) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/webserver.conf"), text).unwrap();
        Settings::load(&Home::at(dir.path()))
    }

    #[test]
    fn the_shipped_file_states_the_defaults() {
        let shipped = include_str!("../../etc/webserver.conf");
        assert_eq!(load(shipped).unwrap(), load("").unwrap());
        assert_eq!(load("").unwrap(), Settings::default());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, part) in [
            ("[server]\nworkers = 0", "[server] workers = 0: a number from 1 to 64"),
            ("[server]\nprot = 1", "prot"),
            ("[auth]\nsession_s = 1", "session_s"),
            ("[webservices]\nalarm = true", "alarm"),
            ("[admin]\nlisten = 'here'", "[admin] listen = here"),
            ("[spool]\nmax_bytes = 1", "max_bytes"),
            ("[archive]\nenabled = true\nnodes = ''", "[archive] nodes"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

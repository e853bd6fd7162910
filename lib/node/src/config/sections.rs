//! The sections that every node and tool has.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, ConfigError};

/// `[Server]`, what all nodes have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSection {
    /// Where neo listens, and what the node calls its address.
    pub address: Ipv4Addr,
    /// The legacy port, by which the node is known; 0 takes a free one.
    pub port: u16,
    /// Whether legacy connections are taken: they are not authenticated.
    pub legacy: bool,
    /// Where legacy listens.
    pub legacy_address: Ipv4Addr,
    /// Where the data is, relative to the working directory.
    pub data_dir: PathBuf,
    /// Connections of both protocols together.
    pub connection_limit: u32,
    /// Connections that wait for being accepted.
    pub backlog: u32,
    /// The control socket.
    pub unix_socket_path: PathBuf,
    /// Where the names and keys of neo clients are.
    pub credentials_path: PathBuf,
    /// Unsent bytes of a connection above which its requests wait.
    pub max_unsent_bytes: usize,
    /// A client with unsent bytes that reads nothing for so long is dropped.
    pub unsent_timeout: Duration,
}

impl ServerSection {
    /// Reads the section.
    ///
    /// # Errors
    /// A key is missing or a value cannot be.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let server = config.section("Server");
        let ipv4 = |text: &str| text.parse::<Ipv4Addr>().ok();
        let path = |key, default: &str| PathBuf::from(server.text(key).unwrap_or(default));
        let directory = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        Ok(Self {
            address: server.required("address", "an IPv4 address", ipv4)?,
            port: server.required_number("port", 0..=u16::MAX)?,
            legacy: server.flag("legacy", true)?,
            legacy_address: server.parsed("legacy_address", "an IPv4 address", ipv4)?.unwrap_or(Ipv4Addr::LOCALHOST),
            data_dir: server.parsed("data_dir", "a directory", directory)?.unwrap_or_else(|| PathBuf::from("data")),
            connection_limit: server.number("connection_limit", 5000, 1..=1_000_000)?,
            backlog: server.number("backlog", 2048, 1..=65_535)?,
            unix_socket_path: socket_path(config, "Server", "unix_socket_path")?
                .ok_or_else(|| missing(config, "Server", "unix_socket_path", "the path of a socket"))?,
            credentials_path: path("credentials_path", "etc/credentials"),
            max_unsent_bytes: server.number("max_unsent_bytes", 1 << 20, 1 << 16..=1 << 30)?,
            unsent_timeout: Duration::from_secs(server.number("unsent_timeout_s", 60, 1..=86_400)?),
        })
    }
}

/// The neo port of a node whose file names it (`[Server] neoport`), and that is known by `port`.
///
/// # Errors
/// The key is missing, or the port is the legacy one.
pub fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError> {
    let server = config.section("Server");
    let neo_port = server.required_number("neoport", 0..=u16::MAX)?;
    if neo_port == port {
        return Err(server.wrong("neoport", "another port than that of the legacy protocol"));
    }
    Ok(neo_port)
}

/// `[STATS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsSection {
    /// Where the lines go.
    pub file: PathBuf,
    /// From one line to the next.
    pub interval: Duration,
}

impl StatsSection {
    /// Reads the section. The keys of collectd's socket are accepted and mean nothing: the platform's report has all
    /// that they sent.
    ///
    /// # Errors
    /// A value cannot be.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let stats = config.section("STATS");
        for key in ["socket_path", "hostname", "app_name", "app_instance", "default_type"] {
            let _ = stats.text(key);
        }
        Ok(Self {
            file: stats.text("file_name").unwrap_or("log/stats.log").into(),
            interval: Duration::from_secs(stats.number("interval", 30, 1..=86_400)?),
        })
    }
}

/// `[Report]`: what the platform is told, and from where on it is told as a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportSection {
    /// Whether anything is reported.
    pub enabled: bool,
    /// The name of this instance.
    pub instance: String,
    /// The name of the nodes that share a hash range; the node's type unless configured.
    pub group: Option<String>,
    /// From one perf event to the next.
    pub interval: Duration,
    /// An unchanged state is said again after this time.
    pub repeat: Duration,
    /// What the spool may take on the disk, in bytes.
    pub spool_bytes: u64,
    /// From where on it is a problem.
    pub thresholds: Thresholds,
}

/// From where on something is a problem. Percentages unless said.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Memory against its limit: minor, major, critical.
    pub memory: [f64; 3],
    /// The age of the last dump, in periods: minor, major.
    pub dump: [f64; 2],
    /// Connections against their limit: minor, major.
    pub connections: [f64; 2],
    /// The number of channels: minor.
    pub channels: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { memory: [80.0, 90.0, 95.0], dump: [1.5, 3.0], connections: [80.0, 95.0], channels: 10_000 }
    }
}

impl ReportSection {
    /// Reads the section; `directory` is the instance's when the section does not name it.
    ///
    /// # Errors
    /// A value cannot be.
    pub fn read(config: &Config, directory: &str) -> Result<Self, ConfigError> {
        let report = config.section("Report");
        let name = |text: &str| {
            let fits = !text.is_empty() && text.len() <= 200 && !text.chars().any(|c| c.is_control() || c == '/');
            fits.then(|| text.to_owned())
        };
        let instance = report.parsed("instance", "a name of at most 200 bytes without slashes", name)?;
        let default = Thresholds::default();
        let percent = |key, default| report.number(key, default, 1.0..=100.0);
        let periods = |key, default| report.number(key, default, 1.0..=1000.0);
        let [minor, major, critical] = default.memory;
        let thresholds = Thresholds {
            memory: [
                percent("memory_warning", minor)?,
                percent("memory_major", major)?,
                percent("memory_critical", critical)?,
            ],
            dump: [periods("dump_warning", default.dump[0])?, periods("dump_major", default.dump[1])?],
            connections: [
                percent("connections_warning", default.connections[0])?,
                percent("connections_major", default.connections[1])?,
            ],
            channels: report.number("channels_warning", default.channels, 1..=u64::MAX)?,
        };
        for (levels, key) in [
            (&thresholds.memory[..], "memory_warning"),
            (&thresholds.dump[..], "dump_warning"),
            (&thresholds.connections[..], "connections_warning"),
        ] {
            if !levels.is_sorted() {
                return Err(report.wrong(key, "at most the level above it"));
            }
        }
        let group = |text: &str| {
            let fits = (1..=100).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            fits.then(|| text.to_owned())
        };
        Ok(Self {
            enabled: report.flag("enabled", true)?,
            group: report.parsed("group", "up to 100 of a-z, 0-9 and -", group)?,
            instance: instance.unwrap_or_else(|| directory.to_owned()),
            interval: Duration::from_secs(report.number("interval_s", 30, 5..=3600)?),
            repeat: Duration::from_secs(report.number("repeat_s", 300, 10..=86_400)?),
            spool_bytes: report.number("spool_bytes", 16 << 20, 1 << 20..=1 << 40)?,
            thresholds,
        })
    }
}

/// What else makes a program operable: `[VERSION]`, `[PidLock]`, `[UNIX_SOCKET]`, and of `[Server]` what a tool has too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationSection {
    /// Whether a terminal shows the live console (`[Server] console`, or `[Stats] console_stats_enabled` as published
    /// for the dmq).
    pub console: bool,
    /// Where `/metrics`, `/healthz` and `/readyz` are (`[Server] admin`).
    pub admin: Option<SocketAddr>,
    /// Whether the version is written to `log/version.log` at each start.
    pub version_log: bool,
    /// The file that holds the process id while the program runs.
    pub pid_lock: Option<PathBuf>,
    /// The socket for `reopen_files` and `show_version`.
    pub socket: Option<PathBuf>,
    /// The permissions of that socket.
    pub socket_mode: Option<u32>,
}

impl OperationSection {
    /// Reads the sections.
    ///
    /// # Errors
    /// A value cannot be.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        let server = config.section("Server");
        Ok(Self {
            console: server.flag("console", config.section("Stats").flag("console_stats_enabled", false)?)?,
            admin: server.parsed("admin", "ADDRESS:PORT", |text| text.parse().ok())?,
            version_log: config.section("VERSION").flag("default_version_log", true)?,
            pid_lock: config.section("PidLock").text("path").map(PathBuf::from),
            socket: socket_path(config, "UNIX_SOCKET", "path")?,
            socket_mode: config.section("UNIX_SOCKET").parsed("mode", "an octal number up to 777", octal)?,
        })
    }
}

/// The path of a unix socket, which the system limits to 107 bytes.
fn socket_path(config: &Config, section: &str, key: &str) -> Result<Option<PathBuf>, ConfigError> {
    let fits = |text: &str| (!text.is_empty() && text.len() <= 107).then(|| PathBuf::from(text));
    config.section(section).parsed(key, "a path of at most 107 bytes", fits)
}

fn missing(config: &Config, section: &str, key: &str, allowed: &str) -> ConfigError {
    config.missing(section, key, allowed)
}

/// The name of the directory that a program works in, its instance's name unless the configuration gives one.
#[must_use]
pub fn directory_name(directory: &Path) -> String {
    let absolute = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    absolute.file_name().map_or_else(|| "unnamed".to_owned(), |name| name.to_string_lossy().into_owned())
}

//! `etc/collectd.conf`: what is collected, how often, and from where on it is an alarm.

use std::net::SocketAddr;
use std::time::Duration;

use overstory_runtime::Home;
use overstory_runtime::config::{self, ConfigError};
use serde::Deserialize;

use crate::threshold::{Levels, Rule};

/// The name of the file in `etc`.
pub const FILE: &str = "collectd.conf";
const MAX_HOSTNAME: usize = 255;
const MAX_PATTERNS: usize = 256;

/// A configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectdConfig {
    /// From one tick to the next.
    pub interval: Duration,
    /// The component's name; the machine's own when empty.
    pub hostname: String,
    /// What is collected.
    pub collect: Collect,
    /// What the spool may take on the disk, in bytes.
    pub spool_bytes: u64,
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub admin: SocketAddr,
    /// From where on it is an alarm.
    pub thresholds: Thresholds,
}

/// What is collected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the file")]
pub struct Collect {
    /// Shares of processor time, in total and by state.
    pub cpu: bool,
    /// The same of each core.
    pub cpu_per_core: bool,
    /// Memory.
    pub memory: bool,
    /// Swap space and its traffic.
    pub swap: bool,
    /// Load averages.
    pub load: bool,
    /// Space and inodes of mounted disks.
    pub filesystems: bool,
    /// Traffic of block devices.
    pub disks: bool,
    /// Partitions too, not only whole devices.
    pub partitions: bool,
    /// Traffic of network interfaces.
    pub network: bool,
    /// Seconds since the machine started.
    pub uptime: bool,
    /// Processes, threads, forks.
    pub processes: bool,
    /// Measure against the limits of the container where they are below the host.
    pub container_limits: bool,
    /// Look for mounted disks again after so many seconds.
    pub list_mounts_every_s: u32,
    /// Interfaces that are left out; `*` stands for anything.
    pub ignore_interfaces: Vec<String>,
    /// Block devices that are left out.
    pub ignore_disks: Vec<String>,
    /// Mount points that are left out.
    pub ignore_mounts: Vec<String>,
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            cpu: true,
            cpu_per_core: false,
            memory: true,
            swap: true,
            load: true,
            filesystems: true,
            disks: true,
            partitions: false,
            network: true,
            uptime: true,
            processes: true,
            container_limits: true,
            list_mounts_every_s: 60,
            ignore_interfaces: vec!["veth*".to_owned()],
            ignore_disks: vec!["loop*".to_owned(), "ram*".to_owned()],
            ignore_mounts: Vec::new(),
        }
    }
}

/// From where on it is an alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// How stubborn the watches are.
    pub rule: Rule,
    /// Processor time in use, in percent.
    pub cpu: Levels,
    /// Memory that cannot be had, in percent.
    pub memory: Levels,
    /// Load of the last minute per core.
    pub load: Levels,
    /// Space or inodes in use, in percent.
    pub disk: Levels,
    /// Other levels for some mount points.
    pub mounts: Vec<(String, Levels)>,
}

impl Thresholds {
    /// The levels of a mount point.
    #[must_use]
    pub fn of_mount(&self, path: &str) -> &Levels {
        self.mounts.iter().find(|(mount, _)| mount == path).map_or(&self.disk, |(_, levels)| levels)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    connector: RawConnector,
    collect: Collect,
    spool: RawSpool,
    admin: RawAdmin,
    thresholds: RawThresholds,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConnector {
    interval_s: u32,
    hostname: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSpool {
    max_mb: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAdmin {
    listen: SocketAddr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawThresholds {
    consecutive: u32,
    hysteresis_percent: f64,
    refresh_s: u32,
    cpu: RawLevels,
    memory: RawLevels,
    load: RawLevels,
    disk: RawLevels,
    mounts: Vec<RawMount>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLevels {
    #[serde(default)]
    minor: f64,
    #[serde(default)]
    major: f64,
    #[serde(default)]
    critical: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMount {
    path: String,
    #[serde(default)]
    minor: f64,
    #[serde(default)]
    major: f64,
    #[serde(default)]
    critical: f64,
}

impl Default for RawConnector {
    fn default() -> Self {
        Self { interval_s: 10, hostname: String::new() }
    }
}

impl Default for RawSpool {
    fn default() -> Self {
        Self { max_mb: 64 }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8084)) }
    }
}

impl Default for RawThresholds {
    fn default() -> Self {
        let levels = |minor, major, critical| RawLevels { minor, major, critical };
        Self {
            consecutive: 3,
            hysteresis_percent: 5.0,
            refresh_s: 300,
            cpu: levels(85.0, 95.0, 99.0),
            memory: levels(80.0, 90.0, 95.0),
            load: levels(2.0, 4.0, 8.0),
            disk: levels(80.0, 90.0, 95.0),
            mounts: Vec::new(),
        }
    }
}

impl CollectdConfig {
    /// Reads `etc/collectd.conf`; `overrides` are `section.key` pairs from the command line.
    ///
    /// # Errors
    /// The file is missing, has a key that is not known, or a value that cannot be.
    pub fn load(home: &Home, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        let raw: Raw = config::load(home, FILE, "COLLECTD", overrides)?;
        raw.validated()
    }
}

impl Default for CollectdConfig {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a test holds the defaults valid")]
        Raw::default().validated().expect("the defaults are valid")
    }
}

impl Raw {
    fn validated(self) -> Result<CollectdConfig, ConfigError> {
        let Self { connector, collect, spool, admin, thresholds } = self;
        in_range("connector", "interval_s", connector.interval_s, 1, 3600, "seconds")?;
        in_range("collect", "list_mounts_every_s", collect.list_mounts_every_s, 1, 86_400, "seconds")?;
        in_range("spool", "max_mb", spool.max_mb, 1, 102_400, "megabytes")?;
        in_range("thresholds", "consecutive", thresholds.consecutive, 1, 1000, "ticks")?;
        in_range("thresholds", "refresh_s", thresholds.refresh_s, 10, 86_400, "seconds")?;
        if !(0.0..=50.0).contains(&thresholds.hysteresis_percent) {
            let value = thresholds.hysteresis_percent;
            return Err(ConfigError::value(FILE, "thresholds", "hysteresis_percent", value, "0 to 50"));
        }
        let hostname = connector.hostname;
        if hostname.len() > MAX_HOSTNAME || hostname.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(ConfigError::value(
                FILE,
                "connector",
                "hostname",
                hostname,
                "at most 255 bytes without blanks, or empty for the machine's own",
            ));
        }
        for (key, patterns) in [
            ("ignore_interfaces", &collect.ignore_interfaces),
            ("ignore_disks", &collect.ignore_disks),
            ("ignore_mounts", &collect.ignore_mounts),
        ] {
            if let Some(pattern) = patterns.iter().find(|pattern| pattern.matches('*').count() > 1) {
                return Err(ConfigError::value(FILE, "collect", key, pattern, "one * at most in each"));
            }
            if patterns.len() > MAX_PATTERNS {
                return Err(ConfigError::value(FILE, "collect", key, patterns.len(), "at most 256 patterns"));
            }
        }
        let mount = |mount: RawMount| {
            let RawMount { path, minor, major, critical } = mount;
            let levels = levels("thresholds.mounts", RawLevels { minor, major, critical }, 100.0)?;
            Ok((path, levels))
        };
        Ok(CollectdConfig {
            interval: Duration::from_secs(connector.interval_s.into()),
            hostname,
            collect,
            spool_bytes: u64::from(spool.max_mb) << 20,
            admin: admin.listen,
            thresholds: Thresholds {
                rule: Rule {
                    hysteresis: thresholds.hysteresis_percent / 100.0,
                    consecutive: thresholds.consecutive,
                    refresh_s: thresholds.refresh_s.into(),
                },
                cpu: levels("thresholds.cpu", thresholds.cpu, 100.0)?,
                memory: levels("thresholds.memory", thresholds.memory, 100.0)?,
                load: levels("thresholds.load", thresholds.load, 10_000.0)?,
                disk: levels("thresholds.disk", thresholds.disk, 100.0)?,
                mounts: thresholds.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
            },
        })
    }
}

fn in_range(section: &str, key: &str, value: u32, min: u32, max: u32, unit: &str) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(FILE, section, key, value, &format!("{min} to {max} {unit}")))
}

fn levels(section: &str, raw: RawLevels, max: f64) -> Result<Levels, ConfigError> {
    let mut floor = 0.0;
    let mut level = |key: &str, value: f64| {
        if value == 0.0 {
            return Ok(None);
        }
        if !(value > floor && value <= max) {
            let allowed = format!("more than {floor} (the level below), at most {max}, or 0 for none");
            return Err(ConfigError::value(FILE, section, key, value, &allowed));
        }
        floor = value;
        Ok(Some(value))
    };
    Ok(Levels {
        minor: level("minor", raw.minor)?,
        major: level("major", raw.major)?,
        critical: level("critical", raw.critical)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use super::*;

    fn load(text: &str) -> Result<CollectdConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc").join(FILE), text).unwrap();
        CollectdConfig::load(&Home::at(directory.path()), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let shipped = include_str!("../../../etc/collectd.conf");
        assert_eq!(load(shipped).unwrap(), CollectdConfig::default());
        assert_eq!(load("").unwrap(), CollectdConfig::default());
        // Every key is there: what is not in the file would be a default that nobody can see.
        for key in
            ["interval_s", "cpu_per_core", "list_mounts_every_s", "ignore_mounts", "max_mb", "listen", "refresh_s"]
        {
            assert!(shipped.contains(&format!("\n{key} = ")), "{key}");
        }
    }

    #[test]
    fn wrong_values_name_the_place_and_what_is_allowed() {
        for (text, parts) in [
            ("[connector]\ninterval_s = 0", ["interval_s = 0", "1 to 3600 seconds"]),
            ("[connector]\nhostname = 'a b'", ["hostname", "without blanks"]),
            ("[collect]\nignore_disks = ['a*b*']", ["ignore_disks", "one *"]),
            ("[thresholds]\nhysteresis_percent = 60", ["hysteresis_percent", "0 to 50"]),
            ("[thresholds.cpu]\nminor = 90\nmajor = 80", ["thresholds.cpu", "more than 90"]),
            ("[thresholds.disk]\ncritical = 101", ["critical", "at most 100"]),
            ("[[thresholds.mounts]]\npath = '/var'\nminor = -1", ["thresholds.mounts", "more than 0"]),
            ("[admin]\nlisten = 'here'", ["listen", "invalid socket address"]),
            ("[collect]\ncpus = true", ["cpus", "unknown field"]),
        ] {
            let error = load(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_mount_can_have_levels_of_its_own() {
        let config = load("[[thresholds.mounts]]\npath = '/Var'\ncritical = 50").unwrap();
        assert_eq!(config.thresholds.of_mount("/Var").critical, Some(50.0));
        assert_eq!(config.thresholds.of_mount("/Var").minor, None);
        assert_eq!(config.thresholds.of_mount("/").minor, Some(80.0));
    }
}

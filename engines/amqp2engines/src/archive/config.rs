//! `etc/engines/archive.conf`.

use std::time::Duration;

use overstory_amqp::ArchiveLimits;
use overstory_client::GroupFiles;
use overstory_runtime::Home;
use overstory_runtime::config::{ConfigError, load};
use serde::Deserialize;

use super::check;

const FILE: &str = "engines/archive.conf";
const DAY_S: i64 = 86_400;

/// What the engine is set to.
#[derive(Debug, Clone)]
pub struct ArchiveConfig {
    /// Names the nodes, and who this is to them.
    pub files: GroupFiles,
    /// An older timestamp is not believed, in seconds.
    pub oldest_s: i64,
    /// How long the queue may get.
    pub queue: ArchiveLimits,
    /// Messages that may be unacknowledged.
    pub prefetch: u16,
    /// Bytes of bodies that may be unacknowledged.
    pub byte_budget: usize,
    /// When the check is not ok.
    pub check: check::Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    engine: RawEngine,
    archive: RawArchive,
    queue: RawQueue,
    check: RawCheck,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEngine {
    enabled: bool,
    next: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawArchive {
    nodes: String,
    credentials: String,
    oldest_days: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawQueue {
    max_messages: u32,
    max_mib: u64,
    prefetch: u16,
    byte_budget_mib: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCheck {
    away_s: u64,
    fill_minor: u64,
    fill_major: u64,
    dropped_minutes: u64,
}

impl Default for RawArchive {
    fn default() -> Self {
        Self {
            nodes: "etc/nodes/logfiles.nodes".to_owned(),
            credentials: "etc/secrets/logfiles.credentials".to_owned(),
            oldest_days: 366,
        }
    }
}

impl Default for RawQueue {
    fn default() -> Self {
        Self { max_messages: 1_000_000, max_mib: 512, prefetch: 300, byte_budget_mib: 16 }
    }
}

impl Default for RawCheck {
    fn default() -> Self {
        Self { away_s: 60, fill_minor: 50, fill_major: 80, dropped_minutes: 15 }
    }
}

impl ArchiveConfig {
    /// Reads the file. Those of nodes and credentials that it names are read while the engine works: they may be missing.
    ///
    /// # Errors
    /// The file is missing, a key is unknown or a value cannot be.
    pub fn load(home: &Home) -> Result<Option<Self>, ConfigError> {
        let File { engine, archive, queue, check } = load(home, FILE, "ARCHIVE", &[])?;
        if !engine.next.is_empty() {
            let allowed = "nothing: this engine has no successor";
            return Err(ConfigError::value(FILE, "engine", "next", &engine.next, allowed));
        }
        let queue_limits = ArchiveLimits {
            max_messages: within("queue", "max_messages", queue.max_messages, 1, 100_000_000)?,
            max_bytes: within("queue", "max_mib", queue.max_mib, 1, 1 << 20)? << 20,
        };
        let prefetch = within("queue", "prefetch", queue.prefetch, 1, 300)?;
        let byte_budget = within("queue", "byte_budget_mib", queue.byte_budget_mib, 1, 1024)? << 20;
        let limits = check::Limits {
            away: Duration::from_secs(within("check", "away_s", check.away_s, 1, 86_400)?),
            fill_minor: within("check", "fill_minor", check.fill_minor, 1, 100)?,
            fill_major: within("check", "fill_major", check.fill_major, 1, 100)?,
            dropped: Duration::from_secs(within("check", "dropped_minutes", check.dropped_minutes, 1, 1440)? * 60),
        };
        let oldest_s = within("archive", "oldest_days", archive.oldest_days, 1, 36_525)? * DAY_S;
        for (key, path) in [("nodes", &archive.nodes), ("credentials", &archive.credentials)] {
            if path.is_empty() {
                return Err(ConfigError::value(FILE, "archive", key, path, "a file"));
            }
        }
        let files = GroupFiles::new(home.resolve(&archive.nodes), home.resolve(&archive.credentials));
        let config = Self { files, oldest_s, queue: queue_limits, prefetch, byte_budget, check: limits };
        Ok(engine.enabled.then_some(config))
    }

    /// What keeps the engine from archiving for now: a file of nodes or credentials that is missing or wrong.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let error = self.files.read().err()?;
        Some(format!("{FILE}: the archive has no nodes: {error}"))
    }
}

fn within<T: PartialOrd + ToString + Copy>(
    section: &str,
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if value < least || value > most {
        let allowed = format!("{} to {}", least.to_string(), most.to_string());
        return Err(ConfigError::value(FILE, section, key, value, &allowed));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;
    use std::path::Path;

    use super::*;

    fn load_in(dir: &Path, text: &str) -> Result<Option<ArchiveConfig>, String> {
        for folder in ["etc/engines", "etc/nodes", "etc/secrets"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("etc").join(FILE), text).unwrap();
        fs::write(dir.join("etc/nodes/logfiles.nodes"), "127.0.0.1:23100\n").unwrap();
        let key = "0".repeat(256);
        fs::write(dir.join("etc/secrets/logfiles.credentials"), format!("admin:{key}\n")).unwrap();
        ArchiveConfig::load(&Home::at(dir)).map_err(|error| error.to_string())
    }

    fn load_text(text: &str) -> Result<Option<ArchiveConfig>, String> {
        load_in(tempfile::tempdir().unwrap().path(), text)
    }

    #[test]
    fn the_shipped_file_holds_the_defaults_and_is_off() {
        let shipped = include_str!("../../../../etc/engines/archive.conf");
        assert!(load_text(shipped).unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        let on = |text: &str| load_in(dir.path(), text).unwrap().unwrap();
        let config = on(&shipped.replace("enabled = false", "enabled = true"));
        assert_eq!(format!("{config:?}"), format!("{:?}", on("[engine]\nenabled = true")));
        assert_eq!(config.warning(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_also_while_it_is_off() {
        for (text, part) in [
            ("[engine]\nnext = 'alarms'", "[engine] next = alarms: nothing"),
            ("[queue]\nmax_mib = 0", "[queue] max_mib = 0: 1 to"),
            ("[queue]\nprefetch = 301", "prefetch"),
            ("[check]\nfill_major = 101", "fill_major"),
            ("[archive]\nnode = 'x'", "node"),
            ("[archive]\nnodes = ''", "[archive] nodes"),
            ("[archive]\ncredentials = ''", "[archive] credentials"),
        ] {
            let error = load_text(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    /// The group's last node may be removed while the archive is on; no other engine is to suffer from that.
    #[test]
    fn files_of_nodes_and_credentials_that_are_missing_are_a_warning() {
        for key in ["nodes", "credentials"] {
            let text = format!("[engine]\nenabled = true\n[archive]\n{key} = 'etc/nothing'");
            let dir = tempfile::tempdir().unwrap();
            let warning = load_in(dir.path(), &text).unwrap().unwrap().warning().unwrap();
            assert!(warning.starts_with("engines/archive.conf: the archive has no nodes: cannot read "), "{warning}");
            assert!(warning.contains("etc/nothing"), "{warning}");
        }
    }
}

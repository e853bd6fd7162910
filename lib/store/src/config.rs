//! `etc/store.conf`: which store, where, and how long metrics are kept.

use std::path::PathBuf;

use overstory_runtime::Home;
use overstory_runtime::config::{ConfigError, load, read_secret};
use serde::Deserialize;

use crate::metrics::Retention;

/// The file in `etc`.
pub const FILE: &str = "store.conf";
/// The word in the environment variables that override it (`OVERSTORY_STORE__STORE__KIND`).
pub const NAME: &str = "STORE";

/// The name of a MongoDB database may have this many bytes (server limit 63, a few kept for suffixes).
const MAX_DATABASE_BYTES: usize = 60;
/// The longest retention, in days.
const MAX_DAYS: i64 = 36_500;

/// Which store is used and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The sort of store.
    pub kind: StoreKind,
    /// How long metrics are kept.
    pub retention: Retention,
}

/// The sort of store, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// SQLite files.
    Embedded {
        /// The directory they are in.
        path: PathBuf,
    },
    /// A MongoDB server, a replica set or a sharded cluster.
    MongoDb {
        /// The connection string; may hold a password, so it is never logged.
        uri: String,
        /// The database.
        database: String,
    },
}

impl StoreKind {
    /// The word used in configuration and messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::MongoDb { .. } => "mongodb",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    store: RawStore,
    embedded: RawEmbedded,
    mongodb: RawMongoDb,
    metrics: RawMetrics,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStore {
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEmbedded {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMongoDb {
    uri_file: String,
    database: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMetrics {
    raw_days: i64,
    five_minutes_days: i64,
    hours_days: i64,
}

impl Default for RawStore {
    fn default() -> Self {
        Self { kind: "embedded".to_owned() }
    }
}

impl Default for RawEmbedded {
    fn default() -> Self {
        Self { path: "var/lib/store".to_owned() }
    }
}

impl Default for RawMongoDb {
    fn default() -> Self {
        Self { uri_file: "etc/secrets/mongodb-uri".to_owned(), database: "overstory".to_owned() }
    }
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { raw_days: 2, five_minutes_days: 30, hours_days: 730 }
    }
}

impl StoreConfig {
    /// Reads `etc/store.conf`, the environment and `overrides` (`section.key`).
    ///
    /// # Errors
    /// The file cannot be read, a key is unknown, a value cannot be, or the file with the connection string is missing.
    pub fn load(home: &Home, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        Self::validate(load(home, FILE, NAME, overrides)?, home)
    }

    /// An embedded store in `path` with the default retention.
    #[must_use]
    pub fn embedded(path: impl Into<PathBuf>) -> Self {
        Self { kind: StoreKind::Embedded { path: path.into() }, retention: Retention::default() }
    }

    /// A MongoDB store with the default retention.
    #[must_use]
    pub fn mongodb(uri: impl Into<String>, database: impl Into<String>) -> Self {
        let kind = StoreKind::MongoDb { uri: uri.into(), database: database.into() };
        Self { kind, retention: Retention::default() }
    }

    fn validate(raw: Raw, home: &Home) -> Result<Self, ConfigError> {
        let kind = match raw.store.kind.as_str() {
            "embedded" => {
                if raw.embedded.path.is_empty() {
                    return Err(ConfigError::value(FILE, "embedded", "path", "", "the name of a directory"));
                }
                StoreKind::Embedded { path: home.resolve(&raw.embedded.path) }
            }
            "mongodb" => {
                let database = raw.mongodb.database;
                let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if database.is_empty() || database.len() > MAX_DATABASE_BYTES || !database.chars().all(fits) {
                    let allowed = "1 to 60 letters, digits, _ and -";
                    return Err(ConfigError::value(FILE, "mongodb", "database", database, allowed));
                }
                StoreKind::MongoDb { uri: read_secret(home, &raw.mongodb.uri_file)?, database }
            }
            other => return Err(ConfigError::value(FILE, "store", "kind", other, "\"embedded\" or \"mongodb\"")),
        };
        let RawMetrics { raw_days, five_minutes_days, hours_days } = raw.metrics;
        let ascending = [
            ("raw_days", 1, raw_days),
            ("five_minutes_days", raw_days, five_minutes_days),
            ("hours_days", five_minutes_days, hours_days),
        ];
        for (key, least, days) in ascending {
            if days < least || days > MAX_DAYS {
                let allowed = format!("a number of days from {least} to {MAX_DAYS}");
                return Err(ConfigError::value(FILE, "metrics", key, days, &allowed));
            }
        }
        let day = 86_400;
        let retention =
            Retention { raw_s: raw_days * day, five_minutes_s: five_minutes_days * day, hours_s: hours_days * day };
        Ok(Self { kind, retention })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use super::*;

    fn with(text: &str) -> Result<StoreConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/secrets")).unwrap();
        fs::write(dir.path().join("etc/store.conf"), text).unwrap();
        fs::write(dir.path().join("etc/secrets/mongodb-uri"), "mongodb://127.0.0.1/\n").unwrap();
        StoreConfig::load(&Home::at(dir.path()), &[])
    }

    #[test]
    fn an_empty_file_means_the_embedded_store_below_the_prefix() {
        let config = with("").unwrap();
        let StoreKind::Embedded { path } = config.kind else { panic!("{config:?}") };
        assert!(path.ends_with("var/lib/store") && path.is_absolute());
        assert_eq!(config.retention, Retention::default());
    }

    #[test]
    fn the_connection_string_comes_from_its_file() {
        let config = with("[store]\nkind = \"mongodb\"\n[mongodb]\ndatabase = \"o\"").unwrap();
        let expected = StoreKind::MongoDb { uri: "mongodb://127.0.0.1/".to_owned(), database: "o".to_owned() };
        assert_eq!(config.kind, expected);
    }

    #[test]
    fn the_shipped_file_holds_the_defaults() {
        let shipped = include_str!("../../../etc/store.conf");
        assert_eq!(with(shipped).unwrap().retention, Retention::default());
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (text, word) in [
            ("[store]\nkind = \"redis\"", "kind"),
            ("[store]\nkind = \"mongodb\"\n[mongodb]\ndatabase = \"a/b\"", "database"),
            ("[metrics]\nraw_days = 0", "raw_days"),
            ("[metrics]\nraw_days = 40", "five_minutes_days"),
            ("[metrics]\nraw = 1", "raw"),
        ] {
            let error = with(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

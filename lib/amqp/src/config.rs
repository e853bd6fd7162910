//! How to reach the broker: `etc/amqp.conf`.

use std::path::PathBuf;
use std::time::Duration;

use overstory_runtime::Home;
use overstory_runtime::config::{self, ConfigError};
use serde::Deserialize;

/// The name of the file in `etc`.
pub const FILE: &str = "amqp.conf";

/// The certificates that the machine trusts, where Debian keeps them.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the broker is, who we are to it, and how long its queues may get.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// A peer that is silent for longer is given up; whole seconds.
    pub heartbeat: Duration,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// Encryption, unless the connection is in the clear.
    pub tls: Option<TlsConfig>,
    /// Arguments of the queues. A queue that exists keeps the arguments it was made with.
    pub queues: QueueLimits,
}

/// Whom an encrypted connection trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file with the certificates of the authorities.
    pub ca_file: PathBuf,
}

/// How long the durable queues may get.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueLimits {
    /// Events that may wait for the engines; more are refused, and publishers spool them.
    pub events_max_messages: u32,
    /// The same in bytes of their bodies.
    pub events_max_bytes: u64,
    /// Dead letters that are kept; the oldest make room for new ones.
    pub dead_max_messages: u32,
    /// The same in bytes of their bodies.
    pub dead_max_bytes: u64,
    /// The queue of the event archive; only who takes it sets this, and so declares it. Not a key of the file.
    #[serde(skip)]
    pub archive: Option<ArchiveLimits>,
}

/// How long the queue of the event archive may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Events that may wait; the oldest make room for new ones.
    pub max_messages: u32,
    /// The same in bytes of their bodies.
    pub max_bytes: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            events_max_messages: 1_000_000,
            events_max_bytes: 1 << 30,
            dead_max_messages: 100_000,
            dead_max_bytes: 256 << 20,
            archive: None,
        }
    }
}

impl Default for AmqpConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 5672,
            vhost: "canopsis".to_owned(),
            user: "overstory".to_owned(),
            password: String::new(),
            heartbeat: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            tls: None,
            queues: QueueLimits::default(),
        }
    }
}

// The password stays out of logs.
impl std::fmt::Debug for AmqpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpConfig")
            .field("broker", &self.broker())
            .field("user", &self.user)
            .field("heartbeat", &self.heartbeat)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    broker: RawBroker,
    tls: RawTls,
    queues: QueueLimits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawBroker {
    host: String,
    port: u16,
    vhost: String,
    user: String,
    password_file: String,
    heartbeat_s: u16,
    connect_timeout_s: u16,
}

impl Default for RawBroker {
    fn default() -> Self {
        let AmqpConfig { host, port, vhost, user, .. } = AmqpConfig::default();
        Self { host, port, vhost, user, password_file: "etc/secrets/amqp".into(), heartbeat_s: 5, connect_timeout_s: 5 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTls {
    enabled: bool,
    ca_file: String,
}

impl AmqpConfig {
    /// Reads `etc/amqp.conf`, what the environment overrides in it, and the password.
    ///
    /// # Errors
    /// A file is missing or a value is not allowed.
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        let raw: Raw = config::load(home, FILE, "AMQP", &[])?;
        Self::validated(home, raw)
    }

    fn validated(home: &Home, raw: Raw) -> Result<Self, ConfigError> {
        let Raw { broker, tls, queues } = raw;
        if !(1..=600).contains(&broker.heartbeat_s) {
            return Err(ConfigError::value(FILE, "broker", "heartbeat_s", broker.heartbeat_s, "1 to 600 seconds"));
        }
        if !(1..=60).contains(&broker.connect_timeout_s) {
            let value = broker.connect_timeout_s;
            return Err(ConfigError::value(FILE, "broker", "connect_timeout_s", value, "1 to 60 seconds"));
        }
        for (key, value) in [("host", &broker.host), ("vhost", &broker.vhost), ("user", &broker.user)] {
            if value.is_empty() || value.len() > 255 {
                return Err(ConfigError::value(FILE, "broker", key, value, "1 to 255 bytes of text"));
            }
        }
        for (key, value) in [
            ("events_max_messages", u64::from(queues.events_max_messages)),
            ("events_max_bytes", queues.events_max_bytes),
            ("dead_max_messages", u64::from(queues.dead_max_messages)),
            ("dead_max_bytes", queues.dead_max_bytes),
        ] {
            if value == 0 || i64::try_from(value).is_err() {
                return Err(ConfigError::value(FILE, "queues", key, value, "1 to 9223372036854775807"));
            }
        }
        let tls = match (tls.enabled, tls.ca_file.is_empty()) {
            (false, _) => None,
            (true, false) => Some(TlsConfig { ca_file: home.resolve(&tls.ca_file) }),
            (true, true) => Some(TlsConfig { ca_file: PathBuf::from(SYSTEM_CERTIFICATES) }),
        };
        Ok(Self {
            password: config::read_secret(home, &broker.password_file)?,
            host: broker.host,
            port: broker.port,
            vhost: broker.vhost,
            user: broker.user,
            heartbeat: Duration::from_secs(broker.heartbeat_s.into()),
            connect_timeout: Duration::from_secs(broker.connect_timeout_s.into()),
            tls,
            queues,
        })
    }

    /// `host:port/vhost`, for messages.
    #[must_use]
    pub fn broker(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.vhost)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn home_with(config: &str) -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/secrets")).unwrap();
        std::fs::write(dir.path().join("etc/amqp.conf"), config).unwrap();
        std::fs::write(dir.path().join("etc/secrets/amqp"), "secret\n").unwrap();
        let home = Home::at(dir.path());
        (dir, home)
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_the_password_comes_from_its_file() {
        let (_dir, home) = home_with("");
        let config = AmqpConfig::load(&home).unwrap();
        assert_eq!(config, AmqpConfig { password: "secret".into(), ..AmqpConfig::default() });
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, part) in [
            ("[broker]\nheartbeat_s = 0", "heartbeat_s"),
            ("[broker]\nvhost = ''", "vhost"),
            ("[tls]\nenabled = 'perhaps'", "enabled"),
            ("[queues]\nevents_max_messages = 0", "events_max_messages"),
            ("[broker]\nhots = 'x'", "hots"),
        ] {
            let (_dir, home) = home_with(text);
            let error = AmqpConfig::load(&home).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

//! `etc/engines/amqp2engines.conf` and one file per engine beside it.
//!
//! The engines' files say by `next` who works on an event after whom, beginning with the cleaner.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overstory_model::event::Limits;
use overstory_runtime::Home;
use overstory_runtime::config::{ConfigError, load};
use overstory_store::Retention;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::archive::config::ArchiveConfig;
use crate::engine::metrics::StateMetric;
use crate::engine::{Engine, alarms, context};
use crate::pipeline::Settings;

/// The file of the program itself.
pub const FILE: &str = "engines/amqp2engines.conf";

/// Everything that is configured of this program, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that run the program's tasks.
    pub threads: usize,
    /// Where the first process' admin listener is; each further process takes the next port.
    pub admin: SocketAddr,
    /// A batch that makes no step forward for so long ends the process.
    pub watchdog: Duration,
    /// Messages that may be unacknowledged.
    pub prefetch: u16,
    /// Bytes of bodies that may be unacknowledged.
    pub byte_budget: usize,
    /// How long a batch waits for company.
    pub linger: Duration,
    /// Deliveries after which messages are worked on one by one.
    pub singly_after: u64,
    /// Deaths after which a message goes to the dead letters.
    pub poison_attempts: u32,
    /// How long a store that is away is waited for.
    pub store_patience: Duration,
    /// The pause before the next subscription after handing back.
    pub store_pause: Duration,
    /// The time between two beats.
    pub beat: Duration,
    /// What the engines are set to.
    pub settings: Settings,
    /// stats, if its file switches it on.
    pub stats: StatsConfig,
    /// Whether collectdgw takes its queue.
    pub collectdgw: bool,
    /// Files in collectd's format with further types.
    pub types_db: Vec<String>,
    /// archive, if its file switches it on.
    pub archive: Option<ArchiveConfig>,
}

/// What the stats engine is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsConfig {
    /// Whether it publishes.
    pub enabled: bool,
    /// The first statistics come so long after the process became active.
    pub first_after: Duration,
    /// The time between two.
    pub interval: Duration,
    /// The component of the events; empty for the machine's name.
    pub host: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    process: RawProcess,
    queue: RawQueue,
    store: RawStore,
    poison: RawPoison,
}

macro_rules! section {
    ($name:ident { $($key:ident: $type:ty = $value:expr),* $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name { $($key: $type),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $value),* }
            }
        }
    };
}

section!(RawProcess {
    threads: usize = 2,
    admin_host: String = "127.0.0.1".to_owned(),
    admin_port: u16 = 8090,
    watchdog_s: u64 = 60,
    beat_s: u64 = 5,
});
section!(RawQueue { prefetch: u16 = 300, byte_budget_mib: usize = 16, linger_ms: u64 = 0 });
section!(RawStore { patience_s: u64 = 60, pause_s: u64 = 5, working_set_mib: usize = 48 });
section!(RawPoison { singly_after: u64 = 3, attempts: u32 = 3 });
section!(RawEngine { enabled: bool = true, next: String = String::new() });
section!(RawCleaner {
    output_chars: usize = 255,
    long_output_chars: usize = 1024,
    name_bytes: usize = 2048,
    clock_skew_s: i64 = 86_400,
    tags: usize = 100,
    extra_keys: usize = 100,
});
section!(RawContext { heard_resolution_s: i64 = 10 });
section!(RawAlarms { resolve_after_s: i64 = 60, long_output_history: usize = 100, tags: usize = 100 });
section!(RawMetrics { state_metric: String = "typed".to_owned() });
section!(RawCollectdgw {
    connector_name: String = "collectdgw".to_owned(),
    series: usize = 50_000,
    types_db: Vec<String> = Vec::new(),
});
section!(RawStats { first_after_s: u64 = 5, interval_s: u64 = 60, host: String = String::new() });

macro_rules! engine_file {
    ($name:ident, $section:ident: $type:ty) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name {
            engine: RawEngine,
            $section: $type,
        }
    };
}

engine_file!(CleanerFile, cleaner: RawCleaner);
engine_file!(ContextFile, context: RawContext);
engine_file!(AlarmsFile, alarms: RawAlarms);
engine_file!(MetricsFile, metrics: RawMetrics);
engine_file!(CollectdgwFile, collectdgw: RawCollectdgw);
engine_file!(StatsFile, stats: RawStats);

impl Config {
    /// Reads all files, what the environment overrides in them, and `overrides` of the program's own file.
    ///
    /// # Errors
    /// A file is missing, a key is unknown, a value or the order of the engines cannot be.
    pub fn load(home: &Home, retention: Retention, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        let raw: Raw = load(home, FILE, "AMQP2ENGINES", overrides)?;
        let cleaner: CleanerFile = engine_file(home, Engine::Cleaner)?;
        let context: ContextFile = engine_file(home, Engine::Context)?;
        let alarms: AlarmsFile = engine_file(home, Engine::Alarms)?;
        let metrics: MetricsFile = engine_file(home, Engine::Metrics)?;
        let collectdgw: CollectdgwFile = engine_file(home, Engine::Collectdgw)?;
        let stats: StatsFile = engine_file(home, Engine::Stats)?;
        let chain = chain(&[
            (Engine::Cleaner, &cleaner.engine),
            (Engine::Context, &context.engine),
            (Engine::Alarms, &alarms.engine),
            (Engine::Metrics, &metrics.engine),
            (Engine::Collectdgw, &collectdgw.engine),
            (Engine::Stats, &stats.engine),
        ])?;
        let settings = Settings {
            chain,
            limits: limits(&cleaner.cleaner)?,
            context: context::Settings {
                heard_resolution_s: within(
                    Engine::Context,
                    "heard_resolution_s",
                    context.context.heard_resolution_s,
                    0,
                    3600,
                )?,
            },
            alarms: alarms_settings(&alarms.alarms)?,
            state_metric: state_metric(&metrics.metrics.state_metric)?,
            retention,
            connector_name: collectdgw_name(&collectdgw.collectdgw.connector_name)?,
            series: within(Engine::Collectdgw, "series", collectdgw.collectdgw.series, 100, 10_000_000)?,
            working_bytes: bounded("store", "working_set_mib", raw.store.working_set_mib, 1, 65_536)? << 20,
        };
        let RawProcess { threads, admin_host, admin_port, watchdog_s, beat_s } = raw.process;
        let host: IpAddr = admin_host
            .parse()
            .map_err(|_| ConfigError::value(FILE, "process", "admin_host", &admin_host, "an IP address"))?;
        let stats_s = |key: &str, value: u64, least: u64| within(Engine::Stats, key, value, least, 86_400);
        Ok(Self {
            threads: bounded("process", "threads", threads, 1, 64)?,
            admin: SocketAddr::new(host, admin_port),
            watchdog: Duration::from_secs(bounded("process", "watchdog_s", watchdog_s, 5, 3600)?),
            prefetch: bounded("queue", "prefetch", raw.queue.prefetch, 1, 300)?,
            byte_budget: bounded("queue", "byte_budget_mib", raw.queue.byte_budget_mib, 1, 1024)? << 20,
            linger: Duration::from_millis(bounded("queue", "linger_ms", raw.queue.linger_ms, 0, 1000)?),
            singly_after: bounded("poison", "singly_after", raw.poison.singly_after, 1, 1000)?,
            poison_attempts: bounded("poison", "attempts", raw.poison.attempts, 1, 1000)?,
            store_patience: Duration::from_secs(bounded("store", "patience_s", raw.store.patience_s, 0, 1500)?),
            store_pause: Duration::from_secs(bounded("store", "pause_s", raw.store.pause_s, 0, 600)?),
            beat: Duration::from_secs(bounded("process", "beat_s", beat_s, 1, 600)?),
            settings,
            stats: StatsConfig {
                enabled: stats.engine.enabled,
                first_after: Duration::from_secs(stats_s("first_after_s", stats.stats.first_after_s, 0)?),
                interval: Duration::from_secs(stats_s("interval_s", stats.stats.interval_s, 1)?),
                host: stats.stats.host,
            },
            collectdgw: collectdgw.engine.enabled,
            types_db: collectdgw.collectdgw.types_db,
            archive: ArchiveConfig::load(home)?,
        })
    }
}

fn file_of(engine: Engine) -> String {
    format!("engines/{}.conf", engine.name())
}

fn engine_file<T: DeserializeOwned>(home: &Home, engine: Engine) -> Result<T, ConfigError> {
    load(home, &file_of(engine), &engine.name().to_ascii_uppercase(), &[])
}

/// Follows `next` from the cleaner on.
fn chain(files: &[(Engine, &RawEngine)]) -> Result<Vec<Engine>, ConfigError> {
    let refuse = |engine: Engine, key: &str, value: &str, allowed: &str| {
        ConfigError::value(&file_of(engine), "engine", key, value, allowed)
    };
    let file = |engine: Engine| files.iter().find(|(name, _)| *name == engine).map(|(_, file)| *file);
    for (engine, raw) in files {
        let stands_alone = matches!(engine, Engine::Collectdgw | Engine::Stats);
        if stands_alone && !raw.next.is_empty() {
            return Err(refuse(*engine, "next", &raw.next, "nothing: this engine has no successor"));
        }
        if matches!(engine, Engine::Cleaner | Engine::Context) && !raw.enabled {
            return Err(refuse(*engine, "enabled", "false", "true: the others need this engine"));
        }
    }
    let mut chain: Vec<Engine> = Vec::new();
    let mut at = Engine::Cleaner;
    loop {
        let name = file(at).map_or("", |raw| raw.next.as_str());
        if name.is_empty() {
            break;
        }
        let known = "context, alarms, metrics or nothing";
        let Some(next) = Engine::from_name(name) else { return Err(refuse(at, "next", name, known)) };
        match next {
            Engine::Cleaner | Engine::Collectdgw | Engine::Stats | Engine::Archive => {
                return Err(refuse(at, "next", name, known));
            }
            next if chain.contains(&next) => {
                return Err(refuse(at, "next", name, "an engine that did not have its turn: this is a circle"));
            }
            Engine::Alarms | Engine::Metrics if !chain.contains(&Engine::Context) => {
                return Err(refuse(at, "next", name, "context: entities come before what belongs to them"));
            }
            next => chain.push(next),
        }
        at = next;
    }
    if !chain.contains(&Engine::Context) {
        return Err(refuse(Engine::Cleaner, "next", "", "context: entities come before what belongs to them"));
    }
    chain.retain(|engine| file(*engine).is_some_and(|raw| raw.enabled));
    Ok(chain)
}

fn limits(raw: &RawCleaner) -> Result<Limits, ConfigError> {
    let at = Engine::Cleaner;
    Ok(Limits {
        output_chars: within(at, "output_chars", raw.output_chars, 1, 65_536)?,
        long_output_chars: within(at, "long_output_chars", raw.long_output_chars, 1, 65_536)?,
        name_bytes: within(at, "name_bytes", raw.name_bytes, 16, 2048)?,
        clock_skew_s: within(at, "clock_skew_s", raw.clock_skew_s, 1, 31_536_000)?,
        tags: within(at, "tags", raw.tags, 0, 1000)?,
        extra_keys: within(at, "extra_keys", raw.extra_keys, 0, 1000)?,
        ..Limits::default()
    })
}

fn alarms_settings(raw: &RawAlarms) -> Result<alarms::Settings, ConfigError> {
    let at = Engine::Alarms;
    Ok(alarms::Settings {
        resolve_after_s: within(at, "resolve_after_s", raw.resolve_after_s, 0, 31_536_000)?,
        long_output_history: within(at, "long_output_history", raw.long_output_history, 1, 1000)?,
        tags: within(at, "tags", raw.tags, 0, 1000)?,
    })
}

fn state_metric(word: &str) -> Result<StateMetric, ConfigError> {
    match word {
        "typed" => Ok(StateMetric::Typed),
        "always" => Ok(StateMetric::Always),
        "never" => Ok(StateMetric::Never),
        other => {
            let file = file_of(Engine::Metrics);
            Err(ConfigError::value(&file, "metrics", "state_metric", other, "\"typed\", \"always\" or \"never\""))
        }
    }
}

fn collectdgw_name(name: &str) -> Result<String, ConfigError> {
    if name.trim().is_empty() || name.len() > 255 {
        let file = file_of(Engine::Collectdgw);
        return Err(ConfigError::value(&file, "collectdgw", "connector_name", name, "1 to 255 bytes"));
    }
    Ok(name.to_owned())
}

/// A value of an engine's file between its bounds.
fn within<T: PartialOrd + ToString + Copy>(
    engine: Engine,
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    check(&file_of(engine), engine.name(), key, value, least, most)
}

/// A value of the program's file between its bounds.
fn bounded<T: PartialOrd + ToString + Copy>(
    section: &str,
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    check(FILE, section, key, value, least, most)
}

fn check<T: PartialOrd + ToString + Copy>(
    file: &str,
    section: &str,
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if value < least || value > most {
        let allowed = format!("{} to {}", least.to_string(), most.to_string());
        return Err(ConfigError::value(file, section, key, value, &allowed));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The shipped files in a prefix, with some of them replaced.
    fn load_with(changes: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc/engines");
        fs::create_dir_all(&etc).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/engines");
        for file in fs::read_dir(shipped).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, etc.join(file.file_name().unwrap())).unwrap();
        }
        for (file, text) in changes {
            fs::write(etc.join(file), text).unwrap();
        }
        Config::load(&Home::at(dir.path()), Retention::default(), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_files_hold_the_defaults() {
        let shipped = load_with(&[]).unwrap();
        let engine = |next: &str| format!("[engine]\nnext = \"{next}\"\n");
        let empty = load_with(&[
            ("amqp2engines.conf", ""),
            ("cleaner.conf", &engine("context")),
            ("context.conf", &engine("alarms")),
            ("alarms.conf", &engine("metrics")),
            ("metrics.conf", ""),
            ("collectdgw.conf", ""),
            ("stats.conf", ""),
            ("archive.conf", ""),
        ])
        .unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{empty:?}"));
        assert_eq!(shipped.settings.chain, [Engine::Context, Engine::Alarms, Engine::Metrics]);
    }

    #[test]
    fn the_order_follows_next_and_leaves_out_what_is_off() {
        let config = load_with(&[
            ("context.conf", "[engine]\nnext = 'metrics'"),
            ("metrics.conf", "[engine]\nnext = 'alarms'"),
            ("alarms.conf", "[engine]\nenabled = false"),
        ])
        .unwrap();
        assert_eq!(config.settings.chain, [Engine::Context, Engine::Metrics]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_file_section_and_key() {
        for (file, text, words) in [
            ("alarms.conf", "[engine]\nnext = 'context'", ["alarms.conf", "next", "circle"]),
            ("alarms.conf", "[engine]\nnext = 'alarms'", ["alarms.conf", "next", "circle"]),
            ("alarms.conf", "[engine]\nnext = 'nonsense'", ["alarms.conf", "nonsense", "metrics"]),
            ("alarms.conf", "[engine]\nnext = 'cleaner'", ["alarms.conf", "cleaner", "metrics"]),
            ("cleaner.conf", "[engine]\nnext = 'alarms'", ["cleaner.conf", "next", "context"]),
            ("cleaner.conf", "", ["cleaner.conf", "next", "context"]),
            ("cleaner.conf", "[engine]\nnext = 'archive'", ["cleaner.conf", "archive", "metrics"]),
            ("archive.conf", "[archive]\nnodes = ''", ["archive.conf", "nodes", "a file"]),
            ("stats.conf", "[engine]\nnext = 'alarms'", ["stats.conf", "next", "nothing"]),
            ("context.conf", "[engine]\nenabled = false", ["context.conf", "enabled", "true"]),
            ("context.conf", "[context]\nheard = 1", ["context.conf", "heard", "unknown"]),
            ("metrics.conf", "[metrics]\nstate_metric = 'no'", ["metrics.conf", "state_metric", "always"]),
            (
                "cleaner.conf",
                "[engine]\nnext='context'\n[cleaner]\noutput_chars = 0",
                ["cleaner", "output_chars", "65536"],
            ),
            ("amqp2engines.conf", "[queue]\nprefetch = 301", ["queue", "prefetch", "300"]),
            ("amqp2engines.conf", "[process]\nadmin_host = 'x'", ["process", "admin_host", "IP address"]),
            ("amqp2engines.conf", "[queues]\nx = 1", ["amqp2engines.conf", "queues", "unknown"]),
        ] {
            let error = load_with(&[(file, text)]).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word} is not in: {error}");
            }
        }
    }
}

//! What `config.ini` says to the logfiles node alone (protocol §4.1).
//!
//! | section | keys | |
//! |---|---|---|
//! | Server | neoport, cpu | published |
//! | Server | minval, maxval | the timestamps that the node takes, up to 16 hexadecimal digits; all unless they are set |
//! | Performance | checkpoint_commit_seconds, number_of_thread_workers | published |
//! | Performance | file_buffer_size | published, accepted, and means nothing |
//! | Performance | compress | whether batches are compressed: `auto`, `always` or `never` |
//! | Options_Dls, Options_LogFiles | write_buffer_size | published; the same section under two names |
//! | Sync | mode, write_ms | when a put is answered, and how long it waits to be written |
//! | Sync | max_open_files, max_queue_bytes | bounds of the writer |
//! | ChannelFormat | a channel's beginning, or `*` = `v1` or `v2` | the format of new buckets |
//! | CompressAfterDays, DeleteAfterDays | a channel's beginning, or `*` = days | what becomes of old buckets |
//! | Retention | unit | what timestamps count |
//! | Retention | level | how hard old buckets are compressed |
//! | Report | disk_free_*, sync_late_*, open_files_* | from where on it is a problem |

pub mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use overstory_node::config::{Config, ConfigError};
use overstory_node::cpu::{self, Cpu};
use overstory_node::levels::Levels;

use crate::bucket::KeyRange;
use crate::storage::SyncMode;
use rules::Rules;

/// The most days of `[CompressAfterDays]` and `[DeleteAfterDays]`: a hundred years.
const MAX_DAYS: u32 = 36_525;

/// Whether the batches of an answer are compressed. They are LZO blocks in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// Unless the client is on this machine.
    Auto,
    /// For every client.
    Always,
    /// For none: the blocks are made of literals alone.
    Never,
}

/// What timestamps count since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Millis,
    /// Millionths of a second.
    Micros,
    /// Billionths of a second.
    Nanos,
}

impl Unit {
    /// How many of them are a second.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        match self {
            Self::Seconds => 1,
            Self::Millis => 1000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }
}

/// The settings of a logfiles node.
#[derive(Debug, Clone, PartialEq)]
pub struct LogfilesSettings {
    /// The timestamps that the node takes.
    pub range: KeyRange,
    /// The processor on which the node's thread runs.
    pub cpu: Cpu,
    /// Threads that read.
    pub read_threads: usize,
    /// Whether answers are compressed.
    pub compress: Compress,
    /// When a put is answered.
    pub sync: SyncMode,
    /// How long a record waits to be written, at most.
    pub write_after: Duration,
    /// Bytes of a bucket's write buffer.
    pub write_buffer: usize,
    /// From one checkpoint to the next.
    pub checkpoint: Duration,
    /// Files that are open for writing, at most.
    pub open_files: usize,
    /// Bytes that may wait for being written until replies wait too.
    pub queue_bytes: usize,
    /// The channels whose new buckets have format 2.
    pub format_v2: Rules<bool>,
    /// From which age on, in days, buckets are compressed; `None`: never.
    pub compress_after: Rules<Option<u32>>,
    /// From which age on, in days, buckets are deleted; `None`: never.
    pub delete_after: Rules<Option<u32>>,
    /// What timestamps count.
    pub unit: Unit,
    /// How hard buckets of format 2 are compressed, as zstd counts.
    pub level: i32,
    /// From where on it is a problem.
    pub thresholds: Thresholds,
}

/// From where on something is a problem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// What is free of the disk with the data, in percent.
    pub disk_free: Levels,
    /// How much later than promised the oldest record becomes durable, in seconds.
    pub sync_late: Levels,
    /// Open files, in percent of how many the process may have.
    pub open_files: Levels,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            disk_free: Levels::falling([20.0, 10.0, 5.0]),
            sync_late: Levels::rising([30.0, 120.0, 600.0]),
            open_files: Levels::rising([80.0, 90.0, 95.0]),
        }
    }
}

impl LogfilesSettings {
    /// Reads the sections.
    ///
    /// # Errors
    /// A key is missing or a value cannot be.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        // Asked for here too, for a node whose port is any has no neo port to be asked for.
        config.section("Server").number("neoport", 0, 0..=u16::MAX)?;
        let performance = config.section("Performance");
        performance.number("file_buffer_size", 10_485_760, 0..=u64::MAX)?;
        let checkpoint = performance.number("checkpoint_commit_seconds", 300, 1..=86_400)?;
        let choices = [("auto", Compress::Auto), ("always", Compress::Always), ("never", Compress::Never)];
        let sync = config.section("Sync");
        let retention = config.section("Retention");
        let units = [("s", Unit::Seconds), ("ms", Unit::Millis), ("us", Unit::Micros), ("ns", Unit::Nanos)];
        let formats = [("v1", false), ("v2", true)];
        Ok(Self {
            range: range(config)?,
            cpu: cpu::read(config)?,
            read_threads: performance.number("number_of_thread_workers", 20, 1..=256)?,
            compress: performance.choice("compress", Compress::Auto, &choices)?,
            sync: sync.choice(
                "mode",
                SyncMode::Interval,
                &[("interval", SyncMode::Interval), ("always", SyncMode::Always)],
            )?,
            write_after: Duration::from_millis(sync.number("write_ms", 1000, 1..=60_000)?),
            write_buffer: write_buffer(config)?,
            checkpoint: Duration::from_secs(checkpoint),
            open_files: sync.number("max_open_files", 256, 8..=65_536)?,
            queue_bytes: sync.number("max_queue_bytes", 64 << 20, 1 << 20..=4 << 30)?,
            format_v2: Rules::read(&config.section("ChannelFormat"), |section, key| {
                section.choice(key, false, &formats)
            })?,
            compress_after: Rules::read(&config.section("CompressAfterDays"), days)?,
            delete_after: Rules::read(&config.section("DeleteAfterDays"), days)?,
            unit: retention.choice("unit", Unit::Seconds, &units)?,
            level: retention.number("level", 3, 1..=19)?,
            thresholds: thresholds(config)?,
        })
    }
}

fn range(config: &Config) -> Result<KeyRange, ConfigError> {
    let server = config.section("Server");
    let low = server.hexadecimal("minval")?.unwrap_or(KeyRange::ALL.low);
    let high = server.hexadecimal("maxval")?.unwrap_or(KeyRange::ALL.high);
    KeyRange::new(low, high).ok_or_else(|| server.wrong("minval", "at most maxval"))
}

/// The key is published in `[Options_Dls]`, and in `[Options_LogFiles]` of the published samples, which is never read
/// there.
fn write_buffer(config: &Config) -> Result<usize, ConfigError> {
    let of = |name, default| config.section(name).number("write_buffer_size", default, 4096..=1 << 20);
    let sample = of("Options_LogFiles", 64 << 10)?;
    of("Options_Dls", sample)
}

fn days(section: &overstory_node::config::Section<'_>, key: &str) -> Result<Option<u32>, ConfigError> {
    let read = |text: &str| match text {
        "never" => Some(None),
        _ => text.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days)).map(Some),
    };
    section.required(key, "a number of days from 1 to 36525, or never", read)
}

fn thresholds(config: &Config) -> Result<Thresholds, ConfigError> {
    let (report, default) = (config.section("Report"), Thresholds::default());
    Ok(Thresholds {
        disk_free: default.disk_free.read(&report, "disk_free", 100.0)?,
        sync_late: default.sync_late.read(&report, "sync_late", 86_400.0)?,
        open_files: default.open_files.read(&report, "open_files", 100.0)?,
    })
}

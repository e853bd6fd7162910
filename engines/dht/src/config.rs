//! What `config.ini` says to the dht node alone (protocol §4.1).
//!
//! | section | keys | |
//! |---|---|---|
//! | Server | minval, maxval | up to 16 hexadecimal digits, with `0x` or without |
//! | Performance | redist_memory_limit_mulitplier | 1.1; also with the right spelling |
//! | Options_Memory | size_limit, lock_memory, allow_out_of_range, abort_after_all_out_of_range, disable_direct_io, bnum, batch_size | published |
//! | Options_Memory, Dump | dump_period_s, period_s | from one dump to the next; 0: only at the end |
//! | Backup | schedule, keep_days, dir | `HH:MM` of the daily backup; absent: none |

use std::path::PathBuf;
use std::time::Duration;

use overstory_node::config::{Config, ConfigError};
use overstory_swarm::key::HashRange;

use crate::backup::Schedule;
use crate::load::OutOfRange;

/// Arrays of a legacy reply have at most 10 MiB; a batch has to fit into one, compressed or not.
const MAX_BATCH: usize = 8 << 20;

/// The settings of a dht node.
#[derive(Debug, Clone, PartialEq)]
pub struct DhtSettings {
    /// The node's hash range.
    pub range: HashRange,
    /// What PutBatch may fill the node to during a redistribution, times what it held at the beginning.
    pub redist_memory_limit_multiplier: f64,
    /// Bytes of memory for records; 0: no limit.
    pub size_limit: u64,
    /// Whether memory is kept from being swapped out.
    pub lock_memory: bool,
    /// What becomes of records in the dumps that the node is not responsible for.
    pub allow_out_of_range: OutOfRange,
    /// More records than this, all of them out of the range, end the start; 0: never.
    pub abort_after_all_out_of_range: u64,
    /// Whether dumps are written through the page cache.
    pub disable_direct_io: bool,
    /// Plain bytes of a legacy batch.
    pub batch_size: usize,
    /// From one dump to the next; `None`: only at the end.
    pub dump_period: Option<Duration>,
    /// The daily backup.
    pub backup: Option<BackupSettings>,
}

/// `[Backup]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSettings {
    /// When, by local time.
    pub schedule: Schedule,
    /// How long a backup is kept.
    pub keep_days: u32,
    /// Where backups are.
    pub dir: PathBuf,
}

impl DhtSettings {
    /// Reads the sections.
    ///
    /// # Errors
    /// A key is missing or a value cannot be.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let memory = config.section("Options_Memory");
        // A hint for the hash map of the published node.
        let _ = memory.text("bnum");
        let policies = [("load", OutOfRange::Load), ("fatal", OutOfRange::Fatal), ("ignore", OutOfRange::Ignore)];
        Ok(Self {
            range: range(config)?,
            redist_memory_limit_multiplier: multiplier(config)?,
            size_limit: memory.number("size_limit", 0, 0..=u64::MAX)?,
            lock_memory: memory.flag("lock_memory", true)?,
            allow_out_of_range: memory.choice("allow_out_of_range", OutOfRange::Load, &policies)?,
            abort_after_all_out_of_range: memory.number("abort_after_all_out_of_range", 10_000, 0..=u64::MAX)?,
            disable_direct_io: memory.flag("disable_direct_io", false)?,
            batch_size: memory.number("batch_size", 65_536, 1024..=MAX_BATCH)?,
            dump_period: dump_period(config)?,
            backup: backup(config)?,
        })
    }
}

fn range(config: &Config) -> Result<HashRange, ConfigError> {
    let server = config.section("Server");
    let (min, max) = (server.required_hexadecimal("minval")?, server.required_hexadecimal("maxval")?);
    HashRange::new(min, max).map_err(|_| {
        server.wrong("minval", "at most maxval (an empty range has minval = ffffffffffffffff and maxval = 0)")
    })
}

fn multiplier(config: &Config) -> Result<f64, ConfigError> {
    let performance = config.section("Performance");
    let published = performance.number("redist_memory_limit_mulitplier", 1.1, 1.0..=1000.0)?;
    performance.number("redist_memory_limit_multiplier", published, 1.0..=1000.0)
}

fn dump_period(config: &Config) -> Result<Option<Duration>, ConfigError> {
    const LONGEST: u64 = 366 * 86_400;
    let memory = config.section("Options_Memory").number("dump_period_s", 0, 0..=LONGEST)?;
    let seconds = config.section("Dump").number("period_s", memory, 0..=LONGEST)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn backup(config: &Config) -> Result<Option<BackupSettings>, ConfigError> {
    let backup = config.section("Backup");
    let keep_days = backup.number("keep_days", 14, 1..=36_500)?;
    let dir = PathBuf::from(backup.text("dir").unwrap_or("backup-data"));
    let schedule = backup.parsed("schedule", "HH:MM, the local time of the daily backup", |text| text.parse().ok())?;
    Ok(schedule.map(|schedule| BackupSettings { schedule, keep_days, dir }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    const SERVER: &str = "[Server]\nminval = 0x0000000000000000\nmaxval = 7fffffffffffffff\n";

    fn read(text: &str) -> Result<DhtSettings, ConfigError> {
        DhtSettings::read(&Config::parse(Path::new("etc/config.ini"), text, Vec::new()).unwrap())
    }

    #[test]
    fn the_defaults_are_the_published_ones() {
        let settings = read(SERVER).unwrap();
        assert_eq!(settings.range, HashRange::new(0, 0x7fff_ffff_ffff_ffff).unwrap());
        assert_eq!((settings.size_limit, settings.batch_size), (0, 65_536));
        assert_eq!((settings.lock_memory, settings.disable_direct_io), (true, false));
        assert_eq!((settings.allow_out_of_range, settings.abort_after_all_out_of_range), (OutOfRange::Load, 10_000));
        assert!((settings.redist_memory_limit_multiplier - 1.1).abs() < 1e-9);
        assert_eq!((settings.dump_period, settings.backup), (None, None));
    }

    #[test]
    fn all_keys_are_read() {
        let text = "[Performance]\nredist_memory_limit_mulitplier = 1.5\n[Options_Memory]\nsize_limit = 5000\n\
            lock_memory = false\nallow_out_of_range = ignore\nabort_after_all_out_of_range = 0\n\
            disable_direct_io = true\nbnum = 7\nbatch_size = 1024\ndump_period_s = 60\n\
            [Backup]\nschedule = 03:30\nkeep_days = 3\ndir = elsewhere\n";
        let settings = read(&format!("{SERVER}{text}")).unwrap();
        assert!((settings.redist_memory_limit_multiplier - 1.5).abs() < 1e-9);
        assert_eq!((settings.size_limit, settings.batch_size), (5000, 1024));
        assert_eq!((settings.lock_memory, settings.disable_direct_io), (false, true));
        assert_eq!((settings.allow_out_of_range, settings.abort_after_all_out_of_range), (OutOfRange::Ignore, 0));
        assert_eq!(settings.dump_period, Some(Duration::from_secs(60)));
        let backup = settings.backup.unwrap();
        assert_eq!(backup.schedule, "03:30".parse().unwrap());
        assert_eq!((backup.keep_days, backup.dir), (3, PathBuf::from("elsewhere")));
    }

    #[test]
    fn the_dump_period_may_stand_in_either_section() {
        let settings = read(&format!("{SERVER}[Dump]\nperiod_s = 21600\n")).unwrap();
        assert_eq!(settings.dump_period, Some(Duration::from_secs(21_600)));
    }

    #[test]
    fn the_empty_range_is_the_only_reversed_one() {
        let of = |min: &str, max: &str| read(&format!("[Server]\nminval = {min}\nmaxval = {max}\n"));
        assert_eq!(of("ffffffffffffffff", "0000000000000000").unwrap().range, HashRange::EMPTY);
        assert_eq!(of("0xFFFFFFFFFFFFFFFF", "0").unwrap().range, HashRange::EMPTY);
        for (min, max) in [("2", "1"), ("g", "1"), ("", "1"), ("00000000000000001", "1"), ("-1", "1"), ("0x", "1")] {
            assert!(of(min, max).is_err(), "{min} {max}");
        }
        assert!(read("[Server]\nminval = 0\n").is_err());
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in [
            "[Options_Memory]\nbatch_size = 1023",
            "[Options_Memory]\nbatch_size = 100000000",
            "[Options_Memory]\nallow_out_of_range = perhaps",
            "[Performance]\nredist_memory_limit_mulitplier = 0.9",
            "[Performance]\nredist_memory_limit_mulitplier = nan",
            "[Backup]\nschedule = 24:00",
            "[Backup]\nschedule = 3:60",
            "[Backup]\nschedule = noon",
            "[Dump]\nperiod_s = -1",
        ] {
            assert!(read(&format!("{SERVER}{text}\n")).is_err(), "{text}");
        }
    }
}

//! What `config.ini` says to the queue node alone (protocol §4.1).
//!
//! | section | keys | |
//! |---|---|---|
//! | Server | neoport, channel_size_limit, cpu, size_limit | published; the last one is accepted and means nothing |
//! | ChannelSizeById | a channel's prefix = bytes | the size of the queues of those channels; no prefix may begin another |
//! | Performance | no_delay | published, and accepted: neo always is without delay |
//! | Overflow | write_index_ms | from one writing of the overflow's index to the next |
//! | Queue | durability | `memory`, `overflow` or `journal` |
//! | Queue | redeliver | whether a batch goes back whose consumer went away before it took it over |
//! | Report | fullness_*, disk_free_*, wait_age_s | from where on it is a problem |

use std::time::Duration;

use overstory_node::config::{Config, ConfigError, Section};
use overstory_node::cpu::{self, Cpu};
use overstory_node::levels::Levels;
use overstory_swarm::channel;

/// Where records are while they wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In memory: a full queue takes nothing.
    Memory,
    /// In memory, and on disk what finds no room there.
    Overflow,
    /// On disk before a push is acknowledged, and in memory as far as there is room.
    Journal,
}

impl Durability {
    /// The word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Overflow => "overflow",
            Self::Journal => "journal",
        }
    }
}

/// The settings of a queue node.
#[derive(Debug, Clone, PartialEq)]
pub struct DmqSettings {
    /// Bytes of a queue in memory, each record costing 8 more than it has.
    pub channel_size: u64,
    /// The same for the channels whose names begin with a prefix; no prefix begins another one.
    pub channel_sizes: Vec<(String, u64)>,
    /// Where records are.
    pub durability: Durability,
    /// Whether a batch of a neo Consume goes back to its queue when the connection ends before it was taken over.
    pub redeliver: bool,
    /// The processor on which the node's thread runs; none: any.
    pub cpu: Cpu,
    /// From one writing of the overflow's index to the next.
    pub write_index: Duration,
    /// Bytes of a segment of the journal.
    pub segment_bytes: u64,
    /// From where on it is a problem.
    pub thresholds: Thresholds,
}

/// From where on something is a problem. Percentages unless said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// How full a queue is in memory: minor, major, critical.
    pub fullness: Levels,
    /// What is free of the disk with the data: minor, major, critical.
    pub disk_free: Levels,
    /// Records that wait for so long while none is taken: minor. `None`: never.
    pub wait_age: Option<Duration>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            fullness: Levels::rising([80.0, 90.0, 95.0]),
            disk_free: Levels::falling([20.0, 10.0, 5.0]),
            wait_age: Some(Duration::from_secs(300)),
        }
    }
}

impl DmqSettings {
    /// Reads the sections. `durability` is what the program does unless it is configured.
    ///
    /// # Errors
    /// A key is missing or a value cannot be.
    pub fn read(config: &Config, durability: Durability) -> Result<Self, ConfigError> {
        let server = config.section("Server");
        // Asked for here too, for a node whose port is any has no neo port to be asked for.
        server.number("neoport", 0, 0..=u16::MAX)?;
        server.number("size_limit", 0, 0..=u64::MAX)?;
        config.section("Performance").flag("no_delay", false)?;
        let queue = config.section("Queue");
        let choices = [Durability::Memory, Durability::Overflow, Durability::Journal].map(|mode| (mode.name(), mode));
        let durability = queue.choice("durability", durability, &choices)?;
        Ok(Self {
            channel_size: server.required_number("channel_size_limit", 1..=u64::MAX)?,
            channel_sizes: channel_sizes(&config.section("ChannelSizeById"))?,
            durability,
            redeliver: queue.flag("redeliver", durability == Durability::Journal)?,
            cpu: cpu::read(config)?,
            write_index: Duration::from_millis(config.section("Overflow").number(
                "write_index_ms",
                60_000,
                1..=86_400_000,
            )?),
            segment_bytes: queue.number("journal_segment_bytes", 64 << 20, 1 << 20..=1 << 30)?,
            thresholds: thresholds(&config.section("Report"))?,
        })
    }
}

fn channel_sizes(section: &Section<'_>) -> Result<Vec<(String, u64)>, ConfigError> {
    let mut sizes: Vec<(String, u64)> = Vec::new();
    for (prefix, _) in section.entries() {
        if channel::check(prefix.as_bytes()).is_err() {
            return Err(section.wrong(prefix, "the beginning of a channel's name before the '='"));
        }
        let bytes = section.required_number(prefix, 1..=u64::MAX)?;
        let overlaps = |other: &str| other.starts_with(prefix) || prefix.starts_with(other);
        if let Some((other, _)) = sizes.iter().find(|(other, _)| overlaps(other)) {
            return Err(
                section.wrong(prefix, &format!("no prefix that begins with, or is the beginning of, '{other}'"))
            );
        }
        sizes.push((prefix.to_owned(), bytes));
    }
    Ok(sizes)
}

fn thresholds(report: &Section<'_>) -> Result<Thresholds, ConfigError> {
    let default = Thresholds::default();
    let fullness = default.fullness.read(report, "fullness", 100.0)?;
    let disk_free = default.disk_free.read(report, "disk_free", 100.0)?;
    let wait_age_s = report.number("wait_age_s", 300, 0..=31_536_000)?;
    let wait_age = (wait_age_s > 0).then(|| Duration::from_secs(wait_age_s));
    Ok(Thresholds { fullness, disk_free, wait_age })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    const SERVER: &str = "[Server]\nneoport = 22001\nchannel_size_limit = 10000000\n";

    fn read(text: &str) -> Result<DmqSettings, ConfigError> {
        let config = Config::parse(Path::new("etc/config.ini"), text, Vec::new()).unwrap();
        let settings = DmqSettings::read(&config, Durability::Overflow)?;
        config.finish()?;
        Ok(settings)
    }

    #[test]
    fn the_defaults_are_the_published_ones() {
        let settings = read(SERVER).unwrap();
        assert_eq!((settings.channel_size, settings.channel_sizes), (10_000_000, Vec::new()));
        assert_eq!((settings.durability, settings.redeliver), (Durability::Overflow, false));
        assert_eq!(settings.write_index, Duration::from_secs(60));
        assert_eq!(settings.thresholds, Thresholds::default());
    }

    #[test]
    fn all_keys_are_read() {
        let text = "cpu = 3\nsize_limit = 7\n[ChannelSizeById]\nsmall = 200\nlarge = 5000000000\n\
            [Performance]\nno_delay = true\n[Overflow]\nwrite_index_ms = 1000\n\
            [Queue]\ndurability = journal\nredeliver = false\njournal_segment_bytes = 1048576\n\
            [Report]\nfullness_warning = 10\nfullness_major = 20\nfullness_critical = 30\ndisk_free_warning = 3\n\
            disk_free_major = 2\ndisk_free_critical = 1\nwait_age_s = 0\n";
        let settings = read(&format!("{SERVER}{text}")).unwrap();
        assert_eq!(settings.channel_sizes, [("small".to_owned(), 200), ("large".to_owned(), 5_000_000_000)]);
        assert_eq!((settings.durability, settings.redeliver), (Durability::Journal, false));
        assert_eq!((settings.write_index, settings.segment_bytes), (Duration::from_secs(1), 1 << 20));
        assert_eq!((settings.cpu, read(SERVER).unwrap().cpu), (Some(3), None));
        let expected = Thresholds {
            fullness: Levels::rising([10.0, 20.0, 30.0]),
            disk_free: Levels::falling([3.0, 2.0, 1.0]),
            wait_age: None,
        };
        assert_eq!(settings.thresholds, expected);
    }

    #[test]
    fn sections_may_be_empty() {
        let empty = "[ChannelSizeById]\n[Queue]\n[Overflow]\n[Report]\n[Performance]\n";
        assert_eq!(read(&format!("{SERVER}{empty}")).unwrap(), read(SERVER).unwrap());
    }

    #[test]
    fn a_batch_goes_back_by_default_when_all_is_on_disk() {
        for (durability, redeliver) in [("memory", false), ("overflow", false), ("journal", true)] {
            let settings = read(&format!("{SERVER}[Queue]\ndurability = {durability}\n")).unwrap();
            assert_eq!((settings.durability.name(), settings.redeliver), (durability, redeliver));
        }
        assert!(read(&format!("{SERVER}[Queue]\nredeliver = true\n")).unwrap().redeliver);
    }

    #[test]
    fn wrong_values_are_refused_and_named() {
        for (text, named) in [
            ("[ChannelSizeById]\nsmall = 200\nsmall_q = 300\n", "small"),
            ("[ChannelSizeById]\nsmall_q = 200\nsmall = 300\n", "small_q"),
            ("[ChannelSizeById]\nsmall = 0\n", "from 1"),
            ("[ChannelSizeById]\nsmall = much\n", "a number"),
            ("[ChannelSizeById]\nbad/name = 5\n", "channel"),
            ("[Queue]\ndurability = eternal\n", "memory, overflow, journal"),
            ("[Queue]\nredeliver = perhaps\n", "true or false"),
            ("[Queue]\njournal_segment_bytes = 5\n", "1048576"),
            ("[Queue]\nretain = 5\n", "no such key"),
            ("[Overflow]\nwrite_index_ms = 0\n", "from 1"),
            ("[Report]\nfullness_warning = 96\n", "at most the level"),
            ("[Report]\ndisk_free_critical = 15\n", "at least the level"),
            ("[Report]\nwait_age_s = -1\n", "a number"),
        ] {
            let error = read(&format!("{SERVER}{text}")).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        for text in ["[Server]\nneoport = 22001\n", "[Server]\nneoport = 70000\nchannel_size_limit = 1\n"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

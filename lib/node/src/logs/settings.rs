//! `[LOG]`, `[LOG.Root]`, `[LOG.<module>]` (protocol §4.1): what is logged, and where to.

use std::path::PathBuf;

use crate::config::{Config, ConfigError, Section};

/// How bad a line is, in the published order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below `Trace`.
    Debug,
    /// What a developer follows.
    Trace,
    /// Between `Trace` and `Info`.
    Verbose,
    /// What happens once in a while.
    Info,
    /// What is not as it should be.
    Warn,
    /// What failed.
    Error,
    /// What ends the program.
    Fatal,
}

impl Level {
    /// All, mildest first, in the order of `stats.log`.
    pub const ALL: [Self; 7] =
        [Self::Debug, Self::Trace, Self::Verbose, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// The word in a line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "Debug",
            Self::Trace => "Trace",
            Self::Verbose => "Verbose",
            Self::Info => "Info",
            Self::Warn => "Warn",
            Self::Error => "Error",
            Self::Fatal => "Fatal",
        }
    }

    /// The key in `stats.log`.
    #[must_use]
    pub const fn counter(self) -> &'static str {
        match self {
            Self::Debug => "logged_debug",
            Self::Trace => "logged_trace",
            Self::Verbose => "logged_verbose",
            Self::Info => "logged_info",
            Self::Warn => "logged_warn",
            Self::Error => "logged_error",
            Self::Fatal => "logged_fatal",
        }
    }
}

/// From which level on lines are written; `None` writes nothing.
pub(crate) type Threshold = Option<Level>;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `YYYY-MM-DD HH:MM:SS,mm Level [name] - message`
    Date,
    /// `Level [name] - message`
    Simple,
}

/// When a file is begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes that a file has at most, unless a single batch of lines is longer; 0 for as many as come.
    pub(crate) max_bytes: u64,
    /// Older files that are kept.
    pub(crate) backups: u32,
}

impl Rotation {
    /// Whoever wants it moves the files away and has them reopened.
    #[cfg(test)]
    pub(crate) const NEVER: Self = Self { max_bytes: 0, backups: 0 };
}

/// One configured logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logger {
    /// Empty for the root.
    pub(crate) name: String,
    pub(crate) level: Option<Threshold>,
    /// Whether `level` also holds for the loggers below.
    pub(crate) propagate: bool,
    pub(crate) console: Option<bool>,
    pub(crate) file: Option<PathBuf>,
    /// Whether the outputs of the loggers above are used as well as its own.
    pub(crate) additive: bool,
    pub(crate) console_layout: Layout,
    pub(crate) file_layout: Layout,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub(crate) loggers: Vec<Logger>,
    /// Of all files, `stats.log` among them.
    pub(crate) rotation: Rotation,
    /// Whether a logger asks for syslog, which this program does not serve.
    pub(crate) wants_syslog: bool,
}

impl LogSettings {
    /// Reads the sections.
    ///
    /// # Errors
    /// A value cannot be.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let common = config.section("LOG");
        let console_layout = layout(common, "console_layout", Layout::Simple)?;
        let file_layout = layout(common, "file_layout", Layout::Date)?;
        // Lines are written in batches by a thread of their own, so the size of the buffer has no meaning here.
        let _ = buffer_size(common)?;
        let rotation = Rotation {
            max_bytes: common.number("file_max_bytes", 64 << 20, 0..=1 << 40)?,
            backups: common.number("file_backups", 5, 0..=1000)?,
        };
        let mut wants_syslog = false;
        let mut loggers = Vec::new();
        for section in config.section_names(|name| name.starts_with("LOG.")) {
            let name = section.strip_prefix("LOG.").unwrap_or_default();
            let section = config.section(section);
            wants_syslog |= section.flag("syslog", false)?;
            let _ = buffer_size(section)?;
            loggers.push(Logger {
                name: if name == "Root" { String::new() } else { name.to_owned() },
                level: section.has("level").then(|| level(section)).transpose()?,
                propagate: section.flag("propagate", false)?,
                console: section.has("console").then(|| section.flag("console", true)).transpose()?,
                file: section.text("file").map(PathBuf::from),
                additive: section.flag("additive", false)?,
                console_layout: layout(section, "console_layout", console_layout)?,
                file_layout: layout(section, "file_layout", file_layout)?,
            });
        }
        Ok(Self { loggers, rotation, wants_syslog })
    }
}

fn level(section: Section<'_>) -> Result<Threshold, ConfigError> {
    section.choice(
        "level",
        Some(Level::Trace),
        &[
            ("debug", Some(Level::Debug)),
            ("trace", Some(Level::Trace)),
            ("verbose", Some(Level::Verbose)),
            ("info", Some(Level::Info)),
            ("warn", Some(Level::Warn)),
            ("error", Some(Level::Error)),
            ("fatal", Some(Level::Fatal)),
            ("none", None),
        ],
    )
}

fn layout(section: Section<'_>, key: &str, default: Layout) -> Result<Layout, ConfigError> {
    section.choice(key, default, &[("simple", Layout::Simple), ("date", Layout::Date)])
}

fn buffer_size(section: Section<'_>) -> Result<u64, ConfigError> {
    section.number("buffer_size", 0, 0..=1 << 30)
}

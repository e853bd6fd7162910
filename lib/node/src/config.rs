//! `config.ini` of a node or tool: the published INI dialect, read key by key, so that a key nobody asked for is found.
//!
//! A value of the command line (`-O 'Section.key = value'`) stands over that of the file. The environment overrides
//! nothing, and neither may override `minval` and `maxval`: a node rewrites them in its file when its range changes,
//! and must find there what it wrote ([`rewrite`]).

pub mod rewrite;
pub mod sections;
mod slip;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use overstory_runtime::ini::{Dialect, Ini, IniError};

/// Keys that only the file may set, by section.
pub const FILE_ONLY: [(&str, &str); 2] = [("Server", "minval"), ("Server", "maxval")];

const TRUE: [&str; 5] = ["true", "yes", "on", "enabled", "1"];
const FALSE: [&str; 5] = ["false", "no", "off", "disabled", "0"];

/// Why a configuration cannot be used. Each message says what to change and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read or is no INI file.
    #[error(transparent)]
    Unreadable(#[from] IniError),
    /// An override is not of the form `Section.key = value`.
    #[error("-O '{0}': expected 'Section.key = value'")]
    BadOverride(String),
    /// An override of a key that the node writes itself.
    #[error(
        "-O '[{section}] {key}': cannot be overridden: the range of a node is what its file says (a dht node rewrites it \
         there when it changes); change the file"
    )]
    FileOnly {
        /// The section.
        section: String,
        /// The key.
        key: String,
    },
    /// A key that must be there is not.
    #[error("{file}: [{section}] {key} is missing: {allowed}")]
    Missing {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// What it may hold.
        allowed: String,
    },
    /// A value that cannot be.
    #[error("{place}: [{section}] {key} = {value}: expected {allowed}")]
    Value {
        /// The file and line, or `-O`.
        place: String,
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// Keys or sections that mean nothing to this program.
    #[error("{}", .0.join("\n"))]
    Unknown(Vec<String>),
}

impl ConfigError {
    /// Whether the file itself could not be read; the program then ends with code 3.
    #[must_use]
    pub const fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable(_))
    }
}

/// One `Section.key = value` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    section: String,
    key: String,
    value: String,
}

impl FromStr for Override {
    type Err = ConfigError;

    /// The last dot before the `=` ends the section: sections like `LOG.Root` have dots in their names.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::BadOverride(text.to_owned());
        let (place, value) = text.split_once('=').ok_or_else(bad)?;
        let (section, key) = place.trim().rsplit_once('.').ok_or_else(bad)?;
        let (section, key) = (section.trim(), key.trim());
        if section.is_empty() || key.is_empty() {
            return Err(bad());
        }
        Ok(Self { section: section.to_owned(), key: key.to_owned(), value: value.trim().to_owned() })
    }
}

/// A configuration file with what the command line says over it.
///
/// Reading a key marks it as known; [`Config::finish`] then tells the keys that nothing reads.
#[derive(Debug)]
pub struct Config {
    file: PathBuf,
    ini: Ini,
    overrides: Vec<Override>,
    flags: BTreeSet<String>,
    /// (section, key) pairs that were asked for.
    asked: RefCell<BTreeSet<(String, String)>>,
}

impl Config {
    /// Reads `file`.
    ///
    /// # Errors
    /// The file cannot be read or is not INI, or an override is of a key that only the file may set.
    pub fn load(file: &Path, overrides: Vec<Override>) -> Result<Self, ConfigError> {
        Self::of(file, Ini::read(file, Dialect::SWARM)?, overrides)
    }

    /// Takes `text` for the content of `file`, which is not read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &Path, text: &str, overrides: Vec<Override>) -> Result<Self, ConfigError> {
        let ini = Ini::parse(text, Dialect::SWARM).map_err(|e| IniError { file: Some(file.to_owned()), ..e })?;
        Self::of(file, ini, overrides)
    }

    fn of(file: &Path, ini: Ini, overrides: Vec<Override>) -> Result<Self, ConfigError> {
        for Override { section, key, .. } in &overrides {
            if FILE_ONLY.contains(&(section.as_str(), key.as_str())) {
                return Err(ConfigError::FileOnly { section: section.clone(), key: key.clone() });
            }
        }
        let (flags, asked) = (BTreeSet::new(), RefCell::default());
        Ok(Self { file: file.to_owned(), ini, overrides, flags, asked })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Says that a flag of the program's own was given (such as dhtdump's `oneshot`).
    pub fn set_flag(&mut self, flag: &str) {
        self.flags.insert(flag.to_owned());
    }

    /// Whether a flag of the program's own was given on the command line.
    #[must_use]
    pub fn flag(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// A section, empty when the file has none of that name.
    #[must_use]
    pub fn section<'a>(&'a self, name: &'a str) -> Section<'a> {
        Section { config: self, name }
    }

    /// The names of the sections that `wanted` accepts, in the file's order, overrides after it.
    #[must_use]
    pub fn section_names(&self, wanted: impl Fn(&str) -> bool) -> Vec<&str> {
        let named = self.ini.sections().iter().map(|s| s.name.as_str());
        let mut names: Vec<&str> = Vec::new();
        for name in named.chain(self.overrides.iter().map(|o| o.section.as_str())) {
            if wanted(name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Ends the reading: everything in the file must have been asked for.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] names each key (or section without a known key) that was not. The caller decides
    /// whether that is fatal (`--loose-config-parsing`).
    pub fn finish(&self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        let known_sections: BTreeSet<&str> = asked.iter().map(|(section, _)| section.as_str()).collect();
        let knows = |section: &str, key: &str| asked.contains(&(section.to_owned(), key.to_owned()));
        let mut unknown = Vec::new();
        for section in self.ini.sections() {
            if !known_sections.contains(section.name.as_str()) {
                unknown.push(format!("{}:{}: [{}]: no such section", self.file.display(), section.line, section.name));
                continue;
            }
            let strangers = section.entries.iter().filter(|e| !knows(&section.name, &e.key));
            unknown.extend(strangers.map(|entry| {
                format!("{}:{}: [{}] {}: no such key", self.file.display(), entry.line, section.name, entry.key)
            }));
        }
        let strangers = self.overrides.iter().filter(|o| !knows(&o.section, &o.key));
        unknown.extend(strangers.map(|o| format!("-O: [{}] {}: no such key", o.section, o.key)));
        if unknown.is_empty() { Ok(()) } else { Err(ConfigError::Unknown(unknown)) }
    }

    /// The error for a key that is not there. A key that nothing has asked for and that looks like a slip of it is
    /// named with its line.
    fn missing(&self, section: &str, key: &str, allowed: &str) -> ConfigError {
        let asked = self.asked.borrow();
        let entries = self.ini.section(section).map_or(&[][..], |section| &section.entries);
        let slip = entries
            .iter()
            .filter(|entry| !asked.contains(&(section.to_owned(), entry.key.clone())))
            .find(|entry| slip::is_slip(&entry.key, key));
        let allowed = slip.map_or_else(
            || allowed.to_owned(),
            |entry| format!("{allowed} (is '{}' in line {} meant to be it?)", entry.key, entry.line),
        );
        ConfigError::Missing { file: self.file.clone(), section: section.to_owned(), key: key.to_owned(), allowed }
    }

    fn ask(&self, section: &str, key: &str) {
        self.asked.borrow_mut().insert((section.to_owned(), key.to_owned()));
    }

    /// The value of a key and where it stands.
    fn find(&self, section: &str, key: &str) -> Option<(&str, Option<usize>)> {
        self.ask(section, key);
        let over = self.overrides.iter().rev().find(|o| o.section == section && o.key == key);
        if let Some(over) = over {
            return Some((over.value.as_str(), None));
        }
        self.ini.section(section)?.entry(key).map(|entry| (entry.value.as_str(), Some(entry.line)))
    }
}

/// One section of a [`Config`]. Every read counts as asking for the key.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    config: &'a Config,
    name: &'a str,
}

impl<'a> Section<'a> {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Whether the key is set, be it to nothing.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.config.find(self.name, key).is_some()
    }

    /// Every key of the section with its value, overrides included; marks all of them as known.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'a str, &'a str)> {
        let config = self.config;
        let mut all: Vec<(&str, &str)> = Vec::new();
        // Without entries it is a known section all the same. No key is empty.
        config.ask(self.name, "");
        let in_file = config.ini.section(self.name).map_or(&[][..], |s| &s.entries);
        let over = config.overrides.iter().filter(|o| o.section == self.name);
        let pairs = in_file.iter().map(|e| (e.key.as_str(), e.value.as_str()));
        for (key, value) in pairs.chain(over.map(|o| (o.key.as_str(), o.value.as_str()))) {
            config.ask(self.name, key);
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some(entry) => entry.1 = value,
                None => all.push((key, value)),
            }
        }
        all
    }

    /// The text of a key; `None` when it is absent or empty.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.config.find(self.name, key).map(|(value, _)| value).filter(|value| !value.is_empty())
    }

    /// A key that `read` understands; `None` when it is absent.
    ///
    /// # Errors
    /// The key is there and `read` answers `None`; the error says that `allowed` was expected.
    pub fn parsed<T>(
        &self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((value, _)) = self.config.find(self.name, key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, allowed))
    }

    /// The same for a key that must be there.
    ///
    /// # Errors
    /// The key is absent, or `read` answers `None`.
    pub fn required<T>(
        &self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.parsed(key, allowed, read)?.ok_or_else(|| self.config.missing(self.name, key, allowed))
    }

    /// A text that must be there and not be empty.
    ///
    /// # Errors
    /// The key is absent or empty.
    pub fn required_text(&self, key: &str) -> Result<&'a str, ConfigError> {
        self.required(key, "a text", |_| Some(()))?;
        self.text(key).ok_or_else(|| self.wrong(key, "a text"))
    }

    /// A number within limits, or `default`.
    ///
    /// # Errors
    /// The value is no number or outside of `limits`.
    pub fn number<T>(&self, key: &str, default: T, limits: RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        Ok(self.parsed(key, &number_allowed(&limits), |text| number(text, &limits))?.unwrap_or(default))
    }

    /// A number within limits that must be there.
    ///
    /// # Errors
    /// The key is absent, no number or outside of `limits`.
    pub fn required_number<T>(&self, key: &str, limits: RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.required(key, &number_allowed(&limits), |text| number(text, &limits))
    }

    /// A number of 64 bits in hexadecimal digits, with `0x` in front or without.
    ///
    /// # Errors
    /// The value is none.
    pub fn hexadecimal(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.parsed(key, HEXADECIMAL, hexadecimal)
    }

    /// The same for a key that must be there.
    ///
    /// # Errors
    /// The key is absent, or its value is none.
    pub fn required_hexadecimal(&self, key: &str) -> Result<u64, ConfigError> {
        self.required(key, HEXADECIMAL, hexadecimal)
    }

    /// A truth value, or `default`.
    ///
    /// # Errors
    /// The value is neither of the words for true nor for false.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let is = |words: &[&str], text: &str| words.iter().any(|word| word.eq_ignore_ascii_case(text));
        let read = |text: &str| match text {
            _ if is(&TRUE, text) => Some(true),
            _ if is(&FALSE, text) => Some(false),
            _ => None,
        };
        Ok(self.parsed(key, "true or false", read)?.unwrap_or(default))
    }

    /// One of some words, or `default`.
    ///
    /// # Errors
    /// The value is none of them.
    pub fn choice<T: Copy>(&self, key: &str, default: T, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let allowed = choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let read = |text: &str| choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, v)| *v);
        Ok(self.parsed(key, &format!("one of {allowed}"), read)?.unwrap_or(default))
    }

    /// The error of a value of this section that cannot be, for checks beyond a single key too.
    #[must_use]
    pub fn wrong(&self, key: &str, allowed: &str) -> ConfigError {
        let (value, line) = self.config.find(self.name, key).unwrap_or(("", None));
        let place = match line {
            Some(line) => format!("{}:{line}", self.config.file.display()),
            None if self.config.overrides.iter().any(|o| o.section == self.name && o.key == key) => "-O".to_owned(),
            None => self.config.file.display().to_string(),
        };
        ConfigError::Value {
            place,
            section: self.name.to_owned(),
            key: key.to_owned(),
            value: value.chars().take(200).collect(),
            allowed: allowed.to_owned(),
        }
    }
}

const HEXADECIMAL: &str = "1 to 16 hexadecimal digits, with 0x in front or without";

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let valid = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn number<T: FromStr + PartialOrd>(text: &str, limits: &RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|value| limits.contains(value))
}

fn number_allowed<T: Display>(limits: &RangeInclusive<T>) -> String {
    format!("a number from {} to {}", limits.start(), limits.end())
}

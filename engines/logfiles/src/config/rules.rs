//! Sections whose keys are beginnings of channels' names.

use overstory_node::config::{ConfigError, Section};
use overstory_swarm::channel;

/// The key that stands for all channels.
const ALL: &str = "*";

/// What is said of channels by the beginning of their names: the longest one that fits counts, `*` for all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules<T> {
    /// Longest first; that of `*` is empty.
    rules: Vec<(String, T)>,
}

impl<T> Default for Rules<T> {
    fn default() -> Self {
        Self { rules: Vec::new() }
    }
}

/// From the beginnings of names and what counts for them; the empty one is for all.
impl<T> FromIterator<(String, T)> for Rules<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(rules: I) -> Self {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { rules }
    }
}

impl<T> Rules<T> {
    /// Reads a section; `value` reads that of a key.
    ///
    /// # Errors
    /// A key cannot be the beginning of a channel's name, or `value` refuses it.
    pub fn read(
        section: &Section<'_>,
        value: impl Fn(&Section<'_>, &str) -> Result<T, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut rules = Vec::new();
        for (key, _) in section.entries() {
            if key != ALL && channel::check(key.as_bytes()).is_err() {
                return Err(section.wrong(key, "the beginning of a channel's name, or *, before the '='"));
            }
            let prefix = if key == ALL { "" } else { key };
            rules.push((prefix.to_owned(), value(section, key)?));
        }
        Ok(rules.into_iter().collect())
    }

    /// What counts for a channel.
    #[must_use]
    pub fn of(&self, channel: &str) -> Option<&T> {
        self.rules.iter().find(|(prefix, _)| channel.starts_with(prefix.as_str())).map(|(_, value)| value)
    }

    /// All rules, those with longer beginnings first; the beginning of `*` is empty.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.rules.iter().map(|(prefix, value)| (prefix.as_str(), value))
    }
}

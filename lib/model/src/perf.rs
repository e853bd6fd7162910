//! Perf data in every form that sources send: the strings of monitoring plugins and arrays of items.
//!
//! ```text
//! [']label[']=value[unit];[warn];[crit];[min];[max]
//! ```
//! Two published readers of the string form disagree, so there are two functions:
//!
//! | | [`parse_classic`] (2015) | [`parse_v4`] |
//! |---|---|---|
//! | between metrics | blank or comma | blank |
//! | decimal mark | `.` or `,` | `.` |
//! | numbers | signed, with exponent | digits and one dot |
//! | unit | any; a trailing `[unit]` of the label too | `%`, `°C`, `s`, `us`, `ms`, `B`, `KB`, `MB`, `TB`, `c` or none |
//! | metric name | the label | `label_unit`, the label alone without unit |
//! | malformed item | skipped, the others count | the whole string is refused |
//!
//! Both take a quoted label with `''` for a quote inside and skip `U` (unknown). Where the originals lose data (the
//! limits after a range such as `@10:20`), this reader does not: of a range the first number is kept, and what follows
//! is read. Sizes are bounded by [`MAX_TEXT`], [`MAX_SAMPLES`] and [`MAX_NAME`]; no input panics.

mod array;
mod text;

use std::fmt;

use crate::metric::Sample;

pub use array::parse_array;
pub use text::{parse_classic, parse_v4};

/// The longest perf data string that is read, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;
/// The most samples that one event can carry; the rest is skipped.
pub const MAX_SAMPLES: usize = 1000;
/// The longest metric name, in bytes.
pub const MAX_NAME: usize = 255;
/// The longest unit, in bytes.
pub const MAX_UNIT: usize = 32;

/// The two published readers of perf data strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The tolerant one of 2015.
    #[default]
    Classic,
    /// The strict one of the fourth version of the API.
    V4,
}

/// What was read, and what was not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PerfData {
    /// The readings, every value finite, in their order.
    pub samples: Vec<Sample>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// A piece of perf data that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The metric's name as far as it is known, cut to [`MAX_NAME`] bytes.
    pub metric: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a piece of perf data was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The text or the array is not of the form at all.
    Malformed,
    /// There is no name, or it is too long.
    BadName,
    /// There is no value.
    NoValue,
    /// The source says that it does not know the value (`U`, `NaN`, null).
    Unknown,
    /// The value is not a number, or not a finite one.
    BadValue,
    /// The unit is not one that this dialect knows, or too long.
    BadUnit,
    /// There were more samples than an event can carry.
    TooMany,
}

impl SkipReason {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadName => "bad_name",
            Self::NoValue => "no_value",
            Self::Unknown => "unknown",
            Self::BadValue => "bad_value",
            Self::BadUnit => "bad_unit",
            Self::TooMany => "too_many",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a perf data string of whichever era, with the names of 2015.
///
/// The grammar of [`parse_classic`] reads all that [`parse_v4`] accepts. Choosing the dialect by what a string happens
/// to contain would rename a metric when the value of its neighbour turns negative, so the names never depend on it: a
/// source whose metrics shall be named in v4's way is read with [`parse_as`].
#[must_use]
pub fn parse(text: &str) -> PerfData {
    parse_classic(text)
}

/// Reads a perf data string in the given dialect.
#[must_use]
pub fn parse_as(dialect: Dialect, text: &str) -> PerfData {
    match dialect {
        Dialect::Classic => parse_classic(text),
        Dialect::V4 => parse_v4(text),
    }
}

impl PerfData {
    fn skip(&mut self, metric: &str, reason: SkipReason) {
        // One word about the surplus is enough.
        if self.skipped.len() < MAX_SAMPLES {
            self.skipped.push(Skipped { metric: cut(metric, MAX_NAME).to_owned(), reason });
        }
    }

    /// Keeps a sample if there is room; false when there is none.
    fn keep(&mut self, sample: Sample) -> bool {
        if self.samples.len() >= MAX_SAMPLES {
            self.skip(&sample.metric, SkipReason::TooMany);
            return false;
        }
        self.samples.push(sample);
        true
    }
}

/// The longest beginning of `text` of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// Tells whether `name` can be a metric's name: not empty, not too long, without control characters.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;

//! Which values a reader wants (protocol §1.7, §2.6): all, those that hold some bytes, those that match a pattern.
//!
//! Patterns are what PCRE takes, over bytes: no flags are set but that for the case of letters, as the published node
//! does. `$` also matches before a line feed at the end, `.` does not match one. A pattern may begin with settings of
//! its own, `(*UTF)` for one; limits can only be lowered that way.
//!
//! Whatever the pattern and the value are, a match ends: it counts its steps, looks at a clock and gives up. Limits:
//!
//! | what | at most |
//! |---|---|
//! | a pattern | [`MAX_PATTERN`] bytes; compiled 64 KiB, parentheses nested 250 deep, as the library has it |
//! | steps of a match from one place of the value on | 1,000; 20,000 for values of up to 64 KiB |
//! | time of a match | 100 ms, and the step limit's worth of scans over the value: 0.3 s for 64 KiB, 2 s for 8 MiB |
//! | memory of a match | 4 MiB |
//!
//! Values above 4 KiB are too much for patterns that call themselves as a whole, `(?R)`, or hold verbs, `(*COMMIT)`.

mod pattern;

use memchr::memmem::Finder;
use pattern::Matcher;
pub(crate) use pattern::used;

/// Bytes of a pattern or of a string to look for.
pub const MAX_PATTERN: usize = 65_536;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is longer than [`MAX_PATTERN`].
    #[error("a pattern of {0} bytes")]
    TooLong(usize),
    /// It cannot be compiled.
    #[error("{0}")]
    Syntax(String),
}

/// The value is too much for the pattern: whether it matches was not found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a match was given up at its limit")]
pub struct LimitHit;

/// What a request wants of the values.
#[derive(Debug)]
pub struct Filter(Kind);

#[derive(Debug)]
enum Kind {
    All,
    Holds(Box<Finder<'static>>),
    Matches(Box<Matcher>),
}

impl Filter {
    /// All values.
    #[must_use]
    pub const fn none() -> Self {
        Self(Kind::All)
    }

    /// The values that hold these bytes; all values if there are none.
    ///
    /// # Errors
    /// They are too many.
    pub fn substring(bytes: &[u8]) -> Result<Self, PatternError> {
        Ok(match bytes.len() {
            0 => Self::none(),
            1..=MAX_PATTERN => Self(Kind::Holds(Box::new(Finder::new(bytes).into_owned()))),
            length => return Err(PatternError::TooLong(length)),
        })
    }

    /// The values that match a pattern somewhere; all values if it is empty.
    ///
    /// Compiling takes some microseconds, and for the worst of patterns some milliseconds.
    ///
    /// # Errors
    /// The pattern is too long or none.
    pub fn pcre(pattern: &[u8], caseless: bool) -> Result<Self, PatternError> {
        Ok(match pattern.len() {
            0 => Self::none(),
            1..=MAX_PATTERN => Self(Kind::Matches(Box::new(Matcher::new(pattern, caseless)?))),
            length => return Err(PatternError::TooLong(length)),
        })
    }

    /// Whether it takes all values.
    #[inline]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self.0, Kind::All)
    }

    /// Whether a value is wanted.
    ///
    /// # Errors
    /// It cannot be said within the limits.
    #[inline]
    pub fn matches(&self, value: &[u8]) -> Result<bool, LimitHit> {
        match &self.0 {
            Kind::All => Ok(true),
            Kind::Holds(finder) => Ok(finder.find(value).is_some()),
            Kind::Matches(matcher) => matcher.matches(value),
        }
    }

    /// What a value is found to be at once, and what it is in pieces: for tests.
    pub(crate) fn both_ways(&self, value: &[u8]) -> [Result<bool, LimitHit>; 2] {
        match &self.0 {
            Kind::Matches(matcher) => matcher.both_ways(value),
            _ => [self.matches(value), self.matches(value)],
        }
    }
}

#[cfg(test)]
mod tests;

//! What a real collectd sends over AMQP, read into samples of ours.
//!
//! [`decode`] turns a message of any of the three formats of collectd's amqp plugin into [`ValueList`]s, and [`Rates`]
//! turns those into [`Sample`](crate::Sample)s: gauges as they are, counts as rates per second. Both are pure.
//!
//! | `Format` | content type | body |
//! |---|---|---|
//! | Command | `text/collectd` | `PUTVAL host/plugin-inst/type-inst interval=10.000 1795236276.495:25434:7` |
//! | JSON | `application/json` | `[{"values":[1],"dstypes":["gauge"],"dsnames":["value"],"time":1795236274.499,"interval":10.000,"host":"h","plugin":"p","plugin_instance":"","type":"t","type_instance":""}]` |
//! | Graphite | `text/graphite` | `host.plugin-inst.type-inst[.ds] 12.3 1795236276\r\n` |
//!
//! Command and Graphite do not say what sort of number a value is: that is looked up in a [`TypesDb`]. Graphite writes
//! the host's dots as underscores: the names are taken from the routing key
//! `collectd.HOST.PLUGIN.PLUGIN_INSTANCE.TYPE.TYPE_INSTANCE` (dots as `/`) where it has that form.
//!
//! Every list belongs to the component HOST; the metric is called `plugin[-instance]/type[-instance][/data source]`,
//! the data source left out when it is called `value`. `docs/METRICS.md` lists the names.

mod command;
mod graphite;
mod json;
mod naming;
mod rates;
mod types_db;

use std::time::Duration;

use crate::clock::Millis;
use crate::metric::MetricKind;

pub use naming::{Identity, metric_name, unit_of};
pub use rates::{Last, Rates, rate};
pub use types_db::{DataSource, TypesDb, TypesDbError};

/// The most value lists that are taken from one message.
pub const MAX_LISTS: usize = 10_000;
/// The most values that one list can hold.
pub const MAX_VALUES: usize = 256;
/// How far a list's time may be from the time of its arrival; beyond it the arrival counts.
pub const MAX_SKEW: Duration = Duration::from_secs(24 * 3600);

/// A message as it came from the broker.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its content type, if it has one.
    pub content_type: Option<&'a str>,
    /// Its routing key.
    pub routing_key: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// When it arrived.
    pub received: Millis,
}

/// The three formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lines of the plain text protocol; counts are always raw.
    Command,
    /// An array of objects; counts are raw, or rates when the sender stores rates.
    Json,
    /// Lines of `path value time`; counts are raw, or rates when the sender stores rates.
    Graphite,
}

/// Values that were read at one time from one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueList {
    /// Whose they are.
    pub identity: Identity,
    /// When they were read.
    pub at: Millis,
    /// How often they are read, if the sender says so.
    pub interval: Option<Duration>,
    /// The values, at least one.
    pub values: Vec<DataValue>,
    /// The format that they came in.
    pub format: Format,
}

/// One value of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct DataValue {
    /// The data source, `value` when there is but one.
    pub source: String,
    /// How its readings relate.
    pub kind: MetricKind,
    /// The least value that its rate can have; `None` when it may be negative without limit.
    pub min: Option<f64>,
    /// What was read.
    pub reading: Reading,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// A number that stands for itself, finite.
    Gauge(f64),
    /// A count, exact whatever its width.
    Count(i128),
    /// A rate per second that the sender computed, finite.
    Rate(f64),
    /// The sender does not know it.
    Unknown,
}

/// What a message held.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decoded {
    /// The lists that could be read.
    pub lists: Vec<ValueList>,
    /// Those that could not.
    pub skipped: Vec<SkippedList>,
}

/// A value list that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedList {
    /// Its identifier as far as it is known, at most 255 bytes.
    pub identifier: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a value list could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It has not the form of its format.
    Malformed,
    /// A name is missing or too long.
    BadName,
    /// No table of types knows its type.
    UnknownType,
    /// It has more or fewer values than its type has data sources.
    WrongCount,
    /// A value is not a number, or the time is not a time.
    BadValue,
    /// The message holds too many lists.
    TooMany,
}

impl SkipReason {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadName => "bad_name",
            Self::UnknownType => "unknown_type",
            Self::WrongCount => "wrong_count",
            Self::BadValue => "bad_value",
            Self::TooMany => "too_many",
        }
    }
}

/// A message that is none of collectd's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not text.
    #[error("the body is not UTF-8: {0}")]
    NotText(#[from] std::str::Utf8Error),
    /// The body is not JSON, or not an array of objects.
    #[error("the body is not an array of value lists: {0}")]
    NotJson(#[from] serde_json::Error),
    /// Nothing in the body could be read.
    #[error("no value list in the body could be read, the first is {}", .0.name())]
    Nothing(SkipReason),
    /// The body is empty.
    #[error("the body is empty")]
    Empty,
}

/// Reads a message of any of the three formats.
///
/// The content type decides which; without one that is known, the beginning of the body does.
///
/// # Errors
/// When nothing in it is a value list. Lists that are broken beside good ones are in [`Decoded::skipped`].
pub fn decode(message: &Message<'_>, types: &TypesDb) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(message.body)?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}');
    if text.is_empty() {
        return Err(DecodeError::Empty);
    }
    let mut out = Decoded::default();
    match format_of(message.content_type, text) {
        Format::Json => json::read(text, message, types, &mut out)?,
        Format::Command => command::read(text, message, types, &mut out),
        Format::Graphite => graphite::read(text, message, types, &mut out),
    }
    match (out.lists.first(), out.skipped.first()) {
        (None, Some(first)) => Err(DecodeError::Nothing(first.reason)),
        _ => Ok(out),
    }
}

fn format_of(content_type: Option<&str>, text: &str) -> Format {
    let essence = content_type.and_then(|full| full.split(';').next()).unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "text/collectd" => Format::Command,
        "application/json" => Format::Json,
        "text/graphite" => Format::Graphite,
        _ if text.starts_with(['[', '{']) => Format::Json,
        _ if starts_with_command(text) => Format::Command,
        _ => Format::Graphite,
    }
}

fn starts_with_command(text: &str) -> bool {
    text.get(..command::VERB.len()).is_some_and(|head| head.eq_ignore_ascii_case(command::VERB))
}

impl Decoded {
    /// Notes a list that cannot be read.
    fn skip(&mut self, identifier: &str, reason: SkipReason) {
        if self.skipped.len() < MAX_LISTS {
            let end = identifier.floor_char_boundary(crate::perf::MAX_NAME);
            let identifier = identifier.get(..end).unwrap_or_default().to_owned();
            self.skipped.push(SkippedList { identifier, reason });
        }
    }

    /// Takes the outcome of one list; false when no more fit.
    fn take(&mut self, identifier: &str, outcome: Result<ValueList, SkipReason>) -> bool {
        if self.lists.len() >= MAX_LISTS {
            self.skip(identifier, SkipReason::TooMany);
            return false;
        }
        match outcome {
            Ok(list) => self.lists.push(list),
            Err(reason) => self.skip(identifier, reason),
        }
        true
    }
}

/// Turns seconds of a sender into a time, or the arrival if they are more than [`MAX_SKEW`] away from it.
fn time_of(seconds: f64, received: Millis) -> Option<Millis> {
    if !seconds.is_finite() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and far values are replaced below")]
    let at = Millis((seconds * 1000.0).round() as i64);
    let near = at.since(received).unsigned_abs() <= MAX_SKEW.as_millis().try_into().unwrap_or(u64::MAX);
    Some(if near { at } else { received })
}

/// Turns an interval of a sender into a duration, if it is one.
fn interval_of(seconds: f64) -> Option<Duration> {
    (seconds > 0.0 && seconds <= 86_400.0 * 366.0).then(|| Duration::from_secs_f64(seconds))
}

/// Reads a number whose kind is known: whole counts exactly, counts with a fraction as rates.
fn reading_of(text: &str, kind: MetricKind) -> Result<Reading, SkipReason> {
    if text.eq_ignore_ascii_case("u") || text.trim_start_matches(['-', '+']).eq_ignore_ascii_case("nan") {
        return Ok(Reading::Unknown);
    }
    if kind != MetricKind::Gauge
        && let Ok(count) = text.parse::<i128>()
    {
        return Ok(Reading::Count(count));
    }
    let value = text.parse::<f64>().map_err(|_| SkipReason::BadValue)?;
    Ok(match (value.is_finite(), kind) {
        (false, _) => Reading::Unknown,
        (true, MetricKind::Gauge) => Reading::Gauge(value),
        (true, _) => Reading::Rate(value),
    })
}

#[cfg(test)]
mod tests;

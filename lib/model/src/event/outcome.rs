//! What reading an event can end in.

use std::fmt;

use super::Event;

/// Bounds on what one event may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A larger body is refused, in bytes.
    pub body_bytes: usize,
    /// `output` is cut to this many characters.
    pub output_chars: usize,
    /// `long_output` is cut to this many characters.
    pub long_output_chars: usize,
    /// A longer connector, connector name, component or resource is refused, in bytes.
    pub name_bytes: usize,
    /// A timestamp further away from the present is replaced by it, in seconds.
    pub clock_skew_s: i64,
    /// So many tags are kept.
    pub tags: usize,
    /// So many keys that are not part of the format are kept.
    pub extra_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            output_chars: 255,
            long_output_chars: 1024,
            name_bytes: 2048,
            clock_skew_s: 24 * 3600,
            tags: 100,
            extra_keys: 100,
        }
    }
}

/// An event that was understood, and what had to be put right for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The event.
    pub event: Event,
    /// What was normalised, each sort once.
    pub notes: Vec<Note>,
}

/// Something that was put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Note {
    /// The body is not UTF-8; bad bytes were replaced.
    InvalidUtf8,
    /// The body is not JSON as it stands: stray backslashes or raw control characters in strings were escaped.
    RepairedJson,
    /// The body holds `NaN` or `Infinity`, which are not JSON; they count as null.
    NonFiniteNumber,
    /// A number was given as a string.
    NumericString,
    /// A text was given as a number or a truth value.
    TextFromOther,
    /// Control characters were replaced.
    ControlCharacters,
    /// `output` or `long_output` was cut.
    OutputCut,
    /// There is no timestamp; the present counts.
    NoTimestamp,
    /// The timestamp is not a number; the present counts.
    BadTimestamp,
    /// The timestamp is too far from the present, which counts instead.
    FarTimestamp,
    /// There is no `event_type`: `check` counts.
    NoEventType,
    /// There is no `source_type`: it follows from which names are there.
    NoSourceType,
    /// A resource was named for an event about something else.
    ResourceIgnored,
    /// `initiator` is none of the known ones: `external` counts.
    BadInitiator,
    /// A part of the perf data was left out.
    PerfDataSkipped,
    /// Tags were left out or cut.
    TagsCut,
    /// Keys that are not part of the format were left out.
    ExtraCut,
    /// The routing key names another connector than the body, which counts.
    RoutingKeyDiffers,
}

impl Note {
    /// Every note there is, for metrics that start at zero.
    pub const ALL: [Self; 18] = [
        Self::InvalidUtf8,
        Self::RepairedJson,
        Self::NonFiniteNumber,
        Self::NumericString,
        Self::TextFromOther,
        Self::ControlCharacters,
        Self::OutputCut,
        Self::NoTimestamp,
        Self::BadTimestamp,
        Self::FarTimestamp,
        Self::NoEventType,
        Self::NoSourceType,
        Self::ResourceIgnored,
        Self::BadInitiator,
        Self::PerfDataSkipped,
        Self::TagsCut,
        Self::ExtraCut,
        Self::RoutingKeyDiffers,
    ];

    /// The word for metrics and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidUtf8 => "invalid_utf8",
            Self::RepairedJson => "repaired_json",
            Self::NonFiniteNumber => "non_finite_number",
            Self::NumericString => "numeric_string",
            Self::TextFromOther => "text_from_other",
            Self::ControlCharacters => "control_characters",
            Self::OutputCut => "output_cut",
            Self::NoTimestamp => "no_timestamp",
            Self::BadTimestamp => "bad_timestamp",
            Self::FarTimestamp => "far_timestamp",
            Self::NoEventType => "no_event_type",
            Self::NoSourceType => "no_source_type",
            Self::ResourceIgnored => "resource_ignored",
            Self::BadInitiator => "bad_initiator",
            Self::PerfDataSkipped => "perf_data_skipped",
            Self::TagsCut => "tags_cut",
            Self::ExtraCut => "extra_cut",
            Self::RoutingKeyDiffers => "routing_key_differs",
        }
    }
}

/// Why an event is refused. The codes are part of the dead letters' format and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The body is larger than allowed.
    Oversized,
    /// The body's content type is one that is not read here.
    WrongContentType,
    /// The body is not JSON and cannot be read as such.
    BadJson,
    /// The body is JSON, but not an object.
    NotAnObject,
    /// A key holds a value of a type that cannot be used.
    WrongType,
    /// `connector` is missing or empty.
    MissingConnector,
    /// `connector_name` is missing or empty.
    MissingConnectorName,
    /// `component` is missing or empty.
    MissingComponent,
    /// `resource` is missing or empty for an event about a resource.
    MissingResource,
    /// A name is too long.
    NameTooLong,
    /// `source_type` is none of the published ones.
    InvalidSourceType,
    /// `source_type` is one that sources cannot speak for yet (`service`, `metaalarm`).
    UnsupportedSourceType,
    /// `event_type` is none of the published ones.
    UnknownType,
    /// `event_type` is one that no engine handles yet: to be replayed when one does.
    UnsupportedType,
    /// `state` is none of 0 to 3.
    InvalidState,
}

impl Reason {
    /// The word for metrics, headers of dead letters and answers.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::WrongContentType => "wrong_content_type",
            Self::BadJson => "bad_json",
            Self::NotAnObject => "not_an_object",
            Self::WrongType => "wrong_type",
            Self::MissingConnector => "missing_connector",
            Self::MissingConnectorName => "missing_connector_name",
            Self::MissingComponent => "missing_component",
            Self::MissingResource => "missing_resource",
            Self::NameTooLong => "name_too_long",
            Self::InvalidSourceType => "invalid_source_type",
            Self::UnsupportedSourceType => "unsupported_source_type",
            Self::UnknownType => "unknown_type",
            Self::UnsupportedType => "unsupported_type",
            Self::InvalidState => "invalid_state",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// Why, in a word.
    pub reason: Reason,
    /// Why, in a sentence that names the key; at most 200 characters, one line.
    pub detail: String,
}

impl Reject {
    /// Makes a refusal; `detail` is shortened to one line of 200 characters.
    #[must_use]
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        let detail = detail.as_ref().chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { reason, detail }
    }
}

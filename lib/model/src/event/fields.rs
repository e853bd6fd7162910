//! Reading the keys of an event's object one by one, leaving what nobody asked for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::json::type_name;
use super::outcome::{Limits, Note, Reason, Reject};
use super::text::{Controls, clean, cut};
use crate::clock::Millis;
use crate::perf;
use crate::state::State;

/// The longest key or value of a tag, in characters.
const TAG_CHARS: usize = 255;

/// An event's object while it is read.
pub(super) struct Fields<'a> {
    map: Map<String, Value>,
    limits: &'a Limits,
    notes: Vec<Note>,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(map: Map<String, Value>, limits: &'a Limits, notes: Vec<Note>) -> Self {
        Self { map, limits, notes }
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A text, whatever scalar it came as; `None` when missing or null.
    fn text(&mut self, key: &str) -> Result<Option<String>, Reject> {
        let text = match self.map.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => return Ok(Some(text)),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(truth)) => truth.to_string(),
            Some(other) => {
                return Err(Reject::new(Reason::WrongType, format!("{key} is {}, not a string", type_name(&other))));
            }
        };
        self.note(Note::TextFromOther);
        Ok(Some(text))
    }

    /// A name; `None` when missing or blank.
    pub(super) fn name(&mut self, key: &str) -> Result<Option<String>, Reject> {
        let Some(name) = self.text(key)? else { return Ok(None) };
        if name.trim().is_empty() {
            return Ok(None);
        }
        let limit = self.limits.name_bytes;
        if name.len() > limit {
            let detail = format!("{key} has {} bytes, at most {limit} are allowed", name.len());
            return Err(Reject::new(Reason::NameTooLong, detail));
        }
        let (name, changed) = clean(name, Controls::Name);
        if changed {
            self.note(Note::ControlCharacters);
        }
        Ok(Some(name))
    }

    /// The `event_type` or `source_type`; `None` when missing or empty.
    pub(super) fn word(&mut self, key: &str) -> Result<Option<String>, Reject> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(word)) => Ok((!word.is_empty()).then_some(word)),
            Some(other) => Err(Reject::new(Reason::WrongType, format!("{key} is {}, not a string", type_name(&other)))),
        }
    }

    /// `output` or `long_output`, cleaned and cut.
    pub(super) fn output(&mut self, key: &str, controls: Controls, limit: usize) -> Result<String, Reject> {
        let Some(text) = self.text(key)? else { return Ok(String::new()) };
        let (text, was_cut) = cut(text, limit);
        let (text, changed) = clean(text, controls);
        if was_cut {
            self.note(Note::OutputCut);
        }
        if changed {
            self.note(Note::ControlCharacters);
        }
        Ok(text)
    }

    /// The state of a check: 0 when missing, as in 2015.
    pub(super) fn state(&mut self) -> Result<State, Reject> {
        let Some(value) = self.map.remove("state") else { return Ok(State::Ok) };
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if text.len() <= 32 => text.trim().parse::<f64>().ok(),
            _ => None,
        };
        let state = [State::Ok, State::Minor, State::Major, State::Critical]
            .into_iter()
            .find(|state| number == Some(f64::from(u8::from(*state))));
        let Some(state) = state else {
            let shown = match number {
                Some(number) => number.to_string(),
                None => type_name(&value).to_owned(),
            };
            return Err(Reject::new(Reason::InvalidState, format!("state is {shown}, not one of 0, 1, 2, 3")));
        };
        if value.is_string() {
            self.note(Note::NumericString);
        }
        Ok(state)
    }

    /// Removes `state` where it means nothing.
    pub(super) fn ignore_state(&mut self) {
        self.map.remove("state");
    }

    /// When it happened; the present when that is not to be had.
    pub(super) fn timestamp(&mut self, now: Millis) -> Millis {
        let seconds = match self.map.remove("timestamp") {
            None | Some(Value::Null) => {
                self.note(Note::NoTimestamp);
                return now;
            }
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) if text.len() <= 32 => {
                let number = text.trim().parse::<f64>().ok();
                if number.is_some() {
                    self.note(Note::NumericString);
                }
                number
            }
            Some(_) => None,
        };
        let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) else {
            self.note(Note::BadTimestamp);
            return now;
        };
        let at = Millis(saturating_millis(seconds));
        if at.since(now).unsigned_abs() > self.limits.clock_skew_s.saturating_mul(1000).unsigned_abs() {
            self.note(Note::FarTimestamp);
            return now;
        }
        at
    }

    /// The initiator's word, empty when there is none.
    pub(super) fn initiator(&mut self) -> String {
        match self.map.remove("initiator") {
            Some(Value::String(word)) => word,
            None | Some(Value::Null) => String::new(),
            Some(_) => {
                self.note(Note::BadInitiator);
                String::new()
            }
        }
    }

    /// The measurements of both forms; the array wins over the string.
    pub(super) fn samples(&mut self) -> Vec<crate::metric::Sample> {
        let mut skipped = 0;
        let mut samples = match self.map.remove("perf_data_array") {
            None => Vec::new(),
            Some(array) => {
                let read = perf::parse_array(&array);
                skipped += read.skipped.len();
                read.samples
            }
        };
        match self.map.remove("perf_data") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                let read = perf::parse(&text);
                skipped += read.skipped.len();
                add_new(&mut samples, read.samples);
            }
            // Some sources put the array under the string's key.
            Some(array @ Value::Array(_)) => {
                let read = perf::parse_array(&array);
                skipped += read.skipped.len();
                add_new(&mut samples, read.samples);
            }
            Some(_) => skipped += 1,
        }
        if samples.len() > perf::MAX_SAMPLES {
            skipped += samples.len() - perf::MAX_SAMPLES;
            samples.truncate(perf::MAX_SAMPLES);
        }
        if skipped > 0 {
            self.note(Note::PerfDataSkipped);
        }
        samples
    }

    /// The labels: a map, a list (`name` or `name: value`) or one text.
    pub(super) fn tags(&mut self) -> BTreeMap<String, String> {
        let pairs: Vec<(String, Value)> = match self.map.remove("tags") {
            None | Some(Value::Null) => return BTreeMap::new(),
            Some(Value::Object(map)) => map.into_iter().collect(),
            Some(Value::Array(items)) => items.into_iter().map(label).collect(),
            Some(text @ Value::String(_)) => vec![label(text)],
            // As in 2015, anything else is no tag at all.
            Some(_) => {
                self.note(Note::TagsCut);
                return BTreeMap::new();
            }
        };
        let mut tags = BTreeMap::new();
        for (key, value) in pairs {
            let value = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Null => String::new(),
                _ => {
                    self.note(Note::TagsCut);
                    continue;
                }
            };
            let (key, value) = (self.tag_text(key), self.tag_text(value));
            if key.is_empty() {
                // An empty list or text is how some sources say that there are none.
                continue;
            }
            if tags.len() >= self.limits.tags {
                self.note(Note::TagsCut);
                break;
            }
            tags.insert(key, value);
        }
        tags
    }

    fn tag_text(&mut self, text: String) -> String {
        let (text, was_cut) = cut(text, TAG_CHARS);
        let (text, changed) = clean(text, Controls::Name);
        if was_cut {
            self.note(Note::TagsCut);
        }
        if changed {
            self.note(Note::ControlCharacters);
        }
        text
    }

    /// Ends the reading: the keys that are left, without those that only engines write, and the notes.
    pub(super) fn finish(mut self) -> (Map<String, Value>, Vec<Note>) {
        for key in WRITTEN_BY_ENGINES {
            self.map.remove(key);
        }
        let inner = self.map.remove("extra");
        let mut extra = self.map;
        match inner {
            Some(Value::Object(inner)) => {
                for (key, value) in inner {
                    if !is_format_key(&key) {
                        extra.entry(key).or_insert(value);
                    }
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => add_note(&mut self.notes, Note::ExtraCut),
        }
        let limit = self.limits.extra_keys;
        if extra.len() > limit || extra.keys().any(|key| key.len() > TAG_CHARS) {
            add_note(&mut self.notes, Note::ExtraCut);
            extra = extra.into_iter().filter(|(key, _)| key.len() <= TAG_CHARS).take(limit).collect();
        }
        (extra, self.notes)
    }
}

/// Keys that sources repeat from documents that engines wrote.
const WRITTEN_BY_ENGINES: [&str; 5] = ["_id", "rk", "routing_key", "rt", "status"];

/// Every key that the format gives a meaning.
const FORMAT_KEYS: [&str; 18] = [
    "connector",
    "connector_name",
    "event_type",
    "source_type",
    "component",
    "resource",
    "state",
    "output",
    "long_output",
    "timestamp",
    "author",
    "initiator",
    "perf_data",
    "perf_data_array",
    "tags",
    "extra",
    "_id",
    "rk",
];

fn is_format_key(key: &str) -> bool {
    FORMAT_KEYS.contains(&key) || WRITTEN_BY_ENGINES.contains(&key)
}

fn add_note(notes: &mut Vec<Note>, note: Note) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

/// Adds the samples whose metric is not there yet.
fn add_new(samples: &mut Vec<crate::metric::Sample>, more: Vec<crate::metric::Sample>) {
    if samples.is_empty() {
        *samples = more;
        return;
    }
    let known: std::collections::HashSet<String> = samples.iter().map(|sample| sample.metric.clone()).collect();
    samples.extend(more.into_iter().filter(|sample| !known.contains(&sample.metric)));
}

/// Reads `name: value` or `name` of a list of labels.
fn label(item: Value) -> (String, Value) {
    match item {
        Value::String(text) => match text.split_once(": ") {
            Some((key, value)) => (key.to_owned(), Value::from(value)),
            None => (text, Value::from("")),
        },
        Value::Number(number) => (number.to_string(), Value::from("")),
        other => (String::new(), other),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float that does not fit becomes the nearest integer that does")]
fn saturating_millis(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

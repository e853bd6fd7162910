//! The event archive: the form in which an event is kept as it came, and where it is filed.
//!
//! A record is one JSON object: what the event is about, so that it can be found without reading the body, then how it
//! came, then the body itself, in one of three keys:
//!
//! ```text
//! {"entity":"disk/host1","connector":"nagios/poller1","component":"host1","event_type":"check",
//!  "routing_key":"nagios.poller1.check.resource.host1.disk","message_id":"6f1c...","received":1795245631123456,
//!  "content_type":"application/json","headers":{...},"body":{"connector":"nagios",...}}
//! ```
//! `body` is the body if that is a JSON object, byte for byte but for white space around it; `text` any other text, `base64`
//! what is no text. What an event does not have is left out. It is filed in the channel of the day of its timestamp
//! (UTC), at its second.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::{Millis, Timestamp};
use crate::event::{self, Event, Limits};
use crate::ids::MessageId;

/// Seconds of a day.
const DAY_S: i64 = 86_400;
/// A timestamp further in the future is not believed, in seconds.
const MOST_AHEAD_S: i64 = DAY_S;

/// The channel that has the events of the day that `at` is in, such as `events-2026-11-21`.
#[must_use]
pub fn channel(at: Timestamp) -> String {
    let mut name = at.utc();
    name.truncate(name.find(' ').unwrap_or(name.len()));
    name.insert_str(0, "events-");
    name
}

/// The first second of the day after the one that `at` is in.
#[must_use]
pub const fn next_day(at: Timestamp) -> Timestamp {
    Timestamp((at.0.div_euclid(DAY_S) + 1).saturating_mul(DAY_S))
}

/// A message as it is kept.
#[derive(Debug, Clone)]
pub struct Archived {
    /// The entity that the event is about; of a message that is no valid event there is none.
    pub entity: Option<String>,
    /// The entity of its connector, `connector/connector_name`.
    pub connector: Option<String>,
    /// The component that it is about, or that its resource belongs to.
    pub component: Option<String>,
    /// The `event_type` that it has or, having none, counts as.
    pub event_type: Option<String>,
    /// The key that it was published with.
    pub routing_key: String,
    /// Its publisher's name for it.
    pub message_id: Option<String>,
    /// When the archive took it, microseconds since 1970; of one process each time is there once.
    pub received: i64,
    /// Whether the archive may have taken it before.
    pub redelivered: bool,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// What it says.
    pub body: Body,
}

/// The body of a message, in the form that keeps its bytes.
#[derive(Debug, Clone)]
pub enum Body {
    /// A JSON object.
    Json(Box<RawValue>),
    /// A text that is none.
    Text(String),
    /// Bytes that are no text, in base64.
    Base64(String),
}

/// A message as the archive gets it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The body.
    pub body: &'a [u8],
    /// The key that it was published with.
    pub routing_key: &'a str,
    /// Its publisher's name for it.
    pub message_id: Option<&'a str>,
    /// Its content type.
    pub content_type: Option<&'a str>,
    /// Its headers.
    pub headers: &'a BTreeMap<String, String>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// When it arrived, microseconds since 1970.
    pub received: i64,
}

impl Archived {
    /// Makes the record of a message, and says when to file it: at its own timestamp, if that is at most `oldest_s` before
    /// and a day after the time at which it arrived, or then.
    #[must_use]
    pub fn of(message: &Message<'_>, oldest_s: i64) -> (Timestamp, Self) {
        let arrived = Millis(message.received.div_euclid(1000));
        let limits = Limits { clock_skew_s: oldest_s.max(MOST_AHEAD_S), ..Limits::default() };
        let parsed = event::parse(message.body, message.routing_key, message.content_type, arrived, &limits);
        let event = parsed.ok().map(|parsed| parsed.event);
        let at = event.as_ref().map_or(arrived, |event| event.at).secs();
        let believed = (-oldest_s..=MOST_AHEAD_S).contains(&at.since(arrived.secs()));
        let body = Body::of(message.body);
        let archived = Self {
            entity: event.as_ref().map(|event| event.entity_id().0),
            connector: event.as_ref().map(|event| event.connector_id().0),
            component: event.as_ref().map(Event::component).filter(|name| !name.is_empty()).map(str::to_owned),
            event_type: body.event_type().or_else(|| event.as_ref().map(|event| event.kind.name().to_owned())),
            routing_key: message.routing_key.to_owned(),
            message_id: message.message_id.map(str::to_owned),
            received: message.received,
            redelivered: message.redelivered,
            content_type: message.content_type.map(str::to_owned),
            headers: message.headers.clone(),
            body,
        };
        (if believed { at } else { arrived.secs() }, archived)
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            entity: self.entity.as_deref().map(Cow::Borrowed),
            connector: self.connector.as_deref().map(Cow::Borrowed),
            component: self.component.as_deref().map(Cow::Borrowed),
            event_type: self.event_type.as_deref().map(Cow::Borrowed),
            routing_key: Cow::Borrowed(&self.routing_key),
            message_id: self.message_id.as_deref().map(Cow::Borrowed),
            received: self.received,
            redelivered: self.redelivered,
            content_type: self.content_type.as_deref().map(Cow::Borrowed),
            headers: Cow::Borrowed(&self.headers),
            body: if let Body::Json(json) = &self.body { Some(json) } else { None },
            text: if let Body::Text(text) = &self.body { Some(Cow::Borrowed(text)) } else { None },
            base64: if let Body::Base64(text) = &self.body { Some(Cow::Borrowed(text)) } else { None },
        };
        // Strings, numbers and JSON that was read before: writing them to memory cannot fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads a record; `None` for what is none of the archive's.
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<Self> {
        let stored: Stored<'_> = serde_json::from_slice(record).ok()?;
        let body = match (stored.body, stored.text, stored.base64) {
            (Some(json), None, None) => Body::Json(json.to_owned()),
            (None, Some(text), None) => Body::Text(text.into_owned()),
            (None, None, Some(text)) => Body::Base64(text.into_owned()),
            _ => return None,
        };
        Some(Self {
            entity: stored.entity.map(Cow::into_owned),
            connector: stored.connector.map(Cow::into_owned),
            component: stored.component.map(Cow::into_owned),
            event_type: stored.event_type.map(Cow::into_owned),
            routing_key: stored.routing_key.into_owned(),
            message_id: stored.message_id.map(Cow::into_owned),
            received: stored.received,
            redelivered: stored.redelivered,
            content_type: stored.content_type.map(Cow::into_owned),
            headers: stored.headers.into_owned(),
            body,
        })
    }

    /// The same for every record of this message: from the publisher's name for it, else from its content.
    ///
    /// Sources that name nothing may say the same twice: without a name only a record that is `redelivered` is certain to
    /// repeat another one.
    #[must_use]
    pub fn id(&self) -> MessageId {
        match &self.message_id {
            Some(id) => MessageId::from_property(id),
            None => MessageId::from_content(&self.routing_key, self.body.stored().as_bytes()),
        }
    }
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else { return Self::Base64(STANDARD.encode(bytes)) };
        let object = text.trim_ascii_start().starts_with('{');
        match object.then(|| serde_json::from_str::<Box<RawValue>>(text)) {
            Some(Ok(json)) => Self::Json(json),
            _ => Self::Text(text.to_owned()),
        }
    }

    /// The text that the record holds.
    #[must_use]
    pub fn stored(&self) -> &str {
        match self {
            Self::Json(json) => json.get(),
            Self::Text(text) | Self::Base64(text) => text,
        }
    }

    /// The type as the source wrote it.
    fn event_type(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Word<'a> {
            #[serde(borrow)]
            event_type: Option<Cow<'a, str>>,
        }
        let Self::Json(json) = self else { return None };
        let word = serde_json::from_str::<Word<'_>>(json.get()).ok()?.event_type?;
        (!word.is_empty()).then(|| word.into_owned())
    }
}

/// The record's form.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    entity: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    connector: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    component: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    routing_key: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    message_id: Option<Cow<'a, str>>,
    received: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    redelivered: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "no_headers")]
    headers: Cow<'a, BTreeMap<String, String>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    base64: Option<Cow<'a, str>>,
}

fn no_headers(headers: &BTreeMap<String, String>) -> bool {
    headers.is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const NOW: i64 = 1_795_245_631;
    const YEAR: i64 = 366 * DAY_S;

    fn archived(body: &[u8]) -> (Timestamp, Archived) {
        let headers = BTreeMap::new();
        let message = Message {
            body,
            routing_key: "a.b.check.resource.host1.disk",
            message_id: None,
            content_type: None,
            headers: &headers,
            redelivered: false,
            received: NOW * 1_000_000 + 7,
        };
        Archived::of(&message, YEAR)
    }

    fn event(more: &str) -> String {
        format!(r#"{{"connector":"a","connector_name":"b","component":"host1","resource":"disk"{more}}}"#)
    }

    #[test]
    fn a_record_begins_with_what_it_is_about_and_keeps_the_body_byte_for_byte() {
        let body = event(r#", "output" : "caf\u00e9 \/", "timestamp": 1795245600,"event_type":"check","state":"1" "#);
        let (at, archived) = archived(format!(" {body}\n").as_bytes());
        assert_eq!(at, Timestamp(1_795_245_600));
        let record = archived.encode();
        let text = std::str::from_utf8(&record).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"entity":"disk/host1","connector":"a/b","component":"host1","event_type":"check","routing_key":"a.b.check.resource.host1.disk","received":1795245631000007,"body":{body}}}"#
            )
        );
        let again = Archived::decode(&record).unwrap();
        assert_eq!(again.body.stored(), body);
        assert_eq!(again.encode(), record);
    }

    #[test]
    fn everything_that_came_with_a_message_is_kept() {
        let headers = BTreeMap::from([("x".to_owned(), "é\"".to_owned())]);
        let message = Message {
            body: b"{}",
            routing_key: "k\n",
            message_id: Some("id-1"),
            content_type: Some("text/x"),
            headers: &headers,
            redelivered: true,
            received: 5,
        };
        let (at, archived) = Archived::of(&message, YEAR);
        assert_eq!(at, Timestamp(0));
        let again = Archived::decode(&archived.encode()).unwrap();
        assert_eq!((again.routing_key.as_str(), again.message_id.as_deref()), ("k\n", Some("id-1")));
        assert_eq!((again.content_type.as_deref(), &again.headers), (Some("text/x"), &headers));
        assert!(again.redelivered && again.entity.is_none() && again.received == 5);
        assert_eq!(again.id(), MessageId::from_property("id-1"));
    }

    #[test]
    fn bodies_that_are_no_objects_are_kept_in_the_form_that_holds_them() {
        for (body, key, stored) in [
            (&b"plain"[..], "\"text\":", "plain"),
            (b"[1]", "\"text\":", "[1]"),
            (b"{\"a\":NaN}", "\"text\":", "{\"a\":NaN}"),
            (b"", "\"text\":", ""),
            (b"\xff{", "\"base64\":", "/3s="),
        ] {
            let record = archived(body).1.encode();
            assert!(std::str::from_utf8(&record).unwrap().contains(key), "{body:?}");
            assert_eq!(Archived::decode(&record).unwrap().body.stored(), stored);
        }
        assert!(Archived::decode(b"{}").is_none());
        assert!(Archived::decode(b"\x00").is_none());
    }

    #[test]
    fn an_event_is_filed_under_its_own_time_unless_that_cannot_be() {
        for (timestamp, at) in [
            ("1795245000", 1_795_245_000),
            ("1795245000.9", 1_795_245_000),
            ("\"1795245000\"", 1_795_245_000),
            ("null", NOW),
            ("\"soon\"", NOW),
            ("0", NOW),
            ("-5", NOW),
            ("1795245000000", NOW),
            ("1795331000", 1_795_331_000),
            ("1795332100", NOW),
            ("1763623300", 1_763_623_300),
            ("1763623100", NOW),
        ] {
            assert_eq!(
                archived(event(&format!(r#","timestamp":{timestamp}"#)).as_bytes()).0,
                Timestamp(at),
                "{timestamp}"
            );
        }
        assert_eq!(archived(br#"{"timestamp":1795245000}"#).0, Timestamp(NOW), "no event");
    }

    #[test]
    fn the_type_is_the_one_that_the_source_wrote() {
        let kind = |more| archived(event(more).as_bytes()).1.event_type;
        assert_eq!(kind(r#","event_type":"perf""#).as_deref(), Some("perf"));
        assert_eq!(kind("").as_deref(), Some("check"));
    }

    #[test]
    fn a_day_has_a_channel() {
        assert_eq!(channel(Timestamp(NOW)), "events-2026-11-21");
        assert_eq!(channel(Timestamp(-1)), "events-1969-12-31");
        assert_eq!(channel(next_day(Timestamp(NOW))), "events-2026-11-22");
        assert_eq!(next_day(Timestamp(86_400)), Timestamp(172_800));
    }

    #[test]
    fn the_same_content_has_the_same_id_and_another_one_has_not() {
        let [one, two, other] = [event(""), event(""), event(r#","x":1"#)].map(|body| archived(body.as_bytes()).1.id());
        assert_eq!(one, two);
        assert_ne!(one, other);
    }
}

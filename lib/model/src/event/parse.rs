//! Reading events of both published dialects into the one internal form.

use serde_json::Value;

use super::fields::Fields;
use super::json::read_object;
use super::outcome::{Limits, Note, Parsed, Reason, Reject};
use super::text::Controls;
use super::types::{Class, classify};
use super::{Event, EventKind, Source};
use crate::alarm::Initiator;
use crate::clock::Millis;

/// Reads an event of either dialect (2015 and the fourth version of the API), as it came over AMQP or HTTP.
///
/// Every input has a defined outcome: an event, with notes about what was put right, or a refusal with a stable code.
/// `routing_key` is empty where there is none; names in the body count, never those in the key. `content_type` is the
/// message's property: JSON is assumed unless it names a format that is read elsewhere.
///
/// # Errors
/// The event cannot be used: [`Reject::reason`] says why.
pub fn parse(
    body: &[u8],
    routing_key: &str,
    content_type: Option<&str>,
    now: Millis,
    limits: &Limits,
) -> Result<Parsed, Reject> {
    if body.len() > limits.body_bytes {
        return Err(oversized(body.len(), limits));
    }
    if let Some(other) = content_type.filter(|name| NOT_JSON.iter().any(|prefix| name.starts_with(prefix))) {
        return Err(Reject::new(Reason::WrongContentType, format!("{other} is not read here, only application/json")));
    }
    let mut notes = Vec::new();
    let map = read_object(body, &mut notes)?;
    let mut fields = Fields::new(map, limits, notes);
    let event_type = fields.word("event_type")?;
    if event_type.is_none() {
        fields.note(Note::NoEventType);
    }
    let event_type = event_type.as_deref().unwrap_or("check");
    let class = classify(event_type)
        .ok_or_else(|| Reject::new(Reason::UnknownType, format!("event_type {event_type} is not known")))?;
    if class == Class::Unsupported {
        return Err(Reject::new(Reason::UnsupportedType, format!("no engine handles event_type {event_type} yet")));
    }
    let connector = required(fields.name("connector")?, Reason::MissingConnector, "connector")?;
    let connector_name = required(fields.name("connector_name")?, Reason::MissingConnectorName, "connector_name")?;
    if !routing_key.is_empty() && !names_connector(routing_key, &connector) {
        fields.note(Note::RoutingKeyDiffers);
    }
    let source = read_source(&mut fields)?;
    let kind = match class {
        Class::Check => EventKind::Check { state: fields.state()? },
        Class::Perf => EventKind::Perf,
        Class::Log | Class::Unsupported => EventKind::Log,
    };
    fields.ignore_state();
    let at = fields.timestamp(now);
    let output = fields.output("output", Controls::Line, limits.output_chars)?;
    let long_output = fields.output("long_output", Controls::Lines, limits.long_output_chars)?;
    let (initiator, author) = read_author(&mut fields, &connector, &connector_name)?;
    let samples = fields.samples();
    let tags = fields.tags();
    let (extra, notes) = fields.finish();
    let event = Event {
        kind,
        connector,
        connector_name,
        source,
        at,
        output,
        long_output,
        author,
        initiator,
        samples,
        tags,
        extra,
    };
    Ok(Parsed { event, notes })
}

/// The refusal of a body of `bytes`, for receivers that know the size without holding the body.
#[must_use]
pub fn oversized(bytes: usize, limits: &Limits) -> Reject {
    Reject::new(Reason::Oversized, format!("{bytes} bytes, at most {} are read", limits.body_bytes))
}

/// Content types of messages that are no events.
const NOT_JSON: [&str; 3] = ["text/collectd", "text/graphite", "application/bson"];

fn required(name: Option<String>, reason: Reason, key: &str) -> Result<String, Reject> {
    name.ok_or_else(|| Reject::new(reason, format!("{key} is missing or empty")))
}

fn read_source(fields: &mut Fields<'_>) -> Result<Source, Reject> {
    let source_type = fields.word("source_type")?;
    let component = fields.name("component")?;
    let resource = match fields.name("resource") {
        Ok(resource) => resource,
        // As in 2015, a resource that is no text is no resource.
        Err(reject) if reject.reason == Reason::WrongType && source_type.as_deref() != Some("resource") => {
            fields.note(Note::ResourceIgnored);
            None
        }
        Err(reject) => return Err(reject),
    };
    let source_type = match source_type.as_deref() {
        Some(word) => word,
        None => {
            fields.note(Note::NoSourceType);
            match (&component, &resource) {
                (_, Some(_)) => "resource",
                (Some(_), None) => "component",
                (None, None) => "",
            }
        }
    };
    match source_type {
        "connector" => {
            if resource.is_some() {
                fields.note(Note::ResourceIgnored);
            }
            Ok(Source::Connector)
        }
        "component" => {
            if resource.is_some() {
                fields.note(Note::ResourceIgnored);
            }
            Ok(Source::Component { component: required(component, Reason::MissingComponent, "component")? })
        }
        "resource" => Ok(Source::Resource {
            component: required(component, Reason::MissingComponent, "component")?,
            resource: required(resource, Reason::MissingResource, "resource")?,
        }),
        "" => Err(Reject::new(Reason::MissingComponent, "component is missing or empty")),
        "service" | "metaalarm" => {
            let detail = format!("source_type {source_type} is not for sources to report");
            Err(Reject::new(Reason::UnsupportedSourceType, detail))
        }
        other => {
            let detail = format!("source_type {other} is not one of connector, component, resource");
            Err(Reject::new(Reason::InvalidSourceType, detail))
        }
    }
}

/// Who speaks: of external events always the source itself, whatever they say.
fn read_author(fields: &mut Fields<'_>, connector: &str, name: &str) -> Result<(Initiator, String), Reject> {
    let initiator = match fields.initiator().as_str() {
        "user" => Initiator::User,
        "system" => Initiator::System,
        "external" | "" => Initiator::External,
        _ => {
            fields.note(Note::BadInitiator);
            Initiator::External
        }
    };
    let author = fields.name("author")?.filter(|_| initiator != Initiator::External);
    Ok((initiator, author.unwrap_or_else(|| format!("{connector}.{name}"))))
}

/// Whether the first word of `key` stands for `connector`, dots inside being written as slashes.
fn names_connector(key: &str, connector: &str) -> bool {
    let word = key.split('.').next().unwrap_or_default();
    let same = |(a, b): (u8, u8)| a == b || (a == b'/' && b == b'.');
    // A key that was cut ends in a hash; only whole words are compared.
    key.len() >= crate::routing_key::MAX_BYTES
        || (word.len() == connector.len() && word.bytes().zip(connector.bytes()).all(same))
}

/// The 2015 format's `state_type` of an event: 1 (hard) unless the event says 0 (soft); `None` when it says nothing.
#[must_use]
pub fn state_type(event: &Event) -> Option<u8> {
    match event.extra.get("state_type")? {
        Value::Number(number) => Some(u8::from(number.as_f64() != Some(0.0))),
        Value::String(text) => Some(u8::from(text.trim() != "0")),
        _ => Some(1),
    }
}

//! Checking events that came by HTTP before they are published: what would be refused later anyway is refused here,
//! where the sender learns of it.

use overstory_model::event::routing_key;
use overstory_model::{EntityKind, RoutingKey};
use serde_json::{Map, Value};

/// The largest event that engines take, in bytes.
pub(crate) const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The longest type, in bytes.
const MAX_TYPE_BYTES: usize = 64;
/// The highest state.
const MAX_STATE: i64 = 3;

/// Types that carry a state.
const WITH_STATE: [&str; 4] = ["check", "metaalarm", "changestate", "junittestsuiteupdated"];
/// Types by which operators act on an alarm; they carry the role of who acts.
const ACTIONS: [&str; 11] = [
    "ack",
    "ackremove",
    "assocticket",
    "cancel",
    "changestate",
    "comment",
    "declareticketwebhook",
    "snooze",
    "uncancel",
    "unsnooze",
    "declareticket",
];

/// Who sends events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// The account.
    pub(crate) name: &'a str,
    /// Its first role.
    pub(crate) role: Option<&'a str>,
}

/// An event that can be published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Accepted {
    /// The event as it is published and shown to the sender.
    pub(crate) event: Map<String, Value>,
    /// Its routing key.
    pub(crate) routing_key: RoutingKey,
}

/// Checks an event and fills in what follows from the rest of it.
///
/// # Errors
/// A sentence about what is wrong.
pub(crate) fn accept(mut event: Map<String, Value>, sender: Sender<'_>) -> Result<Accepted, String> {
    let kind = required(&event, "event_type")?.to_owned();
    if kind.len() > MAX_TYPE_BYTES {
        return Err(format!("event_type has more than {MAX_TYPE_BYTES} bytes"));
    }
    let connector = required(&event, "connector")?.to_owned();
    let connector_name = required(&event, "connector_name")?.to_owned();
    let component = optional(&event, "component")?.to_owned();
    let resource = optional(&event, "resource")?.to_owned();
    if WITH_STATE.contains(&kind.as_str()) {
        let state = state_of(&event)?;
        event.insert("state".to_owned(), state.into());
    }
    let source = match (component.is_empty(), resource.is_empty()) {
        (false, false) => EntityKind::Resource,
        (false, true) => EntityKind::Component,
        (true, true) => EntityKind::Connector,
        (true, false) => return Err("component is missing, and there is a resource".to_owned()),
    };
    if source == EntityKind::Connector && kind == "check" {
        return Err("component is missing: a check is about a component or a resource".to_owned());
    }
    event.insert("source_type".to_owned(), source.name().into());
    if event.get("long_output").is_some_and(|text| !text.is_string()) {
        event.insert("long_output".to_owned(), Value::String(String::new()));
    }
    for name in ["author", "user_id"] {
        let given = event.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if !given {
            event.insert(name.to_owned(), sender.name.into());
        }
    }
    if ACTIONS.contains(&kind.as_str())
        && let Some(role) = sender.role
    {
        event.insert("role".to_owned(), role.into());
    }
    let resource = (!resource.is_empty()).then_some(resource.as_str());
    let routing_key = routing_key(&connector, &connector_name, &kind, source, &component, resource);
    Ok(Accepted { event, routing_key })
}

fn required<'a>(event: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match optional(event, name)? {
        "" => Err(format!("{name} is missing")),
        text => Ok(text),
    }
}

fn optional<'a>(event: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match event.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.trim()),
        Some(_) => Err(format!("{name} has to be text")),
    }
}

/// The state, also when it was sent as text.
fn state_of(event: &Map<String, Value>) -> Result<i64, String> {
    let number = match event.get("state") {
        None | Some(Value::Null) => return Err("state is missing".to_owned()),
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    let state = number.filter(|state| (0..=MAX_STATE).contains(state));
    state.ok_or_else(|| format!("state has to be a number from 0 to {MAX_STATE}"))
}

#[cfg(test)]
mod tests;

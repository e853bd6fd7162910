//! Which archived events are wanted, exactly, and what the nodes may filter by.

use overstory_model::archive::{Archived, Body};
use serde_json::Value;

/// What an event has to be; what is not given counts as met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// The entity that it is about, or the entity of its connector.
    pub entity: Option<String>,
    /// The component that it is about, or that its resource belongs to.
    pub component: Option<String>,
    /// Its type, as its source wrote it.
    pub event_type: Option<String>,
    /// A text that its body holds, as it is written there or in one of its texts.
    pub contains: Option<String>,
}

impl Filters {
    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Archived) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        (is(&self.entity, &event.entity) || is(&self.entity, &event.connector))
            && is(&self.component, &event.component)
            && is(&self.event_type, &event.event_type)
            && self.contains.as_deref().is_none_or(|text| holds(&event.body, text))
    }

    /// A text that the record of every wanted event holds; empty when there is none. The most telling one.
    #[must_use]
    pub fn needle(&self) -> String {
        // The archive itself writes what a record begins with, so it is known byte for byte. A text turned into JSON cannot fail.
        let written = |text: &str| serde_json::to_string(text).unwrap_or_default();
        if let Some(entity) = &self.entity {
            return written(entity);
        }
        if let Some(component) = &self.component {
            return format!("\"component\":{}", written(component));
        }
        if let Some(run) = self.contains.as_deref().map(plain_run).filter(|run| !run.is_empty()) {
            return run.to_owned();
        }
        self.event_type.as_deref().map_or_else(String::new, |word| format!("\"event_type\":{}", written(word)))
    }
}

/// Whether a body holds a text: as it stands, or in a key or text of it, whatever way that is escaped.
fn holds(body: &Body, text: &str) -> bool {
    match body {
        Body::Base64(_) => false,
        Body::Text(body) => body.contains(text),
        Body::Json(json) => {
            json.get().contains(text)
                || (text.chars().any(may_be_escaped)
                    && serde_json::from_str(json.get()).is_ok_and(|value: Value| says(&value, text)))
        }
    }
}

fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(items) => items.iter().any(|item| says(item, text)),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains(text) || says(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether some writers of JSON write a character in another way than it stands.
const fn may_be_escaped(c: char) -> bool {
    !c.is_ascii() || c.is_ascii_control() || matches!(c, '"' | '\\' | '/' | '<' | '>' | '&' | '\'' | '+' | '`')
}

/// The longest part that every writer of JSON writes as it stands.
fn plain_run(text: &str) -> &str {
    text.split(may_be_escaped).max_by_key(|run| run.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::collections::BTreeMap;

    use overstory_model::archive::Message;
    use proptest::prelude::*;

    use super::*;

    fn record(body: &str) -> Archived {
        let headers = BTreeMap::new();
        let message = Message {
            body: body.as_bytes(),
            routing_key: "k",
            message_id: None,
            content_type: None,
            headers: &headers,
            redelivered: false,
            received: 1_795_245_631_000_000,
        };
        Archived::of(&message, 86_400).1
    }

    fn event(component: &str, resource: Option<&str>, output: &str) -> Archived {
        let mut event = serde_json::json!({
            "connector": "nagios", "connector_name": "poller1", "component": component, "output": output
        });
        if let Some(resource) = resource {
            event["resource"] = resource.into();
        }
        record(&event.to_string())
    }

    fn entity(id: &str) -> Filters {
        Filters { entity: Some(id.to_owned()), ..Filters::default() }
    }

    #[test]
    fn a_name_that_is_part_of_another_one_is_another_one() {
        let (host, longer) = (event("host1", None, ""), event("host11", None, ""));
        let (disk, other) = (event("host1", Some("disk"), ""), event("host1", Some("disk2"), ""));
        for (id, wanted) in [
            ("host1", [true, false, false, false]),
            ("host11", [false, true, false, false]),
            ("disk/host1", [false, false, true, false]),
            ("disk2/host1", [false, false, false, true]),
            ("ost1", [false; 4]),
            ("nagios/poller1", [true; 4]),
            ("nagios/poller", [false; 4]),
        ] {
            assert_eq!([&host, &longer, &disk, &other].map(|event| entity(id).matches(event)), wanted, "{id}");
        }
        let component = Filters { component: Some("host1".to_owned()), ..Filters::default() };
        assert_eq!([&host, &longer, &disk, &other].map(|event| component.matches(event)), [true, false, true, true]);
    }

    #[test]
    fn a_text_is_found_however_its_source_writes_it() {
        let escaped =
            record(r#"{"connector":"a","connector_name":"b","component":"c","output":"caf\u00e9 \/dev\/sda"}"#);
        let straight = record(r#"{"connector":"a","connector_name":"b","component":"c","output":"café /dev/sda"}"#);
        for (text, needle) in [("café /dev", "dev"), ("/dev/sda", "sda"), ("sda", "sda"), ("é", "")] {
            let filters = Filters { contains: Some(text.to_owned()), ..Filters::default() };
            assert!(filters.matches(&escaped) && filters.matches(&straight), "{text}");
            assert_eq!(filters.needle(), needle);
        }
        let no = Filters { contains: Some("/dev/sdb".to_owned()), ..Filters::default() };
        assert!(!no.matches(&escaped) && !no.matches(&straight));
    }

    #[test]
    fn all_that_is_asked_has_to_be_met() {
        let event = event("host1", Some("disk"), "full");
        let filters = Filters {
            entity: Some("disk/host1".to_owned()),
            component: Some("host1".to_owned()),
            event_type: Some("check".to_owned()),
            contains: Some("full".to_owned()),
        };
        assert!(filters.matches(&event) && Filters::default().matches(&event));
        assert!(!Filters { event_type: Some("log".to_owned()), ..filters.clone() }.matches(&event));
        assert!(!Filters { contains: Some("empty".to_owned()), ..filters }.matches(&event));
        assert_eq!(Filters::default().needle(), "");
    }

    proptest! {
        /// What the nodes leave out would not have been wanted.
        #[test]
        fn the_record_of_every_wanted_event_holds_the_needle(
            component in "[ -~é\\n]{1,8}", resource in proptest::option::of("[ -~é]{1,8}"), output in "[ -~é\\n]{0,20}", from in 0_usize..20
        ) {
            let event = event(&component, resource.as_deref(), &output);
            let record = String::from_utf8(event.encode()).unwrap();
            let contains: String = output.chars().skip(from).collect();
            let all = [
                Filters { entity: event.entity.clone(), ..Filters::default() },
                Filters { entity: event.connector.clone(), ..Filters::default() },
                Filters { component: event.component.clone(), ..Filters::default() },
                Filters { event_type: event.event_type.clone(), ..Filters::default() },
                Filters { contains: Some(contains), ..Filters::default() },
            ];
            for filters in all {
                prop_assert!(filters.matches(&event), "{filters:?} {record}");
                prop_assert!(record.contains(&filters.needle()), "{filters:?} {record}");
            }
        }
    }
}

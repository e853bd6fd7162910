//! The host's events: one perf event per tick, check events when a state is to be said.

use std::collections::BTreeMap;

use overstory_amqp::message::Outgoing;
use overstory_amqp::topology;
use overstory_model::alarm::Initiator;
use overstory_model::event::{Event, EventKind, Source};
use overstory_model::{Millis, RoutingKey};

use crate::batch::Batch;
use crate::checks::Check;
use crate::facts::Facts;

/// The connector of every event of this program.
pub(crate) const CONNECTOR: &str = "collectd";

/// Makes the events of one host.
#[derive(Debug)]
pub(crate) struct Events {
    host: String,
    /// The perf event up to the time.
    head: String,
    key: RoutingKey,
}

impl Events {
    pub(crate) fn new(host: &str, facts: &Facts) -> Self {
        let source = Source::Component { component: host.to_owned() };
        let perf = event(host, EventKind::Perf, source, Millis(0));
        // What the tags say does not change from tick to tick, so all of it is written once.
        let text = |text: &str| serde_json::Value::String(text.to_owned()).to_string();
        let name = text(host);
        let tags: Vec<String> =
            facts.tags().iter().map(|(key, value)| format!("{}:{}", text(key), text(value))).collect();
        let head = format!(
            r#"{{"connector":"{CONNECTOR}","connector_name":{name},"event_type":"perf","source_type":"component","component":{name},"tags":{{{}}},"timestamp":"#,
            tags.join(",")
        );
        Self { host: host.to_owned(), head, key: perf.routing_key() }
    }

    /// The body of a tick's perf event.
    pub(crate) fn perf_body(&self, at: Millis, batch: &Batch) -> String {
        let items = batch.items();
        let mut body = String::with_capacity(self.head.len() + items.len() + 48);
        for part in [&self.head, &at.secs().0.to_string(), ",\"perf_data_array\":[", items, "]}"] {
            body.push_str(part);
        }
        body
    }

    /// A tick's perf event.
    pub(crate) fn perf(&self, at: Millis, batch: &Batch) -> Outgoing {
        Outgoing::json(topology::EVENTS, self.key.clone(), self.perf_body(at, batch).into_bytes().into())
    }

    /// The event of a check.
    pub(crate) fn check(&self, at: Millis, check: &Check) -> Outgoing {
        let source = Source::Resource { component: self.host.clone(), resource: check.resource.clone() };
        let mut event = event(&self.host, EventKind::Check { state: check.state }, source, at.secs().millis());
        event.output.clone_from(&check.output);
        Outgoing::json(topology::EVENTS, event.routing_key(), event.to_body().into())
    }
}

fn event(host: &str, kind: EventKind, source: Source, at: Millis) -> Event {
    Event {
        kind,
        connector: CONNECTOR.to_owned(),
        connector_name: host.to_owned(),
        source,
        at,
        output: String::new(),
        long_output: String::new(),
        author: format!("{CONNECTOR}.{host}"),
        initiator: Initiator::External,
        samples: Vec::new(),
        tags: BTreeMap::new(),
        extra: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_model::event::{Limits, parse};
    use overstory_model::{EntityId, State};

    use super::*;
    use crate::batch::Prefix;

    const AT: Millis = Millis(1_795_236_280_000);

    #[test]
    fn the_perf_event_is_one_that_the_engines_read_without_a_remark() {
        let mut batch = Batch::default();
        batch.count(&Prefix::new("memory", ""), "memory-used", 7);
        batch.rate(&Prefix::new("interface", "eth0"), "if_octets/rx", Some(1.5));
        let facts = Facts::for_tests(&[("os", "Debian \"12\"")]);
        let message = Events::new("web 1.example.org\"", &facts).perf(AT, &batch);
        let parsed =
            parse(&message.body, message.routing_key.as_str(), Some("application/json"), AT, &Limits::default());
        let parsed = parsed.unwrap();
        assert_eq!(parsed.notes, []);
        assert_eq!(parsed.event.entity_id(), EntityId::component("web 1.example.org\""));
        assert_eq!(parsed.event.routing_key(), message.routing_key);
        assert_eq!(parsed.event.at, AT);
        assert_eq!(parsed.event.kind, EventKind::Perf);
        assert_eq!(parsed.event.tags["os"], "Debian \"12\"");
        let samples: Vec<_> =
            parsed.event.samples.iter().map(|s| (s.metric.as_str(), s.value, s.unit.as_deref())).collect();
        assert_eq!(
            samples,
            [("memory/memory-used", 7.0, Some("B")), ("interface-eth0/if_octets/rx", 1.5, Some("B/s"))]
        );
    }

    #[test]
    fn an_empty_tick_is_still_an_event() {
        let message = Events::new("h", &Facts::for_tests(&[])).perf(AT, &Batch::default());
        let parsed = parse(&message.body, "", None, AT, &Limits::default()).unwrap();
        assert!(parsed.event.samples.is_empty());
    }

    #[test]
    fn a_check_is_about_a_resource_of_the_host() {
        let check = Check {
            resource: "disk-root".to_owned(),
            state: State::Critical,
            output: "/ 97.00 % full: critical from 95".to_owned(),
            changed: true,
        };
        let message = Events::new("h", &Facts::for_tests(&[])).check(AT, &check);
        assert_eq!(message.routing_key.as_str(), "collectd.h.check.resource.h.disk-root");
        let parsed = parse(&message.body, message.routing_key.as_str(), None, AT, &Limits::default()).unwrap();
        assert_eq!(parsed.notes, []);
        assert_eq!(parsed.event.entity_id().as_str(), "disk-root/h");
        assert_eq!(parsed.event.kind, EventKind::Check { state: State::Critical });
        assert_eq!(parsed.event.output, check.output);
    }
}

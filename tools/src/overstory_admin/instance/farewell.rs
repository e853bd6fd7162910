//! Telling the platform that an instance is gone for good, so that it is shown no more and its alarm ends.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use overstory_amqp::publisher::{Publisher, PublisherOptions};
use overstory_amqp::{AmqpConfig, Outgoing, topology};
use overstory_model::alarm::Initiator;
use overstory_model::event::{Event, EventKind, Source};
use overstory_model::{Clock as _, State, SystemClock, Timestamp, node};
use overstory_runtime::{Home, Shutdown, host};
use serde_json::json;

/// How long the broker may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Publishes the last check of each instance, given by type and name. Nothing without a broker's configuration.
///
/// # Errors
/// The broker did not confirm.
pub(in crate::overstory_admin) async fn say(home: &Home, names: &[(&str, String)]) -> anyhow::Result<()> {
    if !home.config_file("amqp.conf").exists() {
        return Ok(());
    }
    let config = AmqpConfig::load(home)?;
    let host = host::name()?;
    let publisher = Publisher::start(config, PublisherOptions::new("overstory"), Shutdown::new())?;
    let now = SystemClock.now().secs();
    let mut outcome = Ok(());
    for (kind, instance) in names {
        let event = last_event(kind, instance, &host, now);
        let message = Outgoing::json(topology::EVENTS, event.routing_key(), event.to_body().into());
        if let Err(error) = publisher.publish_confirmed(message, DEADLINE).await {
            outcome = Err(error).with_context(|| instance.clone());
            break;
        }
    }
    // What was confirmed is there; nothing else waits.
    let _ = publisher.close(DEADLINE).await;
    outcome
}

fn last_event(kind: &str, instance: &str, host: &str, now: Timestamp) -> Event {
    let gone = json!({"type": kind, "instance": instance, "host": host, "state": "removed"});
    Event {
        kind: EventKind::Check { state: State::Ok },
        connector: node::CONNECTOR.to_owned(),
        connector_name: kind.to_owned(),
        source: Source::Resource { component: host.to_owned(), resource: instance.to_owned() },
        at: now.millis(),
        output: "the instance was removed".to_owned(),
        long_output: String::new(),
        author: format!("{}.{kind}", node::CONNECTOR),
        initiator: Initiator::External,
        samples: Vec::new(),
        tags: BTreeMap::new(),
        extra: std::iter::once((node::INFO.to_owned(), gone)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::KINDS;
    use super::*;

    #[test]
    fn the_last_event_is_about_the_nodes_entity_and_ends_its_alarm() {
        for kind in KINDS {
            let (kind, service) = (kind.name, kind.service("a"));
            let event = last_event(kind, &service, "h", Timestamp(7));
            assert_eq!(event.entity_id().as_str(), format!("{service}/h"));
            assert_eq!(event.routing_key().as_str(), format!("swarm.{kind}.check.resource.h.{service}"));
            assert!(node::is_removed(&event.extra[node::INFO]));
            assert_eq!(event.kind, EventKind::Check { state: State::Ok });
        }
    }
}

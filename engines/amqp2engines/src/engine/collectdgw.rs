//! collectdgw: the messages of a real collectd become points of their host.

use std::collections::BTreeSet;

use overstory_model::collectd::{Decoded, Message, Rates, TypesDb, decode};
use overstory_model::{EntityId, EntityKind, Timestamp};

use super::context::{self, Identity, hear_of};
use super::metrics::point;
use super::{Draft, Refusal};
use crate::working::Working;

/// The kind of source under which hosts of a real collectd appear.
pub const CONNECTOR: &str = "collectd";

/// Reads a message.
///
/// # Errors
/// The message is none of collectd's.
pub fn read(message: &Message<'_>, types: &TypesDb) -> Result<Decoded, Refusal> {
    decode(message, types).map_err(|error| Refusal { reason: "not_collectd", detail: error.to_string() })
}

/// The entities that the lists are about.
#[must_use]
pub fn ids_of(decoded: &Decoded, connector_name: &str) -> BTreeSet<EntityId> {
    let hosts = decoded.lists.iter().map(|list| EntityId::component(&list.identity.host));
    hosts.chain([EntityId::connector(CONNECTOR, connector_name)]).collect()
}

/// Makes the hosts' entities and the points; counts become rates.
pub fn apply(
    decoded: &Decoded,
    connector_name: &str,
    rates: &mut Rates,
    working: &mut Working,
    now: Timestamp,
    settings: &context::Settings,
    draft: &mut Draft,
) {
    let connector = EntityId::connector(CONNECTOR, connector_name);
    let mut heard = "";
    for list in &decoded.lists {
        let host = list.identity.host.as_str();
        let entity = EntityId::component(host);
        // The lists of a message are nearly always about one host.
        if host != heard {
            let identity = Identity {
                kind: EntityKind::Component,
                name: host,
                component: Some(host),
                connector: Some(&connector),
            };
            hear_of(working, &entity, &identity, now, settings);
            heard = host;
        }
        draft.points.extend(rates.samples(list).iter().map(|sample| point(&entity, sample, list.at)));
    }
    let identity = Identity { kind: EntityKind::Connector, name: connector_name, component: None, connector: None };
    hear_of(working, &connector, &identity, now, settings);
    for skipped in &decoded.skipped {
        draft.note(skipped.reason.name());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_model::Millis;

    use super::*;

    fn run(bodies: &[(&str, &str)]) -> (Working, Draft) {
        let types = TypesDb::builtin();
        let (mut working, mut draft, mut rates) = (Working::new(1 << 20), Draft::default(), Rates::new(100));
        for (content_type, body) in bodies {
            let received = Millis(1_795_236_280_000);
            let message = Message {
                content_type: Some(*content_type),
                routing_key: "collectd.host1/example/org.memory..memory.used",
                body: body.as_bytes(),
                received,
            };
            let decoded = read(&message, types).unwrap();
            apply(&decoded, "gw", &mut rates, &mut working, received.secs(), &context::Settings::default(), &mut draft);
        }
        (working, draft)
    }

    #[test]
    fn all_three_formats_give_points_of_the_same_series() {
        let (working, draft) = run(&[
            ("text/collectd", "PUTVAL host1.example.org/memory/memory-used interval=2.000 1795236274.499:5"),
            (
                "application/json",
                r#"[{"values":[6],"dstypes":["gauge"],"dsnames":["value"],"time":1795236276.499,"interval":2.0,
                "host":"host1.example.org","plugin":"memory","plugin_instance":"","type":"memory","type_instance":"used"}]"#,
            ),
            ("text/graphite", "host1_example_org.memory.memory-used 7 1795236278\r\n"),
        ]);
        let series: BTreeSet<_> = draft.points.iter().map(|point| point.series.clone()).collect();
        assert_eq!(series.len(), 1, "{series:?}");
        let values: Vec<_> = draft.points.iter().map(|point| point.value).collect();
        assert_eq!(values, [5.0, 6.0, 7.0]);
        let entities: Vec<_> = working.touched().map(|(id, _)| id.as_str().to_owned()).collect();
        assert_eq!(entities, ["host1.example.org", "collectd/gw"]);
    }

    #[test]
    fn the_first_count_after_a_start_gives_no_rate() {
        let body = |at: u32, count: u64| format!("PUTVAL h/cpu-0/cpu-user interval=2.000 {at}.000:{count}");
        let (first, second) = (body(1_795_236_274, 100), body(1_795_236_276, 110));
        let (_, draft) = run(&[("text/collectd", &first), ("text/collectd", &second)]);
        assert_eq!(draft.points.len(), 1);
        assert_eq!(draft.points[0].value, 5.0);
    }

    #[test]
    fn what_is_not_collectds_is_refused() {
        let message = Message { content_type: None, routing_key: "", body: b"{}", received: Millis(0) };
        assert_eq!(read(&message, TypesDb::builtin()).unwrap_err().reason, "not_collectd");
    }
}

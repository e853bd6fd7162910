//! Messages of a real collectd, as captured.

use overstory_amqp::{Outgoing, topology};
use overstory_model::RoutingKey;
use overstory_store::{PageRequest, SeriesQuery};
use overstory_testkit::broker;
use serde_json::Value;

use crate::rig::{Rig, wait_for};

const SAMPLES: &str = include_str!("../../../lib/model/tests/data/collectd-samples.jsonl");

#[tokio::test(flavor = "multi_thread")]
async fn all_three_formats_feed_the_same_host() {
    let rig = Rig::new(broker::shared().unwrap());
    let engines = rig.start(0);
    engines.is_ready().await;
    let mut messages = Vec::new();
    for line in SAMPLES.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        let key = RoutingKey::fit(sample["routing_key"].as_str().unwrap().to_owned());
        let mut message = Outgoing::json(topology::COLLECTD, key, sample["body"].as_str().unwrap().to_owned().into());
        message.content_type = sample["content_type"].as_str().unwrap_or_default().to_owned();
        messages.push(message);
    }
    let key = RoutingKey::fit("collectd".to_owned());
    messages.push(Outgoing::json(topology::COLLECTD, key, "not collectd's".to_owned().into()));
    let count = messages.len();
    rig.publish(messages).await;
    let store = rig.store().await;
    let page = PageRequest { paginate: false, ..PageRequest::default() };
    let query = SeriesQuery { entity: Some("host1.example.org".to_owned()), page, ..SeriesQuery::default() };
    let series = async || store.metrics.series(&query).await.map_or(0, |page| page.total);
    let done = "overstory_engines_events_total{outcome=\"done\",unit=\"Engine_collectdgw\"}";
    let expected = f64::from(u32::try_from(count - 1).unwrap());
    wait_for("all messages", async || (engines.metric(done).await - expected).abs() < 0.5).await;
    assert!(series().await > 50, "{}", series().await);
    wait_for("the dead letter", async || rig.dead_letters().await.len() == 1).await;
    let letter = rig.dead_letters().await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("not_collectd", topology::ENGINE_COLLECTDGW));
    assert_eq!(engines.stop().await, Some(0));
}

//! Dead letters against a real broker.

use crate::common::{Inbox, PATIENCE, publisher};
use bytes::Bytes;
use overstory_amqp::dead::{self, DeadError, Selection, dead_letter};
use overstory_amqp::topology::{ENGINE_DEAD, ENGINE_EVENTS, EVENTS};
use overstory_amqp::{AmqpConfig, Delivery, PublishError, queues};
use overstory_model::Timestamp;
use overstory_testkit::broker;

async fn lay_down(config: &AmqpConfig, letters: &[(&str, &str, &str)]) {
    let publisher = publisher(config, "undertaker", 16).await;
    for (number, (id, exchange, reason)) in letters.iter().enumerate() {
        let body = Bytes::from(number.to_string());
        let delivery = Delivery { message_id: Some((*id).into()), ..Delivery::local(exchange, "a.b", body) };
        let letter = dead_letter(&delivery, ENGINE_EVENTS, reason, "what exactly", Timestamp(1000));
        publisher.publish_confirmed(letter, PATIENCE).await.unwrap();
    }
}

async fn ids(config: &AmqpConfig) -> Vec<String> {
    dead::list(config, 100).await.unwrap().0.into_iter().map(|letter| letter.id).collect()
}

#[tokio::test]
async fn looking_changes_nothing() {
    let config = broker::shared().unwrap();
    lay_down(&config, &[("m1", EVENTS, "malformed"), ("m2", EVENTS, "oversized"), ("m3", EVENTS, "malformed")]).await;
    for _ in 0..2 {
        let (letters, total) = dead::list(&config, 2).await.unwrap();
        assert_eq!((letters.len(), total), (2, 3));
        assert_eq!((letters[0].id.as_str(), letters[0].reason.as_str()), ("m1", "malformed"));
        assert_eq!((letters[0].origin.as_str(), letters[0].at), (ENGINE_EVENTS, Some(Timestamp(1000))));
    }
    let shown = dead::show(&config, "m2").await.unwrap();
    assert_eq!((shown.detail.as_str(), &shown.body[..]), ("what exactly", &b"1"[..]));
    assert!(matches!(dead::show(&config, "m").await, Err(DeadError::Ambiguous { count: 3, .. })));
    assert!(matches!(dead::show(&config, "x").await, Err(DeadError::Unknown(_))));
    assert_eq!(ids(&config).await, ["m1", "m2", "m3"]);
}

#[tokio::test]
async fn what_is_replayed_goes_where_it_came_from_under_its_own_id_and_is_gone_here() {
    let config = broker::shared().unwrap();
    lay_down(&config, &[("m1", EVENTS, "malformed"), ("m2", EVENTS, "oversized"), ("m3", "no.such", "malformed")])
        .await;
    let one = dead::replay(&config, &Selection::Id("m2".into())).await.unwrap();
    assert_eq!(one.done, ["m2"]);
    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    let again = inbox.take(1).await.remove(0);
    assert_eq!(
        (again.message_id.as_deref(), again.routing_key.as_str(), &again.body[..]),
        (Some("m2"), "a.b", &b"1"[..])
    );
    assert_eq!(again.headers.keys().collect::<Vec<_>>(), [dead::REPLAY]);

    let rest = dead::replay(&config, &Selection::Reason("malformed".into())).await.unwrap();
    assert_eq!(rest.done, ["m1"]);
    assert!(matches!(&rest.failed[..], [(id, PublishError::NoExchange(_))] if id == "m3"));
    assert_eq!(ids(&config).await, ["m3"], "what cannot be sent stays");
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_the_rest_keeps_its_order() {
    let config = broker::shared().unwrap();
    lay_down(&config, &[("m1", EVENTS, "a"), ("m2", EVENTS, "b"), ("m3", EVENTS, "a"), ("m4", EVENTS, "b")]).await;
    dead::drop(&config, &Selection::Id("m2".into())).await.unwrap();
    assert_eq!(ids(&config).await, ["m1", "m3", "m4"]);
    assert_eq!(dead::drop(&config, &Selection::Reason("a".into())).await.unwrap().done, ["m1", "m3"]);
    assert_eq!(dead::drop(&config, &Selection::All).await.unwrap().done, ["m4"]);
    assert_eq!(queues::queue_counts(&config, &[ENGINE_DEAD]).await.unwrap()[0].ready, 0);
}

/// The broker's queue client keeps acknowledgements back beyond about thirty and forgot them when the channel closed:
/// commands said that hundreds of letters were gone, and most were there again.
#[tokio::test]
async fn many_letters_are_really_gone_wherever_they_stand() {
    let config = broker::shared().unwrap();
    let names: Vec<String> = (0..240).map(|number| format!("m{number:03}")).collect();
    let reasons = ["malformed", "oversized"];
    let letters: Vec<_> =
        names.iter().enumerate().map(|(number, name)| (name.as_str(), EVENTS, reasons[number % 2])).collect();
    lay_down(&config, &letters).await;
    // Every other one, so that none but the first can be acknowledged together with those before it.
    let dropped = dead::drop(&config, &Selection::Reason("oversized".into())).await.unwrap();
    assert_eq!(dropped.done.len(), 120);
    let (left, total) = dead::list(&config, 1000).await.unwrap();
    assert_eq!((left.len(), total), (120, 120));
    assert!(left.iter().all(|letter| letter.reason == "malformed"));

    let sent = dead::replay(&config, &Selection::All).await.unwrap();
    assert_eq!((sent.done.len(), sent.failed.len()), (120, 0));
    assert_eq!(dead::list(&config, 1000).await.unwrap().1, 0);
    let counts = queues::queue_counts(&config, &[ENGINE_EVENTS]).await.unwrap();
    assert_eq!(counts[0].ready, 120);
}

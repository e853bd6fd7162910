//! The consumer against a real broker.

use std::time::Duration;

use crate::common::{Inbox, consumer, next, next_batch, number, numbered, publisher};
use bytes::Bytes;
use overstory_amqp::topology::{ENGINE_DEAD, ENGINE_EVENTS};
use overstory_amqp::{ConsumeError, Consumed, Consumer, ConsumerOptions, Outgoing, queues};
use overstory_runtime::Shutdown;
use overstory_testkit::broker;

async fn fill(config: &overstory_amqp::AmqpConfig, count: u32) {
    let publisher = publisher(config, "filler", 256).await;
    let outcomes = publisher.publish_all((0..count).map(numbered).collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    publisher.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_is_gone_and_the_rest_comes_back_in_order_with_its_count() {
    let config = broker::shared().unwrap();
    fill(&config, 100).await;
    let mut first = consumer(&config, ENGINE_EVENTS, 30);
    assert!(matches!(next(&mut first).await, Consumed::Subscribed));
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.extend(next_batch(&mut first).await);
    }
    assert!(seen.iter().all(|delivery| !delivery.redelivered && delivery.delivery_count == 0));
    first.ack_up_to(&seen[9].tag).await.unwrap();
    first.ack_up_to(&seen[4].tag).await.unwrap();
    first.close().await;

    let mut second = consumer(&config, ENGINE_EVENTS, 300);
    let mut again = Vec::new();
    while again.len() < 90 {
        again.extend(next_batch(&mut second).await);
    }
    assert_eq!(again.iter().map(number).collect::<Vec<_>>(), (10..100).collect::<Vec<_>>());
    assert!(again[..20].iter().all(|delivery| delivery.redelivered && delivery.delivery_count == 1));
    assert!(again.iter().all(|delivery| delivery.message_id.is_some()));
}

#[tokio::test]
async fn handing_back_voids_every_tag_and_the_same_messages_come_again_in_order() {
    let config = broker::shared().unwrap();
    fill(&config, 20).await;
    let mut consumer = consumer(&config, ENGINE_EVENTS, 300);
    let batch = next_batch(&mut consumer).await;
    consumer.hand_back(Duration::from_millis(50)).await;
    assert!(!consumer.is_subscribed());
    assert!(matches!(consumer.ack_up_to(&batch[0].tag).await, Err(ConsumeError::Stale)));
    assert!(matches!(next(&mut consumer).await, Consumed::Subscribed));
    assert!(matches!(consumer.ack_up_to(&batch[0].tag).await, Err(ConsumeError::Stale)));
    let mut again = Vec::new();
    while again.len() < 20 {
        again.extend(next_batch(&mut consumer).await);
    }
    assert_eq!(again.iter().map(number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    for times in 2..5 {
        consumer.hand_back(Duration::ZERO).await;
        assert_eq!(next_batch(&mut consumer).await[0].delivery_count, times);
    }
}

#[tokio::test]
async fn a_standby_takes_over_where_the_active_one_stopped() {
    let config = broker::shared().unwrap();
    fill(&config, 10).await;
    let mut active = consumer(&config, ENGINE_EVENTS, 300);
    let mut batch = next_batch(&mut active).await;
    while batch.len() < 10 {
        batch.extend(next_batch(&mut active).await);
    }
    let mut standby = consumer(&config, ENGINE_EVENTS, 300);
    assert!(matches!(next(&mut standby).await, Consumed::Subscribed));
    let waited = tokio::time::timeout(Duration::from_millis(300), standby.next()).await;
    assert!(waited.is_err(), "a standby gets nothing while the active one lives");
    active.ack_up_to(&batch[3].tag).await.unwrap();
    active.close().await;
    assert_eq!(number(&next_batch(&mut standby).await[0]), 4);
}

#[tokio::test]
async fn a_body_above_the_limit_is_announced_but_not_handed_out() {
    let config = broker::shared().unwrap();
    let publisher = publisher(&config, "large", 4).await;
    let body = Bytes::from(vec![b'x'; 3000]);
    publisher.publish(Outgoing { body: body.clone(), ..numbered(0) }).await.unwrap();
    publisher.publish(numbered(1)).await.unwrap();
    let options = ConsumerOptions { max_body: 2999, ..ConsumerOptions::new(ENGINE_EVENTS, "small") };
    let mut consumer = Consumer::start(config.clone(), options, Shutdown::new());
    let large = next_batch(&mut consumer).await.remove(0);
    assert!(large.oversized && large.body.is_empty());
    assert_eq!(large.size, 3000);
    let letter = overstory_amqp::dead::dead_letter(
        &large,
        ENGINE_EVENTS,
        "oversized",
        "3000 bytes",
        overstory_model::Timestamp(1),
    );
    publisher.publish(letter).await.unwrap();
    assert_eq!(Inbox::open(&config, ENGINE_DEAD).take(1).await[0].body, body, "the dead letter has all of it");
}

#[tokio::test]
async fn the_byte_budget_bounds_what_is_unacknowledged_and_shrinks_the_prefetch() {
    let config = broker::shared().unwrap();
    let publisher = publisher(&config, "bulk", 64).await;
    let bulk = |n| Outgoing { body: Bytes::from(vec![b'x'; 10_000]), ..numbered(n) };
    let outcomes = publisher.publish_all((0..100).map(bulk).collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let options = ConsumerOptions { byte_budget: 100_000, ..ConsumerOptions::new(ENGINE_EVENTS, "budget") };
    let mut consumer = Consumer::start(config.clone(), options, Shutdown::new());
    let mut taken = Vec::new();
    while taken.len() < 10 {
        taken.extend(next_batch(&mut consumer).await);
    }
    assert_eq!(taken.len(), 10);
    let more = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await;
    assert!(more.is_err(), "the budget is used up");
    consumer.ack_up_to(&taken[9].tag).await.unwrap();
    assert!(matches!(next(&mut consumer).await, Consumed::Subscribed), "subscribed anew with what fits");
    crate::common::until_async("the broker to hold back all but what fits", || async {
        queues::queue_counts(&config, &[ENGINE_EVENTS]).await.unwrap()[0].ready == 80
    })
    .await;
    let mut total = 10;
    while total < 100 {
        let batch = next_batch(&mut consumer).await;
        total += batch.len();
        consumer.ack_up_to(&batch.last().unwrap().tag).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_waits_a_moment_for_company_when_told_to() {
    let config = broker::shared().unwrap();
    let options = ConsumerOptions { linger: Duration::from_secs(3), ..ConsumerOptions::new(ENGINE_EVENTS, "linger") };
    let mut consumer = Consumer::start(config.clone(), options, Shutdown::new());
    assert!(matches!(next(&mut consumer).await, Consumed::Subscribed));
    let publisher = publisher(&config, "drip", 4).await;
    let (batch, ()) = tokio::join!(next_batch(&mut consumer), async {
        for n in 0..3 {
            publisher.publish(numbered(n)).await.unwrap();
        }
    });
    assert_eq!(batch.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn next_can_be_dropped_and_called_again_at_any_time() {
    let config = broker::shared().unwrap();
    fill(&config, 500).await;
    let mut consumer = consumer(&config, ENGINE_EVENTS, 50);
    let mut numbers = Vec::new();
    while numbers.len() < 500 {
        match tokio::time::timeout(Duration::from_micros(300), consumer.next()).await {
            Ok(Some(Consumed::Batch(batch))) => {
                consumer.ack_up_to(&batch.last().unwrap().tag).await.unwrap();
                numbers.extend(batch.iter().map(number));
            }
            Ok(Some(Consumed::Lost(reason))) => panic!("{reason}"),
            _ => {}
        }
    }
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queue_that_is_missing_is_waited_for_and_shutdown_ends_the_wait() {
    let config = broker::shared().unwrap();
    let shutdown = Shutdown::new();
    let options = ConsumerOptions::new("no_such_queue", "hopeless");
    let mut consumer = Consumer::start(config, options, shutdown.clone());
    let waiting = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await;
    assert!(waiting.is_err());
    shutdown.request();
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn a_queue_that_exists_with_other_arguments_is_used_as_it_is() {
    let mut config = broker::shared().unwrap();
    config.queues.events_max_messages = 5;
    fill(&config, 1).await;
    config.queues.events_max_messages = 7;
    fill(&config, 1).await;
    assert_eq!(Inbox::open(&config, ENGINE_EVENTS).take_numbers(2).await, [0, 0]);
}

#[tokio::test]
async fn counts_leave_out_what_does_not_exist() {
    let config = broker::shared().unwrap();
    fill(&config, 3).await;
    let counts = queues::queue_counts(&config, &["nothing", ENGINE_EVENTS]).await.unwrap();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].name.as_str(), counts[0].ready, counts[0].consumers), (ENGINE_EVENTS, 3, 0));
}

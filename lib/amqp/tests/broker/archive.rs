//! The queue of the event archive.

use overstory_amqp::topology::{ARCHIVE_DROPPED, ENGINE_ARCHIVE, ENGINE_EVENTS};
use overstory_amqp::{AmqpConfig, ArchiveLimits, Consumed, queues};
use overstory_testkit::broker;

use crate::common::{Inbox, consumer, next, next_batch, number, numbered, publisher, until_async};

fn with_archive(max_messages: u32) -> AmqpConfig {
    let mut config = broker::shared().unwrap();
    config.queues.archive = Some(ArchiveLimits { max_messages, max_bytes: 1 << 20 });
    config
}

fn without(config: &AmqpConfig) -> AmqpConfig {
    let mut config = config.clone();
    config.queues.archive = None;
    config
}

async fn ready(config: &AmqpConfig, queue: &str) -> u32 {
    queues::queue_counts(config, &[queue]).await.unwrap().first().map_or(0, |count| count.ready)
}

#[tokio::test]
async fn a_full_archive_queue_refuses_nothing_drops_the_oldest_and_every_dropped_one_can_be_counted() {
    let config = with_archive(10);
    // Declares the queues; who only publishes knows nothing of them.
    let mut taker = consumer(&config, ENGINE_ARCHIVE, 300);
    assert!(matches!(next(&mut taker).await, Consumed::Subscribed));
    taker.close().await;
    let publisher = publisher(&without(&config), "source", 256).await;
    let outcomes = publisher.publish_all((0..35).map(numbered).collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(ready(&config, ENGINE_EVENTS).await, 35);
    let mut dropped = Inbox::open(&config, ARCHIVE_DROPPED);
    assert_eq!(dropped.take_numbers(25).await, (0..25).collect::<Vec<_>>());
    let mut kept = consumer(&config, ENGINE_ARCHIVE, 300);
    let mut numbers = Vec::new();
    while numbers.len() < 10 {
        numbers.extend(next_batch(&mut kept).await.iter().map(number));
    }
    assert_eq!(numbers, (25..35).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_archive_that_is_switched_off_keeps_what_waits_gets_nothing_more_and_ends_with_its_last_event() {
    let config = with_archive(1000);
    let off = without(&config);
    assert_eq!(queues::retire_archive(&off).await.unwrap(), queues::Retired::Absent);
    let mut taker = consumer(&config, ENGINE_ARCHIVE, 300);
    assert!(matches!(next(&mut taker).await, Consumed::Subscribed));
    assert_eq!(queues::retire_archive(&off).await.unwrap(), queues::Retired::InUse, "another process archives");
    let mut standby = consumer(&config, ENGINE_ARCHIVE, 300);
    assert!(matches!(next(&mut standby).await, Consumed::Subscribed));
    let counts = queues::queue_counts(&config, &[ENGINE_ARCHIVE]).await.unwrap();
    assert_eq!(counts[0].consumers, 1, "a standby is not counted");
    standby.close().await;
    let publisher = publisher(&off, "source", 256).await;
    publisher.publish(numbered(0)).await.unwrap();
    next_batch(&mut taker).await;
    taker.close().await;
    until_async("the event to be back", || async { ready(&off, ENGINE_ARCHIVE).await == 1 }).await;

    assert_eq!(queues::retire_archive(&off).await.unwrap(), queues::Retired::Kept(1));
    publisher.publish(numbered(1)).await.unwrap();
    assert_eq!(queues::retire_archive(&off).await.unwrap(), queues::Retired::Kept(1), "nothing was added");

    let mut again = Inbox::open(&config, ENGINE_ARCHIVE);
    assert_eq!(again.take_numbers(1).await, [0]);
    publisher.publish(numbered(2)).await.unwrap();
    assert_eq!(again.take_numbers(1).await, [2], "switched on again it is bound again");
    drop(again);
    until_async("the queue to go", || async {
        matches!(queues::retire_archive(&off).await.unwrap(), queues::Retired::Deleted)
    })
    .await;
    assert_eq!(queues::retire_archive(&off).await.unwrap(), queues::Retired::Absent);
    assert_eq!(queues::queue_counts(&off, &[ARCHIVE_DROPPED]).await.unwrap(), []);
}

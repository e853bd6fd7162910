//! The publisher against a real broker.

use std::time::Duration;

use crate::common::{Inbox, PATIENCE, numbered, options, publisher, spooling, starting, until};
use bytes::Bytes;
use overstory_amqp::topology::{ALERTS, DEAD, ENGINE_DEAD, ENGINE_EVENTS, EVENTS};
use overstory_amqp::{Outgoing, PublishError, Receipt};
use overstory_model::RoutingKey;
use overstory_testkit::broker;

#[tokio::test]
async fn many_messages_are_confirmed_through_a_small_window_and_arrive_in_order() {
    let config = broker::shared().unwrap();
    let publisher = publisher(&config, "order", 16).await;
    let outcomes = publisher.publish_all((0..2000).map(numbered).collect()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Receipt::Confirmed))));
    let stats = publisher.stats();
    assert_eq!((stats.published, stats.confirmed, stats.rejected, stats.spooled), (2000, 2000, 0, 0));
    publisher.close(Duration::from_secs(5)).await.unwrap();
    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    assert_eq!(inbox.take_numbers(2000).await, (0..2000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_mandatory_message_that_no_queue_takes_is_the_one_reported() {
    let config = broker::shared().unwrap();
    let publisher = publisher(&config, "mandatory", 64).await;
    let messages = (0..50).map(|number| {
        let exchange = if number % 10 == 3 { ALERTS } else { EVENTS };
        Outgoing { exchange: exchange.to_owned(), mandatory: true, ..numbered(number) }
    });
    let outcomes = publisher.publish_all(messages.collect()).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Err(PublishError::Unroutable { exchange, .. }) => {
                assert_eq!((number % 10, exchange.as_str()), (3, ALERTS));
            }
            other => {
                assert!(matches!(other, Ok(Receipt::Confirmed)) && number % 10 != 3, "{number}: {other:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_exchange_that_does_not_exist_costs_neither_channel_nor_neighbours() {
    let config = broker::shared().unwrap();
    let publisher = publisher(&config, "missing", 64).await;
    let messages = (0..9).map(|number| match number {
        4 => Outgoing { exchange: "no.such".to_owned(), ..numbered(number) },
        _ => numbered(number),
    });
    let outcomes = publisher.publish_all(messages.collect()).await;
    assert!(matches!(&outcomes[4], Err(PublishError::NoExchange(name)) if name == "no.such"));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 8);
    let stats = publisher.stats();
    assert_eq!((stats.connections, stats.reconnects), (1, 0));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_it_does_harm() {
    let config = broker::shared().unwrap();
    let publisher = publisher(&config, "refused", 64).await;
    let huge = Outgoing { body: Bytes::from(vec![0; (16 << 20) + 1]), ..numbered(0) };
    assert!(matches!(publisher.publish(huge).await, Err(PublishError::TooLarge { .. })));
    let long = Outgoing { message_id: "x".repeat(256), ..numbered(0) };
    assert!(matches!(publisher.publish(long).await, Err(PublishError::NameTooLong { bytes: 256, .. })));
    let key = Outgoing { routing_key: RoutingKey::from_words(["c", "n", &"x".repeat(400)]), ..numbered(7) };
    assert!(matches!(publisher.publish(key).await, Ok(Receipt::Confirmed)), "a key of 400 bytes is cut, not refused");
    assert_eq!(Inbox::open(&config, ENGINE_EVENTS).take_numbers(1).await, [7]);
}

#[tokio::test]
async fn a_full_queue_sends_messages_to_the_spool_and_the_spool_drains_once_there_is_room() {
    let mut config = broker::shared().unwrap();
    config.queues.events_max_messages = 10;
    let dir = tempfile::tempdir().unwrap();
    let publisher = spooling(&config, "full", dir.path(), 1 << 20).await;
    for number in 0..60 {
        publisher.publish(numbered(number)).await.unwrap();
    }
    let stats = publisher.stats();
    assert!(stats.spool_messages >= 40 && stats.rejected >= 1, "{stats:?}");
    assert!(stats.spool_oldest_ms > 0);
    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    let mut numbers = inbox.take_numbers(60).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
    until("the spool to be empty", || publisher.stats().spool_messages == 0).await;
    let stats = publisher.stats();
    assert_eq!((stats.confirmed, stats.spool_oldest_ms), (60, 0));
}

#[tokio::test]
async fn without_a_spool_a_full_queue_is_the_callers_business() {
    let mut config = broker::shared().unwrap();
    config.queues.events_max_messages = 10;
    let publisher = publisher(&config, "refusals", 4).await;
    let outcomes = publisher.publish_all((0..60).map(numbered).collect()).await;
    let rejected = outcomes.iter().filter(|outcome| matches!(outcome, Err(PublishError::Rejected))).count();
    assert!(rejected >= 30, "{rejected}");
    assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(PublishError::is_retryable));
    let direct = publisher.publish_confirmed(numbered(99), PATIENCE).await;
    assert!(matches!(direct, Err(PublishError::Rejected)));
}

#[tokio::test]
async fn a_broker_that_is_not_there_means_spool_or_refusal_never_a_wait_without_end() {
    let mut config = broker::shared().unwrap();
    config.port = overstory_testkit::ports::free_port();
    let dir = tempfile::tempdir().unwrap();
    let spooling = starting(&config, options("away", 32, Some((dir.path(), 1 << 20))));
    assert_eq!(spooling.publish(numbered(1)).await.unwrap(), Receipt::Spooled);
    let refusing = starting(&config, options("refusing", 4, None));
    let refused = refusing.publish(numbered(1)).await;
    assert!(matches!(refused, Err(PublishError::Unavailable)), "{refused:?}");
    let late = refusing.publish_confirmed(numbered(1), Duration::from_millis(100)).await;
    assert!(matches!(late, Err(PublishError::Timeout)), "{late:?}");
    spooling.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_full_spool_says_so_and_keeps_what_it_has() {
    let config = broker::shared().unwrap();
    let away = overstory_amqp::AmqpConfig { port: overstory_testkit::ports::free_port(), ..config.clone() };
    let dir = tempfile::tempdir().unwrap();
    let first = starting(&away, options("bounded", 32, Some((dir.path(), 16 * 1024))));
    let outcomes = first.publish_all((0..1000).map(numbered).collect()).await;
    let spooled = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Receipt::Spooled))).count();
    assert!((20..1000).contains(&spooled), "{spooled}");
    assert!(outcomes[..spooled].iter().all(Result::is_ok), "the first ones are in it");
    assert!(outcomes[spooled..].iter().all(|outcome| matches!(outcome, Err(PublishError::SpoolFull))));
    first.close(Duration::from_secs(5)).await.unwrap();

    let second = spooling(&config, "bounded", dir.path(), 16 * 1024).await;
    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    let wanted: Vec<_> = (0..u32::try_from(spooled).unwrap()).collect();
    assert_eq!(inbox.take_numbers(spooled).await, wanted);
    until("the spool to be empty", || second.stats().spool_messages == 0).await;
    assert_eq!(second.publish(numbered(5000)).await.unwrap(), Receipt::Confirmed);
}

#[tokio::test]
async fn a_spooled_message_whose_exchange_is_gone_becomes_a_dead_letter_and_holds_nobody_up() {
    let config = broker::shared().unwrap();
    let away = overstory_amqp::AmqpConfig { port: overstory_testkit::ports::free_port(), ..config.clone() };
    let dir = tempfile::tempdir().unwrap();
    let first = starting(&away, options("orphan", 32, Some((dir.path(), 1 << 20))));
    first.publish(Outgoing { exchange: "no.such".to_owned(), ..numbered(1) }).await.unwrap();
    first.publish(numbered(2)).await.unwrap();
    first.close(Duration::from_secs(5)).await.unwrap();

    let second = spooling(&config, "orphan", dir.path(), 1 << 20).await;
    assert_eq!(Inbox::open(&config, ENGINE_EVENTS).take_numbers(1).await, [2]);
    let letter = Inbox::open(&config, ENGINE_DEAD).take(1).await.remove(0);
    assert_eq!((letter.exchange.as_str(), &letter.body[..]), (DEAD, &b"1"[..]));
    assert_eq!(letter.headers["x-overstory-exchange"], "no.such");
    assert_eq!(letter.headers["x-overstory-reason"], "undeliverable");
    until("the spool to be empty", || second.stats().spool_messages == 0).await;
}

#[tokio::test]
async fn a_second_publisher_cannot_take_a_spool_that_is_in_use() {
    let config = broker::shared().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let _first = starting(&config, options("mine", 32, Some((dir.path(), 1 << 20))));
    let options = options("mine", 4, Some((dir.path(), 1 << 20)));
    let second = overstory_amqp::Publisher::start(config, options, overstory_runtime::Shutdown::new());
    assert!(matches!(second, Err(PublishError::Spool(_))));
}

#[tokio::test]
async fn a_publisher_that_can_do_nothing_waits_without_work() {
    let mut config = broker::shared().unwrap();
    config.queues.events_max_messages = 5;
    let dir = tempfile::tempdir().unwrap();
    let publisher = spooling(&config, "patient", dir.path(), 1 << 20).await;
    publisher.publish_all((0..40).map(numbered).collect()).await;
    assert!(publisher.stats().spool_messages > 0);
    let early = publisher.publish_confirmed(numbered(50), PATIENCE);
    let late = publisher.publish_confirmed(numbered(51), PATIENCE / 2);
    let (early, late) = tokio::join!(early, late);
    assert!(matches!((early, late), (Err(PublishError::Rejected), Err(PublishError::Rejected))));
    let before = crate::common::cpu();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = crate::common::cpu() - before;
    assert!(used < Duration::from_millis(300), "{used:?} in a second of waiting for room");
}

//! What survives a broker that is killed, stopped, frozen or out of memory.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{
    Inbox, PATIENCE, consumer, next, next_batch, number, numbered, options, publisher, spooling, starting,
};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use overstory_amqp::topology::{CONFIG, ENGINE_EVENTS, EVENTS};
use overstory_amqp::{AmqpConfig, ConsumeError, Consumed, Outgoing, PublishError, Receipt, TlsConfig, fanout, queues};
use overstory_model::RoutingKey;
use overstory_runtime::Shutdown;
use overstory_testkit::broker::PrivateBroker;

/// Messages may come twice, but the first copies of all are in order.
fn first_copies(numbers: &[u32]) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}

#[tokio::test]
async fn nothing_with_a_receipt_is_lost_when_the_broker_is_killed_again_and_again() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let publisher = spooling(&config, "spool", dir.path(), 8 << 20).await;
    let generator = async {
        let mut sent = 0;
        let mut receipts = Vec::new();
        while publisher.stats().reconnects < 2 || !publisher.is_connected() || sent < 3000 {
            let outcomes = publisher.publish_all((sent..sent + 20).map(numbered).collect()).await;
            receipts.extend(outcomes.into_iter().map(Result::unwrap));
            sent += 20;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (sent, receipts)
    };
    let trouble = async {
        for _ in 0..2 {
            crate::common::until("some confirmations", || {
                publisher.is_connected() && publisher.stats().confirmed > 200
            })
            .await;
            broker.kill().await.unwrap();
            crate::common::until("some in the spool", || publisher.stats().spool_messages > 100).await;
            broker.start_again().await.unwrap();
            crate::common::until("the spool to drain", || publisher.stats().spool_messages == 0).await;
        }
    };
    let ((sent, receipts), ()) = tokio::join!(generator, trouble);
    assert!(receipts.contains(&Receipt::Spooled) && receipts.contains(&Receipt::Confirmed));
    publisher.close(Duration::from_secs(20)).await.unwrap();

    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    let mut numbers = Vec::new();
    while !numbers.contains(&(sent - 1)) {
        numbers.extend(inbox.take_numbers(1).await);
    }
    assert_eq!(first_copies(&numbers), (0..sent).collect::<Vec<_>>());
    let copies = numbers.len() - usize::try_from(sent).unwrap();
    assert!(copies <= 2 * 2 * 32, "{copies}: at most the window comes twice, for each connection that was lost");
}

#[tokio::test]
async fn the_spool_is_sent_by_the_next_process_when_this_one_dies() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let dir = tempfile::tempdir().unwrap();
    broker.kill().await.unwrap();
    // Dropped with its runtime in the middle of its work: what kill -9 leaves is the files, which this leaves too.
    let path = dir.path().to_owned();
    let away = config.clone();
    let spooled = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let publisher = starting(&away, options("heir", 32, Some((&path, 1 << 20))));
            let outcomes = publisher.publish_all((0..200).map(numbered).collect()).await;
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Receipt::Spooled))));
            outcomes.len()
        })
    })
    .join()
    .unwrap();
    broker.start_again().await.unwrap();
    let heir = spooling(&config, "heir", dir.path(), 1 << 20).await;
    let numbers = Inbox::open(&config, ENGINE_EVENTS).take_numbers(spooled).await;
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    crate::common::until("the spool to be empty", || heir.stats().spool_messages == 0).await;
}

#[tokio::test]
async fn a_connection_lost_during_publish_all_fails_what_is_unconfirmed_and_nothing_else() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let publisher = publisher(&config, "no spool", 32).await;
    assert_eq!(publisher.publish(numbered(0)).await.unwrap(), Receipt::Confirmed);
    let all = publisher.publish_all((1..100_000).map(numbered).collect());
    let killed = async {
        crate::common::until("some confirmations", || publisher.stats().confirmed > 500).await;
        broker.kill().await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(all, killed);
    let confirmed = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!((500..99_999).contains(&confirmed), "{confirmed}");
    let rest = &outcomes[confirmed..];
    assert!(rest.iter().all(|outcome| matches!(outcome, Err(PublishError::Unavailable) | Ok(Receipt::Confirmed))));
    broker.start_again().await.unwrap();
    let direct = Outgoing { message_id: "last".into(), ..numbered(100_000) };
    publisher.publish_confirmed(direct, PATIENCE).await.unwrap();
    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    let mut numbers = Vec::new();
    while !numbers.contains(&100_000) {
        numbers.extend(inbox.take_numbers(1).await);
    }
    let confirmed = u32::try_from(confirmed).unwrap();
    assert!((0..=confirmed).all(|number| numbers.contains(&number)), "what was confirmed is there");
}

#[tokio::test]
async fn a_consumer_comes_back_by_itself_and_never_acknowledges_across_the_gap() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let publisher = publisher(&config, "source", 32).await;
    publisher.publish_all((0..10).map(numbered).collect()).await;
    let mut consumer = consumer(&config, ENGINE_EVENTS, 300);
    let batch = next_batch(&mut consumer).await;
    broker.kill().await.unwrap();
    let lost = next(&mut consumer).await;
    assert!(matches!(lost, Consumed::Lost(_)), "{lost:?}");
    let (started, again) = tokio::join!(broker.start_again(), next(&mut consumer));
    started.unwrap();
    assert!(matches!(again, Consumed::Subscribed));
    assert!(matches!(consumer.ack_up_to(&batch[0].tag).await, Err(ConsumeError::Stale)));
    let again = next_batch(&mut consumer).await;
    assert_eq!(number(&again[0]), 0);
    assert!(again[0].redelivered);
}

#[tokio::test]
async fn under_a_memory_alarm_messages_are_spooled_and_acknowledgements_still_go() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let spooling = spooling(&config, "alarmed", dir.path(), 1 << 20).await;
    let refusing = publisher(&config, "refused", 32).await;
    spooling.publish_all((0..10).map(numbered).collect()).await;
    refusing.publish(numbered(10)).await.unwrap();
    let mut consumer = consumer(&config, ENGINE_EVENTS, 300);
    let batch = next_batch(&mut consumer).await;

    broker.ctl(&["set_vm_memory_high_watermark", "0.0001"]).await.unwrap();
    let mut receipts = Vec::new();
    for number in 11..40 {
        receipts.push(spooling.publish(numbered(number)).await.unwrap());
    }
    assert!(receipts.contains(&Receipt::Spooled), "the alarm holds publishers back");
    assert!(spooling.is_connected());
    let refused = refusing.publish(numbered(99)).await;
    assert!(matches!(refused, Err(PublishError::Unavailable)), "{refused:?}");
    consumer.ack_up_to(&batch[0].tag).await.unwrap();
    consumer.hand_back(Duration::ZERO).await;
    assert_eq!(number(&next_batch(&mut consumer).await[0]), 1, "the broker has seen the acknowledgement");
    consumer.close().await;

    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]).await.unwrap();
    crate::common::until("the spool to drain", || spooling.stats().spool_messages == 0).await;
    let mut numbers = BTreeSet::new();
    let mut inbox = Inbox::open(&config, ENGINE_EVENTS);
    while !(1..40).all(|number| numbers.contains(&number)) {
        numbers.extend(inbox.take_numbers(1).await);
    }
    let stats = spooling.stats();
    assert_eq!((stats.confirmed, stats.connections), (39, 1), "nothing was sent twice: {stats:?}");
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_by_the_silence_and_messages_are_spooled() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let publisher = spooling(&config, "frozen", dir.path(), 1 << 20).await;
    publisher.publish(numbered(0)).await.unwrap();
    broker.signal("-STOP").unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(publisher.publish(numbered(1)).await.unwrap(), Receipt::Spooled);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    broker.signal("-CONT").unwrap();
    crate::common::until("the spool to drain", || publisher.stats().spool_messages == 0).await;
    let numbers = Inbox::open(&config, ENGINE_EVENTS).take_numbers(2).await;
    assert_eq!(first_copies(&numbers), [0, 1]);
}

#[tokio::test]
async fn one_who_follows_an_exchange_is_told_when_hints_may_have_been_missed() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let mut followed = fanout::follow(config.clone(), "follower", CONFIG, "#", Shutdown::new());
    let mut next = async || tokio::time::timeout(PATIENCE, followed.recv()).await.unwrap().unwrap();
    assert!(matches!(next().await, fanout::Followed::Subscribed));
    let publisher = publisher(&config, "rules", 4).await;
    let hint = || Outgoing::json(CONFIG, RoutingKey::fit("rules".into()), "{}".into());
    publisher.publish_confirmed(hint(), PATIENCE).await.unwrap();
    assert!(matches!(next().await, fanout::Followed::Message(hint) if &hint.body[..] == b"{}"));
    broker.stop().await.unwrap();
    broker.start_again().await.unwrap();
    assert!(matches!(next().await, fanout::Followed::Subscribed));
    publisher.publish_confirmed(hint(), PATIENCE).await.unwrap();
    assert!(matches!(next().await, fanout::Followed::Message(_)));
}

#[tokio::test]
async fn a_channel_that_the_broker_closes_is_rebuilt_with_the_topology() {
    let broker = PrivateBroker::start().unwrap();
    let config = broker.vhost().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (spooling, refusing) =
        (spooling(&config, "rebuilt", dir.path(), 1 << 20).await, publisher(&config, "rebuilt too", 32).await);
    spooling.publish(numbered(0)).await.unwrap();
    refusing.publish(numbered(1)).await.unwrap();
    let mut consumer = consumer(&config, ENGINE_EVENTS, 300);
    let first = next_batch(&mut consumer).await;
    consumer.ack_up_to(&first.last().unwrap().tag).await.unwrap();

    // 404: the exchange is gone, and comes back with the next connection.
    delete(&config, |channel| {
        Box::pin(async move { channel.exchange_delete(EVENTS.into(), ExchangeDeleteOptions::default()).await })
    })
    .await;
    assert_eq!(spooling.publish(numbered(2)).await.unwrap(), Receipt::Spooled);
    crate::common::until("the spool to drain", || spooling.stats().spool_messages == 0).await;
    let refused = refusing.publish(numbered(3)).await;
    assert!(refused.is_ok(), "the exchange is there again: {refused:?}");

    // The queue is gone: the broker cancels the consumer, which declares and subscribes anew.
    delete(&config, |channel| {
        Box::pin(
            async move { channel.queue_delete(ENGINE_EVENTS.into(), QueueDeleteOptions::default()).await.map(|_| ()) },
        )
    })
    .await;
    while !matches!(next(&mut consumer).await, Consumed::Lost(_)) {}
    assert!(matches!(next(&mut consumer).await, Consumed::Subscribed));
    refusing.publish(numbered(4)).await.unwrap();
    let again = next_batch(&mut consumer).await;
    assert_eq!(number(&again[0]), 4);

    // 406: the broker waits for an acknowledgement no longer.
    let expression = "[application:set_env(rabbit, Key, 500) || Key <- [consumer_timeout, channel_tick_interval]].";
    broker.ctl(&["eval", expression]).await.unwrap();
    consumer.hand_back(Duration::ZERO).await;
    assert!(matches!(next(&mut consumer).await, Consumed::Subscribed));
    let held = next_batch(&mut consumer).await;
    let lost = next(&mut consumer).await;
    assert!(matches!(&lost, Consumed::Lost(reason) if reason.contains("timed out")), "{lost:?}");
    assert!(matches!(consumer.ack_up_to(&held[0].tag).await, Err(ConsumeError::Stale)));
    assert!(matches!(next(&mut consumer).await, Consumed::Subscribed));
    assert_eq!(number(&next_batch(&mut consumer).await[0]), 4);
    let expression = "[application:set_env(rabbit, Key, Value) || {Key, Value} <- \
        [{consumer_timeout, 1800000}, {channel_tick_interval, 60000}]].";
    broker.ctl(&["eval", expression]).await.unwrap();
}

type Deleting = std::pin::Pin<Box<dyn Future<Output = lapin::Result<()>>>>;

async fn delete(config: &AmqpConfig, what: impl FnOnce(lapin::Channel) -> Deleting) {
    let uri = format!("amqp://{}:{}@127.0.0.1:{}/{}", config.user, config.password, config.port, config.vhost);
    let connection = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await.unwrap();
    what(connection.create_channel().await.unwrap()).await.unwrap();
    // Dropping the channel has begun to close things already.
    let _ = connection.close(200, "done".into()).await;
}

#[tokio::test]
async fn an_encrypted_connection_trusts_its_authority_and_nobody_else() {
    let broker = PrivateBroker::start().unwrap();
    let plain = broker.vhost().unwrap();
    let (port, certificate) = broker.tls().unwrap();
    let tls = |ca_file| AmqpConfig { port, tls: Some(TlsConfig { ca_file }), ..plain.clone() };
    queues::queue_counts(&tls(certificate.clone()), &[]).await.unwrap();
    let trusting = publisher(&tls(certificate), "trusting", 32).await;
    assert_eq!(trusting.publish(numbered(7)).await.unwrap(), Receipt::Confirmed);
    assert_eq!(Inbox::open(&plain, ENGINE_EVENTS).take_numbers(1).await, [7]);
    let doubting = starting(&tls("/etc/ssl/certs/ca-certificates.crt".into()), options("doubting", 32, None));
    let refused = doubting.publish(numbered(8)).await;
    assert!(matches!(refused, Err(PublishError::Unavailable)), "{refused:?}");
}

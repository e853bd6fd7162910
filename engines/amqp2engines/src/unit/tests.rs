#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bench;

use std::sync::atomic::Ordering;
use std::time::Duration;

use overstory_amqp::{Consumed, Delivery, dead};
use overstory_model::{Clock, EntityId};
use overstory_store::{AlarmQuery, Openness};
use serde_json::Value;

use super::{Intent, WAKE, attempt};
use bench::{Bench, Did, check, named};

/// What the dead letters among `messages` say.
fn reasons(messages: &[overstory_amqp::Outgoing]) -> Vec<String> {
    messages.iter().filter_map(|message| message.headers.get(dead::REASON).cloned()).collect()
}

#[tokio::test]
async fn a_batch_is_written_acknowledged_and_told() {
    let mut bench = Bench::start().await;
    bench.deliver(vec![check("a", 2), check("b", 0), check("a", 3)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    let alarm = bench.alarm("a").await.unwrap();
    assert_eq!((alarm.v.events_count, alarm.v.state.val, alarm.steps_count), (2, 3, 3));
    assert!(bench.alarm("b").await.is_none());
    assert_eq!(bench.entities(&["a/host1", "b/host1", "host1", "nagios/poller1"]).await, 4);
    let messages = bench.published(2).await;
    let keys: Vec<_> = messages.iter().map(|message| message.routing_key.as_str().to_owned()).collect();
    assert_eq!(keys, ["nagios.poller1.create.resource.host1.a", "nagios.poller1.stateinc.resource.host1.a"]);
    let body: Value = serde_json::from_slice(&messages[1].body).unwrap();
    assert_eq!(body["alarm"]["v"]["state"]["val"], 3);
    bench.outbox_is_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn the_next_batch_builds_on_the_one_before_and_so_does_the_next_process() {
    let mut bench = Bench::start().await;
    for state in [1, 2] {
        bench.deliver(vec![check("a", state)]).await;
        assert_eq!(bench.did().await, Did::Acknowledged);
    }
    bench.send(Consumed::Subscribed).await;
    bench.deliver(vec![check("a", 3)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    let alarm = bench.alarm("a").await.unwrap();
    assert_eq!((alarm.v.events_count, alarm.steps_count, alarm.v.total_state_changes), (3, 4, 3));
    assert_eq!(bench.epochs(), 2);
    bench.stop().await;
}

/// A publisher sends again what it got no confirmation for, and the broker delivers again what was not acknowledged:
/// both must count once. Two equal messages that nobody named are two.
#[tokio::test]
async fn what_was_seen_before_counts_once() {
    let mut bench = Bench::start().await;
    let again = |delivery: &Delivery| Delivery { redelivered: true, ..delivery.clone() };
    let (one, two, unnamed) = (named("1", "a", 1), named("2", "a", 1), check("a", 1));
    bench.deliver(vec![one.clone(), one.clone(), unnamed.clone(), unnamed.clone()]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 3);
    bench.send(Consumed::Subscribed).await;
    bench.deliver(vec![again(&one), one, again(&unnamed), unnamed, two]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 5);
    bench.stop().await;
}

#[tokio::test]
async fn a_message_sent_again_by_an_operator_counts_again() {
    let mut bench = Bench::start().await;
    let mut replayed = named("1", "a", 1);
    bench.deliver(vec![replayed.clone()]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    replayed.headers.insert(dead::REPLAY.to_owned(), "1".to_owned());
    bench.deliver(vec![replayed.clone(), replayed]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 2);
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_and_the_rest_is_done() {
    let mut bench = Bench::start().await;
    let bad = Delivery::local("canopsis.events", "a.b.c", b"nonsense"[..].into());
    bench.deliver(vec![check("a", 1), bad, check("b", 1)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    let messages = bench.published(3).await;
    assert_eq!(reasons(&messages), ["bad_json"]);
    let letter = &messages[1];
    assert_eq!((letter.exchange.as_str(), &letter.body[..]), ("canopsis.dead", &b"nonsense"[..]));
    assert_eq!(letter.headers[dead::ROUTING_KEY], "a.b.c");
    assert_eq!(letter.headers[dead::ORIGIN], "Engine_events");
    assert!(bench.alarm("b").await.is_some());
    bench.stop().await;
}

/// An engine that panics has left its state half changed: the whole batch is done again without the culprit.
#[tokio::test]
async fn a_panic_costs_its_message_alone() {
    let mut bench = Bench::start().await;
    bench.deliver(vec![check("a", 1), check("panic", 1), check("a", 2), check("read panic", 1)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 2);
    let messages = bench.published(4).await;
    assert_eq!(reasons(&messages), ["engine_panic", "engine_panic"]);
    assert!(bench.alarm("panic").await.is_none());
    bench.stop().await;
}

/// The process ended three times while it worked on this message alone: the fourth time it is not looked at.
#[tokio::test]
async fn a_message_that_ends_the_process_goes_to_the_dead_letters() {
    let mut bench = Bench::start().await;
    let risky = |id: &str, resource: &str| Delivery { redelivered: true, delivery_count: 5, ..named(id, resource, 1) };
    let culprit = risky("2", "b");
    let intent = Intent::new(bench.intent_file());
    for _ in 0..3 {
        intent.begin(attempt::dedup_id(&culprit));
    }
    bench.deliver(vec![risky("1", "a"), risky("3", "c")]).await;
    assert_eq!([bench.did().await, bench.did().await], [Did::Acknowledged; 2], "each alone");
    for _ in 0..3 {
        intent.begin(attempt::dedup_id(&culprit));
    }
    bench.deliver(vec![culprit, risky("4", "d")]).await;
    assert_eq!([bench.did().await, bench.did().await], [Did::Acknowledged; 2]);
    assert_eq!(reasons(&bench.published(4).await), ["poison"]);
    for resource in ["a", "c", "d"] {
        assert!(bench.alarm(resource).await.is_some(), "{resource}");
    }
    assert!(!bench.intent_file().exists());
    bench.stop().await;
}

#[tokio::test]
async fn a_store_that_comes_back_gets_every_effect_once() {
    let mut bench = Bench::start().await;
    bench.faults.unavailable.store(3, Ordering::SeqCst);
    bench.deliver(vec![check("a", 1), check("a", 2)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 2);
    bench.stop().await;
}

/// The commit was made, but its answer was lost: the second try finds the messages seen.
#[tokio::test]
async fn a_commit_whose_answer_was_lost_counts_once() {
    let mut bench = Bench::start().await;
    bench.faults.answer_lost.store(1, Ordering::SeqCst);
    bench.deliver(vec![named("1", "a", 1), named("2", "a", 2)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    let alarm = bench.alarm("a").await.unwrap();
    assert_eq!((alarm.v.events_count, alarm.steps_count), (2, 3));
    bench.stop().await;
}

#[tokio::test]
async fn a_store_that_stays_away_costs_nothing_but_time() {
    let mut bench = Bench::start().await;
    bench.deliver(vec![check("a", 1)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    bench.faults.unavailable.store(u32::MAX, Ordering::SeqCst);
    bench.deliver(vec![check("a", 2)]).await;
    assert_eq!(bench.did().await, Did::HandedBack(Duration::from_secs(5)));
    assert!(!bench.status.is_active() && !bench.status.is_subscribed());
    bench.faults.unavailable.store(0, Ordering::SeqCst);
    bench.send(Consumed::Subscribed).await;
    bench.deliver(vec![check("a", 2)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 2);
    bench.stop().await;
}

/// While this process was stopped another one took the epoch: what this one decided on what it remembers is refused.
#[tokio::test]
async fn a_process_that_was_overtaken_writes_nothing() {
    let mut bench = Bench::start().await;
    bench.deliver(vec![check("a", 1)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    bench.store.engines.take_epoch("Engine_events", "another").await.unwrap();
    bench.deliver(vec![check("a", 2)]).await;
    assert!(matches!(bench.did().await, Did::HandedBack(_)));
    assert_eq!(bench.alarm("a").await.unwrap().v.events_count, 1);
    assert!(!bench.status.is_active());
    bench.stop().await;
}

#[tokio::test]
async fn what_the_store_refuses_is_found_and_laid_aside() {
    let mut bench = Bench::start().await;
    bench.faults.refuse_entity("bad/host1");
    bench.deliver(vec![check("a", 1), check("bad", 1), check("c", 1)]).await;
    for _ in 0..3 {
        assert_eq!(bench.did().await, Did::Acknowledged);
    }
    assert!(bench.alarm("a").await.is_some() && bench.alarm("c").await.is_some());
    assert_eq!(reasons(&bench.published(3).await), ["store_refused"]);
    bench.stop().await;
}

#[tokio::test]
async fn what_an_earlier_process_left_in_the_outbox_is_sent_first() {
    let mut bench = Bench::start().await;
    bench.leave_behind("left behind").await;
    bench.deliver(vec![check("a", 1)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    let messages = bench.published(2).await;
    assert_eq!(messages[0].message_id, "left behind");
    bench.outbox_is_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_broker_that_takes_nothing_for_a_while_gets_everything_in_order() {
    let mut bench = Bench::start().await;
    bench.faults.publishing_fails.store(3, Ordering::SeqCst);
    bench.deliver(vec![check("a", 1), check("a", 2)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    let messages = bench.published(2).await;
    assert!(messages[0].routing_key.as_str().contains(".create."));
    bench.outbox_is_empty().await;
    bench.stop().await;
}

#[tokio::test]
async fn asking_who_is_active_takes_the_epoch_and_counts_nowhere() {
    let mut bench = Bench::start().await;
    let mut wake = Delivery::local("", "Engine_events", b"{}"[..].into());
    wake.headers.insert(WAKE.to_owned(), "me".to_owned());
    bench.deliver(vec![wake]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert!(bench.status.is_active());
    assert_eq!(bench.commits(), 0);
    bench.stop().await;
}

#[tokio::test]
async fn an_alarm_that_stayed_ok_is_resolved_by_the_beat() {
    let mut bench = Bench::start().await;
    bench.deliver(vec![check("a", 1), check("b", 1), check("a", 0)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    bench.published(3).await;
    bench.clock.advance_secs(59);
    bench.deliver(vec![check("c", 0)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    bench.clock.advance_secs(1);
    let messages = bench.published(1).await;
    assert_eq!(messages[0].routing_key.as_str(), "nagios.poller1.resolve.resource.host1.a");
    assert!(bench.alarm("a").await.is_none() && bench.alarm("b").await.is_some());
    let entity = EntityId("a/host1".to_owned());
    let query = AlarmQuery { openness: Openness::Resolved, entity: Some(entity), ..AlarmQuery::default() };
    let resolved = bench.store.alarms.list(&query).await.unwrap().items;
    assert_eq!(resolved[0].v.resolved, Some(bench.clock.now().secs()));
    assert_eq!((resolved[0].v.duration, resolved[0].steps_count), (Some(60), 5));
    bench.deliver(vec![check("a", 3)]).await;
    assert_eq!(bench.did().await, Did::Acknowledged);
    assert_ne!(bench.alarm("a").await.unwrap().id, resolved[0].id);
    bench.stop().await;
}

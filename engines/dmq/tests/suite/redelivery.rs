//! A consumer that dies: what it had not taken over comes again where redelivery is on, and nowhere else.

use crate::rig::{Consumer, MODES, Node, Setup, consume, consumers, files, neo_push, push, records, values};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;

use overstory_dmq::config::Durability;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;

const CHANNEL: &str = "c";

/// A node whose queues overflow after a few records, where they can.
fn node(durability: Durability, redeliver: Option<bool>) -> Node {
    let channel_size = if durability == Durability::Memory { 10_000_000 } else { 64 };
    Node::start(Setup { redeliver, channel_size, ..Setup::of(durability) })
}

fn push_all(node: &Node, values: &[Vec<u8>]) {
    let mut client = node.legacy();
    values.iter().for_each(|value| push(&mut client, CHANNEL, value));
}

#[test]
fn a_batch_that_was_not_taken_over_comes_again_in_order() {
    for durability in MODES {
        let node = node(durability, Some(true));
        let values = values(12);
        push_all(&node, &values[..10]);
        let mut first = Consumer::start(&node, CHANNEL, "");
        let held = first.batch();
        assert_eq!(held, values[..held.len()], "{durability:?}");
        drop(first);
        consumers(&node, 0);
        push_all(&node, &values[10..]);
        let mut second = Consumer::start(&node, CHANNEL, "");
        assert_eq!(second.read(12), values, "{durability:?}");
        second.stop();
        assert_eq!(node.records(), 0);
    }
}

#[test]
fn what_was_taken_over_does_not_come_again() {
    for durability in MODES {
        let node = node(durability, Some(true));
        // Three of them make a batch.
        let long: Vec<_> = (0..8u8).map(|number| vec![number; 40_000]).collect();
        push_all(&node, &long);
        let mut first = Consumer::start(&node, CHANNEL, "");
        let taken = first.batch().len();
        first.go_on();
        let held = first.batch();
        assert_eq!(held, long[taken..taken + held.len()]);
        drop(first);
        consumers(&node, 0);
        let mut second = Consumer::start(&node, CHANNEL, "");
        assert_eq!(second.read(8 - taken), long[taken..], "{durability:?}");
        second.stop();
        assert_eq!(node.records(), 0);
    }
}

/// A Stop takes over as well as a Continue does.
#[test]
fn a_stop_takes_the_last_batch_over() {
    for durability in MODES {
        let node = node(durability, Some(true));
        push_all(&node, &values(1));
        let mut first = Consumer::start(&node, CHANNEL, "");
        assert_eq!(first.batch(), values(1));
        first.stop();
        assert_eq!(node.records(), 0, "{durability:?}");
    }
}

/// The published node's behaviour, which stays the one without a journal: what was sent is gone.
#[test]
fn without_redelivery_a_batch_is_gone_with_its_consumer() {
    for durability in [Durability::Memory, Durability::Overflow] {
        let node = node(durability, None);
        let values = values(3);
        push_all(&node, &values[..2]);
        let mut first = Consumer::start(&node, CHANNEL, "");
        let held = first.batch().len();
        drop(first);
        consumers(&node, 0);
        push_all(&node, &values[2..]);
        let mut second = Consumer::start(&node, CHANNEL, "");
        assert_eq!(second.read(3 - held), values[held..], "{durability:?}");
    }
}

/// The batch of a dead consumer goes to the others of its subscriber, before what is newer.
#[test]
fn another_consumer_of_the_subscriber_gets_the_batch() {
    for durability in MODES {
        let node = node(durability, Some(true));
        let values = values(4);
        let mut first = Consumer::start(&node, CHANNEL, "s");
        let mut second = Consumer::start(&node, CHANNEL, "s");
        // Each has nothing when the next record comes, so each gets one, and then is asked for nothing more.
        push_all(&node, &values[..1]);
        assert_eq!(first.batch(), values[..1]);
        push_all(&node, &values[1..2]);
        assert_eq!(second.batch(), values[1..2]);
        push_all(&node, &values[2..]);
        drop(first);
        consumers(&node, 1);
        second.go_on();
        assert_eq!(second.read(3), [&values[..1], &values[2..]].concat(), "{durability:?}");
        second.stop();
        assert_eq!(node.records(), 0);
    }
}

/// An idle consumer is woken by what a dead one leaves: no push has to come.
#[test]
fn a_batch_that_comes_back_wakes_who_waits() {
    for durability in MODES {
        let node = node(durability, Some(true));
        let mut first = Consumer::start(&node, CHANNEL, "");
        push_all(&node, &values(1));
        assert_eq!(first.batch(), values(1));
        let mut second = Consumer::start(&node, CHANNEL, "");
        drop(first);
        assert_eq!(second.batch(), values(1), "{durability:?}");
    }
}

/// A batch that is with a consumer when the node stops is saved with the rest.
#[test]
fn a_batch_that_is_not_taken_over_survives_a_stop() {
    for durability in MODES {
        let place = tempfile::tempdir().unwrap();
        let setup = Setup { durability, redeliver: Some(true), ..Setup::at(place.path()) };
        let values = values(5);
        let node = Node::start(setup.clone());
        push_all(&node, &values);
        let mut consumer = Consumer::start(&node, CHANNEL, "");
        assert_eq!(consumer.batch(), values);
        drop(node);
        assert!(consumer.client.connection.is_closed());
        let node = Node::start(setup);
        assert_eq!(Consumer::start(&node, CHANNEL, "").read(5), values, "{durability:?}");
    }
}

/// A crash is the death of all consumers: with the journal their batches come again, what they took over does not.
#[test]
fn with_the_journal_a_batch_comes_again_after_a_crash() {
    let node = node(Durability::Journal, None);
    let values = values(4);
    push_all(&node, &values[..2]);
    let mut consumer = Consumer::start(&node, CHANNEL, "");
    assert_eq!(consumer.batch(), values[..2]);
    let before = node.crash();
    push_all(&node, &values[2..]);
    consumer.go_on();
    assert_eq!(consumer.batch(), values[2..]);
    let after = node.crash();
    for (place, expected) in [(before, &values[..2]), (after, &values[2..])] {
        let node = Node::start(Setup { durability: Durability::Journal, ..Setup::at(place.path()) });
        assert_eq!(Consumer::start(&node, CHANNEL, "").read(2), expected, "{:?}", files(place.path()));
    }
}

/// Legacy has nothing by which a client could take over: what was sent is taken.
#[test]
fn a_legacy_consumer_takes_over_what_it_is_sent() {
    for durability in MODES {
        let node = node(durability, Some(true));
        push_all(&node, &values(1));
        let mut first = consume(&node, CHANNEL);
        assert_eq!(first.read_array(), values(1)[0]);
        drop(first);
        consumers(&node, 0);
        assert_eq!(node.records(), 0, "{durability:?}");
    }
}

/// Under load, with consumers that die again and again with a batch in their hands: every record is taken over once,
/// and what is in a batch is in order.
#[test]
fn consumers_that_die_again_and_again_lose_and_double_nothing() {
    const RECORDS: usize = 1500;
    for durability in MODES {
        let channel_size = if durability == Durability::Memory { 10_000_000 } else { 400 };
        let node = &Node::start(Setup { redeliver: Some(true), channel_size, ..Setup::of(durability) });
        Consumer::start(node, CHANNEL, "s").stop();
        let taken = &AtomicUsize::new(0);
        let consume = move |every: usize| {
            let (mut over, mut batches) = (Vec::new(), 0);
            'connection: while taken.load(Ordering::Relaxed) < RECORDS {
                let mut consumer = Consumer::start(node, CHANNEL, "s");
                while let Some(batch) = records(&consumer.client.read(1)) {
                    assert!(batch.is_sorted(), "{durability:?}: {batch:?}");
                    batches += 1;
                    if batches % every == 0 {
                        continue 'connection;
                    }
                    consumer.go_on();
                    taken.fetch_add(batch.len(), Ordering::Relaxed);
                    over.extend(batch);
                }
            }
            over
        };
        scope(|scope| {
            let consumers: Vec<_> = [2, 3, 5].map(|every| scope.spawn(move || consume(every))).into();
            scope.spawn(|| {
                let mut client = node.neo();
                for number in 0..RECORDS {
                    neo_push(&mut client, number as u64 + 1, &[CHANNEL], format!("{number:06}").as_bytes());
                }
            });
            // What is left of the consumers ends with the channel.
            let mut client = node.legacy();
            while consumers.iter().any(|consumer| !consumer.is_finished()) {
                if taken.load(Ordering::Relaxed) >= RECORDS {
                    let remove = Legacy::RemoveChannel { channel: CHANNEL.as_bytes() };
                    assert_eq!(client.ask(&remove), Status::Ok);
                }
                std::thread::yield_now();
            }
            let mut over: Vec<_> = consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect();
            over.sort();
            let all: Vec<_> = (0..RECORDS).map(|number| format!("{number:06}").into_bytes()).collect();
            assert!(over == all, "{durability:?}: {} records", over.len());
        });
    }
}

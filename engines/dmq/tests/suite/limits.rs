//! What a queue, a value and a request may be, and what is said beyond that.

use overstory_dmq::config::Durability;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;
use overstory_swarm::wire::put_array;

use crate::rig::{
    Consumer, MODES, Node, Setup, ask, consume, neo_pop, neo_push, pop, pop_all, push, push_payload, values, with_names,
};

/// An announced length near 2^64 must not be believed, nor wrap around.
#[test]
fn neo_lengths_that_cannot_be_are_answered_with_an_error() {
    let node = Node::start(Setup::default());
    let mut client = node.neo();
    for (id, length) in [(1, u64::MAX), (2, 1 << 63), (3, u64::MAX - 7), (4, 1 << 32)] {
        let pop = [&[2, 1][..], &length.to_le_bytes(), b"channel"].concat();
        assert_eq!(ask(&mut client, id, &pop), [3]);
        let push = [&[1, 3, 1][..], &length.to_le_bytes(), b"channel"].concat();
        assert_eq!(ask(&mut client, id + 10, &push), [2]);
    }
}

/// What cannot be a control closes the connection, and what the consumer had is not lost with it.
#[test]
fn a_wrong_control_closes_the_connection() {
    let node = Node::start(Setup { redeliver: Some(true), ..Setup::default() });
    for wrong in [&[9][..], &[1, 1], &[]] {
        push(&mut node.legacy(), "c", b"v");
        let mut consumer = Consumer::start(&node, "c", "");
        assert_eq!(consumer.batch(), [b"v"]);
        consumer.client.message(1, wrong);
        assert!(consumer.client.connection.is_closed(), "{wrong:?}");
        let mut consumer = Consumer::start(&node, "c", "");
        assert_eq!(consumer.batch(), [b"v"]);
        consumer.stop();
    }
}

/// The longest value is 10 MiB (§10.1.1). One byte more ends a legacy connection, and nothing else; by neo it is an error,
/// for a legacy client that took it out would get nothing but the end of its connection.
#[test]
fn values_have_up_to_ten_mebibytes() {
    let node = Node::start(Setup { channel_size: 20_000_000, ..Setup::default() });
    let longest = vec![b'x'; 10 << 20];
    push(&mut node.legacy(), "c", &longest);
    let mut client = node.legacy();
    client.send(&1i32.to_le_bytes());
    client.send(&[&1u64.to_le_bytes()[..], b"c", &(longest.len() as u64 + 1).to_le_bytes()].concat());
    assert!(client.is_closed());
    assert!(pop(&mut node.legacy(), "c") == longest);
    neo_push(&mut node.neo(), 1, &["c"], &longest);
    assert!(neo_pop(&mut node.neo(), 1, "c").unwrap() == longest);
    let longer = vec![b'x'; longest.len() + 1];
    assert_eq!(ask(&mut node.neo(), 1, &push_payload(&[b"c"], &longer)), [2]);
    assert_eq!(node.records(), 0);
}

/// Without a disk a full queue says so, as the older nodes did: 407 by legacy, Error by neo (§9). A push to several
/// queues is in all of them or in none.
#[test]
fn a_full_queue_refuses_and_a_push_to_several_is_in_all_or_none() {
    let node = Node::start(Setup { channel_sizes: vec![("small", 30)], ..Setup::of(Durability::Memory) });
    let (mut legacy, mut neo, all) = (node.legacy(), node.neo(), values(4));
    all[..3].iter().for_each(|value| push(&mut legacy, "small", value));
    assert_eq!(legacy.ask(&Legacy::Push { channel: b"small", value: b"v3" }), Status::OutOfMemory);
    assert_eq!(ask(&mut neo, 1, &push_payload(&[b"small"], b"v3")), [2]);
    with_names(&["other", "small"], |channels| {
        assert_eq!(legacy.ask(&Legacy::PushMulti { channels, value: b"v3" }), Status::OutOfMemory);
    });
    assert_eq!(ask(&mut neo, 2, &push_payload(&[b"other", b"small"], b"v3")), [2]);
    assert_eq!(legacy.ask(&Legacy::Push { channel: b"small_too", value: &[b'x'; 31] }), Status::OutOfMemory);
    assert_eq!(node.records(), 3);
    assert_eq!(pop(&mut legacy, "small"), all[0]);
    with_names(&["other", "small"], |channels| {
        assert_eq!(legacy.ask(&Legacy::PushMulti { channels, value: b"v3" }), Status::Ok);
    });
    assert_eq!((pop_all(&mut legacy, "small"), pop_all(&mut legacy, "other")), (all[1..].to_vec(), all[3..].to_vec()));

    // Subscribers count as well: the one that does not read keeps the others from getting what it cannot.
    let reads = Consumer::start(&node, "small_topic", "reads");
    Consumer::start(&node, "small_topic", "absent").stop();
    let mut reads = reads;
    for value in &all[..3] {
        push(&mut legacy, "small_topic", value);
        assert_eq!(reads.batch(), std::slice::from_ref(value));
        reads.go_on();
    }
    assert_eq!(legacy.ask(&Legacy::Push { channel: b"small_topic", value: b"v3" }), Status::OutOfMemory);
    assert_eq!(node.records(), 3);
}

/// A producer whose queue is full waits for room, for it has no other way to be told (§1.6): nothing is lost.
#[test]
fn a_producer_waits_while_a_queue_is_full() {
    let node = Node::start(Setup { channel_size: 40, ..Setup::of(Durability::Memory) });
    let (mut producer, all) = (node.legacy(), values(100));
    with_names(&["c", "d"], |channels| {
        assert_eq!(producer.ask(&Legacy::ProduceMulti { channels }), Status::Ok);
    });
    let mut items = Vec::new();
    for value in &all {
        items.extend((value.len() as u64).to_le_bytes());
        items.extend(value);
    }
    items.extend([0; 8]);
    producer.send(&items);
    let (mut c, mut d) = (node.legacy(), consume(&node, "d"));
    for value in &all {
        assert_eq!(d.read_array(), *value);
        let popped = std::iter::repeat_with(|| pop(&mut c, "c")).find(|value| !value.is_empty());
        assert_eq!(popped.as_ref(), Some(value));
    }
    // The connection is free again.
    push(&mut producer, "e", b"v");
    assert_eq!(pop(&mut producer, "e"), b"v");
}

/// A record that can never fit ends a Produce, which has no other way to say that it is not stored; what came before stays.
#[test]
fn a_producer_is_cut_off_at_a_record_that_its_queue_cannot_hold() {
    let node = Node::start(Setup { channel_size: 40, ..Setup::of(Durability::Memory) });
    let mut producer = node.legacy();
    assert_eq!(producer.ask(&Legacy::Produce { channel: b"c" }), Status::Ok);
    let mut items = Vec::new();
    for value in [&b"kept"[..], &[b'x'; 33], b"behind"] {
        put_array(&mut items, value);
    }
    producer.send(&items);
    assert!(producer.is_closed());
    assert_eq!(pop_all(&mut node.legacy(), "c"), [b"kept"]);
}

/// Subscribers and their records stay over a stop, in every mode: the published files have them all.
#[test]
fn subscribers_stay_over_a_stop() {
    for durability in MODES {
        let place = tempfile::tempdir().unwrap();
        let setup = Setup { durability, channel_size: 1000, ..Setup::at(place.path()) };
        let node = Node::start(setup.clone());
        Consumer::start(&node, "topic", "a").stop();
        consume(&node, "topic");
        values(3).iter().for_each(|value| push(&mut node.legacy(), "topic", value));
        drop(node);
        let node = Node::start(setup);
        assert_eq!(Consumer::start(&node, "topic", "a").read(3), values(3), "{durability:?}");
        let mut unnamed = consume(&node, "topic");
        values(3).iter().for_each(|value| assert_eq!(unnamed.read_array(), *value, "{durability:?}"));
        assert_eq!(node.legacy().ask(&Legacy::Pop { channel: b"topic" }), Status::Error);
    }
}

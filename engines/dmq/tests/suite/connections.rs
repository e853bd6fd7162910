//! Connections that end in the middle of something, and connections that do several things.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use overstory_dmq::config::Durability;
use overstory_replay::eventually;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;
use overstory_swarm::neo::dmq::Request as Neo;
use overstory_swarm::wire::put_array;

use crate::rig::{
    CONTINUE, Connection, Consumer, MODES, Node, STOP, STOPPED, Setup, consume, consumers, neo_pop, pop, pop_all, push,
    push_payload, records, values, with_names,
};

fn items(values: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| put_array(&mut bytes, value));
    bytes
}

fn produce(node: &Node, channels: &[&str]) -> Connection {
    let mut client = node.legacy();
    with_names(channels, |channels| assert_eq!(client.ask(&Legacy::ProduceMulti { channels }), Status::Ok));
    client
}

/// Requests of all kinds share one neo connection; a Consume whose client says nothing holds none of them up.
#[test]
fn one_connection_carries_several_consumers_and_pushes() {
    for durability in MODES {
        let node = Node::start(Setup::of(durability));
        let mut client = node.neo();
        let consume = |channel, subscriber| Neo::Consume { channel, subscriber };
        assert_eq!(client.ask(1, &consume(b"c", b"a")), [1]);
        assert_eq!(client.ask(2, &consume(b"c", b"b")), [1]);
        assert_eq!(client.ask(3, &consume(b"c", b"b")), [1]);
        let all = values(200);
        let mut given = [Vec::new(), Vec::new(), Vec::new()];
        let mut read = |client: &mut crate::rig::NeoClient, pushed: &mut usize| {
            let (_, body) = client.read_frame();
            let id = u64::from_le_bytes(body[..8].try_into().unwrap());
            match records(&body[8..]) {
                Some(batch) => {
                    given[usize::try_from(id).unwrap() - 1].extend(batch);
                    client.message(id, CONTINUE);
                }
                None => *pushed += usize::from(body[8..] == [1]),
            }
            given.iter().map(Vec::len).sum::<usize>()
        };
        let mut pushed = 0;
        for (number, value) in all.iter().enumerate() {
            client.message(10 + number as u64, &push_payload(&[b"c"], value));
            let wanted = pushed + 1;
            while pushed < wanted {
                read(&mut client, &mut pushed);
            }
        }
        while read(&mut client, &mut pushed) < 2 * all.len() {}
        let number = |record: &Vec<u8>| all.iter().position(|value| value == record).unwrap();
        assert_eq!(given[0], all, "{durability:?}");
        assert!(given[1..].iter().all(|given| given.is_sorted_by_key(number)));
        let mut shared = given[1..].concat();
        shared.sort_by_key(number);
        assert_eq!(shared, all, "{durability:?}");
    }
}

/// What a producer has sent before its connection ends is there, whole records only.
#[test]
fn a_producer_that_dies_leaves_its_whole_records() {
    for durability in MODES {
        let node = Node::start(Setup::of(durability));
        let mut producer = produce(&node, &["c", "d"]);
        let all = values(20);
        let bytes = items(&all);
        producer.send(&bytes[..bytes.len() - 1]);
        drop(producer);
        eventually("nineteen records in both", || node.records() == 38);
        let mut client = node.legacy();
        assert_eq!(pop_all(&mut client, "c"), all[..19]);
        assert_eq!(pop_all(&mut client, "d"), all[..19]);
    }
}

/// A producer that waits for room is forgotten when its client goes; a second one gets the room.
#[test]
fn a_producer_that_dies_while_it_waits_leaves_the_room_to_others() {
    let node = Node::start(Setup { channel_size: 30, ..Setup::of(Durability::Memory) });
    let all = values(8);
    let mut first = produce(&node, &["c"]);
    first.send(&items(&all[..4]));
    eventually("the queue is full", || node.records() == 3);
    let mut second = produce(&node, &["c"]);
    second.send(&items(&all[4..]));
    drop(first);
    let mut client = node.legacy();
    let mut came = Vec::new();
    while !came.contains(&all[7]) {
        came.extend(Some(pop(&mut client, "c")).filter(|value| !value.is_empty()));
    }
    // The record for which the first one waited may have come or not.
    came.retain(|value| *value != all[3]);
    assert_eq!(came, [&all[..3], &all[4..]].concat());
}

/// Where the channel is removed under a producer that waits, it goes on with a new one.
#[test]
fn a_producer_goes_on_when_its_channel_is_removed() {
    let node = Node::start(Setup { channel_size: 30, ..Setup::of(Durability::Memory) });
    let all = values(6);
    let mut producer = produce(&node, &["c"]);
    producer.send(&items(&all));
    eventually("the queue is full", || node.records() == 3);
    let mut client = node.legacy();
    assert_eq!(client.ask(&Legacy::RemoveChannel { channel: b"c" }), Status::Ok);
    eventually("the rest is there", || node.records() == 3);
    producer.send(&[0; 8]);
    assert_eq!(pop_all(&mut client, "c"), all[3..]);
    push(&mut producer, "d", b"the connection is free");
}

/// The consumer whose turn it is stops just when the record comes: it has the record, or the next one gets it.
#[test]
fn a_push_and_a_stop_at_the_same_time_lose_no_record() {
    for durability in MODES {
        let node = Node::start(Setup::of(durability));
        for _ in 0..30 {
            let first = Consumer::start(&node, "c", "");
            let mut second = Consumer::start(&node, "c", "");
            let mut client = node.legacy();
            // The push and the Stop come to the node at about the same time.
            let mut request = Vec::new();
            Legacy::Push { channel: b"c", value: b"v" }.encode(&mut request);
            let mut first = first.client.connection;
            scope(|scope| {
                scope.spawn(|| client.send(&request));
                scope.spawn(|| first.send(&overstory_replay::client::message(1, STOP)));
            });
            assert_eq!(client.read_status(), Status::Ok);
            // The first one was given the record and took it over with its Stop, or the second one has it.
            let (kind, body) = (first.read(1)[0], first.read(9));
            let length = u64::from_le_bytes(body[..8].try_into().unwrap());
            let message = first.read(usize::try_from(length).unwrap());
            assert_eq!(kind, 1);
            if message[8..] == STOPPED {
                assert_eq!(second.batch(), [b"v"], "{durability:?}");
            } else {
                assert_eq!(records(&message[8..]).unwrap(), [b"v"]);
            }
            second.stop();
            drop(first);
            consumers(&node, 0);
            assert_eq!(node.records(), 0);
        }
    }
}

/// Channels come and go while others write to them and read from them: every request is answered, what one reader is
/// given is in order, and the node is as it was in the end.
#[test]
fn channels_are_removed_while_they_are_written_and_read() {
    for durability in MODES {
        let node = &Node::start(Setup { channel_size: 2000, ..Setup::of(durability) });
        let (stop, consumed) = (&AtomicBool::new(false), &AtomicBool::new(false));
        let until = |work: &dyn Fn(u64)| {
            (1..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(work);
        };
        scope(|scope| {
            scope.spawn(|| {
                let client = std::cell::RefCell::new(node.legacy());
                until(&|number| {
                    let value = number.to_string();
                    let status = with_names(&["c", "d"], |channels| {
                        client.borrow_mut().ask(&Legacy::PushMulti { channels, value: value.as_bytes() })
                    });
                    assert!(matches!(status, Status::Ok | Status::OutOfMemory), "{status:?}");
                });
            });
            scope.spawn(|| {
                let client = std::cell::RefCell::new(node.neo());
                until(&|number| drop(neo_pop(&mut client.borrow_mut(), number, "d")));
            });
            scope.spawn(|| {
                until(&|_| {
                    let mut client = consume(node, "c");
                    let mut last = 0;
                    loop {
                        let value = client.read_array();
                        if value.is_empty() {
                            return;
                        }
                        let number: u64 = String::from_utf8(value).unwrap().parse().unwrap();
                        assert!(number > last, "{number} after {last}");
                        last = number;
                    }
                });
                consumed.store(true, Ordering::Relaxed);
            });
            scope.spawn(|| {
                let client = std::cell::RefCell::new(node.legacy());
                let remove = |channel| {
                    assert_eq!(client.borrow_mut().ask(&Legacy::RemoveChannel { channel }), Status::Ok);
                };
                for round in 0..200 {
                    remove([&b"c"[..], b"d"][round % 2]);
                }
                stop.store(true, Ordering::Relaxed);
                // A consumer that has just begun is ended too.
                while !consumed.load(Ordering::Relaxed) {
                    remove(b"c");
                }
            });
        });
        let mut client = node.legacy();
        for channel in [&b"c"[..], b"d"] {
            assert_eq!(client.ask(&Legacy::RemoveChannel { channel }), Status::Ok);
        }
        assert_eq!((node.channels(), node.records()), (Vec::new(), 0));
    }
}

//! Whatever is asked in whatever order, with stops, crashes and dying consumers in between: the node gives what a list
//! would give.

use std::collections::BTreeMap;

use overstory_dmq::config::Durability;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;
use proptest::prelude::*;

use crate::rig::{Consumer, Node, Setup, consume, consumers, pop, pop_all, push, with_names};

const CHANNELS: [&str; 2] = ["small", "small_too"];
const SUBSCRIBERS: [&str; 2] = ["", "s"];

#[derive(Debug, Clone)]
enum Op {
    Push(usize, usize),
    PushBoth(usize),
    Pop(usize),
    /// Reads a batch and keeps it for now.
    Take(usize, usize),
    /// What becomes of a batch that is kept.
    Accept(usize),
    Die(usize),
    /// Accepts it and takes the next one, if there is one.
    GoOn(usize),
    /// A legacy consumer takes all that is there.
    Drain(usize),
    Remove(usize),
    Restart,
    /// Only where nothing may be lost then.
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let (channel, length, held) = (0..CHANNELS.len(), 1..60usize, 0..8usize);
    prop_oneof![
        12 => (channel.clone(), length.clone()).prop_map(|(channel, length)| Op::Push(channel, length)),
        6 => length.prop_map(Op::PushBoth),
        6 => channel.clone().prop_map(Op::Pop),
        6 => (channel.clone(), 0..SUBSCRIBERS.len()).prop_map(|(channel, subscriber)| Op::Take(channel, subscriber)),
        2 => held.clone().prop_map(Op::Accept),
        3 => held.clone().prop_map(Op::Die),
        3 => held.prop_map(Op::GoOn),
        1 => channel.clone().prop_map(Op::Drain),
        1 => channel.prop_map(Op::Remove),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
    ]
}

/// A queue's records by their numbers.
type Queue = BTreeMap<usize, Vec<u8>>;

/// A batch with its consumer.
struct Held {
    consumer: Consumer,
    channel: usize,
    subscriber: &'static str,
    records: Queue,
}

struct World {
    setup: Setup,
    node: Option<Node>,
    /// By channel and subscriber; a channel without subscribers has one queue, without a name.
    queues: Vec<BTreeMap<Option<&'static str>, Queue>>,
    held: Vec<Held>,
    pushed: usize,
    redeliver: bool,
    /// Where crashes have left the data.
    places: Vec<tempfile::TempDir>,
}

impl World {
    fn new(durability: Durability, redeliver: bool) -> Self {
        let place = tempfile::tempdir().unwrap();
        let channel_size = if durability == Durability::Memory { 1_000_000 } else { 150 };
        let setup = Setup { durability, redeliver: Some(redeliver), channel_size, ..Setup::at(place.path()) };
        let node = Some(Node::start(setup.clone()));
        let queues = vec![BTreeMap::new(); CHANNELS.len()];
        Self { setup, node, queues, held: Vec::new(), pushed: 0, redeliver, places: vec![place] }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn record(&mut self, length: usize) -> Vec<u8> {
        self.pushed += 1;
        format!("{}:{}", self.pushed, "x".repeat(length)).into_bytes()
    }

    fn note(&mut self, channel: usize, record: &[u8]) {
        let queues = &mut self.queues[channel];
        if queues.is_empty() {
            queues.insert(None, Queue::new());
        }
        queues.values_mut().for_each(|queue| drop(queue.insert(self.pushed, record.to_vec())));
    }

    fn subscribe(&mut self, channel: usize, subscriber: &'static str) {
        let queues = &mut self.queues[channel];
        let first = queues.remove(&None).unwrap_or_default();
        queues.entry(Some(subscriber)).or_insert(first);
    }

    fn queue(&mut self, channel: usize, subscriber: &'static str) -> &mut Queue {
        self.queues[channel].entry(Some(subscriber)).or_default()
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Push(channel, length) => {
                let record = self.record(length);
                push(&mut self.node().legacy(), CHANNELS[channel], &record);
                self.note(channel, &record);
            }
            Op::PushBoth(length) => {
                let record = self.record(length);
                let mut client = self.node().legacy();
                with_names(&CHANNELS, |channels| {
                    assert_eq!(client.ask(&Legacy::PushMulti { channels, value: &record }), Status::Ok);
                });
                (0..CHANNELS.len()).for_each(|channel| self.note(channel, &record));
            }
            Op::Pop(channel) => self.pop(channel),
            Op::Take(channel, subscriber) => self.take(channel, SUBSCRIBERS[subscriber]),
            Op::Accept(index) if index < self.held.len() => self.held.remove(index).consumer.stop(),
            Op::Die(index) if index < self.held.len() => self.die(index),
            Op::GoOn(index) if index < self.held.len() => self.go_on(index),
            Op::Drain(channel) => {
                self.subscribe(channel, "");
                let expected: Vec<_> = std::mem::take(self.queue(channel, "")).into_values().collect();
                let mut client = consume(self.node(), CHANNELS[channel]);
                expected.iter().for_each(|record| assert_eq!(client.read_array(), *record));
                drop(client);
                consumers(self.node(), self.held.len());
            }
            Op::Remove(channel) => {
                let name = CHANNELS[channel].as_bytes();
                assert_eq!(self.node().legacy().ask(&Legacy::RemoveChannel { channel: name }), Status::Ok);
                self.queues[channel].clear();
                let (gone, held) = std::mem::take(&mut self.held).into_iter().partition(|held| held.channel == channel);
                self.held = held;
                let gone: Vec<Held> = gone;
                for mut held in gone {
                    assert_eq!(held.consumer.client.read(held.consumer.id), [5]);
                }
            }
            Op::Restart => self.begin_again(None),
            Op::Crash if self.setup.durability == Durability::Journal => {
                let place = self.node().crash();
                self.begin_again(Some(place));
            }
            Op::Accept(_) | Op::Die(_) | Op::GoOn(_) | Op::Crash => {}
        }
    }

    fn pop(&mut self, channel: usize) {
        let mut client = self.node().legacy();
        if self.queues[channel].keys().any(Option::is_some) {
            assert_eq!(client.ask(&Legacy::Pop { channel: CHANNELS[channel].as_bytes() }), Status::Error);
            return;
        }
        let queue = self.queues[channel].get_mut(&None);
        let expected = queue.and_then(Queue::pop_first).map_or_else(Vec::new, |(_, record)| record);
        assert_eq!(pop(&mut client, CHANNELS[channel]), expected);
    }

    /// Compares a batch with the front of the queue, and takes it from there.
    fn taken(&mut self, channel: usize, subscriber: &'static str, batch: &[Vec<u8>]) -> Queue {
        assert!(!batch.is_empty());
        let queue = self.queue(channel, subscriber);
        let taken: Queue = (0..batch.len()).map_while(|_| queue.pop_first()).collect();
        assert!(taken.values().eq(batch), "{batch:?} instead of {taken:?}");
        taken
    }

    fn take(&mut self, channel: usize, subscriber: &'static str) {
        self.subscribe(channel, subscriber);
        let mut consumer = Consumer::start(self.node(), CHANNELS[channel], subscriber);
        if self.queue(channel, subscriber).is_empty() {
            return consumer.stop();
        }
        let records = self.taken(channel, subscriber, &consumer.batch());
        self.held.push(Held { consumer, channel, subscriber, records });
    }

    fn go_on(&mut self, index: usize) {
        let mut held = self.held.remove(index);
        if self.queue(held.channel, held.subscriber).is_empty() {
            return held.consumer.stop();
        }
        held.consumer.go_on();
        held.records = self.taken(held.channel, held.subscriber, &held.consumer.batch());
        self.held.push(held);
    }

    /// The connection of a consumer ends.
    fn die(&mut self, index: usize) {
        let held = self.held.remove(index);
        drop(held.consumer);
        if self.redeliver {
            self.queue(held.channel, held.subscriber).extend(held.records);
        }
        consumers(self.node(), self.held.len());
    }

    /// Starts the node again: after a stop, or with the data that a crash left.
    fn begin_again(&mut self, crashed: Option<tempfile::TempDir>) {
        self.node = None;
        for held in std::mem::take(&mut self.held) {
            if self.redeliver {
                self.queue(held.channel, held.subscriber).extend(held.records);
            }
        }
        if let Some(place) = crashed {
            self.setup.data = Some(place.path().to_owned());
            self.places.push(place);
        }
        self.node = Some(Node::start(self.setup.clone()));
        // A queue without records leaves no file: it, and its subscriber, may be gone.
        if self.setup.durability != Durability::Journal {
            for queues in &mut self.queues {
                queues.retain(|_, queue| !queue.is_empty());
            }
        }
    }

    /// What is left comes, and nothing else.
    fn finish(mut self) {
        for held in std::mem::take(&mut self.held) {
            held.consumer.stop();
        }
        for (queues, channel) in std::mem::take(&mut self.queues).into_iter().zip(CHANNELS) {
            for (subscriber, queue) in queues {
                let records: Vec<_> = queue.into_values().collect();
                let Some(subscriber) = subscriber else {
                    assert_eq!(pop_all(&mut self.node().legacy(), channel), records);
                    continue;
                };
                let mut consumer = Consumer::start(self.node(), channel, subscriber);
                if !records.is_empty() {
                    assert_eq!(consumer.read(records.len()), records);
                }
                consumer.stop();
            }
        }
        assert_eq!(self.node().records(), 0);
    }
}

fn play(durability: Durability, redeliver: bool, ops: &[Op]) {
    let mut world = World::new(durability, redeliver);
    ops.iter().for_each(|op| world.run(op));
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn in_memory(redeliver: bool, ops in prop::collection::vec(op(), 1..70)) {
        play(Durability::Memory, redeliver, &ops);
    }

    #[test]
    fn with_overflow(redeliver: bool, ops in prop::collection::vec(op(), 1..70)) {
        play(Durability::Overflow, redeliver, &ops);
    }

    #[test]
    fn with_the_journal(redeliver: bool, ops in prop::collection::vec(op(), 1..70)) {
        play(Durability::Journal, redeliver, &ops);
    }
}

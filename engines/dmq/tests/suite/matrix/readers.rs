//! Every way to read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::scope;

use overstory_replay::{PATIENCE, eventually};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;

use crate::rig::{Connection, Consumer, Node, consume, neo_pop, pop, records};

/// What each of the consumers of a subscriber was given.
pub(super) type Delivered = Vec<Vec<Vec<u8>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Pop,
    NeoPop,
    ConsumeBefore,
    ConsumeAfter,
    NeoConsumeBefore,
    NeoConsumeAfter,
    /// Two neo consumers of one subscriber.
    Shared,
    /// A legacy and a neo consumer of the subscriber without a name.
    SharedByBoth,
    /// Three subscribers, of both protocols.
    Subscribers,
    /// Takes a batch and does not say Continue before all is written; another subscriber goes on meanwhile.
    Suspended,
}

impl Reader {
    pub(super) const ALL: [Self; 10] = [
        Self::Pop,
        Self::NeoPop,
        Self::ConsumeBefore,
        Self::ConsumeAfter,
        Self::NeoConsumeBefore,
        Self::NeoConsumeAfter,
        Self::Shared,
        Self::SharedByBoth,
        Self::Subscribers,
        Self::Suspended,
    ];

    /// Begins to consume, if that comes before the records.
    pub(super) fn start(self, node: &Node, channel: &str) -> Reading {
        let neo = |subscriber| Consuming::Neo(Consumer::start(node, channel, subscriber));
        let legacy = || Consuming::Legacy(consume(node, channel));
        match self {
            Self::Pop | Self::NeoPop | Self::ConsumeAfter | Self::NeoConsumeAfter => Reading::Later(self),
            Self::ConsumeBefore => Reading::Consumers(vec![vec![legacy()]]),
            Self::NeoConsumeBefore => Reading::Consumers(vec![vec![neo("")]]),
            Self::Shared => Reading::Consumers(vec![vec![neo("s"), neo("s")]]),
            Self::SharedByBoth => Reading::Consumers(vec![vec![legacy(), neo("")]]),
            Self::Subscribers => Reading::Consumers(vec![vec![legacy()], vec![neo("a")], vec![neo("b")]]),
            Self::Suspended => Reading::Consumers(vec![
                vec![Consuming::Suspended(Consumer::start(node, channel, "suspended"))],
                vec![neo("other")],
            ]),
        }
    }
}

/// Three subscribers of one channel with several consumers each.
pub(super) fn crowd(node: &Node, channel: &str) -> Reading {
    let neo = |subscriber| Consuming::Neo(Consumer::start(node, channel, subscriber));
    let legacy = || Consuming::Legacy(consume(node, channel));
    let suspended = Consuming::Suspended(Consumer::start(node, channel, "suspended"));
    Reading::Consumers(vec![vec![legacy(), legacy(), neo("")], vec![neo("s"), neo("s"), neo("s")], vec![suspended]])
}

pub(super) enum Consuming {
    Legacy(Connection),
    Neo(Consumer),
    Suspended(Consumer),
}

pub(super) enum Reading {
    Later(Reader),
    /// By subscriber.
    Consumers(Vec<Vec<Consuming>>),
}

impl Reading {
    /// Reads what is expected, and whatever else comes. For each subscriber what its consumers were given.
    pub(super) fn read(self, node: &Node, channel: &str, count: usize, written: &OnceLock<()>) -> Vec<Delivered> {
        let consumers = match self {
            Self::Consumers(consumers) => consumers,
            Self::Later(Reader::ConsumeAfter) => vec![vec![Consuming::Legacy(consume(node, channel))]],
            Self::Later(Reader::NeoConsumeAfter) => vec![vec![Consuming::Neo(Consumer::start(node, channel, ""))]],
            Self::Later(pop) => return vec![pop_all(node, channel, count, &[pop])],
        };
        consume_all(node, channel, consumers, count, written)
    }
}

/// Clients pop a channel until they have so many records together, and then once more each.
pub(super) fn pop_all(node: &Node, channel: &str, count: usize, clients: &[Reader]) -> Delivered {
    let popped = &AtomicUsize::new(0);
    let until_all = |pop: &mut dyn FnMut() -> Option<Vec<u8>>| {
        let mut all = Vec::new();
        while popped.load(Ordering::Relaxed) < count {
            match pop() {
                None => std::thread::yield_now(),
                Some(value) => {
                    popped.fetch_add(1, Ordering::Relaxed);
                    all.push(value);
                }
            }
        }
        all.extend(pop());
        all
    };
    scope(|scope| {
        let start = |client: &Reader| match client {
            Reader::NeoPop => {
                let (mut client, mut id) = (node.neo(), 0);
                scope.spawn(move || {
                    until_all(&mut || {
                        id += 1;
                        neo_pop(&mut client, id, channel)
                    })
                })
            }
            _ => {
                let mut client = node.legacy();
                scope
                    .spawn(move || until_all(&mut || Some(pop(&mut client, channel)).filter(|value| !value.is_empty())))
            }
        };
        let clients: Vec<_> = clients.iter().map(start).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// Lets all consumers read until their subscribers have been given what was written, then removes the channel, which
/// ends them. What comes too often is there by then.
fn consume_all(
    node: &Node,
    channel: &str,
    subscribers: Vec<Vec<Consuming>>,
    count: usize,
    written: &OnceLock<()>,
) -> Vec<Delivered> {
    scope(|scope| {
        let mut counters = Vec::new();
        let mut running = Vec::new();
        for consumers in subscribers {
            // Room for each record twice: nobody waits for the counting side.
            let (came, comes) = sync_channel(2 * count);
            counters.push(comes);
            let threads = consumers.into_iter().map(|consuming| {
                let came = came.clone();
                scope.spawn(move || consuming.run(&came, written))
            });
            running.push(threads.collect::<Vec<_>>());
        }
        for comes in &counters {
            for number in 0..count {
                assert!(comes.recv_timeout(PATIENCE).is_ok(), "{channel}: there are {number} records only");
            }
        }
        drop(counters);
        eventually("the channel is empty", || {
            let channel = channel.to_owned();
            node.with(move |engine| {
                engine.store().borrow().channel_totals(&channel).is_some_and(|totals| totals.records == 0)
            })
        });
        assert_eq!(node.legacy().ask(&Legacy::RemoveChannel { channel: channel.as_bytes() }), Status::Ok);
        let join = |threads: Vec<std::thread::ScopedJoinHandle<'_, _>>| -> Delivered {
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        };
        running.into_iter().map(join).collect()
    })
}

impl Consuming {
    /// Reads until the channel is removed.
    fn run(self, came: &SyncSender<()>, written: &OnceLock<()>) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        // The counting side is gone when it has seen enough.
        let count = |records: usize| {
            (0..records).for_each(|_| {
                let _ = came.send(());
            });
        };
        let (mut consumer, mut suspended) = match self {
            Self::Legacy(mut client) => loop {
                let value = client.read_array();
                if value.is_empty() {
                    return all;
                }
                all.push(value);
                count(1);
            },
            Self::Neo(consumer) => (consumer, false),
            Self::Suspended(consumer) => (consumer, true),
        };
        loop {
            let message = consumer.client.read(consumer.id);
            let Some(batch) = records(&message) else {
                assert_eq!(message, [5], "the channel is removed");
                return all;
            };
            assert!(!batch.is_empty());
            if std::mem::take(&mut suspended) {
                written.wait();
            }
            count(batch.len());
            all.extend(batch);
            consumer.go_on();
        }
    }
}

//! Queue nodes on free ports, opened and closed as the program does it.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use overstory_dmq::config::{DmqSettings, Durability, Thresholds};
use overstory_dmq::dmqnode::DmqNode;
use overstory_dmq::engine::DmqEngine;
use overstory_node::app::{NodeContext, NodeProgram};
use overstory_node::stats::NodeStats;
use overstory_replay::{Host, Request, eventually};
use overstory_runtime::Shutdown;
use overstory_swarm::legacy::dmq::Request as Legacy;
use overstory_swarm::legacy::{Names, Status};
use overstory_swarm::neo::dmq::{Channels, ConsumeMessage, PopReply, Records, Request as Neo};
use tempfile::TempDir;

pub(crate) use overstory_replay::{Connection, NeoClient};

pub(crate) const MODES: [Durability; 3] = [Durability::Memory, Durability::Overflow, Durability::Journal];

/// What a node has to be asked with: supported.
const SUPPORTED: [u8; 1] = [0xfd];

/// How a node is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub durability: Durability,
    /// As the mode has it by default, unless said.
    pub redeliver: Option<bool>,
    /// Bytes of a queue in memory.
    pub channel_size: u64,
    /// The same for channels whose name begins with this.
    pub channel_sizes: Vec<(&'static str, u64)>,
    /// Where the data is; in a place of its own unless said.
    pub data: Option<PathBuf>,
    /// Records that are there from the beginning.
    pub records: Vec<(String, Vec<u8>)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            durability: Durability::Overflow,
            redeliver: None,
            channel_size: 10_000_000,
            channel_sizes: Vec::new(),
            data: None,
            records: Vec::new(),
        }
    }
}

impl Setup {
    pub(crate) fn of(durability: Durability) -> Self {
        Self { durability, ..Self::default() }
    }

    pub(crate) fn at(data: &Path) -> Self {
        Self { data: Some(data.to_owned()), ..Self::default() }
    }

    fn settings(&self) -> DmqSettings {
        DmqSettings {
            cpu: None,
            channel_size: self.channel_size,
            channel_sizes: self.channel_sizes.iter().map(|(prefix, size)| ((*prefix).to_owned(), *size)).collect(),
            durability: self.durability,
            redeliver: self.redeliver.unwrap_or(self.durability == Durability::Journal),
            write_index: Duration::from_millis(20),
            segment_bytes: 1 << 20,
            thresholds: Thresholds::default(),
        }
    }
}

/// How the engine begins and ends.
struct Dmq {
    setup: Setup,
    data: PathBuf,
}

impl Host for Dmq {
    type Engine = DmqEngine;

    async fn start(&mut self, stats: Rc<NodeStats>, shutdown: Shutdown) -> Rc<DmqEngine> {
        let context = NodeContext {
            stats,
            shutdown,
            config_file: PathBuf::new(),
            address: Ipv4Addr::LOCALHOST,
            port: 22_000,
            neo_port: 22_001,
            data_dir: self.data.clone(),
            instance: "test".to_owned(),
        };
        let engine = DmqNode::open(self.setup.settings(), context).await.expect("a node that opens");
        for (channel, record) in &self.setup.records {
            engine.store().borrow_mut().push(channel, record).unwrap();
        }
        engine
    }

    async fn stop(self, engine: Rc<DmqEngine>) {
        DmqNode::close(engine).await.expect("a node that saves everything");
    }
}

/// A node on a thread of its own; dropping it stops it in order.
pub(crate) struct Node {
    node: overstory_replay::Node<DmqEngine>,
    pub data: PathBuf,
    place: Option<TempDir>,
}

impl Deref for Node {
    type Target = overstory_replay::Node<DmqEngine>;

    fn deref(&self) -> &Self::Target {
        &self.node
    }
}

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let place = setup.data.is_none().then(|| tempfile::tempdir().unwrap());
        let data = place.as_ref().map_or_else(|| setup.data.clone().unwrap(), |place| place.path().join("data"));
        let node = overstory_replay::Node::start(Dmq { setup, data: data.clone() });
        Self { node, data, place }
    }

    /// Stops it, and gives the place of the data if it is one of its own.
    pub(crate) fn stop(self) -> Option<TempDir> {
        let Self { node, place, .. } = self;
        drop(node);
        place
    }

    pub(crate) fn legacy(&self) -> Connection {
        Connection::open(self.legacy)
    }

    pub(crate) fn neo(&self) -> NeoClient {
        NeoClient::open(self, "test")
    }

    /// The channels, by name.
    pub(crate) fn channels(&self) -> Vec<String> {
        self.with(|engine| {
            let mut names = Vec::new();
            engine.store().borrow().channels(None, &mut |name, _| {
                names.push(name.to_owned());
                std::ops::ControlFlow::Continue(())
            });
            names
        })
    }

    /// Records in all queues.
    pub(crate) fn records(&self) -> u64 {
        self.with(|engine| {
            let totals = engine.store().borrow().totals();
            totals.records_memory + totals.records_overflow
        })
    }

    /// A copy of the data as a crash would leave it at this moment.
    pub(crate) fn crash(&self) -> TempDir {
        let place = tempfile::tempdir().unwrap();
        copy(&self.data, place.path());
        place
    }
}

/// Copies a directory.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The names of the files in a directory.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn push(client: &mut Connection, channel: &str, value: &[u8]) {
    assert_eq!(client.ask(&Legacy::Push { channel: channel.as_bytes(), value }), Status::Ok, "push to {channel}");
}

/// Pops a record by legacy; nothing if there is none.
pub(crate) fn pop(client: &mut Connection, channel: &str) -> Vec<u8> {
    assert_eq!(client.ask(&Legacy::Pop { channel: channel.as_bytes() }), Status::Ok, "pop of {channel}");
    client.read_array()
}

/// Pops all that a channel has.
pub(crate) fn pop_all(client: &mut Connection, channel: &str) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| Some(pop(client, channel)).filter(|value| !value.is_empty())).collect()
}

/// A legacy consumer that has begun.
pub(crate) fn consume(node: &Node, channel: &str) -> Connection {
    let mut client = node.legacy();
    assert_eq!(client.ask(&Legacy::Consume { channel: channel.as_bytes() }), Status::Ok, "consume of {channel}");
    client
}

/// Waits until the node knows that so many consumers are left.
pub(crate) fn consumers(node: &Node, count: usize) {
    eventually("the consumer is gone", || {
        let consumers = node.with(|engine| {
            let mut consumers = 0;
            engine.store().borrow().queues(None, &mut |_, totals| {
                consumers += totals.consumers;
                std::ops::ControlFlow::Continue(())
            });
            consumers
        });
        consumers == count
    });
}

/// The names of channels, as requests carry them.
pub(crate) fn with_names<T>(channels: &[&str], then: impl FnOnce(Names<'_>) -> T) -> T {
    let mut buffer = Vec::new();
    then(Names::new(channels.iter().map(|name| name.as_bytes()), &mut buffer))
}

/// A neo Push as it is sent.
pub(crate) fn push_payload(channels: &[&[u8]], value: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let channels = Channels::new(channels.iter().copied(), &mut buffer).unwrap();
    let mut payload = Vec::new();
    Neo::Push { channels, value }.write(&mut payload);
    payload
}

/// Begins a request from its payload, and gives what follows "supported".
pub(crate) fn ask(client: &mut NeoClient, id: u64, payload: &[u8]) -> Vec<u8> {
    client.message(id, payload);
    assert_eq!(client.read(id), SUPPORTED);
    client.read(id)
}

pub(crate) fn neo_push(client: &mut NeoClient, id: u64, channels: &[&str], value: &[u8]) {
    let names: Vec<_> = channels.iter().map(|name| name.as_bytes()).collect();
    assert_eq!(ask(client, id, &push_payload(&names, value)), [1], "push to {channels:?}");
}

/// Pops a record by neo; nothing if there is none.
pub(crate) fn neo_pop(client: &mut NeoClient, id: u64, channel: &str) -> Option<Vec<u8>> {
    let reply = client.ask(id, &Neo::Pop { channel: channel.as_bytes() });
    match PopReply::decode(&reply).unwrap() {
        PopReply::Popped(value) => Some(value.to_vec()),
        PopReply::Empty => None,
        other => panic!("pop of {channel}: {other:?}"),
    }
}

pub(crate) const CONTINUE: &[u8] = &[1];
pub(crate) const STOP: &[u8] = &[2];
pub(crate) const STOPPED: [u8; 1] = [4];

/// A neo Consume that has started.
pub(crate) struct Consumer {
    pub client: NeoClient,
    pub id: u64,
}

impl Consumer {
    pub(crate) fn start(node: &Node, channel: &str, subscriber: &str) -> Self {
        let mut client = node.neo();
        let request = Neo::Consume { channel: channel.as_bytes(), subscriber: subscriber.as_bytes() };
        assert_eq!(client.ask(1, &request), [1], "consume of {channel} by {subscriber}");
        Self { client, id: 1 }
    }

    /// Reads the records of the next batch, which is not taken over yet.
    pub(crate) fn batch(&mut self) -> Vec<Vec<u8>> {
        records(&self.client.read(self.id)).expect("a batch")
    }

    pub(crate) fn go_on(&mut self) {
        self.client.message(self.id, CONTINUE);
    }

    /// Takes over what was read last, and ends.
    pub(crate) fn stop(mut self) {
        self.client.message(self.id, STOP);
        assert_eq!(self.client.read(self.id), STOPPED);
    }

    /// Reads so many records, or more if the last batch has more. All but the last batch are taken over.
    pub(crate) fn read(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut all = self.batch();
        while all.len() < count {
            self.go_on();
            all.extend(self.batch());
        }
        all
    }
}

/// The records of a batch, if the message is one.
pub(crate) fn records(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    match ConsumeMessage::decode(message) {
        Ok(ConsumeMessage::Records(batch)) => {
            Some(Records::new(batch).map(|record| record.unwrap().to_vec()).collect())
        }
        _ => None,
    }
}

/// Values that tell their place: `v0`, `v1`...
pub(crate) fn values(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("v{number}").into_bytes()).collect()
}

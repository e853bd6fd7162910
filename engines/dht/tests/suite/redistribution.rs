//! Nodes join under load: nothing is lost, doubled or overtaken.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::scope;

use overstory_client::{ClientConfig, DhtClient, Identity, Registry};
use overstory_swarm::auth::ClientKey;
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::dht::Request as Legacy;
use overstory_swarm::legacy::{Limits, NodeAddress, NodeRange, Ranges, Status};
use overstory_swarm::neo::dht::{GetReply, PutReply, RemoveReply, Request as Neo};

use crate::rig::{Connection, Effect, NeoClient, Node, Setup, eventually};

const CHANNEL: &[u8] = b"c";

fn range(min: u64, max: u64) -> HashRange {
    HashRange::new(min, max).unwrap()
}

const MIDDLE: u64 = 1 << 63;
const THREE_QUARTERS: u64 = MIDDLE + (MIDDLE >> 1);

fn request(own: HashRange, targets: &[(SocketAddrV4, HashRange)]) -> Vec<u8> {
    let addresses: Vec<String> = targets.iter().map(|(address, _)| address.ip().to_string()).collect();
    let nodes = targets.iter().zip(&addresses).map(|((address, range), text)| NodeRange {
        node: NodeAddress { address: text.as_bytes(), port: address.port() },
        min: range.min(),
        max: range.max(),
    });
    let mut buffer = Vec::new();
    let nodes = Ranges::new(nodes, &mut buffer);
    let mut request = Vec::new();
    Legacy::Redistribute { min: own.min(), max: own.max(), nodes }.encode(&mut request);
    request
}

fn redistribute(node: &Node, own: HashRange, targets: &[(SocketAddrV4, HashRange)]) -> Status {
    let mut client = Connection::open(node.legacy);
    client.send(&request(own, targets));
    client.read_status()
}

/// A client of several nodes that does as the published one: puts go to the newest node, reads from the newest to the
/// oldest, removals from the oldest to the newest.
struct Client {
    nodes: Vec<NeoClient>,
    id: u64,
}

impl Client {
    fn open(nodes: &[&Node]) -> Self {
        Self { nodes: nodes.iter().map(|node| NeoClient::open(node, "test")).collect(), id: 0 }
    }

    fn ask(&mut self, node: usize, request: &Neo<'_>) -> Vec<u8> {
        self.id += 1;
        self.nodes[node].ask(self.id, request)
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        // The node that had everything is asked first, as by a client that does not know of the others yet.
        let request = Neo::Put { channel: CHANNEL, key: Key(key), value };
        for node in 0..self.nodes.len() {
            match self.ask(node, &request)[..] {
                [byte] if byte == PutReply::Put.code() => return,
                [byte] if byte == PutReply::WrongNode.code() => {}
                ref other => panic!("{other:?}"),
            }
        }
        panic!("no node takes key {key}");
    }

    fn get(&mut self, key: u64) -> Option<Vec<u8>> {
        let request = Neo::Get { channel: CHANNEL, key: Key(key) };
        for node in (0..self.nodes.len()).rev() {
            if self.ask(node, &request) == [GetReply::Got.code()] {
                let id = self.id;
                return Some(self.nodes[node].read(id)[8..].to_vec());
            }
        }
        None
    }

    fn remove(&mut self, key: u64) {
        for node in 0..self.nodes.len() {
            let reply = self.ask(node, &Neo::Remove { channel: CHANNEL, key: Key(key) });
            assert_ne!(reply, [RemoveReply::Error.code()]);
        }
    }
}

/// Puts, gets and removes, tells when it has begun, and goes on until told to stop; gives what must be there then.
fn load(nodes: &[&Node], keys: &[u64], seed: u64, begun: SyncSender<()>, stop: &AtomicBool) -> BTreeMap<u64, Vec<u8>> {
    let mut client = Client::open(nodes);
    let mut model: BTreeMap<u64, Vec<u8>> = keys.iter().map(|key| (*key, first_value(*key))).collect();
    let mut random = seed | 1;
    let mut rounds = 0u64;
    let mut begun = Some(begun);
    while !stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = keys[usize::try_from(random >> 33).unwrap() % keys.len()];
        rounds += 1;
        match random % 8 {
            0 => {
                client.remove(key);
                model.remove(&key);
            }
            1..=4 => {
                let value = format!("round {rounds} of {seed}").into_bytes();
                client.put(key, &value);
                model.insert(key, value);
            }
            _ => assert_eq!(client.get(key).as_ref(), model.get(&key), "key {key:#x}"),
        }
        if let Some(begun) = begun.take() {
            begun.send(()).unwrap();
        }
    }
    model
}

/// Ends the loads, also when the test fails: it waits for them.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn first_value(key: u64) -> Vec<u8> {
    format!("first value of {key}").into_bytes()
}

fn keys() -> Vec<u64> {
    (0..30_000u64).map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

fn full(keys: &[u64]) -> Setup {
    let records = keys.iter().map(|key| ("c".to_owned(), *key, first_value(*key))).collect();
    Setup { records, ..Setup::default() }
}

/// Redistributes over `targets` while four clients work, and compares all nodes with what the clients know.
fn under_load(own: HashRange, targets: &[HashRange]) {
    let keys = keys();
    let node = Node::start(full(&keys));
    let others: Vec<Node> =
        targets.iter().map(|range| Node::start(Setup { range: *range, ..Setup::default() })).collect();
    let all: Vec<&Node> = std::iter::once(&node).chain(&others).collect();
    let to: Vec<_> = others.iter().map(|other| other.legacy).zip(targets.iter().copied()).collect();
    let stop = AtomicBool::new(false);
    let model: BTreeMap<u64, Vec<u8>> = scope(|scope| {
        let ending = Ending(&stop);
        let (begun, is_begun) = sync_channel(4);
        let loads: Vec<_> = (0..4usize)
            .map(|part| {
                let own: Vec<u64> = keys.iter().copied().skip(part).step_by(4).collect();
                let (all, begun, stop) = (&all, begun.clone(), &stop);
                scope.spawn(move || load(all, &own, part as u64 + 1, begun, stop))
            })
            .collect();
        drop(begun);
        assert_eq!(is_begun.iter().count(), loads.len(), "a client has failed");
        assert_eq!(redistribute(&node, own, &to), Status::Ok);
        drop(ending);
        loads.into_iter().flat_map(|load| load.join().unwrap()).collect()
    });
    let mut found = Vec::new();
    for (node, range) in all.iter().zip(std::iter::once(&own).chain(targets)) {
        let records = node.records("c");
        assert!(records.iter().all(|(key, _)| range.contains(Key(*key))), "a record is outside of {range}");
        found.extend(records);
    }
    found.sort();
    assert_eq!(found.len(), model.len());
    assert!(found.into_iter().eq(model));
    assert_eq!(node.effects(), [Effect::SavedRange(own)]);
}

#[test]
fn a_second_node_joins_under_load() {
    under_load(range(0, MIDDLE - 1), &[range(MIDDLE, u64::MAX)]);
}

#[test]
fn two_nodes_join_under_load() {
    under_load(range(0, MIDDLE - 1), &[range(MIDDLE, THREE_QUARTERS - 1), range(THREE_QUARTERS, u64::MAX)]);
}

#[test]
fn a_node_gives_everything_away() {
    under_load(HashRange::EMPTY, &[range(0, MIDDLE - 1), range(MIDDLE, u64::MAX)]);
}

/// The published node overwrites what the new node was given meanwhile with the older value of the batch.
#[test]
fn a_batch_does_not_overtake_a_newer_value() {
    let node = Node::start(Setup { records: vec![("c".into(), 1, b"old".to_vec())], ..Setup::default() });
    let upper = range(MIDDLE, u64::MAX);
    let records = vec![("c".into(), 1, b"new".to_vec())];
    let other = Node::start(Setup { range: upper, records, ..Setup::default() });
    assert_eq!(redistribute(&node, range(0, MIDDLE - 1), &[(other.legacy, upper)]), Status::Ok);
    assert_eq!((node.records("c"), other.records("c")), (vec![], vec![(1, b"new".to_vec())]));
}

/// After a crash in the middle: the dump has everything again, the range in the configuration is the new one, a part
/// has moved and changed since. Everything is served, and asking again finishes.
#[test]
fn a_redistribution_is_finished_after_a_crash() {
    let keys = keys();
    let (own, upper) = (range(0, MIDDLE - 1), range(MIDDLE, u64::MAX));
    let restarted = Node::start(Setup { range: own, ..full(&keys) });
    let moved: Vec<_> = keys.iter().filter(|key| upper.contains(Key(**key))).take(5000).collect();
    let records = moved.iter().map(|key| ("c".to_owned(), **key, b"changed since".to_vec())).collect();
    let other = Node::start(Setup { range: upper, records, ..Setup::default() });
    let mut client = Client::open(&[&restarted, &other]);
    for key in keys.iter().step_by(97) {
        assert!(client.get(*key).is_some());
    }
    assert_eq!(redistribute(&restarted, own, &[(other.legacy, upper)]), Status::Ok);
    let mut found = restarted.records("c");
    found.extend(other.records("c"));
    found.sort();
    let value = |key: &u64| if moved.contains(&key) { b"changed since".to_vec() } else { first_value(*key) };
    let mut expected: Vec<_> = keys.iter().map(|key| (*key, value(key))).collect();
    expected.sort();
    assert!(found == expected);
}

/// Values that no batch of 64 KiB has room for move as well.
#[test]
fn the_longest_values_move() {
    let long = vec![b'x'; 65_512];
    let records = vec![("c".into(), 1, long.clone()), ("c".into(), 3, b"short".to_vec())];
    let node = Node::start(Setup { records, ..Setup::default() });
    let upper = range(MIDDLE, u64::MAX);
    let other = Node::start(Setup { range: upper, ..Setup::default() });
    assert_eq!(redistribute(&node, range(0, MIDDLE - 1), &[(other.legacy, upper)]), Status::Ok);
    assert_eq!(node.records("c"), []);
    assert_eq!(other.records("c"), [(1, long), (3, b"short".to_vec())]);
}

#[test]
fn a_redistribution_that_cannot_be_right_is_refused() {
    let node = Node::start(Setup::default());
    let lower = range(0, MIDDLE - 1);
    let somewhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    for (own, targets) in [
        (lower, vec![(somewhere, range(MIDDLE - 1, u64::MAX))]),
        (lower, vec![(somewhere, range(MIDDLE, u64::MAX)), (somewhere, range(u64::MAX, u64::MAX))]),
        (lower, vec![(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), range(MIDDLE, u64::MAX))]),
        (lower, vec![(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 21_000), range(MIDDLE, u64::MAX))]),
    ] {
        assert_eq!(redistribute(&node, own, &targets), Status::Error, "{own} {targets:?}");
    }
    for address in [&b"localhost"[..], b"256.0.0.1", b"\xff"] {
        let mut buffer = Vec::new();
        let node_range = NodeRange { node: NodeAddress { address, port: 1 }, min: MIDDLE, max: u64::MAX };
        let nodes = Ranges::new([node_range], &mut buffer);
        let status = Connection::open(node.legacy).ask(&Legacy::Redistribute { min: 0, max: MIDDLE - 1, nodes });
        assert_eq!(status, Status::Error, "{address:?}");
    }
    assert_eq!(node.with(|engine| engine.range()), HashRange::FULL);
    assert_eq!(node.effects(), []);
}

/// A node that answers batches as the test says.
struct Target {
    listener: TcpListener,
    range: HashRange,
}

impl Target {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { listener, range: range(MIDDLE, u64::MAX) }
    }

    fn to(&self) -> (SocketAddrV4, HashRange) {
        let port = self.listener.local_addr().unwrap().port();
        (SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), self.range)
    }

    fn accept(&self) -> Connection {
        Connection::of(self.listener.accept().unwrap().0)
    }

    /// Reads a PutBatch; its bytes.
    fn read_batch(connection: &mut Connection) -> Vec<u8> {
        let mut bytes = connection.read(4);
        for _ in 0..2 {
            let array = connection.read_array();
            bytes.extend((array.len() as u64).to_le_bytes());
            bytes.extend(array);
        }
        let decoded = overstory_swarm::legacy::dht::decode(&bytes, &Limits::DEFAULT).unwrap();
        let request = matches!(
            decoded,
            overstory_swarm::legacy::dht::Decoded::Request { request: Legacy::PutBatch { channel: CHANNEL, .. }, .. }
        );
        assert!(request);
        bytes
    }
}

/// What moves, and is still served, while the new node has not answered: a removal waits for that answer, so that the
/// client's removal at the new node comes after the record. Only one redistribution runs at a time, and batches of
/// others may fill the node by a tenth only.
#[test]
fn what_is_on_its_way_is_served_and_removed_in_order() {
    let records = (0..100u64).map(|key| ("c".to_owned(), key, vec![b'x'; 100])).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let target = Target::new();
    let mut asker = Connection::open(node.legacy);
    let mut watcher = NeoClient::open(&node, "test");
    assert_eq!(watcher.ask(1, &Neo::GetHashRange).len(), 16);
    asker.send(&request(range(0, MIDDLE - 1), &[target.to()]));
    let mut connection = target.accept();
    let batch = Target::read_batch(&mut connection);
    assert_eq!(watcher.read(1)[0], 2);
    assert_eq!(watcher.read(1)[0], 1);

    // One that comes now is told the same.
    let mut late = NeoClient::open(&node, "test");
    assert_eq!(late.ask(1, &Neo::GetHashRange), limits(HashRange::FULL));
    let (change, new_node) = (late.read(1), late.read(1));
    assert_eq!((change[0], &change[1..]), (2, &limits(range(0, MIDDLE - 1))[..]));
    assert_eq!((new_node[0], &new_node[7..]), (1, &limits(target.range)[..]));
    assert!(late.connection.is_silent());

    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &Neo::Exists { channel: CHANNEL, key: Key(1) }), [1]);
    assert_eq!(client.ask(2, &Neo::Put { channel: CHANNEL, key: Key(1), value: b"v" }), [2]);
    client.begin(3, &Neo::Remove { channel: CHANNEL, key: Key(1) });
    assert_eq!(client.read(3), [0xfd]);
    assert!(client.connection.is_silent());
    assert_eq!(client.ask(4, &Neo::Exists { channel: CHANNEL, key: Key(1) }), [3]);

    assert_eq!(redistribute(&node, range(0, MIDDLE - 1), &[]), Status::Error);
    assert_eq!(put_batch(&node, 1000, 5), Status::Ok);
    assert_eq!(put_batch(&node, 2000, 20), Status::OutOfMemory);

    connection.send(&200i32.to_le_bytes());
    assert_eq!(client.read(3), [2]);
    assert_eq!(asker.read_status(), Status::Ok);
    assert_eq!(client.ask(5, &Neo::GetHashRange), limits(range(0, MIDDLE - 1)));
    assert!(client.connection.is_silent());
    assert_eq!(put_batch(&node, 3000, 20), Status::Ok);
    assert!(node.records("c").iter().all(|(key, _)| key % 2 == 0));
    drop(batch);
}

/// Sends a batch of records with even keys.
fn put_batch(node: &Node, from: u64, count: u64) -> Status {
    let mut builder = overstory_swarm::batch::BatchBuilder::new(65_536);
    for key in from..from + count {
        assert_eq!(builder.pair(&Key(key * 2).hex16(), &[b'x'; 100]), overstory_swarm::batch::Added::Yes);
    }
    let mut batch = Vec::new();
    builder.finish(&mut batch);
    Connection::open(node.legacy).ask(&Legacy::PutBatch { channel: CHANNEL, batch: &batch })
}

/// The new node refuses, then its answer is lost: the same batch comes again each time, by the same connection while there
/// is one, and nothing is removed before an answer has come. The client that asked has long gone.
#[test]
fn failures_are_tried_again_without_the_client() {
    let records = (0..50u64).map(|key| ("c".to_owned(), key, first_value(key))).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let target = Target::new();
    let mut asker = Connection::open(node.legacy);
    asker.send(&request(range(0, MIDDLE - 1), &[target.to()]));
    let mut connection = target.accept();
    let first = Target::read_batch(&mut connection);
    drop(asker);
    connection.send(&407i32.to_le_bytes());
    assert!(Target::read_batch(&mut connection) == first);
    assert_eq!(node.records("c").len(), 50);
    drop(connection);
    let mut connection = target.accept();
    assert!(Target::read_batch(&mut connection) == first);
    connection.send(&200i32.to_le_bytes());
    eventually("the redistribution ends", || !node.with(|engine| engine.redistributing()));
    let left: Vec<u64> = node.records("c").into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, (0..50).step_by(2).collect::<Vec<_>>());
}

/// A client that connects in the middle is told what the others were told: it finds what has not moved yet, and what it
/// removes stays removed. The new node is full in the middle, until some of it is removed.
#[test]
fn a_client_that_connects_in_the_middle_finds_and_removes_everything() {
    const COUNT: usize = 10_000;
    let keys = &keys()[..COUNT];
    let value = |key: u64| format!("{key:400}").into_bytes();
    let records = keys.iter().map(|key| ("c".to_owned(), *key, value(*key))).collect();
    let node = Node::start(Setup { records, real: true, ..Setup::default() });
    let (own, upper) = (range(0, MIDDLE - 1), range(MIDDLE, u64::MAX));
    let other = Node::start(Setup { range: upper, size_limit: 1_700_000, real: true, ..Setup::default() });
    let mut asker = Connection::open(node.legacy);
    asker.send(&request(own, &[(other.legacy, upper)]));
    eventually("records move", || other.records("c").len() > 1000);

    let mut registry = Registry::new();
    [&node, &other].into_iter().for_each(|node| registry.add(node.neo).unwrap());
    let identity = Identity { name: "test".to_owned(), key: ClientKey([0; 128]) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let client = DhtClient::connect(ClientConfig::neo(registry, identity)).await.unwrap();
        for key in keys.iter().step_by(3) {
            assert_eq!(client.get("c", Key(*key)).await.unwrap(), Some(value(*key)), "key {key:#x}");
        }
        client
    });
    assert!(node.with(|engine| engine.redistributing()), "the new node is full");
    runtime.block_on(async {
        for key in keys.iter().skip(1).step_by(2).chain(keys.iter().step_by(4)) {
            assert!(client.remove("c", Key(*key)).await.unwrap(), "key {key:#x}");
            assert_eq!(client.get("c", Key(*key)).await.unwrap(), None, "key {key:#x}");
        }
    });
    assert_eq!(asker.read_status(), Status::Ok);
    let mut found = node.records("c");
    assert!(found.iter().all(|(key, _)| own.contains(Key(*key))));
    found.extend(other.records("c"));
    found.sort();
    let mut expected: Vec<_> = keys.iter().skip(2).step_by(4).map(|key| (*key, value(*key))).collect();
    expected.sort();
    assert!(found == expected);
}

fn limits(range: HashRange) -> Vec<u8> {
    [range.min().to_le_bytes(), range.max().to_le_bytes()].concat()
}

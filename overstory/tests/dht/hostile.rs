//! Clients that mean no good, on both ports: each is refused with its status, memory is bounded, others are served.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use overstory_replay::{Connection, NeoClient, system_time};
use overstory_swarm::auth::{ClientKey, code};
use overstory_swarm::batch::BatchBuilder;
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request as LegacyRequest;
use overstory_swarm::neo::dht::{GetAll, Request as NeoRequest, UpdateStart};
use overstory_swarm::neo::frame::{self, Kind};
use overstory_testkit::node::{NodeInstance, NodeProcess, ZERO_KEY, until};
use overstory_testkit::trouble::{logged, random};

use super::client::{Legacy, admin};
use super::rig::{instance, put_all, read_dump, records, value};

/// Lengths that no honest client sends.
const LENGTHS: [u64; 4] = [1 << 63, u64::MAX, (1 << 63) + 8, 65 << 20];

/// A client that has done nothing wrong, of each protocol, and its node's memory.
struct Witness {
    legacy: Legacy,
    neo: NeoClient,
    asked: u64,
    before: u64,
    log: PathBuf,
}

impl Drop for Witness {
    /// No request has made anything panic, which would be logged.
    fn drop(&mut self) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        assert!(std::thread::panicking() || !log.contains(" Fatal "), "{log}");
    }
}

impl Witness {
    fn of(node: &NodeInstance, process: &NodeProcess) -> Self {
        let mut witness =
            Self { legacy: Legacy::to(node), neo: admin(node), asked: 0, before: 0, log: node.path("log/root.log") };
        witness.is_served();
        witness.before = process.pss_kib();
        witness
    }

    /// Is served on the connections it has.
    fn is_served(&mut self) {
        self.asked += 1;
        let value = value(self.asked, 7);
        assert_eq!(self.legacy.put("witness", self.asked, &value), Status::Ok);
        let get = NeoRequest::Get { channel: b"witness", key: Key(self.asked) };
        self.neo.begin(self.asked, &get);
        assert_eq!((self.neo.read(self.asked), self.neo.read(self.asked)), (vec![0xfd], vec![2]));
        assert_eq!(self.neo.read(self.asked)[8..], value);
    }

    /// The node has taken no more than this since.
    fn memory_is_bounded(&self, process: &NodeProcess, mib: u64) {
        let now = process.pss_kib();
        assert!(now <= self.before + mib * 1024, "{} KiB, {} KiB before", now, self.before);
    }
}

fn array(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

#[test]
fn five_thousand_idle_connections_cost_little_and_those_above_the_limit_are_refused() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(6000.min(hard)), hard).unwrap();
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    // Not one of them says anything; some of them have said half of something.
    let mut idle: Vec<Connection> = (0..4996).map(|_| Connection::open(node.legacy)).collect();
    for (index, connection) in idle.iter_mut().enumerate().filter(|(index, _)| index % 10 == 0) {
        connection.send(&array(b"half a request")[..index % 13]);
    }
    until("all are accepted", || node.metric("overstory_node_connections{protocol=\"legacy\"}") == Some(4997.0));
    witness.is_served();
    witness.memory_is_bounded(&process, 32);
    // Who has said nothing for a second may have to make room; who has begun a request has half a minute.
    let mut said = 0.0;
    for (index, connection) in idle.iter_mut().enumerate() {
        said += if index % 10 == 0 { (index % 13) as f64 } else { 3.0 };
        if index % 10 > 0 || index % 13 == 0 {
            connection.send(&array(b"half a request")[..3]);
        }
    }
    until("they are heard", || node.metric("overstory_node_received_bytes_total") >= Some(said));
    // Two places are left: for strangers, who make room for each other and for clients.
    let mut strangers: Vec<Connection> = (0..4).map(|_| Connection::open(node.neo)).collect();
    assert_eq!((strangers[0].until_closed(), strangers[1].until_closed()), (vec![], vec![]));
    let (mut one, mut two) = (Legacy::to(&node), Legacy::to(&node));
    assert_eq!((one.size(), two.size()), (2, 2));
    assert_eq!((strangers[2].until_closed(), strangers[3].until_closed()), (vec![], vec![]));
    for address in [node.legacy, node.neo] {
        assert_eq!(Connection::open(address).until_closed(), b"", "there is no room");
    }
    until("they are counted", || node.metric("overstory_node_refused_connections_total") >= Some(2.0));
    until("the limit is found to be near", || {
        node.metric("overstory_node_finding_state{check=\"connections\"}").is_some()
    });
    witness.is_served();
    drop(idle);
    until("their places are free", || {
        node.metric("overstory_node_connections{protocol=\"legacy\"}").is_some_and(|open| open < 10.0)
    });
    assert_eq!(Legacy::to(&node).size(), 3);
    witness.is_served();
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn those_that_send_a_byte_at_a_time_hold_nobody_up() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    let mut request = Vec::new();
    LegacyRequest::Put { channel: b"slow", key: &Key(1).hex16(), value: b"drip" }.encode(&mut request);
    let mut message = Vec::new();
    let mut put = 77u64.to_le_bytes().to_vec();
    NeoRequest::Put { channel: b"slow", key: Key(2), value: b"drop" }.encode(&mut put);
    frame::put(&mut message, Kind::Request, &put);
    let mut legacy: Vec<Legacy> = (0..30).map(|_| Legacy::to(&node)).collect();
    let mut neo: Vec<NeoClient> = (0..30).map(|_| admin(&node)).collect();
    for step in 0..request.len().max(message.len()) {
        if let Some(byte) = request.get(step..=step) {
            legacy.iter_mut().for_each(|client| client.send(byte));
        }
        if let Some(byte) = message.get(step..=step) {
            neo.iter_mut().for_each(|client| client.connection.send(byte));
        }
        witness.is_served();
    }
    legacy.iter_mut().for_each(|client| assert_eq!(client.read_status(), Status::Ok));
    neo.iter_mut().for_each(|client| assert_eq!((client.read(77), client.read(77)), (vec![0xfd], vec![1])));
    witness.memory_is_bounded(&process, 8);
    process.kill();
}

/// Every legacy request, cut behind each length that it has.
fn legacy_requests_up_to_a_length() -> Vec<(i32, Vec<u8>)> {
    let (channel, key) = (array(b"c"), array(&Key(1).hex16()));
    let codes = |codes: &[i32], front: &[&[u8]]| codes.iter().map(|code| (*code, front.concat())).collect::<Vec<_>>();
    let mut all = codes(&[1, 7, 11, 12, 18, 22, 25, 29, 30, 31, 34], &[]);
    all.extend(codes(&[1, 7, 11, 12, 31, 34], &[&channel]));
    all.extend(codes(&[1], &[&channel, &key]));
    all.extend(codes(&[33], &[&[0; 16]]));
    all.extend(codes(&[33], &[&[0; 16], &array(b"127.0.0.1"), &[1, 2], &[0; 16]]));
    all
}

#[test]
fn lengths_without_measure_are_refused_on_the_legacy_port() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    for (code, front) in legacy_requests_up_to_a_length() {
        for length in LENGTHS {
            let mut connection = Connection::open(node.legacy);
            connection.send(&[&code.to_le_bytes()[..], &front, &length.to_le_bytes()].concat());
            connection.send_unwanted(&[b'x'; 5000]);
            // A Put is thrown away as it comes; all others are closed at once.
            let _ = connection.stream.shutdown(std::net::Shutdown::Write);
            assert_eq!(connection.until_closed(), b"", "request {code}, {length} bytes behind {}", front.len());
        }
        witness.is_served();
    }
    for code in [0i32, 2, -1, 35, i32::MAX, i32::MIN] {
        let mut connection = Connection::open(node.legacy);
        connection.send(&code.to_le_bytes());
        assert_eq!(connection.until_closed(), b"", "code {code}");
    }
    // As long as it may be, and too long to be stored: read to its end, then refused; the connection is as good as new.
    let mut client = Legacy::to(&node);
    assert_eq!(client.put("c", 1, &vec![1; 10 << 20]), Status::ValueTooBig);
    assert_eq!(client.put("c", 1, b""), Status::EmptyValue);
    assert_eq!(client.put("c", 1, b"x"), Status::Ok);
    witness.is_served();
    witness.memory_is_bounded(&process, 24);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn batches_that_lie_are_refused() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    let batch = |pairs: &[(&[u8], &[u8])]| {
        let (mut builder, mut out) = (BatchBuilder::new(1 << 20), Vec::new());
        for (key, value) in pairs {
            let _ = builder.pair(key, value);
        }
        builder.finish(&mut out);
        out
    };
    let good = batch(&[(&Key(1).hex16(), b"one"), (&Key(2).hex16(), b"two")]);
    let claims = |length: u64| [&length.to_le_bytes()[..], &good[8..]].concat();
    // Lengths within the plain records that reach out of them.
    let wild = |plain: &[u8]| {
        let mut out = (plain.len() as u64).to_le_bytes().to_vec();
        overstory_swarm::lzo::compress(plain, &mut out, &mut overstory_swarm::lzo::Work::new());
        out
    };
    let mut broken = vec![claims(1 << 63), claims(u64::MAX), claims(0), claims(65 << 20), claims(37), claims(5000)];
    broken.extend([b"".to_vec(), vec![1, 2, 3], vec![0xff; 500], good[..good.len() - 4].to_vec()]);
    broken.extend([
        wild(&u64::MAX.to_le_bytes()),
        wild(&[&array(&Key(1).hex16())[..], &(1u64 << 63).to_le_bytes()].concat()),
    ]);
    broken.push(batch(&[(b"no key of sixteen", b"x")]));
    for (index, payload) in broken.iter().enumerate() {
        let mut client = Legacy::to(&node);
        client.begin(&LegacyRequest::PutBatch { channel: b"batch", batch: payload });
        assert_eq!(client.until_closed(), b"", "batch {index}");
        witness.is_served();
    }
    let mut client = Legacy::to(&node);
    assert_eq!(client.ask(&LegacyRequest::PutBatch { channel: b"batch", batch: &good }), Status::Ok);
    let empty = batch(&[(&Key(3).hex16(), b"")]);
    assert_eq!(client.ask(&LegacyRequest::PutBatch { channel: b"batch", batch: &empty }), Status::EmptyValue);
    assert_eq!(client.get_all("batch").len(), 2, "nothing of the broken ones was stored");
    witness.memory_is_bounded(&process, 16);
    process.kill();
}

#[test]
fn lengths_without_measure_are_refused_on_the_neo_port() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    for length in LENGTHS.into_iter().chain([0, 7]) {
        for kind in [Kind::Request, Kind::Authentication] {
            for known in [false, true] {
                let mut client = if known { admin(&node) } else { NeoClient::greet(node.neo) };
                client.connection.send(&frame::header(kind, length));
                client.connection.send_unwanted(&[0; 500]);
                assert_eq!(client.connection.until_closed(), b"", "{kind:?} of {length} bytes, known: {known}");
            }
        }
        witness.is_served();
    }
    // A wrong parity, an unknown kind, and a name that is longer than its message.
    let mut header = frame::header(Kind::Request, 20);
    header[9] ^= 1;
    let mut unknown = frame::header(Kind::Request, 20);
    (unknown[0], unknown[9]) = (unknown[0] ^ 7, unknown[9] ^ 7);
    for header in [header, unknown] {
        let mut client = admin(&node);
        client.connection.send(&header);
        assert_eq!(client.connection.until_closed(), b"");
    }
    for length in LENGTHS.into_iter().chain([93, 500]) {
        let mut client = NeoClient::greet(node.neo);
        client.nonce(system_time());
        let body = [&length.to_le_bytes()[..], &[b'a'; 92]].concat();
        let mut message = Vec::new();
        frame::put(&mut message, Kind::Authentication, &body);
        client.connection.send(&message);
        let answer = client.connection.until_closed();
        assert!(answer.is_empty() || answer.last() == Some(&0), "name of {length} bytes: {answer:?}");
    }
    // Within a request: its own error, and the connection is as good as before.
    let mut client = admin(&node);
    let mut id = 0;
    for (code, front, error) in [
        (2u8, vec![], 3u8),
        (2, [array(b"c"), vec![0; 8]].concat(), 3),
        (3, vec![], 4),
        (4, vec![0], 6),
        (5, vec![0], 6),
        (5, [vec![0], array(b"c"), vec![0; 10]].concat(), 6),
        (7, vec![], 4),
        (8, vec![], 4),
        (9, vec![], 3),
        (10, vec![1], 10),
        (10, [vec![2], array(b"c"), vec![0; 16]].concat(), 10),
    ] {
        for length in LENGTHS {
            id += 1;
            client.message(id, &[&[code, 0][..], &front, &length.to_le_bytes()].concat());
            assert_eq!((client.read(id), client.read(id)), (vec![0xfd], vec![error]), "request {code}");
        }
    }
    for payload in [&[99u8, 0][..], &[2, 9]] {
        id += 1;
        client.message(id, payload);
        assert!(client.read(id)[0] >= 0xfe);
    }
    assert_eq!(client.ask(id + 1, &NeoRequest::Put { channel: b"c", key: Key(1), value: b"x" }), [1]);
    witness.is_served();
    witness.memory_is_bounded(&process, 16);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn channel_names_that_are_paths_or_endless_reach_no_file() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    let endless = vec![b'a'; 10 << 20];
    let long = [b'a'; 231];
    let names: [&[u8]; 10] =
        [b"../x", b"", b"a\0b", &long, b"a/b", b".", b"/etc/passwd", b"a b", "\u{e4}".as_bytes(), &endless];
    let key = Key(1).hex16();
    let mut empty = Vec::new();
    BatchBuilder::new(1024).finish(&mut empty);
    for name in names {
        let mut legacy = Legacy::to(&node);
        for request in [
            LegacyRequest::Put { channel: name, key: &key, value: b"x" },
            LegacyRequest::Get { channel: name, key: &key },
            LegacyRequest::Exists { channel: name, key: &key },
            LegacyRequest::Remove { channel: name, key: &key },
            LegacyRequest::GetChannelSize { channel: name },
            LegacyRequest::RemoveChannel { channel: name },
            LegacyRequest::Listen { channel: name },
            LegacyRequest::GetAll { channel: name },
            LegacyRequest::GetAllKeys { channel: name },
            LegacyRequest::GetAllFilter { channel: name, filter: b"x" },
            LegacyRequest::PutBatch { channel: name, batch: &empty },
        ] {
            assert_eq!(legacy.ask(&request), Status::BadChannelName, "{}", request.name());
        }
        let mut neo = admin(&node);
        let all = GetAll { start_suspended: false, channel: name, after: None, keys_only: false, filter: b"" };
        let mirror =
            NeoRequest::Mirror { start_suspended: false, channel: name, initial_refresh: true, periodic_refresh_s: 0 };
        for (id, request, error) in [
            (1, NeoRequest::Put { channel: name, key: Key(1), value: b"x" }, 3),
            (2, NeoRequest::Get { channel: name, key: Key(1) }, 4),
            (3, NeoRequest::Exists { channel: name, key: Key(1) }, 4),
            (4, NeoRequest::Remove { channel: name, key: Key(1) }, 4),
            (5, NeoRequest::RemoveChannel { channel: name }, 3),
            (6, NeoRequest::GetAll(all), 6),
            (7, mirror, 6),
            (8, NeoRequest::Update { channel: name, key: Key(1), start: UpdateStart::GetRecord }, 10),
        ] {
            assert_eq!(neo.ask(id, &request), [error], "request {id}");
        }
        witness.is_served();
    }
    assert_eq!(Legacy::to(&node).channels(), ["witness"]);
    witness.memory_is_bounded(&process, 48);
    assert_eq!(process.stop(), Some(0));
    assert!(!node.path("x.tcm").exists() && !node.path("data/.tcm").exists());
    assert_eq!(read_dump(&node.path("data/witness.tcm")).len(), 11, "all that is good was saved");
}

#[test]
fn who_cannot_prove_a_name_is_rejected() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    let other_key = "1".repeat(256);
    let long = "a".repeat(101);
    for (timestamp, name, key, reason) in [
        (system_time(), "admin", other_key.as_str(), ""),
        (system_time(), "nobody", ZERO_KEY, "nobody"),
        (system_time(), "", ZERO_KEY, ""),
        (system_time(), long.as_str(), ZERO_KEY, ""),
        (system_time(), "admin ", ZERO_KEY, ""),
        (system_time() - 31 * 60, "admin", ZERO_KEY, "admin"),
        (system_time() + 31 * 60, "admin", ZERO_KEY, "admin"),
        (0, "admin", ZERO_KEY, "admin"),
        (u64::MAX, "admin", ZERO_KEY, "admin"),
        (1 << 63, "admin", ZERO_KEY, "admin"),
    ] {
        let mut client = NeoClient::greet(node.neo);
        assert!(!client.authenticate(timestamp, name, key), "{name} at {timestamp}");
        assert_eq!(client.connection.until_closed(), b"");
        let said = logged(&node, "Authentication failure", &format!(" for client '{reason}"));
        assert!(said.contains(" Warn "), "{said}");
    }
    for timestamp in [system_time() - 29 * 60, system_time() + 29 * 60] {
        assert!(NeoClient::greet(node.neo).authenticate(timestamp, "test", ZERO_KEY));
    }
    // What one connection proved is worth nothing on another.
    let (timestamp, key) = (system_time(), ClientKey::from_hex(ZERO_KEY.as_bytes()).unwrap());
    let mut first = NeoClient::greet(node.neo);
    let proof = code(&key, timestamp, first.nonce(timestamp));
    assert!(first.prove("admin", &proof));
    for _ in 0..20 {
        let mut second = NeoClient::greet(node.neo);
        second.nonce(timestamp);
        assert!(!second.prove("admin", &proof), "a replayed proof");
    }
    // Requests before, and proofs after the authentication; other versions; more than was asked for.
    let mut early = NeoClient::greet(node.neo);
    early.begin(1, &NeoRequest::GetChannels);
    assert_eq!(early.connection.until_closed(), b"");
    let mut twice = admin(&node);
    twice.connection.send(&frame::header(Kind::Authentication, 8));
    twice.connection.send_unwanted(&system_time().to_le_bytes());
    assert_eq!(twice.connection.until_closed(), b"");
    let mut newer = Connection::open(node.neo);
    newer.send(&[2]);
    assert_eq!(newer.until_closed(), [1], "it learns what is spoken here");
    // A client that is not admin removes nothing.
    let mut test = NeoClient::greet(node.neo);
    assert!(test.authenticate(system_time(), "test", ZERO_KEY));
    assert_eq!(test.ask(1, &NeoRequest::RemoveChannel { channel: b"witness" }), [2]);
    witness.is_served();
    let log = node.log();
    assert!(!log.contains(ZERO_KEY) && !log.contains(&other_key), "no key is ever logged");
    process.kill();
}

#[test]
fn random_bytes_on_both_ports_change_nothing() {
    let node = instance();
    let process = node.start();
    put_all(&node, "kept", &records(0..100, 1));
    let mut witness = Witness::of(&node, &process);
    let codes = [1i32, 7, 11, 17, 18, 19, 20, 23, 24, 25, 29, 30, 31, 34];
    for round in 0..400u64 {
        let seed = random(u64::MAX);
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let length = usize::try_from(next() % 700).unwrap();
        let noise: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[3]).collect();
        let mut connection = match round % 4 {
            0 => Connection::open(node.legacy),
            1 => {
                // Something that begins as a request does, with lengths that are possible.
                let mut connection = Connection::open(node.legacy);
                connection.send(&codes[usize::try_from(next()).unwrap_or(7) % codes.len()].to_le_bytes());
                connection.send(&(next() % 40).to_le_bytes());
                connection
            }
            2 => Connection::open(node.neo),
            _ => {
                let mut client = admin(&node);
                let code = 2 + u8::try_from(next() % 4).unwrap();
                client.message(next(), &[&[code, 0][..], &noise].concat());
                client.connection
            }
        };
        connection.send_unwanted(&noise);
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        connection.until_closed();
        if round % 20 == 0 {
            witness.is_served();
        }
    }
    assert_eq!(Legacy::to(&node).get_all("kept"), records(0..100, 1));
    witness.is_served();
    witness.memory_is_bounded(&process, 24);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn a_flood_of_refusals_does_not_fill_the_log() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    for round in 0..4000 {
        let mut connection = Connection::open(if round % 2 == 0 { node.legacy } else { node.neo });
        connection.send_unwanted(&[0xff; 20]);
        connection.until_closed();
    }
    witness.is_served();
    logged(&node, " Warn [dhtnode.connection]", "too many clients refused or at fault to log each");
    assert!(node.log().len() < 200_000, "{} bytes", node.log().len());
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn clients_that_never_read_take_bounded_memory_and_are_dropped() {
    let node = instance();
    node.set("Server", "unsent_timeout_s", "1");
    let process = node.start();
    // What does not compress: 24 MiB.
    let mut writer = Legacy::to(&node);
    let mut state = 88_172_645_463_325_252u64;
    for key in 0..400 {
        let value: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(8000)
        .flatten()
        .collect();
        assert_eq!(writer.put("large", key, &value), Status::Ok);
    }
    let mut witness = Witness::of(&node, &process);
    let all = GetAll { start_suspended: false, channel: b"large", after: None, keys_only: false, filter: b"" };
    let all = NeoRequest::GetAll(all);
    let mirror =
        NeoRequest::Mirror { start_suspended: false, channel: b"large", initial_refresh: true, periodic_refresh_s: 1 };
    let mut deaf: Vec<Connection> = Vec::new();
    for turn in 0..30 {
        if turn % 3 == 0 {
            let mut client = Legacy::to(&node);
            client.begin(&LegacyRequest::GetAll { channel: b"large" });
            deaf.push(client.0);
        } else {
            let mut client = admin(&node);
            for id in 1..=20 {
                client.begin(id, if turn % 3 == 1 { &all } else { &mirror });
            }
            deaf.push(client.connection);
        }
        witness.is_served();
        witness.memory_is_bounded(&process, 64);
    }
    until("all of them are dropped", || {
        witness.is_served();
        witness.memory_is_bounded(&process, 64);
        node.metric("overstory_node_dropped_connections_total") == Some(30.0)
    });
    logged(&node, " Warn [dhtnode.connection]", "client dropped because it does not read");
    for connection in &mut deaf {
        // What the kernel had is there, and then it is over.
        let mut buffer = vec![0; 1 << 16];
        while !matches!(connection.stream.read(&mut buffer), Ok(0) | Err(_)) {}
    }
    witness.is_served();
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn requests_that_are_never_complete_take_no_more_than_all_may() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    let part = [&22i32.to_le_bytes()[..], &(10u64 << 20).to_le_bytes(), &vec![b'a'; 9 << 20]].concat();
    let connections: Vec<Connection> = (0..70)
        .map(|_| {
            let mut connection = Connection::open(node.legacy);
            connection.send_unwanted(&part);
            witness.is_served();
            connection
        })
        .collect();
    witness.memory_is_bounded(&process, 600);
    logged(&node, " Warn [dhtnode.connection]", "client dropped because the buffers of all are full");
    drop(connections);
    until("their memory is given back", || {
        witness.is_served();
        process.pss_kib() < witness.before + 64 * 1024
    });
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn five_thousand_requests_on_a_connection_and_not_one_more() {
    let node = instance();
    let process = node.start();
    let mut witness = Witness::of(&node, &process);
    let mut client = admin(&node);
    let asking = client.connection.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut asking = NeoClient { connection: Connection::of(asking) };
            (1..=5000).for_each(|id| asking.begin(id, &NeoRequest::GetHashRange));
        });
        for id in 1..=5000 {
            assert_eq!((client.read(id), client.read(id).len()), (vec![0xfd], 16));
        }
    });
    witness.is_served();
    client.begin(5001, &NeoRequest::Get { channel: b"witness", key: Key(1) });
    assert_eq!(client.connection.until_closed(), b"");
    witness.is_served();
    let active = "overstory_node_active_requests{protocol=\"neo\",request=\"GetHashRange\"}";
    until("they are over", || node.metric(active) == Some(0.0));
    witness.memory_is_bounded(&process, 16);
    process.kill();
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    let node = instance();
    let process = node.start();
    put_all(&node, "c", &records(0..2000, 1));
    let mut witness = Witness::of(&node, &process);
    for round in 0..200 {
        let mut client = admin(&node);
        let all = GetAll { start_suspended: round % 2 == 0, channel: b"c", after: None, keys_only: false, filter: b"" };
        client.begin(1, &NeoRequest::GetAll(all));
        let mut legacy = Legacy::to(&node);
        legacy.begin(&LegacyRequest::Listen { channel: b"c" });
        let mut one = [0];
        let read = legacy.stream.read(&mut one);
        assert!(read.is_ok() || read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    witness.is_served();
    until("nobody is left but the witness", || {
        node.metric("overstory_node_connections{protocol=\"legacy\"}") == Some(1.0)
            && node.metric("overstory_node_connections{protocol=\"neo\"}") == Some(1.0)
    });
    witness.memory_is_bounded(&process, 16);
    assert_eq!(process.stop(), Some(0));
}

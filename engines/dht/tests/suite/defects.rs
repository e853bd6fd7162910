//! What the published node does wrong (protocol §8, §10), and this one must not. Each of these tests fails on it.

use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request as Legacy;
use overstory_swarm::neo::dht::{GetAll, Request as Neo, UpdateStart};

use crate::rig::{Connection, Effect, NeoClient, Node, Setup};

const BAD_NAMES: [&[u8]; 6] = [b"", b"a b", b"../x", b"a/b", b"a@b", &[b'a'; 231]];

fn get_all(channel: &[u8]) -> Neo<'_> {
    Neo::GetAll(GetAll { start_suspended: false, channel, after: None, keys_only: false, filter: b"" })
}

fn neo_requests(channel: &[u8]) -> Vec<(Neo<'_>, u8)> {
    let key = Key(1);
    vec![
        (Neo::Put { channel, key, value: b"v" }, 3),
        (Neo::Get { channel, key }, 4),
        (Neo::Exists { channel, key }, 4),
        (Neo::Remove { channel, key }, 4),
        (Neo::RemoveChannel { channel }, 3),
        (Neo::Update { channel, key, start: UpdateStart::GetRecord }, 10),
        (Neo::Update { channel, key, start: UpdateStart::UpdateRecord { original_hash: 0, value: b"v" } }, 10),
        (get_all(channel), 6),
        (Neo::Mirror { start_suspended: false, channel, initial_refresh: true, periodic_refresh_s: 0 }, 6),
    ]
}

/// The published node takes any name in neo: `../x` is a path outside of its data directory, an empty name breaks its
/// statistics, an endless one its dump (§8, §10.1.15).
#[test]
fn neo_requests_with_a_bad_name_are_answered_with_their_error() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "admin");
    let mut id = 0;
    for name in BAD_NAMES {
        for (request, error) in neo_requests(name) {
            id += 1;
            assert_eq!(client.ask(id, &request), [error], "{request:?}");
        }
    }
    assert_eq!((node.channels(), node.effects()), (Vec::<String>::new(), Vec::new()));
}

/// Listen with a bad name ends the published node with a segmentation fault (§10.1.3).
#[test]
fn legacy_requests_with_a_bad_name_are_answered_409() {
    let node = Node::start(Setup::default());
    let mut client = Connection::open(node.legacy);
    for channel in BAD_NAMES {
        let key = b"0000000000000001";
        for request in [
            Legacy::Listen { channel },
            Legacy::Put { channel, key, value: b"v" },
            Legacy::Get { channel, key },
            Legacy::GetAllFilter { channel, filter: b"" },
            Legacy::PutBatch { channel, batch: b"no batch" },
            Legacy::RemoveChannel { channel },
        ] {
            assert_eq!(client.ask(&request), Status::BadChannelName, "{request:?}");
        }
    }
    assert_eq!((node.channels(), node.effects()), (Vec::<String>::new(), Vec::new()));
}

/// Silence after "supported" hangs the published client for ever (§10.1.7).
#[test]
fn neo_requests_that_are_cut_short_are_answered_with_their_error() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "admin");
    let mut id = 0;
    for (request, error) in neo_requests(b"channel") {
        let mut whole = Vec::new();
        request.encode(&mut whole);
        for length in 2..whole.len() {
            id += 1;
            client.message(id, &whole[..length]);
            assert_eq!((client.read(id), client.read(id)), (vec![0xfd], vec![error]), "{length} bytes of {request:?}");
        }
    }
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// An announced length near 2^64 must not be believed, nor wrap around.
#[test]
fn neo_lengths_that_cannot_be_are_answered_with_an_error() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "test");
    for (id, length) in [(1, u64::MAX), (2, 1 << 63), (3, u64::MAX - 7), (4, 1 << 32)] {
        client.message(id, &[&[2, 0][..], &length.to_le_bytes(), b"channel"].concat());
        assert_eq!((client.read(id), client.read(id)), (vec![0xfd], vec![3]));
    }
}

/// The published node stores an empty value, answers its Get with silence, and passes size_limit over in neo (§8,
/// §10.1.8).
#[test]
fn neo_put_refuses_empty_and_too_long_values_and_keeps_the_size_limit() {
    let node = Node::start(Setup { size_limit: 1_000_000, ..Setup::default() });
    let mut client = NeoClient::open(&node, "test");
    let longest = vec![b'x'; 65_512];
    let too_long = vec![b'x'; 65_513];
    let put = |key: u64, value| Neo::Put { channel: b"c", key: Key(key), value };
    assert_eq!(client.ask(1, &put(1, b"")), [3]);
    assert_eq!(client.ask(2, &put(1, &too_long)), [3]);
    assert_eq!(client.ask(3, &Neo::Get { channel: b"c", key: Key(1) }), [1]);
    assert_eq!(client.ask(4, &put(1, &longest)), [1]);
    let refused = (5..1000).find(|id| client.ask(*id, &put(*id, &longest)) == [3]);
    assert!(refused.is_some_and(|id| id < 20), "{refused:?}");
    let update = |value| Neo::Update {
        channel: b"c",
        key: Key(5000),
        start: UpdateStart::UpdateRecord { original_hash: 0, value },
    };
    assert_eq!(client.ask(2000, &update(b"")), [10]);
    assert_eq!(client.ask(2001, &update(&too_long)), [10]);
    for id in 3000..3020 {
        let update = Neo::Update {
            channel: b"c",
            key: Key(id),
            start: UpdateStart::UpdateRecord { original_hash: 0, value: &longest },
        };
        assert_eq!(client.ask(id, &update), [10]);
    }
    assert!(node.with(|engine| engine.store().borrow().memory()) <= 1_000_000);
}

/// Each neo Get, Exists and Remove makes a channel in the published node: clients fill its memory with them (§8).
#[test]
fn no_read_creates_a_channel() {
    let node = Node::start(Setup::default());
    let mut neo = NeoClient::open(&node, "test");
    let channel = b"missing";
    let key = Key(1);
    assert_eq!(neo.ask(1, &Neo::Get { channel, key }), [1]);
    assert_eq!(neo.ask(2, &Neo::Exists { channel, key }), [2]);
    assert_eq!(neo.ask(3, &Neo::Remove { channel, key }), [1]);
    assert_eq!(neo.ask(4, &Neo::Update { channel, key, start: UpdateStart::GetRecord }), [7]);
    assert_eq!(neo.ask(5, &get_all(channel)), [5]);
    let mut legacy = Connection::open(node.legacy);
    let key = b"0000000000000001";
    assert_eq!(legacy.ask(&Legacy::Remove { channel, key }), Status::Ok);
    assert_eq!(legacy.ask(&Legacy::GetAllKeys { channel }), Status::Ok);
    assert_eq!((legacy.read_array(), legacy.read_array()), ([&[0; 8][..], &[0x11, 0, 0]].concat(), Vec::new()));
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// A refused value makes no channel either.
#[test]
fn no_refused_put_creates_a_channel() {
    let range = HashRange::new(0, 0x7fff_ffff_ffff_ffff).unwrap();
    let node = Node::start(Setup { range, ..Setup::default() });
    let mut neo = NeoClient::open(&node, "test");
    assert_eq!(neo.ask(1, &Neo::Put { channel: b"empty", key: Key(2), value: b"" }), [3]);
    assert_eq!(neo.ask(2, &Neo::Put { channel: b"foreign", key: Key(1), value: b"v" }), [2]);
    let mut legacy = Connection::open(node.legacy);
    let put = |key, value| Legacy::Put { channel: b"c", key, value };
    assert_eq!(legacy.ask(&put(b"0000000000000001", b"v")), Status::WrongNode);
    assert_eq!(legacy.ask(&put(b"0000000000000002", b"")), Status::EmptyValue);
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// The published node says nothing to a client that may not remove channels (§2.4, §8).
#[test]
fn only_admin_removes_channels() {
    let node = Node::start(Setup { records: vec![("kept".into(), 1, b"v".to_vec())], ..Setup::default() });
    let remove = Neo::RemoveChannel { channel: b"kept" };
    assert_eq!(NeoClient::open(&node, "test").ask(1, &remove), [2]);
    assert_eq!((node.channels(), node.effects()), (vec!["kept".to_owned()], Vec::new()));
    assert_eq!(NeoClient::open(&node, "admin").ask(1, &remove), [1]);
    assert_eq!((node.channels(), node.effects()), (Vec::new(), vec![Effect::ChannelRemoved("kept".to_owned())]));
}

/// A broken batch ends the published process or is parsed as garbage (§10.1.4). Here its connection is dropped, nothing
/// of it is stored, and the node goes on.
#[test]
fn broken_batches_end_their_connection_and_nothing_else() {
    let node = Node::start(Setup::default());
    let pair = |key: &[u8], value: &[u8]| {
        [&(key.len() as u64).to_le_bytes()[..], key, &(value.len() as u64).to_le_bytes(), value].concat()
    };
    let good = pair(b"0000000000000001", b"value");
    let lzo = |plain: &[u8]| {
        let mut block = Vec::new();
        overstory_swarm::lzo::compress(plain, &mut block, &mut overstory_swarm::lzo::Work::new());
        block
    };
    let batch = |length: u64, block: &[u8]| [&length.to_le_bytes()[..], block].concat();
    let whole = good.len() as u64;
    let cut = [&good[..], &good[..good.len() - 1]].concat();
    let bad_key = [&good[..], &pair(b"xyz", b"value")].concat();
    let broken = [
        b"abc".to_vec(),
        batch(30, b"this is not LZO at all, is it?"),
        batch(u64::MAX, &lzo(&good)),
        batch(1 << 40, &lzo(&good)),
        batch(whole - 1, &lzo(&good)),
        batch(whole + 9, &lzo(&good)),
        batch(cut.len() as u64, &lzo(&cut)),
        batch(bad_key.len() as u64, &lzo(&bad_key)),
    ];
    for batch in &broken {
        let mut client = Connection::open(node.legacy);
        let mut request = Vec::new();
        Legacy::PutBatch { channel: b"c", batch }.encode(&mut request);
        client.send(&request);
        assert!(client.is_closed(), "{batch:x?}");
    }
    assert_eq!(node.records("c"), []);
    let mut client = Connection::open(node.legacy);
    assert_eq!(client.ask(&Legacy::PutBatch { channel: b"c", batch: &batch(whole, &lzo(&good)) }), Status::Ok);
    assert_eq!(node.records("c"), [(1, b"value".to_vec())]);
}

/// A late control closes the whole connection of the published node, with every request on it (§8).
#[test]
fn a_late_message_does_not_end_other_requests() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &Neo::Put { channel: b"c", key: Key(1), value: b"v" }), [1]);
    client.message(1, &[1]);
    assert_eq!(client.ask(2, &Neo::Exists { channel: b"c", key: Key(1) }), [1]);
}

/// What names a record that was given away and is still here finds it; the published node says WrongNode, and a client
/// that asks the new node first finds the record nowhere while it is on its way.
#[test]
fn records_out_of_the_range_are_served_while_they_are_here() {
    let range = HashRange::new(0, 0x7fff_ffff_ffff_ffff).unwrap();
    let records = vec![("c".into(), 1, b"foreign".to_vec()), ("c".into(), 3, b"foreign".to_vec())];
    let node = Node::start(Setup { range, records, ..Setup::default() });
    let mut client = NeoClient::open(&node, "test");
    let (channel, key) = (b"c", Key(1));
    assert_eq!(client.ask(1, &Neo::Exists { channel, key }), [1]);
    assert_eq!(client.ask(2, &Neo::Get { channel, key }), [2]);
    assert_eq!(client.read(2), [&7u64.to_le_bytes()[..], b"foreign"].concat());
    assert_eq!(client.ask(3, &Neo::Put { channel, key, value: b"v" }), [2]);
    assert_eq!(client.ask(4, &Neo::Remove { channel, key }), [2]);
    assert_eq!(client.ask(5, &Neo::Remove { channel, key }), [3]);
    assert_eq!(client.ask(6, &Neo::Get { channel, key }), [3]);

    // The second half of an Update that was begun here: no value is stored, the record can be removed.
    let key = Key(3);
    assert_eq!(client.ask(7, &Neo::Update { channel, key, start: UpdateStart::GetRecord })[0], 5);
    let mut answer = vec![2];
    answer.extend(overstory_swarm::key::fnv1a(b"foreign").to_le_bytes());
    answer.extend([&3u64.to_le_bytes()[..], b"new"].concat());
    client.message(7, &answer);
    assert_eq!(client.read(7), [10]);
    assert_eq!(client.ask(8, &Neo::Update { channel, key, start: UpdateStart::GetRecord })[0], 5);
    client.message(8, &[3]);
    assert_eq!(client.read(8), [6]);
    assert_eq!(node.records("c"), []);
}

//! Listen, Mirror and GetHashRange: bounds, order, controls.

use overstory_dht::engine::{LISTEN_QUEUE, MIRROR_QUEUE};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request as Legacy;
use overstory_swarm::neo::dht::{Control, MirrorMessage, Request as Neo};

use crate::rig::{Connection, NeoClient, Node, Setup, message};

const CHANNEL: &[u8] = b"c";

fn mirror(start_suspended: bool, initial_refresh: bool) -> Neo<'static> {
    Neo::Mirror { start_suspended, channel: CHANNEL, initial_refresh, periodic_refresh_s: 0 }
}

/// Puts keys from `from` on, many at a time.
fn put_many(node: &Node, from: u64, count: u64) {
    let mut client = NeoClient::open(node, "test");
    for start in (from..from + count).step_by(2000) {
        let burst = start..(start + 2000).min(from + count);
        let mut bytes = Vec::new();
        for key in burst.clone() {
            let mut payload = Vec::new();
            Neo::Put { channel: CHANNEL, key: Key(key), value: b"value" }.encode(&mut payload);
            bytes.extend(message(key + 1, &payload));
        }
        client.connection.send(&bytes);
        for key in burst {
            assert_eq!((client.read(key + 1), client.read(key + 1)), (vec![0xfd], vec![1]));
        }
    }
}

fn control(client: &mut NeoClient, id: u64, control: Control) {
    client.message(id, &[control.code()]);
    assert_eq!(client.read(id), [Control::Ack.code()]);
}

/// Updates of a suspended Mirror wait up to the bound; the loss is told once, behind them, and then it goes on.
#[test]
fn a_mirror_keeps_its_bound_and_goes_on_after_a_loss() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &mirror(true, false)), [5]);
    let bound = MIRROR_QUEUE as u64;
    put_many(&node, 0, bound + 10);
    control(&mut client, 1, Control::Resume);
    for key in 0..bound {
        let message = client.read(1);
        assert_eq!(
            MirrorMessage::decode(&message),
            Ok(MirrorMessage::RecordChanged { key: Key(key), value: b"value" })
        );
    }
    assert_eq!(client.read(1), [11]);
    put_many(&node, 7, 1);
    assert_eq!(client.read(1)[..9], [&[7][..], &7u64.to_le_bytes()].concat());
    assert!(client.connection.is_silent());
    control(&mut client, 1, Control::Stop);
    put_many(&node, 8, 1);
    assert!(client.connection.is_silent());
}

/// ChannelRemoved reaches a suspended client too, once; controls that crossed it are ignored until the Ack.
#[test]
fn a_removed_channel_ends_its_mirrors() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "admin");
    assert_eq!(client.ask(1, &mirror(true, true)), [5]);
    put_many(&node, 0, 5);
    client.begin(2, &Neo::RemoveChannel { channel: CHANNEL });
    let mut seen: Vec<(u64, u8)> = Vec::new();
    for _ in 0..3 {
        let (_, body) = client.read_frame();
        seen.push((body[0].into(), body[8]));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, 10), (2, 1), (2, 0xfd)]);
    client.message(1, &[Control::Resume.code()]);
    put_many(&node, 0, 5);
    assert!(client.connection.is_silent());
    client.message(1, &[Control::Ack.code()]);
    assert_eq!(client.ask(3, &mirror(false, true)), [5]);
    assert_eq!(client.read(3)[0], 9);
}

/// An Ack before the end, or an unknown control, is a violation: the connection goes.
#[test]
fn a_wrong_control_closes_the_connection() {
    let node = Node::start(Setup::default());
    for payload in [&[4][..], &[9], &[1, 1]] {
        let mut client = NeoClient::open(&node, "test");
        assert_eq!(client.ask(1, &mirror(false, false)), [5]);
        client.message(1, payload);
        assert!(client.connection.is_closed(), "{payload:?}");
    }
}

/// A refresh of many records and changes share the connection; every record comes with the value that it has.
#[test]
fn a_refresh_does_not_hold_changes_up() {
    let records = (0..50_000u64).map(|key| ("c".to_owned(), key, vec![b'x'; 100])).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &mirror(true, true)), [5]);
    put_many(&node, 0, 50);
    control(&mut client, 1, Control::Resume);
    let (mut refreshed, mut changed, mut batches_before_the_last_change) = (0, 0, 0);
    while refreshed < 50_000 {
        let message = client.read(1);
        match MirrorMessage::decode(&message).unwrap() {
            MirrorMessage::RecordChanged { .. } => changed += 1,
            MirrorMessage::RecordRefreshBatch(batch) => {
                let mut plain = Vec::new();
                overstory_swarm::batch::decode(batch, 1 << 20, &mut plain).unwrap();
                refreshed += overstory_swarm::batch::Refreshed::new(&plain).count();
                batches_before_the_last_change += usize::from(changed < 50);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((changed, batches_before_the_last_change), (50, 0));
}

/// A Listen takes what it can hold, and what came after that is gone; the value is the one at the time of sending.
#[test]
fn a_listen_keeps_its_bound_and_sends_the_newest_value() {
    let node = Node::start(Setup::default());
    let mut listener = Connection::open(node.legacy);
    assert_eq!(listener.ask(&Legacy::Listen { channel: CHANNEL }), Status::Ok);
    assert_eq!(node.channels(), ["c"]);
    // All puts in one go on the node's own thread: the listener's connection cannot run in between.
    let more = LISTEN_QUEUE as u64 + 10;
    node.with(move |engine| {
        use overstory_node::engine::{Engine, LegacyStep, Peer};
        let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1);
        let peer = Peer { address, name: "".into() };
        let mut out = Vec::new();
        let mut ask = |request: Legacy<'_>| {
            let mut input = Vec::new();
            request.encode(&mut input);
            let step = engine.legacy(&peer, &overstory_node::wake::Waker::noop(), &input, &mut out);
            assert!(matches!(step, LegacyStep::Done { .. }));
        };
        for key in 0..more {
            ask(Legacy::Put { channel: CHANNEL, key: &Key(key).hex16(), value: b"old" });
        }
        ask(Legacy::Put { channel: CHANNEL, key: &Key(1).hex16(), value: b"new" });
        ask(Legacy::Remove { channel: CHANNEL, key: &Key(2).hex16() });
    });
    for key in (0..LISTEN_QUEUE as u64).filter(|key| *key != 2) {
        let value: &[u8] = if key == 1 { b"new" } else { b"old" };
        assert_eq!((&listener.read_array()[..], &listener.read_array()[..]), (&Key(key).hex16()[..], value));
    }
    assert!(listener.is_silent());
    let mut other = Connection::open(node.legacy);
    assert_eq!(other.ask(&Legacy::RemoveChannel { channel: CHANNEL }), Status::Ok);
    assert_eq!((listener.read_array(), listener.read_array()), (Vec::new(), Vec::new()));
    assert_eq!(listener.ask(&Legacy::GetVersion), Status::Ok);
}

/// A message to a GetHashRange ends it without a word; the connection goes on (§10.1.6).
#[test]
fn a_message_ends_a_get_hash_range() {
    let node = Node::start(Setup::default());
    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &Neo::GetHashRange), [[0; 8], [0xff; 8]].concat());
    client.message(1, b"whatever");
    assert!(client.connection.is_silent());
    assert_eq!(client.ask(2, &Neo::Exists { channel: CHANNEL, key: Key(1) }), [2]);
}

//! What the published node does wrong (protocol §8, §10), and this one must not. Each of these tests fails on it.

use overstory_dmq::config::Durability;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;
use overstory_swarm::neo::dmq::Request as Neo;

use crate::rig::{
    CONTINUE, Consumer, Node, STOP, Setup, ask, consume, files, neo_pop, neo_push, pop, pop_all, push, push_payload,
    values, with_names,
};

const BAD_NAMES: [&[u8]; 6] = [b"", b"a b", b"../x", b"a/b", b"a@b", &[b'a'; 231]];

fn payload(request: &Neo<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    request.encode(&mut payload);
    payload
}

/// The neo requests on a channel, with their error.
fn neo_requests(channel: &[u8]) -> [(Vec<u8>, u8); 3] {
    [
        (push_payload(&[channel], b"v"), 2),
        (payload(&Neo::Pop { channel }), 3),
        (payload(&Neo::Consume { channel, subscriber: b"" }), 2),
    ]
}

/// The published node takes any name in neo: `../x.rq` is a file outside of its data directory (§8, §10.1.20).
#[test]
fn neo_requests_with_a_bad_name_are_answered_with_their_error() {
    let node = Node::start(Setup::default());
    let mut client = node.neo();
    let mut id = 0;
    for name in BAD_NAMES {
        for (request, error) in neo_requests(name) {
            id += 1;
            assert_eq!(ask(&mut client, id, &request), [error], "{request:?}");
        }
        // One bad name spoils the whole push.
        assert_eq!(ask(&mut client, id + 1000, &push_payload(&[b"good", name], b"v")), [2]);
    }
    assert_eq!((node.channels(), node.records()), (Vec::new(), 0));
    let data = node.data.clone();
    let place = node.stop().unwrap();
    assert_eq!((files(&data), files(place.path())), (Vec::new(), vec!["data".to_owned()]));
}

/// A subscriber's name becomes a part of a file's name too.
#[test]
fn bad_subscribers_are_answered_with_an_error() {
    let node = Node::start(Setup::default());
    let mut client = node.neo();
    let long = [b'a'; 150];
    let bad = [(&b"c"[..], &b"a@b"[..]), (b"c", b"../x"), (b"c", b"a b"), (b"c", &[b'a'; 231]), (&long, &long)];
    for (id, (channel, subscriber)) in (1..).zip(bad) {
        assert_eq!(client.ask(id, &Neo::Consume { channel, subscriber }), [2], "{subscriber:?}");
    }
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// In the published node a push to `a@b` makes a channel whose file is that of subscriber `a` of channel `b`, and a
/// Consume of that subscriber is answered with nothing any more (§10.1.20).
#[test]
fn no_channel_stands_in_for_a_subscriber() {
    let node = Node::start(Setup::default());
    let mut client = node.neo();
    assert_eq!(ask(&mut client, 1, &push_payload(&[b"a@b"], b"foreign")), [2]);
    let mut consumer = Consumer::start(&node, "b", "a");
    neo_push(&mut client, 2, &["b"], b"own");
    assert_eq!(consumer.batch(), [b"own"]);
    consumer.stop();
}

/// Consume with a bad name ends the published node with a segmentation fault (§10.1.3).
#[test]
fn legacy_requests_with_a_bad_name_are_answered_409() {
    let node = Node::start(Setup::default());
    let mut client = node.legacy();
    for channel in BAD_NAMES {
        for request in [
            Legacy::Push { channel, value: b"v" },
            Legacy::Pop { channel },
            Legacy::Consume { channel },
            Legacy::Produce { channel },
            Legacy::RemoveChannel { channel },
            Legacy::GetChannelSize { channel },
        ] {
            assert_eq!(client.ask(&request), Status::BadChannelName, "{request:?}");
        }
    }
    with_names(&["good", "a@b"], |channels| {
        assert_eq!(client.ask(&Legacy::PushMulti { channels, value: b"v" }), Status::BadChannelName);
        assert_eq!(client.ask(&Legacy::ProduceMulti { channels }), Status::BadChannelName);
    });
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// A name that is too long for a file makes the published node hang when it stops, and lose what the others hold
/// (§10.1.15).
#[test]
fn a_name_too_long_for_a_file_is_refused_and_the_rest_is_saved() {
    let node = Node::start(Setup::default());
    let long = [b'n'; 1000];
    assert_eq!(node.legacy().ask(&Legacy::Push { channel: &long, value: b"v" }), Status::BadChannelName);
    assert_eq!(ask(&mut node.neo(), 1, &push_payload(&[&long], b"v")), [2]);
    let longest = "n".repeat(230);
    push(&mut node.legacy(), &longest, b"kept");
    push(&mut node.legacy(), "c", b"kept");
    // The longest subscriber that fits beside a channel.
    push(&mut node.legacy(), "d", b"kept");
    let subscriber = (1..=230).rev().find(|length| {
        let subscriber = "s".repeat(*length);
        let request = Neo::Consume { channel: b"d", subscriber: subscriber.as_bytes() };
        let mut client = node.neo();
        if client.ask(1, &request) != [1] {
            return false;
        }
        // It has been sent the record, and leaves without taking it over.
        assert!(!client.read(1).is_empty());
        client.message(1, STOP);
        client.read(1) == [4]
    });
    push(&mut node.legacy(), "d", b"kept too");
    let data = node.data.clone();
    let place = node.stop();
    let node = Node::start(Setup::at(&data));
    assert_eq!(pop(&mut node.legacy(), &longest), b"kept");
    assert_eq!(pop(&mut node.legacy(), "c"), b"kept");
    let subscriber = "s".repeat(subscriber.unwrap());
    assert_eq!(Consumer::start(&node, "d", &subscriber).batch(), [b"kept too"]);
    drop((node, place));
}

/// Silence after "supported" hangs the published client for ever (§10.1.7).
#[test]
fn neo_requests_that_are_cut_short_are_answered_with_their_error() {
    let node = Node::start(Setup::default());
    let mut client = node.neo();
    let mut id = 0;
    for (whole, error) in neo_requests(b"channel") {
        for length in 2..whole.len() {
            id += 1;
            assert_eq!(ask(&mut client, id, &whole[..length]), [error], "{length} bytes of {whole:?}");
        }
    }
    assert_eq!((node.channels(), node.records()), (Vec::new(), 0));
}

/// The published node takes an empty value by neo; the Pop that gets it says that the channel is empty, and has removed
/// it (§10.1.8).
#[test]
fn an_empty_value_is_refused() {
    let node = Node::start(Setup::default());
    let (mut neo, mut legacy) = (node.neo(), node.legacy());
    assert_eq!(ask(&mut neo, 1, &push_payload(&[b"c"], b"")), [2]);
    assert_eq!(ask(&mut neo, 2, &push_payload(&[b"c", b"d"], b"")), [2]);
    assert_eq!(legacy.ask(&Legacy::Push { channel: b"c", value: b"" }), Status::EmptyValue);
    with_names(&["c", "d"], |channels| {
        assert_eq!(legacy.ask(&Legacy::PushMulti { channels, value: b"" }), Status::EmptyValue);
    });
    assert_eq!((node.channels(), node.records()), (Vec::new(), 0));
}

/// The published node answers 500 for a channel that is not there yet, on which its client closes the connection
/// (§1.6).
#[test]
fn a_channel_that_is_not_there_is_empty_and_is_not_made_by_looking() {
    let node = Node::start(Setup::default());
    let (mut neo, mut legacy) = (node.neo(), node.legacy());
    assert_eq!(pop(&mut legacy, "missing"), b"");
    assert_eq!(neo_pop(&mut neo, 1, "missing"), None);
    assert_eq!(legacy.ask(&Legacy::GetChannelSize { channel: b"missing" }), Status::Ok);
    legacy.read_array();
    assert_eq!(legacy.read(2 + 8 + 8)[2..], [0; 16]);
    assert_eq!(legacy.ask(&Legacy::RemoveChannel { channel: b"missing" }), Status::Ok);
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// The older clients' requests, which the published node has lost (§1.6), and one that it refuses.
#[test]
fn the_older_clients_see_channels_sizes_and_connections() {
    let node = Node::start(Setup { channel_sizes: vec![("small", 64)], ..Setup::default() });
    let mut client = node.legacy();
    values(5).iter().for_each(|value| push(&mut client, "small", value));
    push(&mut client, "other", b"v");
    assert_eq!(client.ask(&Legacy::GetChannels), Status::Ok);
    let names: Vec<_> = std::iter::from_fn(|| Some(client.read_array()).filter(|name| !name.is_empty())).collect();
    assert_eq!(names, [&b"other"[..], b"small"]);
    let mut size = |request: Legacy<'_>| {
        assert_eq!(client.ask(&request), Status::Ok);
        assert_eq!((&client.read_array()[..], client.read(2)), (&b"127.0.0.1"[..], 22_000u16.to_le_bytes().to_vec()));
        [client.read(8), client.read(8)].map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    };
    let [small, bytes] = size(Legacy::GetChannelSize { channel: b"small" });
    assert!(small == 5 && bytes >= 10, "{small} records of {bytes} bytes");
    let [all, bytes] = size(Legacy::GetSize);
    assert!(all == 6 && bytes >= 11, "{all} records of {bytes} bytes");
    let mut client = node.legacy();
    assert_eq!(client.ask(&Legacy::GetNumConnections), Status::Ok);
    assert_eq!((&client.read_array()[..], client.read(2)), (&b"127.0.0.1"[..], 22_000u16.to_le_bytes().to_vec()));
    assert_eq!(client.read(8), 2u64.to_le_bytes());
}

/// Records on disk are overtaken in the published node by whatever finds room in memory (§3.2, §8).
#[test]
fn nothing_overtakes_what_is_on_disk() {
    for durability in [Durability::Overflow, Durability::Journal] {
        let node = Node::start(Setup { channel_size: 100, ..Setup::of(durability) });
        let mut client = node.legacy();
        let all = values(500);
        let (mut pushed, mut popped) = (0, 0);
        // In and out in waves, so that the ring runs full and dry again and again.
        for (into, out) in [(10, 2), (3, 6), (40, 44), (5, 6), (100, 20), (30, 100), (300, 0), (12, 322)] {
            all[pushed..pushed + into].iter().for_each(|value| push(&mut client, "c", value));
            pushed += into;
            for value in &all[popped..popped + out] {
                assert_eq!(pop(&mut client, "c"), *value, "{durability:?}");
            }
            popped += out;
        }
        assert_eq!((pushed, popped, pop(&mut client, "c")), (500, 500, Vec::new()));
    }
}

/// The published node writes the index of its overflow only when it stops in order; after a crash the records on disk
/// are lost (§3.2, §8).
#[test]
fn a_crash_loses_at_most_what_was_in_memory_only() {
    let node = Node::start(Setup { channel_sizes: vec![("small", 30)], ..Setup::default() });
    let (mut client, all) = (node.legacy(), values(9));
    // Three records of ten bytes fit.
    all.iter().for_each(|value| push(&mut client, "small", value));
    let crashed = node.crash();
    let after = |place: &std::path::Path| {
        let node = Node::start(Setup { channel_sizes: vec![("small", 30)], ..Setup::at(place) });
        pop_all(&mut node.legacy(), "small")
    };
    assert_eq!(after(crashed.path()), all[3..]);

    // What was popped does not come back, though the index may be older.
    (0..5).for_each(|number| assert_eq!(pop(&mut client, "small"), all[number]));
    assert_eq!(after(node.crash().path()), all[5..]);
}

/// Queue data is lost in a crash of the published node (§8). With the journal nothing is lost that was acknowledged,
/// and nothing comes back that was popped.
#[test]
fn a_crash_loses_nothing_with_the_journal() {
    let setup = Setup { channel_size: 30, ..Setup::of(Durability::Journal) };
    let node = Node::start(setup.clone());
    let (mut client, all) = (node.legacy(), values(9));
    all.iter().for_each(|value| push(&mut client, "c", value));
    consume(&node, "topic");
    push(&mut client, "topic", b"for a subscriber");
    for popped in 0..9 {
        let crashed = node.crash();
        let again = Node::start(Setup { data: Some(crashed.path().to_owned()), ..setup.clone() });
        assert_eq!(pop_all(&mut again.legacy(), "c"), all[popped..]);
        assert_eq!(consume(&again, "topic").read_array(), b"for a subscriber");
        assert_eq!(pop(&mut client, "c"), all[popped]);
    }
}

/// The published node takes the whole ring for each channel at once: a mistyped channel costs 2 GB in its sample
/// configuration, and clients make channels at will (§8).
#[test]
fn a_channel_costs_what_it_holds() {
    let node = Node::start(Setup { channel_size: 2_000_000_000, ..Setup::of(Durability::Memory) });
    let mut client = node.legacy();
    let names: Vec<String> = (0..10_000).map(|number| format!("mistyped-{number}")).collect();
    for part in names.chunks(500) {
        let mut requests = Vec::new();
        for name in part {
            Legacy::Push { channel: name.as_bytes(), value: b"v" }.encode(&mut requests);
        }
        client.send(&requests);
        part.iter().for_each(|name| assert_eq!(client.read_status(), Status::Ok, "{name}"));
    }
    let memory = node.with(|engine| engine.store().borrow().memory());
    assert!(memory < 20_000_000, "{memory} bytes");
    let mut requests = Vec::new();
    names.iter().for_each(|name| Legacy::RemoveChannel { channel: name.as_bytes() }.encode(&mut requests));
    client.send(&requests);
    names.iter().for_each(|_| assert_eq!(client.read_status(), Status::Ok));
    assert_eq!(node.channels(), Vec::<String>::new());
}

/// A control that comes late closes the whole connection of the published node, with every request on it (§8, §10.1.6).
#[test]
fn a_late_control_does_not_end_other_requests() {
    let node = Node::start(Setup::default());
    let mut client = node.neo();
    let consume = |channel| Neo::Consume { channel, subscriber: b"" };
    assert_eq!(client.ask(1, &consume(b"c")), [1]);
    client.message(1, STOP);
    assert_eq!(client.read(1), [4]);
    client.message(1, CONTINUE);
    client.message(1, STOP);
    assert_eq!(client.ask(2, &consume(b"removed")), [1]);
    assert_eq!(node.legacy().ask(&Legacy::RemoveChannel { channel: b"removed" }), Status::Ok);
    assert_eq!(client.read(2), [5]);
    client.message(2, STOP);
    neo_push(&mut client, 3, &["d"], b"v");
    assert_eq!(neo_pop(&mut client, 4, "d"), Some(b"v".to_vec()));
}

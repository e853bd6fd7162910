//! Every recorded conversation of a dmq node, played against this one.
//!
//! What the node sends must be what was recorded, byte for byte; nonces and the limit of a full batch aside. Whatever
//! differs otherwise differs on purpose and stands in [`DIFFERENCES`] with the reason.

use std::collections::HashMap;

use overstory_dmq::engine::DmqEngine;
use overstory_replay::recording::neo_message;
use overstory_replay::replay::Aside;
use overstory_replay::{Difference, Line, Ours, Protocol, Recording, Replay};
use overstory_swarm::neo::dmq::{CONSUME_BATCH, PopReply, Request as Neo};

use crate::rig::{Node, Setup, records};

const FIFO: &str = "first in, first out: what is in memory does not overtake what is on disk";
const LONGEST_WAIT: &str = "of the consumers of a subscriber the one that has waited longest is next";
const BAD_NAME: &str = "neo names are checked: they become names of files, with '@' between subscriber and channel";
const EMPTY: &str = "an empty value is refused: a Pop could not tell it from none";
const SERVED: &str = "requests that were withdrawn are served to the clients that know them";

const fn at(file: &'static str, line: usize, ours: Ours, why: &'static str) -> Difference {
    Difference::new(file, line, ours, why)
}

const DIFFERENCES: &[Difference] = &[
    at("dmq-legacy-consume", 19, Ours::Payload(b"\x02\0\0\0\0\0\0\0n0"), LONGEST_WAIT),
    at("dmq-legacy-consume", 20, Ours::Payload(b"\x02\0\0\0\0\0\0\0n2"), LONGEST_WAIT),
    at("dmq-legacy-consume", 21, Ours::Payload(b"\x02\0\0\0\0\0\0\0n1"), LONGEST_WAIT),
    at("dmq-legacy-consume", 22, Ours::Payload(b"\x02\0\0\0\0\0\0\0n3"), LONGEST_WAIT),
    at(
        "dmq-legacy-errors",
        2,
        Ours::Payload(b"\xc8\0\0\0\x09\0\0\0\0\0\0\x00127.0.0.1\xf0\x55\x01\0\0\0\0\0\0\0"),
        SERVED,
    ),
    at("dmq-legacy-errors", 18, Ours::Sends(b"\xc8\0\0\0\0\0\0\0\0\0\0\0"), SERVED),
    at("dmq-legacy-errors", 20, Ours::Silent, "GetChannelSize is served: it waits for the channel's name"),
    at(
        "dmq-legacy-errors",
        22,
        Ours::Sends(b"\xc8\0\0\0\x09\0\0\0\0\0\0\x00127.0.0.1\xf0\x55\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        SERVED,
    ),
    at("dmq-legacy-overflow", 35, Ours::Payload(b"\x27\0\0\0\0\0\0\0record 5 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), FIFO),
    at("dmq-legacy-overflow", 38, Ours::Payload(b"\x27\0\0\0\0\0\0\0record 6 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), FIFO),
    at("dmq-legacy-overflow", 41, Ours::Payload(b"\x27\0\0\0\0\0\0\0record 7 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), FIFO),
    at("dmq-legacy-overflow", 44, Ours::Payload(b"\x27\0\0\0\0\0\0\0record 8 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), FIFO),
    at("dmq-legacy-overflow", 47, Ours::Payload(b"\x27\0\0\0\0\0\0\0record 9 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), FIFO),
    at(
        "dmq-legacy-pop-special",
        2,
        Ours::Payload(b"\xc8\0\0\0\0\0\0\0\0\0\0\0"),
        "a channel that is not there is empty; the published client closes its connection when it reads 500",
    ),
    at("dmq-neo-edge", 9, Ours::Payload(&[2]), EMPTY),
    at("dmq-neo-edge", 24, Ours::Payload(&[2]), BAD_NAME),
    at("dmq-neo-edge", 27, Ours::Payload(&[3]), BAD_NAME),
    at("dmq-neo-edge", 30, Ours::Payload(&[2]), BAD_NAME),
    at("dmq-neo-edge", 33, Ours::Payload(&[3]), BAD_NAME),
    at("dmq-neo-edge", 36, Ours::Payload(&[2]), BAD_NAME),
    at("dmq-neo-edge", 39, Ours::Payload(&[3]), BAD_NAME),
];

enum Dmq {}

impl Protocol for Dmq {
    type Engine = DmqEngine;

    /// The recorded node fills a batch until it has [`CONSUME_BATCH`] bytes, this one does not go beyond.
    fn does_for(payload: &[u8], recorded: &[u8]) -> bool {
        let (Some(ours), Some(mut all)) = (records(payload), records(recorded)) else { return false };
        let last = all.pop().map_or(0, |record| 8 + record.len());
        let bytes: usize = ours.iter().map(|record| 8 + record.len()).sum();
        bytes <= CONSUME_BATCH && bytes + last > CONSUME_BATCH && ours == all
    }

    fn aside(_: &overstory_replay::Node<DmqEngine>, line: &Line) -> Aside {
        assert_eq!(line.note, "the consumer disconnects");
        Aside::Disconnected
    }
}

/// The records that the node was shown to have and was not given in this recording, by neo.
fn stored_before(recording: &Recording) -> Vec<(String, Vec<u8>)> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let (mut given, mut before) = (Vec::new(), Vec::new());
    let mut asked: HashMap<(u64, u64), (String, bool)> = HashMap::new();
    for line in recording.lines.iter().filter(|line| line.neo) {
        let Some((id, payload)) = neo_message(&line.bytes) else { continue };
        if line.from_client && payload.len() > 2 {
            match Neo::decode(payload[0], &payload[2..]) {
                Ok(Neo::Push { channels, value }) => {
                    given.extend(channels.iter().map(|channel| (text(channel), value.to_vec())));
                }
                Ok(Neo::Pop { channel }) => drop(asked.insert((line.conn, id), (text(channel), false))),
                Ok(Neo::Consume { channel, .. }) => drop(asked.insert((line.conn, id), (text(channel), true))),
                Err(_) => {}
            }
        } else if let Some((channel, consumes)) = asked.get(&(line.conn, id))
            && payload.len() > 1
        {
            let values = match consumes {
                true => records(payload).unwrap(),
                false => match PopReply::decode(payload) {
                    Ok(PopReply::Popped(value)) => vec![value.to_vec()],
                    other => panic!("{other:?}"),
                },
            };
            before.extend(values.into_iter().map(|value| (channel.clone(), value)));
        }
    }
    before.retain(|record| !given.contains(record));
    before
}

fn play(name: &str) {
    let recording = Recording::read(name);
    let records = stored_before(&recording);
    let node = Node::start(Setup { channel_sizes: vec![("small", 200)], records, ..Setup::default() });
    Replay::<Dmq>::new(&node, &recording, DIFFERENCES).run();
}

macro_rules! play {
    ($($test:ident $file:literal)*) => {
        $(#[test] fn $test() { play($file); })*

        #[test]
        fn every_recording_of_a_dmq_is_played() {
            let played = [$($file),*];
            for name in Recording::names() {
                let ours = name.starts_with("dmq-") || name.starts_with("client-dmq-");
                assert!(!ours || played.contains(&name.as_str()), "{name} is not played");
            }
            for difference in DIFFERENCES {
                assert!(played.contains(&difference.file), "{} is not played", difference.file);
            }
        }
    };
}

play! {
    client_neo_consume "client-dmq-neo-consume"
    client_neo_pop "client-dmq-neo-pop"
    client_neo_push "client-dmq-neo-push"
    legacy_consume "dmq-legacy-consume"
    legacy_errors "dmq-legacy-errors"
    legacy_overflow "dmq-legacy-overflow"
    legacy_pop_special "dmq-legacy-pop-special"
    legacy_produce "dmq-legacy-produce"
    legacy_push_pop "dmq-legacy-push-pop"
    neo_consume "dmq-neo-consume"
    neo_consume_batches "dmq-neo-consume-batches"
    neo_edge "dmq-neo-edge"
    neo_push_pop "dmq-neo-push-pop"
    neo_subscribers "dmq-neo-subscribers"
    neo_unsupported "dmq-neo-unsupported"
}

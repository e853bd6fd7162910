//! Every recorded conversation of a dls node, played against this one.
//!
//! What the node sends must be what was recorded, byte for byte; compression and nonces aside. The order of the records
//! is not the node's own: buckets in the order of their keys, in a bucket the order of writing. Whatever differs
//! otherwise differs on purpose and stands in [`DIFFERENCES`] with the reason.

use std::collections::HashMap;

use overstory_logfiles::engine::LogfilesEngine;
use overstory_replay::recording::neo_message;
use overstory_replay::replay::{Aside, Unit};
use overstory_replay::{Difference, Line, Ours, Protocol, Record, Recording, Replay};
use overstory_swarm::batch::{self, Pairs, Refreshed};
use overstory_swarm::legacy::dls::{Request, code};
use overstory_swarm::legacy::{Decoded, Limits};
use overstory_swarm::neo::dls::{GetRangeMessage, Request as Neo};

use crate::rig::{Node, Setup};

const LIMITS: &str = "limits that are no keys are told to the client instead of finding nothing";
const SERVED: &str = "requests of the older clients are served";
const REFUSED: &str = "a request that cannot be done is refused instead of leaving the client waiting";
const BAD_NAME: &str = "neo names are checked: they become names of directories";

const fn at(file: &'static str, line: usize, ours: Ours, why: &'static str) -> Difference {
    Difference::new(file, line, ours, why)
}

const INVALID: Ours = Ours::Payload(b"\x90\x01\0\0");

const DIFFERENCES: &[Difference] = &[
    at("dls-legacy-errors", 24, INVALID, LIMITS),
    at("dls-legacy-errors", 25, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 26, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 30, INVALID, LIMITS),
    at("dls-legacy-errors", 31, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 32, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 36, INVALID, LIMITS),
    at("dls-legacy-errors", 37, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 38, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 42, INVALID, LIMITS),
    at("dls-legacy-errors", 43, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 44, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 48, INVALID, LIMITS),
    at("dls-legacy-errors", 49, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 50, Ours::Absent, LIMITS),
    at("dls-legacy-errors", 60, Ours::Silent, "GetChannelSize waits for the name of the channel"),
    at(
        "dls-legacy-errors",
        62,
        Ours::Sends(b"\xc8\0\0\0\x09\0\0\0\0\0\0\x00127.0.0.1\xd8\x59\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        SERVED,
    ),
    at("dls-legacy-errors", 64, Ours::Sends(b"\xc8\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), SERVED),
    at("dls-neo-getrange-errors", 9, Ours::Sends(&[3]), REFUSED),
    at("dls-neo-getrange-errors", 21, Ours::Sends(&[3]), REFUSED),
    at("dls-neo-getrange-errors", 46, Ours::Payload(&[3]), BAD_NAME),
    at("dls-neo-getrange-errors", 47, Ours::Absent, BAD_NAME),
    at("dls-neo-getrange-errors", 62, Ours::Sends(&[2]), BAD_NAME),
    at("dls-neo-getrange-errors", 71, Ours::Payload(&[2]), BAD_NAME),
];

enum Dls {}

impl Protocol for Dls {
    type Engine = LogfilesEngine;

    fn legacy_unit(request: i32, unit: usize) -> Unit {
        match request {
            code::GET_RANGE | code::GET_ALL | code::GET_ALL_FILTER | code::GET_RANGE_FILTER | code::GET_RANGE_REGEX
                if unit > 0 =>
            {
                Unit::Ordered(pairs)
            }
            _ => Unit::Exact,
        }
    }

    /// A batch may be compressed differently; what is in it and where it ends may not differ.
    fn does_for(payload: &[u8], recorded: &[u8]) -> bool {
        records(payload).is_some_and(|ours| Some(ours) == records(recorded))
    }

    fn aside(_: &overstory_replay::Node<LogfilesEngine>, line: &Line) -> Aside {
        assert!(line.note.contains("closes the connection"), "{}", line.note);
        Aside::Disconnected
    }
}

/// The records of a legacy batch.
fn pairs(batch: &[u8]) -> Vec<Record> {
    let mut plain = Vec::new();
    batch::decode(batch, 16 << 20, &mut plain).unwrap();
    Pairs::new(&plain).map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// The records of a neo batch, if the message is one.
fn records(payload: &[u8]) -> Option<Vec<(i64, Vec<u8>)>> {
    let Ok(GetRangeMessage::Records(block)) = GetRangeMessage::decode(payload) else { return None };
    let mut plain = Vec::new();
    batch::decode_block(block.plain_len, block.block, 16 << 20, &mut plain).unwrap();
    let record = |record: Result<(u64, &[u8]), _>| record.map(|(key, value)| (key.cast_signed(), value.to_vec()));
    Some(Refreshed::new(&plain).map(|each| record(each).unwrap()).collect())
}

fn legacy_request(bytes: &[u8]) -> Option<Request<'_>> {
    match overstory_swarm::legacy::dls::decode(bytes, &Limits::default()) {
        Ok(Decoded::Request { request, .. }) => Some(request),
        _ => None,
    }
}

fn key_of(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// Channel, key and value.
type Stored = (String, u64, Vec<u8>);

/// The records that the node was shown to have and was not given in this recording, in order.
fn stored_before(recording: &Recording) -> Vec<Stored> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let (mut given, mut before): (Vec<Stored>, Vec<_>) = (Vec::new(), Vec::new());
    let mut asked: HashMap<(u64, u64), (usize, String)> = HashMap::new();
    for (number, line) in recording.lines.iter().enumerate() {
        match (line.from_client, line.neo) {
            (true, true) => {
                let Some((id, payload)) = neo_message(&line.bytes).filter(|(_, payload)| payload.len() > 2) else {
                    continue;
                };
                match Neo::decode(payload[0], &payload[2..]) {
                    Ok(Neo::Put { channel, timestamp, value }) => {
                        given.push((text(channel), timestamp.cast_unsigned(), value.to_vec()));
                    }
                    Ok(Neo::GetRange { channel, .. }) => drop(asked.insert((line.conn, id), (number, text(channel)))),
                    _ => {}
                }
            }
            (true, false) => {
                asked.remove(&(line.conn, 0));
                match legacy_request(&line.bytes) {
                    Some(Request::Put { channel, key, value }) => {
                        given.extend(key_of(key).map(|key| (text(channel), key, value.to_vec())));
                    }
                    Some(Request::PutBatch { channel, batch }) => {
                        let all = pairs(batch).into_iter();
                        given.extend(all.filter_map(|(key, value)| Some((text(channel), key_of(&key)?, value))));
                    }
                    Some(
                        Request::GetAll { channel }
                        | Request::GetRange { channel, .. }
                        | Request::GetAllFilter { channel, .. },
                    ) => drop(asked.insert((line.conn, 0), (number, text(channel)))),
                    _ => {}
                }
            }
            (false, true) => {
                let Some((id, payload)) = neo_message(&line.bytes) else { continue };
                if let (Some((number, channel)), Some(records)) = (asked.get(&(line.conn, id)), records(payload)) {
                    let all = records.into_iter();
                    before.extend(all.map(|(key, value)| (*number, (channel.clone(), key.cast_unsigned(), value))));
                }
            }
            (false, false) if line.bytes.len() > 8 => {
                let Some((number, channel)) = asked.get(&(line.conn, 0)) else { continue };
                let all = pairs(&line.bytes[8..]).into_iter();
                before.extend(all.filter_map(|(key, value)| Some((*number, (channel.clone(), key_of(&key)?, value)))));
            }
            (false, false) => {}
        }
    }
    let mut stored: Vec<Stored> = Vec::new();
    for answer in before.chunk_by(|(one, _), (other, _)| one == other) {
        // What two answers have was stored once, what one of them has twice was stored twice.
        for (at, (_, record)) in answer.iter().enumerate() {
            let nth = answer[..=at].iter().filter(|(_, same)| same == record).count();
            if !given.contains(record) && stored.iter().filter(|same| *same == record).count() < nth {
                stored.push(record.clone());
            }
        }
    }
    stored
}

/// Recordings of the library show all that came at once as one line; here they are one line per unit, as the others.
fn in_units(mut recording: Recording) -> Recording {
    let mut reads = HashMap::new();
    let mut lines = Vec::new();
    for line in recording.lines {
        if line.from_client && !line.neo {
            let is_read = legacy_request(&line.bytes).is_some_and(|request| {
                matches!(
                    request,
                    Request::GetAll { .. }
                        | Request::GetRange { .. }
                        | Request::GetAllFilter { .. }
                        | Request::GetRangeFilter { .. }
                        | Request::GetRangeRegex { .. }
                )
            });
            reads.insert(line.conn, is_read);
        }
        if line.from_client || line.neo || !reads.get(&line.conn).is_some_and(|&is| is) || line.bytes.len() <= 8 {
            lines.push(line);
            continue;
        }
        let mut rest = &line.bytes[..];
        if rest.len() > 4 && rest.starts_with(&200_i32.to_le_bytes()) && line.note.contains("reply data") {
            lines.push(Line { bytes: rest[..4].to_vec(), ..line.clone() });
            rest = &rest[4..];
        }
        while !rest.is_empty() {
            let length = 8 + usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            lines.push(Line { bytes: rest[..length].to_vec(), ..line.clone() });
            rest = &rest[length..];
        }
    }
    recording.lines = lines;
    recording
}

fn play(name: &str) {
    let recording = in_units(Recording::read(name));
    let node = Node::start(Setup { records: stored_before(&recording), ..Setup::default() });
    Replay::<Dls>::new(&node, &recording, DIFFERENCES).run();
}

macro_rules! play {
    ($($test:ident $file:literal)*) => {
        $(#[test] fn $test() { play($file); })*

        #[test]
        fn every_recording_of_a_dls_is_played() {
            // These need a second node.
            const ELSEWHERE: &[&str] = &["dls-redistribute", "dls-redistribute-node-to-node"];
            let played = [$($file),*];
            for name in Recording::names() {
                let ours = name.starts_with("dls-") || name.starts_with("client-dls-");
                let known = played.contains(&name.as_str()) || ELSEWHERE.contains(&name.as_str());
                assert!(!ours || known, "{name} is not played");
            }
            for difference in DIFFERENCES {
                assert!(played.contains(&difference.file), "{} is not played", difference.file);
            }
        }
    };
}

play! {
    client_legacy_getrange "client-dls-legacy-getrange"
    client_legacy_regex_malformed "client-dls-legacy-regex-malformed"
    client_neo_getrange "client-dls-neo-getrange"
    client_neo_put "client-dls-neo-put"
    legacy_channels "dls-legacy-channels"
    legacy_errors "dls-legacy-errors"
    legacy_filter "dls-legacy-filter"
    legacy_getall_batches "dls-legacy-getall-batches"
    legacy_put_getrange "dls-legacy-put-getrange"
    legacy_putbatch "dls-legacy-putbatch"
    legacy_regex_malformed "dls-legacy-regex-malformed"
    neo_getrange_batches "dls-neo-getrange-batches"
    neo_getrange_errors "dls-neo-getrange-errors"
    neo_getrange_filter "dls-neo-getrange-filter"
    neo_put_getrange "dls-neo-put-getrange"
    neo_unsupported "dls-neo-unsupported"
}

/// The recorded nodes sent one batch for each bucket; this one sends whatever fits into one. What arrives is the same.
#[test]
fn a_redistribution_sends_what_was_recorded() {
    let other = Node::start(Setup::default());
    let node = Node::start(Setup::default());
    let recording = with_target_port(Recording::read("dls-redistribute"), other.legacy.port());
    Replay::<Dls>::new(&node, &recording, &[]).run();
    let mut sent = Vec::new();
    for line in Recording::read("dls-redistribute-node-to-node").lines.iter().filter(|line| line.from_client) {
        let Some(Request::PutBatch { channel: b"re", batch }) = legacy_request(&line.bytes) else { panic!("a batch") };
        sent.extend(pairs(batch));
    }
    sent.sort();
    let mut arrived = other.all("re");
    arrived.sort();
    let text = |(key, value): (u64, Vec<u8>)| (format!("{key:016x}").into_bytes(), value);
    assert_eq!(arrived.into_iter().map(text).collect::<Vec<_>>(), sent);
    assert_eq!(node.all("re"), []);

    let fresh = Node::start(Setup::default());
    Replay::<Dls>::new(&fresh, &Recording::read("dls-redistribute-node-to-node"), &[]).run();
    assert_eq!(fresh.all("re").len(), sent.len());
}

/// The recording with the port of a node that is there.
fn with_target_port(mut recording: Recording, port: u16) -> Recording {
    let recorded = [&b"127.0.0.1"[..], &23_350_u16.to_le_bytes()].concat();
    for line in recording.lines.iter_mut().filter(|line| line.from_client) {
        if let Some(place) = line.bytes.windows(recorded.len()).position(|bytes| bytes == recorded) {
            line.bytes[place + 9..place + 11].copy_from_slice(&port.to_le_bytes());
        }
    }
    recording
}

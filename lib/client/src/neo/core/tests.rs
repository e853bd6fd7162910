#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use overstory_swarm::batch::BatchBuilder;
use overstory_swarm::key::Key;
use overstory_swarm::neo::dht::{GetAll, GetAllMessage, Request};
use overstory_swarm::neo::dls::{GetRangeMessage, RecordsBlock};
use overstory_swarm::neo::dmq::ConsumeMessage;
use proptest::prelude::*;

use super::*;

/// The lines of a recorded conversation after the authentication: whether the node sent it, and its bytes.
fn recording(name: &str) -> Vec<(bool, Vec<u8>)> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str().unwrap();
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        (line["from"] == "node", bytes)
    });
    lines.filter(|(_, bytes): &(bool, Vec<u8>)| bytes.len() > 10 && bytes[0] == 1).collect()
}

/// Plays the client's part of a recording: what the core sends must be the published library's bytes.
fn replay(name: &str) -> Vec<String> {
    let mut core = Core::new();
    let mut events = Vec::new();
    for (from_node, bytes) in recording(name) {
        if from_node {
            let consumed = core.receive(&bytes, |tag: &mut u64, event| {
                events.push(format!("{tag} {event:?}"));
                false
            });
            assert_eq!(consumed.unwrap(), bytes.len());
            continue;
        }
        // What is not an answer of the core's own begins a request.
        if core.out.is_empty() {
            let (id, payload) = split_body(&bytes[10..]).unwrap();
            match payload {
                [1] => core.go_on(id),
                [code, _, rest @ ..] if name.starts_with("client-dmq") => {
                    assert_eq!(core.begin(&dmq::Request::decode(*code, rest).unwrap(), id), Some(id), "{name}");
                }
                [code, _, rest @ ..] if name.starts_with("client-dls") => {
                    assert_eq!(core.begin(&dls::Request::decode(*code, rest).unwrap(), id), Some(id), "{name}");
                }
                [code, _, rest @ ..] => {
                    assert_eq!(core.begin(&Request::decode(*code, rest).unwrap(), id), Some(id), "{name}");
                }
                _ => panic!("{name}"),
            }
        }
        assert_eq!(std::mem::take(&mut core.out), bytes, "{name}");
    }
    assert!(core.out.is_empty());
    events
}

#[test]
fn the_published_client_is_copied_byte_for_byte() {
    let puts = replay("client-dht-neo-put");
    assert_eq!(puts.iter().filter(|event| event.ends_with("Last([1])")).count(), 3, "{puts:?}");
    let gets = replay("client-dht-neo-get");
    assert!(gets.iter().any(|event| event.contains("Value(")), "{gets:?}");
    let all = replay("client-dht-neo-getall");
    assert_eq!(all.last().map(String::as_str), Some("2 Last([8])"));
}

fn message(out: &mut Vec<u8>, id: u64, write: impl FnOnce(&mut Vec<u8>)) {
    Replies::new(out, id).message(write);
}

fn take(core: &mut Core<u64>) -> Vec<u8> {
    let mut codes = Vec::new();
    let out = std::mem::take(&mut core.out);
    let mut rest = &out[..];
    while let Step::Message { body, consumed, .. } = frame::next(rest, MAX_BODY).unwrap() {
        codes.push(split_body(body).unwrap().1[0]);
        rest = &rest[consumed..];
        if rest.is_empty() {
            break;
        }
    }
    codes
}

fn get_all(core: &mut Core<u64>) -> u64 {
    let all = GetAll { start_suspended: false, channel: b"c", after: None, keys_only: false, filter: b"" };
    let id = core.begin(&Request::GetAll(all), 0).unwrap();
    core.out.clear();
    id
}

fn feed(core: &mut Core<u64>, id: u64, payloads: &[&[u8]]) -> Vec<String> {
    let mut input = Vec::new();
    payloads.iter().for_each(|payload| message(&mut input, id, |out| out.extend_from_slice(payload)));
    let mut events = Vec::new();
    let full = |_: &mut u64, event: Event<'_>| {
        events.push(format!("{event:?}"));
        false
    };
    core.receive(&input, full).unwrap();
    events
}

#[test]
fn only_one_change_of_state_is_under_way() {
    let mut core = Core::new();
    let id = get_all(&mut core);
    // Nothing may be sent before the request has started.
    core.hold(id, true);
    assert_eq!(take(&mut core), [0u8; 0]);
    feed(&mut core, id, &[&[SUPPORTED], &[STARTED]]);
    assert_eq!(take(&mut core), [1]);
    core.hold(id, false);
    core.stop(id);
    assert_eq!(take(&mut core), [0u8; 0]);
    // The acknowledgement of the suspension lets the stop out; resuming is pointless then.
    feed(&mut core, id, &[&[ACK]]);
    assert_eq!(take(&mut core), [3]);
    assert_eq!(feed(&mut core, id, &[&[ACK]]), ["Stopped"]);
    assert_eq!(core.in_flight(), 0);
}

#[test]
fn a_control_that_crosses_the_end_gets_no_answer() {
    let mut core = Core::new();
    let id = get_all(&mut core);
    feed(&mut core, id, &[&[SUPPORTED], &[STARTED]]);
    core.hold(id, true);
    assert_eq!(take(&mut core), [1]);
    assert_eq!(feed(&mut core, id, &[&[8]]), ["Last([8])"]);
    assert_eq!(take(&mut core), [ACK]);
    // Late messages of a request that is over are nobody's.
    assert_eq!(feed(&mut core, id, &[&[ACK], &[9, 9]]), [""; 0]);
}

#[test]
fn a_reader_that_has_enough_makes_the_node_pause() {
    let mut core = Core::new();
    let id = get_all(&mut core);
    feed(&mut core, id, &[&[SUPPORTED], &[STARTED]]);
    let mut input = Vec::new();
    message(&mut input, id, |out| GetAllMessage::RecordBatch(b"x").encode(out));
    core.receive(&input, |_, _| true).unwrap();
    core.receive(&input, |_, _| true).unwrap();
    assert_eq!(take(&mut core), [1]);
    feed(&mut core, id, &[&[ACK]]);
    core.full(id, false);
    assert_eq!(take(&mut core), [2]);
}

#[test]
fn what_a_node_must_not_send_is_noticed() {
    for payloads in [&[&[7u8][..]][..], &[&[SUPPORTED], &[7, 0, 0, 0, 0, 0, 0, 0, 0]], &[&[SUPPORTED], &[ACK]]] {
        let mut core = Core::<u64>::new();
        let id = get_all(&mut core);
        let mut input = Vec::new();
        payloads.iter().for_each(|payload| message(&mut input, id, |out| out.extend_from_slice(payload)));
        assert!(core.receive(&input, |_, _| false).is_err(), "{payloads:?}");
    }
    let mut core = Core::<u64>::new();
    let mut input = Vec::new();
    frame::put(&mut input, Kind::Authentication, &[1]);
    assert!(matches!(core.receive(&input, |_, _| false), Err(Violation::Authentication)));
}

proptest! {
    #[test]
    fn any_split_of_the_stream_gives_the_same_events(cuts in prop::collection::vec(1usize..40, 1..60)) {
        let mut whole = Vec::new();
        let mut builder = BatchBuilder::new(65536);
        let _ = builder.pair(&1u64.to_le_bytes(), b"value");
        let begin = |core: &mut Core<u64>| {
            core.begin(&Request::Get { channel: b"c", key: Key(1) }, 1);
            core.begin(&Request::Put { channel: b"c", key: Key(1), value: b"v" }, 2);
            get_all(core);
        };
        let mut core = Core::new();
        begin(&mut core);
        message(&mut whole, 1, |out| out.push(SUPPORTED));
        message(&mut whole, 3, |out| out.push(SUPPORTED));
        message(&mut whole, 3, |out| out.push(STARTED));
        message(&mut whole, 1, |out| out.push(2));
        message(&mut whole, 3, |out| GetAllMessage::encode_batch(out, |out| builder.finish(out)));
        message(&mut whole, 1, |out| overstory_swarm::neo::dht::put_value(out, b"the value"));
        message(&mut whole, 2, |out| out.push(SUPPORTED));
        message(&mut whole, 2, |out| out.push(1));
        message(&mut whole, 3, |out| out.push(8));
        let mut expected = Vec::new();
        core.receive(&whole, |tag, event| { expected.push(format!("{tag} {event:?}")); false }).unwrap();

        let mut core = Core::new();
        begin(&mut core);
        let (mut input, mut got, mut at) = (Vec::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(whole.len());
            input.extend_from_slice(&whole[at..end]);
            at = end;
            let done = core.receive(&input, |tag, event| { got.push(format!("{tag} {event:?}")); false }).unwrap();
            input.drain(..done);
            if at == whole.len() {
                break;
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(got, expected);
    }
}

fn consume(core: &mut Core<u64>) -> u64 {
    let id = core.begin(&dmq::Request::Consume { channel: b"c", subscriber: b"" }, 0).unwrap();
    core.out.clear();
    id
}

#[test]
fn a_consume_is_given_credit_batch_by_batch() {
    let mut core = Core::new();
    let id = consume(&mut core);
    assert_eq!(feed(&mut core, id, &[&[SUPPORTED], &[1]]), ["Item([1])"]);
    let mut batch = Vec::new();
    ConsumeMessage::Records(b"").encode(&mut batch);
    assert_eq!(feed(&mut core, id, &[&batch]).len(), 1);
    assert_eq!(take(&mut core), [0u8; 0], "nothing is taken over before the caller says so");
    core.go_on(id);
    assert_eq!(take(&mut core), [1]);
    core.hold(id, true);
    core.full(id, true);
    assert_eq!(take(&mut core), [0u8; 0], "there is no suspending by message");
    // A batch that crosses the Stop still counts, and nothing but the Stop is said.
    core.stop(id);
    core.go_on(id);
    assert_eq!(take(&mut core), [2]);
    assert_eq!(feed(&mut core, id, &[&batch]).len(), 1);
    core.go_on(id);
    assert_eq!(feed(&mut core, id, &[&[4]]), ["Stopped"]);
    assert_eq!((take(&mut core), core.in_flight()), (vec![], 0));
}

#[test]
fn a_consume_ends_by_error_and_with_its_channel_and_a_stop_waits_for_its_start() {
    for (payloads, last) in [(&[&[SUPPORTED][..], &[2]][..], "Last([2])"), (&[&[SUPPORTED], &[1], &[5]], "Last([5])")] {
        let mut core = Core::new();
        let id = consume(&mut core);
        core.stop(id);
        assert_eq!(take(&mut core), [0u8; 0]);
        assert_eq!(feed(&mut core, id, payloads).last().map(String::as_str), Some(last));
        assert_eq!(core.in_flight(), 0);
    }
    let mut core = Core::<u64>::new();
    let id = consume(&mut core);
    for payloads in [&[&[SUPPORTED][..], &[3, 0, 0, 0, 0, 0, 0, 0, 0]][..], &[&[SUPPORTED], &[4]]] {
        let mut input = Vec::new();
        payloads.iter().for_each(|payload| message(&mut input, id, |out| out.extend_from_slice(payload)));
        assert!(core.receive(&input, |_, _| false).is_err(), "{payloads:?}");
        core = Core::new();
        consume(&mut core);
    }
}

#[test]
fn the_published_client_of_a_queue_is_copied_byte_for_byte() {
    let pushes = replay("client-dmq-neo-push");
    assert!(!pushes.is_empty() && pushes.iter().all(|event| event.ends_with("Last([1])")), "{pushes:?}");
    let pops = replay("client-dmq-neo-pop");
    assert!(!pops.is_empty() && pops.iter().all(|event| event.contains("Value([120, 120")), "{pops:?}");
    let consumed = replay("client-dmq-neo-consume");
    assert!(consumed.len() == 2 && consumed[0] == "1 Item([1])", "{consumed:?}");
}

#[test]
fn a_pop_brings_a_value_or_its_reason() {
    let mut core = Core::new();
    for (payload, event) in [(&[1, 1, 0, 0, 0, 0, 0, 0, 0, b'v'][..], "Value([118])"), (&[2], "Last([2])")] {
        let id = core.begin(&dmq::Request::Pop { channel: b"c" }, 0).unwrap();
        assert_eq!(feed(&mut core, id, &[&[SUPPORTED], payload]), [event]);
    }
    let id = core.begin(&dmq::Request::Pop { channel: b"c" }, 0).unwrap();
    let mut input = Vec::new();
    message(&mut input, id, |out| out.push(SUPPORTED));
    message(&mut input, id, |out| out.extend_from_slice(&[1, 9, 0, 0, 0, 0, 0, 0, 0]));
    assert!(core.receive(&input, |_, _| false).is_err());
}

#[test]
fn the_published_client_of_logfiles_is_copied_byte_for_byte() {
    let puts = replay("client-dls-neo-put");
    assert!(puts.len() == 3 && puts.iter().all(|event| event.ends_with("Last([1])")), "{puts:?}");
    let read = replay("client-dls-neo-getrange");
    assert!(read.len() == 2 && read[0].starts_with("1 Item([3, ") && read[1] == "1 Last([5])", "{read:?}");
}

fn get_range(core: &mut Core<u64>) -> u64 {
    let request = dls::Request::GetRange { channel: b"c", low: 0, high: 9, filter: b"", mode: 0 };
    let id = core.begin(&request, 0).unwrap();
    core.out.clear();
    id
}

fn log_batch() -> Vec<u8> {
    let mut batch = Vec::new();
    GetRangeMessage::Records(RecordsBlock { plain_len: 0, block: b"" }).encode(&mut batch);
    batch
}

#[test]
fn a_get_range_is_answered_batch_by_batch_and_at_no_other_time() {
    let (mut core, batch) = (Core::new(), log_batch());
    let id = get_range(&mut core);
    core.go_on(id);
    assert_eq!(feed(&mut core, id, &[&[SUPPORTED], &[1]]), [""; 0]);
    core.go_on(id);
    assert_eq!(take(&mut core), [0u8; 0]);
    assert_eq!(feed(&mut core, id, &[&batch]).len(), 1);
    core.go_on(id);
    core.go_on(id);
    assert_eq!(take(&mut core), [1], "one answer");
    // A Stop waits for the next batch.
    core.stop(id);
    assert_eq!(take(&mut core), [0u8; 0]);
    assert_eq!(feed(&mut core, id, &[&batch]).len(), 1);
    core.go_on(id);
    assert_eq!(take(&mut core), [2]);
    assert_eq!(feed(&mut core, id, &[&[4]]), ["Stopped"]);
    assert_eq!((take(&mut core), core.in_flight()), (vec![], 0));
    // A batch that has no answer yet is answered at once.
    let id = get_range(&mut core);
    feed(&mut core, id, &[&[SUPPORTED], &[1], &batch]);
    core.stop(id);
    assert_eq!(take(&mut core), [2]);
    // The end comes first: it is acknowledged, and nothing else is said.
    let id = get_range(&mut core);
    feed(&mut core, id, &[&[SUPPORTED], &[1]]);
    core.stop(id);
    assert_eq!(feed(&mut core, id, &[&[5]]), ["Last([5])"]);
    assert_eq!(take(&mut core), [6]);
}

#[test]
fn a_node_that_listens_is_stopped_at_any_time() {
    let (mut core, batch) = (Core::new(), log_batch());
    core.listens = true;
    let id = get_range(&mut core);
    feed(&mut core, id, &[&[SUPPORTED], &[1]]);
    core.stop(id);
    assert_eq!(take(&mut core), [2]);
    // A batch, or the end, that crosses it.
    assert_eq!(feed(&mut core, id, &[&batch]).len(), 1);
    core.go_on(id);
    assert_eq!(take(&mut core), [0u8; 0]);
    assert_eq!(feed(&mut core, id, &[&[4]]), ["Stopped"]);
    let id = get_range(&mut core);
    feed(&mut core, id, &[&[SUPPORTED], &[1]]);
    core.stop(id);
    assert_eq!(feed(&mut core, id, &[&[5]]), ["Last([5])"]);
    assert_eq!(take(&mut core), [2, 6]);
}

#[test]
fn a_get_range_is_refused_before_it_begins_and_fails_at_any_time() {
    for (payloads, last) in [
        (&[&[SUPPORTED][..], &[3]][..], "Last([3])"),
        (&[&[SUPPORTED], &[7]], "Last([7])"),
        (&[&[SUPPORTED], &[1], &[7]], "Last([7])"),
        (&[&[0xfe]], "Unsupported"),
    ] {
        let mut core = Core::new();
        let id = get_range(&mut core);
        assert_eq!(feed(&mut core, id, payloads).last().map(String::as_str), Some(last));
        assert_eq!(core.in_flight(), 0);
    }
    let batch = log_batch();
    for payloads in [
        &[&[SUPPORTED][..], &batch][..],
        &[&[SUPPORTED], &[1], &batch, &batch],
        &[&[SUPPORTED], &[1], &[4]],
        &[&[SUPPORTED], &[1], &[1]],
        &[&[SUPPORTED], &[5]],
        &[&[SUPPORTED], &[1], &[3]],
    ] {
        let mut core = Core::<u64>::new();
        let id = get_range(&mut core);
        let mut input = Vec::new();
        payloads.iter().for_each(|payload| message(&mut input, id, |out| out.extend_from_slice(payload)));
        assert!(core.receive(&input, |_, _| false).is_err(), "{payloads:?}");
    }
    let mut core = Core::new();
    let id = core.begin(&dls::Request::GetTimestampRange, 0).unwrap();
    assert_eq!(feed(&mut core, id, &[&[SUPPORTED], &[1, 2]]), ["Value([1, 2])"]);
}

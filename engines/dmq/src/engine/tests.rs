#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::{Ipv4Addr, SocketAddrV4};

use overstory_node::engine::{Flow, NeoStream, Produced, SinkStep};
use overstory_swarm::legacy::Names;
use overstory_swarm::legacy::dmq::Request as Legacy;
use overstory_swarm::neo::dmq::{Channels, Records, Request as Neo};
use overstory_swarm::wire::put_array;

use super::*;
use crate::store::{Options, Sizes};

/// An engine whose queues have 100 bytes.
fn engine(redeliver: bool) -> DmqEngine {
    let sizes = Sizes { default: 100, by_prefix: vec![("large".to_owned(), 1 << 30)] };
    let store = Store::new(Options { sizes, redeliver }, None);
    let settings = EngineSettings { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 22_000) };
    DmqEngine::new(store, settings, Rc::new(NodeStats::new::<DmqEngine>()), None)
}

fn peer() -> Peer {
    Peer { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), name: Rc::from("test") }
}

/// Asks by legacy; the reply, or the step if it goes on.
fn legacy(engine: &DmqEngine, request: &Legacy<'_>) -> (Vec<u8>, LegacyStep) {
    let (mut input, mut out) = (Vec::new(), Vec::new());
    request.encode(&mut input);
    let step = engine.legacy(&peer(), &Waker::noop(), &input, &mut out);
    (out, step)
}

fn status(engine: &DmqEngine, request: &Legacy<'_>) -> i32 {
    i32::from_le_bytes(*legacy(engine, request).0.first_chunk().unwrap())
}

/// Begins a neo request from what follows its code and version.
fn neo_with(engine: &DmqEngine, code: u8, payload: &[u8], waker: &Waker) -> (Vec<u8>, Begun) {
    let mut out = Vec::new();
    let peer = peer();
    let request = NeoRequest { code, version: 0, payload, peer: &peer, waker };
    let begun = engine.neo(request, &mut Replies::new(&mut out, 1));
    (out, begun)
}

/// The payloads of messages.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(u64::from_le_bytes(bytes[1..9].try_into().unwrap())).unwrap();
        all.push(bytes[18..10 + length].to_vec());
        bytes = &bytes[10 + length..];
    }
    all
}

/// Asks by neo what is answered at once; the payload of the answer.
fn neo(engine: &DmqEngine, request: &Neo<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    request.encode(&mut payload);
    let (out, begun) = neo_with(engine, payload[0], &payload[2..], &Waker::noop());
    assert!(matches!(begun, Begun::Done));
    let mut messages = messages(&out);
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

fn push(engine: &DmqEngine, channels: &[&str], value: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let channels = Channels::new(channels.iter().map(|name| name.as_bytes()), &mut buffer).unwrap();
    neo(engine, &Neo::Push { channels, value })
}

/// A Consume that has started.
fn consume(engine: &DmqEngine, channel: &str, subscriber: &str) -> Box<dyn NeoStream> {
    let mut payload = Vec::new();
    Neo::Consume { channel: channel.as_bytes(), subscriber: subscriber.as_bytes() }.encode(&mut payload);
    let (out, begun) = neo_with(engine, payload[0], &payload[2..], &Waker::noop());
    assert_eq!(messages(&out), [[1]]);
    let Begun::Stream(stream) = begun else { panic!("not begun") };
    stream
}

/// What a stream sends next.
fn produced(stream: &mut dyn NeoStream) -> (Vec<Vec<u8>>, Produced) {
    let mut out = Vec::new();
    let produced = stream.produce(&mut Replies::new(&mut out, 1));
    (messages(&out), produced)
}

fn told(stream: &mut dyn NeoStream, control: u8) -> Result<(Vec<Vec<u8>>, Flow), ()> {
    let mut out = Vec::new();
    let flow = stream.message(&[control], &mut Replies::new(&mut out, 1)).map_err(|_| ())?;
    Ok((messages(&out), flow))
}

/// The records of a batch.
fn records(message: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(message[0], 3);
    Records::new(&message[9..]).map(|record| record.unwrap().to_vec()).collect()
}

#[test]
fn a_bad_name_is_told_before_an_empty_value_and_that_before_a_full_queue() {
    let engine = engine(false);
    let fill = [7; 92];
    assert_eq!(status(&engine, &Legacy::Push { channel: b"full", value: &fill }), 200);
    for (channel, value, expected) in [
        (&b"a/b"[..], &b""[..], 409),
        (b"", b"", 409),
        (b"full", b"", 408),
        (b"full", b"v", 407),
        (b"free", &[0; 93], 407),
        (b"free", &[0; 92], 200),
    ] {
        assert_eq!(status(&engine, &Legacy::Push { channel, value }), expected, "{channel:?}");
        let mut buffer = Vec::new();
        if !channel.is_empty() && expected != 200 {
            let channels = Names::new([&b"other"[..], channel], &mut buffer);
            assert_eq!(status(&engine, &Legacy::PushMulti { channels, value }), expected, "{channel:?}");
        }
    }
    // Nothing of what was refused is anywhere.
    assert!(engine.store().borrow().channel_totals("other").is_none_or(|totals| totals.records == 0));
    for request in [
        Legacy::Pop { channel: b"a b" },
        Legacy::Consume { channel: b"../x" },
        Legacy::Produce { channel: b"a@b" },
        Legacy::RemoveChannel { channel: b"" },
        Legacy::GetChannelSize { channel: b"." },
    ] {
        let (out, step) = legacy(&engine, &request);
        assert_eq!(out, 409_i32.to_le_bytes(), "{request:?}");
        assert!(matches!(step, LegacyStep::Done { .. }));
    }
}

#[test]
fn what_is_wrong_with_a_neo_request_is_answered_with_its_error() {
    let engine = engine(false);
    for (code, error) in [(1, 2), (2, 3), (6, 2)] {
        for payload in [&b""[..], &[1], &[1, 9, 0, 0, 0, 0, 0, 0, 0], &[255; 40]] {
            let (out, begun) = neo_with(&engine, code, payload, &Waker::noop());
            assert_eq!(messages(&out), [[error]], "{code} {payload:?}");
            assert!(matches!(begun, Begun::Done));
        }
    }
    assert_eq!(push(&engine, &["a@b"], b"v"), [2]);
    assert_eq!(push(&engine, &["a", ""], b"v"), [2]);
    assert_eq!(push(&engine, &["a"], b""), [2]);
    assert_eq!(push(&engine, &["a"], &[0; 93]), [2]);
    assert_eq!(push(&engine, &[], b"v"), [1]);
    assert_eq!(neo(&engine, &Neo::Pop { channel: b"a b" }), [3]);
    assert_eq!(neo(&engine, &Neo::Pop { channel: b"missing" }), [2]);
    for (channel, subscriber) in [(&b"a/b"[..], &b""[..]), (b"a", b"x@y"), (b"", b"s"), (&[b'c'; 230], &[b's'; 10])] {
        assert_eq!(neo(&engine, &Neo::Consume { channel, subscriber }), [2], "{channel:?} {subscriber:?}");
    }
    // A read makes no channel.
    assert_eq!(engine.store().borrow().channel_count(), 0);
}

#[test]
fn a_push_counts_once_for_each_queue() {
    let engine = engine(false);
    let _one = consume(&engine, "a", "one");
    let _two = consume(&engine, "a", "two");
    assert_eq!(push(&engine, &["a", "b", "a"], b"xyz"), [1]);
    let pushed = &engine.core.stats.actions[0];
    assert_eq!((pushed.records.get(), pushed.bytes.get()), (5, 15));
    assert_eq!(neo(&engine, &Neo::Pop { channel: b"b" }), [&[1, 3, 0, 0, 0, 0, 0, 0, 0][..], b"xyz"].concat());
    assert_eq!(neo(&engine, &Neo::Pop { channel: b"a" }), [4]);
    assert_eq!(engine.core.stats.actions[1].records.get(), 1);
}

#[test]
fn a_batch_comes_back_when_its_consumer_is_gone_unless_it_took_it_over() {
    for redeliver in [true, false] {
        let engine = engine(redeliver);
        for value in [b"1", b"2"] {
            assert_eq!(push(&engine, &["a"], value), [1]);
        }
        let mut stream = consume(&engine, "a", "");
        let (batch, state) = produced(&mut *stream);
        assert_eq!((records(&batch[0]), state), (vec![b"1".to_vec(), b"2".to_vec()], Produced::Idle));
        // One batch is on its way at a time.
        assert_eq!(push(&engine, &["a"], b"3"), [1]);
        assert_eq!(produced(&mut *stream), (vec![], Produced::Idle));
        drop(stream);
        let mut stream = consume(&engine, "a", "");
        let mut got = Vec::new();
        loop {
            let (batch, _) = produced(&mut *stream);
            let Some(batch) = batch.first() else { break };
            got.extend(records(batch));
            assert_eq!(told(&mut *stream, 1), Ok((vec![], Flow::Continue)));
        }
        let expected: &[&[u8]] = if redeliver { &[b"1", b"2", b"3"] } else { &[b"3"] };
        assert_eq!(got, expected);
        assert_eq!(told(&mut *stream, 1), Err(()), "a Continue without a batch");
        drop(stream);
        // What was taken over does not come back.
        assert_eq!(engine.core.totals().records, 0);
    }
}

#[test]
fn a_stop_takes_over_the_batch_that_is_on_its_way() {
    let engine = engine(true);
    assert_eq!(push(&engine, &["a"], b"v"), [1]);
    let mut stream = consume(&engine, "a", "s");
    assert_eq!(produced(&mut *stream).0.len(), 1);
    assert_eq!(told(&mut *stream, 2), Ok((vec![vec![4]], Flow::Done)));
    drop(stream);
    assert_eq!(engine.core.totals().records, 0);
    let mut stream = consume(&engine, "a", "s");
    assert_eq!(told(&mut *stream, 9), Err(()));
    assert!(engine.store().borrow_mut().remove_channel("a"));
    assert_eq!(produced(&mut *stream), (vec![vec![5]], Produced::Done));
}

#[test]
fn a_produce_waits_for_room_and_goes_on_where_it_was() {
    let engine = engine(false);
    let (waker, woken) = Waker::watched();
    let (mut input, mut out) = (Vec::new(), Vec::new());
    Legacy::Produce { channel: b"a" }.encode(&mut input);
    let LegacyStep::Sink { mut sink, .. } = engine.legacy(&peer(), &waker, &input, &mut out) else { panic!("no sink") };
    assert_eq!(out, 200_i32.to_le_bytes());
    let mut values = Vec::new();
    put_array(&mut values, &[1; 40]);
    put_array(&mut values, &[3; 30]);
    put_array(&mut values, &[4; 40]);
    put_array(&mut values, b"");
    let blocked_at = 48 + 38;
    assert_eq!(sink.take(&values, &mut out), SinkStep::Blocked { consumed: blocked_at });
    let rest = &values[blocked_at..];
    assert_eq!(sink.take(rest, &mut out), SinkStep::Blocked { consumed: 0 });
    assert!(!woken.take());
    let (reply, _) = legacy(&engine, &Legacy::Pop { channel: b"a" });
    assert_eq!(reply.len(), 4 + 8 + 40);
    assert!(woken.take());
    assert_eq!(sink.take(&rest[..20], &mut out), SinkStep::More { consumed: 0, need: 48 });
    assert_eq!(sink.take(rest, &mut out), SinkStep::Done { consumed: 56 });
    for size in [30, 40, 0] {
        assert_eq!(legacy(&engine, &Legacy::Pop { channel: b"a" }).0.len(), 4 + 8 + size);
    }
    // Larger than the queue can ever be.
    let mut never = Vec::new();
    put_array(&mut never, &[2; 500]);
    assert!(matches!(sink.take(&never, &mut out), SinkStep::Close { .. }));
    let too_long = (11_u64 << 20).to_le_bytes();
    assert_eq!(sink.take(&too_long, &mut out), SinkStep::Close { reason: "array too long" });
}

#[test]
fn the_withdrawn_requests_are_answered_and_a_long_list_comes_in_parts() {
    let engine = engine(false);
    let names: Vec<String> = (0..3000).map(|number| format!("{number:04}{}", "x".repeat(60))).collect();
    for name in &names {
        assert_eq!(push(&engine, &[name], b"v"), [1]);
    }
    let (mut out, step) = legacy(&engine, &Legacy::GetChannels);
    let LegacyStep::Stream { mut stream, .. } = step else { panic!("no stream") };
    let mut parts = 1;
    while stream.produce(&mut out) == Produced::More {
        parts += 1;
    }
    assert!(parts > 2 && out.ends_with(&[0; 8]), "{parts}");
    let found: Vec<&[u8]> = Records::new(&out[4..out.len() - 8]).map(Result::unwrap).collect();
    assert!(found.iter().eq(names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().iter()));

    let node = [&9_u64.to_le_bytes()[..], b"127.0.0.1", &22_000_u16.to_le_bytes()].concat();
    let size = |records: u64, bytes: u64| {
        [&200_i32.to_le_bytes()[..], &node, &records.to_le_bytes(), &bytes.to_le_bytes()].concat()
    };
    assert_eq!(legacy(&engine, &Legacy::GetSize).0, size(3000, 27_000));
    assert_eq!(legacy(&engine, &Legacy::GetChannelSize { channel: names[7].as_bytes() }).0, size(1, 9));
    assert_eq!(legacy(&engine, &Legacy::GetChannelSize { channel: b"missing" }).0, size(0, 0));
    let connections = [&200_i32.to_le_bytes()[..], &node, &0_u64.to_le_bytes()].concat();
    assert_eq!(legacy(&engine, &Legacy::GetNumConnections).0, connections);
}

#[test]
fn a_legacy_consumer_gets_records_in_turns_of_bounded_size() {
    let engine = engine(false);
    for _ in 0..300 {
        assert_eq!(push(&engine, &["large"], &[5; 1000]), [1]);
    }
    let (_, step) = legacy(&engine, &Legacy::Consume { channel: b"large" });
    let LegacyStep::Stream { mut stream, .. } = step else { panic!("no stream") };
    let (mut got, mut turns) = (0, 0);
    loop {
        let mut out = Vec::new();
        let produced = stream.produce(&mut out);
        got += Records::new(&out).map(Result::unwrap).count();
        turns += 1;
        assert!(out.len() <= (64 << 10) + 1008, "{}", out.len());
        if produced == Produced::Idle {
            break;
        }
    }
    assert!(turns > 3 && got == 300, "{got} in {turns}");
    assert!(engine.store().borrow_mut().remove_channel("large"));
    let mut out = Vec::new();
    assert_eq!((stream.produce(&mut out), &out[..]), (Produced::Done, &[0; 8][..]));
}

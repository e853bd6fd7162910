//! neo requests.

use overstory_node::engine::{Engine, Flow, NeoStream, Produced, Support};
use overstory_node::wake::{Sleeper, Waker};
use overstory_swarm::lzo;
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dls::{GetRangeMessage, Request, mode};

use super::rig::{Record, Rig, messages, with_engine, with_range};
use crate::bucket::KeyRange;

const CONTINUE: &[u8] = &[1];
const STOP: &[u8] = &[2];
const ACK: &[u8] = &[6];

const fn get(channel: &'static [u8], low: i64, high: i64, filter: &'static [u8], mode: u8) -> Request<'static> {
    Request::GetRange { channel, low, high, filter, mode }
}

fn put(rig: &Rig, channel: &[u8], timestamp: i64, value: &[u8]) -> Vec<u8> {
    rig.neo_now(&Request::Put { channel, timestamp, value })
}

/// What a Records message holds.
fn records(message: &[u8]) -> Vec<Record> {
    let Ok(GetRangeMessage::Records(block)) = GetRangeMessage::decode(message) else { panic!("{message:?}") };
    let mut plain = Vec::new();
    lzo::decompress(block.block, &mut plain, usize::try_from(block.plain_len).unwrap()).unwrap();
    assert_eq!(plain.len() as u64, block.plain_len);
    let (mut rest, mut all) = (&plain[..], Vec::new());
    while let Some((key, tail)) = rest.split_first_chunk() {
        let (length, tail) = tail.split_first_chunk().unwrap();
        let (value, tail) = tail.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
        all.push((u64::from_le_bytes(*key), value.to_vec()));
        rest = tail;
    }
    assert!(!all.is_empty(), "a batch is never empty");
    all
}

/// Runs a stream until it has made a message.
async fn next(stream: &mut dyn NeoStream, sleeper: &Sleeper) -> (Vec<u8>, Produced) {
    loop {
        let mut out = Vec::new();
        let produced = stream.produce(&mut Replies::new(&mut out, 1));
        if let Some(message) = messages(&out).into_iter().next() {
            return (message, produced);
        }
        assert_eq!(produced, Produced::Idle);
        sleeper.sleep().await;
    }
}

fn say(stream: &mut dyn NeoStream, message: &[u8]) -> (Result<Flow, &'static str>, Vec<Vec<u8>>) {
    let mut out = Vec::new();
    let flow = stream.message(message, &mut Replies::new(&mut out, 1)).map_err(|violation| violation.0);
    (flow, messages(&out))
}

/// All batches of a request.
async fn read(rig: &Rig, request: &Request<'_>) -> Vec<Vec<Record>> {
    let (waker, sleeper) = Sleeper::new();
    let (begun, stream) = rig.neo(request, &waker);
    assert_eq!(begun, [[1]]);
    let (mut stream, mut all) = (stream.unwrap(), Vec::new());
    loop {
        let (message, _) = next(&mut *stream, &sleeper).await;
        if message == [5] {
            assert_eq!(say(&mut *stream, ACK), (Ok(Flow::Done), Vec::new()));
            return all;
        }
        all.push(records(&message));
        assert_eq!(stream.produce(&mut Replies::new(&mut Vec::new(), 1)), Produced::Idle, "one batch at a time");
        assert_eq!(say(&mut *stream, CONTINUE), (Ok(Flow::Continue), Vec::new()));
    }
}

#[test]
fn puts_are_answered() {
    with_range(KeyRange { low: 10, high: 1 << 63 }, async |rig| {
        assert_eq!(put(&rig, b"c", 10, b"v"), [1]);
        assert_eq!(put(&rig, b"c", i64::MIN, b""), [1], "an empty value is published");
        let large = vec![3; 300_000];
        assert_eq!(put(&rig, b"c", 11, &large), [1]);
        let too_large = vec![3; crate::record::MAX_VALUE + 1];
        for (channel, timestamp, value) in [
            (&b"bad/name"[..], 10, &b"v"[..]),
            (b"../evil", 10, b"v"),
            (b"", 10, b"v"),
            (&[b'n'; 231], 10, b"v"),
            (b"c", 9, b"v"),
            (b"c", -1, b"v"),
            (b"c", 12, &too_large),
        ] {
            assert_eq!(put(&rig, channel, timestamp, value), [2], "{timestamp}");
        }
        assert_eq!(rig.neo_payload(1, b"short", &Waker::noop()).0, [[2]]);
        let found = read(&rig, &get(b"c", i64::MIN, i64::MAX, b"", mode::NONE)).await.concat();
        assert_eq!(found, [(1 << 63, Vec::new()), (10, b"v".to_vec()), (11, large)]);
        assert!(!rig.dir.path().parent().unwrap().join("evil").exists());
    });
}

#[test]
fn a_record_that_looks_like_nothing_is_refused() {
    with_engine(async |rig| {
        assert_eq!(put(&rig, b"c", 0, b""), [2]);
        assert_eq!(put(&rig, b"c", 0, b"v"), [1]);
    });
}

#[test]
fn a_range_is_read_batch_by_batch_in_the_order_of_time() {
    with_engine(async |rig| {
        let mut expected = Vec::new();
        for number in -1000..1000_i64 {
            let value = number.to_string().repeat(50).into_bytes();
            assert_eq!(put(&rig, b"c", number * 100, &value), [1]);
            expected.push(((number * 100).cast_unsigned(), value));
        }
        let batches = read(&rig, &get(b"c", i64::MIN, i64::MAX, b"", mode::NONE)).await;
        assert!(batches.len() >= 3);
        assert!(batches.concat() == expected);
        let part = read(&rig, &get(b"c", -250, 250, b"", mode::NONE)).await.concat();
        assert!(part == expected[998..1003]);
        let counted: u64 = rig.engine.core.stats.actions[0].records.get();
        assert_eq!(counted, 2000 + 2000 + 5, "puts and records that were read");
    });
}

#[test]
fn filters_have_their_modes() {
    with_engine(async |rig| {
        for (timestamp, value) in [(1, "apple pie"), (2, "Apple tart"), (3, "banana")] {
            put(&rig, b"f", timestamp, value.as_bytes());
        }
        for (filter, mode, expected) in [
            (&b"apple"[..], mode::NONE, &[1, 2, 3][..]),
            (b"apple", mode::STRING_MATCH, &[1]),
            (b"", mode::STRING_MATCH, &[1, 2, 3]),
            (b"^a|n$", mode::PCRE, &[1]),
            (b"^APPLE|A$", mode::PCRE_CASE_INSENSITIVE, &[1, 2, 3]),
            (b"cherry", mode::STRING_MATCH, &[]),
        ] {
            let found = read(&rig, &get(b"f", 0, 9, filter, mode)).await.concat();
            assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), expected, "{filter:?} {mode}");
        }
        assert_eq!(read(&rig, &get(b"none", 0, 9, b"", mode::NONE)).await.len(), 0);
        assert_eq!(rig.engine.storage().channel_count(), 1);
    });
}

/// The published node ended such a read as if it were complete.
#[test]
fn a_read_that_left_records_out_ends_with_an_error_after_all_others() {
    with_engine(async |rig| {
        let evil = [vec![b'a'; 2000], vec![b'!']].concat();
        for (timestamp, value) in [(1, &b"1"[..]), (2, &evil), (9000, b"1")] {
            put(&rig, b"c", timestamp, value);
        }
        let (waker, sleeper) = Sleeper::new();
        let mut stream = rig.neo(&get(b"c", 0, i64::MAX, b"(a+)+$|^1", mode::PCRE), &waker).1.unwrap();
        let (message, _) = next(&mut *stream, &sleeper).await;
        assert_eq!(records(&message), [(1, b"1".to_vec()), (9000, b"1".to_vec())]);
        assert_eq!(say(&mut *stream, CONTINUE), (Ok(Flow::Continue), Vec::new()));
        assert_eq!(next(&mut *stream, &sleeper).await, (vec![7], Produced::Done));
        // The others are answered as ever.
        assert_eq!(read(&rig, &get(b"c", 3, i64::MAX, b"(a+)+$|^1", mode::PCRE)).await.concat().len(), 1);
    });
}

#[test]
fn what_cannot_be_read_is_refused_and_not_left_in_silence() {
    with_engine(async |rig| {
        for request in [
            get(b"c", 2, 1, b"", mode::NONE),
            get(b"bad/name", 1, 2, b"", mode::NONE),
            get(b"", 1, 2, b"", mode::NONE),
            get(b"c", 1, 2, b"(oops", mode::PCRE),
            get(b"c", 1, 2, b"*", mode::PCRE_CASE_INSENSITIVE),
            get(b"c", 1, 2, b"x", 4),
        ] {
            let (messages, stream) = rig.neo(&request, &Waker::noop());
            assert!(messages == [[3]] && stream.is_none(), "{request:?}: {messages:?}");
        }
        let long = vec![b'x'; 70_000];
        let request = Request::GetRange { channel: b"c", low: 1, high: 2, filter: &long, mode: mode::STRING_MATCH };
        assert_eq!(rig.neo(&request, &Waker::noop()).0, [[3]]);
        assert_eq!(rig.neo_payload(2, b"short", &Waker::noop()).0, [[3]]);
    });
}

#[test]
fn a_stop_is_answered_at_any_time() {
    with_engine(async |rig| {
        for number in 0..5000 {
            rig.engine.storage().put("c", number * 1000, &[9; 100]).unwrap();
        }
        let request = get(b"c", 0, i64::MAX, b"", mode::NONE);
        // Before anything was sent, after a batch, after some.
        for batches in 0..3 {
            let (waker, sleeper) = Sleeper::new();
            let mut stream = rig.neo(&request, &waker).1.unwrap();
            for _ in 0..batches {
                next(&mut *stream, &sleeper).await;
                if batches > 1 {
                    say(&mut *stream, CONTINUE).0.unwrap();
                }
            }
            assert_eq!(say(&mut *stream, STOP), (Ok(Flow::Done), vec![vec![4]]));
        }
    });
}

#[test]
fn messages_out_of_turn_break_the_protocol_but_not_after_the_end() {
    with_engine(async |rig| {
        put(&rig, b"c", 5, b"v");
        let request = get(b"c", 0, 9, b"", mode::NONE);
        let (waker, sleeper) = Sleeper::new();
        let begin = || rig.neo(&request, &waker).1.unwrap();
        assert!(say(&mut *begin(), CONTINUE).0.is_err(), "no batch was sent");
        assert!(say(&mut *begin(), ACK).0.is_err(), "it is not finished");
        assert!(say(&mut *begin(), &[9]).0.is_err());
        assert!(say(&mut *begin(), &[]).0.is_err());

        let mut stream = begin();
        next(&mut *stream, &sleeper).await;
        assert!(say(&mut *stream, CONTINUE).0.is_ok());
        assert_eq!(next(&mut *stream, &sleeper).await.0, [5]);
        for late in [CONTINUE, STOP, &[9], &[], b"anything"] {
            assert_eq!(say(&mut *stream, late), (Ok(Flow::Continue), Vec::new()), "{late:?}");
        }
        assert_eq!(say(&mut *stream, ACK), (Ok(Flow::Done), Vec::new()));
    });
}

#[test]
fn the_range_of_timestamps_is_told() {
    with_range(KeyRange { low: 7, high: u64::MAX - 1 }, async |rig| {
        let expected = [7_u64.to_le_bytes(), (u64::MAX - 1).to_le_bytes()].concat();
        assert_eq!(rig.neo_now(&Request::GetTimestampRange), expected);
    });
}

#[test]
fn only_known_codes_and_versions_are_served() {
    with_engine(async |rig| {
        let supports = |code, version| rig.engine.supports(code, version);
        assert_eq!(
            (supports(1, 1), supports(2, 2), supports(64, 0)),
            (Support::Yes(0), Support::Yes(1), Support::Yes(2))
        );
        for (code, version) in [(1, 0), (1, 2), (2, 1), (2, 3), (64, 1)] {
            assert_eq!(supports(code, version), Support::UnknownVersion);
        }
        for code in [0, 3, 63, 65, 255] {
            assert_eq!(supports(code, 0), Support::UnknownCode);
        }
    });
}

//! Legacy requests.

use overstory_swarm::legacy::Limits;
use overstory_swarm::legacy::dls::{Interval, Request, mode};
use overstory_swarm::legacy::{Need, Status, reply};
use tokio::task::yield_now;

use super::rig::{Record, batches, payload, with_engine, with_range};
use crate::bucket::KeyRange;

const ALL: Interval<'static> = Interval { low: b"0000000000000000", high: b"ffffffffffffffff" };

fn record(key: u64, value: &[u8]) -> Record {
    (key, value.to_vec())
}

#[test]
fn puts_are_refused_in_the_published_order() {
    with_range(KeyRange { low: 0x100, high: 0x1fff }, async |rig| {
        let large = vec![7; 65_537];
        for (channel, key, value, expected) in [
            ("bad/name", 1, &b""[..], Status::BadChannelName),
            ("../evil", 0x200, b"v", Status::BadChannelName),
            ("", 0x200, b"v", Status::BadChannelName),
            ("c", 0xff, b"", Status::EmptyValue),
            ("c", 0x200, &large, Status::OutOfMemory),
            ("c", 0xff, b"v", Status::WrongNode),
            ("c", 0x2000, b"v", Status::WrongNode),
            ("c", 0x100, b"first", Status::Ok),
            ("c", 0x1fff, &large[1..], Status::Ok),
        ] {
            assert_eq!(rig.put(channel, key, value).await, expected, "{channel} {key:x} {}", value.len());
        }
        let long = "n".repeat(231);
        assert_eq!(rig.put(&long, 0x100, b"v").await, Status::BadChannelName);
        assert_eq!(rig.put(&long[1..], 0x100, b"v").await, Status::Ok);
        assert_eq!(rig.all("c").await, [record(0x100, b"first"), (0x1fff, large[1..].to_vec())]);

        let mut put = Vec::new();
        Request::Put { channel: b"c", key: b"xyz", value: b"v" }.encode(&mut put);
        assert_eq!(rig.ask_bytes(&put).await, Err("a key that is not 16 hexadecimal digits"));
    });
}

#[test]
fn ranges_are_answered_in_the_order_of_buckets_and_of_writing() {
    with_engine(async |rig| {
        for (key, value) in [(0x5001, "later"), (0x1002, "b"), (0x1001, "a"), (0x1001, "again"), (u64::MAX, "last")] {
            assert_eq!(rig.put("c", key, value.as_bytes()).await, Status::Ok);
        }
        let expected = [
            record(0x1002, b"b"),
            record(0x1001, b"a"),
            record(0x1001, b"again"),
            record(0x5001, b"later"),
            record(u64::MAX, b"last"),
        ];
        assert_eq!(rig.all("c").await, expected);
        let range = |low, high| Request::GetRange { channel: b"c", range: Interval { low, high } };
        let of = async |low, high| rig.records(&range(low, high)).await;
        assert_eq!(of(b"0000000000001001", b"0000000000001001").await, expected[1..3]);
        assert_eq!(of(b"0000000000001003", b"0000000000005001").await, expected[3..4]);
        assert_eq!(of(b"000000000000100F", b"FFFFFFFFFFFFFFFF").await, expected[3..]);
        // The wrong way round: as published.
        assert_eq!(of(b"0000000000000005", b"0000000000000001").await, []);
        for limits in [(&b"xyz"[..], &b"0000000000000001"[..]), (b"0000000000000001", b""), (b"000000000000000g", b"")]
        {
            assert_eq!(rig.status(&range(limits.0, limits.1)).await, Status::InvalidRequest);
        }
        let totals = rig.engine.storage().totals();
        assert_eq!((totals.records, totals.bytes), (5, 16));
    });
}

#[test]
fn an_answer_without_records_is_one_empty_batch() {
    with_engine(async |rig| {
        let empty = [&200_i32.to_le_bytes()[..], &[11, 0, 0, 0, 0, 0, 0, 0], &[0; 8], &[0x11, 0, 0], &[0; 8]].concat();
        assert_eq!(rig.ask(&Request::GetAll { channel: b"none" }).await, empty);
        let wrong = Interval { low: ALL.high, high: ALL.low };
        assert_eq!(rig.ask(&Request::GetRange { channel: b"none", range: wrong }).await, empty);
        assert_eq!(rig.engine.storage().channel_count(), 0, "reading makes no channel");
    });
}

#[test]
fn filters_take_what_they_should() {
    with_engine(async |rig| {
        for (key, value) in [(1, "apple pie"), (2, "Apple tart"), (3, "banana split"), (4, "multi\nline apple")] {
            rig.put("f", key, value.as_bytes()).await;
        }
        let keys = async |request: Request<'static>| -> Vec<u64> {
            rig.records(&request).await.into_iter().map(|(key, _)| key).collect()
        };
        let regex = |mode, pattern| Request::GetRangeRegex { channel: b"f", range: ALL, mode, pattern };
        assert_eq!(keys(Request::GetAllFilter { channel: b"f", filter: b"apple" }).await, [1, 4]);
        assert_eq!(keys(Request::GetAllFilter { channel: b"f", filter: b"" }).await, [1, 2, 3, 4]);
        let range = Interval { low: b"0000000000000002", high: b"0000000000000004" };
        assert_eq!(keys(Request::GetRangeFilter { channel: b"f", range, filter: b"apple" }).await, [4]);
        assert_eq!(keys(Request::GetRangeFilter { channel: b"f", range, filter: b"" }).await, [2, 3, 4]);
        assert!(keys(regex(mode::STRING_MATCH, b"pp.e")).await.is_empty());
        assert_eq!(keys(regex(mode::PCRE, b"^[ab].*e")).await, [1]);
        assert_eq!(keys(regex(mode::PCRE_CASE_INSENSITIVE, b"^[ab].*e")).await, [1, 2]);
        assert_eq!(keys(regex(mode::PCRE, b"apple$")).await, [4]);
        assert_eq!(keys(regex(mode::PCRE, b"")).await, [1, 2, 3, 4]);
        assert_eq!(keys(regex(mode::PCRE, br"(\w)\1le")).await, [1, 2, 4]);
        for (mode, pattern) in
            [(mode::PCRE, &b"(oops"[..]), (mode::PCRE_CASE_INSENSITIVE, b"[z-a]"), (3, b"x"), (255, b"")]
        {
            assert_eq!(rig.status(&regex(mode, pattern)).await, Status::Error, "{mode}");
        }
        let missing = Request::GetRangeRegex { channel: b"none", range: ALL, mode: 1, pattern: b"(unclosed" };
        assert_eq!(rig.status(&missing).await, Status::Error);
        let bad = Request::GetRangeRegex { channel: b"bad/name", range: ALL, mode: 9, pattern: b"(" };
        assert_eq!(rig.status(&bad).await, Status::BadChannelName);
    });
}

#[test]
fn a_long_answer_comes_in_batches_that_old_clients_take() {
    with_engine(async |rig| {
        let mut expected = Vec::new();
        for number in 0..3000_u64 {
            let value = vec![u8::try_from(number % 251).unwrap(); 200];
            assert_eq!(rig.put("c", number * 7, &value).await, Status::Ok);
            expected.push((number * 7, value));
        }
        // Put by neo it may be longer than a batch; it comes alone.
        let huge = vec![1; 200_000];
        rig.engine.storage().put("c", 21_001, &huge).unwrap();
        expected.push((21_001, huge));
        let batches = batches(&rig.ask(&Request::GetAll { channel: b"c" }).await);
        assert!(batches.len() > 10);
        for batch in &batches {
            let plain: usize = batch.iter().map(|(_, value)| 32 + value.len()).sum();
            assert!(plain <= 65_536 || batch.len() == 1, "{plain} bytes in {} records", batch.len());
        }
        assert!(batches.concat() == expected);
    });
}

#[test]
fn a_batch_is_stored_up_to_the_first_record_without_a_value_and_not_at_all_if_one_is_another_nodes() {
    with_range(KeyRange { low: 0, high: 0xffff }, async |rig| {
        let batch = |records: &[(&str, &[u8])]| payload(records);
        let put = async |batch: &[u8]| rig.status(&Request::PutBatch { channel: b"pb", batch }).await;
        let (a, b, c) = ("0000000000000001", "0000000000000002", "0000000000010000");
        assert_eq!(put(&batch(&[])).await, Status::Ok);
        assert_eq!(rig.engine.storage().channel_count(), 0);
        assert_eq!(put(&batch(&[(a, b"one"), (b, b"two")])).await, Status::Ok);
        assert_eq!(put(&batch(&[(a, b"three"), (b, b""), (a, b"no")])).await, Status::EmptyValue);
        assert_eq!(put(&batch(&[(b, b"four"), (c, b"no"), (a, b"no")])).await, Status::WrongNode);
        let values: Vec<_> = rig.all("pb").await.into_iter().map(|(_, value)| value).collect();
        // Of a batch with a record of another node nothing: it comes again, however often it is refused.
        assert_eq!(values, [&b"one"[..], b"two", b"three"]);

        // 16 MiB that do not compress, as much as may come.
        let noise: Vec<u8> = (0..8_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
        let half = &noise[..noise.len() - 32];
        assert_eq!(put(&batch(&[(a, half), (b, half)])).await, Status::Ok);
        assert_eq!(rig.engine.storage().totals().records, 5);

        for broken in [&b"short"[..], &[0xff; 8], &[0xff; 100]] {
            let mut request = Vec::new();
            Request::PutBatch { channel: b"pb", batch: broken }.encode(&mut request);
            assert_eq!(rig.ask_bytes(&request).await, Err("a batch that cannot be decompressed"));
        }
        let mut request = Vec::new();
        let keys = batch(&[(a, b"fine"), ("xyz", b"bad key")]);
        Request::PutBatch { channel: b"pb", batch: &keys }.encode(&mut request);
        assert_eq!(rig.ask_bytes(&request).await, Err("a batch whose records are cut or have no proper keys"));
        assert_eq!(rig.engine.storage().totals().records, 5, "nothing of a broken batch is stored");
    });
}

#[test]
fn the_node_tells_of_itself() {
    with_range(KeyRange { low: 5, high: 99 }, async |rig| {
        for (channel, key) in [("b", 10), ("a", 11), ("b", 12)] {
            rig.put(channel, key, b"12345").await;
        }
        let names = rig.ask(&Request::GetChannels).await;
        let expected =
            [&200_i32.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0, b'a'], &[1, 0, 0, 0, 0, 0, 0, 0, b'b'], &[0; 8]];
        assert_eq!(names, expected.concat());
        let size = async |request: Request<'static>| {
            let reply = rig.ask(&request).await;
            let Need::Done { value, .. } = reply::size(&reply[4..], &Limits::DEFAULT).unwrap() else { panic!("cut") };
            assert_eq!((value.node.address, value.node.port), (&b"127.0.0.1"[..], 23_000));
            (value.records, value.bytes)
        };
        assert_eq!(size(Request::GetSize).await, (3, 15));
        assert_eq!(size(Request::GetChannelSize { channel: b"b" }).await, (2, 10));
        assert_eq!(size(Request::GetChannelSize { channel: b"none" }).await, (0, 0));
        assert_eq!(rig.status(&Request::GetChannelSize { channel: b"." }).await, Status::BadChannelName);
        let range = rig.ask(&Request::GetResponsibleRange).await;
        assert_eq!(range[4..], [5_u64.to_le_bytes(), 99_u64.to_le_bytes()].concat());
        assert_eq!(rig.ask(&Request::GetVersion).await[12..], *b"20110401");
        let connections = rig.ask(&Request::GetNumConnections).await;
        assert_eq!(connections.len(), 4 + 8 + 9 + 2 + 8);
    });
}

#[test]
fn a_removed_channel_is_gone_with_its_files() {
    with_engine(async |rig| {
        for key in 0..20_000 {
            rig.engine.storage().put("gone", key, b"value").unwrap();
        }
        rig.put("stays", 1, b"v").await;
        rig.engine.storage().flush().await.unwrap();
        assert!(rig.dir.path().join("gone").exists());
        assert_eq!(rig.status(&Request::RemoveChannel { channel: b"gone" }).await, Status::Ok);
        assert_eq!(rig.all("gone").await, []);
        assert!(!rig.dir.path().join("gone").exists());
        assert_eq!(rig.status(&Request::RemoveChannel { channel: b"gone" }).await, Status::Ok);
        assert_eq!(rig.status(&Request::RemoveChannel { channel: b"../stays" }).await, Status::BadChannelName);
        assert_eq!(rig.put("gone", 7, b"anew").await, Status::Ok);
        yield_now().await;
        assert_eq!(rig.all("gone").await, [record(7, b"anew")]);
        assert_eq!(rig.all("stays").await.len(), 1);
    });
}

#[test]
fn a_request_in_parts_is_waited_for() {
    use overstory_node::engine::{Engine, LegacyStep};
    use overstory_node::wake::Waker;
    with_engine(async |rig| {
        let mut request = Vec::new();
        Request::GetRange { channel: b"c", range: ALL }.encode(&mut request);
        for end in 1..request.len() {
            let step = rig.engine.legacy(&super::rig::peer(), &Waker::noop(), &request[..end], &mut Vec::new());
            assert!(matches!(step, LegacyStep::Need(need) if need > end && need <= request.len()));
        }
        for code in [0_i32, 1, 2, 7, 27, 30, 33, 37, 99] {
            assert!(rig.ask_bytes(&code.to_le_bytes()).await.is_err(), "{code}");
        }
    });
}

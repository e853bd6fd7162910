//! The defects of the published node (protocol §8, §10) that others do not test: each request gets its answer, whatever it
//! says, and nothing ends the node.

use std::fs;

use overstory_replay::eventually;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::{Interval, Request, mode};
use overstory_swarm::neo::dls::{PutReply, Request as Neo};

use crate::rig::{Node, Record, Setup, all_neo, batch, batch_of, check, get_range, hex, interval, put, put_neo, read};

const WORDS: [&str; 5] = ["alpha", "Beta", "gamma beta", "delta\0\u{ff}", "beta"];

fn words() -> Vec<Record> {
    (10..).zip(WORDS.map(|word| word.as_bytes().to_vec())).collect()
}

fn with_words() -> Node {
    let records = words().into_iter().map(|(key, value)| ("c".to_owned(), key, value)).collect();
    Node::start(Setup { records, ..Setup::default() })
}

/// Names that are none: those of other directories, too long ones, none at all.
fn bad_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b""[..],
        b".",
        b"..",
        b"../evil",
        b"../../etc",
        b"/tmp/evil",
        b"a/b",
        b"a\\b",
        b"a\0b",
        b"bad name",
        b".catalogue",
        b".damaged",
        b"checkpoint.dat",
        b"\xc3\xa4",
        b"a@b",
        b"a\nb",
    ]
    .map(<[u8]>::to_vec)
    .into();
    names.extend([vec![b'a'; 231], vec![b'a'; 1000], vec![b'x'; 1 << 20]]);
    names
}

/// Put v1 to `../evil` made a directory outside of the data directory (§10.1 13), a name that is too long for a file
/// kept the node from stopping (§10.1 15).
#[test]
fn names_that_are_none_are_refused_by_both_protocols_and_make_no_file() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("deep").join("data");
    let node = Node::start(Setup::at(&data));
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    let longest = "n".repeat(230);
    put(&mut legacy, &longest, 5, b"fits");
    let all = Interval { low: &hex(0), high: &hex(u64::MAX) };
    let batch = batch([(&hex(1)[..], &b"v"[..])]);
    for (id, name) in (1..).step_by(4).zip(bad_names()) {
        let channel = &name[..];
        for request in [
            Request::Put { channel, key: &hex(1), value: b"v" },
            Request::GetAll { channel },
            Request::GetRange { channel, range: all },
            Request::GetAllFilter { channel, filter: b"x" },
            Request::GetRangeFilter { channel, range: all, filter: b"x" },
            Request::GetRangeRegex { channel, range: all, mode: 1, pattern: b"x" },
            Request::RemoveChannel { channel },
            Request::GetChannelSize { channel },
            Request::PutBatch { channel, batch: &batch },
        ] {
            let told = String::from_utf8_lossy(&name[..name.len().min(40)]).into_owned();
            assert_eq!(legacy.ask(&request), Status::BadChannelName, "{} of {told:?}", request.name());
        }
        assert_eq!(neo.ask(id, &Neo::Put { channel, timestamp: 1, value: b"v" }), [2]);
        let range = Neo::GetRange { channel, low: 0, high: i64::MAX, filter: b"", mode: 0 };
        assert_eq!(get_range(&mut neo, id + 1, &range), None);
    }
    assert_eq!(put_neo(&mut neo, 9999, &longest, 6, b"fits, too"), PutReply::Put);
    assert_eq!(node.channels(), [longest.as_str()]);
    node.stop();
    let names = |path: &std::path::Path| -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(place.path()), ["deep"]);
    assert_eq!(names(&place.path().join("deep")), ["data"]);
    let made: Vec<_> = names(&data).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(made, [longest.as_str()]);
    assert_eq!(Node::start(Setup::at(&data)).all(&longest).len(), 2);
}

/// GetRange with lo > hi, or a pattern that is none, got "supported" and then nothing (§10.1 13); mode 3 in legacy and
/// mode 0 with a filter in neo killed the node (§10.1 5).
#[test]
fn what_cannot_be_read_is_told() {
    let node = with_words();
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    let ask = |low, high, filter, mode| Neo::GetRange { channel: b"c", low, high, filter, mode };
    let mut id = 0;
    let mut neo_read = |request: &Neo<'_>| {
        id += 1;
        get_range(&mut neo, id, request)
    };
    assert_eq!(neo_read(&ask(11, 10, b"", 0)), None);
    assert_eq!(neo_read(&ask(i64::MAX, i64::MIN, b"", 0)), None);
    let huge = vec![b'a'; (64 << 10) + 1];
    for pattern in [&b"("[..], b"[a-", b"a{2,1}", b"(?<n>x)(?<n>y)", b"*", b"\\", &huge] {
        for mode in [2, 3] {
            assert_eq!(neo_read(&ask(0, 99, pattern, mode)), None, "{:?}", &pattern[..pattern.len().min(9)]);
        }
    }
    for mode in [4, 5, 127, 255] {
        assert_eq!(neo_read(&ask(0, 99, b"a", mode)), None);
    }
    assert_eq!(neo_read(&ask(0, 99, b"a", 0)), Some(words()), "mode 0 has no filter");

    let (low, high) = (hex(0), hex(99));
    let range = interval(&low, &high);
    for mode in [3, 4, 255] {
        let request = Request::GetRangeRegex { channel: b"c", range, mode, pattern: b"a" };
        assert_eq!(legacy.ask(&request), Status::Error);
    }
    for pattern in [&b"("[..], b"[a-", b"*", &huge] {
        for mode in [mode::PCRE, mode::PCRE_CASE_INSENSITIVE] {
            assert_eq!(legacy.ask(&Request::GetRangeRegex { channel: b"c", range, mode, pattern }), Status::Error);
        }
    }
    let backwards = interval(&high, &low);
    for request in [
        Request::GetRange { channel: b"c", range: backwards },
        Request::GetRangeFilter { channel: b"c", range: backwards, filter: b"a" },
        Request::GetRangeRegex { channel: b"c", range: backwards, mode: 1, pattern: b"a" },
    ] {
        assert_eq!(read(&mut legacy, &request), [], "{}", request.name());
    }
    for (low, high) in [(&b"0"[..], &b"9"[..]), (b"", b""), (b"000000000000000g", &hex(9)), (b"00000000000000000", b"")]
    {
        let range = Interval { low, high };
        assert_eq!(legacy.ask(&Request::GetRange { channel: b"c", range }), Status::InvalidRequest);
    }
    // All of that on one connection, which is still good.
    assert_eq!(read(&mut legacy, &Request::GetRange { channel: b"c", range }), words());
}

/// An empty filter gave an arbitrary part of the records (§10.1 2).
#[test]
fn an_empty_filter_is_none() {
    let node = with_words();
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    let (low, high) = (hex(0), hex(99));
    let range = interval(&low, &high);
    assert_eq!(read(&mut legacy, &Request::GetAllFilter { channel: b"c", filter: b"" }), words());
    assert_eq!(read(&mut legacy, &Request::GetRangeFilter { channel: b"c", range, filter: b"" }), words());
    for mode in 0..=2 {
        let request = Request::GetRangeRegex { channel: b"c", range, mode, pattern: b"" };
        assert_eq!(read(&mut legacy, &request), words(), "mode {mode}");
    }
    for mode in 0..=3 {
        let request = Neo::GetRange { channel: b"c", low: 0, high: 99, filter: b"", mode };
        assert_eq!(get_range(&mut neo, u64::from(mode) + 1, &request), Some(words()), "mode {mode}");
    }
}

#[test]
fn filters_find_what_they_say() {
    let node = with_words();
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    let (low, high) = (hex(11), hex(14));
    let range = interval(&low, &high);
    let mut id = 0;
    let mut both = |string: bool, caseless: bool, pattern: &[u8], expected: &[u64]| {
        id += 1;
        let (of_legacy, of_neo) = match (string, caseless) {
            (true, _) => (mode::STRING_MATCH, 1),
            (false, false) => (mode::PCRE, 2),
            (false, true) => (mode::PCRE_CASE_INSENSITIVE, 3),
        };
        let keys = |records: Vec<Record>| records.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let request = Request::GetRangeRegex { channel: b"c", range, mode: of_legacy, pattern };
        assert_eq!(keys(read(&mut legacy, &request)), expected);
        let request = Neo::GetRange { channel: b"c", low: 11, high: 14, filter: pattern, mode: of_neo };
        assert_eq!(keys(get_range(&mut neo, id, &request).unwrap()), expected);
        if string {
            let request = Request::GetRangeFilter { channel: b"c", range, filter: pattern };
            assert_eq!(keys(read(&mut legacy, &request)), expected);
        }
    };
    both(true, false, b"beta", &[12, 14]);
    both(true, false, b"a\0\xc3\xbf", &[13]);
    both(true, false, b"alpha", &[]);
    both(true, false, b"a.", &[]);
    both(false, false, b"^beta", &[14]);
    both(false, true, b"^beta", &[11, 14]);
    both(false, false, b"(?i)^BETA$", &[11, 14]);
    both(false, false, b"\\x00", &[13]);
    both(false, false, b"(\\w)\\w*\\1", &[12]);
    both(false, false, b"(?<=gamma )beta", &[12]);
}

/// Legacy has 65,536 bytes at most and none empty, neo has 8 MiB and any (§10.1 8); a record that could not be told from
/// zeros is refused.
#[test]
fn each_protocol_has_its_sizes() {
    let node = Node::start(Setup::default());
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    let ask = |value: &[u8]| {
        let mut bytes = Vec::new();
        Request::Put { channel: b"c", key: &hex(1), value }.encode(&mut bytes);
        bytes
    };
    for (length, expected) in
        [(0, Status::EmptyValue), (65_536, Status::Ok), (65_537, Status::OutOfMemory), (1 << 20, Status::OutOfMemory)]
    {
        legacy.send(&ask(&vec![b'l'; length]));
        assert_eq!(legacy.read_status(), expected, "{length}");
    }
    let largest = vec![b'n'; 8 << 20];
    assert_eq!(put_neo(&mut neo, 1, "c", 2, b""), PutReply::Put);
    assert_eq!(put_neo(&mut neo, 2, "c", 0, b""), PutReply::Error);
    assert_eq!(put_neo(&mut neo, 3, "c", 0, b"0"), PutReply::Put);
    assert_eq!(put_neo(&mut neo, 4, "c", 3, &largest), PutReply::Put);
    assert_eq!(put_neo(&mut neo, 5, "c", 3, &[largest.as_slice(), b"x"].concat()), PutReply::Error);
    let expected: Vec<Record> =
        vec![(1, vec![b'l'; 65_536]), (2, Vec::new()), (0, b"0".to_vec()), (3, largest.clone())];
    // None is left out because it is larger than a batch.
    assert_eq!(node.all("c"), expected);
    assert_eq!(all_neo(&mut neo, 6, "c"), expected);
    assert_eq!(node.size(), (4, 65_536 + 1 + (8 << 20)));
    node.flush();
    assert_eq!(check(&node.data, &[]), 0);
}

/// A broken batch ended the published nodes, or garbage of it was stored (§10.1 4).
#[test]
fn a_broken_batch_ends_its_connection_alone_and_stores_nothing() {
    let node = Node::start(Setup::default());
    let records: Vec<Record> = (0..50).map(|key| (key, format!("value {key}").into_bytes())).collect();
    let whole = batch_of(&records);
    let claims = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let bad_keys = batch([(&hex(1)[..], &b"good"[..]), (b"not hexadecimal!", b"v")]);
    let batches = [
        Vec::new(),
        vec![1; 7],
        whole[..whole.len() / 2].to_vec(),
        claims(0),
        claims(1),
        claims(u64::from_le_bytes(whole[..8].try_into().unwrap()) + 1),
        claims(u64::MAX),
        claims(1 << 40),
        [&1000u64.to_le_bytes()[..], &[0xff; 100]].concat(),
        bad_keys,
    ];
    for (at, batch) in batches.iter().enumerate() {
        let mut client = node.legacy();
        let mut bytes = Vec::new();
        Request::PutBatch { channel: b"c", batch }.encode(&mut bytes);
        client.send(&bytes);
        assert!(client.is_closed(), "batch {at}");
        assert_eq!(node.size(), (0, 0), "batch {at}");
    }
    // An array that is announced as longer than a batch may be.
    let mut client = node.legacy();
    let mut bytes = Vec::new();
    Request::PutBatch { channel: b"c", batch: b"" }.encode(&mut bytes);
    let length = bytes.len();
    bytes[length - 8..].copy_from_slice(&(1u64 << 62).to_le_bytes());
    client.send(&bytes);
    assert!(client.is_closed());
    // The largest one that may be.
    let mut client = node.legacy();
    let records: Vec<Record> = (0..275).map(|key| (key << 12, vec![b'v'; 60_000])).collect();
    let large = batch_of(&records);
    assert_eq!(client.ask(&Request::PutBatch { channel: b"c", batch: &large }), Status::Ok);
    assert_eq!(client.ask(&Request::PutBatch { channel: b"c", batch: &whole }), Status::Ok);
    assert_eq!(node.size().0, 325);
    assert_eq!(node.all("c").len(), 325);
}

/// Reads of the published node made the channels that they asked for.
#[test]
fn reads_make_no_channel() {
    let node = Node::start(Setup::default());
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    assert_eq!(read(&mut legacy, &Request::GetAll { channel: b"none" }), []);
    assert_eq!(legacy.ask(&Request::RemoveChannel { channel: b"none" }), Status::Ok);
    assert_eq!(node.channel_size("none"), (0, 0));
    assert_eq!(all_neo(&mut neo, 1, "none"), []);
    assert_eq!(node.channels(), [""; 0]);
    assert!(!node.data.join("none").exists());
    // A put that is refused makes none either.
    legacy.ask(&Request::Put { channel: b"none", key: &hex(1), value: b"" });
    assert_eq!(put_neo(&mut neo, 2, "none", 0, b""), PutReply::Error);
    assert_eq!(node.channels(), [""; 0]);
}

#[test]
fn a_node_takes_the_timestamps_of_its_range_and_tells_which_they_are() {
    let setup = Setup::default().with(|settings| {
        settings.range.low = 100;
        settings.range.high = 199;
    });
    let node = Node::start(setup);
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    for (key, takes) in [(99, false), (100, true), (199, true), (200, false), (u64::MAX, false)] {
        let status = legacy.ask(&Request::Put { channel: b"c", key: &hex(key), value: b"v" });
        assert_eq!(status, if takes { Status::Ok } else { Status::WrongNode });
        let reply = put_neo(&mut neo, key, "c", key, b"v");
        assert_eq!(reply, if takes { PutReply::Put } else { PutReply::Error });
    }
    assert_eq!(node.size().0, 4);
    let told = neo.ask(1 << 40, &Neo::GetTimestampRange);
    assert_eq!(told, [100u64.to_le_bytes(), 199u64.to_le_bytes()].concat());
    assert_eq!(legacy.ask(&Request::GetResponsibleRange), Status::Ok);
    assert_eq!(legacy.read(16), [100u64.to_le_bytes(), 199u64.to_le_bytes()].concat());
}

/// A bit that flips on the disk costs the record that it is in; it is told, and the answer goes on behind it.
#[test]
fn damage_is_told_with_its_file_and_place_and_costs_no_other_record() {
    for v2 in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let setup = Setup::at(&data);
        let node = Node::start(if v2 { setup.v2() } else { setup });
        let expected: Vec<Record> =
            (0..3000).map(|key| (key * 4, format!("value {key} {}", "y".repeat(40)).into_bytes())).collect();
        let mut client = node.legacy();
        for (key, value) in &expected {
            put(&mut client, "c", *key, value);
        }
        node.stop();
        let bucket = data.join("c/0000000000/001");
        let mut bytes = fs::read(&bucket).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 30].fill(0xee);
        fs::write(&bucket, &bytes).unwrap();
        let node = Node::start(Setup::at(&data));
        let mut neo = node.neo();
        for id in 1..4 {
            for there in [node.all("c"), all_neo(&mut neo, id, "c")] {
                assert!(there.len() < expected.len() && there.len() >= 1900, "{}", there.len());
                let known: std::collections::BTreeSet<&Record> = expected.iter().collect();
                // A value without a checksum may be wrong itself.
                let wrong: Vec<&Record> = there.iter().filter(|record| !known.contains(record)).collect();
                assert!(wrong.len() <= usize::from(!v2), "{wrong:?}");
            }
        }
        eventually("it is found", || {
            let text = node.findings().into_iter().map(|(_, text)| text).collect::<String>();
            text.contains("c/0000000000/001")
        });
        assert_eq!(check(&data, &[]), 1);
        // It is still written to, and everything else is served.
        put(&mut client_of(&node), "c", 0x1fff, b"behind the damage");
        assert_eq!(node.all("c").last().unwrap().1, expected[2999].1);
        assert!(node.all("c").contains(&(0x1fff, b"behind the damage".to_vec())));
    }
}

fn client_of(node: &Node) -> overstory_replay::Connection {
    node.legacy()
}

/// A file that cannot be read at all is told too, and its neighbours are served.
#[test]
fn a_bucket_that_is_a_directory_or_is_gone_ends_no_answer() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let node = Node::start(Setup::at(&data));
    let mut client = node.legacy();
    for key in 0..5 {
        put(&mut client, "c", key << 12, b"value");
    }
    node.flush();
    fs::remove_file(data.join("c/0000000000/001")).unwrap();
    fs::remove_file(data.join("c/0000000000/003")).unwrap();
    fs::create_dir(data.join("c/0000000000/003")).unwrap();
    let keys = |node: &Node| node.all("c").into_iter().map(|(key, _)| key >> 12).collect::<Vec<_>>();
    assert_eq!(keys(&node), [0, 2, 4]);
    eventually("it is told", || !node.findings().is_empty());
    assert_eq!(keys(&node), [0, 2, 4]);
}

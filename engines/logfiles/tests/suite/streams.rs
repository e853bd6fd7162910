//! Answers that go on: slow clients, long reads and costly patterns hold nobody up; Stop, Continue and Ack come at any
//! time.

use std::time::{Duration, Instant};

use overstory_node::inspect::Inspect as _;
use overstory_replay::eventually;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::{Request, mode};
use overstory_swarm::neo::dls::{GetRangeMessage, PutReply, Request as Neo};

use crate::rig::{Node, Setup, get_range, hex, interval, put, put_neo, read};

const RECORDS: u64 = 20_000;

/// Twenty megabytes in five buckets.
fn large() -> Node {
    let value = |key: u64| {
        let mut value = vec![b'a' + u8::try_from(key % 26).unwrap(); 1000];
        value.extend(key.to_le_bytes());
        value
    };
    let records = (0..RECORDS).map(|key| ("c".to_owned(), key, value(key))).collect();
    Node::start(Setup { records, ..Setup::default() })
}

fn all() -> Neo<'static> {
    Neo::GetRange { channel: b"c", low: 0, high: i64::MAX, filter: b"", mode: 0 }
}

fn gauge(node: &Node, name: &'static str) -> u64 {
    node.with(move |engine| {
        let mut gauges = Vec::new();
        engine.gauges(&mut gauges);
        gauges.iter().find(|gauge| gauge.name == name).unwrap().value
    })
}

/// Other requests are served, each in its time.
fn serves(node: &Node) {
    let (mut legacy, mut neo) = (node.legacy(), node.neo());
    for key in 0..20 {
        let begin = Instant::now();
        put(&mut legacy, "other", key, b"v");
        assert_eq!(put_neo(&mut neo, key + 1, "other", key, b"v"), PutReply::Put);
        let (low, high) = (hex(key), hex(key));
        let request = Request::GetRange { channel: b"other", range: interval(&low, &high) };
        assert_eq!(read(&mut legacy, &request).len(), 2);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    assert_eq!(legacy.ask(&Request::RemoveChannel { channel: b"other" }), Status::Ok);
}

/// More of them than there are threads that read.
#[test]
fn clients_that_do_not_read_their_answers_hold_nobody_up_and_cost_a_bounded_amount_of_memory() {
    let node = large();
    let mut slow: Vec<_> = (0..12)
        .map(|_| {
            let mut client = node.legacy();
            assert_eq!(client.ask(&Request::GetAll { channel: b"c" }), Status::Ok);
            client
        })
        .collect();
    let mut neo: Vec<_> = (0..12).map(|_| node.neo()).collect();
    for client in &mut neo {
        assert_eq!(client.ask(1, &all()), [1]);
    }
    serves(&node);
    // The limit, and what each has in any case. Records that were on their way to the disk when they began count as well.
    assert!(gauge(&node, "ready_bytes") < (64 << 20) + 24 * 1_000_000, "{}", gauge(&node, "ready_bytes"));
    assert_eq!(gauge(&node, "reads"), 24);
    assert!(gauge(&node, "read_files") <= 24);
    // One of them reads on in the end, and gets everything.
    let mut records = 0;
    loop {
        let batch = slow[0].read_array();
        if batch.is_empty() {
            break;
        }
        let mut plain = Vec::new();
        overstory_swarm::batch::decode(&batch, 1 << 20, &mut plain).unwrap();
        records += overstory_swarm::batch::Pairs::new(&plain).count() as u64;
    }
    assert_eq!(records, RECORDS);
    // The others go, and leave nothing behind.
    drop((slow, neo));
    eventually("no reads are left", || gauge(&node, "reads") == 0 && gauge(&node, "read_files") == 0);
    eventually("no batches are left", || gauge(&node, "ready_bytes") == 0);
}

#[test]
fn a_stop_is_heard_at_any_time() {
    let node = large();
    let mut neo = node.neo();
    // After so many batches; for 0 with the request, before anything came.
    for (id, batches) in (1..).zip([0, 1, 2, 5]) {
        neo.begin(id, &all());
        if batches == 0 {
            neo.message(id, &[2]);
        }
        assert_eq!(neo.read(id), [0xfd]);
        assert_eq!(neo.read(id), [1]);
        let mut seen = 0;
        loop {
            match GetRangeMessage::decode(&neo.read(id)).unwrap() {
                GetRangeMessage::Records(_) => {
                    seen += 1;
                    if batches > 0 {
                        neo.message(id, &[if seen == batches { 2 } else { 1 }]);
                    }
                }
                GetRangeMessage::Stopped => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(seen == batches || batches == 0 && seen <= 1, "{seen}");
    }
    // Several at once, some of them to their end, others given up.
    for id in 100..120 {
        neo.begin(id, &all());
        neo.message(id, &[2]);
    }
    let mut stopped = 0;
    while stopped < 20 {
        let (_, body) = neo.read_frame();
        stopped += usize::from(body[8..] == [4]);
    }
    assert_eq!(get_range(&mut neo, 200, &all()).unwrap().len() as u64, RECORDS);
    eventually("no reads are left", || gauge(&node, "reads") == 0);
}

#[test]
fn a_control_that_is_out_of_place_ends_that_connection_alone() {
    let node = large();
    let mut witness = node.neo();
    // A second Continue, an early Ack, a code that is none, nothing at all, too much.
    for (at, control) in [&[1u8][..], &[6], &[9], &[], &[1, 1]].into_iter().enumerate() {
        let mut neo = node.neo();
        assert_eq!(neo.ask(1, &all()), [1]);
        assert_eq!(neo.read(1)[0], 3);
        if at == 0 {
            // Two of them: the second one comes before the batch that it would answer, or answers it.
            neo.message(1, &[1]);
        }
        neo.message(1, control);
        if at == 0 {
            continue;
        }
        let closed = neo.connection.is_closed();
        assert!(closed, "{control:?}");
    }
    // What comes after the end is late, and hurts nobody: the published node closed the connection with all its requests.
    let mut neo = node.neo();
    for late in [1, 2, 6] {
        neo.begin(late, &Neo::GetRange { channel: b"none", low: 0, high: 9, filter: b"", mode: 0 });
        assert_eq!((neo.read(late), neo.read(late), neo.read(late)), (vec![0xfd], vec![1], vec![5]));
        let control = u8::try_from(late).unwrap();
        for control in [control, 6, control, 6] {
            neo.message(late, &[control]);
        }
    }
    assert_eq!(get_range(&mut neo, 3, &all()).unwrap().len() as u64, RECORDS);
    assert_eq!(get_range(&mut witness, 1, &all()).unwrap().len() as u64, RECORDS);
    eventually("no reads are left", || gauge(&node, "reads") == 0);
}

/// A pattern that takes exponential time on each of these records; the published node worked on one of them for hours, and
/// served nobody meanwhile.
#[test]
fn a_catastrophic_pattern_ends_soon_and_is_told() {
    let mut evil = vec![b'a'; 5000];
    evil.push(b'!');
    let records = (0..300).map(|key| ("evil".to_owned(), key, evil.clone())).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let mut client = node.legacy();
    put(&mut client, "evil", 1000, b"aaa");
    let (low, high) = (hex(0), hex(2000));
    let range = interval(&low, &high);
    let patterns = [&b"^(a+)+$"[..], b"^(a|aa)+$", b"(a*)*b|^aaa$", b"^((a|a)*)*$", b"(.*)*(.*)*(.*)*x|^aaa$"];
    let begin = Instant::now();
    let mut waiting: Vec<_> = patterns
        .iter()
        .map(|pattern| {
            let mut client = node.legacy();
            let request = Request::GetRangeRegex { channel: b"evil", range, mode: mode::PCRE, pattern };
            assert_eq!(client.ask(&request), Status::Ok);
            client
        })
        .collect();
    serves(&node);
    for (pattern, client) in patterns.iter().zip(&mut waiting) {
        let mut found = Vec::new();
        loop {
            let batch = client.read_array();
            if batch.is_empty() {
                break;
            }
            let mut plain = Vec::new();
            overstory_swarm::batch::decode(&batch, 1 << 20, &mut plain).unwrap();
            found.extend(overstory_swarm::batch::Pairs::new(&plain).map(|pair| pair.unwrap().1.to_vec()));
        }
        assert!(found.contains(&b"aaa".to_vec()), "{}", String::from_utf8_lossy(pattern));
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    eventually("it is told", || node.findings().iter().any(|(check, _)| *check == "pattern_limit"));
    // What the pattern says of itself does not lift the limit.
    let pattern = b"(*LIMIT_MATCH=4000000000)(*LIMIT_DEPTH=4000000000)(*LIMIT_HEAP=4000000000)^(a+)+$";
    let request = Request::GetRangeRegex { channel: b"evil", range, mode: mode::PCRE, pattern };
    let begin = Instant::now();
    if client.ask(&request) == Status::Ok {
        while !client.read_array().is_empty() {}
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    serves(&node);
}

/// A channel is removed, and its buckets are given new records, while somebody reads it: whole records or none.
#[test]
fn a_read_of_a_channel_that_is_removed_meanwhile_ends_well() {
    let node = large();
    let mut neo = node.neo();
    assert_eq!(neo.ask(1, &all()), [1]);
    assert_eq!(neo.read(1)[0], 3);
    let mut client = node.legacy();
    assert_eq!(client.ask(&Request::RemoveChannel { channel: b"c" }), Status::Ok);
    assert_eq!((node.size(), node.all("c")), ((0, 0), vec![]));
    for key in (0..RECORDS).step_by(100) {
        put(&mut client, "c", key, b"new");
    }
    neo.message(1, &[1]);
    let mut records = 0;
    loop {
        match GetRangeMessage::decode(&neo.read(1)).unwrap() {
            GetRangeMessage::Records(block) => {
                let mut plain = Vec::new();
                overstory_swarm::batch::decode_block(block.plain_len, block.block, 1 << 20, &mut plain).unwrap();
                for record in overstory_swarm::batch::Refreshed::new(&plain) {
                    let (key, value) = record.unwrap();
                    assert!(value == b"new" || value.len() == 1008 && value[1000..] == key.to_le_bytes(), "{key}");
                    records += 1;
                }
                neo.message(1, &[1]);
            }
            GetRangeMessage::Finished => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(records <= RECORDS);
    assert_eq!(node.all("c").len(), 200);
    assert!(node.findings().is_empty(), "{:?}", node.findings());
}

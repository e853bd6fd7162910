//! Nodes that are killed while buckets move between them: the redistribution is finished by asking for it again, and no
//! record is lost.

use std::collections::BTreeSet;

use overstory_swarm::legacy::dls::Request;
use overstory_swarm::legacy::{NodeAddress, Nodes, Status};
use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::{random, some_microseconds};

use super::client::{Legacy, Record};
use super::rig::{Mode, instance};

const RECORDS: u64 = 4000;

/// In buckets of sixteen.
fn records() -> BTreeSet<Record> {
    let value = |number: u64| number.to_le_bytes().repeat(1 + usize::try_from(number % 40).unwrap());
    (0..RECORDS).map(|number| (number << 8, value(number))).collect()
}

fn send(client: &mut Legacy, target: &NodeInstance) {
    let ip = target.legacy.ip().to_string();
    let address = NodeAddress { address: ip.as_bytes(), port: target.legacy.port() };
    let (mut buffer, mut bytes) = (Vec::new(), Vec::new());
    Request::Redistribute { fraction: 1.0, nodes: Nodes::new([address], &mut buffer) }.encode(&mut bytes);
    client.send(&bytes);
}

/// What two nodes have together; each has no more than was put, and counts exactly.
fn together(nodes: [&NodeInstance; 2]) -> BTreeSet<Record> {
    let mut all = BTreeSet::new();
    for node in nodes {
        let mut client = Legacy::to(node);
        // Where only the target was killed, the other one goes on sending: the count is of what was read if nothing
        // moved in between.
        until("nothing moves", || {
            let before = client.size();
            let there = client.all("c");
            let bytes: usize = there.iter().map(|(_, value)| value.len()).sum();
            let (records, still) = (there.len() as u64, client.size() == before);
            assert!(!still || before == (records, bytes as u64), "{before:?} counted, {records} and {bytes} read");
            all.extend(there);
            still
        });
    }
    all
}

#[test]
fn killed_nodes_lose_no_record_of_a_redistribution() {
    let mut killed = 0;
    for round in 0..3 {
        // The old one removes only what the new one says to be durable, whatever its mode is for puts.
        let (old, new) = (instance(Mode::Always), instance(Mode::Interval));
        let (mut source, mut target) = (old.start(), new.start());
        let all: Vec<Record> = records().into_iter().collect();
        Legacy::to(&old).put_all("c", &all);
        for _ in 0..2 {
            let mut client = Legacy::to(&old);
            send(&mut client, &new);
            let part = random(RECORDS);
            let mut watch = Legacy::to(&new);
            until("records move", || watch.size().0 >= part);
            some_microseconds(2000);
            // One of them, or both.
            if round % 3 != 1 {
                source.kill();
                source = old.start();
            }
            if round % 3 != 0 {
                target.kill();
                target = new.start();
            }
            // In the middle: one has some, the other has others.
            killed += u32::from([&old, &new].iter().all(|node| Legacy::to(node).size().0 > 0));
            assert!(together([&old, &new]) == records(), "round {round}");
        }
        // Where only the target died it still goes on, and a second one is refused until it is done.
        until("it is finished", || {
            let mut client = Legacy::to(&old);
            send(&mut client, &new);
            client.read_status() == Status::Ok && client.size().0 == 0
        });
        assert!(Legacy::to(&new).all("c").into_iter().collect::<BTreeSet<_>>() == records());
        for (node, process) in [(&old, source), (&new, target)] {
            assert_eq!(process.stop(), Some(0));
            assert!(!node.log().contains(" Fatal "), "{}", node.log());
        }
    }
    assert!(killed > 0, "no round met a redistribution");
}

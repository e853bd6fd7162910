//! Records that go to other nodes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::rc::Rc;

use overstory_node::engine::{Engine, LegacyStep};
use overstory_node::wake::Waker;
use overstory_swarm::legacy::dls::Request;
use overstory_swarm::legacy::{NodeAddress, Nodes, Status};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::rig::{Record, Rig, open, peer, with_engine};
use crate::bucket::{BucketNumber, KeyRange};
use crate::engine::LogfilesEngine;

/// How a node treats a request that it gets.
#[derive(Debug, Clone, Copy)]
enum Treat {
    /// Refuses it.
    Refuse,
    /// Takes it, and is gone before it has answered.
    TakeAndVanish,
}

/// A node that takes what it is sent, after it has treated the first requests otherwise.
struct Other {
    rig: Rig,
    address: SocketAddrV4,
    requests: Rc<Cell<usize>>,
}

async fn other(treat: &[Treat]) -> Other {
    let dir = TempDir::new().unwrap();
    let engine = open(dir.path(), KeyRange::ALL);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!() };
    let requests = Rc::new(Cell::new(0));
    tokio::task::spawn_local(serve(
        listener,
        Rc::clone(&engine),
        treat.iter().copied().collect(),
        Rc::clone(&requests),
    ));
    Other { rig: Rig { engine, dir }, address, requests }
}

async fn serve(
    listener: TcpListener,
    engine: Rc<LogfilesEngine>,
    mut treat: VecDeque<Treat>,
    requests: Rc<Cell<usize>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut input = Vec::new();
        while stream.read_buf(&mut input).await.unwrap() > 0 {
            let mut out = Vec::new();
            if matches!(treat.front(), Some(Treat::Refuse)) && input.len() > 4 {
                treat.pop_front();
                stream.write_all(&Status::OutOfMemory.code().to_le_bytes()).await.unwrap();
                break;
            }
            let step = engine.legacy(&peer(), &Waker::noop(), &input, &mut out);
            let consumed = match step {
                LegacyStep::Done { consumed, .. } => {
                    requests.set(requests.get() + 1);
                    consumed
                }
                LegacyStep::Later { consumed, reply, .. } => {
                    out = reply.await;
                    consumed
                }
                _ => continue,
            };
            input.drain(..consumed);
            if treat.pop_front().is_some() {
                break;
            }
            stream.write_all(&out).await.unwrap();
        }
    }
}

async fn redistribute(rig: &Rig, fraction: f32, to: &[SocketAddrV4]) -> Status {
    let ips: Vec<_> = to.iter().map(|address| (address.ip().to_string(), address.port())).collect();
    let mut buffer = Vec::new();
    let nodes = ips.iter().map(|(ip, port)| NodeAddress { address: ip.as_bytes(), port: *port });
    rig.status(&Request::Redistribute { fraction, nodes: Nodes::new(nodes, &mut buffer) }).await
}

/// Puts records into some buckets of two channels.
async fn fill(rig: &Rig) -> Vec<(&'static str, Vec<Record>)> {
    let mut all = Vec::new();
    for channel in ["a", "b"] {
        let mut records = Vec::new();
        for number in 0..200_u64 {
            let (key, value) = (number * 500, format!("{channel} {number}").into_bytes());
            assert_eq!(rig.put(channel, key, &value).await, Status::Ok);
            records.push((key, value));
        }
        all.push((channel, records));
    }
    all
}

async fn is_there(rig: &Rig, expected: &[(&'static str, Vec<Record>)]) -> bool {
    for (channel, records) in expected {
        if rig.all(channel).await != *records {
            return false;
        }
    }
    true
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    with_engine(async |rig| {
        let expected = fill(&rig).await;
        let node = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        for fraction in [0.0, -0.5, 1.001, f32::NAN, f32::INFINITY] {
            assert_eq!(redistribute(&rig, fraction, &[node]).await, Status::Error, "{fraction}");
        }
        assert_eq!(redistribute(&rig, 1.0, &[]).await, Status::Error);
        let itself = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 23_000);
        assert_eq!(redistribute(&rig, 1.0, &[node, itself]).await, Status::Error);
        let mut buffer = Vec::new();
        let nodes = Nodes::new([NodeAddress { address: b"localhost", port: 9 }], &mut buffer);
        assert_eq!(rig.status(&Request::Redistribute { fraction: 1.0, nodes }).await, Status::Error);
        assert!(is_there(&rig, &expected).await);
    });
}

#[test]
fn records_that_were_answered_a_moment_ago_go_too_and_no_files_stay_behind() {
    with_engine(async |rig| {
        let (one, two) = (other(&[]).await, other(&[]).await);
        let expected = fill(&rig).await;
        assert_eq!(redistribute(&rig, 1.0, &[one.address, two.address]).await, Status::Ok);
        for (channel, records) in &expected {
            assert_eq!(rig.all(channel).await, []);
            let mut found = [one.rig.all(channel).await, two.rig.all(channel).await].concat();
            found.sort();
            assert_eq!(found, *records);
        }
        // Bucket by bucket in turn.
        assert_eq!((one.requests.get(), two.requests.get()), (25, 25));
        let left: Vec<_> = files(rig.dir.path()).into_iter().filter(|path| path.contains("/0000000000/")).collect();
        let bytes: u64 = left.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
        assert!(bytes <= 16 * left.len() as u64, "{left:?}");
        let redistributed = &rig.engine.core.stats.actions[1];
        assert_eq!(redistributed.records.get(), 400);
        // A put that comes later stays.
        assert_eq!(rig.put("a", 500, b"new").await, Status::Ok);
        assert_eq!(rig.all("a").await, [(500, b"new".to_vec())]);
    });
}

#[test]
fn a_part_of_the_buckets_moves() {
    with_engine(async |rig| {
        let node = other(&[]).await;
        let expected = fill(&rig).await;
        assert_eq!(redistribute(&rig, 0.5, &[node.address]).await, Status::Ok);
        let mut moved = 0;
        for (channel, records) in &expected {
            let (here, there) = (rig.all(channel).await, node.rig.all(channel).await);
            let bucket = |record: &Record| BucketNumber::of(record.0);
            assert!(there.iter().all(|record| here.iter().all(|other| bucket(other) != bucket(record))));
            moved += there.len();
            let mut found = [here, there].concat();
            found.sort();
            assert_eq!(found, *records);
        }
        // 52 buckets: one in a million million that all stay or all go.
        assert!(moved > 0 && moved < 400, "{moved}");
    });
}

#[test]
fn a_batch_that_is_not_taken_goes_to_another_node() {
    with_engine(async |rig| {
        let (one, two) = (other(&[Treat::Refuse]).await, other(&[Treat::Refuse, Treat::Refuse]).await);
        let gone = {
            // Not 127.0.0.1: somebody else may listen on the same port of that by then.
            let listener = std::net::TcpListener::bind(("127.0.0.3", 0)).unwrap();
            let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!() };
            address
        };
        let expected = fill(&rig).await;
        assert_eq!(redistribute(&rig, 1.0, &[one.address, gone, two.address]).await, Status::Ok);
        for (channel, records) in &expected {
            let mut found = [one.rig.all(channel).await, two.rig.all(channel).await].concat();
            found.sort();
            assert_eq!(found, *records);
            assert_eq!(rig.all(channel).await, []);
        }
    });
}

#[test]
fn a_lost_answer_doubles_a_batch_and_loses_none() {
    with_engine(async |rig| {
        let node = other(&[Treat::TakeAndVanish]).await;
        let expected = fill(&rig).await;
        assert_eq!(redistribute(&rig, 1.0, &[node.address]).await, Status::Ok);
        for (channel, records) in &expected {
            let mut found = node.rig.all(channel).await;
            found.sort();
            found.dedup();
            assert_eq!(found, *records);
        }
        assert!(node.rig.engine.storage().totals().records > 400);
    });
}

#[test]
fn one_at_a_time_and_it_ends_when_the_node_stops() {
    with_engine(async |rig| {
        let expected = fill(&rig).await;
        // Not 127.0.0.1: somebody else may listen on the same port of that by then.
        let listener = std::net::TcpListener::bind(("127.0.0.3", 0)).unwrap();
        let SocketAddr::V4(nobody) = listener.local_addr().unwrap() else { panic!() };
        drop(listener);
        let (engine, nodes) = (Rc::clone(&rig.engine), [nobody]);
        let ask = redistribute(&rig, 1.0, &nodes);
        let others = async {
            let again = loop {
                let status = redistribute(&rig, 1.0, &[nobody]).await;
                if status == Status::Error {
                    break status;
                }
            };
            engine.stop();
            again
        };
        assert_eq!(tokio::join!(ask, others), (Status::Error, Status::Error));
        assert!(is_there(&rig, &expected).await, "what was not taken by anybody is still here");
        let node = other(&[]).await;
        assert_eq!(redistribute(&rig, 1.0, &[node.address]).await, Status::Ok, "another one may begin");
    });
}

#[test]
fn a_bucket_that_cannot_be_read_as_a_whole_stays() {
    with_engine(async |rig| {
        let expected = fill(&rig).await;
        rig.engine.storage().flush().await.unwrap();
        let bucket = rig.dir.path().join("a").join(BucketNumber::of(0).to_string());
        let mut bytes = std::fs::read(&bucket).unwrap();
        // The parity of the third record.
        bytes[16 + 2 * (17 + 3) + 16] ^= 1;
        std::fs::write(&bucket, &bytes).unwrap();
        let node = other(&[]).await;
        assert_eq!(redistribute(&rig, 1.0, &[node.address]).await, Status::Ok);
        assert_eq!(std::fs::read(&bucket).unwrap(), bytes, "the file is as it was");
        let here = rig.all("a").await;
        assert!(!here.is_empty() && here.iter().all(|(key, _)| BucketNumber::of(*key) == BucketNumber::of(0)));
        let mut found = node.rig.all("b").await;
        found.sort();
        assert_eq!(found, expected[1].1);
    });
}

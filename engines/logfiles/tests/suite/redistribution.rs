//! Redistribute: a bucket leaves only when another node has all of it, whoever is away, dies, or writes meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;

use overstory_replay::{Connection, eventually};
use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::legacy::dls::Request;
use overstory_swarm::legacy::{NodeAddress, Nodes, Status};
use overstory_swarm::neo::dls::PutReply;

use crate::rig::{Node, Record, Setup, check, copy, put, put_neo};

fn request(fraction: f32, targets: &[SocketAddrV4]) -> Vec<u8> {
    let addresses: Vec<String> = targets.iter().map(|target| target.ip().to_string()).collect();
    let nodes =
        targets.iter().zip(&addresses).map(|(at, text)| NodeAddress { address: text.as_bytes(), port: at.port() });
    let (mut buffer, mut bytes) = (Vec::new(), Vec::new());
    Request::Redistribute { fraction, nodes: Nodes::new(nodes, &mut buffer) }.encode(&mut bytes);
    bytes
}

fn redistribute(client: &mut Connection, fraction: f32, targets: &[SocketAddrV4]) -> Status {
    client.send(&request(fraction, targets));
    client.read_status()
}

fn value(number: u64) -> Vec<u8> {
    format!("value {number} {}", "x".repeat(usize::try_from(number % 200).unwrap())).into_bytes()
}

/// So many records, in buckets of four.
fn records(count: u64) -> Vec<Record> {
    (0..count).map(|number| (number * 1024, value(number))).collect()
}

fn fill(node: &Node, channel: &str, count: u64) {
    let mut client = node.legacy();
    for (key, value) in records(count) {
        put(&mut client, channel, key, &value);
    }
}

/// All files of a directory that are called so.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path(), end)),
            _ if entry.path().to_string_lossy().ends_with(end) => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// The published node sent what was in the file, renamed it to .tmp, and what was in the buffer, or came later, was seen
/// by nobody any more (§10.1 18).
#[test]
fn records_that_are_still_in_the_buffer_are_sent_and_nothing_is_left_behind() {
    for v2 in [false, true] {
        let target = Node::start(Setup::default());
        let setup = Setup::default().with(|settings| settings.write_after = std::time::Duration::from_secs(3600));
        let node = Node::start(if v2 { setup.v2() } else { setup });
        fill(&node, "c", 20);
        assert!(files(&node.data, "/000").is_empty(), "all of it is in buffers");
        let mut client = node.legacy();
        assert_eq!(redistribute(&mut client, 1.0, &[target.legacy]), Status::Ok);
        assert_eq!(target.all("c"), records(20));
        assert_eq!((node.all("c"), node.size()), (vec![], (0, 0)));
        // The same buckets take records again, and they are seen.
        put(&mut client, "c", 1024, b"later");
        assert_eq!(node.all("c"), [(1024, b"later".to_vec())]);
        assert_eq!(node.size(), (1, 5));
        assert_eq!(redistribute(&mut client, 1.0, &[target.legacy]), Status::Ok);
        assert_eq!(target.channel_size("c").0, 21);
        for node in [&node, &target] {
            assert_eq!(files(&node.data, ".tmp").len() + files(&node.data, ".new").len(), 0);
        }
        // It is gone for good.
        let place = node.stop().unwrap();
        let node = Node::start(Setup::at(&place.path().join("data")));
        assert_eq!((node.all("c"), node.size()), (vec![], (0, 0)));
        assert_eq!(check(&node.data, &[]), 0);
    }
}

#[test]
fn a_fraction_of_the_buckets_goes_and_the_rest_stays_and_several_nodes_share_it() {
    let targets = [Node::start(Setup::default()), Node::start(Setup::default())];
    let node = Node::start(Setup::default());
    fill(&node, "c", 800);
    let to = targets.each_ref().map(|target| target.legacy);
    assert_eq!(redistribute(&mut node.legacy(), 0.5, &to), Status::Ok);
    let mut all = node.all("c");
    assert!((200..600).contains(&all.len()), "about half of it: {}", all.len());
    assert_eq!(all.len() as u64, node.size().0);
    for target in &targets {
        let there = target.all("c");
        assert!(there.len() >= 80, "{}", there.len());
        all.extend(there);
    }
    all.sort();
    assert_eq!(all, records(800));
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let node = Node::start(Setup::default());
    fill(&node, "c", 10);
    let mut client = node.legacy();
    let other = Node::start(Setup::default()).legacy;
    for fraction in [0.0, -1.0, 1.5, f32::NAN, f32::INFINITY] {
        assert_eq!(redistribute(&mut client, fraction, &[other]), Status::Error, "{fraction}");
    }
    assert_eq!(redistribute(&mut client, 1.0, &[]), Status::Error);
    assert_eq!(redistribute(&mut client, 1.0, &["127.0.0.1:0".parse().unwrap()]), Status::Error);
    let mut buffer = Vec::new();
    for address in [&b"localhost"[..], b"", b"1.2.3.4.5", b"\xff"] {
        let nodes = Nodes::new([NodeAddress { address, port: 1 }], &mut buffer);
        assert_eq!(client.ask(&Request::Redistribute { fraction: 1.0, nodes }), Status::Error);
    }
    assert_eq!(node.all("c"), records(10));
}

/// Stands between two nodes and dies as it is told.
struct Relay {
    listener: TcpListener,
    to: SocketAddrV4,
    /// Bytes that it lets through before it closes a connection.
    cut: usize,
    cuts: AtomicUsize,
    over: AtomicBool,
}

impl Relay {
    fn address(&self) -> SocketAddrV4 {
        self.listener.local_addr().unwrap().to_string().parse().unwrap()
    }

    /// Lets one connection after the other through; the first so many are closed in the middle.
    fn run(&self) {
        for client in self.listener.incoming().flatten() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let left = self.cuts.load(Ordering::Relaxed);
            self.cuts.store(left.saturating_sub(1), Ordering::Relaxed);
            let limit = if left > 0 { self.cut } else { usize::MAX };
            let _ = self.serve(client, limit);
        }
    }

    fn serve(&self, mut client: TcpStream, mut limit: usize) -> std::io::Result<()> {
        let mut node = TcpStream::connect(self.to)?;
        let mut answers = (node.try_clone()?, client.try_clone()?);
        // Ends when one of the two is closed.
        let back = std::thread::spawn(move || drop(std::io::copy(&mut answers.0, &mut answers.1)));
        let mut buffer = [0; 300];
        loop {
            let count = client.read(&mut buffer)?;
            if count == 0 || limit < count {
                node.shutdown(std::net::Shutdown::Both)?;
                client.shutdown(std::net::Shutdown::Both)?;
                back.join().unwrap();
                return Ok(());
            }
            limit -= count;
            node.write_all(&buffer[..count])?;
        }
    }
}

#[test]
fn a_target_that_dies_in_the_middle_gets_everything_when_it_is_back_and_nothing_is_lost() {
    let target = Node::start(Setup::default());
    let node = Node::start(Setup::default());
    fill(&node, "c", 60);
    let relay = Relay {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        to: target.legacy,
        cut: 2000,
        cuts: AtomicUsize::new(1),
        over: AtomicBool::new(false),
    };
    scope(|scope| {
        scope.spawn(|| relay.run());
        let mut client = node.legacy();
        client.send(&request(1.0, &[relay.address()]));
        // What has not been answered for by the target is still here; no record is at neither node. It is asked there
        // last: what has gone from here by then has arrived.
        loop {
            let here = node.channel_size("c").0;
            let there = target.channel_size("c").0;
            assert!(here + there >= 60, "{here} here and {there} there");
            if here == 0 {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(client.read_status(), Status::Ok);
        relay.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(relay.address()).unwrap());
    });
    // What had been taken before the connection broke was not known to be durable there, and was sent again.
    let mut there = target.all("c");
    there.sort();
    there.dedup();
    assert!(there == records(60));
    assert_eq!(node.size(), (0, 0));
}

/// An address where nobody listens: not of 127.0.0.1, on which somebody else may get the port.
fn nobody() -> SocketAddrV4 {
    let free = TcpListener::bind("127.0.0.3:0").unwrap();
    free.local_addr().unwrap().to_string().parse().unwrap()
}

#[test]
fn while_a_target_is_away_everything_stays_and_is_served_and_a_second_request_is_refused() {
    let away = nobody();
    let node = Node::start(Setup::default());
    fill(&node, "c", 40);
    let mut waits = node.legacy();
    waits.send(&request(1.0, &[away]));
    assert!(waits.is_silent(), "it is tried until it works");
    let mut client = node.legacy();
    assert_eq!(redistribute(&mut client, 1.0, &[away]), Status::Error);
    assert_eq!(node.all("c"), records(40));
    put(&mut client, "c", 7 << 30, b"meanwhile");
    assert_eq!(node.size().0, 41);
    // A node that is killed in the middle has everything at its next start.
    let place = tempfile::tempdir().unwrap();
    node.flush();
    copy(&node.data, place.path());
    let again = Node::start(Setup::at(place.path()));
    assert_eq!((again.all("c").len(), again.size().0), (41, 41));
    // And one that is stopped does not wait for the target.
    drop(node);
    assert_eq!(waits.read_status(), Status::Error);
    assert!(waits.is_closed());
}

#[test]
fn the_target_that_works_gets_what_the_other_one_does_not_take() {
    let away = nobody();
    let target = Node::start(Setup::default());
    // A third one that takes none of these keys.
    let other = Node::start(Setup::default().with(|settings| settings.range.low = 1 << 60));
    let node = Node::start(Setup::default());
    fill(&node, "c", 60);
    let targets = [away, other.legacy, target.legacy];
    assert_eq!(redistribute(&mut node.legacy(), 1.0, &targets), Status::Ok);
    assert_eq!(target.all("c"), records(60));
    assert_eq!((node.size().0, other.size().0), (0, 0));
}

/// Records come while their buckets go: each is at one of the nodes afterwards, none at both.
#[test]
fn what_is_put_meanwhile_is_not_lost() {
    let target = Node::start(Setup::default());
    let node = Node::start(Setup::default());
    fill(&node, "c", 400);
    let over = AtomicBool::new(false);
    let puts = scope(|scope| {
        let putting = scope.spawn(|| {
            let (mut client, mut count) = (node.legacy(), 0);
            while !over.load(Ordering::Relaxed) {
                put(&mut client, "c", count % 400 * 1024 + 1 + count / 400, &value(count));
                count += 1;
            }
            count
        });
        for _ in 0..5 {
            assert_eq!(redistribute(&mut node.legacy(), 0.7, &[target.legacy]), Status::Ok);
        }
        over.store(true, Ordering::Relaxed);
        putting.join().unwrap()
    });
    let mut expected = records(400);
    expected.extend((0..puts).map(|count| (count % 400 * 1024 + 1 + count / 400, value(count))));
    expected.sort();
    let (here, there) = (node.all("c"), target.all("c"));
    assert_eq!((here.len() as u64, there.len() as u64), (node.size().0, target.size().0));
    let mut all = [here, there].concat();
    all.sort();
    assert!(all == expected, "{} of {}", all.len(), expected.len());
}

/// A bucket of which a part cannot be read is sent, and stays: removing it would remove what somebody may salvage.
#[test]
fn a_damaged_bucket_is_sent_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let node = Node::start(Setup::at(&data));
    fill(&node, "c", 4);
    node.stop();
    let bucket = data.join("c/0000000000/000");
    let mut bytes = fs::read(&bucket).unwrap();
    let second = 16 + 17 + value(0).len();
    bytes[second + 16] ^= 0x40;
    fs::write(&bucket, &bytes).unwrap();
    let (node, target) = (Node::start(Setup::at(&data)), Node::start(Setup::default()));
    assert_eq!(redistribute(&mut node.legacy(), 1.0, &[target.legacy]), Status::Ok);
    let mut intact = records(4);
    intact.remove(1);
    assert_eq!(target.all("c"), intact);
    assert!(fs::read(&bucket).unwrap() == bytes);
    eventually("it is told", || node.findings().iter().any(|(_, text)| text.contains("c/0000000000/000")));
}

/// A record without a value, which neo puts, was refused by the other node after what stood in front of it had been
/// stored: every two seconds, for ever.
#[test]
fn a_bucket_with_a_record_without_a_value_stays_and_the_others_go() {
    let (node, target) = (Node::start(Setup::default()), Node::start(Setup::default()));
    fill(&node, "c", 7);
    assert_eq!(put_neo(&mut node.neo(), 1, "c", 3073, b""), PutReply::Put);
    assert_eq!(redistribute(&mut node.legacy(), 1.0, &[target.legacy]), Status::Ok);
    let all = records(7);
    assert_eq!(node.all("c"), [&all[..4], &[(3073, Vec::new())]].concat());
    assert_eq!(target.all("c"), all[4..]);
    eventually("it is told", || {
        node.findings().iter().any(|(_, text)| text.contains("1 buckets that were to be sent"))
    });
}

/// A bucket that no node takes as a whole was sent for ever, and the front of it stored each time.
#[test]
fn a_bucket_that_no_node_takes_as_a_whole_stays_and_the_others_go() {
    let below = Node::start(Setup::default().with(|settings| settings.range.high = 10 << 12 | 2047));
    let above = Node::start(Setup::default().with(|settings| settings.range.low = 10 << 12 | 2048));
    let node = Node::start(Setup::default());
    fill(&node, "c", 80);
    assert_eq!(redistribute(&mut node.legacy(), 1.0, &[below.legacy, above.legacy]), Status::Ok);
    let all = records(80);
    assert_eq!(below.all("c"), all[..40]);
    assert_eq!(node.all("c"), all[40..44]);
    assert_eq!(above.all("c"), all[44..]);
}

/// Reads a PutBatch, which is nothing but a code and two arrays.
fn read_batch(stream: &mut TcpStream) -> Vec<u8> {
    let mut code = [0; 4];
    stream.read_exact(&mut code).unwrap();
    let mut array = || {
        let mut length = [0; 8];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).unwrap()];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    };
    array();
    array()
}

fn plain_of(batch: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    batch::decode(batch, 16 << 20, &mut plain).unwrap();
    plain
}

/// A node that was killed had answered for what was in its memory only: the records were at neither node.
#[test]
fn what_a_target_has_taken_stays_until_it_is_durable_there() {
    let node = Node::start(Setup::default());
    fill(&node, "c", 8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target: SocketAddrV4 = listener.local_addr().unwrap().to_string().parse().unwrap();
    let mut client = node.legacy();
    client.send(&request(1.0, &[target]));
    let take = |stream: &mut TcpStream| {
        let plain = plain_of(&read_batch(stream));
        Pairs::new(&plain).map(|pair| pair.unwrap().0.to_vec()).collect::<Vec<_>>()
    };
    let ok = |stream: &mut TcpStream| stream.write_all(&Status::Ok.code().to_le_bytes()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = Vec::new();
    loop {
        let keys = take(&mut stream);
        if keys.is_empty() {
            break;
        }
        first.extend(keys);
        ok(&mut stream);
    }
    assert_eq!(first.len(), 8);
    assert_eq!(node.channel_size("c").0, 8, "all is here still");
    // It dies before it has said so.
    drop(stream);
    let (mut stream, _) = listener.accept().unwrap();
    let mut again = Vec::new();
    loop {
        let keys = take(&mut stream);
        ok(&mut stream);
        if keys.is_empty() {
            break;
        }
        again.extend(keys);
    }
    assert_eq!(again, first);
    assert_eq!(client.read_status(), Status::Ok);
    assert_eq!(node.size(), (0, 0));
}

/// What had arrived and could not be removed here was sent again every two seconds, for as long as that lasted: on a full
/// disk, the usual reason to give records away, the other node filled with copies.
#[test]
fn what_has_arrived_is_not_sent_again_when_it_cannot_be_removed() {
    let node = Node::start(Setup::default());
    fill(&node, "c", 4);
    node.flush();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target: SocketAddrV4 = listener.local_addr().unwrap().to_string().parse().unwrap();
    let mut client = node.legacy();
    client.send(&request(1.0, &[target]));
    let (mut stream, _) = listener.accept().unwrap();
    read_batch(&mut stream);
    // More comes, so that the rest has to be written to a file of its own, whose name is taken.
    put(&mut node.legacy(), "c", 1, b"later");
    node.flush();
    let obstacle = node.data.join("c/0000000000/000.rest.new");
    fs::create_dir(&obstacle).unwrap();
    stream.write_all(&Status::Ok.code().to_le_bytes()).unwrap();
    assert_eq!(Pairs::new(&plain_of(&read_batch(&mut stream))).count(), 0, "whether it is durable is asked");
    stream.write_all(&Status::Ok.code().to_le_bytes()).unwrap();
    // Long enough for a second attempt.
    stream.set_read_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "nothing comes after what has arrived");
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(client.read_status(), Status::Ok);
    assert_eq!(node.all("c"), [(1, b"later".to_vec())]);
}

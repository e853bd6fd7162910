//! The client of queues: turns and failover, what is repeated and what is not, consumers that lose nothing.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overstory_client::dmq::{Consumer, Delivery};
use overstory_client::{ClientConfig, DmqClient, Error, Outcome, Pipeline, Registry};
use overstory_swarm::legacy::dmq::{Request, decode};
use overstory_swarm::legacy::{Decoded, Limits, Need, NodeAddress, Status, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::node::identity;
use super::queue_node::{Behaviour, QueueNode};

const LONG: Duration = Duration::from_secs(30);

pub(crate) fn registry(nodes: impl IntoIterator<Item = SocketAddrV4>) -> Registry {
    let mut registry = Registry::new();
    nodes.into_iter().for_each(|node| registry.add(node).unwrap());
    registry
}

fn neo(nodes: &[SocketAddrV4]) -> ClientConfig {
    ClientConfig::neo(registry(nodes.iter().copied()), identity())
}

pub(crate) async fn dead() -> SocketAddrV4 {
    // Not 127.0.0.1: somebody else may listen on the same port of that by then.
    let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
    address
}

fn record(number: usize) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    timeout(LONG, consumer.next()).await.unwrap().unwrap().unwrap()
}

async fn batch(consumer: &mut Consumer) -> Vec<Vec<u8>> {
    match next(consumer).await {
        Delivery::Records(batch) => batch.records().map(<[u8]>::to_vec).collect(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    timeout(LONG, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn pushes_go_to_the_nodes_in_turn_and_pops_find_them() {
    let (a, b) = (QueueNode::start(Behaviour::default()).await, QueueNode::start(Behaviour::default()).await);
    let client = DmqClient::connect(neo(&[a.address, b.address])).await.unwrap();
    for number in 0..10 {
        client.push("c", &record(number)).await.unwrap();
    }
    assert_eq!((a.len(), b.len()), (5, 5));
    let mut popped = Vec::new();
    while let Some(value) = client.pop("c").await.unwrap() {
        popped.push(value);
    }
    popped.sort_unstable();
    assert_eq!(popped, (0..10).map(record).collect::<Vec<_>>());
    // A node that has the last record is found, whosever turn it is.
    for _ in 0..4 {
        client.push("c", b"last").await.unwrap();
        assert_eq!(client.pop("c").await.unwrap().as_deref(), Some(&b"last"[..]));
    }
    client.push_multi(&["c", "d"], b"v").await.unwrap();
    assert!(matches!(client.push("c", b"").await, Err(Error::EmptyValue)));
    assert!(matches!(client.push("../x", b"v").await, Err(Error::BadChannelName(_))));
    assert!(matches!(client.push_multi(&[], b"v").await, Err(Error::BadChannelName(_))));
    assert!(matches!(client.push_multi(&["c"; 256], b"v").await, Err(Error::TooManyChannels { .. })));
    assert!(matches!(client.consume("c", "a@b"), Err(Error::BadChannelName(_))));
    assert!(matches!(client.remove_channel("c").await, Err(Error::OtherProtocolOnly { .. })));
    assert!(matches!(client.produce(&["c"]), Err(Error::OtherProtocolOnly { .. })));
}

#[tokio::test]
async fn nodes_that_are_away_or_full_are_passed_over() {
    let full = QueueNode::start(Behaviour { limit: Some(1), ..Behaviour::default() }).await;
    let room = QueueNode::start(Behaviour { limit: Some(20), ..Behaviour::default() }).await;
    let client = DmqClient::start(neo(&[dead().await, full.address, room.address])).unwrap();
    for number in 0..21 {
        client.push("c", &record(number)).await.unwrap();
    }
    assert_eq!((full.len(), room.len()), (1, 20));
    let error = timeout(LONG, client.push("c", b"too much")).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::NotPushed { .. }), "{error}");
    assert!(error.is_retryable() && !error.effect_unknown());
    for _ in 0..21 {
        assert!(client.pop("c").await.unwrap().is_some());
    }
    assert_eq!(client.pop("c").await.unwrap(), None);
}

#[tokio::test]
async fn a_push_waits_for_the_first_node_and_fails_if_none_comes() {
    let address = dead().await;
    let client = DmqClient::start(neo(&[address])).unwrap();
    let coming = async { QueueNode::serve(TcpListener::bind(address).await.unwrap(), Behaviour::default()) };
    let (push, node) = tokio::join!(client.push("c", b"v"), coming);
    push.unwrap();
    assert_eq!(node.len(), 1);
    let short = ClientConfig { request_timeout: Duration::from_millis(100), ..neo(&[dead().await]) };
    let error = DmqClient::start(short).unwrap().push("c", b"v").await.unwrap_err();
    assert!(matches!(error, Error::Away { .. }) && !error.effect_unknown(), "{error}");
}

#[tokio::test]
async fn a_push_whose_connection_broke_is_repeated_only_if_asked_for() {
    for at_least_once in [false, true] {
        let node = QueueNode::start(Behaviour { break_at_push: Some(2), ..Behaviour::default() }).await;
        let client = DmqClient::connect(ClientConfig { at_least_once, ..neo(&[node.address]) }).await.unwrap();
        client.push("c", b"1").await.unwrap();
        let second = client.push("c", b"2").await;
        assert_eq!(second.is_ok(), at_least_once);
        if let Err(error) = second {
            assert!(matches!(error, Error::Broken { .. }) && error.effect_unknown(), "{error}");
        }
        client.push("c", b"3").await.unwrap();
        // The node had taken it before it broke.
        assert_eq!(node.len(), if at_least_once { 4 } else { 3 });
    }
}

#[tokio::test]
async fn subscribers_and_refusals_are_told() {
    let node = QueueNode::start(Behaviour { subscribed: true, ..Behaviour::default() }).await;
    let client = DmqClient::connect(neo(&[node.address])).await.unwrap();
    assert!(matches!(client.pop("c").await, Err(Error::Subscribed { .. })));
    let closed = QueueNode::start(Behaviour { reject: true, ..Behaviour::default() }).await;
    let refused = DmqClient::connect(neo(&[closed.address])).await.err().unwrap();
    assert!(matches!(refused, Error::Rejected { .. }), "{refused}");
    let client = DmqClient::start(neo(&[closed.address])).unwrap();
    assert!(matches!(client.push("c", b"v").await, Err(Error::Rejected { .. })));
    let mut consumer = client.consume("c", "").unwrap();
    assert!(matches!(timeout(LONG, consumer.next()).await.unwrap(), Some(Err(Error::Rejected { .. }))));
    assert!(timeout(LONG, consumer.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_batch_is_taken_over_when_the_next_is_asked_for() {
    let node = QueueNode::start(Behaviour { batch: 3, ..Behaviour::default() }).await;
    node.fill((0..9).map(record));
    let client = DmqClient::connect(neo(&[node.address])).await.unwrap();
    let mut consumer = client.consume("c", "").unwrap();
    assert_eq!(batch(&mut consumer).await, (0..3).map(record).collect::<Vec<_>>());
    assert_eq!(node.continues.load(Ordering::SeqCst), 0);
    assert_eq!(batch(&mut consumer).await, (3..6).map(record).collect::<Vec<_>>());
    assert_eq!(node.continues.load(Ordering::SeqCst), 1);
    // What was not taken over is there again for the next one.
    drop(consumer);
    until(|| node.len() == 6).await;
    let mut consumer = client.consume("c", "").unwrap();
    assert_eq!(batch(&mut consumer).await, (3..6).map(record).collect::<Vec<_>>());
    consumer.accept();
    until(|| node.continues.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn a_stop_brings_what_was_sent_and_leaves_the_rest() {
    let node = QueueNode::start(Behaviour { batch: 3, ..Behaviour::default() }).await;
    node.fill((0..9).map(record));
    let client = DmqClient::connect(neo(&[node.address])).await.unwrap();
    let mut consumer = client.consume("c", "").unwrap();
    batch(&mut consumer).await;
    consumer.stop();
    // The batch is only taken over, by the Stop, when the application is done with it.
    assert!(timeout(LONG, consumer.next()).await.unwrap().is_none());
    assert_eq!((node.len(), node.continues.load(Ordering::SeqCst)), (6, 0));
    // Where nothing was delivered the Stop goes at once.
    node.records.lock().unwrap().clear();
    let mut idle = client.consume("c", "").unwrap();
    until(|| node.consumers.load(Ordering::SeqCst) == 2).await;
    idle.stop();
    assert!(timeout(LONG, idle.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_suspended_consumer_keeps_its_place() {
    let node = QueueNode::start(Behaviour { batch: 1, ..Behaviour::default() }).await;
    node.fill((0..3).map(record));
    let client = DmqClient::connect(neo(&[node.address])).await.unwrap();
    let mut consumer = client.consume("c", "").unwrap();
    assert_eq!(batch(&mut consumer).await, [record(0)]);
    consumer.suspend();
    assert!(timeout(Duration::from_millis(50), consumer.next()).await.is_err());
    assert_eq!(node.continues.load(Ordering::SeqCst), 0);
    consumer.resume();
    assert_eq!((batch(&mut consumer).await, batch(&mut consumer).await), (vec![record(1)], vec![record(2)]));
}

#[tokio::test]
async fn a_lost_node_is_told_and_consumed_from_again() {
    let behaviour = Behaviour { batch: 2, break_at_batch: Some(2), ..Behaviour::default() };
    let (node, other) = (QueueNode::start(behaviour).await, QueueNode::start(Behaviour::default()).await);
    node.fill((0..8).map(record));
    let client = DmqClient::connect(neo(&[node.address, other.address])).await.unwrap();
    let mut consumer = client.consume("c", "").unwrap();
    let (mut seen, mut lost) = (BTreeMap::new(), 0);
    while lost == 0 || seen.len() < 8 {
        match next(&mut consumer).await {
            Delivery::Records(batch) => {
                batch.records().for_each(|record| *seen.entry(record.to_vec()).or_insert(0) += 1);
            }
            Delivery::Lost { node: of, cause } => {
                assert_eq!(of, node.address);
                assert!(matches!(cause, Error::Broken { .. }), "{cause}");
                lost += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // Records 2 and 3 had come, and were not taken over when the connection broke.
    assert_eq!((lost, seen[&record(2)], seen[&record(3)]), (1, 2, 2));
    assert_eq!(seen.values().sum::<i32>(), 10);
    other.fill([record(9)]);
    assert_eq!(batch(&mut consumer).await, [record(9)]);
    // One channel removed does not end it, all do.
    for gone in [&node, &other] {
        gone.removed.notify_waiters();
        let Delivery::ChannelRemoved { node: of } = next(&mut consumer).await else { panic!("removed") };
        assert_eq!(of, gone.address);
    }
    assert!(timeout(LONG, consumer.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_pipeline_pushes_and_pops() {
    let node = QueueNode::start(Behaviour { limit: Some(1000), ..Behaviour::default() }).await;
    let mut pipeline = Pipeline::connect(node.address, &identity(), LONG).await.unwrap();
    for token in 0..1001 {
        assert!(pipeline.push(token, "c", &token.to_le_bytes()));
    }
    let mut failed = Vec::new();
    while pipeline.in_flight() > 0 {
        let note = |token, outcome: Outcome<'_>| match outcome {
            Outcome::Pushed => {}
            Outcome::Failed => failed.push(token),
            other => panic!("{other:?}"),
        };
        pipeline.complete(note).await.unwrap();
    }
    assert_eq!(failed, [1000]);
    for token in 0..1001 {
        assert!(pipeline.pop(token, "c"));
    }
    while pipeline.in_flight() > 0 {
        let check = |token: u64, outcome: Outcome<'_>| match token {
            1000 => assert_eq!(outcome, Outcome::Empty),
            _ => assert_eq!(outcome, Outcome::Value(&token.to_le_bytes())),
        };
        pipeline.complete(check).await.unwrap();
    }
    assert!(!pipeline.push_multi(0, &["c"; 256], b"v"));
}

/// A legacy queue node with one queue for all channels.
#[derive(Default)]
struct OldNode {
    records: Mutex<Vec<Vec<u8>>>,
    limit: Option<usize>,
    seen: Mutex<Vec<&'static str>>,
}

impl OldNode {
    async fn start(limit: Option<usize>) -> (SocketAddrV4, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        let node = Arc::new(Self { limit, ..Self::default() });
        let serving = Arc::clone(&node);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let node = Arc::clone(&serving);
                tokio::spawn(async move { node.connection(stream).await });
            }
        });
        (address, node)
    }

    async fn connection(&self, mut stream: TcpStream) -> Option<()> {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        loop {
            out.clear();
            let Decoded::Request { request, consumed } = decode(&input, &Limits::DEFAULT).unwrap() else {
                if stream.read_buf(&mut input).await.ok()? == 0 {
                    return None;
                }
                continue;
            };
            self.seen.lock().unwrap().push(request.name());
            let mut produce = false;
            match request {
                Request::Push { value, .. } | Request::PushMulti { value, .. } => {
                    let mut records = self.records.lock().unwrap();
                    if self.limit.is_some_and(|limit| records.len() >= limit) {
                        Status::OutOfMemory.encode(&mut out);
                    } else {
                        records.push(value.to_vec());
                        Status::Ok.encode(&mut out);
                    }
                }
                Request::Pop { .. } => {
                    let mut records = self.records.lock().unwrap();
                    Status::Ok.encode(&mut out);
                    let value = if records.is_empty() { Vec::new() } else { records.remove(0) };
                    reply::put_value(&mut out, &value);
                }
                Request::Consume { .. } => {
                    Status::Ok.encode(&mut out);
                    self.records.lock().unwrap().drain(..).for_each(|value| reply::put_value(&mut out, &value));
                    stream.write_all(&out).await.ok()?;
                    // Until the client has said its last.
                    return (stream.read_u8().await.is_err()).then_some(());
                }
                Request::GetSize | Request::GetChannelSize { .. } => {
                    Status::Ok.encode(&mut out);
                    let node = NodeAddress { address: b"127.0.0.1", port: 1 };
                    reply::put_size(&mut out, &reply::NodeSize { node, records: 3, bytes: 4 });
                }
                Request::GetChannels => {
                    Status::Ok.encode(&mut out);
                    reply::put_value(&mut out, b"c");
                    reply::put_end(&mut out);
                }
                Request::RemoveChannel { .. } => Status::Ok.encode(&mut out),
                Request::GetNumConnections => Status::NotSupported.encode(&mut out),
                Request::Produce { .. } | Request::ProduceMulti { .. } => {
                    Status::Ok.encode(&mut out);
                    produce = true;
                }
            }
            input.drain(..consumed);
            stream.write_all(&out).await.ok()?;
            while produce {
                match reply::item(&input, &Limits::DEFAULT).unwrap() {
                    Need::Done { value, consumed } => {
                        produce = value.is_some();
                        self.records.lock().unwrap().extend(value.map(<[u8]>::to_vec));
                        input.drain(..consumed);
                    }
                    Need::More(_) => {
                        stream.read_buf(&mut input).await.ok()?;
                    }
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.records.lock().unwrap().len()
    }
}

#[tokio::test]
async fn legacy_pushes_pass_full_and_missing_nodes_over() {
    let ((a, full), (b, room)) = (OldNode::start(Some(1)).await, OldNode::start(None).await);
    let gone = dead().await;
    let client = DmqClient::start(ClientConfig::legacy(registry([gone, a, b]))).unwrap();
    for number in 0..9 {
        client.push("c", &record(number)).await.unwrap();
    }
    client.push_multi(&["c", "d"], b"v").await.unwrap();
    assert_eq!((full.len(), room.len()), (1, 9));
    let one = DmqClient::connect(ClientConfig::legacy(registry([a]))).await.unwrap();
    let error = one.push("c", b"v").await.unwrap_err();
    assert!(matches!(error, Error::Full { node } if node == a) && !error.effect_unknown(), "{error}");
    for _ in 0..10 {
        assert!(client.pop("c").await.unwrap().is_some());
    }
    assert_eq!(client.pop("c").await.unwrap(), None);
    let short = ClientConfig { request_timeout: Duration::from_millis(100), ..ClientConfig::legacy(registry([gone])) };
    let error = DmqClient::start(short).unwrap().push("c", b"v").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(matches!(client.consume("c", "s"), Err(Error::OtherProtocolOnly { .. })));
    assert_eq!(client.nodes(), [gone, a, b]);
}

#[tokio::test]
async fn all_nodes_are_asked_and_each_answers_for_itself() {
    let ((a, _), gone) = (OldNode::start(None).await, dead().await);
    let client = DmqClient::start(ClientConfig::legacy(registry([a, gone]))).unwrap();
    let sizes = client.sizes_by_node(Some("c")).await.unwrap();
    assert!(matches!(&sizes[..], [(_, Ok(size)), (_, Err(Error::Connect { .. }))] if size.records == 3), "{sizes:?}");
    let names = client.channels_by_node().await.unwrap();
    assert!(matches!(&names[..], [(_, Ok(names)), (_, Err(_))] if names == &["c"]), "{names:?}");
    let connections = client.num_connections_by_node().await.unwrap();
    assert!(matches!(&connections[..], [(_, Err(Error::Unsupported { .. })), (_, Err(_))]), "{connections:?}");
    let removed = client.remove_channel_by_node("c").await.unwrap();
    assert!(matches!(&removed[..], [(_, Ok(())), (_, Err(_))]), "{removed:?}");
    assert!(client.channels().await.is_err());
    let client = DmqClient::connect(ClientConfig::legacy(registry([a]))).await.unwrap();
    assert_eq!(client.channels().await.unwrap(), ["c"]);
}

#[tokio::test]
async fn a_producer_shares_records_over_the_nodes_and_says_what_they_took() {
    let ((a, first), (b, second)) = (OldNode::start(None).await, OldNode::start(None).await);
    let away = dead().await;
    let client = DmqClient::start(ClientConfig::legacy(registry([a, away, b]))).unwrap();
    for channels in [&["c"][..], &["c", "d"]] {
        let mut producer = client.produce(channels).unwrap();
        for number in 0..20_000 {
            producer.send(&record(number)).await.unwrap();
        }
        assert!(matches!(producer.send(b"").await, Err(Error::EmptyValue)));
        let told = producer.finish().await;
        let taken: Vec<_> = told.iter().filter_map(|(node, taken)| Some((*node, *taken.as_ref().ok()?))).collect();
        assert_eq!(taken, [(a, 10_000), (b, 10_000)]);
        assert!(told.iter().any(|(node, taken)| *node == away && taken.is_err()), "{told:?}");
    }
    assert_eq!((first.len(), second.len()), (20_000, 20_000));
    assert_eq!(*first.seen.lock().unwrap(), ["Produce", "GetNumConnections", "ProduceMulti", "GetNumConnections"]);
    let mut producer = client.produce(&["c"]).unwrap();
    producer.send(b"alone").await.unwrap();
    producer.flush().await.unwrap();
    until(|| first.len() + second.len() == 40_001).await;
}

#[tokio::test]
async fn a_legacy_consumer_stops_with_all_that_was_sent() {
    let (a, node) = OldNode::start(None).await;
    node.records.lock().unwrap().extend((0..5000).map(record));
    let client = DmqClient::start(ClientConfig::legacy(registry([a]))).unwrap();
    let mut consumer = client.consume("c", "").unwrap();
    let mut seen = batch(&mut consumer).await;
    consumer.stop();
    while let Some(delivery) = timeout(LONG, consumer.next()).await.unwrap() {
        let Delivery::Records(batch) = delivery.unwrap() else { panic!("records") };
        seen.extend(batch.records().map(<[u8]>::to_vec));
    }
    assert_eq!(seen, (0..5000).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_request_can_be_a_task_of_its_own() {
    let (a, _) = OldNode::start(None).await;
    let node = QueueNode::start(Behaviour::default()).await;
    for config in [ClientConfig::legacy(registry([a])), neo(&[node.address])] {
        let client = DmqClient::start(config).unwrap();
        let task = tokio::spawn(async move {
            client.push("c", b"v").await.unwrap();
            client.push_multi(&["c", "d"], b"v").await.unwrap();
            let popped = client.pop("c").await.unwrap();
            let mut consumer = client.consume("c", "").unwrap();
            let Some(Ok(Delivery::Records(batch))) = consumer.next().await else { panic!("records") };
            consumer.stop();
            if let Ok(mut producer) = client.produce(&["c"]) {
                producer.send(b"v").await.unwrap();
                producer.finish().await;
                client.channels().await.unwrap();
                client.sizes_by_node(None).await.unwrap();
                client.num_connections_by_node().await.unwrap();
                client.remove_channel("c").await.unwrap();
            }
            (popped, batch.len())
        });
        assert_eq!(timeout(LONG, task).await.unwrap().unwrap(), (Some(b"v".to_vec()), 1));
    }
}

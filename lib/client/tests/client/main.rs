//! The client against small nodes that behave as a test wants.
#![allow(clippy::unwrap_used, reason = "tests")]

mod away;
mod legacy;
mod log_node;
mod logs;
mod node;
mod old_logs;
mod queue;
mod queue_node;

use std::sync::atomic::Ordering;
use std::time::Duration;

use node::{Behaviour, Node, halves, identity, keys};
use overstory_client::dht::Selection;
use overstory_client::{ClientConfig, DhtClient, Error, Identity, Outcome, Pipeline, Registry};
use overstory_swarm::auth::ClientKey;
use overstory_swarm::key::{HashRange, Key};
use tokio::net::TcpListener;
use tokio::time::timeout;

fn config(nodes: &[&Node], who: Identity) -> ClientConfig {
    let mut registry = Registry::new();
    nodes.iter().for_each(|node| registry.add(node.address).unwrap());
    ClientConfig { connect_timeout: Duration::from_secs(5), ..ClientConfig::neo(registry, who) }
}

async fn connect(nodes: &[&Node]) -> DhtClient {
    DhtClient::connect(config(nodes, identity())).await.unwrap()
}

#[tokio::test]
async fn records_are_stored_read_and_removed() {
    let node = Node::start(HashRange::FULL, Behaviour::default()).await;
    let client = connect(&[&node]).await;
    assert_eq!(client.get("c", Key(1)).await.unwrap(), None);
    client.put("c", Key(1), b"value").await.unwrap();
    assert_eq!(client.get("c", Key(1)).await.unwrap().as_deref(), Some(&b"value"[..]));
    assert!(client.exists("c", Key(1)).await.unwrap());
    assert!(client.remove("c", Key(1)).await.unwrap());
    assert!(!client.remove("c", Key(1)).await.unwrap());
    assert!(matches!(client.put("c", Key(1), b"").await, Err(Error::EmptyValue)));
    assert!(matches!(client.put("../x", Key(1), b"v").await, Err(Error::BadChannelName(_))));
    assert!(matches!(client.put("c", Key(1), &[0; 65513]).await, Err(Error::ValueTooBig { .. })));
    assert!(matches!(client.sizes().await, Err(Error::OtherProtocolOnly { .. })));
}

#[tokio::test]
async fn each_key_goes_to_its_node() {
    let (low, high) = halves();
    let (low_key, high_key) = keys();
    let (a, b) = (Node::start(low, Behaviour::default()).await, Node::start(high, Behaviour::default()).await);
    let client = connect(&[&a, &b]).await;
    client.put("c", low_key, b"low").await.unwrap();
    client.put("c", high_key, b"high").await.unwrap();
    assert_eq!(a.records.lock().unwrap().keys().copied().collect::<Vec<_>>(), [low_key.0]);
    assert_eq!(b.records.lock().unwrap().keys().copied().collect::<Vec<_>>(), [high_key.0]);
    assert!(client.ranges().check(false).is_ok());
}

#[tokio::test]
async fn a_new_node_is_found_and_the_old_one_asked_for_what_has_not_moved() {
    let (low, high) = halves();
    let (_, high_key) = keys();
    let old = Node::start(HashRange::FULL, Behaviour::default()).await;
    let new = Node::start(high, Behaviour::default()).await;
    let client = connect(&[&old]).await;
    client.put("c", high_key, b"here first").await.unwrap();
    old.hand_over(low, &new).await;
    // The record is still at the old node.
    assert_eq!(client.get("c", high_key).await.unwrap().as_deref(), Some(&b"here first"[..]));
    client.put("c", high_key, b"newer").await.unwrap();
    assert_eq!(new.records.lock().unwrap().get(&high_key.0).map(Vec::as_slice), Some(&b"newer"[..]));
    assert_eq!(client.get("c", high_key).await.unwrap().as_deref(), Some(&b"newer"[..]));
    // Removing takes it from both: what is on its way must not come back.
    assert!(client.remove("c", high_key).await.unwrap());
    assert!(old.records.lock().unwrap().is_empty() && new.records.lock().unwrap().is_empty());
    assert_eq!(client.nodes().len(), 2);
}

#[tokio::test]
async fn a_node_that_does_not_know_the_client_says_so_at_once() {
    let node = Node::start(HashRange::FULL, Behaviour::default()).await;
    let stranger = Identity { name: "test".to_owned(), key: ClientKey([1; 128]) };
    let refused = timeout(Duration::from_secs(2), DhtClient::connect(config(&[&node], stranger))).await;
    let error = refused.unwrap().err().unwrap();
    assert!(matches!(&error, Error::Rejected { name, .. } if name == "test"), "{error}");
    assert!(!error.is_retryable() && error.to_string().contains(&node.address.to_string()));
    let closed = Node::start(HashRange::FULL, Behaviour { reject: true, ..Behaviour::default() }).await;
    let refused = Pipeline::connect(closed.address, &identity(), Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(Error::Rejected { .. })));
}

#[tokio::test]
async fn a_node_that_is_away_at_the_start_is_named_and_found_later() {
    // Not 127.0.0.1: somebody else may listen on the same port of that by then.
    let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
    drop(listener);
    let mut registry = Registry::new();
    registry.add(address).unwrap();
    let config =
        ClientConfig { connect_timeout: Duration::from_millis(200), ..ClientConfig::neo(registry, identity()) };
    let error = DhtClient::connect(config.clone()).await.err().unwrap();
    assert!(matches!(&error, Error::Connect { node, .. } if *node == address), "{error}");
    assert!(error.is_retryable() && !error.effect_unknown());
    // Requests wait for it.
    let client = DhtClient::start(config).unwrap();
    let putting = client.put("c", Key(1), b"v");
    let coming = async {
        let listener = TcpListener::bind(address).await.unwrap();
        Node::serve(listener, HashRange::FULL, Behaviour::default())
    };
    let (put, node) = tokio::join!(putting, coming);
    put.unwrap();
    assert_eq!(node.puts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_whose_connection_broke_is_not_repeated() {
    let behaviour = Behaviour { break_at_put: Some(1), ..Behaviour::default() };
    let node = Node::start(HashRange::FULL, behaviour).await;
    let client = connect(&[&node]).await;
    let error = client.put("c", Key(1), b"v").await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }) && error.effect_unknown(), "{error}");
    // The connection comes back by itself.
    client.put("c", Key(2), b"v").await.unwrap();
    assert_eq!(node.puts.load(Ordering::SeqCst), 2);
    assert_eq!(node.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_silent_node_ends_a_request_by_time_out() {
    let node = Node::start(HashRange::FULL, Behaviour { silent: true, ..Behaviour::default() }).await;
    let config = ClientConfig { request_timeout: Duration::from_millis(100), ..config(&[&node], identity()) };
    let client = DhtClient::connect(config).await.unwrap();
    let error = client.get("c", Key(1)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.effect_unknown(), "{error}");
    let mut all = client.get_all("c", &Selection::default()).unwrap();
    assert!(matches!(all.next().await, Some(Err(Error::Timeout { .. }))));
    assert!(all.next().await.is_none());
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_connection_breaks_in_a_get_all() {
    let behaviour = Behaviour { break_after_batches: Some(2), batch_records: 7, ..Behaviour::default() };
    let node = Node::start(HashRange::FULL, behaviour).await;
    let client = connect(&[&node]).await;
    node.records.lock().unwrap().extend((1..=100).map(|key| (key, vec![7; 10])));
    let mut all = client.get_all("c", &Selection::default()).unwrap();
    let mut keys = Vec::new();
    while let Some(batch) = timeout(Duration::from_secs(20), all.next()).await.unwrap() {
        keys.extend(batch.unwrap().records().map(|(key, _)| key.0));
    }
    assert_eq!(keys, (1..=100).collect::<Vec<_>>());
    assert!(node.connections.load(Ordering::SeqCst) >= 7);
}

#[tokio::test]
async fn more_requests_than_a_connection_takes_wait_for_their_turn() {
    let node = Node::start(HashRange::FULL, Behaviour::default()).await;
    let client = connect(&[&node]).await;
    let puts: Vec<_> = (0..6000u64)
        .map(|key| {
            let client = client.clone();
            tokio::spawn(async move { client.put("c", Key(key), b"v").await })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    assert_eq!(node.records.lock().unwrap().len(), 6000);
    assert_eq!(node.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_pipeline_keeps_many_requests_in_flight() {
    let node = Node::start(HashRange::FULL, Behaviour::default()).await;
    let mut pipeline = Pipeline::connect(node.address, &identity(), Duration::from_secs(10)).await.unwrap();
    let (mut next, mut done) = (0, 0);
    while done < 3000 {
        while next < 3000 && pipeline.in_flight() < 1024 && pipeline.put(next, "c", Key(next), &next.to_le_bytes()) {
            next += 1;
        }
        done += pipeline.complete(|_, outcome| assert_eq!(outcome, Outcome::Stored)).await.unwrap();
    }
    assert!((0..1000).all(|key| pipeline.get(key, "c", Key(key))));
    let mut seen = 0;
    while pipeline.in_flight() > 0 {
        let check = |token: u64, outcome: Outcome<'_>| assert_eq!(outcome, Outcome::Value(&token.to_le_bytes()));
        seen += pipeline.complete(check).await.unwrap();
    }
    assert_eq!(seen, 1000);
    assert!(pipeline.get(1, "c", Key(99_999)));
    pipeline.complete(|_, outcome| assert_eq!(outcome, Outcome::NoRecord)).await.unwrap();
}

#[tokio::test]
async fn another_protocol_behind_the_port_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
    // As a legacy node does with a code it does not know.
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let refused = Pipeline::connect(address, &identity(), Duration::from_secs(5)).await.err().unwrap();
    assert!(matches!(refused, Error::OtherProtocol { .. }), "{refused}");
}

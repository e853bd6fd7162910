//! Groups of which a node is away, or is none.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use overstory_client::dht::Selection;
use overstory_client::{ClientConfig, DhtClient, Error, Identity, Registry};
use overstory_swarm::auth::ClientKey;
use overstory_swarm::key::HashRange;
use overstory_swarm::legacy::dht::Request;
use overstory_swarm::legacy::reply::NodeSize;
use overstory_swarm::legacy::{NodeAddress, reply};
use tokio::net::TcpListener;

use super::legacy::{handshake, ok, serve};
use super::node::{Behaviour, Node, halves, identity, keys};

/// What a request may take that has to wait for nobody; far below the time of the requests.
const AT_ONCE: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// An address where nobody listens, and one that takes connections and says nothing.
async fn dead_and_silent() -> (SocketAddrV4, SocketAddrV4, TcpListener) {
    // Not 127.0.0.1: somebody else may listen on the same port of that by then.
    let (dead, silent) = (TcpListener::bind("127.0.0.3:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await);
    let (silent, v4) = (silent.unwrap(), |listener: &TcpListener| match listener.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => panic!("IPv4"),
    });
    (v4(&dead), v4(&silent), silent)
}

fn registry(nodes: &[SocketAddrV4]) -> Registry {
    let mut registry = Registry::new();
    nodes.iter().for_each(|node| registry.add(*node).unwrap());
    registry
}

fn start(config: ClientConfig, time: Duration) -> DhtClient {
    let config = ClientConfig { request_timeout: time, connect_timeout: time, patience: time, ..config };
    DhtClient::start(config).unwrap()
}

#[tokio::test]
async fn neo_requests_for_living_nodes_do_not_wait_for_the_others() {
    let (low, _) = halves();
    let (low_key, high_key) = keys();
    let node = Node::start(low, Behaviour { batch_records: 10, ..Behaviour::default() }).await;
    let (dead, silent, _listener) = dead_and_silent().await;
    let nodes = registry(&[dead, silent, node.address]);
    let begun = Instant::now();
    let client = start(ClientConfig::neo(nodes.clone(), identity()), LONG);
    client.put("c", low_key, b"v").await.unwrap();
    assert_eq!(client.get("c", low_key).await.unwrap().as_deref(), Some(&b"v"[..]));
    assert!(client.remove("c", low_key).await.unwrap());
    assert!(begun.elapsed() < AT_ONCE);

    let client = start(ClientConfig::neo(nodes, identity()), SHORT);
    client.put("c", low_key, b"v").await.unwrap();
    let error = client.get("c", high_key).await.unwrap_err();
    assert!(matches!(&error, Error::OwnerAway { away, .. } if **away == [dead, silent]), "{error}");
    assert!(error.is_retryable() && !error.effect_unknown());
    // All that is to be had of a channel comes; who did not tell is named.
    let mut all = client.get_all("c", &Selection::default()).unwrap();
    let (mut records, mut errors) = (0, 0);
    while let Some(batch) = all.next().await {
        match batch {
            Ok(batch) => records += batch.len(),
            Err(Error::Away { .. }) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((records, errors), (1, 2));
    for (of, range) in client.ranges_by_node().await {
        match range {
            Ok(range) => assert_eq!((of, range), (node.address, low)),
            Err(Error::OtherProtocol { node, .. }) => assert_eq!((of, node), (silent, silent)),
            Err(Error::Connect { node, .. }) => assert_eq!((of, node), (dead, dead)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_key_that_nobody_has_waits_for_the_node_that_comes() {
    let (low, high) = halves();
    let (_, high_key) = keys();
    let node = Node::start(low, Behaviour::default()).await;
    let (dead, ..) = dead_and_silent().await;
    let client = start(ClientConfig::neo(registry(&[node.address, dead]), identity()), LONG);
    let coming = async { Node::serve(TcpListener::bind(dead).await.unwrap(), high, Behaviour::default()) };
    let (put, late) = tokio::join!(client.put("c", high_key, b"v"), coming);
    put.unwrap();
    assert!(late.records.lock().unwrap().contains_key(&high_key.0));
}

#[tokio::test]
async fn requests_to_nodes_that_refuse_the_client_fail_at_once() {
    let node = Node::start(HashRange::FULL, Behaviour::default()).await;
    let stranger = Identity { name: "test".to_owned(), key: ClientKey([1; 128]) };
    let client = start(ClientConfig::neo(registry(&[node.address]), stranger), LONG);
    let begun = Instant::now();
    assert!(matches!(client.get("c", keys().0).await, Err(Error::Rejected { .. })));
    assert!(matches!(client.channels().await, Err(Error::Rejected { .. })));
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn legacy_requests_for_living_nodes_do_not_wait_for_the_others() {
    let (low, _) = halves();
    let (low_key, high_key) = keys();
    let (node, _) = serve(move |request| match request {
        Request::Put { .. } => ok(|_| ()),
        Request::GetSize => ok(|out| {
            reply::put_size(
                out,
                &NodeSize { node: NodeAddress { address: b"127.0.0.1", port: 1 }, records: 1, bytes: 2 },
            )
        }),
        other => handshake(other, low),
    })
    .await;
    let (dead, silent, _listener) = dead_and_silent().await;
    let nodes = registry(&[dead, silent, node]);
    let begun = Instant::now();
    let client = start(ClientConfig::legacy(nodes.clone()), LONG);
    client.put("c", low_key, b"v").await.unwrap();
    // Another request that waits for the missing nodes does not hold those up that need not wait.
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.put("c", high_key, b"v").await });
    tokio::task::yield_now().await;
    client.put("c", low_key, b"v").await.unwrap();
    assert!(begun.elapsed() < AT_ONCE);
    waiting.abort();

    let client = start(ClientConfig::legacy(nodes), SHORT);
    client.put("c", low_key, b"v").await.unwrap();
    let error = client.put("c", high_key, b"v").await.unwrap_err();
    assert!(matches!(&error, Error::OwnerAway { away, .. } if **away == [dead, silent]), "{error}");
    client.put("c", low_key, b"v").await.unwrap();
    let sizes = client.sizes_by_node(None).await.unwrap();
    let good: Vec<_> = sizes.iter().filter(|(_, size)| size.is_ok()).map(|(node, _)| *node).collect();
    assert_eq!((sizes.len(), good), (3, vec![node]));
    assert!(matches!(client.sizes().await, Err(Error::Connect { node, .. }) if node == dead));
}

#[tokio::test]
async fn a_neo_port_is_told_from_one_where_nobody_is() {
    // As a neo node does with what is not its protocol.
    let (closing, _) = serve(|_| None).await;
    let (dead, ..) = dead_and_silent().await;
    let client = start(ClientConfig::legacy(registry(&[closing, dead])), SHORT);
    let said = client.sizes_by_node(None).await.unwrap();
    assert!(matches!(said[0].1, Err(Error::OtherProtocol { expected: "legacy", .. })), "{said:?}");
    assert!(matches!(said[1].1, Err(Error::Connect { .. })), "{said:?}");
}

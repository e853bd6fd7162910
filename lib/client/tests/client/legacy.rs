//! The legacy protocol: the published library's bytes, wrong nodes, broken connections.

use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overstory_client::dht::Selection;
use overstory_client::{ClientConfig, DhtClient, Error, Registry};
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::dht::{Decoded, Request, decode};
use overstory_swarm::legacy::{Limits, Status, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::node::{halves, keys};

/// Answers each connection by `answer`, which says nothing to have it closed.
pub(crate) async fn serve(
    answer: impl Fn(&Request<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddrV4, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
    let (answer, seen) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            tokio::spawn(async move { connection(stream, &*answer, &log).await });
        }
    });
    (address, seen)
}

async fn connection(
    mut stream: TcpStream,
    answer: &(impl Fn(&Request<'_>) -> Option<Vec<u8>> + Sync),
    log: &Mutex<Vec<Vec<u8>>>,
) -> Option<()> {
    let mut input = Vec::new();
    loop {
        let reply = match decode(&input, &Limits::DEFAULT).unwrap() {
            Decoded::Request { request, consumed } => {
                let reply = answer(&request);
                log.lock().unwrap().push(input[..consumed].to_vec());
                input.drain(..consumed);
                reply?
            }
            _ => {
                if stream.read_buf(&mut input).await.ok()? == 0 {
                    return None;
                }
                continue;
            }
        };
        // A reply that ends with this is cut there.
        if let Some(part) = reply.strip_suffix(CUT) {
            stream.write_all(part).await.ok()?;
            return None;
        }
        stream.write_all(&reply).await.ok()?;
    }
}

const CUT: &[u8] = b"--cut--";

pub(crate) fn ok(body: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Status::Ok.encode(&mut out);
    body(&mut out);
    Some(out)
}

pub(crate) fn handshake(request: &Request<'_>, range: HashRange) -> Option<Vec<u8>> {
    match request {
        Request::GetVersion => ok(|out| reply::put_value(out, b"20110401")),
        Request::GetResponsibleRange => ok(|out| reply::put_range(out, range.min(), range.max())),
        _ => None,
    }
}

fn registry(nodes: &[SocketAddrV4]) -> Registry {
    let mut registry = Registry::new();
    nodes.iter().for_each(|node| registry.add(*node).unwrap());
    registry
}

/// The requests that the published library sent, and what it got.
#[tokio::test]
async fn the_published_client_is_copied_byte_for_byte() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/client-dht-legacy-put-get.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut expected: Vec<Vec<u8>> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["from"] == "client")
        .map(|line| line["hex"].as_str().unwrap().to_owned())
        .map(|hex| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
        .collect();
    let (node, seen) = serve(|request| match request {
        Request::Get { key, .. } => ok(|out| match key.last() {
            Some(b'c') => reply::put_value(out, b"doo"),
            Some(b'a') => reply::put_value(out, b"foo"),
            _ => reply::put_value(out, b"bar"),
        }),
        Request::Put { .. } | Request::RemoveChannel { .. } => ok(|_| ()),
        other => handshake(other, HashRange::FULL),
    })
    .await;
    let client = DhtClient::connect(ClientConfig::legacy(registry(&[node]))).await.unwrap();
    for (key, value) in [(0xc, "doo"), (0xa, "foo"), (0xb, "bar")] {
        client.put("test_channel", Key(key), value.as_bytes()).await.unwrap();
    }
    for (key, value) in [(0xc, "doo"), (0xa, "foo"), (0xb, "bar")] {
        assert_eq!(client.get("test_channel", Key(key)).await.unwrap().as_deref(), Some(value.as_bytes()));
    }
    client.remove_channel("test_channel").await.unwrap();
    // The two requests of the handshake go over two connections, in any order.
    let mut sent = seen.lock().unwrap().clone();
    sent[..2].sort_unstable();
    expected[..2].sort_unstable();
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn ranges_that_do_not_fit_together_are_refused() {
    let (low, _) = halves();
    let (node, _) = serve(move |request| handshake(request, low)).await;
    let error = DhtClient::connect(ClientConfig::legacy(registry(&[node]))).await.err().unwrap();
    assert!(matches!(error, Error::Ranges(_)), "{error}");
}

#[tokio::test]
async fn a_wrong_node_makes_the_client_ask_for_the_ranges_anew() {
    let (low, high) = halves();
    let (_, high_key) = keys();
    let moved = Arc::new(Mutex::new(false));
    let (at_a, at_b) = (Arc::clone(&moved), Arc::clone(&moved));
    let (a, _) = serve(move |request| {
        let moved = *at_a.lock().unwrap();
        match request {
            Request::Put { .. } if moved => Some(Status::WrongNode.code().to_le_bytes().to_vec()),
            Request::Put { .. } => ok(|_| ()),
            other => handshake(other, if moved { low } else { HashRange::FULL }),
        }
    })
    .await;
    let (b, at_new) = serve(move |request| match request {
        Request::Put { .. } => ok(|_| ()),
        other => handshake(other, if *at_b.lock().unwrap() { high } else { HashRange::EMPTY }),
    })
    .await;
    let client = DhtClient::connect(ClientConfig::legacy(registry(&[a, b]))).await.unwrap();
    client.put("c", high_key, b"v").await.unwrap();
    *moved.lock().unwrap() = true;
    client.put("c", high_key, b"v").await.unwrap();
    assert!(at_new.lock().unwrap().iter().any(|request| request.starts_with(&[1, 0, 0, 0])));
}

#[tokio::test]
async fn a_get_all_that_is_cut_is_never_taken_for_complete() {
    let (node, _) = serve(|request| match request {
        Request::GetAll { .. } => ok(|out| {
            let mut builder = BatchBuilder::new(65536);
            assert_eq!(builder.pair(&Key(1).hex16(), b"v"), Added::Yes);
            reply::put_array_with(out, |out| builder.finish(out));
            out.extend_from_slice(CUT);
        }),
        other => handshake(other, HashRange::FULL),
    })
    .await;
    let client = DhtClient::connect(ClientConfig::legacy(registry(&[node]))).await.unwrap();
    let mut all = client.get_all("c", &Selection::default()).unwrap();
    assert_eq!(all.next().await.unwrap().unwrap().len(), 1);
    assert!(matches!(all.next().await, Some(Err(Error::Broken { .. }))));
    assert!(all.next().await.is_none());
}

#[tokio::test]
async fn a_fatal_status_closes_the_connection_and_others_keep_it() {
    let (node, _) = serve(|request| match request {
        Request::Put { key, .. } if key.last() == Some(&b'1') => Some(Status::Error.code().to_le_bytes().to_vec()),
        Request::Put { .. } => Some(Status::OutOfMemory.code().to_le_bytes().to_vec()),
        other => handshake(other, HashRange::FULL),
    })
    .await;
    let config = ClientConfig {
        connections: 1,
        request_timeout: Duration::from_secs(5),
        ..ClientConfig::legacy(registry(&[node]))
    };
    let client = DhtClient::connect(config).await.unwrap();
    let error = client.put("c", Key(1), b"v").await.unwrap_err();
    assert!(matches!(error, Error::Node { .. }) && error.is_retryable());
    for _ in 0..3 {
        assert!(matches!(client.put("c", Key(2), b"v").await, Err(Error::OutOfMemory { .. })));
    }
}

#[tokio::test]
async fn requests_beyond_the_connections_and_the_queue_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(node) = listener.local_addr().unwrap() else { panic!("IPv4") };
    let config = ClientConfig {
        connections: 1,
        queue_limit: 1,
        request_timeout: Duration::from_millis(300),
        ..ClientConfig::legacy(registry(&[node]))
    };
    let client = DhtClient::start(config).unwrap();
    let all = async { tokio::join!(client.versions(), client.versions(), client.versions()) };
    let (first, _, third) = timeout(Duration::from_secs(5), all).await.unwrap();
    assert!(matches!(first, Err(Error::Timeout { .. })), "{first:?}");
    assert!(matches!(third, Err(Error::QueueFull { .. })), "{third:?}");
}

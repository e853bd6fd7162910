//! The client of logfiles by neo: whom a Put goes to, and reads that are complete or say what is missing.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use overstory_client::dls::{Filter, Order, Records, TimestampRange};
use overstory_client::{ClientConfig, DlsClient, Error, Outcome, Pipeline};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::log_node::{Behaviour, LogNode};
use super::node::identity;
use super::queue::{dead, registry, until};

const LONG: Duration = Duration::from_secs(30);

fn neo(nodes: &[SocketAddrV4]) -> ClientConfig {
    ClientConfig::neo(registry(nodes.iter().copied()), identity())
}

fn quick(nodes: &[SocketAddrV4]) -> ClientConfig {
    let quick = Duration::from_millis(300);
    ClientConfig { request_timeout: quick, patience: quick, ..neo(nodes) }
}

async fn node(range: Option<(u64, u64)>) -> Arc<LogNode> {
    LogNode::start(range, Behaviour { batch: 3, ..Behaviour::default() }).await
}

async fn filled(behaviour: Behaviour, timestamps: impl IntoIterator<Item = i64>) -> Arc<LogNode> {
    let node = LogNode::start(None, behaviour).await;
    let records = timestamps.into_iter().map(|timestamp| (timestamp, format!("value {timestamp}").into_bytes()));
    node.records.lock().unwrap().extend(records);
    node
}

/// Reads to the end: the timestamps, and what is missing.
pub(crate) async fn read(mut records: Records) -> (Vec<i64>, Vec<(SocketAddrV4, Error)>) {
    let (mut times, mut missing) = (Vec::new(), Vec::new());
    while let Some(batch) = timeout(LONG, records.next()).await.unwrap() {
        match batch {
            Ok(batch) => {
                assert!(missing.is_empty() && !batch.is_empty());
                times.extend(batch.records().map(|(timestamp, value)| {
                    assert_eq!(value, format!("value {timestamp}").as_bytes());
                    timestamp
                }));
            }
            Err(Error::Incomplete { missing: told }) => missing = told.to_vec(),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(records.missing().len(), missing.len());
    (times, missing)
}

#[tokio::test]
async fn puts_go_to_the_nodes_in_turn_where_none_has_a_range() {
    for range in [None, Some((0, u64::MAX)), Some((100, 200))] {
        let (a, b) = (node(range).await, node(range).await);
        let client = DlsClient::connect(neo(&[a.address, b.address])).await.unwrap();
        for timestamp in 100..110 {
            client.put("c", timestamp, b"v").await.unwrap();
        }
        assert_eq!((a.timestamps().len(), b.timestamps().len()), (5, 5));
        assert_eq!((a.asked.load(Ordering::SeqCst), b.asked.load(Ordering::SeqCst)), (1, 1));
    }
    let client = DlsClient::start(neo(&[node(None).await.address])).unwrap();
    client.put("c", 1, b"").await.unwrap();
    assert!(matches!(client.put("../x", 1, b"v").await, Err(Error::BadChannelName(_))));
    assert!(matches!(client.put("c", 1, &vec![0; (8 << 20) + 1]).await, Err(Error::ValueTooBig { .. })));
    assert!(matches!(client.get_range("c", 2, 1, Filter::None, Order::ByTime), Err(Error::BadRange { .. })));
    assert!(matches!(client.channels().await, Err(Error::OtherProtocolOnly { .. })));
    assert!(matches!(client.sizes_by_node(None).await, Err(Error::OtherProtocolOnly { .. })));
    assert!(matches!(client.put_batch(client.nodes()[0], "c", []).await, Err(Error::OtherProtocolOnly { .. })));
}

#[tokio::test]
async fn puts_go_to_the_node_whose_range_holds_the_timestamp() {
    let (old, new, all) = (node(Some((0, 999))).await, node(Some((1000, 1999))).await, node(None).await);
    let client = DlsClient::connect(neo(&[old.address, new.address])).await.unwrap();
    for timestamp in [5, 1000, 999, 1500, 0] {
        client.put("c", timestamp, b"v").await.unwrap();
    }
    assert_eq!((old.timestamps(), new.timestamps()), (vec![5, 999, 0], vec![1000, 1500]));
    let begun = Instant::now();
    for timestamp in [2000, -1] {
        let error = client.put("c", timestamp, b"v").await.unwrap_err();
        assert!(matches!(error, Error::NoNodeForTimestamp(of) if of == timestamp), "{error}");
        assert!(!error.effect_unknown());
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    let told: Vec<_> = client.ranges_by_node().await.into_iter().map(|(_, range)| range.unwrap()).collect();
    assert_eq!(told, [Some(TimestampRange { min: 0, max: 999 }), Some(TimestampRange { min: 1000, max: 1999 })]);
    // One that tells no range takes all.
    let client = DlsClient::connect(neo(&[old.address, all.address])).await.unwrap();
    client.put("c", -1, b"v").await.unwrap();
    assert_eq!(all.timestamps(), [-1]);
}

#[tokio::test]
async fn a_node_that_comes_back_is_asked_for_its_range_again() {
    let (a, b) = (node(Some((0, 999))).await, node(Some((1000, u64::MAX))).await);
    let client = DlsClient::connect(neo(&[a.address, b.address])).await.unwrap();
    client.put("c", 500, b"v").await.unwrap();
    *a.range.lock().unwrap() = Some((0, 399));
    *b.range.lock().unwrap() = Some((400, u64::MAX));
    a.gone.notify_waiters();
    b.gone.notify_waiters();
    // Both come back by themselves.
    until(|| a.asked.load(Ordering::SeqCst) == 1 && b.asked.load(Ordering::SeqCst) == 1).await;
    let mut put = client.put("c", 501, b"v").await;
    while matches!(put, Err(Error::Broken { .. })) {
        put = client.put("c", 501, b"v").await;
    }
    put.unwrap();
    assert_eq!((a.timestamps(), b.timestamps()), (vec![500], vec![501]));
    // A node that refuses is asked as well: its range has changed without a new connection.
    *b.range.lock().unwrap() = Some((600, u64::MAX));
    let error = client.put("c", 502, b"v").await.unwrap_err();
    assert!(matches!(error, Error::NotWritten { node } if node == b.address), "{error}");
    let error = client.put("c", 502, b"v").await.unwrap_err();
    assert!(matches!(error, Error::NoNodeForTimestamp(502)), "{error}");
}

#[tokio::test]
async fn a_node_that_is_away_may_have_the_timestamp() {
    let (a, gone) = (node(Some((0, 999))).await, dead().await);
    let client = DlsClient::start(quick(&[gone, a.address])).unwrap();
    client.put("c", 5, b"v").await.unwrap();
    let error = timeout(LONG, client.put("c", 1000, b"v")).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Away { node, .. } if node == gone), "{error}");
    // It is there before the time is over.
    let client = DlsClient::start(neo(&[gone, a.address])).unwrap();
    let coming = async {
        let listener = TcpListener::bind(gone).await.unwrap();
        LogNode::serve(listener, Some((1000, u64::MAX)), Behaviour::default())
    };
    let (put, b) = tokio::join!(client.put("c", 1000, b"v"), coming);
    put.unwrap();
    assert_eq!(b.timestamps(), [1000]);
}

#[tokio::test]
async fn a_put_that_is_refused_goes_elsewhere_and_one_that_broke_does_not() {
    let full = LogNode::start(None, Behaviour { full: true, ..Behaviour::default() }).await;
    let room = node(None).await;
    let client = DlsClient::connect(neo(&[full.address, room.address])).await.unwrap();
    for timestamp in 0..4 {
        client.put("c", timestamp, b"v").await.unwrap();
    }
    assert_eq!(room.timestamps(), [0, 1, 2, 3]);
    let client = DlsClient::connect(neo(&[full.address])).await.unwrap();
    let error = client.put("c", 1, b"v").await.unwrap_err();
    assert!(matches!(error, Error::NotWritten { .. }) && error.is_retryable() && !error.effect_unknown(), "{error}");

    let breaking = || Behaviour { break_at_put: Some(1), ..Behaviour::default() };
    let (once, other) = (LogNode::start(None, breaking()).await, LogNode::start(None, breaking()).await);
    let client = DlsClient::connect(neo(&[once.address])).await.unwrap();
    let error = client.put("c", 1, b"v").await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }) && error.effect_unknown(), "{error}");
    assert_eq!(once.timestamps(), [1]);
    let config = ClientConfig { at_least_once: true, ..neo(&[other.address]) };
    DlsClient::connect(config).await.unwrap().put("c", 1, b"v").await.unwrap();
    assert_eq!(other.timestamps(), [1, 1]);
}

#[tokio::test]
async fn reads_bring_what_all_nodes_have_and_name_those_that_are_away() {
    let a = filled(Behaviour { batch: 3, ..Behaviour::default() }, (0..20).map(|number| number * 1000)).await;
    let b = filled(Behaviour { batch: 2, ..Behaviour::default() }, (0..20).map(|number| 500 - number * 1000)).await;
    let gone = dead().await;
    let mut expected = [a.timestamps(), b.timestamps()].concat();
    expected.sort_unstable();
    for order in [Order::AsTheyCome, Order::ByTime] {
        let client = DlsClient::connect(neo(&[a.address, b.address])).await.unwrap();
        let (mut times, missing) = read(client.get_all("c", Filter::None, order).unwrap()).await;
        assert!(missing.is_empty() && (order == Order::AsTheyCome || times.is_sorted()), "{missing:?}");
        times.sort_unstable();
        assert_eq!(times, expected);
        let (times, _) = read(client.get_range("c", -500, 1000, Filter::None, order).unwrap()).await;
        assert_eq!(times.len(), 4, "{times:?}");
        let filter = Filter::Substring(b"value 19000".to_vec());
        assert_eq!(read(client.get_all("c", filter, order).unwrap()).await.0, [19000]);

        let client = DlsClient::start(quick(&[a.address, gone, b.address])).unwrap();
        client.any_ready().await.unwrap();
        let (mut times, missing) = read(client.get_all("c", Filter::None, order).unwrap()).await;
        times.sort_unstable();
        assert_eq!(times, expected);
        assert!(matches!(&missing[..], [(node, Error::Away { .. })] if *node == gone), "{missing:?}");
        let told = Error::Incomplete { missing: missing.into() };
        assert!(told.to_string().contains(&gone.to_string()) && told.is_retryable());
    }
}

#[tokio::test]
async fn a_read_goes_on_exactly_where_a_connection_broke() {
    // Buckets of 5 records, batches of 3: it breaks within and between them.
    let times: Vec<i64> = (0..40).map(|number| (number / 5 - 3) * 4096 + number % 5 * 7 % 4).collect();
    for (each, count) in [(1, 4), (2, 5), (3, 7), (5, 2)] {
        for order in [Order::AsTheyCome, Order::ByTime] {
            let behaviour = Behaviour { batch: 3, break_at_batch: Some((each, count)), ..Behaviour::default() };
            let node = filled(behaviour, times.iter().copied()).await;
            let client = DlsClient::connect(neo(&[node.address])).await.unwrap();
            let (read, missing) = read(client.get_all("c", Filter::None, order).unwrap()).await;
            assert!(missing.is_empty(), "{missing:?}");
            let mut expected = times.clone();
            if order == Order::ByTime {
                expected.sort_unstable();
            }
            assert_eq!(read, expected, "{each} {order:?}");
            assert!(node.reads.load(Ordering::SeqCst) > 1);
        }
    }
}

#[tokio::test]
async fn a_read_that_cannot_go_on_says_so() {
    let breaking = Behaviour { batch: 3, break_at_batch: Some((2, 1)), loses: true, ..Behaviour::default() };
    let changed = filled(breaking, [1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    let breaking = Behaviour { batch: 1, break_at_batch: Some((1, 1000)), ..Behaviour::default() };
    let hopeless = filled(breaking, [1, 2]).await;
    let breaking = Behaviour { batch: 9, break_at_batch: Some((1, 1)), disorder: true, ..Behaviour::default() };
    let disorder = filled(breaking, [1, 5000]).await;
    for node in [changed, hopeless, disorder] {
        let client = DlsClient::connect(neo(&[node.address])).await.unwrap();
        let (_, missing) = read(client.get_all("c", Filter::None, Order::AsTheyCome).unwrap()).await;
        assert!(matches!(&missing[..], [(_, Error::Protocol { .. } | Error::Broken { .. })]), "{missing:?}");
    }
    let disorder = filled(Behaviour { batch: 1, disorder: true, ..Behaviour::default() }, [1, 5000]).await;
    let client = DlsClient::connect(neo(&[disorder.address])).await.unwrap();
    assert_eq!(read(client.get_all("c", Filter::None, Order::AsTheyCome).unwrap()).await.0, [5000, 1]);
    let (_, missing) = read(client.get_all("c", Filter::None, Order::ByTime).unwrap()).await;
    assert!(matches!(&missing[..], [(_, Error::Protocol { .. })]), "{missing:?}");
}

#[tokio::test]
async fn a_slow_reader_is_waited_for_and_one_that_stops_stops_the_node() {
    let node = filled(Behaviour { batch: 1, ..Behaviour::default() }, 0..1000).await;
    let client = DlsClient::connect(neo(&[node.address])).await.unwrap();
    for (round, order) in [(1, Order::AsTheyCome), (2, Order::AsTheyCome)] {
        let mut records = client.get_all("c", Filter::None, order).unwrap();
        records.next().await.unwrap().unwrap();
        let before = node.batches.load(Ordering::SeqCst);
        // Whatever else the client does meanwhile, the node is not asked for more than a few batches.
        for _ in 0..100 {
            client.put("other", 1 << 40, b"v").await.unwrap();
        }
        let ahead = node.batches.load(Ordering::SeqCst) - before;
        assert!(ahead < 12, "{ahead}");
        if round == 1 {
            drop(records);
        } else {
            records.stop();
            while let Some(batch) = timeout(LONG, records.next()).await.unwrap() {
                batch.unwrap();
            }
            assert!(records.missing().is_empty());
        }
        until(|| node.stops.load(Ordering::SeqCst) == round).await;
    }
    // A node that knows more than the published one is stopped while it searches.
    let searching = LogNode::start(Some((0, 9)), Behaviour { busy: 1000, ..Behaviour::default() }).await;
    let other = DlsClient::connect(neo(&[searching.address])).await.unwrap();
    let records = other.get_all("c", Filter::None, Order::ByTime).unwrap();
    until(|| searching.asked.load(Ordering::SeqCst) == 1 && searching.reads.load(Ordering::SeqCst) == 1).await;
    other.put("c", 5, b"v").await.unwrap();
    drop(records);
    until(|| searching.stops.load(Ordering::SeqCst) == 1).await;
    // Suspended and resumed, nothing is lost.
    let records = client.get_range("c", 0, 999, Filter::None, Order::AsTheyCome).unwrap();
    let control = records.control();
    control.suspend();
    control.resume();
    assert_eq!(read(records).await.0.len(), 1000);
}

#[tokio::test]
async fn a_filter_that_a_node_refuses_is_told() {
    let node = node(None).await;
    let client = DlsClient::connect(neo(&[node.address])).await.unwrap();
    for filter in [Filter::Pcre(b"(".to_vec()), Filter::PcreCaseless(b"(".to_vec())] {
        let (_, missing) = read(client.get_all("c", filter, Order::ByTime).unwrap()).await;
        assert!(
            matches!(&missing[..], [(_, error @ Error::FilterRefused { .. })] if !error.is_retryable()),
            "{missing:?}"
        );
    }
    let (_, missing) = read(client.get_all("c", Filter::Substring(b"(".to_vec()), Order::ByTime).unwrap()).await;
    assert!(missing.is_empty());
}

/// A pattern takes too many steps on some records: the node leaves them out, and the others must not be taken for all.
#[tokio::test]
async fn what_a_pattern_left_out_is_told_after_all_others() {
    let short = filled(Behaviour { batch: 2, short: true, ..Behaviour::default() }, [1, 2, 3, 5000]).await;
    let whole = filled(Behaviour { batch: 2, ..Behaviour::default() }, [4, 9000]).await;
    let client = DlsClient::connect(neo(&[short.address, whole.address])).await.unwrap();
    for order in [Order::AsTheyCome, Order::ByTime] {
        let (mut found, missing) = read(client.get_all("c", Filter::Pcre(b"v".to_vec()), order).unwrap()).await;
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4, 5000, 9000]);
        let [(node, error @ Error::LeftOut { .. })] = &missing[..] else { panic!("{missing:?}") };
        assert!(*node == short.address && !error.is_retryable());
        // Without a pattern something else is wrong.
        let (_, missing) = read(client.get_all("c", Filter::None, order).unwrap()).await;
        assert!(matches!(&missing[..], [(_, Error::Node { .. })]), "{missing:?}");
    }
}

#[tokio::test]
async fn the_record_that_looks_like_nothing_is_refused_here() {
    let node = node(None).await;
    let client = DlsClient::connect(neo(&[node.address])).await.unwrap();
    assert!(matches!(client.put("c", 0, b"").await, Err(Error::EmptyAtZero)));
    client.put("c", 0, b"v").await.unwrap();
    client.put("c", 1, b"").await.unwrap();
    assert_eq!(node.puts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_node_that_searches_for_long_is_not_given_up_and_a_dead_one_is() {
    let busy = filled(Behaviour { batch: 9, busy: 3, ..Behaviour::default() }, [1, 2, 3]).await;
    let config = ClientConfig { request_timeout: Duration::from_millis(50), ..neo(&[busy.address]) };
    let client = DlsClient::connect(config.clone()).await.unwrap();
    let (times, missing) = read(client.get_all("c", Filter::None, Order::AsTheyCome).unwrap()).await;
    assert!(missing.is_empty() && times == [1, 2, 3], "{missing:?}");
    assert_eq!(busy.asked.load(Ordering::SeqCst), 3);
    let dead = filled(Behaviour { dead: true, ..Behaviour::default() }, [1]).await;
    let config = ClientConfig { nodes: registry([dead.address]), ..config };
    let client = DlsClient::connect(config).await.unwrap();
    let (_, missing) = read(client.get_all("c", Filter::None, Order::AsTheyCome).unwrap()).await;
    assert!(matches!(&missing[..], [(_, Error::Timeout { .. })]), "{missing:?}");
}

#[tokio::test]
async fn a_pipeline_puts_into_logfiles() {
    let node = node(Some((0, 9))).await;
    let mut pipeline = Pipeline::connect(node.address, &identity(), LONG).await.unwrap();
    for token in 0..11 {
        assert!(pipeline.put_dls(token, "c", token.cast_signed(), b"v"));
    }
    let mut failed = Vec::new();
    while pipeline.in_flight() > 0 {
        let note = |token, outcome: Outcome<'_>| match outcome {
            Outcome::Stored => {}
            Outcome::Failed => failed.push(token),
            other => panic!("{other:?}"),
        };
        pipeline.complete(note).await.unwrap();
    }
    assert_eq!((failed, node.timestamps()), (vec![10], (0..10).collect()));
}

//! The client of logfiles by legacy: the published library's bytes, ranges of nodes that know none, reads that go on.

use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overstory_client::dls::{Filter, Order, TimestampRange};
use overstory_client::{ClientConfig, DlsClient, Error, Size};
use overstory_swarm::batch::{self, BatchBuilder, Pairs};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dls::{Request, decode, mode};
use overstory_swarm::legacy::{Decoded, Limits, NodeAddress, Status, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::log_node::{Behaviour, LogNode};
use super::logs::read;
use super::node::identity;
use super::queue::{dead, registry};

const LONG: Duration = Duration::from_secs(30);

/// A legacy node with one channel.
#[derive(Default)]
struct OldNode {
    records: Mutex<Vec<(u64, Vec<u8>)>>,
    /// What it takes; none if it closes the connection when it is asked, as the published node does.
    range: Mutex<Option<(u64, u64)>>,
    /// What it answers to Puts.
    status: Mutex<Option<Status>>,
    /// So many batches of the next read are sent before the connection breaks.
    breaks: Mutex<Vec<usize>>,
    seen: Mutex<Vec<Vec<u8>>>,
    names: Mutex<Vec<&'static str>>,
}

impl OldNode {
    async fn start(range: Option<(u64, u64)>) -> (SocketAddrV4, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        let node = Arc::new(Self { range: Mutex::new(range), ..Self::default() });
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
        let mut input = Vec::new();
        loop {
            let Decoded::Request { request, consumed } = decode(&input, &Limits::DEFAULT).unwrap() else {
                if stream.read_buf(&mut input).await.ok()? == 0 {
                    return None;
                }
                continue;
            };
            self.names.lock().unwrap().push(request.name());
            self.seen.lock().unwrap().push(input[..consumed].to_vec());
            let mut out = Vec::new();
            let goes_on = self.answer(&request, &mut out);
            input.drain(..consumed);
            stream.write_all(&out).await.ok()?;
            goes_on.then_some(())?;
        }
    }

    /// Answers; false if the connection is closed behind it.
    fn answer(&self, request: &Request<'_>, out: &mut Vec<u8>) -> bool {
        let range = *self.range.lock().unwrap();
        let node = NodeAddress { address: b"127.0.0.1", port: 1 };
        let all = |low, high, filter: &[u8], out: &mut Vec<u8>| self.send(low, high, filter, out);
        let key = |text| Key::from_hex16(text).unwrap().0;
        let status = match *request {
            Request::GetResponsibleRange if range.is_none() => return false,
            Request::Put { key: time, value, .. } => {
                let (min, max) = range.unwrap_or((0, u64::MAX));
                let status = self.status.lock().unwrap().unwrap_or(Status::Ok);
                if status == Status::Ok && (min..=max).contains(&key(time)) {
                    self.records.lock().unwrap().push((key(time), value.to_vec()));
                    Status::Ok
                } else if status == Status::Ok {
                    Status::WrongNode
                } else {
                    status
                }
            }
            Request::GetRangeRegex { pattern: b"(", .. } => Status::Error,
            _ => Status::Ok,
        };
        status.encode(out);
        if status != Status::Ok {
            return true;
        }
        match *request {
            Request::GetResponsibleRange => {
                let (min, max) = range.unwrap_or_default();
                reply::put_range(out, min, max);
            }
            Request::GetVersion => reply::put_value(out, b"20110401"),
            Request::GetNumConnections => {
                reply::put_connections(out, &reply::NodeConnections { node, connections: 2 });
            }
            Request::GetSize | Request::GetChannelSize { .. } => {
                reply::put_size(out, &reply::NodeSize { node, records: 3, bytes: 4 });
            }
            Request::GetChannels => {
                reply::put_value(out, b"c");
                reply::put_end(out);
            }
            Request::PutBatch { batch: bytes, .. } => {
                let mut plain = Vec::new();
                batch::decode(bytes, 1 << 20, &mut plain).unwrap();
                let pairs =
                    Pairs::new(&plain).map(|pair| pair.map(|(time, value)| (key(time), value.to_vec())).unwrap());
                self.records.lock().unwrap().extend(pairs);
            }
            Request::GetAll { .. } => return all(0, u64::MAX, b"", out),
            Request::GetAllFilter { filter, .. } => return all(0, u64::MAX, filter, out),
            Request::GetRange { range, .. } => return all(key(range.low), key(range.high), b"", out),
            Request::GetRangeFilter { range, filter, .. } => return all(key(range.low), key(range.high), filter, out),
            Request::GetRangeRegex { range, pattern, mode, .. } => {
                assert!([mode::PCRE, mode::PCRE_CASE_INSENSITIVE].contains(&mode));
                return all(key(range.low), key(range.high), pattern, out);
            }
            _ => {}
        }
        true
    }

    /// Sends records in batches of two, then an empty one, as the published node does.
    fn send(&self, low: u64, high: u64, filter: &[u8], out: &mut Vec<u8>) -> bool {
        let holds = |value: &[u8]| filter.is_empty() || value.windows(filter.len()).any(|part| part == filter);
        let mut wanted = self.records.lock().unwrap().clone();
        wanted.retain(|(time, value)| (low..=high).contains(time) && holds(value));
        wanted.sort_by_key(|(time, _)| time >> 12);
        let breaks = self.breaks.lock().unwrap().pop();
        let mut builder = BatchBuilder::new(1 << 20);
        for (number, chunk) in wanted.chunks(2).chain([&[][..]]).enumerate() {
            if breaks == Some(number) {
                return false;
            }
            for (time, value) in chunk {
                let _ = builder.pair(&Key(*time).hex16(), value);
            }
            builder.finish_array(out);
        }
        reply::put_end(out);
        true
    }

    fn times(&self) -> Vec<u64> {
        self.records.lock().unwrap().iter().map(|(time, _)| *time).collect()
    }

    fn count(&self, name: &str) -> usize {
        self.names.lock().unwrap().iter().filter(|seen| **seen == name).count()
    }

    fn fill(&self, times: impl IntoIterator<Item = i64>) {
        let records = times.into_iter().map(|time| (time.cast_unsigned(), format!("value {time}").into_bytes()));
        self.records.lock().unwrap().extend(records);
    }
}

async fn connect(nodes: &[SocketAddrV4]) -> DlsClient {
    DlsClient::connect(ClientConfig::legacy(registry(nodes.iter().copied()))).await.unwrap()
}

/// What the published library sent.
fn recorded(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let sent = lines.filter(|line| line["from"] == "client").map(|line| line["hex"].as_str().unwrap().to_owned());
    let byte = |hex: &str, at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes = sent.map(|hex: String| (0..hex.len()).step_by(2).map(|at| byte(&hex, at)).collect());
    bytes.filter(|bytes: &Vec<u8>| !bytes.is_empty()).collect()
}

#[tokio::test]
async fn the_published_client_is_copied_byte_for_byte() {
    let (address, node) = OldNode::start(None).await;
    let client = connect(&[address]).await;
    node.seen.lock().unwrap().clear();
    for timestamp in [0, 3, 1, 5, 4, 2] {
        client.put("test_channel", timestamp, format!("record {timestamp}").as_bytes()).await.unwrap();
    }
    let mut records = client.get_range("test_channel", 0, 5, Filter::None, Order::AsTheyCome).unwrap();
    let mut count = 0;
    while let Some(batch) = records.next().await {
        count += batch.unwrap().len();
    }
    assert_eq!(count, 6);
    client.remove_channel("test_channel").await.unwrap();
    // The published library does not ask for a range: version, range, version again since the node hangs up.
    let sent = node.seen.lock().unwrap().clone();
    assert_eq!(node.names.lock().unwrap()[1..4], ["GetVersion", "GetResponsibleRange", "GetVersion"]);
    assert_eq!(sent[3..], recorded("client-dls-legacy-getrange"));

    node.seen.lock().unwrap().clear();
    let expected = recorded("client-dls-legacy-regex-malformed");
    let Decoded::Request { request, .. } = decode(&expected[0], &Limits::DEFAULT).unwrap() else { panic!("request") };
    let Request::GetRangeRegex { channel, range, mode: recorded_mode, pattern } = request else { panic!("regex") };
    let time = |text| Key::from_hex16(text).unwrap().0.cast_signed();
    let filter = match recorded_mode {
        mode::PCRE => Filter::Pcre(pattern.to_vec()),
        _ => Filter::PcreCaseless(pattern.to_vec()),
    };
    let channel = std::str::from_utf8(channel).unwrap();
    let (low, high) = (time(range.low), time(range.high));
    let records = client.get_range(channel, low.min(high), low.max(high), filter, Order::AsTheyCome).unwrap();
    read(records).await;
    assert_eq!(node.seen.lock().unwrap()[..], expected);
}

#[tokio::test]
async fn nodes_that_tell_no_range_are_put_to_in_turn() {
    let ((a, first), (b, second), gone) = (OldNode::start(None).await, OldNode::start(None).await, dead().await);
    let client = DlsClient::start(ClientConfig::legacy(registry([gone, a, b]))).unwrap();
    for timestamp in 0..10 {
        client.put("c", timestamp, b"v").await.unwrap();
    }
    assert_eq!(first.times().len() + second.times().len(), 10);
    assert!(first.times().len() >= 3 && second.times().len() >= 3);
    assert_eq!((first.count("GetResponsibleRange"), second.count("GetResponsibleRange")), (1, 1));
    let told: Vec<_> = client.ranges_by_node().await;
    assert!(matches!(&told[..], [(_, Err(Error::Connect { .. })), (_, Ok(None)), (_, Ok(None))]), "{told:?}");
    assert!(matches!(client.put("c", 1, b"").await, Err(Error::EmptyValue)));
    assert!(matches!(client.put("c", 1, &[0; 65537]).await, Err(Error::ValueTooBig { limit: 65536, .. })));
}

#[tokio::test]
async fn puts_follow_the_ranges_and_their_changes() {
    let ((a, low), (b, high)) = (OldNode::start(Some((0, 999))).await, OldNode::start(Some((1000, u64::MAX))).await);
    let client = connect(&[a, b]).await;
    for timestamp in [1, 1000, -1, 999] {
        client.put("c", timestamp, b"v").await.unwrap();
    }
    assert_eq!((low.times(), high.times()), (vec![1, 999], vec![1000, u64::MAX]));
    // A node that has another range now says so, and both are asked.
    *low.range.lock().unwrap() = Some((0, 499));
    *high.range.lock().unwrap() = Some((500, 2000));
    let error = client.put("c", 700, b"v").await;
    // Whose turn it was: the one that had not said anything yet is asked when it says that it is the wrong one.
    if let Err(error) = error {
        assert!(matches!(error, Error::NoNodeForTimestamp(700)), "{error}");
    }
    for timestamp in [2001, -1] {
        let error = client.put("c", timestamp, b"v").await.unwrap_err();
        assert!(matches!(error, Error::NoNodeForTimestamp(of) if of == timestamp), "{error}");
    }
    client.put("c", 700, b"v").await.unwrap();
    assert_eq!(high.times().last(), Some(&700));
    let told: Vec<_> = client.ranges_by_node().await.into_iter().map(|(_, range)| range.unwrap()).collect();
    assert_eq!(told, [Some(TimestampRange { min: 0, max: 499 }), Some(TimestampRange { min: 500, max: 2000 })]);
}

#[tokio::test]
async fn a_node_without_room_is_passed_over() {
    let ((a, full), (b, room)) = (OldNode::start(None).await, OldNode::start(None).await);
    for status in [Status::OutOfMemory, Status::Error] {
        *full.status.lock().unwrap() = Some(status);
        let client = connect(&[a, b]).await;
        let before = room.times().len();
        for timestamp in 0..4 {
            client.put("c", timestamp, b"v").await.unwrap();
        }
        assert_eq!(room.times().len(), before + 4);
        let error = connect(&[a]).await.put("c", 1, b"v").await.unwrap_err();
        assert!(matches!(error, Error::NotWritten { node } if node == a), "{error}");
    }
    let short =
        ClientConfig { request_timeout: Duration::from_millis(100), ..ClientConfig::legacy(registry([dead().await])) };
    let error = DlsClient::start(short).unwrap().put("c", 1, b"v").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && !error.effect_unknown(), "{error}");
}

#[tokio::test]
async fn reads_choose_the_request_and_bring_everything() {
    let (address, node) = OldNode::start(None).await;
    node.fill([-5, 3, 9000, -9000, 4, 1]);
    let client = connect(&[address]).await;
    let pcre = || Filter::Pcre(b"value 3".to_vec());
    for (filter, order, low, high, name, expected) in [
        (Filter::None, Order::AsTheyCome, i64::MIN, i64::MAX, "GetAll", vec![3, 4, 1, 9000, -9000, -5]),
        (Filter::None, Order::ByTime, i64::MIN, i64::MAX, "GetRange", vec![-9000, -5, 1, 3, 4, 9000]),
        (Filter::None, Order::AsTheyCome, -5, 3, "GetRange", vec![-5, 3, 1]),
        (Filter::Substring(b" 3".to_vec()), Order::AsTheyCome, i64::MIN, i64::MAX, "GetAllFilter", vec![3]),
        (Filter::Substring(b" 3".to_vec()), Order::ByTime, 0, 9, "GetRangeFilter", vec![3]),
        (
            Filter::Substring(Vec::new()),
            Order::AsTheyCome,
            i64::MIN,
            i64::MAX,
            "GetAll",
            vec![3, 4, 1, 9000, -9000, -5],
        ),
        (pcre(), Order::AsTheyCome, i64::MIN, i64::MAX, "GetRangeRegex", vec![3]),
    ] {
        node.names.lock().unwrap().clear();
        let (times, missing) = read(client.get_range("c", low, high, filter, order).unwrap()).await;
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(times, expected, "{name}");
        assert!(node.names.lock().unwrap().iter().all(|seen| *seen == name), "{name}");
    }
    let (_, missing) = read(client.get_all("c", Filter::Pcre(b"(".to_vec()), Order::AsTheyCome).unwrap()).await;
    assert!(matches!(&missing[..], [(_, Error::FilterRefused { .. })]), "{missing:?}");
}

#[tokio::test]
async fn a_read_that_is_cut_goes_on_exactly_there() {
    let times: Vec<i64> = (0..30).map(|number| (number / 5) * 4096 + number % 5 * 7 % 4).collect();
    for order in [Order::AsTheyCome, Order::ByTime] {
        let (address, node) = OldNode::start(None).await;
        node.fill(times.iter().copied());
        node.breaks.lock().unwrap().extend([0, 3, 1, 2, 0, 4]);
        let client = connect(&[address]).await;
        let (read, missing) = read(client.get_all("c", Filter::None, order).unwrap()).await;
        let mut expected = times.clone();
        if order == Order::ByTime {
            expected.sort_unstable();
        }
        assert!(missing.is_empty() && node.breaks.lock().unwrap().is_empty(), "{missing:?}");
        assert_eq!(read, expected);
    }
    let (address, node) = OldNode::start(None).await;
    node.fill([1, 2, 3]);
    node.breaks.lock().unwrap().extend([0; 100]);
    let (times, missing) = read(connect(&[address]).await.get_all("c", Filter::None, Order::AsTheyCome).unwrap()).await;
    assert!(times.is_empty() && matches!(&missing[..], [(_, Error::Broken { .. })]), "{missing:?}");
}

#[tokio::test]
async fn all_nodes_are_asked_and_each_answers_for_itself() {
    let ((a, node), gone) = (OldNode::start(None).await, dead().await);
    let client = DlsClient::start(ClientConfig::legacy(registry([a, gone]))).unwrap();
    let sizes = client.sizes_by_node(Some("c")).await.unwrap();
    assert!(
        matches!(&sizes[..], [(_, Ok(Size { records: 3, bytes: 4, .. })), (_, Err(Error::Connect { .. }))]),
        "{sizes:?}"
    );
    let names = client.channels_by_node().await.unwrap();
    assert!(matches!(&names[..], [(_, Ok(names)), (_, Err(_))] if names == &["c"]), "{names:?}");
    let connections = client.num_connections_by_node().await.unwrap();
    assert!(matches!(&connections[..], [(_, Ok(2)), (_, Err(_))]), "{connections:?}");
    let removed = client.remove_channel_by_node("c").await.unwrap();
    assert!(matches!(&removed[..], [(_, Ok(())), (_, Err(_))]), "{removed:?}");
    client.put_batch(a, "c", [(1, &b"one"[..]), (-1, b"two")]).await.unwrap();
    assert_eq!(node.times(), [1, u64::MAX]);
    assert!(matches!(client.put_batch(a, "c", [(1, &b""[..])]).await, Err(Error::EmptyValue)));
    let large = vec![0; 9 << 20];
    let two = [(1, &large[..]), (2, &large)];
    assert!(matches!(client.put_batch(a, "c", two).await, Err(Error::ValueTooBig { .. })));
    assert_eq!(connect(&[a]).await.channels().await.unwrap(), ["c"]);
}

#[tokio::test]
async fn every_request_can_be_a_task_of_its_own() {
    let (a, _) = OldNode::start(None).await;
    let new = LogNode::start(None, Behaviour::default()).await;
    for config in [ClientConfig::legacy(registry([a])), ClientConfig::neo(registry([new.address]), identity())] {
        let client = DlsClient::start(config).unwrap();
        let task = tokio::spawn(async move {
            client.put("c", 1, b"value 1").await.unwrap();
            let mut count = 0;
            for order in [Order::AsTheyCome, Order::ByTime] {
                let mut records = client.get_all("c", Filter::None, order).unwrap();
                while let Some(batch) = records.next().await {
                    count += batch.unwrap().len();
                }
            }
            client.ranges_by_node().await;
            client.ready().await;
            if client.channels().await.is_ok() {
                client.sizes_by_node(None).await.unwrap();
                client.num_connections_by_node().await.unwrap();
                client.put_batch(client.nodes()[0], "c", [(1, &b"v"[..])]).await.unwrap();
                client.remove_channel("c").await.unwrap();
            }
            count
        });
        assert_eq!(timeout(LONG, task).await.unwrap().unwrap(), 2);
    }
}

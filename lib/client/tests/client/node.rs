//! A small neo node and a small legacy node, as well behaved or as badly as a test wants.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use overstory_client::Identity;
use overstory_swarm::auth::{self, ClientKey};
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::neo::dht::{
    ExistsReply, GetAllMessage, GetReply, HashRangeUpdate, PutReply, RangeLimits, RemoveReply, Request,
};
use overstory_swarm::neo::frame::{self, Kind, Step};
use overstory_swarm::neo::{PROTOCOL_VERSION, Replies, split_body};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// The identity that every node here accepts.
pub(crate) fn identity() -> Identity {
    Identity { name: "test".to_owned(), key: ClientKey([0; 128]) }
}

/// How a node behaves.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Accepts nobody.
    pub(crate) reject: bool,
    /// Reads requests and says nothing.
    pub(crate) silent: bool,
    /// Closes the connection when the so-maniest Put has come, without an answer.
    pub(crate) break_at_put: Option<usize>,
    /// Closes the connection after so many batches of a GetAll.
    pub(crate) break_after_batches: Option<usize>,
    /// Records per batch.
    pub(crate) batch_records: usize,
}

/// What a test sees of a node.
pub(crate) struct Node {
    pub(crate) address: SocketAddrV4,
    pub(crate) records: Mutex<BTreeMap<u64, Vec<u8>>>,
    pub(crate) range: Mutex<HashRange>,
    pub(crate) behaviour: Behaviour,
    pub(crate) puts: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    /// Sent to every GetHashRange.
    updates: Mutex<Vec<mpsc::Sender<HashRangeUpdate>>>,
}

impl Node {
    pub(crate) async fn start(range: HashRange, behaviour: Behaviour) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, range, behaviour)
    }

    pub(crate) fn serve(listener: TcpListener, range: HashRange, behaviour: Behaviour) -> Arc<Self> {
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        let node = Arc::new(Self {
            address,
            records: Mutex::default(),
            range: Mutex::new(range),
            behaviour,
            puts: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            updates: Mutex::default(),
        });
        let serving = Arc::clone(&node);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let node = Arc::clone(&serving);
                tokio::spawn(async move { node.connection(stream).await });
            }
        });
        node
    }

    /// Gives the node another range and tells its clients, and of another node.
    pub(crate) async fn hand_over(&self, own: HashRange, other: &Self) {
        *self.range.lock().unwrap() = own;
        let updates = self.updates.lock().unwrap().clone();
        let limits = |range: HashRange| RangeLimits { min: range.min(), max: range.max() };
        let range = *other.range.lock().unwrap();
        for update in updates {
            update.send(HashRangeUpdate::ChangeHashRange(limits(own))).await.unwrap();
            let new = HashRangeUpdate::NewNode { address: other.address, range: limits(range) };
            update.send(new).await.unwrap();
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> Option<()> {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        authenticate(&mut stream, &mut input, self.behaviour.reject).await?;
        let (tx, mut updates) = mpsc::channel(16);
        self.updates.lock().unwrap().push(tx);
        let mut range_id = 0;
        loop {
            out.clear();
            let body = tokio::select! {
                body = message(&mut stream, &mut input) => body?,
                Some(update) = updates.recv() => {
                    Replies::new(&mut out, range_id).message(|out| update.encode(out));
                    stream.write_all(&out).await.ok()?;
                    continue;
                }
            };
            let (id, payload) = split_body(&body).unwrap();
            let mut replies = Replies::new(&mut out, id);
            // Acknowledgements and controls: nothing here runs long enough for them to matter.
            if payload.len() == 1 {
                continue;
            }
            let request = Request::decode(payload[0], &payload[2..]).unwrap();
            if self.behaviour.silent && !matches!(request, Request::GetHashRange) {
                continue;
            }
            replies.supported();
            if matches!(request, Request::GetHashRange) {
                range_id = id;
            }
            let goes_on = self.answer(&request, &mut replies);
            stream.write_all(&out).await.ok()?;
            if !goes_on {
                return None;
            }
        }
    }

    /// Answers; false if the connection is to be closed.
    fn answer(&self, request: &Request<'_>, replies: &mut Replies<'_>) -> bool {
        let range = *self.range.lock().unwrap();
        let mut records = self.records.lock().unwrap();
        match *request {
            Request::GetHashRange => {
                let limits = RangeLimits { min: range.min(), max: range.max() };
                replies.message(|out| limits.encode(out));
            }
            Request::Put { key, .. } if !range.contains(key) => replies.byte(PutReply::WrongNode.code()),
            Request::Put { key, value, .. } => {
                records.insert(key.0, value.to_vec());
                let puts = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
                if self.behaviour.break_at_put == Some(puts) {
                    return false;
                }
                replies.byte(PutReply::Put.code());
            }
            Request::Get { key, .. } => match records.get(&key.0) {
                Some(value) => {
                    replies.byte(GetReply::Got.code());
                    replies.array(value);
                }
                None if !range.contains(key) => replies.byte(GetReply::WrongNode.code()),
                None => replies.byte(GetReply::NoRecord.code()),
            },
            Request::Exists { key, .. } if records.contains_key(&key.0) => replies.byte(ExistsReply::Exists.code()),
            Request::Exists { .. } => replies.byte(ExistsReply::NoRecord.code()),
            Request::Remove { key, .. } if records.remove(&key.0).is_some() => {
                replies.byte(RemoveReply::Removed.code());
            }
            Request::Remove { .. } => replies.byte(RemoveReply::NoRecord.code()),
            Request::GetAll(all) => {
                replies.message(|out| GetAllMessage::Started.encode(out));
                let first = all.after.map_or(0, |key| key.0 + 1);
                let wanted: Vec<_> = records.range(first..).map(|(key, value)| (*key, value.clone())).collect();
                let chunks = wanted.chunks(self.behaviour.batch_records.max(1));
                for (number, chunk) in chunks.enumerate() {
                    if self.behaviour.break_after_batches == Some(number) {
                        return false;
                    }
                    let mut builder = BatchBuilder::new(65536);
                    for (key, value) in chunk {
                        assert_eq!(builder.pair(&key.to_le_bytes(), value), Added::Yes);
                    }
                    replies.message(|out| GetAllMessage::encode_batch(out, |out| builder.finish(out)));
                }
                replies.message(|out| GetAllMessage::Finished.encode(out));
            }
            ref other => panic!("not served here: {other:?}"),
        }
        true
    }
}

/// The node's part of the authentication; nothing if it failed.
pub(crate) async fn authenticate(stream: &mut TcpStream, input: &mut Vec<u8>, reject: bool) -> Option<()> {
    assert_eq!(stream.read_u8().await.ok()?, PROTOCOL_VERSION);
    stream.write_all(&[PROTOCOL_VERSION]).await.ok()?;
    let time = auth::read_time(&message(stream, input).await?).unwrap();
    let mut out = Vec::new();
    auth::put_nonce(&mut out, [1, 2, 3, 4]);
    stream.write_all(&out).await.ok()?;
    let body = message(stream, input).await?;
    let (name, code) = auth::read_proof(&body).unwrap();
    let right = name == b"test" && *code == auth::code(&identity().key, time, [1, 2, 3, 4]);
    out.clear();
    auth::put_verdict(&mut out, right && !reject);
    stream.write_all(&out).await.ok()?;
    (right && !reject).then_some(())
}

/// The next message.
pub(crate) async fn message(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Step::Message { body, consumed, kind: Kind::Request | Kind::Authentication } =
            frame::next(input, frame::MAX_BODY).unwrap()
        {
            let body = body.to_vec();
            input.drain(..consumed);
            return Some(body);
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

/// Keys of the lower and of the upper half of the hash range.
pub(crate) fn halves() -> (HashRange, HashRange) {
    let half = 1 << 63;
    (HashRange::new(0, half - 1).unwrap(), HashRange::new(half, u64::MAX).unwrap())
}

/// A key in the lower half, and one in the upper half.
pub(crate) fn keys() -> (Key, Key) {
    (Key(2), Key(1))
}

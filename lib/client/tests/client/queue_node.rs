//! A small queue node of the neo protocol with one queue for all channels, as well or as badly behaved as a test wants.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use overstory_swarm::neo::dmq::{ConsumeControl, ConsumeMessage, PopReply, PushReply, Request};
use overstory_swarm::neo::{Replies, split_body};
use overstory_swarm::wire::put_array;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::node::{authenticate, message};

#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Accepts nobody.
    pub(crate) reject: bool,
    /// Records that it keeps at most.
    pub(crate) limit: Option<usize>,
    /// Closes the connection at this Push, having done it, without an answer.
    pub(crate) break_at_push: Option<usize>,
    /// Answers to Pops that there are subscribers.
    pub(crate) subscribed: bool,
    /// Records of a batch.
    pub(crate) batch: usize,
    /// Closes the connection when so many batches were sent, all connections together.
    pub(crate) break_at_batch: Option<usize>,
}

pub(crate) struct QueueNode {
    pub(crate) address: SocketAddrV4,
    pub(crate) records: Mutex<VecDeque<Vec<u8>>>,
    pub(crate) behaviour: Behaviour,
    pub(crate) pushes: AtomicUsize,
    pub(crate) batches: AtomicUsize,
    pub(crate) continues: AtomicUsize,
    pub(crate) consumers: AtomicUsize,
    pushed: Notify,
    /// Ends all Consumes.
    pub(crate) removed: Notify,
}

impl QueueNode {
    pub(crate) async fn start(behaviour: Behaviour) -> Arc<Self> {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), behaviour)
    }

    pub(crate) fn serve(listener: TcpListener, behaviour: Behaviour) -> Arc<Self> {
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        let node = Arc::new(Self {
            address,
            records: Mutex::default(),
            behaviour,
            pushes: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            continues: AtomicUsize::new(0),
            consumers: AtomicUsize::new(0),
            pushed: Notify::new(),
            removed: Notify::new(),
        });
        let serving = Arc::clone(&node);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let node = Arc::clone(&serving);
                tokio::spawn(async move { node.connection(stream).await });
            }
        });
        node
    }

    pub(crate) fn fill(&self, records: impl IntoIterator<Item = Vec<u8>>) {
        self.records.lock().unwrap().extend(records);
        self.pushed.notify_waiters();
    }

    pub(crate) fn len(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    async fn connection(&self, mut stream: TcpStream) -> Option<()> {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        authenticate(&mut stream, &mut input, self.behaviour.reject).await?;
        loop {
            out.clear();
            let body = message(&mut stream, &mut input).await?;
            let (id, payload) = split_body(&body).unwrap();
            let mut replies = Replies::new(&mut out, id);
            replies.supported();
            match Request::decode(payload[0], &payload[2..]).unwrap() {
                Request::Push { value, .. } => {
                    let pushes = self.pushes.fetch_add(1, Ordering::SeqCst) + 1;
                    let full = self.behaviour.limit.is_some_and(|limit| self.len() >= limit);
                    if !full {
                        self.fill([value.to_vec()]);
                    }
                    if self.behaviour.break_at_push == Some(pushes) {
                        return None;
                    }
                    replies.byte(if full { PushReply::Error.code() } else { PushReply::Pushed.code() });
                }
                Request::Pop { .. } => {
                    let value = self.records.lock().unwrap().pop_front();
                    let reply = match &value {
                        _ if self.behaviour.subscribed => PopReply::Subscribed,
                        Some(value) => PopReply::Popped(value),
                        None => PopReply::Empty,
                    };
                    replies.message(|out| reply.encode(out));
                }
                Request::Consume { .. } => {
                    replies.message(|out| ConsumeMessage::Started.encode(out));
                    stream.write_all(&out).await.ok()?;
                    self.consumers.fetch_add(1, Ordering::SeqCst);
                    return self.consume(stream, input, id).await;
                }
            }
            stream.write_all(&out).await.ok()?;
        }
    }

    /// Sends batches and gives back what was not taken over.
    async fn consume(&self, mut stream: TcpStream, mut input: Vec<u8>, id: u64) -> Option<()> {
        let mut waiting: Option<Vec<Vec<u8>>> = None;
        let give_back = |batch: Option<Vec<Vec<u8>>>| {
            let mut records = self.records.lock().unwrap();
            batch.into_iter().flatten().rev().for_each(|record| records.push_front(record));
        };
        loop {
            let mut out = Vec::new();
            let mut pushed = std::pin::pin!(self.pushed.notified());
            pushed.as_mut().enable();
            let mut batch = Vec::new();
            if waiting.is_none() {
                let mut records = self.records.lock().unwrap();
                let count = records.len().min(self.behaviour.batch.max(1));
                batch.extend(records.drain(..count));
            }
            if !batch.is_empty() {
                Replies::new(&mut out, id).message(|out| {
                    ConsumeMessage::encode_records(out, |out| batch.iter().for_each(|record| put_array(out, record)));
                });
                waiting = Some(batch);
                if stream.write_all(&out).await.is_err() {
                    give_back(waiting);
                    return None;
                }
                let batches = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
                if self.behaviour.break_at_batch == Some(batches) {
                    give_back(waiting);
                    return None;
                }
                continue;
            }
            let received = tokio::select! {
                received = message(&mut stream, &mut input) => received,
                () = pushed, if waiting.is_none() => continue,
                () = self.removed.notified() => {
                    Replies::new(&mut out, id).message(|out| ConsumeMessage::ChannelRemoved.encode(out));
                    let _ = stream.write_all(&out).await;
                    // As a node does: the connection stays.
                    let _ = message(&mut stream, &mut input).await;
                    return None;
                }
            };
            let Some(body) = received else {
                give_back(waiting);
                return None;
            };
            match ConsumeControl::decode(split_body(&body).unwrap().1).unwrap() {
                ConsumeControl::Continue => {
                    assert!(waiting.take().is_some(), "a Continue without a batch");
                    self.continues.fetch_add(1, Ordering::SeqCst);
                }
                ConsumeControl::Stop => {
                    Replies::new(&mut out, id).message(|out| ConsumeMessage::Stopped.encode(out));
                    let _ = stream.write_all(&out).await;
                    assert!(message(&mut stream, &mut input).await.is_none(), "something after a Stop");
                    return None;
                }
            }
        }
    }
}

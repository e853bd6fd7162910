//! A small logfiles node of the neo protocol with one channel, as well or as badly behaved as a test wants.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::neo::dls::{GetRangeControl, GetRangeMessage, PutReply, RangeLimits, Request, mode};
use overstory_swarm::neo::{Replies, UNSUPPORTED_CODE, split_body};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::node::{authenticate, message};

#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Records of a batch.
    pub(crate) batch: usize,
    /// Answers Puts with an error.
    pub(crate) full: bool,
    /// Closes the connection at this Put, having done it, without an answer.
    pub(crate) break_at_put: Option<usize>,
    /// Closes the connection after each so-maniest batch, so often.
    pub(crate) break_at_batch: Option<(usize, usize)>,
    /// Takes the first record away when a connection breaks.
    pub(crate) loses: bool,
    /// Sends the last bucket first.
    pub(crate) disorder: bool,
    /// Says nothing to a GetRange before it was asked for its range so often.
    pub(crate) busy: usize,
    /// Ends a GetRange with an error, as one that left records out.
    pub(crate) short: bool,
    /// Says nothing at all to a GetRange, nor to any request after it.
    pub(crate) dead: bool,
}

pub(crate) struct LogNode {
    pub(crate) address: SocketAddrV4,
    pub(crate) records: Mutex<Vec<(i64, Vec<u8>)>>,
    /// What it takes; none if it does not tell.
    pub(crate) range: Mutex<Option<(u64, u64)>>,
    pub(crate) behaviour: Behaviour,
    pub(crate) puts: AtomicUsize,
    pub(crate) asked: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    pub(crate) batches: AtomicUsize,
    pub(crate) stops: AtomicUsize,
    /// Closes all connections.
    pub(crate) gone: Notify,
}

/// What is left of a GetRange.
struct Run {
    rest: Vec<(i64, Vec<u8>)>,
    /// A batch waits for its answer.
    owed: bool,
    finished: bool,
}

impl LogNode {
    pub(crate) async fn start(range: Option<(u64, u64)>, behaviour: Behaviour) -> Arc<Self> {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), range, behaviour)
    }

    pub(crate) fn serve(listener: TcpListener, range: Option<(u64, u64)>, behaviour: Behaviour) -> Arc<Self> {
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        let node = Arc::new(Self {
            address,
            records: Mutex::default(),
            range: Mutex::new(range),
            behaviour,
            puts: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            stops: AtomicUsize::new(0),
            gone: Notify::new(),
        });
        let serving = Arc::clone(&node);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let node = Arc::clone(&serving);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = node.connection(stream) => {}
                        () = node.gone.notified() => {}
                    }
                });
            }
        });
        node
    }

    pub(crate) fn timestamps(&self) -> Vec<i64> {
        self.records.lock().unwrap().iter().map(|(timestamp, _)| *timestamp).collect()
    }

    async fn connection(&self, mut stream: TcpStream) -> Option<()> {
        let (mut input, mut out, mut runs, mut held) = (Vec::new(), Vec::new(), HashMap::new(), Vec::new());
        authenticate(&mut stream, &mut input, false).await?;
        loop {
            out.clear();
            let body = message(&mut stream, &mut input).await?;
            let (id, payload) = split_body(&body).unwrap();
            if self.behaviour.dead && self.reads.load(Ordering::SeqCst) > 0 {
                continue;
            }
            if let Some(run) = runs.get_mut(&id) {
                let ended = self.control(run, payload);
                let goes_on = match ended {
                    Some(GetRangeControl::Stop) => {
                        Replies::new(&mut out, id).message(|out| GetRangeMessage::Stopped.encode(out));
                        true
                    }
                    Some(_) => true,
                    None => self.batch(id, run, &mut out),
                };
                if matches!(ended, Some(GetRangeControl::Stop | GetRangeControl::Ack)) {
                    runs.remove(&id);
                }
                stream.write_all(&out).await.ok()?;
                if !goes_on {
                    return None;
                }
                continue;
            }
            let mut replies = Replies::new(&mut out, id);
            match Request::decode(payload[0], &payload[2..]).unwrap() {
                Request::GetTimestampRange => {
                    let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                    match *self.range.lock().unwrap() {
                        Some((min, max)) => {
                            replies.supported();
                            replies.message(|out| RangeLimits { min, max }.encode(out));
                        }
                        None => replies.byte(UNSUPPORTED_CODE),
                    }
                    if asked >= self.behaviour.busy {
                        for id in held.drain(..) {
                            let run = runs.get_mut(&id).unwrap();
                            self.batch(id, run, &mut out);
                        }
                    }
                }
                Request::Put { timestamp, value, .. } => {
                    replies.supported();
                    let puts = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
                    let (min, max) = self.range.lock().unwrap().unwrap_or((0, u64::MAX));
                    let taken = !self.behaviour.full && (min..=max).contains(&timestamp.cast_unsigned());
                    if taken {
                        self.records.lock().unwrap().push((timestamp, value.to_vec()));
                    }
                    if self.behaviour.break_at_put == Some(puts) {
                        return None;
                    }
                    replies.byte(if taken { PutReply::Put.code() } else { PutReply::Error.code() });
                }
                Request::GetRange { low, high, filter, mode, .. } => {
                    self.reads.fetch_add(1, Ordering::SeqCst);
                    if self.behaviour.dead {
                        continue;
                    }
                    replies.supported();
                    if filter == b"(" && mode >= mode::PCRE {
                        replies.message(|out| GetRangeMessage::Refused.encode(out));
                    } else {
                        replies.message(|out| GetRangeMessage::Started.encode(out));
                        let mut run = Run { rest: self.wanted(low, high, filter), owed: false, finished: false };
                        let goes_on = if self.asked.load(Ordering::SeqCst) < self.behaviour.busy {
                            held.push(id);
                            true
                        } else {
                            self.batch(id, &mut run, &mut out)
                        };
                        runs.insert(id, run);
                        if !goes_on {
                            stream.write_all(&out).await.ok()?;
                            return None;
                        }
                    }
                }
            }
            stream.write_all(&out).await.ok()?;
        }
    }

    fn wanted(&self, low: i64, high: i64, filter: &[u8]) -> Vec<(i64, Vec<u8>)> {
        let holds = |value: &[u8]| filter.is_empty() || value.windows(filter.len()).any(|part| part == filter);
        let records = self.records.lock().unwrap();
        let wanted = records.iter().filter(|(time, value)| (low..=high).contains(time) && holds(value));
        let mut wanted: Vec<_> = wanted.cloned().collect();
        wanted.sort_by_key(|(timestamp, _)| timestamp >> 12);
        if self.behaviour.disorder {
            wanted.reverse();
        }
        wanted
    }

    /// What a client said to a running GetRange: nothing if it is to go on.
    fn control(&self, run: &mut Run, payload: &[u8]) -> Option<GetRangeControl> {
        match GetRangeControl::decode(payload).unwrap() {
            GetRangeControl::Continue => {
                assert!(std::mem::take(&mut run.owed), "a Continue without a batch");
                None
            }
            GetRangeControl::Stop => {
                assert!(run.owed || self.range.lock().unwrap().is_some(), "a Stop without a batch");
                // It crossed the end.
                if run.finished {
                    return Some(GetRangeControl::Continue);
                }
                self.stops.fetch_add(1, Ordering::SeqCst);
                Some(GetRangeControl::Stop)
            }
            GetRangeControl::Ack => {
                assert!(run.finished, "an Ack before the end");
                Some(GetRangeControl::Ack)
            }
        }
    }

    /// Sends the next batch, or the end; false if the connection breaks behind it.
    fn batch(&self, id: u64, run: &mut Run, out: &mut Vec<u8>) -> bool {
        let mut replies = Replies::new(out, id);
        if run.rest.is_empty() && self.behaviour.short {
            replies.message(|out| GetRangeMessage::Error.encode(out));
            return true;
        }
        if run.rest.is_empty() {
            run.finished = true;
            replies.message(|out| GetRangeMessage::Finished.encode(out));
            return true;
        }
        let mut builder = BatchBuilder::new(1 << 20);
        let count = run.rest.len().min(self.behaviour.batch.max(1));
        for (timestamp, value) in run.rest.drain(..count) {
            assert_eq!(builder.refresh(timestamp.cast_unsigned(), &value), Added::Yes);
        }
        replies.message(|out| GetRangeMessage::encode_records(out, |out| builder.finish(out)));
        run.owed = true;
        let batches = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
        let breaks = self
            .behaviour
            .break_at_batch
            .is_some_and(|(each, times)| batches.is_multiple_of(each) && batches <= each * times);
        if breaks && self.behaviour.loses {
            self.records.lock().unwrap().remove(0);
        }
        !breaks
    }
}

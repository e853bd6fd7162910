//! The neo protocol on a connection: who the client is, then any number of requests side by side.
//!
//! A request that is answered at once, a Put or a Get, costs no allocation, no entry in a table and one look at the
//! clock. Only what goes on has an entry, see [`streams`].

use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant};

use overstory_swarm::auth::{self, NONCE};
use overstory_swarm::neo::frame::{self, Kind, Step};
use overstory_swarm::neo::{
    MAX_ACTIVE_REQUESTS, PROTOCOL_VERSION, Replies, UNSUPPORTED_CODE, UNSUPPORTED_VERSION, split_body,
};
use tracing::{debug, warn};

use super::Node;
use super::connection::{self, Closed, Session};
use super::registry::{Member, Phase};
use crate::commit::Commits;
use crate::engine::{Begun, Engine, NeoRequest, Peer, Support, Unsettled};
use crate::wake::Waker;

mod streams;

use streams::Streams;

/// What a neo connection is about.
pub(super) struct NeoSession<E> {
    node: Rc<Node<E>>,
    member: Rc<Member>,
    peer: Peer,
    stage: Stage,
    /// Bytes of input that are needed to get on.
    need: usize,
    /// Lent to each request, pointed at the entry that its stream would get.
    waker: Waker,
    streams: Streams,
    /// When the last request that is timed was done with.
    clock: Option<Instant>,
}

/// How far a connection is (protocol §2.1).
#[derive(Debug, Clone, Copy)]
enum Stage {
    Version,
    Time,
    Proof { timestamp: u64, nonce: [u8; NONCE] },
    Requests,
}

impl<E: Engine> NeoSession<E> {
    pub(super) fn new(node: Rc<Node<E>>, member: Rc<Member>) -> Self {
        let peer = Peer { address: member.address, name: Rc::from("") };
        let waker = Waker::new(Rc::clone(&member.board), 0);
        let streams = Streams::new(Rc::clone(&node.stats), Rc::clone(&member.board));
        Self { node, member, peer, stage: Stage::Version, need: 1, waker, streams, clock: None }
    }

    /// The version bytes. The client sends nothing behind its own until it has ours, so more than one byte is wrong.
    fn version(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Closed> {
        let [version] = *input else {
            return Err(Closed::violation("more than the protocol version was sent at once"));
        };
        out.push(PROTOCOL_VERSION);
        if version != PROTOCOL_VERSION {
            return Err(Closed::violation(format_args!("unknown protocol version {version}")));
        }
        self.stage = Stage::Time;
        Ok(1)
    }

    /// A message before the client is known.
    fn authenticate(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>) -> Result<(), Closed> {
        if kind != Kind::Authentication {
            return Err(Closed::violation("request before authentication"));
        }
        match self.stage {
            Stage::Proof { timestamp, nonce } => self.prove(timestamp, nonce, body, out),
            _ => {
                let timestamp = auth::read_time(body).map_err(Closed::violation)?;
                let nonce = rand::random();
                auth::put_nonce(out, nonce);
                self.stage = Stage::Proof { timestamp, nonce };
                Ok(())
            }
        }
    }

    fn prove(&mut self, timestamp: u64, nonce: [u8; NONCE], body: &[u8], out: &mut Vec<u8>) -> Result<(), Closed> {
        let (name, code) = auth::read_proof(body).map_err(Closed::violation)?;
        let credentials = self.node.credentials.borrow();
        let verdict = auth::verify(&credentials, name, timestamp, nonce, code, self.node.now());
        let known = std::str::from_utf8(name).ok().zip(credentials.get(name));
        auth::put_verdict(out, verdict.is_ok() && known.is_some());
        match (verdict, known) {
            (Ok(()), Some((name, key))) => {
                self.peer.name = Rc::from(name);
                self.member.identify(Rc::clone(&self.peer.name), key.clone());
                self.stage = Stage::Requests;
                debug!(target: "node.connection", client = %self.peer.address, name, "client authenticated");
                Ok(())
            }
            (verdict, _) => {
                let reason = verdict.err().map_or_else(String::new, |reason| reason.to_string());
                let name = auth::printable(name);
                if self.node.registry.may_complain() {
                    warn!(target: "node.connection", "Authentication failure for client '{name}': {reason}");
                }
                Err(Closed::Refused)
            }
        }
    }

    /// A message of a request: of one that goes on, or the first of another.
    #[inline]
    fn request(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Closed> {
        let (id, payload) = split_body(body).map_err(Closed::violation)?;
        if !self.streams.is_empty()
            && let Some(slot) = self.streams.find(id)
        {
            return self.streams.message(slot, payload, out);
        }
        let [code, version, payload @ ..] = payload else {
            debug!(target: "node.connection", client = %self.peer.address, id, "message of an unknown request dropped");
            return Ok(());
        };
        if self.streams.ended_lately(id) {
            debug!(target: "node.connection", client = %self.peer.address, id, "late message of a request dropped");
            return Ok(());
        }
        if self.streams.len() >= MAX_ACTIVE_REQUESTS {
            return Err(Closed::violation("too many requests at a time"));
        }
        let mut replies = Replies::new(out, id);
        match self.node.engine.supports(*code, *version) {
            Support::Yes(index) => {
                replies.supported();
                self.begin(index, id, (*code, *version, payload), out);
            }
            Support::UnknownVersion => replies.byte(UNSUPPORTED_VERSION),
            Support::UnknownCode => replies.byte(UNSUPPORTED_CODE),
        }
        Ok(())
    }

    #[inline]
    fn begin(&mut self, index: usize, id: u64, (code, version, payload): (u8, u8, &[u8]), out: &mut Vec<u8>) {
        let Some(counters) = self.node.stats.neo.get(index) else { return };
        let began = counters.spec.timed.then(|| self.clock.unwrap_or_else(Instant::now));
        self.waker.point_at(self.streams.next_slot());
        let request = NeoRequest { code, version, payload, peer: &self.peer, waker: &self.waker };
        match self.node.engine.neo(request, &mut Replies::new(out, id)) {
            Begun::Done => {
                self.clock = began.map(|_| Instant::now());
                let took = began.zip(self.clock).map_or(Duration::ZERO, |(began, now)| now - began);
                counters.once(took);
            }
            Begun::Stream(stream) => self.streams.begin(id, index, stream, began),
        }
    }

    fn messages(&mut self, input: &[u8], out: &mut Vec<u8>, full: usize) -> Result<usize, Closed> {
        self.clock = None;
        let mut done = 0;
        loop {
            let rest = input.get(done..).unwrap_or_default();
            if out.len() >= full {
                self.need = 1;
                return Ok(done);
            }
            match frame::next(rest, self.node.registry.limits.request_bytes).map_err(Closed::violation)? {
                Step::Need(need) => {
                    self.need = need.max(rest.len() + 1);
                    return Ok(done);
                }
                Step::Message { kind, body, consumed } => {
                    done += consumed;
                    match (self.stage, kind) {
                        (Stage::Requests, Kind::Request) => self.request(body, out)?,
                        (Stage::Requests, _) => return Err(Closed::violation("authentication for a second time")),
                        (_, kind) => self.authenticate(kind, body, out)?,
                    }
                }
            }
        }
    }
}

impl<E: Engine> Session for NeoSession<E> {
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, full: usize) -> Result<usize, Closed> {
        match self.stage {
            Stage::Version => self.version(input, out),
            _ => self.messages(input, out, full),
        }
    }

    fn need(&self) -> Option<usize> {
        Some(self.need)
    }

    fn phase(&self, _: usize) -> (Phase, u64) {
        (Phase::Busy, 0)
    }

    fn produce(&mut self, _cx: &mut Context<'_>, out: &mut Vec<u8>) -> connection::Step {
        self.streams.produce(out)
    }

    fn drain(&mut self) -> bool {
        self.streams.clear();
        false
    }

    fn abandon(&mut self) {
        self.streams.clear();
    }

    fn commits(&self) -> Option<&Commits> {
        self.node.engine.commits()
    }

    fn settle(&self) -> Result<(), Unsettled> {
        self.node.engine.settle()
    }
}

//! The legacy protocol on a connection: one request after the other.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Node;
use super::connection::{Closed, Session, Step};
use super::registry::{Member, Phase};
use crate::commit::Commits;
use crate::engine::{Engine, LegacySink, LegacyStep, LegacyStream, Peer, Produced, SinkStep, Unsettled};
use crate::wake::{Board, Waker};

/// What a legacy connection is about.
pub(super) struct LegacySession<E: Engine> {
    node: Rc<Node<E>>,
    peer: Peer,
    waker: Waker,
    board: Rc<Board>,
    state: State,
    /// The request that goes on, by its counters, and when it began.
    running: Option<(usize, Option<Instant>)>,
    /// Bytes of input that are needed to get on.
    need: usize,
    /// When the last request that is timed was done with.
    clock: Option<Instant>,
    /// Whether the time of any request is counted.
    timed: bool,
    /// Requests that are over.
    done: u64,
}

enum State {
    /// Waits for a request, or for the rest of one.
    Ready,
    /// A reply that goes on.
    Stream { stream: Box<dyn LegacyStream>, ready: bool },
    /// A reply that is made elsewhere.
    Later(Pin<Box<dyn Future<Output = Vec<u8>>>>),
    /// A request that goes on, or one that has to wait for room.
    Sink { sink: Box<dyn LegacySink>, blocked: bool },
    /// What is left of a request is thrown away, then the reply is sent.
    Discard { left: u64, reply: Vec<u8> },
}

impl<E: Engine> LegacySession<E> {
    pub(super) fn new(node: Rc<Node<E>>, member: &Member) -> Self {
        let peer = Peer { address: member.address, name: Rc::from("") };
        let (board, waker) = (Rc::clone(&member.board), Waker::new(Rc::clone(&member.board), 0));
        let timed = E::LEGACY_REQUESTS.iter().any(|request| request.timed);
        Self { node, peer, waker, board, state: State::Ready, running: None, need: 1, clock: None, timed, done: 0 }
    }

    /// Takes one step. Returns how much of `input` is done with, or nothing when more of it has to come first.
    #[inline]
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Closed> {
        match &mut self.state {
            State::Ready => self.begin(input, out),
            State::Stream { .. } | State::Later(_) | State::Sink { blocked: true, .. } => Ok(None),
            State::Sink { sink, blocked } => match sink.take(input, out) {
                SinkStep::More { consumed, need } => {
                    let consumed = consumed.min(input.len());
                    self.need = need.max(1);
                    Ok(if consumed == 0 { None } else { Some(consumed) })
                }
                SinkStep::Blocked { consumed } => {
                    *blocked = true;
                    Ok(Some(consumed.min(input.len())))
                }
                SinkStep::Done { consumed } => {
                    self.end();
                    Ok(Some(consumed))
                }
                SinkStep::Close { reason } => Err(Closed::violation(reason)),
            },
            State::Discard { left, reply } => {
                let consumed = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left = left.saturating_sub(consumed as u64);
                if *left == 0 {
                    out.append(reply);
                    self.end();
                }
                Ok(Some(consumed))
            }
        }
    }

    #[inline]
    fn begin(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Closed> {
        self.need = 1;
        let began = self.timed.then(|| self.clock.unwrap_or_else(Instant::now));
        let made = out.len();
        let (consumed, request, state) = match self.node.engine.legacy(&self.peer, &self.waker, input, out) {
            LegacyStep::Done { consumed, request } => {
                self.clock = began.map(|_| Instant::now());
                self.done = self.done.wrapping_add(1);
                if let Some(counters) = self.node.stats.legacy.get(request) {
                    counters.once(began.zip(self.clock).map_or(Duration::ZERO, |(began, now)| now - began));
                }
                return Ok(Some(consumed.max(1)));
            }
            LegacyStep::Need(need) => {
                self.need = need;
                return Ok(None);
            }
            LegacyStep::Close { reason } => return Err(Closed::violation(reason)),
            LegacyStep::Stream { consumed, request, stream } => {
                (consumed, request, State::Stream { stream, ready: true })
            }
            LegacyStep::Later { consumed, request, reply } => (consumed, request, State::Later(reply)),
            LegacyStep::Sink { consumed, request, sink } => (consumed, request, State::Sink { sink, blocked: false }),
            LegacyStep::Discard { consumed, more, request } => {
                let reply = out.split_off(made.min(out.len()));
                (consumed, request, State::Discard { left: more, reply })
            }
        };
        if let Some(counters) = self.node.stats.legacy.get(request) {
            counters.begin();
        }
        self.running = Some((request, began));
        self.state = state;
        if let State::Discard { left: 0, reply } = &mut self.state {
            out.append(reply);
            self.end();
        }
        Ok(Some(consumed))
    }

    /// The request is over, the next one may come.
    fn end(&mut self) {
        self.state = State::Ready;
        self.need = 1;
        self.clock = None;
        self.done = self.done.wrapping_add(1);
        if let Some((request, began)) = self.running.take()
            && let Some(counters) = self.node.stats.legacy.get(request)
        {
            counters.end(began.map_or(Duration::ZERO, |began| began.elapsed()));
        }
    }
}

impl<E: Engine> Session for LegacySession<E> {
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, full: usize) -> Result<usize, Closed> {
        self.clock = None;
        let mut done = 0;
        loop {
            let rest = input.get(done..).unwrap_or_default();
            if rest.len() < self.need || out.len() >= full {
                return Ok(done);
            }
            let Some(consumed) = self.step(rest, out)? else {
                self.need = self.need.max(rest.len() + 1);
                return Ok(done);
            };
            done = done.saturating_add(consumed);
        }
    }

    fn need(&self) -> Option<usize> {
        match self.state {
            State::Stream { .. } | State::Later(_) | State::Sink { blocked: true, .. } => None,
            State::Ready | State::Sink { .. } | State::Discard { .. } => Some(self.need),
        }
    }

    fn keeps_input(&self) -> bool {
        matches!(self.state, State::Sink { blocked: true, .. })
    }

    fn phase(&self, there: usize) -> (Phase, u64) {
        let phase = match self.state {
            State::Ready if there == 0 => Phase::Idle,
            State::Ready | State::Sink { blocked: false, .. } | State::Discard { .. } => Phase::Begun,
            State::Stream { .. } | State::Later(_) | State::Sink { .. } => Phase::Busy,
        };
        (phase, self.done)
    }

    fn produce(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Step {
        match &mut self.state {
            State::Stream { stream, ready } => {
                if self.board.any() {
                    self.board.drain(|_| {});
                    *ready = true;
                }
                if !*ready {
                    return Step::Nothing;
                }
                let made = out.len();
                match stream.produce(out) {
                    Produced::More => return Step::Part,
                    Produced::Idle => *ready = false,
                    Produced::Done => {
                        self.end();
                        return Step::Some;
                    }
                    Produced::Failed => return Step::Failed,
                }
                if out.len() > made { Step::Some } else { Step::Nothing }
            }
            State::Later(reply) => match reply.as_mut().poll(cx) {
                Poll::Ready(mut reply) => {
                    out.append(&mut reply);
                    self.end();
                    Step::Some
                }
                Poll::Pending => Step::Nothing,
            },
            State::Sink { blocked, .. } if *blocked && self.board.any() => {
                self.board.drain(|_| {});
                *blocked = false;
                self.need = 1;
                Step::Some
            }
            State::Ready | State::Sink { .. } | State::Discard { .. } => Step::Nothing,
        }
    }

    fn drain(&mut self) -> bool {
        let answering = matches!(self.state, State::Later(_));
        if !answering {
            self.abandon();
        }
        answering
    }

    fn abandon(&mut self) {
        self.end();
    }

    fn commits(&self) -> Option<&Commits> {
        self.node.engine.commits()
    }

    fn settle(&self) -> Result<(), Unsettled> {
        self.node.engine.settle()
    }
}

impl<E: Engine> Drop for LegacySession<E> {
    fn drop(&mut self) {
        self.end();
    }
}

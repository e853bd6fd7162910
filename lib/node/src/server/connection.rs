//! Drives one connection of either protocol: reads, lets its session answer, writes, and takes turns.
//!
//! In each round of a turn, in this order: what is unsent is written as far as the client takes it; what has arrived
//! is read and all complete requests of it are handled; one stream may go on. So a client's messages are handled
//! before a stream produces, and a stream produces only while little is unsent. After a bounded amount of work, or one
//! step of a stream that has more to do, the turn is over until the runtime has looked at all sockets: a step may have
//! taken long however little it made, and a client that says "stop" is to be heard before the next one (§2.7).
//!
//! Before anything is written the engine settles what was done since it did so last, and what speaks of a change that
//! is not durable yet stays where it is, see [`gate`](super::gate).

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tracing::{debug, info};

use super::buffers::BUFFER;
use super::gate::Gate;
use super::registry::{Membership, Phase};
use crate::commit::Commits;
use crate::engine::Unsettled;
use crate::stats::add;

/// Bytes read and made in a turn, after which others have theirs.
const TURN: usize = 2 * BUFFER;

/// Bytes that are kept of what a client sends while it must wait for the end of a reply.
const READ_AHEAD: usize = 64 << 10;

/// What a protocol does with a connection's bytes.
pub(super) trait Session {
    /// Handles what is complete in `input`, which has at least [`Self::need`] bytes, until `out` has `full` bytes.
    /// Says how much of it is done with.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, full: usize) -> Result<usize, Closed>;

    /// Bytes of input that must be there before it makes sense to call [`Self::take`]; at least 1. `None` while input
    /// has to wait.
    fn need(&self) -> Option<usize>;

    /// Whether input that waits is still handled when the client has closed its side.
    fn keeps_input(&self) -> bool {
        false
    }

    /// What goes on while `there` bytes of input wait, and how many requests are over.
    fn phase(&self, there: usize) -> (Phase, u64);

    /// Lets one stream append to `out`.
    fn produce(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Step;

    /// The node ends: drops streams. Returns whether an answer is still being made.
    fn drain(&mut self) -> bool;

    /// The connection is about to be closed: drops everything that is not over.
    fn abandon(&mut self);

    /// The changes whose replies wait until they are durable.
    fn commits(&self) -> Option<&Commits>;

    /// Brings to the engine's files what has to be there before anything that was made is sent.
    fn settle(&self) -> Result<(), Unsettled>;
}

/// What a stream did that had its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// No stream had anything to do.
    Nothing,
    /// One has done what there was for it.
    Some,
    /// One has done a part.
    Part,
    /// One cannot go on: the connection is to be closed.
    Failed,
}

/// Why our side closes a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closed {
    /// The client has closed its side.
    Heard,
    /// The client was refused, which is logged already.
    Refused,
    /// The client broke the protocol.
    Violation(String),
    /// What was done could not be kept, so it must not be answered.
    Unkept,
    /// An answer cannot be made to its end.
    Unfinished,
}

impl Closed {
    pub(super) fn violation(reason: impl ToString) -> Self {
        Self::Violation(reason.to_string())
    }
}

/// A connection and its session.
pub(super) struct Connection<S> {
    stream: TcpStream,
    place: Membership,
    session: S,
    input: Vec<u8>,
    /// Bytes at the front of `input` that are done with.
    taken: usize,
    output: Vec<u8>,
    /// Bytes at the front of `output` that are written.
    sent: usize,
    /// What of `output` has to wait.
    gate: Gate,
    /// The engine may have something to settle.
    unsettled: bool,
    stage: Stage,
    /// The client has closed its side, and what it sent before is not all handled.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The node ends: nothing is read any more.
    Draining,
    /// What is unsent is still written, then our side is closed.
    Closing {
        /// Whether the client may still be sending.
        linger: bool,
    },
    /// Our side is closed, the client is read until it closes: else the kernel would throw away what it has not read.
    Lingering,
}

impl<S: Session> Connection<S> {
    pub(super) fn new(stream: TcpStream, place: Membership, session: S) -> Self {
        let (input, output, gate) = (Vec::new(), Vec::new(), Gate::default());
        let (taken, sent, unsettled, stage, heard) = (0, 0, false, Stage::Open, false);
        Self { stream, place, session, input, taken, output, sent, gate, unsettled, stage, heard }
    }

    /// Runs until the connection is over.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.turn(cx)).await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.place.member.board.enter(cx.waker());
        let over = self.rounds(cx);
        self.settle();
        self.tidy();
        match over {
            Ok(poll) => poll,
            Err(error) => {
                if self.place.registry.may_complain() {
                    debug!(target: "node.connection", client = %self.place.member.address, %error, "connection lost");
                }
                Poll::Ready(())
            }
        }
    }

    fn rounds(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut work = 0;
        loop {
            if self.place.member.cut.get().is_some() {
                return Ok(Poll::Ready(()));
            }
            if self.place.registry.draining.get() && self.stage == Stage::Open {
                self.stage = Stage::Draining;
            }
            let flushed = self.flush(cx)?;
            let before = work;
            match self.stage {
                Stage::Open => {
                    work += self.receive(cx)?;
                    work += self.produce(cx);
                }
                Stage::Draining => {
                    let answering = self.session.drain();
                    self.unsettled = true;
                    work += self.produce(cx);
                    if flushed && !answering && self.unsent() == 0 {
                        return Ok(Poll::Ready(()));
                    }
                }
                Stage::Closing { linger } => {
                    if !flushed {
                        return Ok(Poll::Pending);
                    }
                    if !linger {
                        return Ok(Poll::Ready(()));
                    }
                    ready_ok(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    self.place.member.lingering.set(true);
                    self.stage = Stage::Lingering;
                    work += 1;
                }
                Stage::Lingering => match self.read(cx, BUFFER)? {
                    Poll::Ready(0) => return Ok(Poll::Ready(())),
                    Poll::Ready(count) => {
                        self.input.clear();
                        work += count;
                    }
                    Poll::Pending => {}
                },
            }
            if work == before {
                return Ok(Poll::Pending);
            }
            if work >= TURN {
                self.flush(cx)?;
                // Not `wake`: that would run this task again before anybody looked at the sockets.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Ok(Poll::Pending);
            }
        }
    }

    /// Handles input that is there or can be read. Returns how much work that was.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let limits = &self.place.registry.limits;
        let limit = limits.max_unsent_bytes;
        if self.unsent() >= limit {
            return Ok(0);
        }
        let there = self.input.len() - self.taken;
        let need = self.session.need();
        if there == 0 || need.is_none_or(|need| there < need) {
            if need.is_none() && there >= READ_AHEAD {
                return Ok(0);
            }
            if let Some(need) = need
                && need > limits.request_bytes.saturating_add(ROOM)
            {
                self.close(&Closed::violation("a request is longer than allowed"));
                return Ok(1);
            }
            match self.read(cx, need.unwrap_or(READ_AHEAD))? {
                Poll::Ready(0) if self.session.keeps_input() => {
                    self.heard = true;
                    return Ok(0);
                }
                Poll::Ready(0) => {
                    self.close(&Closed::Heard);
                    return Ok(1);
                }
                Poll::Ready(_) => {}
                Poll::Pending => return Ok(0),
            }
        }
        let input = self.input.get(self.taken..).unwrap_or_default();
        if self.session.need().is_none_or(|need| input.len() < need) {
            return Ok(1);
        }
        let full = self.sent.saturating_add(limit);
        if self.output.capacity() == 0 {
            self.output = self.place.registry.buffers.take();
        }
        let made = self.output.len();
        let changes = self.session.commits().map_or(0, Commits::made);
        let result = self.session.take(input, &mut self.output, full);
        self.unsettled = true;
        self.made(changes, made);
        match result {
            Ok(taken) => {
                self.taken = self.taken.saturating_add(taken).min(self.input.len());
                Ok(1 + taken + self.output.len().saturating_sub(made))
            }
            Err(closed) => {
                self.close(&closed);
                Ok(1)
            }
        }
    }

    /// Lets a stream go on if there is room for what it makes. Returns how much work that was.
    fn produce(&mut self, cx: &mut Context<'_>) -> usize {
        let open = matches!(self.stage, Stage::Open | Stage::Draining);
        if !open || self.unsent() >= self.place.registry.limits.stream_unsent_bytes {
            return 0;
        }
        if self.output.capacity() == 0 {
            self.output = self.place.registry.buffers.take();
        }
        let made = self.output.len();
        let changes = self.session.commits().map_or(0, Commits::made);
        let step = self.session.produce(cx, &mut self.output);
        self.unsettled |= step != Step::Nothing;
        self.made(changes, made);
        match step {
            Step::Nothing => 0,
            Step::Some => self.output.len().saturating_sub(made).max(1),
            Step::Part => TURN,
            Step::Failed => {
                self.close(&Closed::Unfinished);
                1
            }
        }
    }

    fn close(&mut self, closed: &Closed) {
        if let Closed::Violation(reason) = closed
            && self.place.registry.may_complain()
        {
            let client = self.place.member.address;
            info!(target: "node.connection", %client, reason, "connection closed because of a protocol error");
        }
        self.session.abandon();
        self.unsettled = true;
        self.taken = self.input.len();
        self.stage = Stage::Closing { linger: *closed != Closed::Heard };
    }

    /// Notes what the session did: it made what is behind `from` in `output`, and the changes behind `changes`.
    #[inline]
    fn made(&mut self, changes: u64, from: usize) {
        if let Some(commits) = self.session.commits() {
            let start = self.place.member.written.get();
            let position = |index: usize| start.wrapping_add(index.saturating_sub(self.sent) as u64);
            self.gate.made(commits, changes, position(from), position(self.output.len()));
        }
    }

    /// The index in `output` up to which it may be sent.
    #[inline]
    fn sendable(&mut self) -> usize {
        let Some(commits) = self.session.commits() else { return self.output.len() };
        let Some(until) = self.gate.open_until(commits) else { return self.output.len() };
        let open = until.saturating_sub(self.place.member.written.get());
        self.sent.saturating_add(usize::try_from(open).unwrap_or(usize::MAX)).min(self.output.len())
    }

    /// Lets the engine settle what was done. What must not be sent any more is thrown away, and the connection closed.
    #[inline]
    fn settle(&mut self) {
        if std::mem::take(&mut self.unsettled) && self.session.settle().is_err() {
            self.refuse(self.sent);
        }
        if self.session.commits().is_some_and(|commits| commits.has_failed() || self.gate.is_lost(commits)) {
            let end = self.sendable();
            if end < self.output.len() {
                self.refuse(end);
            }
        }
    }

    /// Throws away the output behind `end` and closes the connection.
    #[cold]
    fn refuse(&mut self, end: usize) {
        self.output.truncate(end);
        self.gate.clear();
        match self.stage {
            Stage::Open => self.close(&Closed::Unkept),
            Stage::Draining => {
                self.close(&Closed::Unkept);
                self.stage = Stage::Closing { linger: false };
            }
            Stage::Closing { .. } | Stage::Lingering => {}
        }
        self.place.member.board.wake_task();
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads once, behind what is there. The buffer grows by what has arrived: to twice of it at most.
    fn read(&mut self, cx: &mut Context<'_>, need: usize) -> io::Result<Poll<usize>> {
        let there = self.input.len() - self.taken;
        if self.input.capacity() < BUFFER {
            let mut buffer = self.place.registry.buffers.take();
            buffer.extend_from_slice(self.input.get(self.taken..).unwrap_or_default());
            self.input = buffer;
            self.taken = 0;
        } else if self.taken > 0 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        let spare = self.input.capacity() - there;
        if spare < BUFFER / 2 {
            let more = need.saturating_sub(there).clamp(BUFFER, there.max(BUFFER));
            self.input.reserve_exact(more);
        }
        match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
            Poll::Ready(Ok(count)) => {
                add(&self.place.registry.stats.bytes_received, count as u64);
                self.place.member.quiet.arrived(count);
                Ok(Poll::Ready(count))
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Writes what is unsent and does not wait, as far as the client takes it. Returns whether that was all.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        self.settle();
        let end = self.sendable();
        while self.sent < end {
            let rest = self.output.get(self.sent..end).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    let written = &self.place.member.written;
                    written.set(written.get().wrapping_add(count as u64));
                    add(&self.place.registry.stats.bytes_sent, count as u64);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if self.sent < self.output.len() {
            if self.sent >= self.output.len() / 2 && self.sent >= BUFFER {
                self.output.drain(..self.sent);
                self.sent = 0;
            }
            return Ok(false);
        }
        self.output.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Lets go of what is not needed until the next turn, and says what is kept.
    fn tidy(&mut self) {
        let buffers = &self.place.registry.buffers;
        buffers.settle(&mut self.input, &mut self.taken);
        buffers.settle(&mut self.output, &mut self.sent);
        if let Some(commits) = self.session.commits() {
            self.gate.wait(commits, &self.place.member.board);
        }
        let end = self.sendable();
        self.place.member.unsent.set(end.saturating_sub(self.sent));
        let (phase, requests) = self.session.phase(self.input.len() - self.taken);
        let phase = match phase {
            _ if self.stage != Stage::Open || self.unsent() > 0 => Phase::Busy,
            // It may wait for ever, and nobody waits for it.
            Phase::Busy if self.heard => Phase::Begun,
            phase => phase,
        };
        self.place.member.quiet.set(phase, requests);
        self.place.registry.hold(&self.place.member, self.input.capacity() + self.output.capacity());
    }
}

/// Bytes that a request's frame needs beside its body.
const ROOM: usize = 64;

/// Takes "not yet" for done.
fn ready_ok(poll: Poll<io::Result<()>>) -> io::Result<()> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

//! What a node engine gives to the server, and what it gets from it.
//!
//! Everything here runs on the node's one thread: an engine keeps its state in cells, answers most requests at once
//! and hands the others back as a *stream*, a state machine that the connection drives. Nothing is sent directly: an
//! engine appends to the connection's output, which the server writes when the client takes it.
//!
//! Bounds that the server keeps, so that an engine need not: a stream is asked for more only while the connection's
//! unsent output is small; requests of a connection take turns; a client that does not read is dropped in the end.

use std::future::Future;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::rc::Rc;

use overstory_swarm::neo::Replies;

use crate::commit::Commits;
use crate::stats::RequestSpec;
use crate::wake::Waker;

/// A node engine: the owner of the state, on the node's thread.
pub trait Engine: 'static {
    /// The legacy requests, in the order of `stats.log`.
    const LEGACY_REQUESTS: &'static [RequestSpec];
    /// The neo requests, in the order of `stats.log`.
    const NEO_REQUESTS: &'static [RequestSpec];
    /// The actions that `stats.log` counts as `action/<name>/records` and `/bytes`.
    const ACTIONS: &'static [&'static str];

    /// Takes the next request of a legacy connection (protocol §1).
    ///
    /// `input` is what has arrived and was not consumed yet, from the command code on and never empty. The engine
    /// appends the reply to `out`, or says what is missing. It never trusts a length in `input`.
    fn legacy(&self, peer: &Peer, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep;

    /// Whether a neo request is known (protocol §2.3). The server sends the answer.
    fn supports(&self, code: u8, version: u8) -> Support;

    /// Begins a neo request that is supported; "supported" has been queued.
    ///
    /// `payload` is what follows code and version. Whatever is wrong with it is answered with the request's own error
    /// status where it has one, never with silence.
    fn neo(&self, request: NeoRequest<'_>, out: &mut Replies<'_>) -> Begun;

    /// The changes whose replies wait until they are durable; none for an engine that has no such changes.
    fn commits(&self) -> Option<&Commits> {
        None
    }

    /// Called when a connection had its turn, before anything that it made is sent: the engine brings to its files what
    /// has to be there first.
    ///
    /// # Errors
    /// That failed: the connection is closed, and what was not sent yet never is.
    fn settle(&self) -> Result<(), Unsettled> {
        Ok(())
    }
}

/// What had to be written before a reply could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change could not be written")]
pub struct Unsettled;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddrV4,
    /// The name it authenticated with; empty on a legacy connection.
    pub name: Rc<str>,
}

/// A neo request as it arrived.
#[derive(Debug)]
pub struct NeoRequest<'a> {
    /// The request code.
    pub code: u8,
    /// The request version.
    pub version: u8,
    /// What follows, request-specific.
    pub payload: &'a [u8],
    /// Who sent it.
    pub peer: &'a Peer,
    /// Makes the stream of this request run again; cloned only by streams that wait for something.
    pub waker: &'a Waker,
}

/// The answer to a neo request's code and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Both are known; the index is into [`Engine::NEO_REQUESTS`].
    Yes(usize),
    /// The code is known, the version is not.
    UnknownVersion,
    /// The code is not known.
    UnknownCode,
}

/// What became of a legacy connection's input.
pub enum LegacyStep {
    /// The request is not complete: call again once at least so many bytes in all are there.
    Need(usize),
    /// Answered: `consumed` bytes were the request, the reply is in `out`.
    Done {
        /// Bytes of input that are done with.
        consumed: usize,
        /// Index into [`Engine::LEGACY_REQUESTS`].
        request: usize,
    },
    /// The reply goes on: `out` holds its beginning (the status).
    Stream {
        /// Bytes of input that are done with.
        consumed: usize,
        /// Index into [`Engine::LEGACY_REQUESTS`].
        request: usize,
        /// Produces the rest.
        stream: Box<dyn LegacyStream>,
    },
    /// The reply is made later; the future ends with the bytes to send, and is dropped with the connection.
    Later {
        /// Bytes of input that are done with.
        consumed: usize,
        /// Index into [`Engine::LEGACY_REQUESTS`].
        request: usize,
        /// Ends with the reply.
        reply: Pin<Box<dyn Future<Output = Vec<u8>>>>,
    },
    /// The client goes on sending, item by item (`Produce`): `out` holds the status.
    Sink {
        /// Bytes of input that are done with.
        consumed: usize,
        /// Index into [`Engine::LEGACY_REQUESTS`].
        request: usize,
        /// Takes what arrives.
        sink: Box<dyn LegacySink>,
    },
    /// What was announced is too long to be kept: throws away `consumed` bytes and then `more` that are still to
    /// come, then sends what was appended to `out`.
    Discard {
        /// Bytes of input that are done with.
        consumed: usize,
        /// Bytes that follow and are thrown away.
        more: u64,
        /// Index into [`Engine::LEGACY_REQUESTS`].
        request: usize,
    },
    /// The connection cannot go on; `reason` goes to the log.
    Close {
        /// Why, for the log.
        reason: &'static str,
    },
}

/// What a stream did when it was asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Produced {
    /// It has more: ask again when its turn comes.
    More,
    /// It has nothing now: its waker says when to ask again, or a message of the client.
    Idle,
    /// It is over.
    Done,
    /// It cannot go on, and the protocol has no word for that: the connection is closed once what was made is sent, so
    /// that the client knows that something is missing.
    Failed,
}

/// The rest of a legacy reply.
pub trait LegacyStream {
    /// Appends at most about 64 KiB (or one record) to `out`.
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced;
}

/// Takes the items of a legacy request whose client goes on sending.
pub trait LegacySink {
    /// Takes what has arrived; says how much of it is done with and whether that was the last item.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> SinkStep;
}

/// What became of a sink's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkStep {
    /// `consumed` bytes are done with; call again once `need` bytes in all are there.
    More {
        /// Bytes of input that are done with.
        consumed: usize,
        /// Bytes that must be buffered before it makes sense to call again.
        need: usize,
    },
    /// It has no room for more: call again when its waker was used. Meanwhile little is read from the client, so that
    /// the client has to wait; what has arrived is kept, also when the client closes its side.
    Blocked {
        /// Bytes of input that are done with.
        consumed: usize,
    },
    /// The request is over, the connection is free for the next one.
    Done {
        /// Bytes of input that are done with.
        consumed: usize,
    },
    /// The connection cannot go on.
    Close {
        /// Why, for the log.
        reason: &'static str,
    },
}

/// What became of a neo request.
pub enum Begun {
    /// It is over: its replies are queued.
    Done,
    /// It goes on.
    Stream(Box<dyn NeoStream>),
}

/// A neo request that goes on.
///
/// It is asked to [`produce`](Self::produce) right after it began, after each message, and whenever its waker was
/// used, while the connection has room. Dropping it ends it: the connection is gone.
pub trait NeoStream {
    /// Takes a message of the client. What is appended to `out` comes after everything that was produced before.
    ///
    /// # Errors
    /// The message may not come now or is not understood: the connection is closed (protocol §2.3).
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation>;

    /// Appends at most about 64 KiB (or one record) of messages to `out`.
    fn produce(&mut self, out: &mut Replies<'_>) -> Produced;
}

/// Whether a neo request goes on after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// It is over.
    Done,
}

/// A message that breaks the protocol of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub &'static str);

//! Accepts connections of both protocols and drives the engine.
//!
//! Everything runs on one thread, inside a `LocalSet` or a `LocalRuntime` of tokio: one task per connection, one per
//! listener and one that looks after all of them about once a second.
//!
//! # What clients may take
//!
//! * **Places.** At most `connection_limit` connections of both protocols are open. Over it a newcomer is closed at
//!   once and counted. Strangers cannot keep clients out: a neo connection that has not authenticated within a few
//!   seconds is closed, and when the node is full the one that has waited longest without having done so makes room
//!   for whoever comes. After those, legacy connections on which nothing goes on make room: first those that never
//!   sent a byte, then those that have been idle longest between two requests, then those whose request has begun and
//!   does not get on (no 64 KiB of it in [`Limits::begun`]). Displaced connections count as refused ones. Clients that
//!   have authenticated, and legacy connections that are active, answered or streamed to, are never displaced.
//! * **Memory.** A connection's buffers grow by what has arrived, never by what was announced, and are given back when
//!   nothing is in them. A client that does not read is not listened to any more once so much waits for it. What all
//!   connections hold between their turns is bounded; over it those that hold the most are dropped.
//! * **Time.** A client that has something to read and takes none of it for a minute is dropped and counted. A request
//!   may arrive as slowly as it likes: what is there of it counts as memory, keepalive finds out who is gone.
//! * **Changes.** Of an engine with [`Commits`](crate::commit::Commits) a connection holds back what it has made since
//!   a change until that is durable. What is held back counts for the bounds of memory, and its client is not taken for
//!   one that does not read.
//! * **Turns.** A connection handles a bounded amount in a turn, and its streams take turns among each other.

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overstory_model::clock::Clock;
use overstory_runtime::shutdown::Shutdown;
use overstory_swarm::auth::Credentials;
use overstory_swarm::neo::frame;
use tokio::time::MissedTickBehavior;

use crate::engine::Engine;
use crate::stats::NodeStats;
use registry::Registry;

mod accept;
mod buffers;
mod complaints;
mod connection;
mod gate;
mod legacy;
mod listen;
mod neo;
mod registry;

pub use listen::Listeners;

/// What a server binds and how far it goes for its clients.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where legacy clients connect; `None`: nowhere.
    pub legacy: Option<SocketAddrV4>,
    /// Where neo clients connect.
    pub neo: SocketAddrV4,
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: u32,
    /// Open connections of both protocols together.
    pub connection_limit: usize,
    /// Bounds of memory and time.
    pub limits: Limits,
}

impl ServerConfig {
    /// The published defaults for these addresses.
    #[must_use]
    pub fn new(legacy: Option<SocketAddrV4>, neo: SocketAddrV4) -> Self {
        Self { legacy, neo, backlog: 2048, connection_limit: 5000, limits: Limits::default() }
    }
}

/// Bounds of memory and time that the server keeps for each connection and for all of them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body (neo) or of a whole request (legacy); a longer one closes the connection.
    pub request_bytes: usize,
    /// Unsent bytes of a connection at which its requests are not handled any further.
    pub max_unsent_bytes: usize,
    /// Unsent bytes of a connection below which its streams are asked for more.
    pub stream_unsent_bytes: usize,
    /// Bytes of input and output that all connections together may hold between their turns; over it those that hold
    /// the most are dropped.
    pub buffer_budget_bytes: usize,
    /// Time that a neo client has to authenticate.
    pub authentication: Duration,
    /// Time after which a legacy connection that never sent a byte may have to make room.
    pub silent: Duration,
    /// Time without a request after which a legacy connection may have to make room.
    pub idle: Duration,
    /// Time after which a legacy connection may have to make room whose request has begun and does not get on.
    pub begun: Duration,
    /// Time without any progress after which a client that has to read is dropped.
    pub write_stall: Duration,
    /// Time that answers which are being made or sent have at shutdown.
    pub drain: Duration,
}

impl Limits {
    /// Time that a client has to close a connection that was closed on our side.
    fn linger(&self) -> Duration {
        self.write_stall.min(Duration::from_secs(2))
    }

    /// How often it is looked after time limits.
    fn sweep(&self) -> Duration {
        let shortest = self.authentication.min(self.write_stall).min(self.idle).min(self.begun) / 4;
        shortest.clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: frame::MAX_BODY,
            max_unsent_bytes: 1 << 20,
            stream_unsent_bytes: 128 << 10,
            buffer_budget_bytes: 512 << 20,
            authentication: Duration::from_secs(5),
            silent: Duration::from_secs(1),
            idle: Duration::from_secs(5),
            begun: Duration::from_secs(30),
            write_stall: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

/// A server that is not running yet.
pub struct Server<E> {
    /// Bounds; the addresses are those of the listeners.
    pub config: ServerConfig,
    /// What answers requests.
    pub engine: Rc<E>,
    /// What is counted.
    pub stats: Rc<NodeStats>,
    /// Who may connect by neo. A client that is removed, or whose key changes, is disconnected within about a second.
    pub credentials: Rc<RefCell<Credentials>>,
    /// What the clients' clocks are compared with.
    pub clock: Arc<dyn Clock>,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off in the middle of an answer, because the time for it was over.
    pub cut_off: usize,
}

impl<E: Engine> Server<E> {
    /// Serves until `shutdown` is requested; then accepts nobody any more, lets what is being answered be finished and
    /// sent within [`Limits::drain`], and ends. Streams end at once.
    ///
    /// # Panics
    /// Outside a `LocalSet` or `LocalRuntime`.
    pub async fn run(self, listeners: Listeners, shutdown: &Shutdown) -> Drained {
        let limits = self.config.limits.clone();
        let registry = Rc::new(Registry::new(self.config.connection_limit, limits, Rc::clone(&self.stats)));
        let node = Rc::new(Node {
            engine: self.engine,
            stats: self.stats,
            credentials: self.credentials,
            clock: self.clock,
            registry: Rc::clone(&registry),
        });
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = accept::serve(listeners, &node) => {}
            () = node.sweep() => {}
        }
        Drained { cut_off: registry.drain().await }
    }
}

/// What all connections share.
struct Node<E> {
    engine: Rc<E>,
    stats: Rc<NodeStats>,
    credentials: Rc<RefCell<Credentials>>,
    clock: Arc<dyn Clock>,
    registry: Rc<Registry>,
}

impl<E> Node<E> {
    /// Looks after time limits and credentials, for ever.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(self.registry.limits.sweep());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.registry.sweep(&self.credentials.borrow());
        }
    }

    /// The node's clock, Unix seconds.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().secs().0).unwrap_or(0)
    }
}

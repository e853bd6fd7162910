//! How a client is set up.

use std::time::Duration;

use crate::neo::Identity;
use crate::registry::Registry;

/// Which protocol the client speaks. The registry's ports are that protocol's.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// Authenticated, multiplexed.
    Neo(Identity),
    /// Without authentication, one request at a time per connection.
    Legacy {
        /// Takes nodes of a dht that do not cover the whole hash range, as a dump of one node needs it.
        gaps: bool,
    },
}

/// How a client is set up.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The nodes.
    pub nodes: Registry,
    /// What is spoken with them.
    pub protocol: Protocol,
    /// Legacy: connections per node at most (5).
    pub connections: usize,
    /// Legacy: requests per node that wait for a connection at most (10,000).
    pub queue_limit: usize,
    /// How long connecting takes at most, with authentication (5 s).
    pub connect_timeout: Duration,
    /// How long one request takes at most, waiting for the connection included (10 s).
    pub request_timeout: Duration,
    /// How long a GetAll by neo, and a GetRange, waits for a node that has gone away to come back, and a Produce for a full
    /// queue (30 s).
    pub patience: Duration,
    /// Repeats a Push, or a Put into logfiles, whose connection broke before the answer came, at another node or at the
    /// same, within its time: the record is then there at least once, where it would be there at most once (false). Of a
    /// dht nothing is repeated.
    pub at_least_once: bool,
}

impl ClientConfig {
    /// The defaults for neo.
    #[must_use]
    pub const fn neo(nodes: Registry, identity: Identity) -> Self {
        Self::new(nodes, Protocol::Neo(identity))
    }

    /// The defaults for legacy.
    #[must_use]
    pub const fn legacy(nodes: Registry) -> Self {
        Self::new(nodes, Protocol::Legacy { gaps: false })
    }

    const fn new(nodes: Registry, protocol: Protocol) -> Self {
        Self {
            nodes,
            protocol,
            connections: 5,
            queue_limit: 10_000,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            at_least_once: false,
        }
    }
}

//! What can go wrong with a request, and whether trying again makes sense.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_swarm::key::Key;

use crate::ranges::RangeProblem;

/// A request that failed. Each names the node, where one was involved.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made.
    #[error("{node}: cannot connect: {cause}")]
    Connect {
        /// Where to.
        node: SocketAddrV4,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// The node does not speak this protocol there, or not in time.
    #[error(
        "{node}: takes connections but does not answer as a {expected} node: \
         it hangs or is overloaded, or this is the port of the other protocol \
         (the neo port of a node is its legacy port + 100 unless set otherwise)"
    )]
    OtherProtocol {
        /// Which node.
        node: SocketAddrV4,
        /// The protocol that was tried.
        expected: &'static str,
    },
    /// The node does not know the name, or the key is not the one it has.
    #[error("{node}: refused to authenticate `{name}`: wrong name or key, or clocks more than 30 minutes apart")]
    Rejected {
        /// Which node.
        node: SocketAddrV4,
        /// The name that was given.
        name: String,
    },
    /// No connection to the node came about within the request's time. The request was not sent.
    #[error("{node}: not connected{}", .cause.as_ref().map(|cause| because(*node, cause)).unwrap_or_default())]
    Away {
        /// Which node.
        node: SocketAddrV4,
        /// Why the last attempt failed.
        cause: Option<Arc<Error>>,
    },
    /// The connection broke after the request was sent: whether it had an effect is unknown.
    #[error("{node}: the connection broke before the answer came: {cause}")]
    Broken {
        /// Which node.
        node: SocketAddrV4,
        /// How.
        cause: Arc<str>,
    },
    /// No answer came in time: whether the request had an effect is unknown.
    #[error("{node}: no answer within {} ms", .after.as_millis())]
    Timeout {
        /// Which node.
        node: SocketAddrV4,
        /// The limit.
        after: Duration,
    },
    /// The node sent something that is not of the protocol; the connection is closed.
    #[error("{node}: protocol error: {what}")]
    Protocol {
        /// Which node.
        node: SocketAddrV4,
        /// What it was.
        what: Arc<str>,
    },
    /// The node answered that it could not do it.
    #[error("{node}: the node answered with an error")]
    Node {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node answered that it did not store the record; by neo it does not say why.
    #[error("{node}: did not store the record: its size_limit is reached, or its log says what is wrong")]
    NotStored {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node is not responsible for the key; nothing was done.
    #[error("{node}: not responsible for the key")]
    WrongNode {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node has no room for the record; nothing was done.
    #[error("{node}: out of memory (size_limit)")]
    OutOfMemory {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The queue has no room for the record; nothing was done. By legacy only: by neo a node does not say why.
    #[error("{node}: the queue is full, or the record larger than it")]
    Full {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node did not take the record; nothing was done. By neo it does not say why.
    #[error("{node}: did not take the record: the queue is full, or the node's log says what is wrong")]
    NotPushed {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node did not store the record of a Put into logfiles; nothing was done. By neo it does not say why.
    #[error("{node}: did not store the record: it has no room or cannot write; its log says what is wrong")]
    NotWritten {
        /// Which node.
        node: SocketAddrV4,
    },
    /// No node takes records of this time: all have told their ranges, and it is in none of them.
    #[error("no node takes records of the timestamp {0}")]
    NoNodeForTimestamp(i64),
    /// A range of time that ends before it begins.
    #[error("the range from {low} to {high} ends before it begins")]
    BadRange {
        /// Where it begins.
        low: i64,
        /// Where it ends.
        high: i64,
    },
    /// The node cannot do anything with the filter of a read.
    #[error("{node}: refused the filter: it is no regular expression, or longer than the node takes")]
    FilterRefused {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node has sent what it could decide, and left out records: its pattern takes too many steps on them, or the node
    /// could not read to the end.
    #[error(
        "{node}: left records out of the answer: the pattern takes too many steps on some of them \
         (`pattern_limit` in the node's log), or they could not be read"
    )]
    LeftOut {
        /// Which node.
        node: SocketAddrV4,
    },
    /// A read has ended, and the records of some nodes are not complete, or missing at all.
    #[error("the records are not complete: {}", causes(.missing))]
    Incomplete {
        /// Whose records are missing, and why.
        missing: Arc<[(SocketAddrV4, Error)]>,
    },
    /// The channel has subscribers: its records can be consumed and not popped.
    #[error("{node}: the channel has subscribers: its records can only be consumed")]
    Subscribed {
        /// Which node.
        node: SocketAddrV4,
    },
    /// So many channels at once cannot be named.
    #[error("{given} channels at once, at most {limit} are possible")]
    TooManyChannels {
        /// How many were given.
        given: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The client's name does not allow the request.
    #[error("{node}: not permitted (only the client `admin` may)")]
    NotPermitted {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The node does not know the request.
    #[error("{node}: does not support {request}")]
    Unsupported {
        /// Which node.
        node: SocketAddrV4,
        /// Which request.
        request: &'static str,
    },
    /// The value changed between reading and writing it; nothing was done.
    #[error("{node}: the record was changed by somebody else")]
    Conflict {
        /// Which node.
        node: SocketAddrV4,
    },
    /// The chosen protocol has no such request.
    #[error("{request} is a request of the {protocol} protocol only")]
    OtherProtocolOnly {
        /// Which request.
        request: &'static str,
        /// Which protocol has it.
        protocol: &'static str,
    },
    /// No node of the registry is responsible for the key.
    #[error("no node is responsible for key {0}")]
    NoResponsibleNode(Key),
    /// No node whose range is known has the key, and the ranges of some are not known, since they are away.
    #[error("no node that answers is responsible for key {key}; away: {}; {cause}", list(.away))]
    OwnerAway {
        /// The key.
        key: Key,
        /// Who is away: one of these may have it.
        away: Arc<[SocketAddrV4]>,
        /// What is wrong with the first of them.
        cause: Arc<Error>,
    },
    /// So many requests wait for a connection to the node already.
    #[error("{node}: too many requests are waiting")]
    QueueFull {
        /// Which node.
        node: SocketAddrV4,
    },
    /// A name that no channel can have.
    #[error(transparent)]
    BadChannelName(#[from] overstory_swarm::channel::BadChannelName),
    /// Records cannot be empty.
    #[error("an empty value cannot be stored")]
    EmptyValue,
    /// The one record that logfiles do not keep.
    #[error("a record at the timestamp 0 without a value cannot be stored: in a file it looks like nothing")]
    EmptyAtZero,
    /// The value is longer than the protocol takes.
    #[error("a value of {length} bytes is too long, at most {limit} can be stored")]
    ValueTooBig {
        /// Its length.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The nodes' hash ranges do not fit together.
    #[error(transparent)]
    Ranges(#[from] RangeProblem),
    /// The nodes are of different versions.
    #[error("the nodes speak different versions: {first} says `{first_version}`, {second} says `{second_version}`")]
    Versions {
        /// One node.
        first: SocketAddrV4,
        /// What it says.
        first_version: String,
        /// Another node.
        second: SocketAddrV4,
        /// What it says.
        second_version: String,
    },
    /// The registry is empty.
    #[error("no nodes are registered")]
    NoNodes,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// The cause in parentheses, without naming the node once more.
fn because(node: SocketAddrV4, cause: &Error) -> String {
    let text = cause.to_string();
    format!(" ({})", text.strip_prefix(&format!("{node}: ")).unwrap_or(&text))
}

fn list(nodes: &[SocketAddrV4]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn causes(missing: &[(SocketAddrV4, Error)]) -> String {
    missing.iter().map(|(_, cause)| cause.to_string()).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// Whether the same request may succeed later without anybody changing anything about it.
    ///
    /// Where [`Self::effect_unknown`] holds as well, trying again may do the request twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Away { .. }
                | Self::Broken { .. }
                | Self::Timeout { .. }
                | Self::Node { .. }
                | Self::NotStored { .. }
                | Self::OwnerAway { .. }
                | Self::WrongNode { .. }
                | Self::OutOfMemory { .. }
                | Self::Full { .. }
                | Self::NotPushed { .. }
                | Self::NotWritten { .. }
                | Self::Incomplete { .. }
                | Self::Conflict { .. }
                | Self::NoResponsibleNode(_)
                | Self::NoNodeForTimestamp(_)
                | Self::QueueFull { .. }
                | Self::Ranges(_)
        )
    }

    /// Whether the node may have done the request although it failed.
    #[must_use]
    pub const fn effect_unknown(&self) -> bool {
        matches!(
            self,
            Self::Broken { .. }
                | Self::Timeout { .. }
                | Self::Protocol { .. }
                | Self::Node { .. }
                | Self::NotStored { .. }
        )
    }

    pub(crate) fn connect(node: SocketAddrV4, cause: io::Error) -> Self {
        Self::Connect { node, cause: Arc::new(cause) }
    }

    pub(crate) fn broken(node: SocketAddrV4, cause: &io::Error) -> Self {
        let cause: Arc<str> = match cause.kind() {
            io::ErrorKind::UnexpectedEof => "closed by the node".into(),
            _ => cause.to_string().into(),
        };
        Self::Broken { node, cause }
    }

    pub(crate) fn protocol(node: SocketAddrV4, what: impl ToString) -> Self {
        Self::Protocol { node, what: what.to_string().into() }
    }
}

//! What is asked of all nodes, and what each says.

use std::net::SocketAddrV4;

use overstory_swarm::channel;

use crate::error::Error;

/// What each node answered.
pub type Answers<T> = Vec<(SocketAddrV4, Result<T, Error>)>;

/// How much a node, or a channel of it, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Which node.
    pub node: SocketAddrV4,
    /// Records.
    pub records: u64,
    /// Bytes, as the node counts them.
    pub bytes: u64,
}

/// Asks all at once; what each says does not depend on the others.
pub(crate) async fn each<S, T, F>(sources: Vec<S>, node: fn(&S) -> SocketAddrV4, ask: impl Fn(S) -> F) -> Answers<T>
where
    F: Future<Output = Result<T, Error>>,
{
    let nodes: Vec<_> = sources.iter().map(node).collect();
    let answers = futures_util::future::join_all(sources.into_iter().map(ask)).await;
    nodes.into_iter().zip(answers).collect()
}

/// What all have answered, or the first error.
pub(crate) fn all<T>(answers: Answers<T>) -> Result<Vec<(SocketAddrV4, T)>, Error> {
    answers.into_iter().map(|(node, answer)| Ok((node, answer?))).collect()
}

/// Whether a name can be a channel's.
pub(crate) fn check(channel: &str) -> Result<(), Error> {
    channel::check(channel.as_bytes())?;
    Ok(())
}

//! Requests that any of several nodes can do: one after another is asked, until one has done it.

use std::time::Duration;

use futures_util::future::select_ok;
use overstory_runtime::backoff::Backoff;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::neo::core::Opening;
use crate::neo::link::{Call, Link};
use crate::turns::Turns;

/// Waits between two rounds while no node can be reached.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MOST: Duration = Duration::from_millis(500);

/// The nodes that have refused a request.
#[derive(Default)]
pub(crate) struct Refused {
    nodes: Vec<usize>,
    last: Option<Error>,
}

impl Refused {
    pub(crate) fn add(&mut self, node: usize, error: Error) {
        self.nodes.push(node);
        self.last = Some(error);
    }

    pub(crate) fn has(&self, node: usize) -> bool {
        self.nodes.contains(&node)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What the last one said.
    pub(crate) fn take(&mut self) -> Option<Error> {
        self.last.take()
    }
}

/// Begins a request by neo at the first node of `among` that is there and has not refused it. Waits for one of them as
/// long as none has refused.
pub(crate) async fn begin(
    links: &[Link],
    among: impl Iterator<Item = usize> + Clone,
    request: &impl Opening,
    refused: &mut Refused,
    deadline: Instant,
) -> Result<(usize, Call), Error> {
    for index in among.clone() {
        if !refused.has(index)
            && let Some(link) = links.get(index)
            && let Some(call) = link.try_begin(request)?
        {
            return Ok((index, call));
        }
    }
    // Somebody was asked: who is away is not waited for, who only has too much to do is.
    let mut waiting = Vec::new();
    for index in among {
        if let Some(link) = links.get(index)
            && !refused.has(index)
            && (refused.is_empty() || link.trouble().is_none())
        {
            waiting.push(Box::pin(async move { Ok((index, link.begin(request, deadline).await?)) }));
        }
    }
    if waiting.is_empty() {
        return Err(refused.take().unwrap_or(Error::NoNodes));
    }
    select_ok(waiting).await.map(|(begun, _)| begun)
}

/// How a request by legacy is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// When it is given up.
    pub(crate) deadline: Instant,
    /// Tries again where nobody knows whether it was done.
    pub(crate) repeat: bool,
    /// A node that has nothing to say speaks for those that cannot be reached.
    pub(crate) settles: bool,
}

/// Asks the nodes in turn by legacy, with `one`, until one has something to say; none if those that could be reached have
/// nothing.
pub(crate) async fn in_turn<T, F>(turns: &Turns, round: Round, one: impl Fn(usize) -> F) -> Result<Option<T>, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
    loop {
        let (mut nothing, mut refused, mut unreached) = (false, None, None);
        for index in turns.trusted_first() {
            match one(index).await {
                Ok(Some(answer)) => {
                    turns.there(index);
                    return Ok(Some(answer));
                }
                Ok(None) => {
                    turns.there(index);
                    nothing = true;
                }
                // It was not sent.
                Err(error @ Error::Connect { .. }) => {
                    turns.away(index);
                    unreached = Some(error);
                }
                Err(error @ Error::QueueFull { .. }) => unreached = Some(error),
                Err(error @ Error::Broken { .. }) if round.repeat => unreached = Some(error),
                // Nothing was done.
                Err(
                    error @ (Error::Full { .. }
                    | Error::NotPushed { .. }
                    | Error::NotWritten { .. }
                    | Error::WrongNode { .. }
                    | Error::Subscribed { .. }
                    | Error::Unsupported { .. }
                    | Error::OtherProtocol { .. }),
                ) => refused = Some(error),
                Err(error) => {
                    // It may hang, and hold up every request whose turn is there.
                    if matches!(error, Error::Timeout { .. }) {
                        turns.away(index);
                    }
                    return Err(error);
                }
            }
        }
        match (nothing, refused, unreached) {
            (_, Some(error), _) => return Err(error),
            (true, None, None) => return Ok(None),
            (true, None, _) if round.settles => return Ok(None),
            (_, None, Some(error)) => {
                let wait = backoff.next_delay();
                if Instant::now() + wait >= round.deadline {
                    return Err(error);
                }
                sleep(wait).await;
            }
            (false, None, None) => return Err(Error::NoNodes),
        }
    }
}

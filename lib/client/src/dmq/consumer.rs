//! Consuming a channel at all nodes, batch by batch (protocol §1.6, §2.5).
//!
//! By neo a node sends one batch and waits. The next one is asked for when the application has taken the one before:
//! where the node redelivers, a consumer that dies before that loses nothing. A pause is the same waiting.

mod legacy;
mod neo;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use overstory_swarm::neo::dmq::Records;
use overstory_swarm::wire::Short;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use crate::config::ClientConfig;
use crate::error::Error;
use crate::neo::Identity;
use crate::stream::{StreamControl, Want};

/// Batches that wait for the reader.
const QUEUE: usize = 2;
/// Waits before connecting again (protocol §2.8).
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_millis(2500);

/// Some records of one node, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    node: SocketAddrV4,
    plain: Vec<u8>,
    count: usize,
}

impl Batch {
    /// Looks at every record once, so that whoever iterates them meets no error.
    fn new(node: SocketAddrV4, plain: Vec<u8>) -> Result<Self, Short> {
        let mut count = 0;
        Records::new(&plain).try_for_each(|record| record.map(|_| count += 1))?;
        Ok(Self { node, plain, count })
    }

    /// The node that had the records.
    #[must_use]
    pub const fn node(&self) -> SocketAddrV4 {
        self.node
    }

    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all records together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.plain.len() - 8 * self.count
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> + '_ {
        Records::new(&self.plain).map_while(Result::ok)
    }
}

/// What a consumer brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Delivery {
    /// Records. They are taken over when the next delivery is asked for, see [`Consumer::accept`].
    Records(Batch),
    /// A node cannot be reached, or its connection broke; it is tried until it is back, which is not told. Records that
    /// were delivered and not taken over come again if the node redelivers; by legacy some may be lost.
    Lost {
        /// Which node.
        node: SocketAddrV4,
        /// How.
        cause: Error,
    },
    /// The channel was removed at a node; nothing more comes from there.
    ChannelRemoved {
        /// Which node.
        node: SocketAddrV4,
    },
}

#[derive(Debug)]
struct Message {
    delivery: Result<Delivery, Error>,
    /// Whom to tell that it was taken.
    taken: Option<Arc<Notify>>,
}

type Sender = mpsc::Sender<Message>;

/// The records of a channel, from all nodes. Dropping it ends the connections: what was delivered last and not
/// [accepted](Self::accept) stays with a node that redelivers, and is lost with one that does not.
#[derive(Debug)]
pub struct Consumer {
    messages: mpsc::Receiver<Message>,
    control: StreamControl,
    last: Option<Arc<Notify>>,
}

impl Consumer {
    pub(super) fn neo(config: &ClientConfig, identity: &Identity, channel: &str, subscriber: &str) -> Self {
        Self::spawn(config, |node| neo::Source {
            node,
            identity: identity.clone(),
            connect_timeout: config.connect_timeout,
            stop_timeout: config.request_timeout,
            channel: channel.to_owned(),
            subscriber: subscriber.to_owned(),
        })
    }

    pub(super) fn legacy(config: &ClientConfig, channel: &str) -> Self {
        Self::spawn(config, |node| legacy::Source::new(node, config, channel))
    }

    fn spawn<S: Source>(config: &ClientConfig, source: impl Fn(SocketAddrV4) -> S) -> Self {
        let (tx, messages) = mpsc::channel(QUEUE);
        let (control, wanted) = StreamControl::new(false);
        for &node in config.nodes.nodes() {
            tokio::spawn(follow(node, source(node), tx.clone(), wanted.clone()));
        }
        Self { messages, control, last: None }
    }

    /// Takes the records of the last delivery over, then waits for the next one; none when the channel was removed at
    /// all nodes, or after [`Self::stop`] when all that had been sent was delivered. Nothing is lost if it is dropped
    /// while it waits.
    ///
    /// # Errors
    /// A node cannot be consumed from at all: it refuses the client or the request. The others go on.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        self.accept();
        let message = self.messages.recv().await?;
        self.last = message.taken;
        Some(message.delivery)
    }

    /// Takes the records of the last delivery over: the node forgets them and sends more.
    pub fn accept(&mut self) {
        if let Some(taken) = self.last.take() {
            taken.notify_one();
        }
    }

    /// Lets the nodes wait. What has arrived already still comes.
    pub fn suspend(&self) {
        self.control.suspend();
    }

    /// Lets the nodes go on.
    pub fn resume(&self) {
        self.control.resume();
    }

    /// Ends it: [`Self::next`] brings what the nodes have sent already, then nothing more.
    pub fn stop(&self) {
        self.control.stop();
    }

    /// What suspends, resumes and stops this consumer, from wherever.
    #[must_use]
    pub fn control(&self) -> StreamControl {
        self.control.clone()
    }
}

/// How following a node ended.
enum Ended {
    /// Stopped, the channel removed, or nobody listens.
    Complete,
    /// It can be tried again.
    Broken(Error),
    /// It makes no sense to try again.
    Refused(Error),
}

/// What both protocols do differently.
trait Source: Send + 'static {
    /// Connects and consumes until it ends; `begun` is called once the node serves it.
    fn consume(
        &self,
        tx: &Sender,
        control: &mut watch::Receiver<Want>,
        begun: impl FnMut() + Send,
    ) -> impl Future<Output = Ended> + Send;
}

/// Consumes from a node, again whenever the connection breaks.
async fn follow(node: SocketAddrV4, source: impl Source, tx: Sender, mut control: watch::Receiver<Want>) {
    let mut stopped = control.clone();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    let mut away = false;
    loop {
        // A batch would come at once.
        if control.wait_for(|want| *want != Want::Suspend).await.map_or(true, |want| *want == Want::Stop) {
            return;
        }
        let begun = || {
            away = false;
            backoff.reset();
        };
        let cause = match source.consume(&tx, &mut control, begun).await {
            Ended::Complete => return,
            Ended::Refused(error) => {
                let _ = tx.send(Message { delivery: Err(error), taken: None }).await;
                return;
            }
            Ended::Broken(cause) => cause,
        };
        // Told once, and not at each attempt to come back.
        if !std::mem::replace(&mut away, true) {
            let delivery = Ok(Delivery::Lost { node, cause });
            if tx.send(Message { delivery, taken: None }).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = tx.closed() => return,
            _ = stopped.wait_for(|want| *want == Want::Stop) => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_whole_records_only() {
        let node = SocketAddrV4::new([127, 0, 0, 1].into(), 1);
        let mut plain = Vec::new();
        for record in [&b"one"[..], b"\0\n", b"three"] {
            overstory_swarm::wire::put_array(&mut plain, record);
        }
        let batch = Batch::new(node, plain.clone()).unwrap();
        assert_eq!(batch.records().collect::<Vec<_>>(), [&b"one"[..], b"\0\n", b"three"]);
        assert_eq!((batch.len(), batch.bytes(), batch.is_empty(), batch.node()), (3, 10, false, node));
        plain.pop();
        assert!(Batch::new(node, plain).is_err());
        assert!(Batch::new(node, Vec::new()).unwrap().is_empty());
    }
}

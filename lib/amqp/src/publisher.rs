//! Publishes with confirmation, in order, also while the broker is away.
//!
//! One task owns the connection; handles send it messages. It keeps up to `window` messages in flight and answers
//! each when the broker has confirmed it. A publisher with a spool writes to it what the broker cannot take (it is
//! away, blocked by an alarm, or its queue is full) and drains it in order once the broker takes messages again;
//! meanwhile new messages go behind those in the spool, so the order stays. A message that got a [`Receipt`] is either
//! confirmed by the broker or on our disk. It may be sent twice, with the same message id.

mod backlog;
mod connection;
mod flight;
mod task;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use overstory_runtime::Shutdown;
use overstory_runtime::spool::SpoolError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::AmqpConfig;
use crate::message::{MAX_BODY_BYTES, Outgoing};
use backlog::Backlog;
use flight::Command;
use task::Task;

/// Messages in flight, unless told otherwise.
pub const DEFAULT_WINDOW: usize = 256;

/// How to publish.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// The connection's name, shown by the broker, and the name of the spool's directory.
    pub name: String,
    /// Messages that may be unconfirmed.
    pub window: usize,
    /// Where messages wait while the broker cannot take them; without one they are refused.
    pub spool: Option<SpoolOptions>,
}

impl PublisherOptions {
    /// The usual window and no spool.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), window: DEFAULT_WINDOW, spool: None }
    }
}

/// Where a publisher keeps what the broker cannot take.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The directory in which a directory of the publisher's name is made.
    pub dir: PathBuf,
    /// What the files of this spool may take on the disk.
    pub max_bytes: u64,
}

/// Where a published message is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// On the broker.
    Confirmed,
    /// On our disk; it will be sent.
    Spooled,
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A queue is full and refused it.
    #[error("a queue is full and refused the message")]
    Rejected,
    /// No queue takes it.
    #[error("no queue takes messages of exchange {exchange} with key {routing_key}")]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// The exchange does not exist.
    #[error("there is no exchange {0}")]
    NoExchange(String),
    /// The broker cannot take it and the spool is full.
    #[error("the broker cannot take messages and the spool is full")]
    SpoolFull,
    /// The broker cannot take it and the spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The body is too large.
    #[error("the body has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A name is longer than AMQP can carry.
    #[error("{what} has {bytes} bytes, more than 255")]
    NameTooLong {
        /// Which name.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The broker is away or blocked, and there is no spool. The message may have arrived nevertheless.
    #[error("the broker is not available")]
    Unavailable,
    /// The deadline passed. The message may have arrived nevertheless.
    #[error("the broker did not confirm in time")]
    Timeout,
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

impl PublishError {
    /// Whether the same message may be published later without anybody changing it.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Rejected | Self::SpoolFull | Self::Spool(_) | Self::Unavailable | Self::Timeout)
    }
}

/// What a publisher has done and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Messages handed to it.
    pub published: u64,
    /// Confirmed by the broker, those from the spool included.
    pub confirmed: u64,
    /// Refused by a full queue; one that is sent again counts again.
    pub rejected: u64,
    /// Written to the spool.
    pub spooled: u64,
    /// Waiting in the spool.
    pub spool_messages: u64,
    /// What the spool takes on the disk.
    pub spool_bytes: u64,
    /// When the oldest message of the spool was written, Unix milliseconds; 0 when it is empty.
    pub spool_oldest_ms: i64,
    /// Connections made.
    pub connections: u64,
    /// Connections lost.
    pub reconnects: u64,
}

/// What task and handles share.
#[derive(Debug, Default)]
struct Shared {
    connected: AtomicBool,
    published: AtomicU64,
    confirmed: AtomicU64,
    rejected: AtomicU64,
    spooled: AtomicU64,
    spool_messages: AtomicU64,
    spool_bytes: AtomicU64,
    spool_oldest_ms: AtomicI64,
    connections: AtomicU64,
    reconnects: AtomicU64,
}

/// A handle to a publisher; clones share it.
#[derive(Debug, Clone)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Publisher {
    /// Opens the spool and starts the task, which connects in the background. Must be called on a tokio runtime.
    ///
    /// The publisher keeps working after `shutdown` was requested, until it is closed or all handles are gone, but
    /// no longer waits for a broker that is away.
    ///
    /// # Errors
    /// The spool cannot be opened, or another process uses it.
    pub fn start(config: AmqpConfig, options: PublisherOptions, shutdown: Shutdown) -> Result<Self, PublishError> {
        let shared = Arc::new(Shared::default());
        let backlog = match &options.spool {
            Some(spool) => Some(Backlog::open(&spool.dir.join(&options.name), spool.max_bytes, &shared)?),
            None => None,
        };
        let (sender, receiver) = mpsc::channel(options.window.max(1));
        tokio::spawn(Task::new(config, &options, shutdown, Arc::clone(&shared), receiver, backlog).run());
        Ok(Self { commands: sender, shared })
    }

    /// Publishes a message, waiting while the window is full; done when the broker has it or the spool.
    ///
    /// # Errors
    /// Neither has it. A caller that goes away meanwhile does not keep the message from being published.
    pub async fn publish(&self, message: Outgoing) -> Result<Receipt, PublishError> {
        check(&message)?;
        let (reply, outcome) = oneshot::channel();
        self.command(Command::Publish(message, reply)).await?;
        outcome.await.map_err(|_| PublishError::Closed)?
    }

    /// Publishes a message to the broker and nowhere else, past those that wait in the spool.
    ///
    /// # Errors
    /// The broker did not confirm it before the deadline.
    pub async fn publish_confirmed(&self, message: Outgoing, deadline: Duration) -> Result<(), PublishError> {
        check(&message)?;
        let due = Instant::now() + deadline;
        let confirmed = async {
            let (reply, outcome) = oneshot::channel();
            self.command(Command::Direct(message, due, reply)).await?;
            outcome.await.map_err(|_| PublishError::Closed)?
        };
        tokio::time::timeout_at(due, confirmed).await.map_err(|_| PublishError::Timeout)?.map(|_| ())
    }

    /// Publishes many messages in their order, as many at once as the window allows; the answers are in the same
    /// order. Each may fail alone.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<Receipt, PublishError>> {
        let count = messages.len();
        let closed = || (0..count).map(|_| Err(PublishError::Closed)).collect();
        if count == 0 {
            return Vec::new();
        }
        let (reply, outcomes) = oneshot::channel();
        if self.command(Command::PublishAll(messages, reply)).await.is_err() {
            return closed();
        }
        outcomes.await.unwrap_or_else(|_| closed())
    }

    async fn command(&self, command: Command) -> Result<(), PublishError> {
        self.commands.send(command).await.map_err(|_| PublishError::Closed)
    }

    /// Whether the broker is connected at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> PublisherStats {
        let Shared {
            connected: _,
            published,
            confirmed,
            rejected,
            spooled,
            spool_messages,
            spool_bytes,
            spool_oldest_ms,
            connections,
            reconnects,
        } = &*self.shared;
        PublisherStats {
            published: published.load(Ordering::Relaxed),
            confirmed: confirmed.load(Ordering::Relaxed),
            rejected: rejected.load(Ordering::Relaxed),
            spooled: spooled.load(Ordering::Relaxed),
            spool_messages: spool_messages.load(Ordering::Relaxed),
            spool_bytes: spool_bytes.load(Ordering::Relaxed),
            spool_oldest_ms: spool_oldest_ms.load(Ordering::Relaxed),
            connections: connections.load(Ordering::Relaxed),
            reconnects: reconnects.load(Ordering::Relaxed),
        }
    }

    /// Answers everything handed over so far, then ends the task and its connection. What waits in the spool stays
    /// there for the next start.
    ///
    /// # Errors
    /// [`PublishError::Timeout`] when messages were still unconfirmed at the deadline; with a spool they are in it.
    pub async fn close(self, deadline: Duration) -> Result<(), PublishError> {
        let (reply, closed) = oneshot::channel();
        let due = Instant::now() + deadline;
        let closing = async {
            self.command(Command::Close(due, reply)).await?;
            closed.await.map_err(|_| PublishError::Closed)?
        };
        // The task keeps the deadline itself; the extra time is for writing the spool and saying goodbye.
        tokio::time::timeout_at(due + Duration::from_secs(5), closing).await.map_err(|_| PublishError::Timeout)?
    }
}

fn check(message: &Outgoing) -> Result<(), PublishError> {
    if message.body.len() > MAX_BODY_BYTES {
        return Err(PublishError::TooLarge { bytes: message.body.len(), limit: MAX_BODY_BYTES });
    }
    match message.too_long() {
        Some((what, bytes)) => Err(PublishError::NameTooLong { what, bytes }),
        None => Ok(()),
    }
}

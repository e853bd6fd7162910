//! The connection to one node for any number of tasks: connects again when it breaks, batches what they send.
//!
//! One task owns the socket ([`task`]). Callers write their requests straight into its output under a short lock
//! ([`shared`]) and wait in a slot of a slab ([`call`]), so that a request allocates nothing but the value it brings
//! back.

mod call;
mod shared;
mod task;

use std::net::SocketAddrV4;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use self::shared::{Phase, Shared};
use super::core::Opening;
use super::identity::Identity;
use crate::error::Error;

pub(crate) use call::{Call, Next};
pub(crate) use shared::{Done, LinkEvent, OnEvent};

/// A node's connection; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

impl Link {
    /// Begins to connect; the task runs until [`Self::close`].
    pub(crate) fn start(
        node: SocketAddrV4,
        identity: Identity,
        connect_timeout: Duration,
        on_event: Option<OnEvent>,
    ) -> Self {
        let shared = Arc::new(Shared::new(node, identity, connect_timeout, on_event));
        tokio::spawn(task::run(Arc::clone(&shared)));
        Self { shared }
    }

    pub(crate) fn node(&self) -> SocketAddrV4 {
        self.shared.node
    }

    /// How many connections there were, the one that there may be included. What a node has said of itself holds for one.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What is at the other end is known: it listens to the Stop of a GetRange at any time, as a published node does not.
    pub(crate) fn listens(&self, connection: u64) {
        if self.connections() == connection {
            self.shared.lock().core.listens = true;
        }
    }

    /// Ends the connection; requests in flight fail.
    pub(crate) fn close(&self) {
        self.shared.lock().phase = Phase::Closed;
        self.shared.work.notify_one();
        self.shared.changed.notify_waiters();
    }

    /// Why the node is not connected, if it is not.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let state = self.shared.lock();
        (state.phase != Phase::Up).then(|| Error::Away { node: self.shared.node, cause: state.cause.clone() })
    }

    /// What the node said when it refused the client, if it did at the last attempt.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match self.trouble() {
            Some(Error::Away { cause: Some(cause), .. }) if matches!(*cause, Error::Rejected { .. }) => {
                Some(Error::clone(&cause))
            }
            _ => None,
        }
    }

    /// Sends a request if there are a connection and room for it.
    pub(crate) fn try_begin(&self, request: &impl Opening) -> Result<Option<Call>, Error> {
        let slot = self.shared.try_begin(request)?;
        Ok(slot.map(|slot| Call::new(Arc::clone(&self.shared), slot, request.name())))
    }

    /// Waits for the connection.
    pub(crate) async fn up(&self, deadline: Instant) -> Result<(), Error> {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let Some(trouble) = self.trouble() else { return Ok(()) };
            if let Some(refusal) = self.refusal() {
                return Err(refusal);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Err(trouble);
            }
        }
    }

    /// Sends a request as soon as there are a connection and room for it.
    pub(crate) async fn begin(&self, request: &impl Opening, deadline: Instant) -> Result<Call, Error> {
        if let Some(call) = self.try_begin(request)? {
            return Ok(call);
        }
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if let Some(call) = self.try_begin(request)? {
                return Ok(call);
            }
            // A node that refuses the client does so again: waiting for it is of no use.
            if let Some(refusal) = self.refusal() {
                return Err(refusal);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Err(self.trouble().unwrap_or(Error::QueueFull { node: self.shared.node }));
            }
        }
    }
}

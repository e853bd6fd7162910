//! A request in flight as its caller has it: the messages that come, and what is said to the node meanwhile.

use std::future::poll_fn;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use overstory_swarm::neo::dht::UpdateAnswer;
use tokio::time::{Instant, timeout_at};

use super::shared::{Done, Shared, Waiter};
use crate::error::Error;
use crate::neo::core::Core;

/// Bytes of a stream that wait for its reader: below, the node is asked to go on.
const STREAM_LOW: usize = 256 << 10;

/// What comes next of a request.
#[derive(Debug)]
pub(crate) enum Next {
    Item(Vec<u8>),
    Done(Done),
}

/// A request that was sent. Dropping it abandons the answer, and stops it if it is a stream.
pub(crate) struct Call {
    shared: Arc<Shared>,
    slot: usize,
    name: &'static str,
}

impl Call {
    pub(super) fn new(shared: Arc<Shared>, slot: usize, name: &'static str) -> Self {
        Self { shared, slot, name }
    }

    pub(crate) fn node(&self) -> SocketAddrV4 {
        self.shared.node
    }

    /// The error for an end that the request must not have.
    pub(crate) fn unexpected(&self, done: Done) -> Error {
        let node = self.node();
        match done {
            Done::Broken(error) => error,
            Done::Unsupported => Error::Unsupported { node, request: self.name },
            Done::Code(_) | Done::Value(_) | Done::Stopped => {
                Error::protocol(node, format_args!("unexpected end of a {}", self.name))
            }
        }
    }

    /// Waits for the end of a request that has one message, until the deadline.
    pub(crate) async fn done(&mut self, deadline: Instant, after: Duration) -> Result<Done, Error> {
        match timeout_at(deadline, self.next()).await {
            Ok(Next::Done(done)) => Ok(done),
            Ok(Next::Item(_)) => Err(Error::protocol(self.node(), "unexpected message")),
            Err(_) => Err(Error::Timeout { node: self.node(), after }),
        }
    }

    /// Waits for the next message.
    pub(crate) async fn next(&mut self) -> Next {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Next> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(waiter) = state.waiters.get_mut(self.slot) else {
            return Poll::Ready(Next::Done(Done::Stopped));
        };
        if let Some(item) = waiter.items.pop_front() {
            let before = waiter.bytes;
            waiter.bytes -= item.len();
            if before > STREAM_LOW && waiter.bytes <= STREAM_LOW && waiter.done.is_none() {
                state.core.full(waiter.id, false);
                self.shared.work.notify_one();
            }
            return Poll::Ready(Next::Item(item));
        }
        if let Some(done) = &waiter.done {
            return Poll::Ready(Next::Done(done.clone()));
        }
        if waiter.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            waiter.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Suspends or resumes a stream.
    pub(crate) fn hold(&self, held: bool) {
        self.with_core(|core, id| core.hold(id, held));
    }

    /// Stops a stream: it ends with [`Done::Stopped`].
    pub(crate) fn stop(&self) {
        self.with_core(|core, id| core.stop(id));
    }

    /// Lets the node send the next batch of a GetRange.
    pub(crate) fn go_on(&self) {
        self.with_core(|core, id| core.go_on(id));
    }

    /// Answers to an Update's value.
    pub(crate) fn answer(&self, answer: &UpdateAnswer<'_>) {
        self.with_core(|core, id| core.send(id, |out| answer.encode(out)));
    }

    fn with_core(&self, act: impl FnOnce(&mut Core<usize>, u64)) {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        if let Some(Waiter { done: None, id, .. }) = state.waiters.get(self.slot) {
            act(&mut state.core, *id);
            drop(guard);
            self.shared.work.notify_one();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(waiter) = state.waiters.get_mut(self.slot) else { return };
        if waiter.done.is_some() {
            state.waiters.remove(self.slot);
            return;
        }
        // The node still works on it: the slot is kept until it ends.
        let (id, valued) = (waiter.id, waiter.update && !waiter.items.is_empty());
        *waiter = Waiter { id, abandoned: true, update: waiter.update, ..Waiter::default() };
        if valued {
            state.core.send(id, |out| UpdateAnswer::LeaveRecord.encode(out));
        }
        state.core.stop(id);
        drop(guard);
        self.shared.work.notify_one();
    }
}

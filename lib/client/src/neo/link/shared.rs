//! What the callers of a link and its task share: the requests in flight, and what came for each.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use overstory_swarm::key::HashRange;
use overstory_swarm::neo::dht::Request;
use slab::Slab;
use tokio::sync::Notify;

use crate::error::Error;
use crate::neo::core::{Core, Opening, Shape};
use crate::neo::identity::Identity;

/// Bytes that may wait to be sent; requests wait while there are more.
const MAX_UNSENT: usize = 8 << 20;
/// Bytes of a stream that wait for its reader: above, the node is asked to pause.
const STREAM_HIGH: usize = 1 << 20;
/// The slot of the GetHashRange that each connection begins with.
pub(super) const RANGE_SLOT: usize = usize::MAX;

/// What a link tells its client.
#[derive(Debug, Clone)]
pub(crate) enum LinkEvent {
    /// The node's own range.
    Range(HashRange),
    /// The node names another one.
    NewNode(SocketAddrV4, HashRange),
}

/// Takes what a link tells. Called without locks held.
pub(crate) type OnEvent = Box<dyn Fn(SocketAddrV4, LinkEvent) + Send + Sync>;

/// What the callers and the task of a link have in common.
pub(super) struct Shared {
    pub(super) node: SocketAddrV4,
    pub(super) identity: Identity,
    pub(super) connect_timeout: Duration,
    /// Of a dht, whose node is asked for its range first of all.
    pub(super) on_event: Option<OnEvent>,
    pub(super) state: Mutex<State>,
    /// Wakes the connection's task: there is something to send, or it is to end.
    pub(super) work: Notify,
    /// Wakes callers that wait for the connection or for room.
    pub(super) changed: Notify,
    /// How many connections there were.
    pub(super) connections: AtomicU64,
}

/// What is under the lock.
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) core: Core<usize>,
    pub(super) waiters: Slab<Waiter>,
    /// Why the last attempt to connect failed.
    pub(super) cause: Option<Arc<Error>>,
    /// Somebody waits for room.
    pub(super) crowded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Down,
    Up,
    Closed,
}

/// A request in flight, and what came for its caller.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) items: VecDeque<Vec<u8>>,
    pub(super) bytes: usize,
    pub(super) done: Option<Done>,
    pub(super) waker: Option<Waker>,
    pub(super) abandoned: bool,
    pub(super) update: bool,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// With a message of one byte.
    Code(u8),
    /// With a value.
    Value(Vec<u8>),
    /// It was stopped.
    Stopped,
    /// The node does not know it.
    Unsupported,
    /// The connection broke.
    Broken(Error),
}

impl Shared {
    pub(super) fn new(
        node: SocketAddrV4,
        identity: Identity,
        connect_timeout: Duration,
        on_event: Option<OnEvent>,
    ) -> Self {
        let state = State { phase: Phase::Down, core: Core::new(), waiters: Slab::new(), cause: None, crowded: false };
        let (work, changed) = (Notify::new(), Notify::new());
        let state = Mutex::new(state);
        Self { node, identity, connect_timeout, on_event, state, work, changed, connections: AtomicU64::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request if there are a connection and room for it; the slot in which its caller waits.
    pub(super) fn try_begin(&self, request: &impl Opening) -> Result<Option<usize>, Error> {
        let mut guard = self.lock();
        let state = &mut *guard;
        match state.phase {
            Phase::Closed => return Err(Error::Closed),
            Phase::Down => return Ok(None),
            Phase::Up => {}
        }
        if state.core.is_full() || state.core.out.len() > MAX_UNSENT {
            state.crowded = true;
            return Ok(None);
        }
        let update = request.shape() == Shape::Update;
        let slot = state.waiters.insert(Waiter { update, ..Waiter::default() });
        let idle = state.core.out.is_empty();
        let id = state.core.begin(request, slot);
        if let (Some(id), Some(waiter)) = (id, state.waiters.get_mut(slot)) {
            waiter.id = id;
        }
        drop(guard);
        if idle {
            self.work.notify_one();
        }
        Ok(Some(slot))
    }

    /// Marks the connection as usable; the first request to a node of a dht asks for its range.
    pub(super) fn up(&self) -> bool {
        let mut guard = self.lock();
        if guard.phase == Phase::Closed {
            return false;
        }
        guard.core = Core::new();
        if self.on_event.is_some() {
            let _ = guard.core.begin(&Request::GetHashRange, RANGE_SLOT);
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        guard.phase = Phase::Up;
        guard.cause = None;
        drop(guard);
        self.changed.notify_waiters();
        true
    }

    /// Marks the connection as down; everything in flight ends with the error.
    pub(super) fn fail(&self, error: &Error) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let was_up = state.phase == Phase::Up;
        if state.phase != Phase::Closed {
            state.phase = Phase::Down;
        }
        state.cause = Some(Arc::new(error.clone()));
        let slots: Vec<usize> = state.core.drain().collect();
        let mut wakers = Vec::new();
        for slot in slots {
            finish(&mut state.waiters, slot, Done::Broken(error.clone()), &mut wakers);
        }
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
        was_up
    }
}

/// Notes how a request ended; an abandoned one is forgotten.
pub(super) fn finish(waiters: &mut Slab<Waiter>, slot: usize, done: Done, wakers: &mut Vec<Waker>) {
    let Some(waiter) = waiters.get_mut(slot) else { return };
    if waiter.abandoned {
        waiters.remove(slot);
        return;
    }
    waiter.done = Some(done);
    wakers.extend(waiter.waker.take());
}

/// Keeps a message of a stream for its reader; says whether that is enough for now.
pub(super) fn take_item(
    waiters: &mut Slab<Waiter>,
    slot: usize,
    payload: &[u8],
    wakers: &mut Vec<Waker>,
    unwanted: &mut Vec<u64>,
) -> bool {
    let Some(waiter) = waiters.get_mut(slot) else { return false };
    if waiter.abandoned {
        if waiter.update {
            unwanted.push(waiter.id);
        }
        return false;
    }
    waiter.items.push_back(payload.to_vec());
    waiter.bytes += payload.len();
    wakers.extend(waiter.waker.take());
    waiter.bytes > STREAM_HIGH
}

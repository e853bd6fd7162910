//! The connection to one node for any number of tasks: connects again when it breaks, batches what they send.
//!
//! One task owns the socket. Callers write their requests straight into its output under a short lock and wait in a
//! slot of a slab, so that a request allocates nothing but the value it brings back.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use overstory_swarm::key::HashRange;
use overstory_swarm::neo::dht::{HashRangeUpdate, RangeLimits, Request, UpdateAnswer};
use slab::Slab;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::conn::Input;
use super::core::{Core, Event, Opening, Shape};
use super::{Identity, establish, silent};
use crate::error::Error;

/// First wait before connecting again (protocol §2.8).
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest wait before connecting again (protocol §2.8).
const RETRY_MOST: Duration = Duration::from_millis(2500);
/// Bytes that may wait to be sent; requests wait while there are more.
const MAX_UNSENT: usize = 8 << 20;
/// Bytes of a stream that wait for its reader: above, the node is asked to pause.
const STREAM_HIGH: usize = 1 << 20;
/// Below this it is asked to go on.
const STREAM_LOW: usize = 256 << 10;
/// The slot of the GetHashRange that each connection begins with.
const RANGE_SLOT: usize = usize::MAX;

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

/// A node's connection; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    node: SocketAddrV4,
    identity: Identity,
    connect_timeout: Duration,
    /// Of a dht, whose node is asked for its range first of all.
    on_event: Option<OnEvent>,
    state: Mutex<State>,
    /// Wakes the connection's task: there is something to send, or it is to end.
    work: Notify,
    /// Wakes callers that wait for the connection or for room.
    changed: Notify,
    /// How many connections there were.
    connections: AtomicU64,
}

struct State {
    phase: Phase,
    core: Core<usize>,
    waiters: Slab<Waiter>,
    /// Why the last attempt to connect failed.
    cause: Option<Arc<Error>>,
    /// Somebody waits for room.
    crowded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Up,
    Closed,
}

#[derive(Debug, Default)]
struct Waiter {
    id: u64,
    items: VecDeque<Vec<u8>>,
    bytes: usize,
    done: Option<Done>,
    waker: Option<Waker>,
    abandoned: bool,
    update: bool,
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

/// What comes next of a request.
#[derive(Debug)]
pub(crate) enum Next {
    Item(Vec<u8>),
    Done(Done),
}

impl Link {
    /// Begins to connect; the task runs until [`Self::close`].
    pub(crate) fn start(
        node: SocketAddrV4,
        identity: Identity,
        connect_timeout: Duration,
        on_event: Option<OnEvent>,
    ) -> Self {
        let state = State { phase: Phase::Down, core: Core::new(), waiters: Slab::new(), cause: None, crowded: false };
        let (work, changed) = (Notify::new(), Notify::new());
        let state = Mutex::new(state);
        let connections = AtomicU64::new(0);
        let shared = Arc::new(Shared { node, identity, connect_timeout, on_event, state, work, changed, connections });
        tokio::spawn(run(Arc::clone(&shared)));
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
        self.shared.try_begin(request)
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
        if let Some(call) = self.shared.try_begin(request)? {
            return Ok(call);
        }
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if let Some(call) = self.shared.try_begin(request)? {
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_begin(self: &Arc<Self>, request: &impl Opening) -> Result<Option<Call>, Error> {
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
        Ok(Some(Call { shared: Arc::clone(self), slot, name: request.name() }))
    }
}

/// A request that was sent. Dropping it abandons the answer, and stops it if it is a stream.
pub(crate) struct Call {
    shared: Arc<Shared>,
    slot: usize,
    name: &'static str,
}

impl Call {
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

/// Connects, serves, and connects again.
async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    // A broken connection is tried again at once, and only then with waits (protocol §2.8).
    let mut at_once = true;
    loop {
        // Until the node answers as it should, that is what is wrong with it.
        let connected = || shared.lock().cause = Some(Arc::new(silent(shared.node)));
        let connecting = establish(shared.node, &shared.identity, shared.connect_timeout, connected);
        let connected = tokio::select! {
            connected = connecting => connected,
            () = closed(&shared) => return,
        };
        let error = match connected {
            Ok(stream) => {
                backoff.reset();
                at_once = true;
                serve(&shared, &stream).await
            }
            Err(error) => error,
        };
        let was_up = shared.fail(&error);
        if matches!(error, Error::Closed) {
            return;
        }
        tracing::debug!(node = %shared.node, %error, was_up, "connection to node is down");
        if !std::mem::take(&mut at_once) {
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                () = closed(&shared) => return,
            }
        }
    }
}

async fn closed(shared: &Shared) {
    while shared.lock().phase != Phase::Closed {
        shared.work.notified().await;
    }
}

impl Shared {
    /// Marks the connection as usable; the first request to a node of a dht asks for its range.
    fn up(&self) -> bool {
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
    fn fail(&self, error: &Error) -> bool {
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
fn finish(waiters: &mut Slab<Waiter>, slot: usize, done: Done, wakers: &mut Vec<Waker>) {
    let Some(waiter) = waiters.get_mut(slot) else { return };
    if waiter.abandoned {
        waiters.remove(slot);
        return;
    }
    waiter.done = Some(done);
    wakers.extend(waiter.waker.take());
}

/// Carries bytes until the connection breaks or the client is closed.
async fn serve(shared: &Shared, stream: &TcpStream) -> Error {
    if !shared.up() {
        return Error::Closed;
    }
    let node = shared.node;
    let mut reading = Reading { input: Input::new(64 << 10), wakers: Vec::new(), ranges: Vec::new(), ranged: false };
    let (mut writing, mut sent) = (Vec::new(), 0);
    loop {
        // Fetches what callers have queued as long as the system takes it.
        loop {
            if sent == writing.len() {
                writing.clear();
                sent = 0;
                let mut state = shared.lock();
                if state.phase == Phase::Closed {
                    return Error::Closed;
                }
                std::mem::swap(&mut writing, &mut state.core.out);
                let crowded = std::mem::take(&mut state.crowded);
                drop(state);
                if crowded {
                    shared.changed.notify_waiters();
                }
            }
            let Some(rest) = writing.get(sent..).filter(|rest| !rest.is_empty()) else { break };
            match stream.try_write(rest) {
                Ok(written) => sent += written,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
                Err(cause) => return Error::broken(node, &cause),
            }
        }
        let idle = sent == writing.len();
        let interest = if idle { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        tokio::select! {
            ready = stream.ready(interest) => match ready {
                Ok(ready) if ready.is_readable() => if let Err(error) = reading.read(shared, stream) {
                    return error;
                },
                Ok(_) => {}
                Err(cause) => return Error::broken(node, &cause),
            },
            () = shared.work.notified() => if shared.lock().phase == Phase::Closed {
                return Error::Closed;
            },
        }
    }
}

/// What has arrived and is not complete.
struct Reading {
    input: Input,
    wakers: Vec<Waker>,
    ranges: Vec<Vec<u8>>,
    ranged: bool,
}

impl Reading {
    fn read(&mut self, shared: &Shared, stream: &TcpStream) -> Result<(), Error> {
        let node = shared.node;
        if !self.input.fill(node, stream)? {
            return Ok(());
        }
        let mut guard = shared.lock();
        let State { core, waiters, crowded, .. } = &mut *guard;
        let (wakers, ranges) = (&mut self.wakers, &mut self.ranges);
        let mut unwanted = Vec::new();
        let received = core.receive(self.input.arrived(), |&mut slot, event| {
            let done = match event {
                Event::Item(payload) if slot == RANGE_SLOT => {
                    ranges.push(payload.to_vec());
                    return false;
                }
                Event::Item(payload) => return take_item(waiters, slot, payload, wakers, &mut unwanted),
                Event::Last(&[code]) => Done::Code(code),
                Event::Last(payload) => Done::Value(payload.to_vec()),
                Event::Value(value) => Done::Value(value.to_vec()),
                Event::Stopped => Done::Stopped,
                Event::Unsupported => Done::Unsupported,
            };
            finish(waiters, slot, done, wakers);
            false
        });
        for id in unwanted {
            core.send(id, |out| UpdateAnswer::LeaveRecord.encode(out));
        }
        let crowded = !core.is_full() && std::mem::take(crowded);
        drop(guard);
        self.wakers.drain(..).for_each(Waker::wake);
        if crowded {
            shared.changed.notify_waiters();
        }
        self.input.consume(received.map_err(|what| Error::protocol(node, what))?);
        self.tell_ranges(shared)
    }

    /// Hands over what the node says of hash ranges.
    fn tell_ranges(&mut self, shared: &Shared) -> Result<(), Error> {
        let bad = |what: &dyn ToString| Error::protocol(shared.node, what.to_string());
        for payload in self.ranges.drain(..) {
            let event = if std::mem::replace(&mut self.ranged, true) {
                match HashRangeUpdate::decode(&payload).map_err(|what| bad(&what))? {
                    HashRangeUpdate::ChangeHashRange(limits) => LinkEvent::Range(range(limits).map_err(|e| bad(&e))?),
                    HashRangeUpdate::NewNode { address, range: limits } => {
                        LinkEvent::NewNode(address, range(limits).map_err(|e| bad(&e))?)
                    }
                }
            } else {
                let limits = RangeLimits::decode(&payload).map_err(|what| bad(&what))?;
                LinkEvent::Range(range(limits).map_err(|e| bad(&e))?)
            };
            if let Some(on_event) = &shared.on_event {
                on_event(shared.node, event);
            }
        }
        Ok(())
    }
}

fn range(limits: RangeLimits) -> Result<HashRange, overstory_swarm::key::BadHashRange> {
    HashRange::new(limits.min, limits.max)
}

/// Keeps a message of a stream for its reader; says whether that is enough for now.
fn take_item(
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

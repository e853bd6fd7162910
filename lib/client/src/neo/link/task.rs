//! The task that owns a link's socket.

use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use overstory_swarm::key::HashRange;
use overstory_swarm::neo::dht::{HashRangeUpdate, RangeLimits, UpdateAnswer};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::shared::{Done, LinkEvent, Phase, RANGE_SLOT, Shared, State, finish, take_item};
use crate::error::Error;
use crate::neo::conn::Input;
use crate::neo::core::Event;
use crate::neo::handshake::{establish, silent};

/// First wait before connecting again (protocol §2.8).
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest wait before connecting again (protocol §2.8).
const RETRY_MOST: Duration = Duration::from_millis(2500);

/// Connects, serves, and connects again.
pub(super) async fn run(shared: Arc<Shared>) {
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

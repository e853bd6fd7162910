//! neo Mirror (protocol §2.4, §2.7): the changes of a channel, and all of it now and then.
//!
//! One change and one refreshed record are sent in turn, so that neither holds the other up. Suspending stops both;
//! changes go on queuing, up to the queue's bound.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use overstory_node::engine::{Flow, NeoStream, Produced, Violation};
use overstory_node::wake::Waker;
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::Key;
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dht::{Control, MirrorMessage};
use tokio::task::JoinHandle;
use tracing::warn;

use super::core::{Action, Core, REFRESH_BATCH};
use super::legacy_streams::TURN;
use super::watch::{Change, Next, Watch};
use crate::storage::{Scan, Store};

/// Keys that a refresh takes from the channel at once.
const REFRESH_KEYS: usize = 16_384;

/// A Mirror, from Started to its end.
pub(super) struct Mirror {
    core: Rc<Core>,
    watch: Watch,
    suspended: bool,
    /// `ChannelRemoved` was sent: controls are ignored until the client's acknowledgement.
    removed: bool,
    refresh: Refresh,
    timer: Option<JoinHandle<()>>,
}

/// Where a refresh is.
#[derive(Default)]
struct Refresh {
    /// Whether one is wanted; a periodic one that is due while another runs follows it.
    due: Rc<Cell<bool>>,
    /// Keys that were taken and not sent yet.
    keys: VecDeque<Key>,
    /// The last key that was taken, while there are more.
    rest: Option<Key>,
}

impl Refresh {
    /// The next key. A refresh that is due begins when the last one is through.
    fn next(&mut self, store: &Store, channel: &str) -> Option<Key> {
        if self.keys.is_empty() {
            self.take(store, channel);
        }
        self.keys.pop_front()
    }

    fn take(&mut self, store: &Store, channel: &str) {
        if self.rest.is_none() && !self.due.replace(false) {
            return;
        }
        let keys = &mut self.keys;
        let scan = store.scan(channel, self.rest, &mut |key, _| {
            keys.push_back(key);
            if keys.len() < REFRESH_KEYS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.rest = if scan == Scan::Stopped { keys.back().copied() } else { None };
    }

    /// Whether all keys of the current refresh were handed out.
    fn drained(&self) -> bool {
        self.keys.is_empty() && self.rest.is_none()
    }
}

impl Mirror {
    pub(super) fn new(core: &Rc<Core>, watch: Watch, suspended: bool, initial_refresh: bool) -> Self {
        let mut refresh = Refresh { due: Rc::new(Cell::new(initial_refresh)), ..Refresh::default() };
        // What is put from here on is told as a change.
        refresh.take(&core.store.borrow(), watch.channel());
        Self { core: Rc::clone(core), watch, suspended, removed: false, refresh, timer: None }
    }

    /// Refreshes again each so many seconds; 0 for never.
    pub(super) fn refresh_every(mut self, seconds: u32, waker: &Waker) -> Self {
        if seconds > 0 {
            let (due, waker) = (Rc::clone(&self.refresh.due), waker.clone());
            let period = Duration::from_secs(u64::from(seconds));
            self.timer = Some(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(period).await;
                    due.set(true);
                    waker.wake();
                }
            }));
        }
        self
    }

    /// Sends one change or the notice of a loss; whether there was one.
    fn send_change(&self, store: &Store, out: &mut Replies<'_>) -> bool {
        let Some(next) = self.watch.queue().next() else { return false };
        match next {
            Next::Overflow => out.message(|out| MirrorMessage::UpdateOverflow.encode(out)),
            Next::Change(Change::Removed(key)) => out.message(|out| MirrorMessage::RecordDeleted { key }.encode(out)),
            Next::Change(Change::Put(key)) => {
                // A record that was removed meanwhile is left out: its removal is queued as well.
                if let Some(value) = store.get(self.watch.channel(), key) {
                    out.message(|out| MirrorMessage::RecordChanged { key, value }.encode(out));
                    self.core.count(Action::Forwarded, value.len());
                }
            }
        }
        true
    }

    /// Adds one record to the refresh batch; whether there was one.
    fn refresh(&mut self, store: &Store, batch: &mut BatchBuilder, out: &mut Replies<'_>) -> bool {
        let Some(key) = self.refresh.next(store, self.watch.channel()) else { return false };
        if let Some(value) = store.get(self.watch.channel(), key) {
            let fits = value.len() + 16 <= REFRESH_BATCH;
            if fits && batch.refresh(key.0, value) == Added::Yes {
                self.core.count(Action::Iterated, value.len());
            } else if self.core.skip_warnings.allows() {
                warn!(
                    target: "dhtnode.request.neo.Mirror",
                    channel = self.watch.channel(), %key, bytes = value.len(), "large record not refreshed"
                );
            }
        }
        if batch.plain_len() >= REFRESH_BATCH || self.refresh.drained() {
            flush(batch, out);
        }
        true
    }
}

fn flush(batch: &mut BatchBuilder, out: &mut Replies<'_>) {
    if !batch.is_empty() {
        out.message(|out| MirrorMessage::encode_batch(out, |out| batch.finish(out)));
    }
}

impl NeoStream for Mirror {
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation> {
        let control = Control::decode(payload).map_err(|_| Violation("an unknown control message to a Mirror"))?;
        match (self.removed, control) {
            (true, Control::Ack) => return Ok(Flow::Done),
            (true, _) => return Ok(Flow::Continue),
            (false, Control::Ack) => return Err(Violation("an acknowledgement of a Mirror that goes on")),
            (false, Control::Stop) => {
                out.byte(Control::Ack.code());
                return Ok(Flow::Done);
            }
            (false, Control::Suspend) => self.suspended = true,
            (false, Control::Resume) => self.suspended = false,
        }
        out.byte(Control::Ack.code());
        Ok(Flow::Continue)
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if self.removed {
            return Produced::Idle;
        }
        if self.watch.queue().ended() {
            // Told to a suspended client as well: it is the end and no record.
            out.message(|out| MirrorMessage::ChannelRemoved.encode(out));
            self.removed = true;
            return Produced::Idle;
        }
        if self.suspended {
            return Produced::Idle;
        }
        let core = Rc::clone(&self.core);
        let store = core.store.borrow();
        let mut builders = core.builders.borrow_mut();
        let batch = &mut builders.refresh;
        let start = out.queued();
        let mut turn = 0;
        let produced = loop {
            let changed = self.send_change(&store, out);
            let refreshed = self.refresh(&store, batch, out);
            if !changed && !refreshed {
                break Produced::Idle;
            }
            turn += 1;
            if out.queued() - start >= TURN || turn == MAX_TURN {
                break Produced::More;
            }
        };
        flush(batch, out);
        produced
    }
}

/// Changes and refreshed records of one turn: those that are gone meanwhile produce nothing and take time still.
const MAX_TURN: usize = 4096;

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}

//! Which legacy connections make room when the node is full: those that do nothing.
//!
//! The sweep notes since when a connection has been doing the same. Only when somebody comes to a full node are all of
//! them looked through, and what was found then serves those who come next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Member, Registry};

/// Shortest time between two looks through all connections.
const PAUSE: Duration = Duration::from_millis(200);

/// How long what a look has found is used.
const FRESH: Duration = Duration::from_secs(1);

/// What a connection does between its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Phase {
    /// It is none that makes room: it is answered, streams, has to read, or speaks neo.
    Busy,
    /// A part of a request is there.
    Begun,
    /// Nothing goes on.
    Idle,
}

/// What a connection does, and since when.
#[derive(Debug)]
pub(in crate::server) struct Quiet {
    phase: Cell<Phase>,
    /// Changes with each request that is over and with every 64 KiB that arrive.
    mark: Cell<u64>,
    received: Cell<u64>,
    /// What was seen last, and when it was seen first.
    seen: Cell<(Phase, u64, Instant)>,
}

impl Quiet {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Cell::new(Phase::Idle),
            mark: Cell::new(0),
            received: Cell::new(0),
            seen: Cell::new((Phase::Idle, 0, now)),
        }
    }

    /// Counts bytes that have arrived.
    #[inline]
    pub(in crate::server) fn arrived(&self, bytes: usize) {
        self.received.set(self.received.get().wrapping_add(bytes as u64));
    }

    /// Says what the connection does until its next turn, and how many of its requests are over.
    #[inline]
    pub(in crate::server) fn set(&self, phase: Phase, requests: u64) {
        self.phase.set(phase);
        self.mark.set(requests.wrapping_add(self.received.get() >> 16));
    }

    /// Notes the time if it does something else than when this was called last.
    pub(super) fn note(&self, now: Instant) {
        if !self.still() {
            self.seen.set((self.phase.get(), self.mark.get(), now));
        }
    }

    fn still(&self) -> bool {
        let (phase, mark, _) = self.seen.get();
        (phase, mark) == (self.phase.get(), self.mark.get())
    }
}

/// The order in which connections make room: the silent ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Silent,
    Idle,
    Begun,
}

/// Those that may make room.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    found: RefCell<VecDeque<(Rank, Rc<Member>)>>,
    looked: Cell<Option<Instant>>,
}

impl Registry {
    /// The legacy connection that makes room next.
    pub(super) fn quietest(&self) -> Option<Rc<Member>> {
        let now = Instant::now();
        self.next(now).or_else(|| {
            let again = self.quiet.looked.get().is_none_or(|looked| now - looked >= PAUSE);
            again.then(|| self.look(now)).and_then(|()| self.next(now))
        })
    }

    fn next(&self, now: Instant) -> Option<Rc<Member>> {
        let mut found = self.quiet.found.borrow_mut();
        if self.quiet.looked.get().is_none_or(|looked| now - looked >= FRESH) {
            found.clear();
        }
        // Many of them may have become active since.
        std::iter::from_fn(|| found.pop_front())
            .find(|(rank, member)| self.rank(member, now) == Some(*rank))
            .map(|(_, member)| member)
    }

    fn look(&self, now: Instant) {
        let members = self.members.borrow();
        let members = members.iter().map(|(_, member)| member);
        let mut found: Vec<_> =
            members.filter_map(|member| self.rank(member, now).map(|rank| (rank, Rc::clone(member)))).collect();
        found.sort_by_key(|(rank, member)| (*rank, member.quiet.seen.get().2));
        *self.quiet.found.borrow_mut() = found.into();
        self.quiet.looked.set(Some(now));
    }

    /// Whether, and before whom, a connection may make room.
    fn rank(&self, member: &Member, now: Instant) -> Option<Rank> {
        let quiet = &member.quiet;
        if !member.counted.get() || !quiet.still() {
            return None;
        }
        let (phase, _, since) = quiet.seen.get();
        let (rank, least) = match phase {
            Phase::Busy => return None,
            Phase::Idle if quiet.received.get() == 0 => (Rank::Silent, self.limits.silent),
            Phase::Idle => (Rank::Idle, self.limits.idle),
            Phase::Begun => (Rank::Begun, self.limits.begun),
        };
        (now - since >= least).then_some(rank)
    }
}

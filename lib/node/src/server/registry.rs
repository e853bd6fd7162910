//! All open connections: how many there may be, what they hold, which of them have to go.
//!
//! A connection is told to go by a [`Cut`] in its [`Member`]; its task sees it when it runs next, which it does at
//! once. What it held and its place are free for others from the moment it was told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::rc::Rc;

use overstory_swarm::auth::{ClientKey, Credentials};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Limits;
use super::buffers::Buffers;
use super::complaints::Complaints;
use crate::stats::{NodeStats, add};
use crate::wake::Board;
use quiet::{Candidates, Quiet};

mod quiet;

pub(super) use quiet::Phase;

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Legacy,
    Neo,
}

/// Why a connection is ended from outside its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It did not authenticate in time.
    Unauthenticated,
    /// It had not authenticated yet when the node was full and somebody else came.
    Displaced,
    /// It did nothing when the node was full and somebody else came.
    Quiet,
    /// The client did not read.
    Slow,
    /// It held the most when all together held too much.
    Memory,
    /// The client's credentials are gone or changed.
    Credentials,
    /// It was closed on our side and the client did not close.
    Lingering,
    /// The node ends and there is no time left.
    Shutdown,
}

/// What the others know of a connection.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) board: Rc<Board>,
    pub(super) address: SocketAddrV4,
    pub(super) cut: Cell<Option<Cut>>,
    /// Bytes written so far.
    pub(super) written: Cell<u64>,
    /// Bytes that wait to be written.
    pub(super) unsent: Cell<usize>,
    /// The connection was closed on our side.
    pub(super) lingering: Cell<bool>,
    /// What it does.
    pub(super) quiet: Quiet,
    protocol: Protocol,
    since: Instant,
    identity: RefCell<Option<(Rc<str>, ClientKey)>>,
    identified: Cell<bool>,
    /// Bytes of its buffers, as far as [`Registry::held`] counts them.
    held: Cell<usize>,
    /// How much was written when it was last seen to get on, and when that was.
    progress: Cell<(u64, Instant)>,
    /// It takes up a place.
    counted: Cell<bool>,
}

impl Member {
    /// Remembers whom the connection belongs to.
    pub(super) fn identify(&self, name: Rc<str>, key: ClientKey) {
        *self.identity.borrow_mut() = Some((name, key));
        self.identified.set(true);
    }

    /// Whether the client may still be here.
    fn known_to(&self, credentials: &Credentials) -> bool {
        self.identity.borrow().as_ref().is_none_or(|(name, key)| credentials.get(name.as_bytes()) == Some(key))
    }

    fn stranger(&self) -> bool {
        self.protocol == Protocol::Neo && !self.identified.get()
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) limits: Limits,
    pub(super) buffers: Buffers,
    complaints: Complaints,
    pub(super) stats: Rc<NodeStats>,
    /// The node ends: connections finish what they are answering.
    pub(super) draining: Cell<bool>,
    members: RefCell<Slab<Rc<Member>>>,
    /// Neo connections in the order in which they came; those that have authenticated or gone are left out on the way.
    strangers: RefCell<VecDeque<Rc<Member>>>,
    /// Legacy connections that may make room.
    quiet: Candidates,
    places: Cell<usize>,
    held: Cell<usize>,
    left: Notify,
    limit: usize,
}

impl Registry {
    pub(super) fn new(limit: usize, limits: Limits, stats: Rc<NodeStats>) -> Self {
        Self {
            limits,
            buffers: Buffers::default(),
            complaints: Complaints::new(Instant::now()),
            draining: Cell::new(false),
            members: RefCell::default(),
            strangers: RefCell::default(),
            quiet: Candidates::default(),
            places: Cell::new(0),
            held: Cell::new(0),
            left: Notify::new(),
            stats,
            limit,
        }
    }

    /// Takes in a connection. When the node is full, the neo connection that has waited longest without having
    /// authenticated makes room, or else a legacy one that does nothing; without such a one the newcomer is refused.
    pub(super) fn admit(self: &Rc<Self>, address: SocketAddrV4, protocol: Protocol) -> Option<Membership> {
        if self.places.get() >= self.limit && !self.displace() {
            add(&self.stats.refused_connections, 1);
            return None;
        }
        self.places.set(self.places.get() + 1);
        let now = Instant::now();
        let member = Rc::new(Member {
            board: Rc::default(),
            address,
            cut: Cell::new(None),
            written: Cell::new(0),
            unsent: Cell::new(0),
            lingering: Cell::new(false),
            quiet: Quiet::new(now),
            protocol,
            since: now,
            identity: RefCell::new(None),
            identified: Cell::new(false),
            held: Cell::new(0),
            progress: Cell::new((0, now)),
            counted: Cell::new(true),
        });
        add(self.connections(protocol), 1);
        let key = self.members.borrow_mut().insert(Rc::clone(&member));
        if protocol == Protocol::Neo {
            self.strangers.borrow_mut().push_back(Rc::clone(&member));
        }
        Some(Membership { registry: Rc::clone(self), member, key })
    }

    /// Ends the neo connection that has waited longest without having authenticated, or else the legacy one that has
    /// done nothing for the longest time.
    pub(super) fn displace(&self) -> bool {
        let stranger = {
            let mut strangers = self.strangers.borrow_mut();
            std::iter::from_fn(|| strangers.pop_front()).find(|member| member.stranger() && member.counted.get())
        };
        let (member, cut) = match stranger {
            Some(stranger) => (stranger, Cut::Displaced),
            None => match self.quietest() {
                Some(quiet) => (quiet, Cut::Quiet),
                None => return false,
            },
        };
        add(&self.stats.refused_connections, 1);
        self.cut(&member, cut);
        true
    }

    /// Tells a connection to go.
    fn cut(&self, member: &Member, cut: Cut) {
        if member.cut.get().is_some() {
            return;
        }
        let (client, name) = (member.address, member.identity.borrow().as_ref().map(|(name, _)| Rc::clone(name)));
        let (name, unsent) = (name.as_deref().unwrap_or_default(), member.unsent.get());
        match cut {
            Cut::Slow => {
                add(&self.stats.dropped_slow, 1);
                warn!(target: "node.connection", %client, name, unsent, "client dropped because it does not read");
            }
            Cut::Memory => {
                let held = member.held.get();
                warn!(target: "node.connection", %client, name, held, "client dropped because the buffers of all are full");
            }
            Cut::Credentials => {
                info!(target: "node.connection", %client, name, "client dropped because its credentials are gone");
            }
            _ if !self.may_complain() => {}
            Cut::Unauthenticated | Cut::Displaced | Cut::Quiet | Cut::Lingering | Cut::Shutdown => {
                debug!(target: "node.connection", %client, name, reason = ?cut, "connection dropped");
            }
        }
        member.cut.set(Some(cut));
        self.release(member);
        member.board.wake_task();
    }

    /// Counts what a connection's buffers hold now, and makes those go that hold the most if it is too much.
    #[inline]
    pub(super) fn hold(&self, member: &Member, bytes: usize) {
        let before = member.held.get();
        if bytes == before || !member.counted.get() {
            return;
        }
        member.held.set(bytes);
        self.held.set(self.held.get().saturating_sub(before).saturating_add(bytes));
        while self.held.get() > self.limits.buffer_budget_bytes {
            let most = {
                let members = self.members.borrow();
                let holders = members.iter().map(|(_, member)| member).filter(|member| member.held.get() > 0);
                holders.max_by_key(|member| member.held.get()).cloned()
            };
            let Some(most) = most else { break };
            self.cut(&most, Cut::Memory);
        }
    }

    /// Whether one more line about a client that was refused or did something wrong may be logged.
    pub(super) fn may_complain(&self) -> bool {
        self.complaints.may_be_said(Instant::now())
    }

    /// Looks after time: who did not authenticate, does not read, or may not be here any more.
    pub(super) fn sweep(&self, credentials: &Credentials) {
        let now = Instant::now();
        let limits = &self.limits;
        for member in self.snapshot() {
            member.quiet.note(now);
            let (written, since) = member.progress.get();
            let idle = member.unsent.get() == 0 && !member.lingering.get();
            if idle || member.written.get() != written {
                member.progress.set((member.written.get(), now));
            } else if member.lingering.get() && now - since >= limits.linger() {
                self.cut(&member, Cut::Lingering);
            } else if now - since >= limits.write_stall {
                self.cut(&member, Cut::Slow);
            }
            if member.stranger() {
                if now - member.since >= limits.authentication {
                    self.cut(&member, Cut::Unauthenticated);
                }
            } else if !member.known_to(credentials) {
                self.cut(&member, Cut::Credentials);
            }
        }
        let lines = self.complaints.take_unsaid();
        if lines > 0 {
            warn!(target: "node.connection", lines, "too many clients refused or at fault to log each");
        }
        let mut strangers = self.strangers.borrow_mut();
        while strangers.front().is_some_and(|member| !member.stranger() || !member.counted.get()) {
            strangers.pop_front();
        }
    }

    /// Makes every connection finish; returns once all are gone, or when `limit` has passed, with how many are left.
    pub(super) async fn drain(&self) -> usize {
        self.draining.set(true);
        self.snapshot().iter().for_each(|member| member.board.wake_task());
        if tokio::time::timeout(self.limits.drain, self.emptied()).await.is_ok() {
            return 0;
        }
        let rest = self.snapshot();
        rest.iter().for_each(|member| self.cut(member, Cut::Shutdown));
        self.emptied().await;
        rest.len()
    }

    async fn emptied(&self) {
        while !self.members.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    fn snapshot(&self) -> Vec<Rc<Member>> {
        self.members.borrow().iter().map(|(_, member)| Rc::clone(member)).collect()
    }

    fn release(&self, member: &Member) {
        if member.counted.replace(false) {
            self.places.set(self.places.get().saturating_sub(1));
            self.held.set(self.held.get().saturating_sub(member.held.replace(0)));
        }
    }

    fn connections(&self, protocol: Protocol) -> &Cell<u64> {
        match protocol {
            Protocol::Legacy => &self.stats.legacy_connections,
            Protocol::Neo => &self.stats.neo_connections,
        }
    }
}

/// A connection's place among all; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) registry: Rc<Registry>,
    pub(super) member: Rc<Member>,
    key: usize,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let registry = &self.registry;
        registry.release(&self.member);
        self.member.board.leave();
        registry.members.borrow_mut().try_remove(self.key);
        let connections = registry.connections(self.member.protocol);
        connections.set(connections.get().saturating_sub(1));
        registry.left.notify_one();
    }
}

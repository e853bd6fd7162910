//! Changes that become durable after they are made, and the replies that wait for that.
//!
//! An engine that keeps a journal counts every change that a reply speaks of ([`Commits::changed`]). A connection
//! holds back what it has made since such a change until the engine says that it is durable ([`Commits::reached`]), so
//! that one write to the disk answers for the requests of many connections.
//!
//! When some of a group of changes cannot be made durable, and the engine goes on, it names the group
//! ([`Commits::lost`]): the connections that wait for a change of it are closed without a reply.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::wake::Board;

/// Groups of which something was lost that are told apart.
const LOST: usize = 64;

/// The changes of an engine, counted.
#[derive(Debug, Default)]
pub struct Commits {
    made: Cell<u64>,
    durable: Cell<u64>,
    failed: Cell<bool>,
    /// Changes, from and to, of which some may never be durable: the last ones.
    lost: RefCell<Vec<(u64, u64)>>,
    /// Connections, each with the change that it waits for.
    waiting: RefCell<Vec<(u64, Rc<Board>)>>,
}

impl Commits {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a change: what the request at hand replies is held back until it is durable. Returns its number.
    #[inline]
    pub fn changed(&self) -> u64 {
        let number = self.made.get() + 1;
        self.made.set(number);
        number
    }

    /// The number of the last change.
    #[inline]
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.get()
    }

    /// The number up to which all changes are durable, but for those that are lost.
    #[inline]
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable.get()
    }

    /// Says that the changes up to this number are durable, but for those that are lost: connections send what waited for
    /// them.
    pub fn reached(&self, number: u64) {
        if number > self.durable.get() {
            self.durable.set(number);
            self.waiting.borrow_mut().retain(|(awaited, board)| {
                let waits = *awaited > number;
                if !waits {
                    board.wake_task();
                }
                waits
            });
        }
    }

    /// Says that of the changes up to this number some may never be durable: connections that wait for one of them are
    /// closed without a reply. Later changes are not concerned.
    pub fn lost(&self, number: u64) {
        let first = self.durable.get() + 1;
        if number >= first {
            let mut lost = self.lost.borrow_mut();
            let is_full = lost.len() == LOST;
            match lost.last_mut() {
                // What is between them was decided long ago.
                Some(last) if last.1 + 1 == first || is_full => last.1 = number,
                _ => lost.push((first, number)),
            }
            drop(lost);
            self.reached(number);
        }
    }

    /// Whether [`Self::lost`] was called.
    #[inline]
    #[must_use]
    pub fn has_lost(&self) -> bool {
        !self.lost.borrow().is_empty()
    }

    /// Whether one of these changes may never be durable.
    #[inline]
    #[must_use]
    pub fn is_lost(&self, first: u64, last: u64) -> bool {
        self.lost.borrow().iter().any(|(from, to)| first <= *to && last >= *from)
    }

    /// Says that no further change will ever be durable: connections that wait are closed without a reply.
    pub fn fail(&self) {
        self.failed.set(true);
        for (_, board) in self.waiting.take() {
            board.wake_task();
        }
    }

    /// Whether [`Self::fail`] was called.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Runs a connection's task once when this change is durable, or never will be.
    pub(crate) fn wait(&self, number: u64, board: Rc<Board>) {
        self.waiting.borrow_mut().push((number, board));
    }
}

//! Changes that become durable after they are made, and the replies that wait for that.
//!
//! An engine that keeps a journal counts every change that a reply speaks of ([`Commits::changed`]). A connection
//! holds back what it has made since such a change until the engine says that it is durable ([`Commits::reached`]), so
//! that one write to the disk answers for the requests of many connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::wake::Board;

/// The changes of an engine, counted.
#[derive(Debug, Default)]
pub struct Commits {
    made: Cell<u64>,
    durable: Cell<u64>,
    failed: Cell<bool>,
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

    /// The number up to which all changes are durable.
    #[inline]
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable.get()
    }

    /// Says that the changes up to this number are durable: connections send what waited for them.
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

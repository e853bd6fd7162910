//! Holds back what a connection has made until the changes that it speaks of are durable.
//!
//! Positions count the bytes of the connection from its first one on, so that they stay what they are when buffers are
//! exchanged.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::commit::Commits;
use crate::wake::Board;

/// What of a connection's output has to wait.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The last change that this connection has made, and the first one behind those that output waits for.
    changed: u64,
    first: u64,
    /// What has to wait, in order.
    marks: VecDeque<Mark>,
    /// The change at which the connection's task is run.
    awaited: u64,
}

/// Output from a position on waits for a change.
#[derive(Debug, Clone, Copy)]
struct Mark {
    from: u64,
    first: u64,
    change: u64,
}

impl Mark {
    fn is_lost(&self, commits: &Commits) -> bool {
        commits.is_lost(self.first, self.change)
    }
}

impl Gate {
    /// Says that output was made from position `from` on, up to `to`, while the changes behind `before` were made.
    #[inline]
    pub(super) fn made(&mut self, commits: &Commits, before: u64, from: u64, to: u64) {
        let made = commits.made();
        if made != before {
            if self.first == 0 {
                self.first = before + 1;
            }
            self.changed = made;
        }
        if to > from {
            let first = std::mem::take(&mut self.first);
            let waits = self.changed > commits.durable() || (first > 0 && commits.is_lost(first, self.changed));
            match self.marks.back() {
                _ if !waits => {}
                Some(last) if last.change == self.changed => {}
                _ => {
                    let first = if first > 0 { first } else { self.changed };
                    self.marks.push_back(Mark { from, first, change: self.changed });
                }
            }
        }
    }

    /// Up to which position output may be sent; `None`: all of it.
    #[inline]
    pub(super) fn open_until(&mut self, commits: &Commits) -> Option<u64> {
        while self.marks.front().is_some_and(|mark| mark.change <= commits.durable() && !mark.is_lost(commits)) {
            self.marks.pop_front();
        }
        self.marks.front().map(|mark| mark.from)
    }

    /// Whether output waits for a change that may never be durable: the connection is to be closed.
    #[inline]
    pub(super) fn is_lost(&self, commits: &Commits) -> bool {
        commits.has_lost() && self.marks.iter().any(|mark| mark.is_lost(commits))
    }

    /// Lets the connection's task run when the next part of what waits may be sent: at once if that is so by now.
    #[inline]
    pub(super) fn wait(&mut self, commits: &Commits, board: &Rc<Board>) {
        if let Some(mark) = self.marks.front() {
            if mark.change <= commits.durable() {
                board.wake_task();
            } else if mark.change > self.awaited {
                self.awaited = mark.change;
                commits.wait(mark.change, Rc::clone(board));
            }
        }
        if self.marks.is_empty() && self.marks.capacity() > KEPT {
            self.marks = VecDeque::new();
        }
    }

    /// Nothing waits any more: it was thrown away.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
    }
}

/// Marks for which the room is kept.
const KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_waits_for_the_last_change_before_it_and_earlier_output_does_not() {
        let (commits, mut gate) = (Commits::new(), Gate::default());
        gate.made(&commits, 0, 0, 10);
        assert_eq!(gate.open_until(&commits), None);
        // Somebody else's change is not ours.
        let before = commits.changed();
        gate.made(&commits, before, 10, 20);
        assert_eq!(gate.open_until(&commits), None);
        commits.changed();
        gate.made(&commits, before, 20, 30);
        // What speaks of nothing new waits all the same: the order is kept.
        gate.made(&commits, commits.made(), 30, 40);
        let before = commits.changed();
        commits.changed();
        gate.made(&commits, before, 40, 50);
        assert_eq!(gate.open_until(&commits), Some(20));
        commits.reached(1);
        assert_eq!(gate.open_until(&commits), Some(20));
        commits.reached(2);
        assert_eq!(gate.open_until(&commits), Some(40));
        commits.reached(3);
        assert_eq!(gate.open_until(&commits), Some(40));
        commits.reached(4);
        assert_eq!(gate.open_until(&commits), None);
    }

    #[test]
    fn a_change_without_a_reply_holds_back_the_next_reply() {
        let (commits, mut gate) = (Commits::new(), Gate::default());
        commits.changed();
        gate.made(&commits, 0, 7, 7);
        assert_eq!(gate.open_until(&commits), None);
        gate.made(&commits, 1, 7, 8);
        assert_eq!(gate.open_until(&commits), Some(7));
        commits.reached(1);
        gate.made(&commits, 1, 8, 9);
        assert_eq!(gate.open_until(&commits), None);
    }

    #[test]
    fn a_connection_waits_once_for_a_change() {
        let (commits, mut gate, board) = (Commits::new(), Gate::default(), Rc::new(Board::default()));
        commits.changed();
        gate.made(&commits, 0, 0, 1);
        gate.wait(&commits, &board);
        gate.wait(&commits, &board);
        assert_eq!(Rc::strong_count(&board), 2);
        commits.reached(1);
        assert_eq!((gate.open_until(&commits), Rc::strong_count(&board)), (None, 1));
        commits.changed();
        gate.made(&commits, 1, 1, 2);
        gate.wait(&commits, &board);
        assert_eq!(Rc::strong_count(&board), 2);
        commits.fail();
        assert_eq!(Rc::strong_count(&board), 1);
    }

    #[test]
    fn what_waits_for_a_lost_change_is_never_sent_and_others_go_on() {
        let (commits, mut loser, mut other) = (Commits::new(), Gate::default(), Gate::default());
        commits.changed();
        loser.made(&commits, 0, 0, 10);
        commits.lost(1);
        commits.changed();
        other.made(&commits, 1, 0, 10);
        assert!(loser.is_lost(&commits) && !other.is_lost(&commits));
        commits.reached(2);
        assert_eq!((loser.open_until(&commits), other.open_until(&commits)), (Some(0), None));
        loser.clear();
        assert!(!loser.is_lost(&commits));
        // A reply that is made after its change was lost.
        commits.changed();
        other.made(&commits, 2, 10, 10);
        commits.lost(3);
        other.made(&commits, 3, 10, 20);
        assert_eq!((other.is_lost(&commits), other.open_until(&commits)), (true, Some(10)));
    }
}

//! Makes a stream that waits run again.
//!
//! A stream that has nothing to send keeps a [`Waker`]. Whoever has something for it calls [`Waker::wake`]; the
//! connection's task then asks that stream, and no other, for more. All of it stays on the node's thread: a wake-up
//! is a bit, an index in a list and, for the first one since the connection ran, a task made ready.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task;

/// Wakes one stream. Clones wake the same one; a waker may outlive its stream, waking it does nothing then.
#[derive(Debug, Clone, Default)]
pub struct Waker {
    board: Option<Rc<Board>>,
    slot: usize,
}

impl Waker {
    /// One that wakes nobody, for tests.
    #[must_use]
    pub fn noop() -> Self {
        Self::default()
    }

    /// One that tells whether it was used, for tests of engines.
    #[must_use]
    pub fn watched() -> (Self, Watch) {
        let board = Rc::new(Board::default());
        (Self::new(Rc::clone(&board), 0), Watch(board))
    }

    /// Asks for the stream to be run. Calling it again before the stream ran costs nearly nothing.
    #[inline]
    pub fn wake(&self) {
        if let Some(board) = &self.board {
            board.note(self.slot);
        }
    }

    /// Makes a waker for the stream in `slot` of a connection.
    pub(crate) fn new(board: Rc<Board>, slot: usize) -> Self {
        Self { board: Some(board), slot }
    }

    /// Points this waker at another slot of the same connection.
    #[inline]
    pub(crate) const fn point_at(&mut self, slot: usize) {
        self.slot = slot;
    }
}

/// Lets a task wait for a [`Waker`], as streams do.
#[derive(Debug)]
pub struct Sleeper(Rc<Board>);

impl Sleeper {
    /// A sleeper and what wakes it.
    #[must_use]
    pub fn new() -> (Waker, Self) {
        let board = Rc::new(Board::default());
        (Waker::new(Rc::clone(&board), 0), Self(board))
    }

    /// Waits until the waker was used since the last call; at once if it was.
    pub async fn sleep(&self) {
        std::future::poll_fn(|context| {
            self.0.enter(context.waker());
            if !self.0.any() {
                return task::Poll::Pending;
            }
            self.0.drain(|_| ());
            task::Poll::Ready(())
        })
        .await;
    }
}

/// Sees what a [`Waker::watched`] does.
#[derive(Debug)]
pub struct Watch(Rc<Board>);

impl Watch {
    /// Whether it was woken since the last call.
    #[must_use]
    pub fn take(&self) -> bool {
        let woken = self.0.any();
        self.0.drain(|_| ());
        woken
    }
}

/// Where a connection's wakers leave their wishes.
#[derive(Debug, Default)]
pub(crate) struct Board {
    task: RefCell<Option<task::Waker>>,
    /// One bit for each slot that is in `woken`.
    bits: RefCell<Vec<u64>>,
    woken: RefCell<Vec<usize>>,
    /// The task was made ready and has not run yet.
    ready: Cell<bool>,
}

impl Board {
    /// Remembers the connection's task, which is running now.
    #[inline]
    pub(crate) fn enter(&self, waker: &task::Waker) {
        self.ready.set(false);
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// The connection is over: wakers that are still around keep nothing of it.
    pub(crate) fn leave(&self) {
        self.ready.set(true);
        drop(self.task.take());
    }

    /// Makes the connection's task ready.
    pub(crate) fn wake_task(&self) {
        if !self.ready.replace(true)
            && let Some(task) = self.task.borrow().as_ref()
        {
            task.wake_by_ref();
        }
    }

    /// Whether some stream was woken.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        !self.woken.borrow().is_empty()
    }

    /// Hands out one woken slot, in the order of the wake-ups.
    pub(crate) fn drain(&self, mut run: impl FnMut(usize)) {
        let mut woken = self.woken.borrow_mut();
        let mut bits = self.bits.borrow_mut();
        for slot in woken.drain(..) {
            if let Some(word) = bits.get_mut(slot / 64) {
                *word &= !(1 << (slot % 64));
            }
            run(slot);
        }
        if woken.capacity() > KEPT {
            woken.shrink_to(KEPT);
        }
    }

    fn note(&self, slot: usize) {
        let mut bits = self.bits.borrow_mut();
        let (index, bit) = (slot / 64, 1_u64 << (slot % 64));
        if bits.len() <= index {
            bits.resize(index + 1, 0);
        }
        if let Some(word) = bits.get_mut(index) {
            if *word & bit != 0 {
                return;
            }
            *word |= bit;
        }
        drop(bits);
        self.woken.borrow_mut().push(slot);
        self.wake_task();
    }
}

/// Slots whose list is kept for the next round.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_made_ready_once_however_many_streams_are_woken() {
        let (count, board) = (Arc::new(Count::default()), Rc::new(Board::default()));
        board.enter(&task::Waker::from(Arc::clone(&count)));
        let wakers = [3, 70, 3].map(|slot| Waker::new(Rc::clone(&board), slot));
        wakers.iter().for_each(Waker::wake);
        wakers.iter().for_each(Waker::wake);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let mut slots = Vec::new();
        board.drain(|slot| slots.push(slot));
        assert_eq!(slots, [3, 70]);
        assert!(!board.any());

        board.enter(&task::Waker::from(Arc::clone(&count)));
        wakers[1].wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        Waker::noop().wake();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_task_sleeps_until_its_waker_is_used() {
        let (waker, sleeper) = Sleeper::new();
        waker.wake();
        sleeper.sleep().await;
        let local = tokio::task::LocalSet::new();
        let order = Rc::new(RefCell::new(Vec::new()));
        let (seen, woken) = (Rc::clone(&order), Rc::clone(&order));
        local.spawn_local(async move {
            sleeper.sleep().await;
            seen.borrow_mut().push("awake");
        });
        local.spawn_local(async move {
            woken.borrow_mut().push("wakes");
            waker.wake();
            waker.wake();
        });
        local.await;
        assert_eq!(*order.borrow(), ["wakes", "awake"]);
    }
}

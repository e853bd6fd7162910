//! The consumers of a queue, who are woken in turn.
//!
//! While records are there to be taken, nobody waits without somebody being on the way to take them: each push wakes
//! one of those that wait, and whoever takes without emptying the queue, or goes away, wakes the next one unless another
//! is on the way already.

use std::collections::VecDeque;

use overstory_node::wake::Waker;
use slab::Slab;

use super::ConsumerId;

/// The consumers of a queue.
#[derive(Default)]
pub(super) struct Turns {
    consumers: Slab<Consumer>,
    /// Those that wait, the next one first.
    waiting: VecDeque<ConsumerId>,
    /// How many were woken and have not come yet.
    woken: usize,
}

struct Consumer {
    waker: Waker,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It takes when it likes.
    Busy,
    /// It is in `waiting`.
    Waiting,
    /// It was woken and has not come yet.
    Woken,
}

impl Turns {
    pub(super) fn len(&self) -> usize {
        self.consumers.len()
    }

    pub(super) fn join(&mut self, waker: Waker) -> ConsumerId {
        let key = self.consumers.insert(Consumer { waker, state: State::Busy });
        ConsumerId(u32::try_from(key).unwrap_or(u32::MAX))
    }

    /// The consumer found nothing. `more`: there is something all the same.
    pub(super) fn wait(&mut self, id: ConsumerId, more: bool) {
        let Some(consumer) = self.consumers.get_mut(id.key()) else { return };
        let before = std::mem::replace(&mut consumer.state, State::Waiting);
        match before {
            State::Waiting => return,
            State::Woken => self.woken -= 1,
            State::Busy => {}
        }
        self.waiting.push_back(id);
        self.go_on(more);
    }

    /// The consumer came, and took what it wanted. `more`: something is left.
    #[inline]
    pub(super) fn came(&mut self, id: ConsumerId, more: bool) {
        if let Some(consumer) = self.consumers.get_mut(id.key())
            && consumer.state == State::Woken
        {
            consumer.state = State::Busy;
            self.woken -= 1;
        }
        self.go_on(more);
    }

    /// The consumer is gone. `more`: there is something to take.
    pub(super) fn leave(&mut self, id: ConsumerId, more: bool) {
        let Some(consumer) = self.consumers.try_remove(id.key()) else { return };
        match consumer.state {
            State::Busy => {}
            State::Woken => self.woken -= 1,
            State::Waiting => self.waiting.retain(|other| *other != id),
        }
        if self.consumers.is_empty() {
            *self = Self::default();
        }
        self.go_on(more);
    }

    /// Wakes the next one, for a record that came.
    #[inline]
    pub(super) fn wake_one(&mut self) {
        if let Some(id) = self.waiting.pop_front()
            && let Some(consumer) = self.consumers.get_mut(id.key())
        {
            consumer.state = State::Woken;
            self.woken += 1;
            consumer.waker.wake();
        }
    }

    /// Wakes all, because the queue is gone.
    pub(super) fn wake_all(&self) {
        self.consumers.iter().for_each(|(_, consumer)| consumer.waker.wake());
    }

    /// Bytes of memory beside its own.
    pub(super) fn memory(&self) -> usize {
        self.consumers.capacity() * size_of::<(usize, Consumer)>() + self.waiting.capacity() * size_of::<ConsumerId>()
    }

    /// Wakes the next one if there is something to take and nobody on the way.
    #[inline]
    fn go_on(&mut self, more: bool) {
        if more && self.woken == 0 {
            self.wake_one();
        }
    }
}

//! Consumers, and how records leave the queues.

use overstory_node::wake::Waker;

use super::{ConsumerId, Popped, Store, Taken};
use crate::disk::QueueId;
use crate::ring::RECORD_OVERHEAD;

impl Store {
    /// Hands the first record of a channel to `take` and removes it. A channel that is not there is not made.
    pub fn pop(&mut self, channel: &str, take: &mut dyn FnMut(&[u8])) -> Popped {
        let Some(channel) = self.channels.get(channel) else { return Popped::Missing };
        if channel.subscribed {
            return Popped::Subscribed;
        }
        let Some(queue) = channel.queues.first().and_then(|key| self.queues.get_mut(*key)) else {
            return Popped::Missing;
        };
        let mut taken = false;
        let result = queue.pop(self.disk.as_deref_mut(), &mut |record| {
            taken = true;
            take(record);
        });
        if let Err(error) = result {
            self.note(error);
        }
        if taken { Popped::Taken } else { Popped::Empty }
    }

    /// Adds a consumer to a queue. It takes what is there, and waits when there is nothing.
    pub fn join(&mut self, queue: QueueId, waker: Waker) -> ConsumerId {
        match self.queue_mut(queue) {
            Some(queue) => queue.turns.join(waker),
            None => ConsumerId(u32::MAX),
        }
    }

    /// Says that a consumer found nothing: it is woken in its turn, or when the queue is gone.
    pub fn wait(&mut self, queue: QueueId, consumer: ConsumerId) {
        if let Some(queue) = self.queue_mut(queue) {
            let more = queue.has_records();
            queue.turns.wait(consumer, more);
        }
    }

    /// Removes a consumer, which has given back or accepted what it took; whoever waits takes its place.
    pub fn leave(&mut self, queue: QueueId, consumer: ConsumerId) {
        if let Some(queue) = self.queue_mut(queue) {
            let more = queue.has_records();
            queue.turns.leave(consumer, more);
        }
    }

    /// Takes records for a consumer: as many as fit into `max_bytes`, and at least one, are appended to `out`, each as a u64
    /// length and its bytes. With redelivery they stay the store's until [`Self::accept`].
    pub fn take(&mut self, queue: QueueId, consumer: ConsumerId, max_bytes: usize, out: &mut Vec<u8>) -> Option<Taken> {
        let known = self.queues.get_mut(*self.ids.get(&queue)?)?;
        let begin = out.len();
        let (range, mut error) = match known.take(max_bytes, out, self.disk.as_deref_mut()) {
            Ok(range) => (range, None),
            Err(error) => (None, Some(error)),
        };
        if let Some(range) = &range
            && !self.options.redeliver
        {
            // What was taken is taken, whether the disk could note it or not.
            error = known.finish(range.clone(), self.disk.as_deref_mut()).err();
        }
        known.turns.came(consumer, known.has_records());
        if let Some(error) = error {
            self.note(error);
        }
        let range = range?;
        let bytes = (out.len() - begin) as u64 - (range.end - range.start) * RECORD_OVERHEAD;
        Some(Taken { queue, from: range.start, to: range.end, bytes })
    }

    /// Says that a client has taken these records over: they never come back.
    pub fn accept(&mut self, taken: Taken) {
        if !self.options.redeliver {
            return;
        }
        let Some(queue) = self.ids.get(&taken.queue).and_then(|key| self.queues.get_mut(*key)) else { return };
        if let Err(error) = queue.finish(taken.from..taken.to, self.disk.as_deref_mut()) {
            self.note(error);
        }
    }

    /// Puts records back in their place, with redelivery; without it they are gone. `records` are what was taken, in the form
    /// in which it was.
    pub fn give_back(&mut self, taken: Taken, records: &[u8]) {
        if self.options.redeliver
            && let Some(queue) = self.queue_mut(taken.queue)
        {
            queue.give_back(taken.from..taken.to, records);
        }
    }
}

//! neo Consume (protocol §2.5): a batch of records, then nothing until the client says that it has taken it over.
//!
//! A batch is on its way from when it was made until the client's Continue or Stop. If the connection ends in between,
//! and the node redelivers, it goes back to the front of its queue; else it counts as consumed when it was made.

use std::rc::Rc;

use overstory_node::engine::{Flow, NeoStream, Produced, Violation};
use overstory_node::wake::Waker;
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dmq::{CONSUME_BATCH, ConsumeControl, ConsumeMessage};

use super::core::Core;
use crate::disk::QueueId;
use crate::store::{ConsumerId, Taken};

/// One consumer's place at a queue; dropping it leaves the queue.
pub(super) struct Place {
    pub(super) core: Rc<Core>,
    pub(super) queue: QueueId,
    consumer: ConsumerId,
}

impl Place {
    pub(super) fn new(core: &Rc<Core>, queue: QueueId, waker: &Waker) -> Self {
        let consumer = core.store.borrow_mut().join(queue, waker.clone());
        Self { core: Rc::clone(core), queue, consumer }
    }

    /// Whether the channel was removed.
    pub(super) fn removed(&self) -> bool {
        self.core.store.borrow().is_removed(self.queue)
    }

    /// Appends records to `out`, each as an array, until there are `max` bytes or one record. Without any, the consumer
    /// is woken in its turn when there are.
    #[inline]
    pub(super) fn take(&self, max: usize, out: &mut Vec<u8>) -> Option<Taken> {
        let mut store = self.core.store.borrow_mut();
        let taken = store.take(self.queue, self.consumer, max, out);
        match &taken {
            Some(taken) => self.core.count_taken(taken),
            None => store.wait(self.queue, self.consumer),
        }
        taken
    }

    pub(super) fn accept(&self, taken: Taken) {
        self.core.store.borrow_mut().accept(taken);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.store.borrow_mut().leave(self.queue, self.consumer);
    }
}

/// A Consume, from Started to its end.
pub(super) struct Consume {
    place: Place,
    /// The batch that is on its way.
    batch: Option<Taken>,
    /// Its records, kept while they may have to go back.
    records: Vec<u8>,
    redeliver: bool,
}

impl Consume {
    pub(super) fn new(core: &Rc<Core>, queue: QueueId, waker: &Waker) -> Self {
        let redeliver = core.store.borrow().redelivers();
        Self { place: Place::new(core, queue, waker), batch: None, records: Vec::new(), redeliver }
    }

    /// Ends the batch that is on its way: the client has it. False if there is none.
    fn taken_over(&mut self) -> bool {
        let batch = self.batch.take();
        self.records.clear();
        let some = batch.is_some();
        if let Some(taken) = batch {
            self.place.accept(taken);
        }
        some
    }
}

impl NeoStream for Consume {
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation> {
        match ConsumeControl::decode(payload) {
            Ok(ConsumeControl::Continue) if self.taken_over() => Ok(Flow::Continue),
            Ok(ConsumeControl::Continue) => Err(Violation("a Continue to a Consume that sent no batch")),
            Ok(ConsumeControl::Stop) => {
                self.taken_over();
                out.message(|out| ConsumeMessage::Stopped.encode(out));
                Ok(Flow::Done)
            }
            Err(_) => Err(Violation("an unknown control message to a Consume")),
        }
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if self.place.removed() {
            self.batch = None;
            out.message(|out| ConsumeMessage::ChannelRemoved.encode(out));
            return Produced::Done;
        }
        if self.batch.is_some() {
            return Produced::Idle;
        }
        let (place, records, redeliver) = (&self.place, &mut self.records, self.redeliver);
        let mut batch = None;
        out.message_if(|out| {
            ConsumeMessage::encode_records(out, |out| {
                let start = out.len();
                batch = place.take(CONSUME_BATCH, out);
                if redeliver && batch.is_some() {
                    records.extend_from_slice(out.get(start..).unwrap_or_default());
                }
            });
            batch.is_some()
        });
        if batch.is_none() {
            // It may be long until there is something again.
            self.records = Vec::new();
        }
        self.batch = batch;
        Produced::Idle
    }
}

impl Drop for Consume {
    fn drop(&mut self) {
        if let Some(taken) = self.batch.take() {
            self.place.core.store.borrow_mut().give_back(taken, &self.records);
        }
    }
}

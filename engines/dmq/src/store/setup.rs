//! How queues come back at the start of a node, and leave at its end.

use super::names::QueueName;
use super::{ImportError, Place, Queue, Store, Unsaved};
use crate::disk::{DiskError, RecoveredQueue};
use crate::ring;

impl Store {
    /// Takes over the queues that were found on disk; before anything else.
    ///
    /// Records of a channel from before it had subscribers belong to the first one; should both be there (the process was
    /// killed in between), they come first. A queue whose name no queue can have stays on disk, out of reach.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn recover(&mut self, mut queues: Vec<RecoveredQueue>) -> Result<(), DiskError> {
        // New numbers are higher.
        let last = queues.iter().map(|queue| queue.queue).max().unwrap_or(0);
        self.next_id = self.next_id.max(last.wrapping_add(1));
        // Those without subscribers come first; in this order the queues were made, too.
        queues.sort_by_key(|queue| (queue.name.contains('@'), queue.queue));
        for found in queues {
            let Some(name) = QueueName::parse(&found.name) else {
                tracing::warn!(queue = found.queue, records = found.records, "a queue on disk has no valid name");
                continue;
            };
            let limit = self.options.sizes.of(name.channel);
            let queue = Queue::recovered(found.queue, &found.name, limit, found.records, found.bytes);
            match self.channels.get(name.channel) {
                Some(channel) if !channel.subscribed || self.has_queue(&found.name) => self.absorb(name, queue)?,
                _ => drop(self.insert(name.channel, queue, name.subscriber.is_some())),
            }
        }
        Ok(())
    }

    /// Appends the records of a queue on disk to another one.
    fn absorb(&mut self, name: QueueName<'_>, mut queue: Queue) -> Result<(), DiskError> {
        let key = self.home(name)?;
        tracing::warn!(queue = &*queue.name, "joining queues of the same channel");
        let mut record = Vec::new();
        loop {
            record.clear();
            if !queue.pop(self.disk.as_deref_mut(), &mut |bytes| record.extend_from_slice(bytes))? {
                break;
            }
            self.append(key, &record)?;
        }
        self.disk.as_deref_mut().map_or(Ok(()), |disk| disk.remove(queue.id))
    }

    /// Appends records of a `.rq` file (each as a u64 length and its bytes), however many they are; before any is taken.
    /// Those that were recovered come behind them, unless the disk keeps all: then it gets these, too.
    ///
    /// # Errors
    /// [`ImportError::BadName`], or the disk does not take them.
    pub fn load(&mut self, name: &str, records: &[u8]) -> Result<(), ImportError> {
        let parsed = QueueName::parse(name).ok_or(ImportError::BadName)?;
        if self.disk.as_ref().is_some_and(|disk| disk.keeps_all()) {
            return ring::records(records).try_for_each(|record| self.import(name, record));
        }
        let key = self.home(parsed)?;
        if let Some(queue) = self.queues.get_mut(key) {
            queue.load(records);
        }
        Ok(())
    }

    /// Appends a record to a queue under the queue's name, for moving data; without a disk the memory takes it, however
    /// full it is.
    ///
    /// # Errors
    /// [`ImportError::BadName`], or the disk does not take it.
    pub fn import(&mut self, name: &str, record: &[u8]) -> Result<(), ImportError> {
        let key = self.home(QueueName::parse(name).ok_or(ImportError::BadName)?)?;
        Ok(self.append(key, record)?)
    }

    fn append(&mut self, key: usize, record: &[u8]) -> Result<(), DiskError> {
        let Some(queue) = self.queues.get_mut(key) else { return Ok(()) };
        let place = queue.place(record, self.disk.is_some()).unwrap_or(Place::Memory);
        if let Some(disk) = self.disk.as_deref_mut()
            && (place == Place::Disk || disk.keeps_all())
        {
            disk.reserve(1, record.len() as u64)?;
        }
        queue.push(record, place, self.disk.as_deref_mut())
    }

    /// The place of the queue of this name, which is made if it is not there; for a channel with subscribers the first
    /// one's.
    fn home(&mut self, name: QueueName<'_>) -> Result<usize, DiskError> {
        if let Some(subscriber) = name.subscriber {
            return self.subscriber(name.channel, subscriber);
        }
        self.create_channel(name.channel)?;
        Ok(self.channels.get(name.channel).and_then(|channel| channel.queues.first().copied()).unwrap_or_default())
    }

    fn has_queue(&self, name: &str) -> bool {
        self.queues.iter().any(|(_, queue)| *queue.name == *name)
    }

    /// The names of all queues, in their order.
    pub(crate) fn queue_names(&self) -> Vec<Box<str>> {
        let mut names: Vec<_> = self.queues.iter().map(|(_, queue)| queue.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Shows what of a queue has to be saved at the end, in pieces of whole records; returns how much it is.
    pub(crate) fn unsaved<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) -> Unsaved {
        let queue = self.find(name).and_then(|key| self.queues.get(key));
        let in_order = self.disk.as_ref().is_some_and(|disk| !disk.keeps_all());
        queue.map_or_else(Unsaved::default, |queue| queue.unsaved(in_order, visit))
    }

    /// How many records of a queue stay on disk once [`Self::saved`] has removed what [`Self::unsaved`] showed.
    pub(crate) fn left(&self, name: &str, unsaved: Unsaved) -> u64 {
        self.find(name).and_then(|key| self.queues.get(key)).map_or(0, |queue| queue.left(unsaved))
    }

    /// Removes what [`Self::unsaved`] showed, which is saved now.
    pub(crate) fn saved(&mut self, name: &str, unsaved: Unsaved) -> Result<(), DiskError> {
        let queue = self.find(name).and_then(|key| self.queues.get_mut(key));
        queue.map_or(Ok(()), |queue| queue.saved(unsaved, self.disk.as_deref_mut()))
    }

    /// The place of the queue of this name.
    fn find(&self, name: &str) -> Option<usize> {
        let channel = self.channels.get(QueueName::parse(name)?.channel)?;
        let of_name = |key: &usize| self.queues.get(*key).is_some_and(|queue| *queue.name == *name);
        channel.queues.iter().copied().find(of_name)
    }
}

//! A disk in memory that fails on demand and holds the store to its contract.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::rc::Rc;

use overstory_node::inspect::Finding;

use crate::disk::{Disk, DiskError, QueueId, Read, RecoveredQueue};

#[derive(Debug, Clone)]
pub(super) struct TestDisk(Rc<RefCell<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    keeps_all: bool,
    pub(super) queues: BTreeMap<QueueId, Queue>,
    /// No room at the next reserve.
    pub(super) full: bool,
    /// Reads fail.
    pub(super) broken: bool,
    /// Records that cannot be read.
    pub(super) lost: HashSet<Vec<u8>>,
    reserved: usize,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) name: String,
    records: Vec<Vec<u8>>,
    released: Vec<bool>,
}

impl Queue {
    pub(super) fn kept(&self) -> Vec<Vec<u8>> {
        let kept = self.records.iter().zip(&self.released).filter(|(_, released)| !**released);
        kept.map(|(record, _)| record.clone()).collect()
    }
}

impl TestDisk {
    pub(super) fn new(keeps_all: bool) -> Self {
        Self(Rc::new(RefCell::new(State { keeps_all, ..State::default() })))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// What the next process finds.
    pub(super) fn reopen(&self) -> Vec<RecoveredQueue> {
        let mut state = self.state();
        let lost = std::mem::take(&mut state.lost);
        (state.full, state.broken) = (false, false);
        let found = state.queues.iter_mut().map(|(&id, queue)| {
            queue.records = queue.kept();
            queue.records.retain(|record| !lost.contains(record));
            queue.released = vec![false; queue.records.len()];
            let bytes = queue.records.iter().map(|record| record.len() as u64).sum();
            RecoveredQueue { queue: id, name: queue.name.clone(), records: queue.records.len() as u64, bytes }
        });
        found.collect()
    }

    /// Puts a queue there as another process left it.
    pub(super) fn put(&self, id: QueueId, name: &str, records: &[&str]) {
        let records: Vec<_> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let queue = Queue { name: name.to_owned(), released: vec![false; records.len()], records };
        self.state().queues.insert(id, queue);
    }
}

impl Disk for TestDisk {
    fn keeps_all(&self) -> bool {
        self.0.borrow().keeps_all
    }

    fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        assert!(state.queues.values().all(|queue| queue.name != name), "{name} is there");
        let queue = state.queues.insert(queue, Queue { name: name.to_owned(), ..Queue::default() });
        assert!(queue.is_none(), "numbers are not used twice");
        Ok(())
    }

    fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        name.clone_into(&mut self.state().queues.get_mut(&queue).unwrap().name);
        Ok(())
    }

    fn remove(&mut self, queue: QueueId) -> Result<(), DiskError> {
        assert!(self.state().queues.remove(&queue).is_some());
        Ok(())
    }

    fn reserve(&mut self, records: usize, _bytes: u64) -> Result<(), DiskError> {
        let mut state = self.state();
        assert_eq!(state.reserved, 0, "what was reserved is used");
        if state.full {
            return Err(DiskError::Full(io::ErrorKind::StorageFull.into()));
        }
        state.reserved = records;
        Ok(())
    }

    fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.reserved = state.reserved.checked_sub(1).expect("room is reserved");
        let queue = state.queues.get_mut(&queue).unwrap();
        queue.records.push(record.to_vec());
        queue.released.push(false);
        Ok(())
    }

    fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError> {
        let state = self.state();
        if state.broken {
            return Err(DiskError::Io { doing: "read".to_owned(), source: io::ErrorKind::InvalidData.into() });
        }
        let queue = &state.queues[&queue];
        let (mut read, begin) = (Read::default(), out.len());
        for at in from as usize..queue.records.len() {
            assert!(!queue.released[at], "a released record is read");
            let record = &queue.records[at];
            if state.lost.contains(record) {
                if read.records > 0 {
                    break;
                }
                read.lost += 1;
                continue;
            }
            if read.records > 0 && out.len() - begin + 8 + record.len() > max {
                break;
            }
            out.extend_from_slice(&(record.len() as u64).to_le_bytes());
            out.extend_from_slice(record);
            read.records += 1;
        }
        Ok(read)
    }

    fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError> {
        let mut state = self.state();
        let keeps_all = state.keeps_all;
        let queue = state.queues.get_mut(&queue).unwrap();
        assert!(from < to);
        let before = queue.released.iter().take_while(|released| **released).count() as u64;
        assert!(keeps_all || before == from, "in order without gaps");
        for at in from..to {
            assert!(!std::mem::replace(&mut queue.released[at as usize], true), "once each");
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        0
    }

    fn findings(&self, _findings: &mut Vec<Finding>) {}
}

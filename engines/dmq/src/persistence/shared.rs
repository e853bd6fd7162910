//! A disk that is both behind the store and in the hands of the program, which saves its index and closes it.

use std::cell::RefCell;
use std::rc::Rc;

use overstory_node::inspect::Finding;

use crate::disk::{Disk, DiskError, QueueId, Read};

/// The shared disk; nothing once it was closed.
pub(super) struct Shared<T>(Rc<RefCell<Option<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: Disk> Shared<T> {
    pub(super) fn new(disk: T) -> Self {
        Self(Rc::new(RefCell::new(Some(disk))))
    }

    /// Takes the disk away from everybody.
    pub(super) fn close(&self) -> Option<T> {
        self.0.take()
    }

    /// Does something with the disk.
    ///
    /// # Errors
    /// What `with` says; [`DiskError::Failed`] once the disk is closed.
    #[inline]
    pub(super) fn with<R>(&self, with: impl FnOnce(&mut T) -> Result<R, DiskError>) -> Result<R, DiskError> {
        self.0.borrow_mut().as_mut().map_or(Err(DiskError::Failed), with)
    }
}

impl<T: Disk> Disk for Shared<T> {
    fn keeps_all(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(Disk::keeps_all)
    }

    fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.with(|disk| disk.create(queue, name))
    }

    fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.with(|disk| disk.rename(queue, name))
    }

    fn remove(&mut self, queue: QueueId) -> Result<(), DiskError> {
        self.with(|disk| disk.remove(queue))
    }

    fn reserve(&mut self, records: usize, bytes: u64) -> Result<(), DiskError> {
        self.with(|disk| disk.reserve(records, bytes))
    }

    fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
        self.with(|disk| disk.append(queue, record))
    }

    fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError> {
        self.with(|disk| disk.read(queue, from, max, out))
    }

    fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError> {
        self.with(|disk| disk.release(queue, from, to))
    }

    #[inline]
    fn settle(&mut self) -> Result<(), DiskError> {
        self.with(Disk::settle)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.0.borrow().as_ref().map_or(0, Disk::bytes_on_disk)
    }

    fn findings(&self, findings: &mut Vec<Finding>) {
        if let Some(disk) = self.0.borrow().as_ref() {
            disk.findings(findings);
        }
    }
}

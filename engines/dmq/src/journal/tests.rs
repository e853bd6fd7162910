#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod damage;
mod groups;
mod seam;
mod space;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use overstory_node::commit::Commits;
use overstory_node::inspect::Finding;

use super::files::Files;
use super::log::Log;
use super::{Journal, Options, Recovered};
use crate::disk::{Disk, DiskError, QueueId, Read, contract};

/// The smallest segments, so that there are many.
const SMALL: Options = Options { segment_bytes: 64 * 1024 };

fn open_with(dir: &Path, files: Box<dyn Files>) -> (Journal, Rc<Commits>, Recovered) {
    let commits = Rc::new(Commits::new());
    let (log, recovered) = Log::open(dir, &SMALL, Rc::clone(&commits), files).unwrap();
    (Journal { log: Rc::new(RefCell::new(log)) }, commits, recovered)
}

fn open(dir: &Path) -> (Journal, Rc<Commits>, Recovered) {
    open_with(dir, Box::new(super::files::System))
}

fn push(journal: &mut Journal, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
    journal.reserve(1, record.len() as u64)?;
    journal.append(queue, record)
}

fn read_all(journal: &mut Journal, queue: QueueId, from: u64, batch: usize) -> (Vec<Vec<u8>>, u64) {
    let (mut records, mut lost, mut next) = (Vec::new(), 0, from);
    loop {
        let mut out = Vec::new();
        let read = journal.read(queue, next, batch, &mut out).unwrap();
        lost += read.lost;
        next += read.lost + read.records;
        if read.records == 0 {
            return (records, lost);
        }
        let mut rest = &out[..];
        for _ in 0..read.records {
            let (length, after) = rest.split_first_chunk::<8>().unwrap();
            let (record, after) = after.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
            records.push(record.to_vec());
            rest = after;
        }
        assert!(rest.is_empty());
    }
}

/// Takes what the threads have done, as [`super::run`] does, until nothing is under way.
fn finish(journal: &Journal) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut log = journal.log.borrow_mut();
        while let Ok(done) = log.done.try_recv() {
            log.finished(done);
        }
        let more = log.tidy();
        if !more && log.group.is_none() && !log.preparing && !matches!(log.removing, Some((_, false))) {
            return;
        }
        assert!(Instant::now() < deadline);
        drop(log);
        std::thread::yield_now();
    }
}

#[test]
fn what_was_pushed_is_read_and_found_again_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, commits, recovered) = open(dir.path());
    assert_eq!(recovered, Recovered::default());
    journal.create(1, "a").unwrap();
    journal.create(2, "me@b").unwrap();
    let record =
        |queue: u8, number: u32| [&[queue; 5][..], &vec![7; number as usize % 3000], &number.to_le_bytes()].concat();
    for number in 0..1000 {
        push(&mut journal, 1, &record(1, number)).unwrap();
        push(&mut journal, 2, &record(2, number)).unwrap();
        if number % 10 == 0 {
            journal.settle().unwrap();
        }
    }
    journal.rename(2, "@b").unwrap();
    let expected: Vec<_> = (0..1000).map(|number| record(1, number)).collect();
    assert_eq!(read_all(&mut journal, 1, 0, 10_000), (expected.clone(), 0));
    journal.release(1, 0, 10).unwrap();
    journal.release(1, 20, 30).unwrap();
    journal.driver().sync_now().unwrap();
    assert_eq!(commits.durable(), commits.made());
    assert_eq!(read_all(&mut journal, 1, 30, 1), (expected[30..].to_vec(), 0));
    drop(journal);

    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!((recovered.problems.len(), recovered.unfinished), (0, 0));
    let [one, two] = &recovered.queues[..] else { panic!("{recovered:?}") };
    assert_eq!((one.queue, one.name.as_str(), one.records), (1, "a", 980));
    assert_eq!((two.queue, two.name.as_str(), two.records), (2, "@b", 1000));
    let left: Vec<_> = expected[10..20].iter().chain(&expected[30..]).cloned().collect();
    assert_eq!(one.bytes, left.iter().map(|record| record.len() as u64).sum::<u64>());
    assert_eq!(read_all(&mut journal, 1, 0, 64 * 1024), (left.clone(), 0));
    // Places have no gaps now: what was released before does not count.
    journal.release(1, 0, 12).unwrap();
    push(&mut journal, 1, b"new").unwrap();
    journal.settle().unwrap();
    finish(&journal);
    drop(journal);
    let (mut journal, _, _) = open(dir.path());
    let left: Vec<_> = left[12..].iter().cloned().chain([b"new".to_vec()]).collect();
    assert_eq!(read_all(&mut journal, 1, 0, 1), (left, 0));
}

#[test]
fn a_removed_queue_is_gone_and_its_number_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.create(1, "a").unwrap();
    push(&mut journal, 1, b"old").unwrap();
    journal.remove(1).unwrap();
    journal.driver().sync_now().unwrap();
    drop(journal);
    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.queues, []);
    journal.create(1, "b").unwrap();
    push(&mut journal, 1, b"new").unwrap();
    journal.driver().sync_now().unwrap();
    drop(journal);
    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.queues[0].name, "b");
    assert_eq!(read_all(&mut journal, 1, 0, 100), (vec![b"new".to_vec()], 0));
}

#[test]
fn two_processes_cannot_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_journal, _, _) = open(dir.path());
    let again = Journal::open(dir.path(), &SMALL, Rc::new(Commits::new()));
    assert!(matches!(again, Err(super::OpenError::InUse(_))));
}

#[test]
fn a_push_larger_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.create(1, "a").unwrap();
    let large = vec![9; 3_000_000];
    for record in [&b"small"[..], &large, b"after"] {
        push(&mut journal, 1, record).unwrap();
        journal.settle().unwrap();
    }
    journal.driver().sync_now().unwrap();
    drop(journal);
    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.problems, Vec::<String>::new());
    assert_eq!(read_all(&mut journal, 1, 0, 10), (vec![b"small".to_vec(), large, b"after".to_vec()], 0));
}

/// A journal whose replies are waited for: a push is acknowledged when a group with it is durable.
struct Awaited(Journal);

impl Disk for Awaited {
    fn keeps_all(&self) -> bool {
        self.0.keeps_all()
    }

    fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.0.create(queue, name)
    }

    fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        self.0.rename(queue, name)
    }

    fn remove(&mut self, queue: QueueId) -> Result<(), DiskError> {
        self.0.remove(queue)
    }

    fn reserve(&mut self, records: usize, bytes: u64) -> Result<(), DiskError> {
        self.0.reserve(records, bytes)
    }

    fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
        self.0.append(queue, record)
    }

    fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError> {
        self.0.read(queue, from, max, out)
    }

    fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError> {
        self.0.release(queue, from, to)
    }

    fn settle(&mut self) -> Result<(), DiskError> {
        self.0.settle()?;
        finish(&self.0);
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        self.0.bytes_on_disk()
    }

    fn findings(&self, findings: &mut Vec<Finding>) {
        self.0.findings(findings);
    }
}

#[test]
fn the_contract_holds() {
    contract::run(&|dir| {
        let (journal, _, recovered) = open(dir);
        (Box::new(Awaited(journal)), recovered.queues)
    });
}

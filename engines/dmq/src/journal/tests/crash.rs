//! Against a model, with crashes: the process is killed, or the power fails.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::seam::Watched;
use super::*;
use crate::journal::segment;

#[derive(Debug, Clone)]
enum Step {
    Push {
        queue: QueueId,
        count: u32,
        length: usize,
    },
    /// Releases so many of the oldest records, or of those behind them.
    Release {
        queue: QueueId,
        skip: usize,
        count: usize,
    },
    Remove {
        queue: QueueId,
    },
    Rename {
        queue: QueueId,
    },
    Settle,
    Finish,
    /// The process is killed in the middle of a write, at a part in 256 of it.
    Kill {
        cut: u8,
    },
    /// The power fails: of what was not durable, each page is there or not.
    PowerLoss {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let queue = 1..4u32;
    let step = prop_oneof![
        6 => (queue.clone(), 1..30u32, prop_oneof![0..100usize, 100..4000usize])
            .prop_map(|(queue, count, length)| Step::Push { queue, count, length }),
        5 => (queue.clone(), prop_oneof![3 => Just(0), 1 => 0..20usize], 1..60usize)
            .prop_map(|(queue, skip, count)| Step::Release { queue, skip, count }),
        1 => queue.clone().prop_map(|queue| Step::Remove { queue }),
        1 => queue.prop_map(|queue| Step::Rename { queue }),
        6 => Just(Step::Settle),
        3 => Just(Step::Finish),
        1 => any::<u8>().prop_map(|cut| Step::Kill { cut }),
        1 => any::<u64>().prop_map(|seed| Step::PowerLoss { seed }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A record of the model.
#[derive(Debug, Clone)]
struct Pushed {
    record: Vec<u8>,
    /// The change that it was.
    commit: u64,
    released: bool,
    /// Its release was written.
    settled: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    /// By number; the records by place.
    queues: BTreeMap<QueueId, Vec<Pushed>>,
    /// Queues that may be gone or be there: their removal is not durable.
    removed: BTreeMap<QueueId, u64>,
    unique: u32,
}

struct World {
    dir: TempDir,
    watched: Watched,
    journal: Journal,
    commits: Rc<Commits>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let watched = Watched::default();
        let (journal, commits, _) = open_with(dir.path(), Box::new(watched.clone()));
        Self { dir, watched, journal, commits, model: Model::default() }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Push { queue, count, length } => {
                for _ in 0..count {
                    if !self.model.queues.contains_key(&queue) {
                        self.journal.create(queue, &format!("queue-{queue}")).unwrap();
                        self.model.queues.insert(queue, Vec::new());
                    }
                    self.model.unique += 1;
                    let mut record = self.model.unique.to_le_bytes().to_vec();
                    record.resize(record.len() + length, 0xee);
                    push(&mut self.journal, queue, &record).unwrap();
                    let pushed = Pushed { record, commit: self.commits.made(), released: false, settled: false };
                    self.model.queues.get_mut(&queue).unwrap().push(pushed);
                }
            }
            Step::Release { queue, skip, count } => {
                let Some(records) = self.model.queues.get_mut(&queue) else { return };
                let left: Vec<_> = (0..records.len()).filter(|&place| !records[place].released).collect();
                for &place in left.iter().skip(skip).take(count) {
                    records[place].released = true;
                    self.journal.release(queue, place as u64, place as u64 + 1).unwrap();
                }
            }
            Step::Remove { queue } => {
                if self.model.queues.remove(&queue).is_some() {
                    self.journal.remove(queue).unwrap();
                    self.model.removed.insert(queue, self.commits.made());
                }
            }
            Step::Rename { queue } => {
                if self.model.queues.contains_key(&queue) {
                    self.journal.rename(queue, &format!("me@queue-{queue}")).unwrap();
                }
            }
            Step::Settle => self.settle(),
            Step::Finish => finish(&self.journal),
            Step::Kill { cut } => self.kill(cut),
            Step::PowerLoss { seed } => self.lose_power(seed),
        }
    }

    fn settle(&mut self) {
        self.journal.settle().unwrap();
        for pushed in self.model.queues.values_mut().flatten() {
            pushed.settled = pushed.released;
        }
    }

    /// What is needed is read, whatever else is going on.
    fn check(&mut self) {
        for (&queue, records) in &self.model.queues {
            let Some(first) = records.iter().position(|pushed| !pushed.released) else { continue };
            let end = records[first..].iter().position(|pushed| pushed.released).map_or(records.len(), |n| first + n);
            let mut out = Vec::new();
            let read = self.journal.read(queue, first as u64, 3000, &mut out).unwrap();
            assert_eq!(read.lost, 0);
            let mut rest = &out[..];
            for pushed in records[first..end].iter().take(usize::try_from(read.records).unwrap()) {
                assert_eq!(rest[8..8 + pushed.record.len()], pushed.record);
                rest = &rest[8 + pushed.record.len()..];
            }
            assert!(read.records > 0);
        }
    }

    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("journal")).unwrap();
        for entry in fs::read_dir(self.dir.path().join("journal")).unwrap() {
            let entry = entry.unwrap();
            // The thread may be removing it.
            let _gone = fs::copy(entry.path(), copy.path().join("journal").join(entry.file_name()));
        }
        copy
    }

    fn kill(&mut self, cut: u8) {
        let durable = self.commits.durable();
        let model = self.model.clone();
        let synced = self.watched.with(|seen| seen.durable.clone());
        let (serial, begin) = (self.last(), self.journal.log.borrow().pending_at);
        self.settle();
        let copy = self.copy();
        let end = self.journal.log.borrow().pending_at;
        if self.last() == serial && end > begin {
            let keep = begin + (end - begin) * u64::from(cut) / 256;
            let file =
                fs::OpenOptions::new().write(true).open(segment::path(&copy.path().join("journal"), serial)).unwrap();
            file.write_all_at(&vec![0; usize::try_from(end - keep).unwrap()], keep).unwrap();
        }
        self.restart(copy, &model, durable, Some(synced));
    }

    fn last(&self) -> u64 {
        self.journal.log.borrow().last_serial()
    }

    fn lose_power(&mut self, mut seed: u64) {
        let durable = self.commits.durable();
        let copy = self.copy();
        let synced = self.watched.with(|seen| seen.durable.clone());
        for entry in fs::read_dir(copy.path().join("journal")).unwrap() {
            let path = entry.unwrap().path();
            let Some(serial) = path.file_name().unwrap().to_str().and_then(segment::serial_of) else { continue };
            let mut bytes = fs::read(&path).unwrap();
            let nothing = Vec::new();
            let before = synced.get(&serial).unwrap_or(&nothing);
            for (index, page) in bytes.chunks_mut(512).enumerate() {
                let old = before.get(index * 512..index * 512 + page.len());
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if seed >> 63 == 0 {
                    match old {
                        Some(old) => page.copy_from_slice(old),
                        None => page.fill(0),
                    }
                }
            }
            fs::write(&path, &bytes).unwrap();
        }
        let model = self.model.clone();
        self.restart(copy, &model, durable, None);
    }

    /// Goes on with what a crash has left, after it was compared with what has to be there.
    fn restart(&mut self, copy: TempDir, model: &Model, durable: u64, killed: Option<HashMap<u64, Vec<u8>>>) {
        let was_killed = killed.is_some();
        let before = killed.unwrap_or_else(|| contents(copy.path()));
        let watched = Watched::default();
        watched.with(|seen| seen.durable = before);
        let (journal, commits, recovered) = open_with(copy.path(), Box::new(watched.clone()));
        assert_eq!(recovered.problems, Vec::<String>::new());
        *self =
            World { dir: copy, watched, journal, commits, model: Model { unique: model.unique, ..Model::default() } };
        for found in &recovered.queues {
            let (records, lost) = read_all(&mut self.journal, found.queue, 0, 2000);
            assert_eq!((records.len() as u64, lost), (found.records, 0));
            assert_eq!(records.iter().map(|record| record.len() as u64).sum::<u64>(), found.bytes);
            let was_removed = model.removed.get(&found.queue);
            if let Some(pushed) = model.queues.get(&found.queue)
                && was_removed.is_none()
            {
                compare(pushed, &records, durable, was_killed);
            } else if let Some(change) = was_removed {
                assert!(model.queues.contains_key(&found.queue) || *change > durable, "a removed queue is back");
            }
            let kept = |record| Pushed { record, commit: 0, released: false, settled: false };
            self.model.queues.insert(found.queue, records.into_iter().map(kept).collect());
        }
        for (queue, pushed) in &model.queues {
            let is_needed = |pushed: &Pushed| pushed.commit <= durable && !pushed.released;
            if model.removed.get(queue).is_none_or(|change| *change <= durable) && pushed.iter().any(is_needed) {
                assert!(self.model.queues.contains_key(queue));
            }
        }
    }
}

fn contents(dir: &Path) -> HashMap<u64, Vec<u8>> {
    let paths = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    paths.filter_map(|path| Some((segment::serial_of(path.file_name()?.to_str()?)?, fs::read(&path).ok()?))).collect()
}

/// What was found is a part of what was pushed, in its order and once each; what was acknowledged is there.
fn compare(pushed: &[Pushed], found: &[Vec<u8>], durable: u64, killed: bool) {
    let mut found = found.iter().peekable();
    for one in pushed {
        let is_there = found.next_if(|record| **record == one.record).is_some();
        if one.commit <= durable && !one.released {
            assert!(is_there, "an acknowledged record is lost");
        }
        if killed && one.settled {
            assert!(!is_there, "a released record is back");
        }
    }
    assert_eq!(found.next(), None, "a record out of order, twice, or from nowhere");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_crashes(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.perform(step);
            world.check();
        }
        world.kill(128);
        world.lose_power(1);
    }
}

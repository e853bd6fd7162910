//! A process that is killed, at every point.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::{Options, Overflow, open, push};
use crate::disk::contract::read_all;
use crate::disk::{Disk, QueueId};
use crate::overflow::files::seam::{self, Op};

#[derive(Debug, Clone)]
enum Step {
    Append { queue: u32, records: u64, size: usize },
    Consume { queue: u32, records: u64 },
    Create,
    Rename { queue: u32 },
    Remove { queue: u32 },
    Settle,
    SaveIndex,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..6_u32, 1..6_u64, prop_oneof![0..200_usize, 0..5000_usize])
            .prop_map(|(queue, records, size)| Step::Append { queue, records, size }),
        5 => (0..6_u32, 1..12_u64).prop_map(|(queue, records)| Step::Consume { queue, records }),
        1 => Just(Step::Create),
        1 => (0..6_u32).prop_map(|queue| Step::Rename { queue }),
        1 => (0..6_u32).prop_map(|queue| Step::Remove { queue }),
        5 => Just(Step::Settle),
        1 => Just(Step::SaveIndex),
    ];
    prop::collection::vec(step, 1..60)
}

/// A queue: its first needed record and the one behind its last.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    id: QueueId,
    name: String,
    first: u64,
    behind: u64,
}

fn record(id: QueueId, number: u64, size: usize) -> Vec<u8> {
    let mut record = format!("{id}:{number}:").into_bytes();
    record.resize(record.len() + size, b'.');
    record
}

/// Runs the steps; returns what was true after each settle, with the number of things done to files by then.
fn run(disk: &mut Overflow, steps: &[Step]) -> Vec<(usize, Vec<Model>)> {
    let mut queues: Vec<Model> = Vec::new();
    let (mut settled, mut next) = (vec![(seam::count(), Vec::new())], 1);
    for step in steps.iter().chain([&Step::Settle]) {
        let pick = |queues: &Vec<Model>, queue: u32| (!queues.is_empty()).then(|| queue as usize % queues.len());
        match *step {
            Step::Append { queue, records, size } => {
                let Some(index) = pick(&queues, queue) else { continue };
                let model = &mut queues[index];
                for _ in 0..records {
                    push(disk, model.id, &record(model.id, model.behind, size));
                    model.behind += 1;
                }
            }
            Step::Consume { queue, records } => {
                let Some(index) = pick(&queues, queue) else { continue };
                let model = &mut queues[index];
                let to = model.behind.min(model.first + records);
                let read = read_all(disk, model.id, model.first, to);
                for (record, number) in read.iter().zip(model.first..) {
                    assert!(record.starts_with(format!("{}:{number}:", model.id).as_bytes()));
                }
                disk.release(model.id, model.first, to).unwrap();
                model.first = to;
            }
            Step::Create => {
                disk.create(next, &format!("queue-{next}")).unwrap();
                queues.push(Model { id: next, name: format!("queue-{next}"), first: 0, behind: 0 });
                next += 1;
            }
            Step::Rename { queue } => {
                let Some(index) = pick(&queues, queue) else { continue };
                let model = &mut queues[index];
                model.name = format!("sub@queue-{}", model.id);
                disk.rename(model.id, &model.name).unwrap();
            }
            Step::Remove { queue } => {
                let Some(index) = pick(&queues, queue) else { continue };
                disk.remove(queues.remove(index).id).unwrap();
            }
            Step::Settle => {
                disk.settle().unwrap();
                settled.push((seam::count(), queues.clone()));
            }
            Step::SaveIndex => {
                disk.write_index(false).unwrap();
                settled.push((seam::count(), queues.clone()));
            }
        }
    }
    settled
}

/// Makes the files as they are after some things were done, the last of them a part only.
fn replay(ops: &[Op], cut: usize, dir: &Path) {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (index, op) in ops.iter().enumerate() {
        match op.clone() {
            Op::Open { name } => drop(files.entry(name).or_default()),
            Op::Write { name, offset, mut bytes } => {
                if index + 1 == ops.len() {
                    bytes.truncate(if cut == usize::MAX { bytes.len() } else { cut % (bytes.len() + 1) });
                }
                let offset = usize::try_from(offset).unwrap();
                let file = files.entry(name).or_default();
                file.resize(file.len().max(offset + bytes.len()), 0);
                file[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            Op::SetLen { name, len } => files.entry(name).or_default().resize(usize::try_from(len).unwrap(), 0),
            Op::Punch { name, from, to } => {
                let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
                files.get_mut(&name).unwrap()[from..to].fill(0);
            }
            Op::Rename { from, to } => {
                let file = files.remove(&from).unwrap();
                files.insert(to, file);
            }
            Op::Remove { name } => drop(files.remove(&name)),
        }
    }
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
    }
}

/// Opens what a crash left, and compares it with what was settled before it and what was on its way.
fn check(dir: &Path, before: &[Model], after: &[Model]) {
    let (mut disk, recovered) = open(dir);
    for model in before.iter().filter(|model| after.iter().any(|later| later.id == model.id)) {
        assert!(recovered.queues.iter().any(|queue| queue.queue == model.id), "{model:?} is missing");
    }
    for queue in &recovered.queues {
        let early = before.iter().find(|model| model.id == queue.queue);
        let late = after.iter().find(|model| model.id == queue.queue);
        let mut names: Vec<_> = early.iter().chain(&late).map(|model| model.name.clone()).collect();
        if early.is_none() || late.is_none() {
            // Made or removed since, it may have had another name for a while.
            names = vec![format!("queue-{}", queue.queue), format!("sub@queue-{}", queue.queue)];
        }
        assert!(names.contains(&queue.name), "{queue:?}, {names:?}");
        let first_number = read_all(&mut disk, queue.queue, 0, queue.records.min(1)).first().map(|record| {
            let text = String::from_utf8_lossy(record).into_owned();
            text.split(':').nth(1).unwrap().parse::<u64>().unwrap()
        });
        let records = read_all(&mut disk, queue.queue, 0, queue.records);
        for (index, record) in records.iter().enumerate() {
            let number = first_number.unwrap() + index as u64;
            assert!(record.starts_with(format!("{}:{number}:", queue.queue).as_bytes()), "order");
        }
        assert_eq!(queue.bytes, records.iter().map(|record| record.len() as u64).sum::<u64>());
        let Some(early) = early else { continue };
        let behind = first_number.map(|first| first + queue.records);
        let late_first = late.map_or(u64::MAX, |late| late.first);
        if let (Some(first), Some(behind)) = (first_number, behind) {
            assert!(first >= early.first, "{queue:?} has consumed records again: {first} for {early:?}");
            assert!(behind >= early.behind, "{queue:?} lacks records: {behind} for {early:?}");
            assert!(first <= late_first.max(early.first), "{queue:?} lacks records: {first} for {late:?}");
        } else {
            let all_consumed = early.first == early.behind || late_first >= early.behind;
            assert!(all_consumed, "{queue:?} lacks all records of {early:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_kill_everything_that_was_settled_is_there_in_order_and_once(
        mut steps in steps(),
        points in prop::collection::vec((any::<prop::sample::Index>(), any::<usize>()), 12),
        preallocate in prop_oneof![Just(64_u64), Just(4096), Just(1 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        steps.insert(0, Step::Create);
        seam::record();
        let (mut disk, _) = Overflow::open(dir.path(), &Options { preallocate }).unwrap();
        let settled = run(&mut disk, &steps);
        drop(disk);
        let ops = seam::recorded();
        let begin = settled[0].0;
        for (point, cut) in points {
            let at = begin + point.index(ops.len() - begin + 1);
            let later = settled.partition_point(|(count, _)| *count <= at);
            let before = &settled[later - 1].1;
            let after = &settled[later.min(settled.len() - 1)].1;
            let crashed = tempfile::tempdir().unwrap();
            // The last of them is not whole, so what was settled with it was not.
            let whole = settled[later - 1].0 == at;
            replay(&ops[..at], if whole { usize::MAX } else { cut }, crashed.path());
            check(crashed.path(), before, after);
            // A second crash during the repair finds the same.
            check(crashed.path(), before, after);
        }
    }
}

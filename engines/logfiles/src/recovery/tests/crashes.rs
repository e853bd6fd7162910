//! Whatever is done, and whenever it is interrupted: the catalogue says what the files say, what was durable is there, and
//! nothing is there that was not written.

use proptest::prelude::*;

use super::*;
use crate::disk::sim::Crash;

#[derive(Debug, Clone)]
enum Op {
    /// Records for a bucket of a channel.
    Put {
        channel: u8,
        bucket: u8,
        sizes: Vec<u16>,
    },
    /// As a reply waits for in the mode `always`.
    Sync,
    Checkpoint,
    /// The log is written anew beside the one that is written to.
    Beside,
    Remove {
        channel: u8,
        bucket: u8,
    },
    Stop,
    Kill,
    PowerCut {
        crash: Crash,
        seed: u64,
    },
    /// The process, or the machine, ends within one of the next calls.
    Within {
        changes: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let crash = prop_oneof![Just(Crash::Loses), Just(Crash::Keeps), Just(Crash::Any), Just(Crash::Any)];
    prop_oneof![
        8 => (0..3u8, 0..4u8, prop::collection::vec(prop_oneof![4 => 1..200u16, 1 => 0..6000u16], 1..8))
            .prop_map(|(channel, bucket, sizes)| Op::Put { channel, bucket, sizes }),
        2 => Just(Op::Sync),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Beside),
        1 => (0..3u8, 0..4u8).prop_map(|(channel, bucket)| Op::Remove { channel, bucket }),
        1 => Just(Op::Stop),
        2 => Just(Op::Kill),
        2 => (crash, any::<u64>()).prop_map(|(crash, seed)| Op::PowerCut { crash, seed }),
        2 => (0..20u8).prop_map(|changes| Op::Within { changes }),
    ]
}

/// What was done to a bucket: its records, how many have reached the file for sure, and how many the disk.
#[derive(Debug, Clone, Default)]
struct Known {
    records: Records,
    written: usize,
    durable: usize,
    /// A removal has begun, and not ended.
    going: bool,
}

#[derive(Default)]
struct Model {
    buckets: BTreeMap<(String, BucketNumber), Known>,
    /// A removal was interrupted, and nothing made durable since: that the file is gone may be told by each start.
    undecided: bool,
}

impl Model {
    /// Compares with what a start has made, and takes over what it has decided.
    fn check(&mut self, node: &Node, power_cut: bool) {
        let scanned = scan(&node.disk);
        let files: Buckets = scanned.iter().map(|(key, (entry, _))| (key.clone(), *entry)).collect();
        assert_eq!(buckets(&node.catalogue), files, "{:?}", node.report);
        // A removal that was interrupted looks like one by somebody else.
        self.undecided |= self.buckets.values().any(|known| known.going);
        let is_gone = |problem: &String| problem.contains(" gone");
        let problems = &node.report.problems;
        assert!(problems.is_empty() || self.undecided && problems.iter().all(is_gone), "{:?}", node.report);
        for (key, known) in &mut self.buckets {
            let found = scanned.get(key).map_or(&[][..], |(_, records)| records);
            let least = if known.going {
                0
            } else if power_cut {
                known.durable
            } else {
                known.written
            };
            assert!(found.len() >= least, "{key:?}: {} of {least} records, {:?}", found.len(), node.report);
            assert!(known.records.starts_with(found), "{key:?}");
            known.records.truncate(found.len());
            known.written = found.len();
            known.durable = if power_cut { found.len() } else { known.durable.min(found.len()) };
            known.going = false;
        }
        for key in scanned.keys() {
            assert!(self.buckets.contains_key(key), "{key:?}");
        }
    }

    fn perform(&mut self, node: &mut Node, op: &Op, next: &mut u64) -> io::Result<()> {
        match op {
            Op::Put { channel, bucket, sizes } => {
                let (channel, format) = channel_of(*channel);
                let first = u64::from(*bucket) << 23;
                let records = sizes.iter().map(|size| {
                    *next += 1;
                    let value = next.to_le_bytes().repeat(usize::from(*size) / 8 + 1);
                    (first + *next % 4096, value)
                });
                let records: Records = records.collect();
                let known = self.buckets.entry((channel.to_owned(), BucketNumber::of(first))).or_default();
                known.records.extend_from_slice(&records);
                node.put(channel, format, &records)?;
                known.written = known.records.len();
            }
            Op::Sync => {
                node.sync()?;
                self.all_durable();
            }
            Op::Checkpoint => {
                node.checkpoint()?;
                self.all_durable();
            }
            Op::Beside => node.log().write_beside()?,
            Op::Remove { channel, bucket } => {
                let (channel, number) = (channel_of(*channel).0, BucketNumber::of(u64::from(*bucket) << 23));
                let key = (channel.to_owned(), number);
                let Some(known) = self.buckets.get_mut(&key) else { return Ok(()) };
                if node.entry(channel, number).is_none() {
                    return Ok(());
                }
                known.going = true;
                let path = bucket::path(Path::new(DIR), channel, number);
                node.disk.remove(&path)?;
                node.disk.sync_dir(path.parent().unwrap())?;
                node.log().removed_bucket(channel, number)?;
                node.log().sync()?;
                node.touched.remove(&key);
                let id = node.catalogue.channel(channel).unwrap();
                node.catalogue.forget(id, number);
                self.buckets.remove(&key);
            }
            Op::Stop | Op::Kill | Op::PowerCut { .. } | Op::Within { .. } => {}
        }
        Ok(())
    }

    fn all_durable(&mut self) {
        self.undecided = false;
        for known in self.buckets.values_mut() {
            known.durable = known.written;
        }
    }
}

const fn channel_of(channel: u8) -> (&'static str, Format) {
    match channel {
        0 => ("plain", Format::Plain),
        1 => ("published", Format::V1),
        _ => ("blocks", Format::V2),
    }
}

/// `clock`: calls from one tick of the disk's clock to the next.
fn run(ops: &[Op], clock: u64) {
    let mut node = Node::open(SimDisk::new(), 1);
    node.disk.set_clock(clock);
    let mut model = Model::default();
    let (mut next, mut seed) = (0, 0);
    for op in ops {
        match op {
            Op::Stop => {
                let boot = node.boot;
                let stopped = node.close_keeping();
                let is_clean = stopped.is_ok();
                node = match stopped {
                    Ok(disk) => Node::open(disk.kill(), boot),
                    Err(disk) => Node::open(disk.crash(Crash::Any, seed), boot + 1),
                };
                if is_clean {
                    model.all_durable();
                    assert_eq!(node.report.end, LastEnd::Clean);
                }
                model.check(&node, !is_clean);
            }
            Op::Kill => {
                node = node.killed();
                model.check(&node, false);
            }
            Op::PowerCut { crash, seed: given } => {
                seed = *given;
                node = node.power_cut(*crash, *given);
                model.check(&node, true);
            }
            Op::Within { changes } => node.disk.cut_after(u64::from(*changes)),
            op => {
                if model.perform(&mut node, op, &mut next).is_err() {
                    assert!(node.disk.is_cut());
                    // Every second time it was the process alone.
                    let power_cut = next % 2 == 0;
                    node = if power_cut { node.power_cut(Crash::Any, seed ^ next) } else { node.killed() };
                    model.check(&node, power_cut);
                }
            }
        }
    }
    node = node.killed();
    model.check(&node, false);
}

impl Node {
    /// Stops in order, if nothing comes between.
    fn close_keeping(mut self) -> Result<SimDisk, SimDisk> {
        let done = self.checkpoint().and_then(|()| self.log.take().map_or(Ok(()), |mut log| log.close()));
        if done.is_ok() { Ok(self.disk) } else { Err(self.disk) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_catalogue_says_what_the_files_say(ops in prop::collection::vec(op(), 1..40), clock in prop_oneof![Just(1), 1..200_u64]) {
        run(&ops, clock);
    }
}

/// A removal that a kill had interrupted was undone by a power cut. The start between them had taken it for done, and
/// the start after them did not look: the bucket was on the disk and in no answer.
#[test]
fn an_interrupted_removal_does_not_come_undone_behind_the_next_start() {
    let put = |channel, count| Op::Put { channel, bucket: 0, sizes: vec![1; count] };
    let begin = [put(0, 7), Op::PowerCut { crash: Crash::Keeps, seed: 0 }, put(0, 9), Op::Checkpoint, put(2, 7)];
    let removal = [Op::Within { changes: 8 }, Op::Sync, Op::Remove { channel: 2, bucket: 0 }];
    for seed in 0..50 {
        run(&[&begin[..], &removal, &[Op::PowerCut { crash: Crash::Any, seed }]].concat(), 1);
    }
}

/// A kill between the renaming of a log that was written anew and the end of the directory's sync: the next start goes on in
/// a file whose name a power cut takes back, with all that came into it.
#[test]
fn a_log_whose_new_name_was_not_durable_is_not_gone_on_with() {
    let put = |channel, bucket, count| Op::Put { channel, bucket, sizes: vec![1; count] };
    let begin =
        [put(0, 0, 3), put(0, 0, 2), put(0, 0, 4), Op::Checkpoint, Op::Within { changes: 12 }, Op::Beside, Op::Sync];
    for seed in 0..50 {
        let more = [put(1, 0, 6), put(0, 0, 7), put(0, 1, 6), Op::PowerCut { crash: Crash::Any, seed }, put(0, 0, 1)];
        run(&[&begin[..], &more].concat(), 1);
    }
}

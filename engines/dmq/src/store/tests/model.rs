//! Any order of calls, against queues of the standard library.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::{dump, load};

const CHANNELS: [&str; 3] = ["one", "two", "large"];
const SUBSCRIBERS: [&str; 2] = ["", "sub"];
const SIZE: u64 = 200;

#[derive(Debug, Clone)]
enum Step {
    Push(usize, usize),
    PushAll(Vec<usize>, usize),
    Pop(usize),
    Subscribe(usize, usize),
    Take(usize, usize, usize),
    Accept(usize),
    GiveBack(usize),
    Remove(usize),
    Full(bool),
    Broken(bool),
    /// The last record that was pushed to a disk cannot be read.
    Lose(usize),
    Reload,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let channel = || 0..CHANNELS.len();
    let length = || prop_oneof![20 => 8..40_usize, 1 => Just(150_usize), 1 => Just(500_usize)];
    prop_oneof![
        20 => (channel(), length()).prop_map(|(channel, length)| Step::Push(channel, length)),
        8 => (prop::collection::vec(channel(), 0..5), length()).prop_map(|(channels, length)| Step::PushAll(channels, length)),
        12 => channel().prop_map(Step::Pop),
        2 => (channel(), 0..SUBSCRIBERS.len()).prop_map(|(channel, subscriber)| Step::Subscribe(channel, subscriber)),
        14 => (channel(), 0..SUBSCRIBERS.len(), 0..150_usize).prop_map(|(channel, subscriber, max)| Step::Take(channel, subscriber, max)),
        8 => (0..8_usize).prop_map(Step::Accept),
        6 => (0..8_usize).prop_map(Step::GiveBack),
        1 => channel().prop_map(Step::Remove),
        2 => any::<bool>().prop_map(Step::Full),
        1 => any::<bool>().prop_map(Step::Broken),
        2 => (0..4_usize).prop_map(Step::Lose),
        1 => Just(Step::Reload),
        1 => Just(Step::Crash),
    ]
}

/// The queues of a channel by their names; records are in the order of their numbers, with which they begin.
type Queues = BTreeMap<String, Vec<Vec<u8>>>;

struct Model {
    store: Store,
    disk: Option<TestDisk>,
    dir: tempfile::TempDir,
    redeliver: bool,
    keeps_all: bool,
    channels: BTreeMap<&'static str, Queues>,
    /// What was taken: of which channel and queue.
    taken: Vec<(Taken, &'static str, String, Vec<u8>)>,
    consumers: BTreeMap<QueueId, ConsumerId>,
    number: u64,
    /// Records that may be missing.
    lost: Vec<Vec<u8>>,
    /// A queue may be above its limit: records were loaded or given back.
    above: bool,
}

impl Model {
    fn new(disk: Option<bool>, redeliver: bool) -> Self {
        let disk = disk.map(TestDisk::new);
        Self {
            store: store(SIZE, redeliver, disk.as_ref()),
            keeps_all: disk.as_ref().is_some_and(Disk::keeps_all),
            disk,
            dir: tempfile::tempdir().unwrap(),
            redeliver,
            channels: BTreeMap::new(),
            taken: Vec::new(),
            consumers: BTreeMap::new(),
            number: 0,
            lost: Vec::new(),
            above: false,
        }
    }

    fn record(&mut self, length: usize) -> Vec<u8> {
        self.number += 1;
        let mut record = self.number.to_be_bytes().to_vec();
        record.resize(length, b'.');
        record
    }

    fn push(&mut self, channels: &[usize], length: usize, all: bool) {
        let record = self.record(length);
        let names: Vec<_> = channels.iter().map(|channel| CHANNELS[*channel]).collect();
        let result = if all { self.store.push_all(&names, &record) } else { self.store.push(names[0], &record) };
        let expected = self.expected(&names, length as u64 + 8);
        match &result {
            Ok(count) => {
                assert_ne!(expected, Some(false), "there is no room");
                let mut pushed = 0;
                for name in names {
                    let queues = self.channels.entry(name).or_insert_with(|| Queues::from([(name.to_owned(), vec![])]));
                    queues.values_mut().for_each(|queue| queue.push(record.clone()));
                    pushed += queues.len() as u64;
                }
                assert_eq!(*count, pushed);
            }
            Err(PushError::Disk(DiskError::Full(_))) => assert!(self.disk.as_ref().unwrap().state().full),
            Err(error) => assert_eq!(expected, Some(false), "{error}"),
        }
    }

    /// Whether a record finds room, if it is known.
    fn expected(&self, names: &[&'static str], cost: u64) -> Option<bool> {
        if let Some(disk) = &self.disk {
            return (!disk.state().full).then_some(true);
        }
        let mut planned = BTreeMap::new();
        let fits = names.iter().all(|name| {
            let limit = self.store.options.sizes.of(name);
            let more = *planned.entry(*name).and_modify(|more| *more += cost).or_insert(cost);
            let queues = self.channels.get(*name).into_iter().flat_map(BTreeMap::values);
            let most = queues.map(|queue| queue.iter().map(|record| record.len() as u64 + 8).sum()).max().unwrap_or(0);
            most + more <= limit
        });
        Some(fits)
    }

    /// Compares what came out of a queue with what should.
    fn came(lost: &[Vec<u8>], queue: &mut Vec<Vec<u8>>, record: &[u8]) {
        while queue.first().is_some_and(|first| first != record && lost.contains(first)) {
            queue.remove(0);
        }
        assert_eq!(queue.first().map(Vec::as_slice), Some(record));
        queue.remove(0);
    }

    /// Nothing came out of a queue.
    fn nothing_came(&mut self, channel: &str, queue: &str) {
        let problem = self.store.settle().is_err();
        let queue = self.channels.get_mut(channel).unwrap().get_mut(queue).unwrap();
        let all_lost = queue.iter().all(|record| self.lost.contains(record));
        assert!(problem || all_lost, "{} records are not given out", queue.len());
        if !problem {
            queue.clear();
        }
    }

    fn pop(&mut self, channel: &'static str) {
        let mut popped = None;
        let result = self.store.pop(channel, &mut |record| popped = Some(record.to_vec()));
        match (result, self.channels.get_mut(channel)) {
            (Popped::Missing, None) => {}
            (Popped::Subscribed, Some(queues)) => assert!(!queues.contains_key(channel)),
            (Popped::Taken, Some(queues)) => Self::came(&self.lost, queues.get_mut(channel).unwrap(), &popped.unwrap()),
            (Popped::Empty, Some(_)) => self.nothing_came(channel, channel),
            (result, queues) => panic!("{result:?} of {queues:?}"),
        }
    }

    fn subscribe(&mut self, channel: &'static str, subscriber: &str) -> (QueueId, String) {
        let queue = self.store.subscribe(channel, subscriber).unwrap();
        let name = format!("{subscriber}@{channel}");
        let queues = self.channels.entry(channel).or_default();
        let first = queues.remove(channel).unwrap_or_default();
        queues.entry(name.clone()).or_insert(first);
        assert_eq!(self.store.queue_name(queue), Some(&*name));
        (queue, name)
    }

    fn take(&mut self, channel: &'static str, subscriber: &str, max: usize) {
        let (queue, name) = self.subscribe(channel, subscriber);
        let consumer = *self.consumers.entry(queue).or_insert_with(|| self.store.join(queue, Waker::noop()));
        let mut out = Vec::new();
        let Some(taken) = self.store.take(queue, consumer, max, &mut out) else {
            assert!(out.is_empty());
            return self.nothing_came(channel, &name);
        };
        let records = records(&out);
        assert_eq!(records.len() as u64, taken.to - taken.from);
        assert!(records.len() == 1 || out.len() <= max);
        assert_eq!(taken.bytes as usize, out.len() - 8 * records.len());
        let model = self.channels.get_mut(channel).unwrap().get_mut(&name).unwrap();
        records.iter().for_each(|record| Self::came(&self.lost, model, record));
        self.taken.push((taken, channel, name, out));
    }

    fn give_back(&mut self, at: usize) {
        let (taken, channel, name, out) = self.taken.remove(at);
        let gone = self.store.is_removed(taken.queue);
        self.store.give_back(taken, &out);
        if !gone && self.redeliver {
            self.above = true;
            self.comes_back(channel, &name, &out);
        }
    }

    fn comes_back(&mut self, channel: &str, name: &str, out: &[u8]) {
        let queue = self.channels.get_mut(channel).unwrap().get_mut(name).unwrap();
        queue.extend(records(out));
        queue.sort();
    }

    fn remove(&mut self, channel: &'static str) {
        assert_eq!(self.store.remove_channel(channel), self.channels.remove(channel).is_some());
        self.store.settle().unwrap();
        let store = &self.store;
        self.consumers.retain(|queue, _| !store.is_removed(*queue));
        for at in (0..self.taken.len()).rev() {
            if self.taken[at].1 == channel {
                self.give_back(at);
            }
        }
    }

    /// A clean stop, or one without a dump, and a new start.
    fn reload(&mut self, clean: bool) {
        for at in (0..self.taken.len()).rev() {
            if clean {
                self.give_back(at);
            } else {
                let (taken, channel, name, out) = self.taken.remove(at);
                if self.redeliver && !self.store.is_removed(taken.queue) {
                    self.comes_back(channel, &name, &out);
                }
            }
        }
        if clean {
            let report = dump::dump(self.dir.path(), &mut self.store);
            assert!(report.is_ok(), "{report:?}");
            assert!(!self.keeps_all || report.queues.is_empty());
            let again = dump::dump(self.dir.path(), &mut self.store);
            assert!(again.is_ok() && again.queues.is_empty(), "{again:?}");
            dump::done(self.dir.path()).unwrap();
        }
        self.consumers.clear();
        self.store = store(SIZE, self.redeliver, self.disk.as_ref());
        if let Some(disk) = &self.disk {
            self.store.recover(disk.reopen()).unwrap();
        }
        let loaded = load::load(self.dir.path(), &mut self.store).unwrap();
        assert!(loaded.ignored.is_empty() && loaded.files.iter().all(|file| file.damage.is_none()), "{loaded:?}");
        assert!(loaded.delete_loaded().is_empty());
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 0);
        // What is lost has been in memory, and is saved, or is gone.
        let (store, all) = (&self.store, self.disk.is_some());
        for queues in self.channels.values_mut() {
            // Without a disk nobody knows of queues without records.
            queues.retain(|name, records| {
                let known = store.queue_names().iter().any(|other| **other == **name);
                assert!(known || (records.iter().all(|record| self.lost.contains(record))), "{name} is gone");
                assert!(known || !all);
                known
            });
        }
        self.channels.retain(|_, queues| !queues.is_empty());
        self.above = true;
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Push(channel, length) => self.push(&[channel], length, false),
            Step::PushAll(channels, length) => self.push(&channels, length, true),
            Step::Pop(channel) => self.pop(CHANNELS[channel]),
            Step::Subscribe(channel, subscriber) => drop(self.subscribe(CHANNELS[channel], SUBSCRIBERS[subscriber])),
            Step::Take(channel, subscriber, max) => self.take(CHANNELS[channel], SUBSCRIBERS[subscriber], max),
            Step::Accept(at) if at < self.taken.len() => self.store.accept(self.taken.remove(at).0),
            Step::GiveBack(at) if at < self.taken.len() => self.give_back(at),
            Step::Accept(_) | Step::GiveBack(_) => {}
            Step::Remove(channel) => self.remove(CHANNELS[channel]),
            Step::Full(full) => self.fault(|disk| disk.full = full),
            Step::Broken(broken) => self.fault(|disk| disk.broken = broken),
            Step::Lose(nth) => self.lose(nth),
            Step::Reload => self.reload(true),
            Step::Crash if self.keeps_all => self.reload(false),
            Step::Crash => {}
        }
        self.check();
    }

    fn fault(&self, set: impl FnOnce(&mut super::disk::State)) {
        if let Some(disk) = &self.disk {
            set(&mut disk.state());
        }
    }

    fn lose(&mut self, nth: usize) {
        let Some(disk) = &self.disk else { return };
        let mut state = disk.state();
        let record = state.queues.values().nth(nth).and_then(|queue| queue.kept().pop());
        if let Some(record) = record {
            self.lost.push(record.clone());
            state.lost.insert(record);
        }
    }

    fn check(&self) {
        let mut names = Vec::new();
        self.store.queues(None, &mut |name, totals| {
            let channel = names::QueueName::parse(name).unwrap().channel;
            let model = &self.channels[channel][name];
            let found = totals.records_memory + totals.records_overflow;
            if self.lost.is_empty() {
                assert_eq!(found, model.len() as u64);
                let bytes: usize = model.iter().map(Vec::len).sum();
                assert_eq!(totals.bytes_memory - 8 * totals.records_memory + totals.bytes_overflow, bytes as u64);
            }
            let largest = model.iter().map(|record| record.len() as u64 + 8).max().unwrap_or(0);
            assert!(self.above || totals.bytes_memory <= totals.limit.max(largest), "{totals:?}");
            names.push(name.to_owned());
            ControlFlow::Continue(())
        });
        let model: Vec<_> = self.channels.values().flat_map(BTreeMap::keys).collect();
        let mut sorted = names.clone();
        sorted.sort();
        let mut expected: Vec<_> = model.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(sorted, expected);
        // From any of them on the others follow.
        for (at, name) in names.iter().enumerate() {
            let mut rest = Vec::new();
            self.store.queues(Some(name), &mut |name, _| {
                rest.push(name.to_owned());
                ControlFlow::Continue(())
            });
            assert_eq!(rest, names[at + 1..]);
        }
    }

    /// Takes everything out in the end.
    fn finish(mut self) {
        self.fault(|disk| (disk.full, disk.broken) = (false, false));
        while !self.taken.is_empty() {
            self.give_back(0);
        }
        let _problem = self.store.settle();
        for channel in CHANNELS {
            let Some(queues) = self.channels.get(channel) else { continue };
            let names: Vec<_> = queues.keys().cloned().collect();
            for name in names {
                while !self.channels[channel][&name].is_empty() {
                    match name.split_once('@') {
                        Some((subscriber, _)) => {
                            self.take(channel, subscriber, 100);
                            self.taken.drain(..).for_each(|(taken, ..)| self.store.accept(taken));
                        }
                        None => self.pop(channel),
                    }
                }
            }
        }
        self.store.settle().unwrap();
        let totals = self.store.totals();
        assert_eq!((totals.bytes_memory, totals.records_memory), (0, 0));
        if let Some(disk) = &self.disk {
            for queue in disk.state().queues.values() {
                let left = queue.kept();
                assert!(left.iter().all(|record| self.lost.contains(record)), "{left:?} stays on disk");
            }
        }
    }
}

fn run(disk: Option<bool>, redeliver: bool, steps: Vec<Step>) {
    let mut model = Model::new(disk, redeliver);
    steps.into_iter().for_each(|step| model.run(step));
    model.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn in_memory(redeliver in any::<bool>(), steps in prop::collection::vec(step(), 0..150)) {
        run(None, redeliver, steps);
    }

    #[test]
    fn with_what_finds_no_room_on_disk(redeliver in any::<bool>(), steps in prop::collection::vec(step(), 0..150)) {
        run(Some(false), redeliver, steps);
    }

    #[test]
    fn with_everything_on_disk(redeliver in any::<bool>(), steps in prop::collection::vec(step(), 0..150)) {
        run(Some(true), redeliver, steps);
    }
}

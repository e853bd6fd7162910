//! Does what is to be done, one thing after the other.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overstory_model::{Clock, State};
use overstory_node::inspect::Finding;
use tokio::time::Instant;

use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::damages::Damage;
use crate::disk::Disk;
use crate::recovery;
use crate::rewrites::AsOf;
use crate::storage::Storage;

use super::archive::{self, Unpack};
use super::count::Count;
use super::plan::{self, Action, Policy};
use super::rewrite::{Rewrite, is_packed};
use super::trust::Trust;
use super::worker::Worker;

/// From one look at the ages of buckets to the next.
const EVERY: Duration = Duration::from_secs(3600);
/// From one comparison of all files to the next, in looks.
const COMPARE: u32 = 24;
/// Buckets that are looked at at once.
const BATCH: usize = 256;
/// Buckets that are remembered as packed, and problems that are remembered.
const REMEMBERED: usize = 100_000;
const PROBLEMS: usize = 100;
/// How many times as long as it worked the thread rests.
const REST: u32 = 3;
/// Buckets that are smaller are not worth being packed.
const SMALLEST: u64 = 64 << 10;
/// Buckets that are not larger are not worth being compressed: they take a block of the file system all the same.
const ONE_BLOCK: u64 = 4096;

/// Keeps the buckets of a [`Storage`] in the background. Belongs to the node's thread.
pub struct Keeper {
    storage: Rc<Storage>,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    policy: Policy,
    worker: Worker,
    known: RefCell<Known>,
    pub(super) trust: RefCell<Trust>,
}

#[derive(Default)]
struct Known {
    /// What cannot be compressed, deleted or taken in, and why.
    problems: BTreeMap<String, String>,
    /// Buckets that end with an index, with their lengths.
    packed: HashMap<(Box<str>, BucketNumber), u64>,
}

impl Keeper {
    /// Makes a keeper and starts its thread, which waits.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(
        storage: Rc<Storage>,
        disk: Arc<dyn Disk>,
        dir: &Path,
        clock: Arc<dyn Clock>,
        policy: Policy,
    ) -> io::Result<Self> {
        Self::resting(storage, disk, dir, clock, policy, REST)
    }

    pub(super) fn resting(
        storage: Rc<Storage>,
        disk: Arc<dyn Disk>,
        dir: &Path,
        clock: Arc<dyn Clock>,
        policy: Policy,
        rest: u32,
    ) -> io::Result<Self> {
        let worker = Worker::start(disk, rest)?;
        let trust = RefCell::new(Trust::new(Instant::now(), clock.now().0, storage.last_written()));
        Ok(Self { storage, dir: dir.to_owned(), clock, policy, worker, known: RefCell::default(), trust })
    }

    /// Keeps the buckets, without end. What it is at when it is dropped is done again after the next start.
    pub async fn run(&self) {
        let dir = self.dir.clone();
        if let Err(error) = self.worker.perform(move |disk| recovery::sweep(disk, &dir)).await {
            tracing::warn!(target: "node.keeper", %error, "the files of removed channels are still there");
        }
        let counting = async {
            loop {
                self.count().await;
                tokio::time::sleep(EVERY).await;
            }
        };
        let keeping = async {
            loop {
                self.adopt().await;
                self.compare().await;
                for _ in 0..COMPARE {
                    self.retain().await;
                    tokio::time::sleep(EVERY).await;
                }
            }
        };
        tokio::join!(counting, keeping);
    }

    /// What cannot be done.
    pub fn findings(&self, out: &mut Vec<Finding>) {
        let known = self.known.borrow();
        if let Some(leap) = self.trust.borrow().leapt() {
            let days = leap.as_secs() / 86_400;
            let text = format!("the clock is {days} days ahead of what was seen before: nothing is deleted for a day");
            out.push(Finding { check: "retention", state: State::Major, text });
        } else if let Some((file, why)) = known.problems.last_key_value() {
            let text = format!("{} buckets cannot be compressed or taken in; {file}: {why}", known.problems.len());
            out.push(Finding { check: "retention", state: State::Minor, text });
        }
    }

    /// Counts what nobody has counted, each channel from its newest bucket on.
    pub(super) async fn count(&self) {
        let mut after: Option<Box<str>> = None;
        while let Some(channel) = self.storage.channels(after.as_deref(), 1).into_iter().next() {
            let mut before = None;
            while self.storage.channel_totals(&channel).is_some_and(|totals| totals.uncounted > 0)
                && let Some((number, entry)) = self.storage.previous(&channel, before)
            {
                before = Some(number);
                if entry.counted {
                    continue;
                }
                if let Err(error) = self.count_bucket(&channel, number, &entry).await {
                    tracing::warn!(target: "node.keeper", channel = &*channel, bucket = %number, %error, "a bucket cannot be counted");
                }
            }
            after = Some(channel);
        }
    }

    async fn count_bucket(&self, channel: &str, number: BucketNumber, entry: &Entry) -> io::Result<()> {
        let (path, length) = (self.path(channel, number), entry.length);
        let count = self.worker.perform(move |disk| Count::new(disk.open(&path)?, number, length)).await?;
        let count = self.worker.finish(count).await?;
        self.tell(channel, number, &count.damages);
        if count.ends_damaged() {
            // A part of a record at the end has to be cut off before anything is written behind it.
            self.rescan(channel, number).await;
        } else if self.storage.entry(channel, number) == Some(*entry) {
            self.storage.counted(channel, number, &count.entry());
        }
        Ok(())
    }

    /// Compares all files with the catalogue; reads those again that have another length.
    pub(super) async fn compare(&self) {
        self.each_batch(async |channel, batch| {
            let paths: Vec<_> = batch.iter().map(|(number, _)| self.path(channel, *number)).collect();
            let lengths = self.worker.perform(move |disk| Ok(paths.iter().map(|path| length(disk, path)).collect::<Vec<_>>()));
            let Ok(lengths) = lengths.await else { return };
            for ((number, entry), length) in batch.into_iter().zip(lengths) {
                let same = matches!(length, Ok(length) if length == entry.length);
                if !same && self.storage.entry(channel, number) == Some(entry) {
                    tracing::warn!(target: "node.keeper", channel, bucket = %number, "a file is not as the catalogue says");
                    self.rescan(channel, number).await;
                }
            }
        })
        .await;
    }

    /// Deletes, compresses and packs what is old enough.
    pub(super) async fn retain(&self) {
        let believed = self.look_at_clock();
        self.each_batch(async |channel, batch| {
            let mut ages = self.policy.ages(channel);
            ages.delete = ages.delete.filter(|_| believed);
            let now = self.policy.now(self.clock.now().0);
            for (number, action) in plan::plan(&batch, now, &ages) {
                let done = match action {
                    Action::Delete => self.delete(channel, number).await,
                    Action::Compress => self.compress(channel, number).await,
                    Action::Pack => self.pack(channel, number).await,
                };
                self.note(&format!("{channel}/{number}"), done);
            }
        })
        .await;
        self.forget_what_is_gone();
    }

    /// Whether it can be believed when it says that something is old.
    fn look_at_clock(&self) -> bool {
        let mut trust = self.trust.borrow_mut();
        let before = trust.leapt();
        let leapt = trust.look(Instant::now(), self.clock.now().0);
        if let Some(leap) = leapt.filter(|_| leapt != before) {
            let days = leap.as_secs() / 86_400;
            tracing::warn!(target: "node.keeper", days, "the clock has leapt ahead, nothing is deleted for a day");
        }
        leapt.is_none()
    }

    /// Forgets the problems of buckets and channels that were removed.
    fn forget_what_is_gone(&self) {
        let is_there = |file: &String| {
            let channel = file.split('/').next().unwrap_or_default();
            self.storage.has_channel(channel)
        };
        self.known.borrow_mut().problems.retain(|file, _| is_there(file));
    }

    /// Takes in what is archived.
    pub(super) async fn adopt(&self) {
        let mut after: Option<Box<str>> = None;
        while let Some(channel) = self.storage.channels(after.as_deref(), 1).into_iter().next() {
            let dir = self.dir.join(&*channel);
            let slots = {
                let dir = dir.clone();
                self.worker.perform(move |disk| archive::slots(disk, &dir)).await.unwrap_or_default()
            };
            for slot in slots {
                let dir = dir.clone();
                let numbers = self.worker.perform(move |disk| archive::in_slot(disk, &dir, slot)).await;
                for number in numbers.unwrap_or_default() {
                    let done = self.adopt_one(&channel, number).await;
                    self.note(&format!("{channel}/{number}.gz"), done);
                }
            }
            after = Some(channel);
        }
    }

    async fn delete(&self, channel: &str, number: BucketNumber) -> Result<(), String> {
        self.storage.remove_bucket(channel, number).await.map_err(|error| error.to_string())?;
        tracing::info!(target: "node.keeper", channel, bucket = %number, "an old bucket was deleted");
        Ok(())
    }

    async fn compress(&self, channel: &str, number: BucketNumber) -> Result<(), String> {
        let as_of = self.storage.as_of();
        // What is in memory is in the file then, if nothing comes after it.
        let Some(entry) = self.storage.entry(channel, number) else { return Ok(()) };
        if entry.length <= ONE_BLOCK {
            return Ok(());
        }
        let path = self.path(channel, number);
        // One that was written to meanwhile has its turn again.
        self.rewrite(channel, number, path, entry.length, (&as_of, entry.length)).await.map(|_| ())
    }

    async fn pack(&self, channel: &str, number: BucketNumber) -> Result<(), String> {
        let as_of = self.storage.as_of();
        let Some(entry) = self.storage.entry(channel, number) else { return Ok(()) };
        let key = (Box::from(channel), number);
        if entry.length < SMALLEST || self.known.borrow().packed.get(&key) == Some(&entry.length) {
            return Ok(());
        }
        let path = self.path(channel, number);
        let looked_at = path.clone();
        let packed = self.worker.perform(move |disk| is_packed(disk, &looked_at, entry.length)).await;
        if packed.map_err(|error| error.to_string())? {
            let packed = &mut self.known.borrow_mut().packed;
            if packed.len() >= REMEMBERED {
                packed.clear();
            }
            packed.insert(key, entry.length);
            return Ok(());
        }
        self.rewrite(channel, number, path, entry.length, (&as_of, entry.length)).await.map(|_| ())
    }

    async fn adopt_one(&self, channel: &str, number: BucketNumber) -> Result<(), String> {
        let path = self.path(channel, number);
        let archive = archive::path(&path);
        let as_of = self.storage.as_of();
        let delete = self.policy.ages(channel).delete;
        let age = plan::age(number, self.policy.now(self.clock.now().0));
        if !self.look_at_clock() || delete.is_none_or(|delete| age < delete) {
            if self.storage.entry(channel, number).is_some_and(|entry| entry.length > 0) {
                return Err("the bucket is there as well; the archive is left as it is".into());
            }
            let unpacked = path.with_extension("raw.new");
            let adopted = self.unpack(channel, number, &as_of, &archive, &unpacked).await;
            let removed = self.worker.perform(move |disk| disk.remove(&unpacked)).await;
            if !adopted? {
                return Err("records came into its bucket meanwhile; the archive is left as it is".into());
            }
            removed.map_err(|error| error.to_string())?;
        }
        let removed = self.worker.perform(move |disk| {
            disk.remove(&archive)?;
            disk.sync_dir(archive.parent().unwrap_or(&archive))
        });
        removed.await.map_err(|error| error.to_string())
    }

    /// False: the bucket has records of its own by now.
    async fn unpack(
        &self,
        channel: &str,
        number: BucketNumber,
        as_of: &AsOf,
        archive: &Path,
        to: &Path,
    ) -> Result<bool, String> {
        let (from, target) = (archive.to_owned(), to.to_owned());
        let unpack = self.worker.perform(move |disk| Unpack::new(disk, &from, &target)).await;
        let unpacked = match unpack {
            Ok(unpack) => self.worker.finish(unpack).await,
            Err(error) => Err(error),
        };
        let length = unpacked.map_err(|error| format!("the archive is damaged: {error}"))?.length;
        self.rewrite(channel, number, to.to_owned(), length, (as_of, 0)).await
    }

    /// Puts the records of a file into one of format 2, and that in place of the bucket's, if that is still the file
    /// with so many bytes that was known. False: it is not.
    async fn rewrite(
        &self,
        channel: &str,
        number: BucketNumber,
        from: PathBuf,
        length: u64,
        (as_of, expected): (&AsOf, u64),
    ) -> Result<bool, String> {
        let new = self.path(channel, number).with_extension("new");
        let written = self.write_new(channel, number, from, length, new.clone()).await;
        let replaced = match written {
            Ok((path, entry)) => {
                let replaced = self.storage.replace(channel, number, as_of, expected, path, entry).await;
                replaced.map_err(|error| error.to_string()).map(|replaced| (replaced, entry.length))
            }
            Err(error) => {
                // One that was never begun is not there.
                let _ = self.worker.perform(move |disk| disk.remove(&new)).await;
                Err(error)
            }
        };
        let (replaced, now) = replaced?;
        if replaced {
            self.storage.damages().forget(channel, number);
            tracing::info!(target: "node.keeper", channel, bucket = %number, before = length, now, "a bucket was compressed");
        }
        Ok(replaced)
    }

    async fn write_new(
        &self,
        channel: &str,
        number: BucketNumber,
        from: PathBuf,
        length: u64,
        to: PathBuf,
    ) -> Result<(PathBuf, Entry), String> {
        let level = self.policy.level;
        let text = |error: io::Error| error.to_string();
        let begin = self.worker.perform(move |disk| Rewrite::new(disk, &from, number, length, to, level));
        let written = self.worker.finish(begin.await.map_err(text)?).await.map_err(text)?;
        let (written, done) = self
            .worker
            .perform(move |_| {
                let done = written.done()?;
                Ok((written, done))
            })
            .await
            .map_err(text)?;
        done.ok_or_else(|| {
            self.tell(channel, number, written.damages());
            "it is damaged and stays as it is".to_owned()
        })
    }

    async fn rescan(&self, channel: &str, number: BucketNumber) {
        // The storage has told why it could not be read.
        let _ = self.storage.rescan(channel, number).await;
    }

    fn tell(&self, channel: &str, number: BucketNumber, damages: &[crate::walk::Damage]) {
        for damage in damages {
            let (offset, bytes, why) = (damage.offset, damage.bytes, damage.why);
            self.storage.damages().report(Damage { channel: channel.into(), number, offset, bytes, why });
        }
    }

    fn note(&self, file: &str, done: Result<(), String>) {
        let problems = &mut self.known.borrow_mut().problems;
        let Err(why) = done else {
            problems.remove(file);
            return;
        };
        if problems.get(file) != Some(&why) {
            tracing::warn!(target: "node.keeper", file, why, "a bucket cannot be kept as configured");
        }
        if problems.len() < PROBLEMS || problems.contains_key(file) {
            problems.insert(file.to_owned(), why);
        }
    }

    /// Goes through all buckets of all channels.
    async fn each_batch(&self, mut visit: impl AsyncFnMut(&str, Vec<(BucketNumber, Entry)>)) {
        let mut after: Option<Box<str>> = None;
        while let Some(channel) = self.storage.channels(after.as_deref(), 1).into_iter().next() {
            let mut last = None;
            loop {
                let batch = self.storage.entries(&channel, last, BATCH);
                let Some((number, _)) = batch.last() else { break };
                last = Some(*number);
                visit(&channel, batch).await;
                // Other requests have their turn.
                tokio::task::yield_now().await;
            }
            after = Some(channel);
        }
    }

    fn path(&self, channel: &str, number: BucketNumber) -> PathBuf {
        recovery::path(&self.dir, channel, number)
    }
}

fn length(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    disk.stat(path).map(|stat| stat.length)
}

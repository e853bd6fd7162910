//! Compares what the catalogue says with the directories, as far as names in them have changed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Bound;
use std::path::Path;

use crate::bucket::{BucketNumber, Slot};
use crate::catalogue::Entry;
use crate::catalogue::state::{ChannelState, NEVER, State, first_of_slot, in_slot, modified};
use crate::checkpoint;
use crate::disk::{Disk, Named};

use super::{Missing, OpenReport};

/// What a file is called, behind the name of its bucket, while it is being written to take the bucket's place.
pub(crate) const NEW: &str = ".new";

/// The comparison.
pub(super) struct Directories<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    pub(super) state: &'a mut State,
    pub(super) report: &'a mut OpenReport,
    /// Those with other times than the catalogue says: slots, and channels.
    pub(super) changed: Vec<(u32, Option<BucketNumber>)>,
    /// Whether something was not as the catalogue says that it does not call written to.
    pub(super) differs: bool,
}

impl Directories<'_> {
    /// Reads the data directory, and of the others those that have changed.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut known: HashMap<Box<str>, u32> = HashMap::new();
        for (id, channel) in &self.state.channels {
            known.insert(channel.name.clone(), *id);
        }
        for named in self.disk.list(self.dir)? {
            let is_channel = overstory_swarm::channel::check(named.name.as_bytes()).is_ok();
            if !named.is_dir && !named.is_file && is_channel {
                self.report.problem(format!("{}: no directory, it is not used", self.dir.join(&named.name).display()));
                continue;
            }
            if !named.is_dir || !is_channel {
                let ours = named.name.starts_with('.') || named.name.starts_with(checkpoint::FILE);
                self.report.strange += u64::from(!ours);
                continue;
            }
            let id = known.remove(&*named.name).unwrap_or_else(|| {
                let id = self.state.next_id;
                self.state.next_id += 1;
                self.differs = true;
                let channel = ChannelState::new(&named.name);
                self.state.channels.insert(id, channel);
                id
            });
            if let Err(error) = self.channel(id) {
                self.report.problem(format!("{}: {error}", self.dir.join(&named.name).display()));
            }
        }
        if !known.is_empty() {
            self.make_durable(self.dir);
        }
        for (name, id) in known {
            let buckets = self.state.channels.remove(&id).map(|channel| channel.buckets).unwrap_or_default();
            // A file that nobody got to make is not missed.
            let made = |number| self.state.touched.get(&(id, number)).is_none_or(|touched| touched.base.length > 0);
            let buckets = buckets.into_keys().filter(|number| made(*number)).count();
            self.state.touched.retain(|(other, _), _| *other != id);
            self.differs = true;
            if buckets > 0 {
                self.report.problem(format!("{name}: the directory is gone, with {buckets} buckets"));
            }
        }
        Ok(())
    }

    fn channel(&mut self, id: u32) -> io::Result<()> {
        let Some(mut channel) = self.state.channels.remove(&id) else { return Ok(()) };
        let path = self.dir.join(&*channel.name);
        let read = self.slots(id, &mut channel, &path);
        self.state.channels.insert(id, channel);
        read
    }

    fn slots(&mut self, id: u32, channel: &mut ChannelState, path: &Path) -> io::Result<()> {
        let now = modified(self.disk.stat(path)?.modified);
        if now.is_none() || now != channel.modified {
            self.changed.push((id, None));
            let slots: HashSet<BucketNumber> = {
                let names = self.disk.list(path)?;
                let slot = |named: &Named| Slot::parse(&named.name).filter(|_| named.is_dir)?.bucket("000");
                let slots: HashSet<BucketNumber> = names.iter().filter_map(slot).collect();
                self.report.strange += (names.len() - slots.len()) as u64;
                slots
            };
            let gone: Vec<_> = known_slots(channel).into_iter().filter(|slot| !slots.contains(slot)).collect();
            if !gone.is_empty() {
                self.make_durable(path);
            }
            for slot in gone {
                self.drop_slot(id, channel, slot);
            }
            if self.each_slot(id, channel, slots, path) {
                channel.modified = now;
            }
            return Ok(());
        }
        let slots = known_slots(channel);
        self.each_slot(id, channel, slots, path);
        Ok(())
    }

    /// One that cannot be read does not keep the others from being read. False: there was one.
    fn each_slot(
        &mut self,
        id: u32,
        channel: &mut ChannelState,
        slots: impl IntoIterator<Item = BucketNumber>,
        path: &Path,
    ) -> bool {
        let mut all = true;
        for slot in slots {
            let Err(error) = self.slot(id, channel, slot, path) else { continue };
            self.report.problem(format!("{}: {error}", path.join(slot.slot().to_string()).display()));
            // The next start looks for it, whatever is said of the channel by then.
            channel.slots.insert(slot, NEVER);
            (all, self.differs) = (false, true);
        }
        all
    }

    fn slot(&mut self, id: u32, channel: &mut ChannelState, slot: BucketNumber, path: &Path) -> io::Result<()> {
        let path = path.join(slot.slot().to_string());
        let now = match self.disk.stat(&path) {
            Ok(stat) => modified(stat.modified),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if in_slot(&channel.buckets, slot).next().is_some() {
                    self.make_durable(path.parent().unwrap_or(self.dir));
                }
                self.drop_slot(id, channel, slot);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if now.is_some() && channel.slots.get(&slot).copied() == now {
            return Ok(());
        }
        self.changed.push((id, Some(slot)));
        self.files(id, channel, slot, &path)?;
        if let Some(now) = now {
            channel.slots.insert(slot, now);
        }
        Ok(())
    }

    fn files(&mut self, id: u32, channel: &mut ChannelState, slot: BucketNumber, path: &Path) -> io::Result<()> {
        let mut seen = HashSet::new();
        for named in self.disk.list(path)? {
            if !named.is_file && (named.is_dir || slot.slot().bucket(&named.name).is_some()) {
                if slot.slot().bucket(&named.name).is_some() {
                    self.report
                        .problem(format!("{}: no regular file, it is not used", path.join(&named.name).display()));
                }
                continue;
            }
            let Some(number) = slot.slot().bucket(&named.name) else {
                self.other(slot, &named.name, path);
                continue;
            };
            if self.state.touched.contains_key(&(id, number)) {
                seen.insert(number);
                continue;
            }
            let length = match self.disk.stat(&path.join(&named.name)) {
                Ok(stat) => stat.length,
                // Somebody has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            seen.insert(number);
            let known = channel.buckets.get(&number).copied();
            if known.is_none_or(|entry| entry.length != length) {
                let missing = known
                    .and_then(|was| Missing::of_length(self.disk, self.dir, (&channel.name, number), &was, length));
                missing.into_iter().for_each(|missing| self.report.missing(missing));
                channel.buckets.insert(number, found(length));
                self.report.found += 1;
                self.differs = true;
            }
        }
        let gone: Vec<_> = in_slot(&channel.buckets, slot).filter(|number| !seen.contains(number)).collect();
        if !gone.is_empty() {
            self.make_durable(path);
        }
        for number in gone {
            let touched = self.state.touched.get(&(id, number));
            if touched.is_none_or(|touched| touched.base.length > 0) {
                self.report.problem(format!("{}/{number}: the file is gone", channel.name));
            }
            self.differs |= self.state.touched.remove(&(id, number)).is_none();
            channel.buckets.remove(&number);
        }
        Ok(())
    }

    /// A name that is not there, and was, may have been removed by a process that was killed before that was durable. It
    /// must not come back when nobody looks for it any more.
    fn make_durable(&self, path: &Path) {
        // One that comes back all the same is a file that is found.
        let _ = self.disk.sync_dir(path);
    }

    /// A file that is no bucket.
    fn other(&mut self, slot: BucketNumber, name: &str, path: &Path) {
        let is = |suffix| name.strip_suffix(suffix).is_some_and(|name| slot.slot().bucket(name).is_some());
        if is(NEW) || is(".raw.new") || is(".rest.new") {
            // It never took the bucket's place.
            let removed = self.disk.remove(&path.join(name));
            if let Err(error) = removed {
                self.report.problem(format!("{}: {error}", path.join(name).display()));
            }
        } else if is(".gz") {
            self.report.archives += 1;
        }
    }

    fn drop_slot(&mut self, id: u32, channel: &mut ChannelState, slot: BucketNumber) {
        let gone: Vec<_> = in_slot(&channel.buckets, slot).collect();
        let mut missed = 0;
        for number in gone {
            let touched = self.state.touched.remove(&(id, number));
            self.differs |= touched.is_none();
            missed += u64::from(touched.is_none_or(|touched| touched.base.length > 0));
            channel.buckets.remove(&number);
        }
        channel.slots.remove(&slot);
        if missed > 0 {
            self.report.problem(format!(
                "{}/{}: the directory is gone, with {missed} buckets",
                channel.name,
                slot.slot()
            ));
        }
    }
}

/// A bucket that is only known by its file.
const fn found(length: u64) -> Entry {
    if length == 0 { Entry::EMPTY } else { Entry { counted: false, length, ..Entry::EMPTY } }
}

/// The slots that have buckets, or directories.
fn known_slots(channel: &ChannelState) -> BTreeSet<BucketNumber> {
    let mut slots: BTreeSet<_> = channel.slots.keys().copied().collect();
    let mut after = Bound::Unbounded;
    while let Some((number, _)) = channel.buckets.range((after, Bound::Unbounded)).next() {
        slots.insert(first_of_slot(*number));
        after = Bound::Excluded(BucketNumber::of(number.first_key() | 0xff_ffff));
    }
    slots
}

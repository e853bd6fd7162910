//! What the catalogue's file says, read from its front to its end.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::SystemTime;

use memchr::memmem;

use crate::bucket::BucketNumber;
use crate::disk::File;

use super::Entry;
use super::entries::{self, FRAME, HEAD, Head, Item, Next, Write};

/// Bytes that are read at once.
const WINDOW: usize = 1 << 20;

/// Bytes of the entries of a bucket and of a directory.
const BUCKET: u64 = FRAME as u64 + 37;
const DIRECTORY: u64 = FRAME as u64 + 24;
/// Numbers of channels are smaller: there is always a next one.
const MAX_ID: u32 = 1 << 31;

/// What the entries up to a place say.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) channels: BTreeMap<u32, ChannelState>,
    /// Buckets that were written to since they were durable.
    pub(crate) touched: BTreeMap<(u32, BucketNumber), Touched>,
    /// The boot of the machine in which the last process wrote.
    pub(crate) boot: Vec<u8>,
    /// Whether that process ended in order.
    pub(crate) closed: bool,
    /// The number of the next channel.
    pub(crate) next_id: u32,
}

#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    pub(crate) name: Box<str>,
    pub(crate) buckets: BTreeMap<BucketNumber, Entry>,
    /// Buckets in order, of which the map will be made at once: as long as that is empty.
    sorted: Vec<(BucketNumber, Entry)>,
    /// When names in the directory were changed the last time.
    pub(crate) modified: Option<Modified>,
    /// The same of the slots' directories, by their first buckets.
    pub(crate) slots: HashMap<BucketNumber, Modified>,
}

/// Seconds and nanoseconds since the epoch.
pub(crate) type Modified = (u64, u32);

/// The time of a directory that has to be read.
pub(crate) const NEVER: Modified = (u64::MAX, 0);

#[derive(Debug, Default, Clone)]
pub(crate) struct Touched {
    /// What is durable.
    pub(crate) base: Entry,
    /// What came behind it, in the order of the writes.
    pub(crate) writes: Vec<Write>,
    /// Another file may have been renamed over the bucket's.
    pub(crate) replaced: bool,
    /// How many of the writes stand in the file, behind the base. None: not even that.
    pub(crate) told: Option<usize>,
}

impl ChannelState {
    /// A channel without buckets.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The buckets, one by one.
    fn buckets(&mut self) -> &mut BTreeMap<BucketNumber, Entry> {
        if !self.sorted.is_empty() {
            self.buckets = std::mem::take(&mut self.sorted).into_iter().collect();
        }
        &mut self.buckets
    }

    fn set(&mut self, number: BucketNumber, entry: Entry) {
        if !self.buckets.is_empty() {
            self.buckets.insert(number, entry);
        } else if self.sorted.last().is_none_or(|(last, _)| *last < number) {
            self.sorted.push((number, entry));
        } else if let Ok(at) = self.sorted.binary_search_by_key(&number, |(number, _)| *number)
            && let Some((_, known)) = self.sorted.get_mut(at)
        {
            *known = entry;
        } else {
            self.buckets().insert(number, entry);
        }
    }
}

impl State {
    /// Takes an entry in; [`State::finish`] has to follow the last one. False: it cannot stand at this place.
    pub(crate) fn apply(&mut self, item: &Item<'_>) -> bool {
        self.closed &= *item == Item::Mark;
        match *item {
            Item::Run { boot } => self.boot = boot.to_vec(),
            Item::Channel { id, name } => {
                let Ok(name) = overstory_swarm::channel::check(name) else { return false };
                if id >= MAX_ID || self.channels.contains_key(&id) {
                    return false;
                }
                self.channels.insert(id, ChannelState::new(name));
                self.next_id = self.next_id.max(id.saturating_add(1));
            }
            Item::ChannelRemoved { id } => {
                self.channels.remove(&id);
                let gone: Vec<_> = self.touched.range((id, FIRST)..=(id, LAST)).map(|(key, _)| *key).collect();
                for key in gone {
                    self.touched.remove(&key);
                }
            }
            Item::Bucket { id, number, entry, more } => {
                let Some(channel) = self.channels.get_mut(&id) else { return false };
                channel.set(number, entry);
                if !more {
                    self.touched.remove(&(id, number));
                } else if let Some(touched) = self.touched.get_mut(&(id, number)) {
                    touched.base = entry;
                    touched.replaced = false;
                    touched.writes.retain(|write| write.end() > entry.length);
                } else {
                    self.touched.insert((id, number), Touched { base: entry, ..Touched::default() });
                }
            }
            Item::BucketRemoved { id, number } => {
                let Some(channel) = self.channels.get_mut(&id) else { return false };
                channel.buckets().remove(&number);
                self.touched.remove(&(id, number));
            }
            Item::Touched { id, number, entry, only } => {
                let Some(channel) = self.channels.get_mut(&id) else { return false };
                if only || !self.touched.contains_key(&(id, number)) {
                    channel.set(number, entry);
                    self.touched.insert((id, number), Touched { base: entry, ..Touched::default() });
                }
            }
            Item::Written { id, number, write } => {
                let Some(touched) = self.touched.get_mut(&(id, number)) else { return false };
                touched.writes.push(write);
            }
            Item::Replacing { id, number } => {
                let Some(channel) = self.channels.get_mut(&id) else { return false };
                let base = *channel.buckets().entry(number).or_insert(Entry::EMPTY);
                let touched =
                    self.touched.entry((id, number)).or_insert_with(|| Touched { base, ..Touched::default() });
                touched.replaced = true;
            }
            Item::Directory { id, slot, seconds, nanos } => {
                let Some(channel) = self.channels.get_mut(&id) else { return false };
                match slot {
                    None => channel.modified = Some((seconds, nanos)),
                    Some(slot) => {
                        channel.slots.insert(slot, (seconds, nanos));
                    }
                }
            }
            Item::Mark => {}
            Item::Closed => self.closed = true,
        }
        true
    }

    /// All entries were taken in.
    pub(crate) fn finish(&mut self) {
        for channel in self.channels.values_mut() {
            channel.buckets();
        }
    }

    /// Bytes of a file that says this, but for what is written to.
    pub(crate) fn size(&self) -> u64 {
        let of = |channel: &ChannelState| {
            let (buckets, directories) = (channel.buckets.len() as u64, channel.slots.len() as u64 + 1);
            (FRAME + 4 + channel.name.len()) as u64 + BUCKET * buckets + DIRECTORY * directories
        };
        (HEAD + FRAME + self.boot.len()) as u64 + self.channels.values().map(of).sum::<u64>()
    }

    /// Forgets slots without buckets whose directories are gone.
    pub(crate) fn drop_slots(&mut self, is_gone: impl Fn(&str, &str) -> bool) {
        for channel in self.channels.values_mut() {
            let (name, buckets) = (&*channel.name, &channel.buckets);
            let stays = |slot| in_slot(buckets, slot).next().is_some() || !is_gone(name, &slot.slot().to_string());
            channel.slots.retain(|slot, _| stays(*slot));
        }
    }

    /// Gives the entries from which the same state is read, in the order in which they belong.
    pub(crate) fn items(&self, out: &mut impl FnMut(&Item<'_>) -> io::Result<()>) -> io::Result<()> {
        out(&Item::Run { boot: &self.boot })?;
        for (&id, channel) in &self.channels {
            out(&Item::Channel { id, name: channel.name.as_bytes() })?;
            let mut buckets = channel.buckets.iter().peekable();
            let mut slots = 0;
            while let Some((&number, &entry)) = buckets.next() {
                out(&Item::Bucket { id, number, entry, more: false })?;
                // A directory is told of behind what is in it: of a file that is cut none is taken for known that is not.
                let first = first_of_slot(number);
                if buckets.peek().is_none_or(|(next, _)| first_of_slot(**next) != first)
                    && let Some(&(seconds, nanos)) = channel.slots.get(&first)
                {
                    out(&Item::Directory { id, slot: Some(first), seconds, nanos })?;
                    slots += 1;
                }
            }
            // In a slot without buckets there may be some again.
            let rest = channel.slots.iter().filter(|(slot, _)| in_slot(&channel.buckets, **slot).next().is_none());
            for (&slot, &(seconds, nanos)) in rest.take(channel.slots.len() - slots) {
                out(&Item::Directory { id, slot: Some(slot), seconds, nanos })?;
            }
            if let Some((seconds, nanos)) = channel.modified {
                out(&Item::Directory { id, slot: None, seconds, nanos })?;
            }
        }
        for (&(id, number), touched) in &self.touched {
            touched.items(id, number, out)?;
        }
        if self.closed { out(&Item::Closed) } else { Ok(()) }
    }
}

impl Touched {
    /// The entries that say this of a bucket, whatever was told of it.
    pub(crate) fn items(
        &self,
        id: u32,
        number: BucketNumber,
        out: &mut impl FnMut(&Item<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        out(&Item::Touched { id, number, entry: self.base, only: true })?;
        if self.replaced {
            out(&Item::Replacing { id, number })?;
        }
        self.writes.iter().try_for_each(|&write| out(&Item::Written { id, number, write }))
    }
}

const FIRST: BucketNumber = BucketNumber::of(0);
const LAST: BucketNumber = BucketNumber::of(u64::MAX);

/// A time as it is kept; none before 1970.
pub(crate) fn modified(time: SystemTime) -> Option<Modified> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((since.as_secs(), since.subsec_nanos()))
}

/// The buckets of a slot.
pub(crate) fn in_slot(
    buckets: &BTreeMap<BucketNumber, Entry>,
    slot: BucketNumber,
) -> impl Iterator<Item = BucketNumber> {
    let last = BucketNumber::of(slot.first_key() | 0xff_ffff);
    buckets.range(slot..=last).map(|(number, _)| *number)
}

/// The first bucket of a bucket's slot, which stands for the slot.
pub(crate) fn first_of_slot(number: BucketNumber) -> BucketNumber {
    BucketNumber::of(number.first_key() & !0xff_ffff)
}

/// How the reading of a file ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its last entry.
    Good,
    /// With a part of an entry, or what a crash has left there.
    Torn,
    /// In front of entries that were durable.
    Damaged,
    /// At once: a later version of the node has written it.
    Newer(u32),
}

/// Reads a file: what it says, where its last good entry ends, and what is there.
pub(crate) fn load(file: &dyn File) -> io::Result<(State, u64, End)> {
    load_to(file, file.len()?)
}

/// The same of the front of a file.
pub(crate) fn load_to(file: &dyn File, length: u64) -> io::Result<(State, u64, End)> {
    let mut state = State::default();
    let (end, how) = read(file, length, &mut state)?;
    state.finish();
    Ok((state, end, how))
}

fn read(file: &dyn File, length: u64, state: &mut State) -> io::Result<(u64, End)> {
    let mut window = Window { file, length, start: 0, bytes: Vec::new(), taken: 0 };
    window.more()?;
    match entries::read_head(window.rest()) {
        Head::Good => window.taken = HEAD,
        Head::Newer(version) => return Ok((0, End::Newer(version))),
        Head::Damaged => return Ok((0, End::Damaged)),
    }
    loop {
        match entries::next(window.rest()) {
            Next::Item(item, size) if state.apply(&item) => window.taken += size,
            Next::Short => {
                let (had, end) = (window.rest().len(), window.end());
                if window.more()? {
                    continue;
                }
                if had == 0 {
                    return Ok((end, End::Good));
                }
                let marked = window.find_mark()?;
                return Ok((end - had as u64, if marked { End::Damaged } else { End::Torn }));
            }
            Next::Item(..) | Next::Bad => {
                let end = window.end() - window.rest().len() as u64;
                let marked = window.find_mark()?;
                return Ok((end, if marked { End::Damaged } else { End::Torn }));
            }
        }
    }
}

struct Window<'a> {
    file: &'a dyn File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    taken: usize,
}

impl Window<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    const fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Reads on; false at the end of the file.
    fn more(&mut self) -> io::Result<bool> {
        self.start += self.taken as u64;
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let had = self.bytes.len();
        let at = self.start + had as u64;
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(WINDOW);
        self.bytes.resize(had + left.min(WINDOW), 0);
        let read = self.bytes.get_mut(had..).map_or(Ok(0), |room| self.file.read_at(room, at))?;
        self.bytes.truncate(had + read);
        Ok(read > 0)
    }

    /// Whether all up to some place behind here was durable.
    fn find_mark(&mut self) -> io::Result<bool> {
        let mut mark = Vec::new();
        Item::Mark.write(&mut mark);
        loop {
            if memmem::find(self.rest(), &mark).is_some() {
                return Ok(true);
            }
            self.taken = self.bytes.len().saturating_sub(mark.len()).max(self.taken);
            if !self.more()? {
                return Ok(false);
            }
        }
    }
}

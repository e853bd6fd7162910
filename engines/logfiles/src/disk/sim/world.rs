//! What the disk holds: files and directories, each as it is and as far as it is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::{Named, Stat};
use super::Call;

/// What is written at once.
pub(super) const PAGE: usize = 4096;
/// What is lost or kept as a whole.
pub(super) const SECTOR: usize = 512;

pub(super) type Ino = u64;
const ROOT: Ino = 0;

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) nodes: HashMap<Ino, Node>,
    /// Changes of names that are not durable yet, in order.
    pub(super) pending: Vec<Renaming>,
    next: Ino,
    ticks: u64,
    /// Calls between two ticks of the clock.
    pub(super) tick_calls: u64,
    pub(super) free: Option<u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) bad_files: Vec<(PathBuf, Call, io::ErrorKind)>,
    /// Changing calls until the power is cut; 0 once it is.
    pub(super) power: Option<u64>,
    /// Whether the last call was the one that the power was cut in.
    dying: bool,
    pub(super) changes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) changed: u64,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File { live: Vec<u8>, durable: Vec<u8>, dirty: BTreeSet<usize> },
    Dir { live: BTreeMap<String, Ino>, durable: BTreeMap<String, Ino>, durable_changed: u64 },
}

impl Content {
    const fn empty_dir() -> Self {
        Self::Dir { live: BTreeMap::new(), durable: BTreeMap::new(), durable_changed: 0 }
    }
}

/// Names that change together.
#[derive(Debug, Clone)]
pub(super) struct Renaming {
    /// Directory, name, and what it stands for from now on.
    pub(super) names: Vec<(Ino, String, Option<Ino>)>,
    pub(super) at: u64,
}

impl Renaming {
    pub(super) fn shares_a_name(&self, other: &Self) -> bool {
        self.names.iter().any(|(dir, name, _)| other.names.iter().any(|(d, n, _)| d == dir && n == name))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) call: Call,
    pub(super) after: u64,
    pub(super) times: u64,
    pub(super) kind: io::ErrorKind,
}

impl Default for World {
    fn default() -> Self {
        let root = Node { changed: 0, content: Content::empty_dir() };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            pending: Vec::new(),
            next: ROOT + 1,
            ticks: 0,
            tick_calls: 1,
            free: None,
            faults: Vec::new(),
            bad_files: Vec::new(),
            power: None,
            dying: false,
            changes: 0,
        }
    }
}

impl World {
    /// Counts a call and says whether it fails.
    pub(super) fn call(&mut self, call: Call) -> io::Result<()> {
        let off = || io::Error::other("the power is off");
        self.dying = false;
        if self.power == Some(0) {
            return Err(off());
        }
        if call.changes() {
            self.changes += 1;
            if let Some(left) = &mut self.power {
                *left -= 1;
                if *left == 0 {
                    self.dying = true;
                    return Err(off());
                }
            }
        }
        for fault in &mut self.faults {
            if fault.call == call {
                if fault.after > 0 {
                    fault.after -= 1;
                } else if fault.times > 0 {
                    fault.times -= 1;
                    return Err(fault.kind.into());
                }
            }
        }
        Ok(())
    }

    /// Says whether a call on a file fails.
    pub(super) fn call_file(&self, path: &Path, call: Call) -> io::Result<()> {
        let bad = self.bad_files.iter().find(|(bad, of, _)| bad == path && *of == call);
        bad.map_or(Ok(()), |(.., kind)| Err((*kind).into()))
    }

    /// The same for a file that is open.
    pub(super) fn call_ino(&self, ino: Ino, call: Call) -> io::Result<()> {
        let bad =
            self.bad_files.iter().find(|(bad, of, _)| *of == call && self.find(bad).is_ok_and(|found| found == ino));
        bad.map_or(Ok(()), |(.., kind)| Err((*kind).into()))
    }

    pub(super) fn died_now(&self) -> bool {
        self.dying
    }

    /// Nothing fails any more.
    pub(super) fn rest(&mut self) {
        (self.faults, self.power, self.dying) = (Vec::new(), None, false);
        self.bad_files.clear();
    }

    fn dir(&self, ino: Ino) -> io::Result<&BTreeMap<String, Ino>> {
        match self.nodes.get(&ino).map(|node| &node.content) {
            Some(Content::Dir { live, .. }) => Ok(live),
            Some(Content::File { .. }) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn is_file(&self, ino: Ino) -> io::Result<Ino> {
        match self.nodes.get(&ino).map(|node| &node.content) {
            Some(Content::File { .. }) => Ok(ino),
            Some(Content::Dir { .. }) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names(path: &Path) -> impl Iterator<Item = &str> {
        path.components().filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        Self::names(path)
            .try_fold(ROOT, |dir, name| self.dir(dir)?.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Ino, &'a str)> {
        let name = Self::names(path).last().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("/")))?;
        self.dir(dir)?;
        Ok((dir, name))
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks - self.ticks % self.tick_calls.max(1)
    }

    fn change(&mut self, names: Vec<(Ino, String, Option<Ino>)>) {
        let now = self.tick();
        for (dir, name, stands_for) in &names {
            if let Some(Node { changed, content: Content::Dir { live, .. } }) = self.nodes.get_mut(dir) {
                *changed = now;
                match stands_for {
                    Some(ino) => live.insert(name.clone(), *ino),
                    None => live.remove(name),
                };
            }
        }
        self.pending.push(Renaming { names, at: now });
    }

    fn make(&mut self, dir: Ino, name: &str, content: Content) -> Ino {
        let ino = self.next;
        self.next += 1;
        let changed = self.tick();
        self.nodes.insert(ino, Node { changed, content });
        self.change(vec![(dir, name.to_owned(), Some(ino))]);
        ino
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Ino> {
        let (dir, name) = self.parent(path)?;
        if let Some(ino) = self.dir(dir)?.get(name) {
            return self.is_file(*ino);
        }
        Ok(self.make(dir, name, Content::File { live: Vec::new(), durable: Vec::new(), dirty: BTreeSet::new() }))
    }

    pub(super) fn create_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in Self::names(path) {
            dir = match self.dir(dir)?.get(name) {
                Some(ino) => *ino,
                None => self.make(dir, name, Content::empty_dir()),
            };
        }
        self.dir(dir).map(|_| ())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.parent(from)?, self.parent(to)?);
        let moved = *self.dir(from_dir)?.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(replaced) = self.dir(to_dir)?.get(to_name).copied() {
            self.give_back(replaced)?;
        }
        self.change(vec![(from_dir, from_name.to_owned(), None), (to_dir, to_name.to_owned(), Some(moved))]);
        Ok(())
    }

    /// The room of a file whose name goes; a directory must be empty.
    fn give_back(&mut self, ino: Ino) -> io::Result<()> {
        match self.nodes.get(&ino).map(|node| &node.content) {
            Some(Content::File { live, .. }) => {
                let bytes = live.len() as u64;
                self.free = self.free.map(|free| free + bytes);
                Ok(())
            }
            Some(Content::Dir { live, .. }) if !live.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let ino = *self.dir(dir)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.is_file(ino)?;
        self.give_back(ino)?;
        self.change(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let ino = *self.dir(dir)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.dir(ino)?;
        self.give_back(ino)?;
        self.change(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path)?;
        self.dir(dir)?;
        // What came before on the same names belongs to it, as in a rename from another directory.
        let mut chosen: Vec<bool> = vec![false; self.pending.len()];
        for at in (0..self.pending.len()).rev() {
            let op = &self.pending[at];
            chosen[at] = op.names.iter().any(|(touched, ..)| *touched == dir)
                || (at + 1..self.pending.len()).any(|later| chosen[later] && op.shares_a_name(&self.pending[later]));
        }
        for (op, is_durable) in std::mem::take(&mut self.pending).into_iter().zip(chosen) {
            if is_durable { self.make_durable(op) } else { self.pending.push(op) }
        }
        Ok(())
    }

    pub(super) fn make_durable(&mut self, op: Renaming) {
        for (dir, name, stands_for) in op.names {
            if let Some(Node { content: Content::Dir { durable, durable_changed, .. }, .. }) = self.nodes.get_mut(&dir)
            {
                *durable_changed = op.at.max(*durable_changed);
                match stands_for {
                    Some(ino) => durable.insert(name, ino),
                    None => durable.remove(&name),
                };
            }
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<Named>> {
        let names = self.dir(self.find(path)?)?;
        Ok(names
            .iter()
            .map(|(name, ino)| {
                let is_dir = self.dir(*ino).is_ok();
                Named { name: name.clone(), is_dir, is_file: !is_dir }
            })
            .collect())
    }

    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        let node = self.nodes.get(&self.find(path)?).ok_or(io::ErrorKind::NotFound)?;
        let length = match &node.content {
            Content::File { live, .. } => live.len() as u64,
            Content::Dir { .. } => 0,
        };
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(node.changed);
        let is_dir = matches!(node.content, Content::Dir { .. });
        Ok(Stat { length, modified, is_dir, is_file: !is_dir })
    }

    fn file(&mut self, ino: Ino) -> io::Result<(&mut Vec<u8>, &mut Vec<u8>, &mut BTreeSet<usize>)> {
        match self.nodes.get_mut(&ino).map(|node| &mut node.content) {
            Some(Content::File { live, durable, dirty }) => Ok((live, durable, dirty)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn read(&mut self, ino: Ino, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (live, ..) = self.file(ino)?;
        let there = usize::try_from(offset).ok().and_then(|offset| live.get(offset..)).unwrap_or_default();
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    pub(super) fn write(&mut self, ino: Ino, bytes: &[u8], offset: u64) -> io::Result<()> {
        let free = self.free;
        let now = self.tick();
        let (live, _, dirty) = self.file(ino)?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let length = live.len();
        let fits = match free {
            Some(free) => bytes.len().min(length.saturating_sub(start) + usize::try_from(free).unwrap_or(usize::MAX)),
            None => bytes.len(),
        };
        let end = start + fits;
        if fits > 0 {
            live.resize(length.max(end), 0);
            live[start..end].copy_from_slice(&bytes[..fits]);
            dirty.extend(length.min(start) / PAGE..=(end - 1) / PAGE);
        }
        let grown = (live.len() - length) as u64;
        self.free = free.map(|free| free - grown.min(free));
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.changed = now;
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn len(&mut self, ino: Ino) -> io::Result<u64> {
        Ok(self.file(ino)?.0.len() as u64)
    }

    pub(super) fn set_len(&mut self, ino: Ino, length: u64) -> io::Result<()> {
        let (live, _, dirty) = self.file(ino)?;
        let (before, after) = (live.len(), usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?);
        live.resize(after, 0);
        dirty.extend(before.min(after) / PAGE..=before.max(after) / PAGE);
        let back = before.saturating_sub(after) as u64;
        self.free = self.free.map(|free| free + back);
        Ok(())
    }

    pub(super) fn sync(&mut self, ino: Ino) -> io::Result<()> {
        let (live, durable, dirty) = self.file(ino)?;
        durable.resize(live.len(), 0);
        for page in std::mem::take(dirty) {
            let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(live.len()));
            if start < end {
                durable[start..end].copy_from_slice(&live[start..end]);
            }
        }
        Ok(())
    }

    /// What was written is taken for durable by the next sync, and is not.
    pub(super) fn forget(&mut self, ino: Ino) {
        if let Ok((.., dirty)) = self.file(ino) {
            dirty.clear();
        }
    }

    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        for op in std::mem::take(&mut self.pending) {
            self.make_durable(op);
        }
        let inos: Vec<_> = self.nodes.keys().copied().collect();
        inos.into_iter()
            .filter(|ino| self.is_file(*ino).is_ok())
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|ino| self.sync(ino))
    }

    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = todo.pop() {
            match self.nodes.get(&ino).map(|node| &node.content) {
                Some(Content::File { live, .. }) => found.push((path, live.clone())),
                Some(Content::Dir { live, .. }) => {
                    todo.extend(live.iter().map(|(name, ino)| (format!("{path}/{name}"), *ino)));
                }
                None => {}
            }
        }
        found.sort_unstable();
        found
    }
}

//! What the files hold when they are opened (docs/formats/overflow.md, "How a start finds the records").

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use super::DATA;
use super::files::DiskFile;
use super::header::{HEADER_LEN, Header, MAGIC, START};
use super::index::{self, Identity, Line};
use super::positions::{self, Noted};
use super::queue::Queue;
use super::scan::Scan;
use super::window::Window;

/// A larger damaged file is not copied: it may fill the disk.
const LONGEST_COPY: u64 = 1 << 30;
/// More problems are only counted.
const MOST_PROBLEMS: usize = 100;

/// What was found.
pub(super) struct Found {
    pub(super) queues: Vec<Queue>,
    /// Where the data ends; 0 when the file is empty.
    pub(super) end: u64,
    pub(super) next_channel: u32,
    /// The index that lies there.
    pub(super) index: Identity,
    pub(super) problems: Vec<String>,
}

/// A queue whose records are being looked for.
#[derive(Debug, Default)]
struct Chain {
    name: String,
    /// Its first record that is needed.
    first: u64,
    records: u64,
    bytes: u64,
    /// Its last record, needed or not; records up to it are not looked for any more.
    last: u64,
    /// The header there, if the queue has records.
    end: Option<Header>,
    /// So many of those that are found first are not needed.
    skip: u64,
    /// So many records it should have.
    expected: u64,
}

struct Recovery<'a> {
    dir: &'a Path,
    file: &'a DiskFile,
    len: u64,
    window: Window,
    chains: BTreeMap<u32, Chain>,
    removed: BTreeSet<u32>,
    next_channel: u32,
    /// Headers that have to be written anew.
    links: Vec<(u64, Header)>,
    /// Where the records end.
    end: u64,
    problems: Vec<String>,
    more_problems: usize,
    damaged: BTreeSet<&'static str>,
}

/// Reads the files, repairs the data file, and keeps a copy of what is damaged.
pub(super) fn recover(dir: &Path, file: &DiskFile) -> io::Result<Found> {
    let mut recovery = Recovery {
        dir,
        file,
        len: file.len()?,
        window: Window::wide(),
        chains: BTreeMap::new(),
        removed: BTreeSet::new(),
        next_channel: 1,
        links: Vec::new(),
        end: 0,
        problems: Vec::new(),
        more_problems: 0,
        damaged: BTreeSet::new(),
    };
    recovery.check_magic()?;
    let content = index::read(dir)?;
    let identity = Identity::of(&content);
    let (noted, unreadable) = match positions::read(dir) {
        Ok(noted) => (noted, false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            recovery
                .damage(positions::NAME, "cannot be read; what was consumed since the index was written comes back");
            (None, true)
        }
        Err(error) => return Err(error),
    };
    match noted {
        Some(noted) if noted.indexes.contains(&identity) => recovery.by_positions(noted)?,
        noted => {
            let (lines, bad) = index::parse(&content);
            recovery.by_index(lines, &bad, content.is_empty(), noted, unreadable)?;
        }
    }
    recovery.finish(identity)
}

impl Recovery<'_> {
    fn problem(&mut self, text: String) {
        if self.problems.len() < MOST_PROBLEMS { self.problems.push(text) } else { self.more_problems += 1 }
    }

    fn damage(&mut self, file: &'static str, what: &str) {
        self.damaged.insert(file);
        self.problem(format!("{file}: {what}"));
    }

    fn header(&mut self, offset: u64, channel: u32) -> io::Result<Option<Header>> {
        if offset < START {
            return Ok(None);
        }
        let header = self.window.header(self.file, offset, self.len)?;
        Ok(header.filter(|header| header.channel == channel && channel != 0))
    }

    fn check_magic(&mut self) -> io::Result<()> {
        let mut magic = [0; MAGIC.len()];
        let read = self.file.read_at(&mut magic, 0)?;
        if self.len <= START {
            // A process that was killed may have left a part.
            self.len = 0;
        } else if read < magic.len() || magic != *MAGIC {
            self.damage(DATA, "does not begin as it should; read all the same");
        }
        Ok(())
    }

    /// The positions tell where each queue stands; what was appended behind them follows.
    fn by_positions(&mut self, noted: Noted) -> io::Result<()> {
        for at in &noted.damaged {
            self.damage(positions::NAME, &format!("damaged at offset {at}; some of what was consumed may come back"));
        }
        // What is damaged may have been the state of a queue: all its records have to be looked for then.
        let mut from = if noted.damaged.is_empty() { noted.end.max(START) } else { START };
        self.next_channel = noted.next_channel;
        self.removed = noted.removed;
        for (channel, (name, state)) in noted.queues {
            let needed = state.records.saturating_sub(state.skip);
            let mut chain = Chain { name, last: state.last.min(self.len), ..Chain::default() };
            chain.expected = needed;
            if needed > 0 && !self.continue_chain(channel, &state, &mut chain)? {
                // All that can be found from its first record on.
                chain = Chain { name: chain.name, expected: needed, skip: state.skip, ..Chain::default() };
                chain.last = state.offset.saturating_sub(1);
                if chain.skip > 0 && self.header(state.offset, channel)?.is_none() {
                    chain.skip -= 1;
                }
                from = from.min(state.offset.max(START));
            }
            if self.len == 0 {
                chain.last = 0;
            }
            self.chains.insert(channel, chain);
        }
        self.scan(from, !noted.damaged.is_empty())
    }

    /// Takes over what is known of a chain if both its ends are there.
    fn continue_chain(&mut self, channel: u32, state: &positions::State, chain: &mut Chain) -> io::Result<bool> {
        let Some(end) = self.header(state.last, channel)? else { return Ok(false) };
        let (mut first, mut bytes) = (state.offset, state.bytes);
        for _ in 0..state.skip {
            match self.header(first, channel)? {
                Some(header) if header.next != 0 => {
                    first = first.saturating_add(header.next);
                    bytes = bytes.saturating_sub(header.length);
                }
                _ => return Ok(false),
            }
        }
        if first > state.last || self.header(first, channel)?.is_none() {
            return Ok(false);
        }
        (chain.first, chain.bytes, chain.records) = (first, bytes, chain.expected);
        (chain.last, chain.end) = (state.last, Some(end));
        Ok(true)
    }

    /// The index tells of each queue; what it does not tell has to be found in the data file.
    fn by_index(
        &mut self,
        lines: Vec<Line>,
        bad: &[usize],
        empty: bool,
        noted: Option<Noted>,
        unreadable: bool,
    ) -> io::Result<()> {
        let mut all_good = bad.is_empty() && !(empty && self.len > START);
        let mut chains = BTreeMap::new();
        for line in lines {
            let first = self.window.header(self.file, line.first, self.len)?;
            let last = self.window.header(self.file, line.last, self.len)?;
            let channel = first.or(last).map_or(0, |header| header.channel);
            let whole = first.zip(last).is_some_and(|(first, last)| first.channel == last.channel);
            if channel == 0 || chains.contains_key(&channel) {
                all_good = false;
                self.damage(index::NAME, &format!("the records of {} are not where it says", line.name));
                continue;
            }
            let mut chain = Chain { name: line.name, expected: line.records, ..Chain::default() };
            if whole {
                (chain.first, chain.records, chain.bytes) = (line.first, line.records, line.bytes);
                (chain.last, chain.end) = (line.last, last);
            } else {
                all_good = false;
                chain.last = line.first.saturating_sub(1);
                self.damage(DATA, &format!("a record of {} is damaged", chain.name));
            }
            chains.insert(channel, chain);
        }
        for line in bad.iter().take(16) {
            self.damage(index::NAME, &format!("line {line} cannot be read"));
        }
        match noted {
            Some(noted) if !all_good => {
                self.damage(index::NAME, "is not the one that was written last, and damaged; not used");
                return self.by_positions(noted);
            }
            Some(noted) => {
                self.problem(format!(
                    "{} was written by another program since; what it says holds, not {}",
                    index::NAME,
                    positions::NAME
                ));
                self.next_channel = noted.next_channel;
                self.damaged.insert(positions::NAME);
            }
            None => {}
        }
        self.chains = chains;
        if all_good && !unreadable {
            self.end = self.len;
            return self.follow();
        }
        let behind = |chain: &Chain| chain.end.map_or(START, |end| chain.last + end.size());
        let from = if all_good { self.chains.values().map(behind).max().unwrap_or(START) } else { START };
        if !all_good {
            self.damage(index::NAME, "does not tell of all records; the queues are rebuilt from the data file");
        }
        self.scan(from, true)
    }

    /// Follows the chains behind the index.
    fn follow(&mut self) -> io::Result<()> {
        let channels: Vec<u32> = self.chains.keys().copied().collect();
        for channel in channels {
            while let Some((last, end)) = self.chains.get(&channel).and_then(|chain| Some((chain.last, chain.end?))) {
                let next = last.saturating_add(end.next);
                let header = if end.next == 0 { None } else { self.header(next, channel)? };
                let (Some(header), Some(chain)) = (header, self.chains.get_mut(&channel)) else { break };
                chain.records += 1;
                chain.expected += 1;
                chain.bytes += header.length;
                (chain.last, chain.end) = (next, Some(header));
            }
        }
        Ok(())
    }

    /// Finds all records from `from` on that the chains do not tell of yet, those of queues without a name too if
    /// `unknown`.
    fn scan(&mut self, from: u64, unknown: bool) -> io::Result<()> {
        let mut scan = Scan::new(from);
        while let Some((offset, header)) = scan.next(self.file, &mut self.window, self.len)? {
            let channel = header.channel;
            if channel == 0 {
                continue;
            }
            self.next_channel = self.next_channel.max(channel.saturating_add(1));
            if unknown && !self.removed.contains(&channel) {
                self.chains.entry(channel).or_default();
            }
            let Some(chain) = self.chains.get_mut(&channel).filter(|chain| offset > chain.last) else { continue };
            if chain.skip > 0 {
                chain.skip -= 1;
                continue;
            }
            match &chain.end {
                None => chain.first = offset,
                Some(end) if end.next != offset - chain.last => {
                    self.links.push((chain.last, Header { next: offset - chain.last, ..*end }));
                }
                Some(_) => {}
            }
            chain.records += 1;
            chain.bytes += header.length;
            (chain.last, chain.end) = (offset, Some(header));
        }
        for (at, len) in std::mem::take(&mut scan.gaps) {
            if self.has_data(at, len)? {
                self.damage(DATA, &format!("{len} bytes at offset {at} hold no record"));
            }
        }
        self.end = scan.torn.unwrap_or(self.len).max(from.min(self.len));
        if self.end < self.len && self.has_data(self.end, self.len - self.end)? {
            self.damage(
                DATA,
                &format!("{} bytes at offset {} are no whole record; cut", self.len - self.end, self.end),
            );
        }
        Ok(())
    }

    /// Whether a range holds anything but zeros. One at the head that begins with zeros was given back.
    fn has_data(&mut self, from: u64, len: u64) -> io::Result<bool> {
        let (mut at, end) = (self.file.next_data(from, from + len), from + len);
        if from <= START {
            let first = self.window.get(
                self.file,
                from,
                HEADER_LEN.min(usize::try_from(len).unwrap_or(HEADER_LEN)),
                self.len,
            )?;
            if first.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
                return Ok(false);
            }
        }
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(64 * 1024);
            let bytes = self.window.get(self.file, at, piece, self.len)?.unwrap_or_default();
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += piece as u64;
        }
        Ok(false)
    }

    /// Repairs the data file and tells of the queues.
    fn finish(mut self, identity: Identity) -> io::Result<Found> {
        let mut queues = Vec::new();
        let mut names: HashSet<String> = self.chains.values().map(|chain| chain.name.clone()).collect();
        let mut named = HashSet::new();
        for (channel, mut chain) in std::mem::take(&mut self.chains) {
            if chain.records < chain.expected {
                let lost = chain.expected - chain.records;
                self.damage(DATA, &format!("{lost} records of {} were not found", chain.name));
            }
            if chain.name.is_empty() || !named.insert(chain.name.clone()) {
                let names_to_try = (0..)
                    .map(|n| format!("recovered-{channel}{}", if n == 0 { String::new() } else { format!("-{n}") }));
                chain.name = names_to_try.into_iter().find(|name| names.insert(name.clone())).unwrap_or_default();
                self.problem(format!("{DATA}: {} records of a queue without a name: {}", chain.records, chain.name));
            }
            self.next_channel = self.next_channel.max(channel.saturating_add(1));
            let length = chain.end.map_or(0, |end| end.length);
            if let Some(end) = chain.end {
                self.end = self.end.max(chain.last + end.size());
                let header = Header { next: 0, ..end }.encode();
                if self.window.get(self.file, chain.last, HEADER_LEN, self.len)? != Some(&header) {
                    self.links.push((chain.last, Header { next: 0, ..end }));
                }
            }
            let last = (chain.last, length);
            queues.push(Queue::with(&chain.name, channel, chain.first, chain.records, chain.bytes, last));
        }
        self.keep_copies();
        if self.len > 0 {
            self.file.write_at(MAGIC, 0)?;
        }
        for (offset, header) in &self.links {
            self.file.write_at(&header.encode(), *offset)?;
        }
        if self.len == 0 || self.end <= START {
            self.end = 0;
        }
        // Room that was allocated behind it is given back with it.
        self.file.set_len(self.end)?;
        if self.more_problems > 0 {
            self.problems.push(format!("{} more problems", self.more_problems));
        }
        Ok(Found { queues, end: self.end, next_channel: self.next_channel, index: identity, problems: self.problems })
    }

    /// Copies damaged files before they change.
    fn keep_copies(&mut self) {
        for name in std::mem::take(&mut self.damaged) {
            match keep_copy(self.dir, name) {
                Ok(Some(kept)) => self.problem(format!("{name}: a copy is kept as damaged/{kept}")),
                Ok(None) => self.problem(format!("{name}: too large to keep a copy of")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(format!("{name}: no copy could be kept: {error}")),
            }
        }
    }
}

fn keep_copy(dir: &Path, name: &str) -> io::Result<Option<String>> {
    let from = dir.join(name);
    if fs::metadata(&from)?.len() > LONGEST_COPY {
        return Ok(None);
    }
    let damaged = dir.join("damaged");
    fs::create_dir_all(&damaged)?;
    for number in 1..1000 {
        let kept = format!("{name}.{number}");
        match fs::OpenOptions::new().write(true).create_new(true).open(damaged.join(&kept)) {
            Ok(mut to) => {
                let copied = fs::File::open(&from).and_then(|mut from| io::copy(&mut from, &mut to));
                if copied.is_err() {
                    let _ = fs::remove_file(damaged.join(&kept));
                }
                return copied.map(|_| Some(kept));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

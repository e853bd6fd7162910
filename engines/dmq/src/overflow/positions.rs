//! `overflow.positions`: what changed since the index was written (docs/formats/overflow.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::files::{self, DiskFile};
use super::index::{self, Identity};

/// The file.
pub(super) const NAME: &str = "overflow.positions";
const SPARE: &str = "overflow.positions.new";
const MAGIC: &[u8; 8] = b"OVPOS\0\0\x01";
/// A longer file is damaged: it is written anew long before.
const LONGEST: u64 = 1 << 30;
/// Room is allocated in steps of this size.
const STEP: u64 = 256 * 1024;
/// Behind so many bytes more than its beginning takes the file is written anew.
const TOO_LONG: u64 = 1024 * 1024;
/// Checksum, length, kind.
const PREFIX: usize = 8;

const QUEUE: u8 = 1;
const REMOVED: u8 = 2;
const STATE: u8 = 3;
const INDEX: u8 = 4;
const END: u8 = 5;
const EMPTIED: u8 = 6;

/// Where a queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// A record at or before the first that is needed; 0 without records.
    pub(super) offset: u64,
    /// So many records from there on are not needed any more.
    pub(super) skip: u64,
    /// Records from there on, those among them.
    pub(super) records: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The last record that the queue got, needed or not; 0 when it never had one.
    pub(super) last: u64,
}

/// Adds entries to a buffer.
#[derive(Debug, Default)]
pub(super) struct Entries(pub(super) Vec<u8>);

impl Entries {
    pub(super) fn queue(&mut self, channel: u32, name: &str) {
        self.entry(QUEUE, &[&channel.to_le_bytes(), name.as_bytes()]);
    }

    pub(super) fn removed(&mut self, channel: u32) {
        self.entry(REMOVED, &[&channel.to_le_bytes()]);
    }

    pub(super) fn state(&mut self, channel: u32, state: &State) {
        let State { offset, skip, records, bytes, last } = *state;
        let mut body = [0; 44];
        body[..4].copy_from_slice(&channel.to_le_bytes());
        for (place, value) in body[4..].chunks_exact_mut(8).zip([offset, skip, records, bytes, last]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        self.entry(STATE, &[&body]);
    }

    pub(super) fn index(&mut self, identity: Identity) {
        self.entry(INDEX, &[&identity.size.to_le_bytes(), &identity.crc.to_le_bytes()]);
    }

    /// Up to `end` the states tell of all records.
    pub(super) fn end(&mut self, end: u64, next_channel: u32) {
        self.entry(END, &[&end.to_le_bytes(), &next_channel.to_le_bytes()]);
    }

    pub(super) fn emptied(&mut self) {
        self.entry(EMPTIED, &[]);
    }

    fn entry(&mut self, kind: u8, parts: &[&[u8]]) {
        let start = self.0.len();
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend_from_slice(&[kind, 0]);
        for part in parts {
            self.0.extend_from_slice(part);
        }
        let crc = crc32fast::hash(&self.0[start + 4..]);
        self.0[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The queues by channel id.
    pub(super) queues: BTreeMap<u32, (String, State)>,
    /// Indexes one of which is the one that lies there, unless another program wrote it.
    pub(super) indexes: Vec<Identity>,
    /// The states tell of all records before this; what was appended behind it has to be looked for.
    pub(super) end: u64,
    /// Channel ids from here on were never used.
    pub(super) next_channel: u32,
    /// Queues that are gone.
    pub(super) removed: BTreeSet<u32>,
    /// Where something could not be read that is followed by something that could, at most some.
    pub(super) damaged: Vec<u64>,
}

/// Reads the file; `None` when there is none, an error of kind `InvalidData` when it is not one of ours.
pub(super) fn read(dir: &Path) -> io::Result<Option<Noted>> {
    let mut content = Vec::new();
    match fs::File::open(dir.join(NAME)) {
        Ok(file) => file.take(LONGEST).read_to_end(&mut content)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(mut rest) = content.strip_prefix(MAGIC) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (mut noted, mut bad) = (Noted { next_channel: 1, ..Noted::default() }, None);
    while !rest.is_empty() {
        let Some((kind, body, behind)) = split(rest) else {
            bad.get_or_insert(content.len() - rest.len());
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        if let Some(at) = bad.take()
            && noted.damaged.len() < 16
        {
            noted.damaged.push(at as u64);
        }
        noted.apply(kind, body);
        rest = behind;
    }
    // Every file begins with an entry of this kind.
    if noted.end == 0 { Err(io::ErrorKind::InvalidData.into()) } else { Ok(Some(noted)) }
}

fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let prefix: &[u8; PREFIX] = bytes.first_chunk()?;
    let [c0, c1, c2, c3, l0, l1, kind, 0] = *prefix else { return None };
    let whole = PREFIX + usize::from(u16::from_le_bytes([l0, l1]));
    let checked = bytes.get(4..whole)?;
    if kind == 0 || crc32fast::hash(checked) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return None;
    }
    Some((kind, bytes.get(PREFIX..whole)?, bytes.get(whole..)?))
}

impl Noted {
    fn apply(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        let id = body.first_chunk().map(|id| u32::from_le_bytes(*id));
        let word = |at: usize| body.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u64::from_le_bytes(*word));
        match kind {
            QUEUE => {
                let name = std::str::from_utf8(body.get(4..)?).ok().filter(|name| index::is_name(name))?;
                let id = id.filter(|id| *id != 0)?;
                self.next_channel = self.next_channel.max(id.saturating_add(1));
                self.queues.entry(id).or_default().0 = name.to_owned();
            }
            REMOVED => {
                self.queues.remove(&id?);
                self.removed.insert(id?);
            }
            STATE => {
                let state =
                    State { offset: word(4)?, skip: word(12)?, records: word(20)?, bytes: word(28)?, last: word(36)? };
                self.queues.entry(id.filter(|id| *id != 0)?).or_default().1 = state;
            }
            INDEX => {
                let crc = body.get(8..)?.first_chunk().map(|crc| u32::from_le_bytes(*crc))?;
                self.indexes.push(Identity { size: word(0)?, crc });
            }
            END => {
                self.end = word(0)?;
                let next = body.get(8..)?.first_chunk().map(|next| u32::from_le_bytes(*next))?;
                self.next_channel = self.next_channel.max(next);
            }
            EMPTIED => {
                self.end = super::header::START;
                self.queues.values_mut().for_each(|(_, state)| *state = State::default());
            }
            _ => {}
        }
        Some(())
    }
}

/// The file, open to append to. A second one lies ready, with room allocated, so that it can be written anew on a full
/// disk.
#[derive(Debug)]
pub(super) struct Positions {
    dir: PathBuf,
    file: DiskFile,
    end: u64,
    allocated: u64,
    first_len: u64,
    spare: Option<(DiskFile, u64)>,
}

impl Positions {
    /// Replaces what was there by `entries`. On a full disk what was there stays, which says the same, until there is room.
    pub(super) fn create(dir: &Path, entries: &[u8]) -> io::Result<Self> {
        let file = DiskFile::open(&dir.join(SPARE))?;
        let mut positions = Self { dir: dir.to_owned(), file, end: 0, allocated: 0, first_len: 0, spare: None };
        match positions.rewrite(entries) {
            Err(error) if !files::is_full(&error) => Err(error),
            _ => Ok(positions),
        }
    }

    /// Appends entries.
    ///
    /// # Errors
    /// Nothing counts as written then. With [`files::is_full`], [`Self::rewrite`] may still find room.
    pub(super) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        let behind = self.end + entries.len() as u64;
        if behind > self.allocated {
            let to = behind + STEP;
            self.file.allocate(self.allocated.max(self.end), to)?;
            self.allocated = to;
        }
        self.file.write_at(entries, self.end)?;
        self.end = behind;
        Ok(())
    }

    /// Whether the file should be written anew.
    pub(super) fn is_long(&self) -> bool {
        self.end == 0 || self.end > TOO_LONG + 4 * self.first_len
    }

    pub(super) fn bytes(&self) -> u64 {
        self.allocated.max(self.end)
    }

    /// Writes the file anew with `entries`.
    pub(super) fn rewrite(&mut self, entries: &[u8]) -> io::Result<()> {
        let (file, room) = match self.spare.take() {
            Some(spare) => spare,
            None => make_spare(&self.dir, entries.len() as u64)?,
        };
        let behind = (MAGIC.len() + entries.len()) as u64;
        let written = file
            .allocate(room, behind)
            .and_then(|()| file.write_at(&[MAGIC, entries].concat(), 0))
            .and_then(|()| files::rename(&self.dir.join(SPARE), &self.dir.join(NAME)));
        if let Err(error) = written {
            // What is in it counts only under the other name.
            let _ = file.set_len(0);
            return Err(error);
        }
        self.file = file.renamed(&self.dir.join(NAME));
        (self.end, self.allocated, self.first_len) = (behind, behind.max(room), behind);
        // Without one the next rewrite tries again.
        self.spare = make_spare(&self.dir, behind).ok();
        Ok(())
    }

    /// Another handle, to bring it to the disk.
    pub(super) fn handle(&self) -> io::Result<DiskFile> {
        self.file.try_clone()
    }

    /// Removes the file: the index says everything.
    pub(super) fn remove(self) -> io::Result<()> {
        files::remove(&self.dir.join(SPARE))?;
        files::remove(&self.dir.join(NAME))
    }
}

/// An empty file with room for twice `len` bytes.
fn make_spare(dir: &Path, len: u64) -> io::Result<(DiskFile, u64)> {
    let path = dir.join(SPARE);
    files::remove(&path)?;
    let file = DiskFile::open(&path)?;
    let room = 2 * len + STEP;
    file.allocate(0, room)?;
    Ok((file, room))
}

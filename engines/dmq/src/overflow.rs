//! The disk overflow: records that find no room in memory, in the published files.
//!
//! The files are described in `docs/formats/overflow.md`, why they are kept like this in `docs/adr/queue-overflow.md`
//! (protocol §3.2). `overflow.dat` holds the records of all queues in the order in which they came, those of one queue
//! chained by the distance from each to the next; `ofchannels.csv` names the ends of each chain. `overflow.positions`
//! is not a published file: it tells what changed since the index was written, so that a process that was killed finds
//! each queue where it was.

mod files;
mod header;
mod index;
mod positions;
mod queue;
mod read;
mod recovery;
mod scan;
#[cfg(test)]
mod tests;
mod window;
mod write;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use overstory_model::State;
use overstory_node::inspect::Finding;

use crate::disk::{Disk, DiskError, QueueId, Read, RecoveredQueue};
use files::DiskFile;
use header::{HEADER, Header, MAGIC, START};
use positions::{Entries, Positions};
use queue::Queue;
use window::Window;
use write::IndexState;

/// The data file.
const DATA: &str = "overflow.dat";

/// Less space than this is never too much.
const MUCH_SPACE: u64 = 256 * 1024 * 1024;

/// How an overflow is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// So many bytes are allocated ahead at a time.
    pub preallocate: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { preallocate: 16 * 1024 * 1024 }
    }
}

/// What was found when an overflow was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The queues, by number.
    pub queues: Vec<RecoveredQueue>,
    /// What is damaged or was not expected, one line each, at most some hundred.
    pub problems: Vec<String>,
}

/// Why an overflow cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses it.
    #[error("{}: another process uses these files", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The overflow of a node: all its queues, in one directory.
#[derive(Debug)]
pub struct Overflow {
    dir: PathBuf,
    file: DiskFile,
    positions: Positions,
    queues: HashMap<QueueId, Queue>,
    /// Records of all queues that are needed.
    live: u64,
    next_channel: u32,
    /// Where the next record goes; 0 while the file is empty.
    end: u64,
    /// What belongs at `buffer_start` in the file, and is not there yet.
    buffer: Vec<u8>,
    buffer_start: u64,
    /// Headers in the file that have to lead to records in the buffer.
    links: Vec<(u64, Header)>,
    /// The file has room up to here.
    allocated: u64,
    /// Before this its space was given back.
    punched: u64,
    /// Bytes that were read since space was last given back.
    consumed: u64,
    window: Window,
    /// Entries for the positions, and the queues whose states belong behind them.
    entries: Entries,
    dirty: Vec<QueueId>,
    changed: bool,
    /// There was no room when it was asked for last.
    full: bool,
    /// The queue whose first record kept space from being given back the last time.
    keeper: Option<QueueId>,
    /// More space can be given back.
    behind: bool,
    /// The positions have to be written as a whole.
    anew: bool,
    options: Options,
    index: IndexState,
    /// The last attempt to write failed like this.
    trouble: Option<String>,
    /// Records that could not be read.
    lost: u64,
}

impl Overflow {
    /// Opens the overflow in `dir`, which exists, and finds out what is in it.
    ///
    /// # Errors
    /// See [`OpenError`]. Damaged files are no error: what can be read is recovered, a copy of the file kept in
    /// `dir/damaged`, and [`Recovered::problems`] tells of it.
    pub fn open(dir: &Path, options: &Options) -> Result<(Self, Recovered), OpenError> {
        let path = dir.join(DATA);
        let failed = |source| OpenError::Io { doing: format!("cannot open the overflow in {}", dir.display()), source };
        let file = DiskFile::open(&path).map_err(failed)?;
        if !file.lock().map_err(failed)? {
            return Err(OpenError::InUse(path));
        }
        let found = recovery::recover(dir, &file).map_err(failed)?;
        let recovered = Recovered {
            queues: (found.queues.iter())
                .map(|queue| RecoveredQueue {
                    queue: queue.channel,
                    name: queue.name.clone(),
                    records: queue.records(),
                    bytes: queue.bytes,
                })
                .collect(),
            problems: found.problems,
        };
        let queues: HashMap<_, _> = found.queues.into_iter().map(|queue| (queue.channel, queue)).collect();
        let index = IndexState::new(found.index);
        let entries = write::snapshot(&queues, found.end, found.next_channel, &index);
        let overflow = Self {
            dir: dir.to_owned(),
            file,
            positions: Positions::create(dir, &entries.0).map_err(failed)?,
            live: queues.values().map(Queue::records).sum(),
            queues,
            next_channel: found.next_channel,
            end: found.end,
            buffer: Vec::new(),
            buffer_start: found.end,
            links: Vec::new(),
            allocated: found.end,
            punched: 0,
            consumed: 0,
            window: Window::default(),
            entries: Entries::default(),
            dirty: Vec::new(),
            changed: false,
            full: false,
            keeper: None,
            behind: false,
            anew: false,
            options: options.clone(),
            index,
            trouble: None,
            lost: 0,
        };
        Ok((overflow, recovered))
    }

    /// Writes the index, `ofchannels.csv`, on a thread of its own; called each `write_index_ms`. What went wrong in the
    /// last call is told by the next one and by [`Disk::findings`]. While the last one is still being written, nothing
    /// happens.
    ///
    /// # Errors
    /// The index could not be written, or the records that it speaks of.
    pub fn save_index(&mut self) -> Result<(), DiskError> {
        self.write_index(true)
    }

    /// Writes what is left and the index, as the last thing of a clean stop. Without records no file stays.
    ///
    /// # Errors
    /// That failed; the next start finds the records all the same, from what is in the files.
    pub fn close(self) -> Result<(), DiskError> {
        self.finish()
    }

    fn queue(&mut self, queue: QueueId) -> Result<&mut Queue, DiskError> {
        self.queues.get_mut(&queue).ok_or_else(|| unknown(queue))
    }
}

fn unknown(queue: QueueId) -> DiskError {
    DiskError::Io { doing: format!("the overflow has no queue {queue}"), source: io::ErrorKind::NotFound.into() }
}

impl Disk for Overflow {
    fn keeps_all(&self) -> bool {
        false
    }

    fn create(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        // Records of former queues may still lie in the file.
        let channel = self.next_channel.max(queue);
        self.next_channel = channel.saturating_add(1);
        self.entries.queue(channel, name);
        self.queues.insert(queue, Queue::new(name, channel));
        self.changed = true;
        Ok(())
    }

    fn rename(&mut self, queue: QueueId, name: &str) -> Result<(), DiskError> {
        let found = self.queue(queue)?;
        name.clone_into(&mut found.name);
        let channel = found.channel;
        self.entries.queue(channel, name);
        self.changed = true;
        Ok(())
    }

    fn remove(&mut self, queue: QueueId) -> Result<(), DiskError> {
        let found = self.queues.remove(&queue).ok_or_else(|| unknown(queue))?;
        self.live -= found.records();
        if self.keeper == Some(queue) {
            self.consumed = write::PUNCH;
        }
        self.links.retain(|(_, header)| header.channel != found.channel);
        self.entries.removed(found.channel);
        self.changed = true;
        Ok(())
    }

    fn reserve(&mut self, records: usize, bytes: u64) -> Result<(), DiskError> {
        if self.trouble.is_some() {
            return Err(DiskError::Failed);
        }
        let need = self.end.max(START).saturating_add(bytes).saturating_add(HEADER.saturating_mul(records as u64));
        if need <= self.allocated { Ok(()) } else { self.allocate(need) }
    }

    fn append(&mut self, queue: QueueId, record: &[u8]) -> Result<(), DiskError> {
        let found = self.queues.get_mut(&queue).ok_or_else(|| unknown(queue))?;
        if self.end == 0 {
            self.buffer.extend_from_slice(MAGIC);
            self.end = START;
        }
        let (offset, length) = (self.end, record.len() as u64);
        if let Some((at, header)) = found.push(offset, length) {
            // Either the record before is still in the buffer, or its header in the file changes.
            let held =
                at.checked_sub(self.buffer_start).and_then(|at| self.buffer.get_mut(usize::try_from(at).ok()?..));
            match held.and_then(|held| held.first_chunk_mut()) {
                Some(held) => *held = header.encode(),
                None => self.links.push((at, header)),
            }
        }
        let header = Header { channel: found.channel, next: 0, length };
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(record);
        self.end += header.size();
        self.live += 1;
        self.changed = true;
        if self.buffer.len() > write::MOST_BUFFERED {
            // That this failed is told by `settle`, which tries again: the record is taken.
            let _ = self.flush();
        }
        Ok(())
    }

    fn read(&mut self, queue: QueueId, from: u64, max: usize, out: &mut Vec<u8>) -> Result<Read, DiskError> {
        self.read_records(queue, from, max, out)
    }

    fn release(&mut self, queue: QueueId, from: u64, to: u64) -> Result<(), DiskError> {
        let found = self.queues.get_mut(&queue).ok_or_else(|| unknown(queue))?;
        debug_assert_eq!(from, found.released, "records are released in order");
        let before = found.records();
        found.release(to);
        self.live -= before - found.records();
        if self.keeper == Some(queue) && found.lowest().is_none_or(|lowest| lowest > self.punched + write::PUNCH) {
            self.consumed = write::PUNCH;
        }
        if !found.listed {
            found.listed = true;
            self.dirty.push(queue);
        }
        self.changed = true;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), DiskError> {
        if self.changed { self.write_all() } else { Ok(()) }
    }

    fn bytes_on_disk(&self) -> u64 {
        self.allocated.max(self.end) - self.punched + self.positions.bytes() + self.index.bytes()
    }

    fn findings(&self, findings: &mut Vec<Finding>) {
        let mut add = |check, state, text| findings.push(Finding { check, state, text });
        if let Some(trouble) = &self.trouble {
            add("overflow_write", State::Critical, trouble.clone());
        }
        if let Some(trouble) = self.index.trouble() {
            add("overflow_index", State::Major, trouble.to_owned());
        }
        let (takes, (needs, queue)) = (self.allocated.max(self.end) - self.punched, self.needs());
        if takes > MUCH_SPACE && takes / 4 > needs {
            let text = format!(
                "{DATA} takes {takes} bytes for {needs} that are needed: what came behind the first record of {queue} keeps \
                 its space until that is taken; consume it, or remove the channel"
            );
            add("overflow_space", State::Minor, text);
        }
        if self.lost > 0 {
            add("overflow_lost", State::Major, format!("{} records in {DATA} could not be read", self.lost));
        }
    }
}

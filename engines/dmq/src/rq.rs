//! The files in which queues are kept while a node does not run (protocol §3.2, `docs/formats/rq.md`).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// What the name of a queue's file ends with.
pub const SUFFIX: &str = ".rq";

/// What the name of a file that is being written ends with.
pub const UNFINISHED_SUFFIX: &str = ".rq.tmp";

/// Bytes before the first record.
pub const HEADER: u64 = HEADER_BYTES as u64;

const HEADER_BYTES: usize = 12;

/// Bytes of a record's length.
const HEAD: usize = 8;

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It ends within its header.
    #[error("only {size} bytes")]
    NoHeader {
        /// Its bytes.
        size: u64,
    },
    /// What begins here reaches over the end of the file.
    #[error("the record at {offset} does not end within the file")]
    Cut {
        /// Where the last thing that was read whole ends.
        offset: u64,
    },
    /// The records do not agree with the header.
    #[error("{records} records of {bytes} bytes where the header says {said_records} of {said_bytes}")]
    Header {
        /// Records that were found.
        records: u64,
        /// Their bytes, lengths included.
        bytes: u64,
        /// Records of which the header speaks.
        said_records: u32,
        /// Their bytes.
        said_bytes: u64,
    },
    /// More follows the last record.
    #[error("{bytes} bytes behind the last record, at {offset}")]
    Rest {
        /// Where the last record ends.
        offset: u64,
        /// So many.
        bytes: u64,
    },
    /// Records without bytes, which no queue holds; they are left out.
    #[error("{records} records without bytes, the first one at {offset}")]
    Empty {
        /// How many.
        records: u64,
        /// Where the first one is.
        offset: u64,
    },
}

/// Reads a file. Takes no more memory than a piece or one record, which is never larger than the file.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the file.
    size: u64,
    /// Bytes that were read.
    at: u64,
    said_records: u32,
    said_bytes: u64,
    records: u64,
    empty: Option<(u64, u64)>,
    damage: Option<Damage>,
    ended: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened or read. Damage is no error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Self::new(BufReader::with_capacity(64 * 1024, file), size)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header of a file of `size` bytes.
    ///
    /// # Errors
    /// It cannot be read. Damage is no error.
    pub fn new(mut input: R, size: u64) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        let complete = size >= HEADER && whole(input.read_exact(&mut header))?;
        let [a, b, c, d, bytes @ ..] = header;
        Ok(Self {
            input,
            size,
            at: HEADER,
            said_records: u32::from_le_bytes([a, b, c, d]),
            said_bytes: u64::from_le_bytes(bytes),
            records: 0,
            empty: None,
            damage: (!complete).then_some(Damage::NoHeader { size }),
            ended: !complete,
        })
    }

    /// Appends the next records to `out`, each as a u64 length and its bytes, until `out` has `max` bytes or more. Returns
    /// how many; 0 at the end.
    ///
    /// # Errors
    /// The file cannot be read any further.
    pub fn read(&mut self, max: usize, out: &mut Vec<u8>) -> io::Result<u64> {
        let mut count = 0;
        while !self.ended && out.len() < max {
            let read = self.record(out);
            self.ended |= read.is_err();
            count += u64::from(read?);
        }
        Ok(count)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is wrong with the file, once all was read.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.damage.or(self.empty.map(|(records, offset)| Damage::Empty { records, offset }))
    }

    /// Appends the next record to `out`; false if there is none, or one without bytes.
    fn record(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let left = self.size.saturating_sub(self.at);
        let agrees = self.records == u64::from(self.said_records) && self.at - HEADER == self.said_bytes;
        if left == 0 || agrees {
            let (records, bytes) = (self.records, self.at - HEADER);
            let (said_records, said_bytes) = (self.said_records, self.said_bytes);
            if !agrees {
                self.damage = Some(Damage::Header { records, bytes, said_records, said_bytes });
            } else if left > 0 {
                self.damage = Some(Damage::Rest { offset: self.at, bytes: left });
            }
            self.ended = true;
            return Ok(false);
        }
        let begin = out.len();
        let complete = self.append_record(left, out);
        if !matches!(complete, Ok(true)) {
            out.truncate(begin);
        }
        if !complete? {
            self.damage = Some(Damage::Cut { offset: self.at });
            self.ended = true;
            return Ok(false);
        }
        let offset = self.at;
        self.at += (out.len() - begin) as u64;
        self.records += 1;
        if out.len() - begin == HEAD {
            out.truncate(begin);
            let (count, first) = self.empty.unwrap_or((0, offset));
            self.empty = Some((count + 1, first));
            return Ok(false);
        }
        Ok(true)
    }

    /// Appends a length and the bytes behind it; false if the file has fewer.
    fn append_record(&mut self, left: u64, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut head = [0; HEAD];
        if left < HEAD as u64 || !whole(self.input.read_exact(&mut head))? {
            return Ok(false);
        }
        let length = u64::from_le_bytes(head);
        if length > left - HEAD as u64 {
            return Ok(false);
        }
        out.extend_from_slice(&head);
        // The file may have become shorter: memory is taken for what is read, not for what is announced.
        Ok(self.input.by_ref().take(length).read_to_end(out)? as u64 == length)
    }
}

/// Whether something was read as a whole; false at the end of the file.
fn whole(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// A file that is written under a temporary name and put in its place at the end; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    output: BufWriter<File>,
    file: Finished,
}

impl Writer {
    /// Begins the file of a queue, whose name was checked, with `records` records of `bytes` bytes, lengths included.
    ///
    /// # Errors
    /// It cannot be made or written, or there are more records than the header can tell.
    pub fn create(dir: &Path, queue: &str, records: u64, bytes: u64) -> io::Result<Self> {
        let records =
            u32::try_from(records).map_err(|_| io::Error::new(ErrorKind::FileTooLarge, "too many records"))?;
        let unfinished = dir.join(format!("{queue}{UNFINISHED_SUFFIX}"));
        let output = BufWriter::with_capacity(64 * 1024, File::create(&unfinished)?);
        let path = dir.join(format!("{queue}{SUFFIX}"));
        let mut writer = Self { output, file: Finished { path, unfinished, placed: false } };
        writer.write(&records.to_le_bytes())?;
        writer.write(&bytes.to_le_bytes())?;
        Ok(writer)
    }

    /// Appends whole records, each as a u64 length and its bytes.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.output.write_all(records)
    }

    /// Ends the file; `sync` brings it to the disk, which is the caller's to do otherwise.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn finish(mut self, sync: bool) -> io::Result<Finished> {
        self.output.flush()?;
        if sync {
            self.output.get_ref().sync_all()?;
        }
        Ok(self.file)
    }
}

/// A complete file under its temporary name; dropped before it is in its place, it leaves nothing.
#[derive(Debug)]
pub struct Finished {
    path: PathBuf,
    unfinished: PathBuf,
    placed: bool,
}

impl Finished {
    /// Puts the file, which is on the disk, in its place; the directory is the caller's to bring there.
    ///
    /// # Errors
    /// It cannot be renamed. What was in the place is untouched.
    pub fn place(mut self) -> io::Result<()> {
        std::fs::rename(&self.unfinished, &self.path)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if !self.placed {
            // It is of no use, and written over by the next one.
            let _left = std::fs::remove_file(&self.unfinished);
        }
    }
}

#[cfg(test)]
mod tests;

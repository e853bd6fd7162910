//! Writes the records of a bucket in format 2: compressed blocks and an index.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::disk::{Disk, File};
use crate::format::{Format, v2};
use crate::record::{self, Framing};

use super::count::Count;
use super::worker::Pieces;

/// A bucket on its way into another file.
pub(super) struct Rewrite {
    source: Count,
    target: Arc<dyn File>,
    path: PathBuf,
    number: BucketNumber,
    encoder: v2::Encoder,
    index: v2::Index,
    records: Vec<u8>,
    out: Vec<u8>,
    end: u64,
    /// All is written; what was written is being read.
    check: Option<Count>,
}

impl Rewrite {
    /// Begins with the first `length` bytes of a file.
    pub(super) fn new(
        disk: &dyn Disk,
        from: &Path,
        number: BucketNumber,
        length: u64,
        to: PathBuf,
        level: i32,
    ) -> io::Result<Self> {
        let source = Count::new(disk.open(from)?, number, length)?;
        let encoder = v2::Encoder::new(level)?;
        let target = disk.create(&to)?;
        target.set_len(0)?;
        Ok(Self {
            source,
            target,
            path: to,
            number,
            encoder,
            index: v2::Index::default(),
            records: Vec::new(),
            out: Format::V2.header().to_vec(),
            end: 0,
            check: None,
        })
    }

    /// The new file, durable and read back, and what is in it. None: the bucket is damaged and must stay as it is.
    pub(super) fn done(&self) -> io::Result<Option<(PathBuf, Entry)>> {
        if !self.source.damages.is_empty() {
            return Ok(None);
        }
        let (old, check) = (self.source.entry(), self.check.as_ref());
        let new = check.map(Count::entry).unwrap_or_default();
        let same = check.is_some_and(|check| check.damages.is_empty() && check.crc() == self.source.crc());
        if !same || (old.records, old.bytes) != (new.records, new.bytes) || new.length != self.end {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was written is not what is read back"));
        }
        self.target.sync()?;
        Ok(Some((self.path.clone(), new)))
    }

    /// Damage in the bucket.
    pub(super) fn damages(&self) -> &[crate::walk::Damage] {
        &self.source.damages
    }

    fn write(&mut self) -> io::Result<()> {
        let at = self.end + self.out.len() as u64;
        let begin = self.out.len();
        self.encoder.encode(at, &self.records, &mut self.out);
        self.index.add(at, self.out.get(begin..).unwrap_or_default());
        self.records.clear();
        self.target.write_all_at(&self.out, self.end)?;
        self.end += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }
}

impl Pieces for Rewrite {
    fn piece(&mut self) -> io::Result<bool> {
        if let Some(check) = &mut self.check {
            return check.piece();
        }
        let records = &mut self.records;
        let done = self.source.walk(&mut |key, value| {
            let size = record::size(Framing::Plain, value.len());
            if !records.is_empty() && records.len() + size > v2::MAX_BLOCK {
                return false;
            }
            record::put(Framing::Plain, key, value, records);
            true
        })?;
        if !self.source.damages.is_empty() {
            return Ok(true);
        }
        self.write()?;
        if done {
            let at = self.end;
            self.index.write(at, &mut self.out);
            self.target.write_all_at(&self.out, at)?;
            self.end += self.out.len() as u64;
            self.check = Some(Count::new(Arc::clone(&self.target), self.number, self.end)?);
        }
        Ok(false)
    }
}

/// Whether a file of format 2 ends with an index, as a rewritten one does until something is appended.
pub(super) fn is_packed(disk: &dyn Disk, path: &Path, length: u64) -> io::Result<bool> {
    Ok(v2::Index::read(&*disk.open(path)?, length)?.is_some())
}

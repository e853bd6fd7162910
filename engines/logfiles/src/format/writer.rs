//! Writes a whole bucket anew, for those who rewrite one: retention and the checker.

use std::io;

use super::Format;
use super::v2::{Encoder, Index, MAX_BLOCK};
use crate::disk::File;
use crate::record;

/// Writes records into an empty file, in any format. A file of format 2 gets an index.
pub struct BucketWriter<'a> {
    file: &'a dyn File,
    format: Format,
    encoder: Encoder,
    index: Index,
    /// Records that are not written yet.
    records: Vec<u8>,
    blocks: Vec<u8>,
    written: Written,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// The length of the file.
    pub length: u64,
    /// The records.
    pub records: u64,
    /// The bytes of their values.
    pub bytes: u64,
}

impl<'a> BucketWriter<'a> {
    /// Begins with an empty file. The level is that of [`Encoder::new`], for format 2.
    ///
    /// # Errors
    /// The file's.
    pub fn new(file: &'a dyn File, format: Format, level: i32) -> io::Result<Self> {
        let header = format.header();
        file.write_all_at(header, 0)?;
        let written = Written { length: header.len() as u64, ..Written::default() };
        let (index, encoder) = (Index::default(), Encoder::new(level)?);
        Ok(Self { file, format, encoder, index, records: Vec::new(), blocks: Vec::new(), written })
    }

    /// Adds a record. It must be valid ([`record::is_valid`]) and belong to the bucket.
    ///
    /// # Errors
    /// The file's.
    pub fn push(&mut self, key: u64, value: &[u8]) -> io::Result<()> {
        let framing = self.format.framing();
        if !self.records.is_empty() && self.records.len() + record::size(framing, value.len()) > MAX_BLOCK {
            self.write()?;
        }
        record::put(framing, key, value, &mut self.records);
        self.written.records += 1;
        self.written.bytes += value.len() as u64;
        Ok(())
    }

    /// Writes what is left, and makes the file durable. Its name is not: that is for [`Disk`](crate::disk::Disk).
    ///
    /// # Errors
    /// The file's.
    pub fn finish(mut self) -> io::Result<Written> {
        self.write()?;
        let mut index = Vec::new();
        self.index.write(self.written.length, &mut index);
        self.file.write_all_at(&index, self.written.length)?;
        self.written.length += index.len() as u64;
        self.file.sync()?;
        Ok(self.written)
    }

    fn write(&mut self) -> io::Result<()> {
        let offset = self.written.length;
        let bytes = if self.format == Format::V2 {
            self.blocks.clear();
            self.encoder.encode(offset, &self.records, &mut self.blocks);
            self.index.add(offset, &self.blocks);
            &self.blocks
        } else {
            &self.records
        };
        self.file.write_all_at(bytes, offset)?;
        self.written.length += bytes.len() as u64;
        self.records.clear();
        Ok(())
    }
}

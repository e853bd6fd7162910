//! Inputs as numbers, records and files.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bucket::BucketNumber;
use crate::disk::File;
use crate::format::{Format, HEADER, v2};
use crate::record::{self, Framing};

/// Records: keys and values.
pub(super) type Records = Vec<(u64, Vec<u8>)>;

/// Bytes that are used up from the front; zeros when there are no more.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    pub(super) fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// At most as many bytes.
    pub(super) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    pub(super) fn format(&mut self) -> Format {
        [Format::Plain, Format::V1, Format::V2][usize::from(self.byte() % 3)]
    }

    /// The first bucket, where zeros are keys, the last one, and others.
    pub(super) fn bucket(&mut self) -> BucketNumber {
        BucketNumber::of([0x5727_5000, 0, u64::MAX, 1 << 63, 0x4f4f_4f4f_4f4f_4f4f][usize::from(self.byte() % 5)])
    }

    /// A record of a bucket, with up to 255 bytes of the input or up to 8 KiB of one byte.
    pub(super) fn record(&mut self, number: BucketNumber) -> (u64, Vec<u8>) {
        let low = self.number();
        let key = number.first_key() | u64::from(low & 0xfff);
        let length = usize::from(self.byte());
        let value = if low & 0x8000 == 0 { self.bytes(length).to_vec() } else { vec![self.byte(); length * 32] };
        if record::is_valid(key, value.len()) { (key, value) } else { (key, vec![1]) }
    }

    /// Up to 40 records.
    pub(super) fn records(&mut self, number: BucketNumber) -> Records {
        (0..self.byte() % 41).map(|_| self.record(number)).collect()
    }

    /// A file of some records, and in format 2 of several blocks.
    pub(super) fn file(&mut self, format: Format, number: BucketNumber) -> Vec<u8> {
        let records = self.records(number);
        let mut file = format.header().to_vec();
        if format == Format::V2 {
            let each = usize::from(self.byte() % 8) + 1;
            let mut index = v2::Index::default();
            for records in records.chunks(each) {
                add_block(records, &mut file, &mut index);
            }
            if self.byte() % 2 == 1 {
                index.write(file.len() as u64, &mut file);
            }
        } else {
            for (key, value) in &records {
                record::put(format.framing(), *key, value, &mut file);
            }
        }
        file
    }

    /// Damages a file in some places: other bytes, one flipped bit, zeros, bytes added, bytes taken out, an end cut off.
    pub(super) fn damage(&mut self, file: &mut Vec<u8>) {
        for _ in 0..self.byte() % 8 {
            let (kind, place, length) = (self.byte(), usize::from(self.number()), usize::from(self.byte()));
            let from = place.min(file.len());
            let to = (from + length % 64).min(file.len());
            match kind % 6 {
                0 => file[from..to]
                    .copy_from_slice(&[self.bytes(to - from), &vec![0xaa; to - from]].concat()[..to - from]),
                1 => file[from..to].iter_mut().take(1).for_each(|byte| *byte ^= 1 << (length % 8)),
                2 => file[from..to].fill(0),
                3 => drop(file.splice(from..from, self.bytes(length).to_vec())),
                4 => drop(file.drain(from..to)),
                _ => file.truncate(file.len() - length.min(file.len())),
            }
        }
    }
}

fn add_block(records: &[(u64, Vec<u8>)], file: &mut Vec<u8>, index: &mut v2::Index) {
    let mut plain = Vec::new();
    for (key, value) in records {
        record::put(Framing::Plain, *key, value, &mut plain);
    }
    let offset = file.len();
    v2::encode_block(offset as u64, &plain, 1, file).expect("memory for a compressor");
    index.add(offset as u64, &file[offset..]);
    debug_assert!(offset >= HEADER);
}

/// A file in memory.
#[derive(Default)]
pub(super) struct Memory(Mutex<Vec<u8>>);

impl Memory {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }

    pub(super) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(offset..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let length = bytes.len().max(offset + written.len());
        bytes.resize(length, 0);
        bytes[offset..offset + written.len()].copy_from_slice(written);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

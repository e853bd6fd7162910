//! Batches: many records in one compressed array (protocol §1.4, §2.4).
//!
//! ```text
//! batch     0              8
//!           +--------------+------------------+
//!           | plain length | LZO1X block      |   plain length: u64, bytes of the records before compression
//!           +--------------+------------------+
//! pair      array key, array value              legacy: the key as 16 hexadecimal digits; neo: as 8 raw bytes
//! key       array key
//! refresh   u64 key, array value                neo Mirror
//! ```
//!
//! All three are records in a row. What a batch holds follows from the request, not from its bytes. A batch that
//! claims more than the caller allows is refused before anything is allocated for it, and one whose claim is not true
//! is refused too.

use thiserror::Error;

use crate::lzo::{self, LzoError, Work};
use crate::wire::{Reader, Short, put_array};

/// Bytes of records that a batch of GetAll and Mirror holds at most, unless configured otherwise.
pub const DEFAULT_LIMIT: usize = 65_536;

/// What became of a record that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Added {
    /// It is in the batch.
    Yes,
    /// The batch has no room left for it: finish it, then add the record to the next one.
    Full,
    /// No batch has room for it.
    TooLarge,
}

/// Collects records for a batch; reusable.
#[derive(Debug)]
pub struct BatchBuilder {
    plain: Vec<u8>,
    limit: usize,
    work: Work,
}

impl BatchBuilder {
    /// Makes an empty batch whose records have at most `limit` bytes with their lengths, before compression.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { plain: Vec::new(), limit, work: Work::new() }
    }

    /// Adds a key with its value.
    #[inline]
    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> Added {
        let added = self.room(key.len().saturating_add(value.len()).saturating_add(16));
        if added == Added::Yes {
            self.plain.reserve(16 + key.len() + value.len());
            match <&[u8; 8]>::try_from(key) {
                // In one piece: this is the most frequent record by far.
                Ok(&[a, b, c, d, e, f, g, h]) => {
                    let [s, t, u, v, w, x, y, z] = (value.len() as u64).to_le_bytes();
                    let front = [8, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h, s, t, u, v, w, x, y, z];
                    self.plain.extend_from_slice(&front);
                }
                Err(_) => {
                    put_array(&mut self.plain, key);
                    self.plain.extend_from_slice(&(value.len() as u64).to_le_bytes());
                }
            }
            self.plain.extend_from_slice(value);
        }
        added
    }

    /// Adds a key without its value.
    #[inline]
    pub fn key_only(&mut self, key: &[u8]) -> Added {
        let added = self.room(key.len().saturating_add(8));
        if added == Added::Yes {
            put_array(&mut self.plain, key);
        }
        added
    }

    /// Adds a record of a Mirror's refresh: the key raw, without a length.
    #[inline]
    pub fn refresh(&mut self, key: u64, value: &[u8]) -> Added {
        let added = self.room(value.len().saturating_add(16));
        if added == Added::Yes {
            self.plain.extend_from_slice(&key.to_le_bytes());
            put_array(&mut self.plain, value);
        }
        added
    }

    #[inline]
    fn room(&self, size: usize) -> Added {
        if size <= self.limit.saturating_sub(self.plain.len()) {
            Added::Yes
        } else if size <= self.limit {
            Added::Full
        } else {
            Added::TooLarge
        }
    }

    /// Whether it has no record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// Bytes of records in it, before compression.
    #[must_use]
    pub const fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Forgets its records.
    pub fn clear(&mut self) {
        self.plain.clear();
    }

    /// Appends the batch, which may have no record, and begins the next one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.plain.len() as u64).to_le_bytes());
        lzo::compress(&self.plain, out, &mut self.work);
        self.plain.clear();
    }

    /// Appends the batch as an array, as most messages carry it, and begins the next one.
    pub fn finish_array(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        self.finish(out);
        let length = (out.len() - start - 8) as u64;
        out[start..start + 8].copy_from_slice(&length.to_le_bytes());
    }
}

/// Something that is no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It is shorter than the length in front.
    #[error("a batch of less than 8 bytes")]
    Short,
    /// It claims to hold more than is allowed.
    #[error("a batch claims to hold {claimed} bytes, at most {limit} are allowed")]
    TooLong {
        /// What it claims.
        claimed: u64,
        /// What is allowed.
        limit: usize,
    },
    /// Its block cannot be decoded; [`LzoError::TooLong`] if it holds more than it claims.
    #[error("a batch cannot be decoded: {0}")]
    Block(#[from] LzoError),
    /// It holds less than it claims.
    #[error("a batch claims to hold {claimed} bytes and holds {actual}")]
    Length {
        /// What it claims.
        claimed: usize,
        /// What it holds.
        actual: usize,
    },
    /// The records end in the middle of one.
    #[error("the last record of a batch is cut short")]
    Record,
}

impl From<Short> for BatchError {
    fn from(Short: Short) -> Self {
        Self::Record
    }
}

/// Decodes a batch into `plain`, replacing what that held; `limit` bounds what it may hold, in bytes.
///
/// Then iterate `plain` with [`Pairs`], [`Keys`] or [`Refreshed`].
///
/// # Errors
/// See [`BatchError`]; `plain` is then empty.
pub fn decode(batch: &[u8], limit: usize, plain: &mut Vec<u8>) -> Result<(), BatchError> {
    plain.clear();
    let mut reader = Reader::new(batch);
    let claimed = reader.u64().map_err(|_| BatchError::Short)?;
    decode_block(claimed, reader.rest(), limit, plain)
}

/// Decodes a batch whose plain length stands elsewhere (dls GetRange has it in front of the array).
///
/// # Errors
/// As [`decode`].
pub fn decode_block(claimed: u64, block: &[u8], limit: usize, plain: &mut Vec<u8>) -> Result<(), BatchError> {
    plain.clear();
    let length = usize::try_from(claimed)
        .ok()
        .filter(|&length| length <= limit)
        .ok_or(BatchError::TooLong { claimed, limit })?;
    lzo::decompress(block, plain, length)?;
    if plain.len() == length {
        return Ok(());
    }
    let actual = plain.len();
    plain.clear();
    Err(BatchError::Length { claimed: length, actual })
}

macro_rules! records {
    ($(#[$doc:meta])* $name:ident, $item:ty, |$reader:ident| $read:expr) => {
        $(#[$doc])*
        ///
        /// Ends after the first error: a record that is cut short.
        #[derive(Debug, Clone)]
        pub struct $name<'a> {
            left: Reader<'a>,
        }

        impl<'a> $name<'a> {
            /// Begins with the first record of a decoded batch.
            #[must_use]
            pub const fn new(plain: &'a [u8]) -> Self {
                Self { left: Reader::new(plain) }
            }
        }

        impl<'a> Iterator for $name<'a> {
            type Item = Result<$item, BatchError>;

            #[inline]
            fn next(&mut self) -> Option<Self::Item> {
                if self.left.is_empty() {
                    return None;
                }
                let $reader = &mut self.left;
                let record = (|| Ok($read))();
                if record.is_err() {
                    self.left = Reader::new(&[]);
                }
                Some(record.map_err(|error: Short| error.into()))
            }
        }

        impl std::iter::FusedIterator for $name<'_> {}
    };
}

records! {
    /// The keys and values of a batch of pairs. A key has any length: the caller knows which one it expects.
    Pairs, (&'a [u8], &'a [u8]), |reader| (reader.array()?, reader.array()?)
}

records! {
    /// The keys of a batch of keys.
    Keys, &'a [u8], |reader| reader.array()?
}

records! {
    /// The keys and values of a batch of a Mirror's refresh.
    Refreshed, (u64, &'a [u8]), |reader| (reader.u64()?, reader.array()?)
}

#[cfg(test)]
mod tests;

//! Lists inside of requests, kept as they lie on the wire.

use std::marker::PhantomData;

use super::ProtocolError;
use super::cursor::{Cursor, Stop};
use crate::wire::{Reader, Short, put_array, put_end};

/// An entry of a list: begins with an array that is never empty, since an empty one ends the list.
pub trait Entry<'a>: Sized {
    /// Reads what follows the entry's array.
    ///
    /// # Errors
    /// The list ends within the entry.
    fn read(first: &'a [u8], rest: &mut Reader<'a>) -> Result<Self, Short>;

    /// Appends the entry.
    fn write(&self, out: &mut Vec<u8>);

    /// Bytes that follow the entry's array.
    const TAIL: usize;
}

impl<'a> Entry<'a> for &'a [u8] {
    const TAIL: usize = 0;

    fn read(first: &'a [u8], _: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(first)
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_array(out, self);
    }
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddress<'a> {
    /// The IPv4 address as text.
    pub address: &'a [u8],
    /// Its legacy port.
    pub port: u16,
}

impl<'a> Entry<'a> for NodeAddress<'a> {
    const TAIL: usize = 2;

    fn read(address: &'a [u8], rest: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(Self { address, port: rest.u16()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_array(out, self.address);
        out.extend_from_slice(&self.port.to_le_bytes());
    }
}

/// A node and the hash range that it is to have. The limits are as they came: they may be reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRange<'a> {
    /// Where it listens.
    pub node: NodeAddress<'a>,
    /// The lowest position.
    pub min: u64,
    /// The highest position.
    pub max: u64,
}

impl<'a> Entry<'a> for NodeRange<'a> {
    const TAIL: usize = 18;

    fn read(address: &'a [u8], rest: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(Self { node: NodeAddress { address, port: rest.u16()? }, min: rest.u64()?, max: rest.u64()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.node.write(out);
        out.extend_from_slice(&self.min.to_le_bytes());
        out.extend_from_slice(&self.max.to_le_bytes());
    }
}

/// A complete list, without the array that ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Items<'a, T> {
    encoded: &'a [u8],
    count: usize,
    entries: PhantomData<T>,
}

/// Names of channels.
pub type Names<'a> = Items<'a, &'a [u8]>;
/// Nodes.
pub type Nodes<'a> = Items<'a, NodeAddress<'a>>;
/// Nodes with the ranges that they are to have.
pub type Ranges<'a> = Items<'a, NodeRange<'a>>;

impl<'a, T: Entry<'a>> Items<'a, T> {
    /// Makes a list of entries, in a buffer that it clears first. An entry whose array is empty would end the list: it
    /// is left out.
    pub fn new(entries: impl IntoIterator<Item = T>, buffer: &'a mut Vec<u8>) -> Self {
        buffer.clear();
        let mut count = 0;
        for entry in entries {
            let start = buffer.len();
            entry.write(buffer);
            if buffer.get(start..start + 8) == Some(&[0; 8]) {
                buffer.truncate(start);
            } else {
                count += 1;
            }
        }
        Self { encoded: buffer, count, entries: PhantomData }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries, as they came.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let mut rest = Reader::new(self.encoded);
        std::iter::from_fn(move || {
            let first = rest.array().ok()?;
            T::read(first, &mut rest).ok()
        })
    }

    /// Appends the list and its end.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.encoded);
        put_end(out);
    }

    /// Reads a list up to its end.
    pub(super) fn decode(cursor: &mut Cursor<'a, '_>) -> Result<Self, Stop> {
        let start = cursor.at();
        let limits = cursor.limits();
        let mut count = 0;
        loop {
            let encoded = cursor.since(start);
            let length = cursor.u64()?;
            if length == 0 {
                return Ok(Self { encoded, count, entries: PhantomData });
            }
            if count == limits.list_items {
                return Err(ProtocolError::ListTooLong(limits.list_items).into());
            }
            let room = limits.list_bytes.saturating_sub(encoded.len());
            let Some(length) = usize::try_from(length).ok().filter(|length| *length <= room) else {
                return Err(ProtocolError::ListTooLong(limits.list_bytes).into());
            };
            cursor.bytes(length)?;
            cursor.bytes(T::TAIL)?;
            count += 1;
        }
    }
}

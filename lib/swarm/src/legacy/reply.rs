//! What follows the status of a request: the same few shapes for all nodes (protocol §1.1, §1.4, §1.5).
//!
//! ```text
//! array        length u64 | bytes
//! list         array | array | ... | length 0
//! records      array key | array value | ... | length 0 | length 0
//! size         array address | port u16 | records u64 | bytes u64
//! connections  array address | port u16 | connections u64
//! range        lowest position u64 | highest position u64
//! ```
//!
//! Writers are for nodes. Readers are for clients, take what has arrived and say what is missing; lists are read entry
//! by entry, so that a list has no limit.

use super::cursor::Cursor;
use super::list::NodeAddress;
use super::{Limits, Need, ProtocolError, Status};
use crate::wire::put_array;
pub use crate::wire::{put_array as put_value, put_end};

/// How much of a channel or of a node there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSize<'a> {
    /// The node that tells it.
    pub node: NodeAddress<'a>,
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How many connections a node has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeConnections<'a> {
    /// The node that tells it.
    pub node: NodeAddress<'a>,
    /// Open legacy connections.
    pub connections: u64,
}

/// One record of a Listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key as 16 hexadecimal digits.
    pub key: &'a [u8],
    /// The value; empty if the record was removed meanwhile.
    pub value: &'a [u8],
}

/// Appends one byte.
pub fn put_boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends the size of a channel or of a node.
pub fn put_size(out: &mut Vec<u8>, size: &NodeSize<'_>) {
    put_node(out, &size.node);
    out.extend_from_slice(&size.records.to_le_bytes());
    out.extend_from_slice(&size.bytes.to_le_bytes());
}

/// Appends a number of connections.
pub fn put_connections(out: &mut Vec<u8>, of: &NodeConnections<'_>) {
    put_node(out, &of.node);
    out.extend_from_slice(&of.connections.to_le_bytes());
}

/// Appends the limits of a hash range.
pub fn put_range(out: &mut Vec<u8>, min: u64, max: u64) {
    out.extend_from_slice(&min.to_le_bytes());
    out.extend_from_slice(&max.to_le_bytes());
}

/// Appends one record of a Listen.
pub fn put_record(out: &mut Vec<u8>, record: &Record<'_>) {
    put_array(out, record.key);
    put_array(out, record.value);
}

/// Appends what ends a Listen.
pub fn put_records_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 16]);
}

/// Appends an array whose bytes are appended by `fill`, without a copy: for batches.
pub fn put_array_with(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    crate::neo::message::put_array_with(out, fill);
}

fn put_node(out: &mut Vec<u8>, node: &NodeAddress<'_>) {
    put_array(out, node.address);
    out.extend_from_slice(&node.port.to_le_bytes());
}

/// Reads the status.
///
/// # Errors
/// The status is none; the published client closes the connection.
#[inline]
pub fn status(input: &[u8]) -> Result<Need<Status>, ProtocolError> {
    let mut cursor = Cursor::new(input, &Limits::DEFAULT);
    let status = cursor.i32().and_then(|code| {
        let status = Status::from_code(code).ok_or(ProtocolError::UnknownStatus(code))?;
        Ok(status)
    });
    cursor.done(status)
}

/// Reads one array: a value, or the version.
///
/// # Errors
/// It is longer than [`Limits::array`].
#[inline]
pub fn array<'a>(input: &'a [u8], limits: &Limits) -> Result<Need<&'a [u8]>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let array = cursor.array();
    cursor.done(array)
}

/// Reads one entry of a list: a name, a value or a batch; nothing at the end of the list.
///
/// # Errors
/// It is longer than [`Limits::array`].
#[inline]
pub fn item<'a>(input: &'a [u8], limits: &Limits) -> Result<Need<Option<&'a [u8]>>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let item = cursor.array().map(|item| Some(item).filter(|item| !item.is_empty()));
    cursor.done(item)
}

/// Reads one record of a Listen; nothing when the channel was removed.
///
/// # Errors
/// The key or the value is longer than [`Limits::array`].
#[inline]
pub fn record<'a>(input: &'a [u8], limits: &Limits) -> Result<Need<Option<Record<'a>>>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let record = cursor.array().and_then(|key| {
        let value = cursor.array()?;
        Ok((!key.is_empty()).then_some(Record { key, value }))
    });
    cursor.done(record)
}

/// Reads one byte.
///
/// # Errors
/// None; the signature is that of the others.
pub fn boolean(input: &[u8]) -> Result<Need<bool>, ProtocolError> {
    let mut cursor = Cursor::new(input, &Limits::DEFAULT);
    let value = cursor.u8().map(|byte| byte != 0);
    cursor.done(value)
}

/// Reads the size of a channel or of a node.
///
/// # Errors
/// The address is longer than [`Limits::array`].
pub fn size<'a>(input: &'a [u8], limits: &Limits) -> Result<Need<NodeSize<'a>>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let size = (|| {
        let node = NodeAddress { address: cursor.array()?, port: cursor.u16()? };
        Ok(NodeSize { node, records: cursor.u64()?, bytes: cursor.u64()? })
    })();
    cursor.done(size)
}

/// Reads a number of connections.
///
/// # Errors
/// The address is longer than [`Limits::array`].
pub fn connections<'a>(input: &'a [u8], limits: &Limits) -> Result<Need<NodeConnections<'a>>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let connections = (|| {
        let node = NodeAddress { address: cursor.array()?, port: cursor.u16()? };
        Ok(NodeConnections { node, connections: cursor.u64()? })
    })();
    cursor.done(connections)
}

/// Reads the limits of a hash range, lowest first; nobody has checked them.
///
/// # Errors
/// None; the signature is that of the others.
pub fn range(input: &[u8]) -> Result<Need<(u64, u64)>, ProtocolError> {
    let mut cursor = Cursor::new(input, &Limits::DEFAULT);
    let range = cursor.u64().and_then(|min| Ok((min, cursor.u64()?)));
    cursor.done(range)
}

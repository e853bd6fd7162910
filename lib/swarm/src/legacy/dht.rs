//! The legacy requests of the dht (protocol §1.5).

use super::cursor::{Cursor, Stop};
use super::{Limits, ProtocolError, Ranges, Reply};
use crate::wire::put_array;

/// The version that every dht and dls node tells.
pub const VERSION: &[u8] = b"20110401";

/// Bytes of a too long value that are read and thrown away in order to answer; more ends the connection.
pub const MAX_DISCARD: u64 = 1 << 30;

/// The codes of the requests.
pub mod code {
    #![allow(missing_docs, reason = "each is the code of the request of its name")]
    pub const PUT: i32 = 1;
    pub const GET: i32 = 7;
    pub const EXISTS: i32 = 11;
    pub const REMOVE: i32 = 12;
    pub const GET_CHANNELS: i32 = 17;
    pub const GET_CHANNEL_SIZE: i32 = 18;
    pub const GET_SIZE: i32 = 19;
    pub const GET_RESPONSIBLE_RANGE: i32 = 20;
    pub const REMOVE_CHANNEL: i32 = 22;
    pub const GET_NUM_CONNECTIONS: i32 = 23;
    pub const GET_VERSION: i32 = 24;
    pub const LISTEN: i32 = 25;
    pub const GET_ALL: i32 = 29;
    pub const GET_ALL_KEYS: i32 = 30;
    pub const GET_ALL_FILTER: i32 = 31;
    pub const REDISTRIBUTE: i32 = 33;
    pub const PUT_BATCH: i32 = 34;
}

/// A request. Channels, keys, filters and values are as they came: nobody has checked them.
///
/// A key is right if it is 16 hexadecimal digits of either case ([`crate::key::Key::from_hex16`]). The published node
/// closes the connection of a Put or Remove with another key, and finds nothing for such a Get or Exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Stores a record.
    Put {
        /// Where.
        channel: &'a [u8],
        /// Its key.
        key: &'a [u8],
        /// Its value; at most [`Limits::value`] bytes when it was decoded.
        value: &'a [u8],
    },
    /// Asks for a value; empty if there is none.
    Get {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: &'a [u8],
    },
    /// Asks whether there is a record.
    Exists {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: &'a [u8],
    },
    /// Removes a record.
    Remove {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: &'a [u8],
    },
    /// Asks for the names of all channels.
    GetChannels,
    /// Asks how much a channel holds.
    GetChannelSize {
        /// Which.
        channel: &'a [u8],
    },
    /// Asks how much the node holds.
    GetSize,
    /// Asks for the node's hash range.
    GetResponsibleRange,
    /// Removes a channel and its records.
    RemoveChannel {
        /// Which.
        channel: &'a [u8],
    },
    /// Asks how many connections the node has.
    GetNumConnections,
    /// Asks for [`VERSION`].
    GetVersion,
    /// Asks for each record that is put from now on, until the channel is removed.
    Listen {
        /// Where.
        channel: &'a [u8],
    },
    /// Asks for all records.
    GetAll {
        /// Where.
        channel: &'a [u8],
    },
    /// Asks for all keys.
    GetAllKeys {
        /// Where.
        channel: &'a [u8],
    },
    /// Asks for the records whose value holds some bytes.
    GetAllFilter {
        /// Where.
        channel: &'a [u8],
        /// The bytes; the published node finds nothing if there are none.
        filter: &'a [u8],
    },
    /// Gives the node another hash range and tells it where to send what lies outside. The limits may be reversed.
    Redistribute {
        /// The lowest position of the new range.
        min: u64,
        /// The highest position of the new range.
        max: u64,
        /// The nodes that get the rest.
        nodes: Ranges<'a>,
    },
    /// Stores the records of a batch.
    PutBatch {
        /// Where.
        channel: &'a [u8],
        /// The batch of pairs, as it came.
        batch: &'a [u8],
    },
}

/// A Put whose value is longer than [`Limits::value`].
///
/// The value is read and thrown away; only then the node answers: [`super::Status::BadChannelName`], or closes the
/// connection because of the key, or [`super::Status::WrongNode`], or [`super::Status::ValueTooBig`], in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong<'a> {
    /// The channel, as it came.
    pub channel: &'a [u8],
    /// The key, as it came.
    pub key: &'a [u8],
    /// Bytes of input that are done with: the whole request, if all of it has arrived.
    pub consumed: usize,
    /// Bytes that follow and are to be thrown away, at most [`MAX_DISCARD`].
    pub more: u64,
}

/// What became of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Incomplete: it makes sense to decode again once so many bytes in all are there.
    Need(usize),
    /// A request, in the first `consumed` bytes.
    Request {
        /// The request; borrows from the input.
        request: Request<'a>,
        /// Bytes of input that are the request.
        consumed: usize,
    },
    /// A Put that cannot be stored.
    TooLong(TooLong<'a>),
}

/// Reads the request at the front of a connection's input.
///
/// # Errors
/// The code is unknown, or something is longer than the limits allow; the connection is closed.
pub fn decode<'a>(input: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let body = read(&mut cursor);
    match body {
        Ok(Body::Request(request)) => Ok(Decoded::Request { request, consumed: cursor.at() }),
        Ok(Body::TooLong { channel, key, length }) => {
            let here = u64::try_from(cursor.left()).unwrap_or(u64::MAX).min(length);
            let consumed = cursor.at().saturating_add(usize::try_from(here).unwrap_or(usize::MAX));
            Ok(Decoded::TooLong(TooLong { channel, key, consumed, more: length - here }))
        }
        Err(Stop::Need(bytes)) => Ok(Decoded::Need(bytes)),
        Err(Stop::Error(error)) => Err(error),
    }
}

enum Body<'a> {
    Request(Request<'a>),
    TooLong { channel: &'a [u8], key: &'a [u8], length: u64 },
}

#[inline]
fn read<'a>(cursor: &mut Cursor<'a, '_>) -> Result<Body<'a>, Stop> {
    let request = match cursor.i32()? {
        code::PUT => {
            let (channel, key) = (cursor.array()?, cursor.array()?);
            let length = cursor.u64()?;
            let limits = cursor.limits();
            match usize::try_from(length) {
                Ok(length) if length <= limits.value.min(limits.array) => {
                    Request::Put { channel, key, value: cursor.bytes(length)? }
                }
                _ if length <= MAX_DISCARD => return Ok(Body::TooLong { channel, key, length }),
                _ => return Err(ProtocolError::ArrayTooLong(length).into()),
            }
        }
        code::GET => Request::Get { channel: cursor.array()?, key: cursor.array()? },
        code::EXISTS => Request::Exists { channel: cursor.array()?, key: cursor.array()? },
        code::REMOVE => Request::Remove { channel: cursor.array()?, key: cursor.array()? },
        code::GET_CHANNELS => Request::GetChannels,
        code::GET_CHANNEL_SIZE => Request::GetChannelSize { channel: cursor.array()? },
        code::GET_SIZE => Request::GetSize,
        code::GET_RESPONSIBLE_RANGE => Request::GetResponsibleRange,
        code::REMOVE_CHANNEL => Request::RemoveChannel { channel: cursor.array()? },
        code::GET_NUM_CONNECTIONS => Request::GetNumConnections,
        code::GET_VERSION => Request::GetVersion,
        code::LISTEN => Request::Listen { channel: cursor.array()? },
        code::GET_ALL => Request::GetAll { channel: cursor.array()? },
        code::GET_ALL_KEYS => Request::GetAllKeys { channel: cursor.array()? },
        code::GET_ALL_FILTER => Request::GetAllFilter { channel: cursor.array()?, filter: cursor.array()? },
        code::REDISTRIBUTE => {
            Request::Redistribute { min: cursor.u64()?, max: cursor.u64()?, nodes: Ranges::decode(cursor)? }
        }
        code::PUT_BATCH => Request::PutBatch { channel: cursor.array()?, batch: cursor.array()? },
        unknown => return Err(ProtocolError::UnknownCode(unknown).into()),
    };
    Ok(Body::Request(request))
}

impl Request<'_> {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Put { .. } => code::PUT,
            Self::Get { .. } => code::GET,
            Self::Exists { .. } => code::EXISTS,
            Self::Remove { .. } => code::REMOVE,
            Self::GetChannels => code::GET_CHANNELS,
            Self::GetChannelSize { .. } => code::GET_CHANNEL_SIZE,
            Self::GetSize => code::GET_SIZE,
            Self::GetResponsibleRange => code::GET_RESPONSIBLE_RANGE,
            Self::RemoveChannel { .. } => code::REMOVE_CHANNEL,
            Self::GetNumConnections => code::GET_NUM_CONNECTIONS,
            Self::GetVersion => code::GET_VERSION,
            Self::Listen { .. } => code::LISTEN,
            Self::GetAll { .. } => code::GET_ALL,
            Self::GetAllKeys { .. } => code::GET_ALL_KEYS,
            Self::GetAllFilter { .. } => code::GET_ALL_FILTER,
            Self::Redistribute { .. } => code::REDISTRIBUTE,
            Self::PutBatch { .. } => code::PUT_BATCH,
        }
    }

    /// The name in `stats.log` and in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "Put",
            Self::Get { .. } => "Get",
            Self::Exists { .. } => "Exists",
            Self::Remove { .. } => "Remove",
            Self::GetChannels => "GetChannels",
            Self::GetChannelSize { .. } => "GetChannelSize",
            Self::GetSize => "GetSize",
            Self::GetResponsibleRange => "GetResponsibleRange",
            Self::RemoveChannel { .. } => "RemoveChannel",
            Self::GetNumConnections => "GetNumConnections",
            Self::GetVersion => "GetVersion",
            Self::Listen { .. } => "Listen",
            Self::GetAll { .. } => "GetAll",
            Self::GetAllKeys { .. } => "GetAllKeys",
            Self::GetAllFilter { .. } => "GetAllFilter",
            Self::Redistribute { .. } => "Redistribute",
            Self::PutBatch { .. } => "PutBatch",
        }
    }

    /// What follows the status Ok.
    #[must_use]
    pub const fn reply(&self) -> Reply {
        match self {
            Self::Put { .. }
            | Self::Remove { .. }
            | Self::RemoveChannel { .. }
            | Self::Redistribute { .. }
            | Self::PutBatch { .. } => Reply::None,
            Self::Get { .. } | Self::GetVersion => Reply::Array,
            Self::Exists { .. } => Reply::Boolean,
            Self::GetChannels => Reply::Items,
            Self::GetChannelSize { .. } | Self::GetSize => Reply::Size,
            Self::GetResponsibleRange => Reply::Range,
            Self::GetNumConnections => Reply::Connections,
            Self::Listen { .. } => Reply::Records,
            Self::GetAll { .. } | Self::GetAllFilter { .. } => Reply::Batches,
            Self::GetAllKeys { .. } => Reply::KeyBatches,
        }
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code().to_le_bytes());
        match *self {
            Self::Put { channel, key, value } => {
                put_array(out, channel);
                put_array(out, key);
                put_array(out, value);
            }
            Self::Get { channel, key } | Self::Exists { channel, key } | Self::Remove { channel, key } => {
                put_array(out, channel);
                put_array(out, key);
            }
            Self::GetChannels
            | Self::GetSize
            | Self::GetResponsibleRange
            | Self::GetNumConnections
            | Self::GetVersion => {}
            Self::GetChannelSize { channel }
            | Self::RemoveChannel { channel }
            | Self::Listen { channel }
            | Self::GetAll { channel }
            | Self::GetAllKeys { channel } => put_array(out, channel),
            Self::GetAllFilter { channel, filter } => {
                put_array(out, channel);
                put_array(out, filter);
            }
            Self::Redistribute { min, max, nodes } => {
                out.extend_from_slice(&min.to_le_bytes());
                out.extend_from_slice(&max.to_le_bytes());
                nodes.encode(out);
            }
            Self::PutBatch { channel, batch } => {
                put_array(out, channel);
                put_array(out, batch);
            }
        }
    }
}

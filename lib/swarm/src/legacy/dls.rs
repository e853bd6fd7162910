//! The legacy requests of the dls (protocol §1.7).
//!
//! GetChannelSize, GetSize and GetResponsibleRange are not served by the published node. They have the codes and replies
//! of the dht, for clients that route by ranges of timestamps (§9).

use super::cursor::{Cursor, Stop};
use super::{Limits, Nodes, ProtocolError, Reply};
use crate::wire::put_array;

pub use super::dht::VERSION;

/// Bytes of a value that a Put stores; a longer one is answered with [`super::Status::OutOfMemory`].
pub const MAX_VALUE: usize = 65_536;

/// What became of the input.
pub type Decoded<'a> = super::Decoded<Request<'a>>;

/// The codes of the requests.
pub mod code {
    #![allow(missing_docs, reason = "each is the code of the request of its name")]
    pub const PUT: i32 = 3;
    pub const GET_CHANNELS: i32 = 17;
    pub const GET_CHANNEL_SIZE: i32 = 18;
    pub const GET_SIZE: i32 = 19;
    pub const GET_RESPONSIBLE_RANGE: i32 = 20;
    pub const REMOVE_CHANNEL: i32 = 22;
    pub const GET_NUM_CONNECTIONS: i32 = 23;
    pub const GET_VERSION: i32 = 24;
    pub const GET_RANGE: i32 = 28;
    pub const GET_ALL: i32 = 29;
    pub const GET_ALL_FILTER: i32 = 31;
    pub const GET_RANGE_FILTER: i32 = 32;
    pub const GET_RANGE_REGEX: i32 = 34;
    pub const REDISTRIBUTE: i32 = 35;
    pub const PUT_BATCH: i32 = 36;
}

/// The modes of a GetRangeRegex.
pub mod mode {
    /// The value holds the bytes of the pattern.
    pub const STRING_MATCH: u8 = 0;
    /// The value matches the regular expression.
    pub const PCRE: u8 = 1;
    /// The same, whatever the case of letters.
    pub const PCRE_CASE_INSENSITIVE: u8 = 2;
}

/// The first and the last key of a range as text, both in it; as they came.
///
/// The published node closes the connection of a Put whose key is not 16 hexadecimal digits, and finds nothing between
/// such limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval<'a> {
    /// The first key.
    pub low: &'a [u8],
    /// The last key.
    pub high: &'a [u8],
}

/// A request. Channels, keys, filters and values are as they came: nobody has checked them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Request<'a> {
    /// Appends a record.
    Put {
        /// Where.
        channel: &'a [u8],
        /// Its key: a timestamp as 16 hexadecimal digits.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Asks for the names of all channels.
    GetChannels,
    /// Asks how much a channel holds; the bytes are those of the values.
    GetChannelSize {
        /// Which.
        channel: &'a [u8],
    },
    /// Asks how much the node holds; the bytes are those of the values.
    GetSize,
    /// Asks for the first and the last timestamp that the node takes.
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
    /// Asks for the records of a range.
    GetRange {
        /// Where.
        channel: &'a [u8],
        /// Which.
        range: Interval<'a>,
    },
    /// Asks for all records.
    GetAll {
        /// Where.
        channel: &'a [u8],
    },
    /// Asks for the records whose value holds some bytes.
    GetAllFilter {
        /// Where.
        channel: &'a [u8],
        /// The bytes.
        filter: &'a [u8],
    },
    /// Asks for the records of a range whose value holds some bytes.
    GetRangeFilter {
        /// Where.
        channel: &'a [u8],
        /// Which.
        range: Interval<'a>,
        /// The bytes; none for all records.
        filter: &'a [u8],
    },
    /// Asks for the records of a range whose value matches.
    GetRangeRegex {
        /// Where.
        channel: &'a [u8],
        /// Which.
        range: Interval<'a>,
        /// One of [`mode`], or none of them.
        mode: u8,
        /// What to match.
        pattern: &'a [u8],
    },
    /// Sends a part of the records to other nodes.
    Redistribute {
        /// The part: above 0, at most 1; as it came.
        fraction: f32,
        /// The nodes.
        nodes: Nodes<'a>,
    },
    /// Appends the records of a batch.
    PutBatch {
        /// Where.
        channel: &'a [u8],
        /// The batch of pairs, as it came; at most [`MAX_BATCH`] bytes uncompressed.
        batch: &'a [u8],
    },
}

/// Bytes of the content of a PutBatch.
pub const MAX_BATCH: usize = 16 << 20;

/// Reads the request at the front of a connection's input.
///
/// # Errors
/// The code is unknown, or something is longer than the limits allow; the connection is closed.
pub fn decode<'a>(input: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, ProtocolError> {
    let mut cursor = Cursor::new(input, limits);
    let request = read(&mut cursor);
    cursor.decoded(request)
}

#[inline]
fn read<'a>(cursor: &mut Cursor<'a, '_>) -> Result<Request<'a>, Stop> {
    Ok(match cursor.i32()? {
        code::PUT => Request::Put { channel: cursor.array()?, key: cursor.array()?, value: cursor.array()? },
        code::GET_CHANNELS => Request::GetChannels,
        code::GET_CHANNEL_SIZE => Request::GetChannelSize { channel: cursor.array()? },
        code::GET_SIZE => Request::GetSize,
        code::GET_RESPONSIBLE_RANGE => Request::GetResponsibleRange,
        code::REMOVE_CHANNEL => Request::RemoveChannel { channel: cursor.array()? },
        code::GET_NUM_CONNECTIONS => Request::GetNumConnections,
        code::GET_VERSION => Request::GetVersion,
        code::GET_RANGE => Request::GetRange { channel: cursor.array()?, range: Interval::read(cursor)? },
        code::GET_ALL => Request::GetAll { channel: cursor.array()? },
        code::GET_ALL_FILTER => Request::GetAllFilter { channel: cursor.array()?, filter: cursor.array()? },
        code::GET_RANGE_FILTER => Request::GetRangeFilter {
            channel: cursor.array()?,
            range: Interval::read(cursor)?,
            filter: cursor.array()?,
        },
        code::GET_RANGE_REGEX => Request::GetRangeRegex {
            channel: cursor.array()?,
            range: Interval::read(cursor)?,
            mode: cursor.u8()?,
            pattern: cursor.array()?,
        },
        code::REDISTRIBUTE => Request::Redistribute { fraction: cursor.f32()?, nodes: Nodes::decode(cursor)? },
        code::PUT_BATCH => Request::PutBatch { channel: cursor.array()?, batch: cursor.array()? },
        unknown => return Err(ProtocolError::UnknownCode(unknown).into()),
    })
}

impl<'a> Interval<'a> {
    fn read(cursor: &mut Cursor<'a, '_>) -> Result<Self, Stop> {
        Ok(Self { low: cursor.array()?, high: cursor.array()? })
    }
}

impl Request<'_> {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Put { .. } => code::PUT,
            Self::GetChannels => code::GET_CHANNELS,
            Self::GetChannelSize { .. } => code::GET_CHANNEL_SIZE,
            Self::GetSize => code::GET_SIZE,
            Self::GetResponsibleRange => code::GET_RESPONSIBLE_RANGE,
            Self::RemoveChannel { .. } => code::REMOVE_CHANNEL,
            Self::GetNumConnections => code::GET_NUM_CONNECTIONS,
            Self::GetVersion => code::GET_VERSION,
            Self::GetRange { .. } => code::GET_RANGE,
            Self::GetAll { .. } => code::GET_ALL,
            Self::GetAllFilter { .. } => code::GET_ALL_FILTER,
            Self::GetRangeFilter { .. } => code::GET_RANGE_FILTER,
            Self::GetRangeRegex { .. } => code::GET_RANGE_REGEX,
            Self::Redistribute { .. } => code::REDISTRIBUTE,
            Self::PutBatch { .. } => code::PUT_BATCH,
        }
    }

    /// The name in `stats.log` and in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "Put",
            Self::GetChannels => "GetChannels",
            Self::GetChannelSize { .. } => "GetChannelSize",
            Self::GetSize => "GetSize",
            Self::GetResponsibleRange => "GetResponsibleRange",
            Self::RemoveChannel { .. } => "RemoveChannel",
            Self::GetNumConnections => "GetNumConnections",
            Self::GetVersion => "GetVersion",
            Self::GetRange { .. } => "GetRange",
            Self::GetAll { .. } => "GetAll",
            Self::GetAllFilter { .. } => "GetAllFilter",
            Self::GetRangeFilter { .. } => "GetRangeFilter",
            Self::GetRangeRegex { .. } => "GetRangeRegex",
            Self::Redistribute { .. } => "Redistribute",
            Self::PutBatch { .. } => "PutBatch",
        }
    }

    /// What follows the status Ok.
    #[must_use]
    pub const fn reply(&self) -> Reply {
        match self {
            Self::Put { .. } | Self::RemoveChannel { .. } | Self::Redistribute { .. } | Self::PutBatch { .. } => {
                Reply::None
            }
            Self::GetChannels => Reply::Items,
            Self::GetChannelSize { .. } | Self::GetSize => Reply::Size,
            Self::GetResponsibleRange => Reply::Range,
            Self::GetNumConnections => Reply::Connections,
            Self::GetVersion => Reply::Array,
            Self::GetRange { .. }
            | Self::GetAll { .. }
            | Self::GetAllFilter { .. }
            | Self::GetRangeFilter { .. }
            | Self::GetRangeRegex { .. } => Reply::Batches,
        }
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code().to_le_bytes());
        match *self {
            Self::Put { channel, key, value } => put_arrays(out, &[channel, key, value]),
            Self::GetChannels
            | Self::GetSize
            | Self::GetResponsibleRange
            | Self::GetNumConnections
            | Self::GetVersion => {}
            Self::GetChannelSize { channel } | Self::RemoveChannel { channel } | Self::GetAll { channel } => {
                put_array(out, channel);
            }
            Self::GetRange { channel, range } => put_arrays(out, &[channel, range.low, range.high]),
            Self::GetAllFilter { channel, filter } => put_arrays(out, &[channel, filter]),
            Self::GetRangeFilter { channel, range, filter } => {
                put_arrays(out, &[channel, range.low, range.high, filter]);
            }
            Self::GetRangeRegex { channel, range, mode, pattern } => {
                put_arrays(out, &[channel, range.low, range.high]);
                out.push(mode);
                put_array(out, pattern);
            }
            Self::Redistribute { fraction, nodes } => {
                out.extend_from_slice(&fraction.to_le_bytes());
                nodes.encode(out);
            }
            Self::PutBatch { channel, batch } => put_arrays(out, &[channel, batch]),
        }
    }
}

fn put_arrays(out: &mut Vec<u8>, arrays: &[&[u8]]) {
    for array in arrays {
        put_array(out, array);
    }
}

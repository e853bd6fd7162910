//! The neo requests of the dls (protocol §2.6).
//!
//! A GetRange works by credit: after each batch the node waits until the client says [`GetRangeControl::Continue`] or
//! [`GetRangeControl::Stop`]; after [`GetRangeMessage::Finished`] it waits for [`GetRangeControl::Ack`]. A batch is
//! never empty, and its uncompressed length lies outside of the array:
//!
//! ```text
//! 3 u8 | uncompressed length u64 | array: LZO block of { timestamp i64 | array value }...
//! ```
//!
//! GetTimestampRange is none of the published requests: a node that does not know it says so (§2.3).
//!
//! Bytes behind the last value of a first message are ignored; all later messages must be exact.

pub use super::dht::RangeLimits;

use super::message::{BadMessage, byte_messages, end};
use crate::wire::{Reader, put_array};

/// Bytes of records after which the published node sends a batch.
pub const GET_RANGE_BATCH: usize = 100_000;

/// The codes of the requests.
pub mod code {
    #![allow(missing_docs, reason = "each is the code of the request of its name")]
    pub const PUT: u8 = 1;
    pub const GET_RANGE: u8 = 2;
    pub const GET_TIMESTAMP_RANGE: u8 = 64;
}

/// The version of the request with this code, if there is one.
#[must_use]
pub const fn version(code: u8) -> Option<u8> {
    match code {
        code::PUT => Some(1),
        code::GET_RANGE => Some(2),
        code::GET_TIMESTAMP_RANGE => Some(0),
        _ => None,
    }
}

/// The modes of a GetRange's filter.
pub mod mode {
    /// No filter.
    pub const NONE: u8 = 0;
    /// The value holds the bytes of the filter; no bytes for all records.
    pub const STRING_MATCH: u8 = 1;
    /// The value matches the regular expression.
    pub const PCRE: u8 = 2;
    /// The same, whatever the case of letters.
    pub const PCRE_CASE_INSENSITIVE: u8 = 3;
}

/// A request: what follows code and version in its first message. Names and values are as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Appends a record ([`PutReply`]).
    Put {
        /// Where.
        channel: &'a [u8],
        /// Seconds since 1970.
        timestamp: i64,
        /// Its value.
        value: &'a [u8],
    },
    /// Asks for the records of a range ([`GetRangeMessage`]).
    GetRange {
        /// Where.
        channel: &'a [u8],
        /// The first timestamp.
        low: i64,
        /// The last timestamp, also in the range.
        high: i64,
        /// What to match.
        filter: &'a [u8],
        /// One of [`mode`], or none of them.
        mode: u8,
    },
    /// Asks for the first and the last timestamp that the node takes, as unsigned numbers: one message of the node
    /// ([`RangeLimits`]).
    GetTimestampRange,
}

impl<'a> Request<'a> {
    /// Reads what follows code and version. What follows the last value is ignored.
    ///
    /// # Errors
    /// It is too short, or no request has this code.
    #[inline]
    pub fn decode(code: u8, payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        Ok(match code {
            code::PUT => Self::Put { channel: read.array()?, timestamp: read.i64()?, value: read.array()? },
            code::GET_RANGE => Self::GetRange {
                channel: read.array()?,
                low: read.i64()?,
                high: read.i64()?,
                filter: read.array()?,
                mode: read.u8()?,
            },
            code::GET_TIMESTAMP_RANGE => Self::GetTimestampRange,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        })
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Put { .. } => code::PUT,
            Self::GetRange { .. } => code::GET_RANGE,
            Self::GetTimestampRange => code::GET_TIMESTAMP_RANGE,
        }
    }

    /// The name in `stats.log`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "Put",
            Self::GetRange { .. } => "GetRange",
            Self::GetTimestampRange => "GetTimestampRange",
        }
    }

    /// Appends code, version and what follows.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        out.extend(version(self.code()));
        match *self {
            Self::Put { channel, timestamp, value } => {
                put_array(out, channel);
                out.extend_from_slice(&timestamp.to_le_bytes());
                put_array(out, value);
            }
            Self::GetRange { channel, low, high, filter, mode } => {
                put_array(out, channel);
                out.extend_from_slice(&low.to_le_bytes());
                out.extend_from_slice(&high.to_le_bytes());
                put_array(out, filter);
                out.push(mode);
            }
            Self::GetTimestampRange => {}
        }
    }
}

byte_messages! {
    /// The end of a Put.
    PutReply {
        /// Stored.
        Put = 1,
        /// It failed.
        Error = 2,
    }

    /// What a client sends to a running GetRange.
    GetRangeControl {
        /// Send the next batch.
        Continue = 1,
        /// End.
        Stop = 2,
        /// The end was seen.
        Ack = 6,
    }
}

/// A message of a node to a GetRange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetRangeMessage<'a> {
    /// The request runs.
    Started,
    /// A batch of records.
    Records(RecordsBlock<'a>),
    /// It was stopped, and is over.
    Stopped,
    /// There are no more; the client acknowledges it.
    Finished,
    /// Instead of [`Self::Started`]: it cannot be done, and is over.
    Refused,
    /// It failed, and is over.
    Error,
}

/// The compressed records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsBlock<'a> {
    /// Bytes of the content, as the node tells it.
    pub plain_len: u64,
    /// The LZO block ([`crate::lzo::decompress`]) of what [`crate::batch::Refreshed`] reads.
    pub block: &'a [u8],
}

/// Has the code of [`RECORDS`], but nothing follows it.
const REFUSED: u8 = 3;
const RECORDS: u8 = 3;

impl<'a> GetRangeMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            1 => Self::Started,
            REFUSED if read.is_empty() => Self::Refused,
            RECORDS => Self::Records(RecordsBlock { plain_len: read.u64()?, block: read.array()? }),
            4 => Self::Stopped,
            5 => Self::Finished,
            7 => Self::Error,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Started => out.push(1),
            Self::Records(records) => {
                out.push(RECORDS);
                out.extend_from_slice(&records.plain_len.to_le_bytes());
                put_array(out, records.block);
            }
            Self::Stopped => out.push(4),
            Self::Finished => out.push(5),
            Self::Refused => out.push(REFUSED),
            Self::Error => out.push(7),
        }
    }

    /// Appends a [`Self::Records`] whose batch is appended by `fill`, without a copy.
    ///
    /// `fill` appends the uncompressed length and the block, as the batches of all other requests are; the length of
    /// the array belongs between the two.
    pub fn encode_records(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        out.push(RECORDS);
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        fill(out);
        let length = out.len().saturating_sub(start + 16) as u64;
        if let Some([plain_len, array]) =
            out.get_mut(start..start + 16).and_then(|front| front.as_chunks_mut().0.first_chunk_mut())
        {
            *plain_len = *array;
            *array = length.to_le_bytes();
        }
    }
}

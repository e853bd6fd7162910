//! The neo requests of the dht (protocol §2.4, all of version 0).
//!
//! ```text
//! client:  code u8 | version u8 | the request's own values        (first message of a request id)
//! node:    supported u8                                           (a message of its own, before the rest is read)
//! node:    one byte, or the request's own messages
//! ```
//!
//! A request whose first message ends too early is answered with its error where it has one. Bytes behind the last
//! value of a first message are ignored, for every request, as published for Put; all later messages must be exact.

pub mod stream;
pub mod update;

pub use stream::{Control, GetAllMessage, HashRangeUpdate, MirrorMessage, RangeLimits};
pub use update::{UpdateAnswer, UpdateReply};

use super::message::{BadMessage, byte_messages, end};
use crate::key::Key;
use crate::wire::{Reader, put_array};

/// The version of every request.
pub const VERSION: u8 = 0;

/// Bytes of a value that a client puts at most, so that a record fits a batch.
pub const MAX_VALUE: usize = 65_536 - 8 - 16;

/// The codes of the requests.
pub mod code {
    #![allow(missing_docs, reason = "each is the code of the request of its name")]
    pub const GET_HASH_RANGE: u8 = 1;
    pub const PUT: u8 = 2;
    pub const GET: u8 = 3;
    pub const MIRROR: u8 = 4;
    pub const GET_ALL: u8 = 5;
    pub const GET_CHANNELS: u8 = 6;
    pub const EXISTS: u8 = 7;
    pub const REMOVE: u8 = 8;
    pub const REMOVE_CHANNEL: u8 = 9;
    pub const UPDATE: u8 = 10;
}

/// The version of the request with this code, if there is one.
#[must_use]
pub const fn version(code: u8) -> Option<u8> {
    match code {
        code::GET_HASH_RANGE..=code::UPDATE => Some(VERSION),
        _ => None,
    }
}

/// A request: what follows code and version in its first message. Channels and values are as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Asks for the node's hash range, and then for each change of it and each new node.
    GetHashRange,
    /// Stores a record ([`PutReply`]).
    Put {
        /// Where.
        channel: &'a [u8],
        /// Its key.
        key: Key,
        /// Its value.
        value: &'a [u8],
    },
    /// Asks for a value ([`GetReply`]).
    Get {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: Key,
    },
    /// Asks for each change of a channel ([`MirrorMessage`]).
    Mirror {
        /// Whether the client has to resume it first.
        start_suspended: bool,
        /// Which.
        channel: &'a [u8],
        /// Whether all records are sent at the beginning.
        initial_refresh: bool,
        /// Seconds after which all records are sent again; 0 for never.
        periodic_refresh_s: u32,
    },
    /// Asks for all records of a channel ([`GetAllMessage`]).
    GetAll(GetAll<'a>),
    /// Asks for the names of all channels ([`ChannelsMessage`]).
    GetChannels,
    /// Asks whether there is a record ([`ExistsReply`]).
    Exists {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: Key,
    },
    /// Removes a record ([`RemoveReply`]).
    Remove {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: Key,
    },
    /// Removes a channel and its records ([`RemoveChannelReply`]).
    RemoveChannel {
        /// Which.
        channel: &'a [u8],
    },
    /// Replaces a value, if it is still the one that the client knows ([`UpdateReply`]).
    Update {
        /// Where.
        channel: &'a [u8],
        /// Which.
        key: Key,
        /// What to do at once.
        start: UpdateStart<'a>,
    },
}

/// The values of a GetAll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetAll<'a> {
    /// Whether the client has to resume it first.
    pub start_suspended: bool,
    /// Which channel.
    pub channel: &'a [u8],
    /// The key after which to go on, if this continues an earlier request.
    pub after: Option<Key>,
    /// Whether only keys are wanted.
    pub keys_only: bool,
    /// Bytes that the values must hold; none for all records.
    pub filter: &'a [u8],
}

/// How an Update begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateStart<'a> {
    /// Tell the value; the client answers with an [`UpdateAnswer`].
    GetRecord,
    /// Replace the value at once.
    UpdateRecord {
        /// [`crate::key::fnv1a`] of the value that is replaced.
        original_hash: u64,
        /// The new value.
        value: &'a [u8],
    },
}

const UPDATE_GET_RECORD: u8 = 1;
const UPDATE_UPDATE_RECORD: u8 = 2;

impl<'a> Request<'a> {
    /// Reads what follows code and version. What follows the last value is ignored.
    ///
    /// # Errors
    /// It is too short, or the code of the request or of the way to update is unknown.
    #[inline]
    pub fn decode(code: u8, payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        Ok(match code {
            code::PUT => Self::Put { channel: read.array()?, key: Key(read.u64()?), value: read.array()? },
            code::GET => Self::Get { channel: read.array()?, key: Key(read.u64()?) },
            code::EXISTS => Self::Exists { channel: read.array()?, key: Key(read.u64()?) },
            code::REMOVE => Self::Remove { channel: read.array()?, key: Key(read.u64()?) },
            _ => return Self::decode_other(code, read),
        })
    }

    fn decode_other(code: u8, mut read: Reader<'a>) -> Result<Self, BadMessage> {
        Ok(match code {
            code::GET_HASH_RANGE => Self::GetHashRange,
            code::GET_CHANNELS => Self::GetChannels,
            code::REMOVE_CHANNEL => Self::RemoveChannel { channel: read.array()? },
            code::MIRROR => Self::Mirror {
                start_suspended: read.boolean()?,
                channel: read.array()?,
                initial_refresh: read.boolean()?,
                periodic_refresh_s: read.u32()?,
            },
            code::GET_ALL => {
                let (start_suspended, channel) = (read.boolean()?, read.array()?);
                let (continuing, last) = (read.boolean()?, Key(read.u64()?));
                Self::GetAll(GetAll {
                    start_suspended,
                    channel,
                    after: continuing.then_some(last),
                    keys_only: read.boolean()?,
                    filter: read.array()?,
                })
            }
            code::UPDATE => {
                let (way, channel, key) = (read.u8()?, read.array()?, Key(read.u64()?));
                let start = match way {
                    UPDATE_GET_RECORD => UpdateStart::GetRecord,
                    UPDATE_UPDATE_RECORD => {
                        UpdateStart::UpdateRecord { original_hash: read.u64()?, value: read.array()? }
                    }
                    unknown => return Err(BadMessage::UnknownCode(unknown)),
                };
                Self::Update { channel, key, start }
            }
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        })
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::GetHashRange => code::GET_HASH_RANGE,
            Self::Put { .. } => code::PUT,
            Self::Get { .. } => code::GET,
            Self::Mirror { .. } => code::MIRROR,
            Self::GetAll(_) => code::GET_ALL,
            Self::GetChannels => code::GET_CHANNELS,
            Self::Exists { .. } => code::EXISTS,
            Self::Remove { .. } => code::REMOVE,
            Self::RemoveChannel { .. } => code::REMOVE_CHANNEL,
            Self::Update { .. } => code::UPDATE,
        }
    }

    /// The name in `stats.log` and in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetHashRange => "GetHashRange",
            Self::Put { .. } => "Put",
            Self::Get { .. } => "Get",
            Self::Mirror { .. } => "Mirror",
            Self::GetAll(_) => "GetAll",
            Self::GetChannels => "GetChannels",
            Self::Exists { .. } => "Exists",
            Self::Remove { .. } => "Remove",
            Self::RemoveChannel { .. } => "RemoveChannel",
            Self::Update { .. } => "Update",
        }
    }

    /// Appends code, version and what follows.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code(), VERSION]);
        match *self {
            Self::GetHashRange | Self::GetChannels => {}
            Self::Put { channel, key, value } => {
                put_record(out, channel, key);
                put_array(out, value);
            }
            Self::Get { channel, key } | Self::Exists { channel, key } | Self::Remove { channel, key } => {
                put_record(out, channel, key);
            }
            Self::RemoveChannel { channel } => put_array(out, channel),
            Self::Mirror { start_suspended, channel, initial_refresh, periodic_refresh_s } => {
                out.push(u8::from(start_suspended));
                put_array(out, channel);
                out.push(u8::from(initial_refresh));
                out.extend_from_slice(&periodic_refresh_s.to_le_bytes());
            }
            Self::GetAll(GetAll { start_suspended, channel, after, keys_only, filter }) => {
                out.push(u8::from(start_suspended));
                put_array(out, channel);
                out.push(u8::from(after.is_some()));
                out.extend_from_slice(&after.unwrap_or_default().0.to_le_bytes());
                out.push(u8::from(keys_only));
                put_array(out, filter);
            }
            Self::Update { channel, key, start } => match start {
                UpdateStart::GetRecord => {
                    out.push(UPDATE_GET_RECORD);
                    put_record(out, channel, key);
                }
                UpdateStart::UpdateRecord { original_hash, value } => {
                    out.push(UPDATE_UPDATE_RECORD);
                    put_record(out, channel, key);
                    out.extend_from_slice(&original_hash.to_le_bytes());
                    put_array(out, value);
                }
            },
        }
    }
}

#[inline]
fn put_record(out: &mut Vec<u8>, channel: &[u8], key: Key) {
    put_array(out, channel);
    out.extend_from_slice(&key.0.to_le_bytes());
}

byte_messages! {
    /// The end of a Put.
    PutReply {
        /// Stored.
        Put = 1,
        /// The node is not responsible for the key.
        WrongNode = 2,
        /// It failed.
        Error = 3,
    }

    /// The end of a Get, except that [`GetReply::Got`] is followed by the value ([`put_value`]) in a second message.
    GetReply {
        /// There is no such record.
        NoRecord = 1,
        /// The value follows.
        Got = 2,
        /// The node is not responsible for the key.
        WrongNode = 3,
        /// It failed.
        Error = 4,
    }

    /// The end of an Exists.
    ExistsReply {
        /// There is such a record.
        Exists = 1,
        /// There is none.
        NoRecord = 2,
        /// The node is not responsible for the key.
        WrongNode = 3,
        /// It failed.
        Error = 4,
    }

    /// The end of a Remove.
    RemoveReply {
        /// There was no such record.
        NoRecord = 1,
        /// It is removed.
        Removed = 2,
        /// The node is not responsible for the key.
        WrongNode = 3,
        /// It failed.
        Error = 4,
    }

    /// The end of a RemoveChannel.
    RemoveChannelReply {
        /// The channel is gone, or never was.
        ChannelRemoved = 1,
        /// Only the client `admin` may do this.
        NotPermitted = 2,
        /// It failed.
        Error = 3,
    }
}

/// Appends the second message of a Get: the value.
#[inline]
pub fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    put_array(out, value);
}

/// Reads the second message of a Get: the value.
///
/// # Errors
/// The message is too short or too long.
#[inline]
pub fn value(payload: &[u8]) -> Result<&[u8], BadMessage> {
    let mut read = Reader::new(payload);
    let value = read.array()?;
    end(read)?;
    Ok(value)
}

/// A message of a node to a GetChannels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelsMessage<'a> {
    /// It failed, and is over.
    Error,
    /// One channel.
    Name(&'a [u8]),
    /// There are no more.
    Finished,
}

impl<'a> ChannelsMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            1 => Self::Error,
            2 => Self::Name(read.array()?),
            3 => Self::Finished,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Error => out.push(1),
            Self::Name(name) => {
                out.push(2);
                put_array(out, name);
            }
            Self::Finished => out.push(3),
        }
    }
}

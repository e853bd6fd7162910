//! The legacy requests of the dmq (protocol §1.6).
//!
//! `GetChannels`, `GetChannelSize`, `GetSize` and `GetNumConnections` are those that the published node withdrew later;
//! older clients use them, with the shapes that the dht has.

use super::cursor::{Cursor, Stop};
use super::{Limits, Names, ProtocolError, Reply};
use crate::wire::put_array;

/// What became of the input.
pub type Decoded<'a> = super::Decoded<Request<'a>>;

/// The codes of the requests.
pub mod code {
    #![allow(missing_docs, reason = "each is the code of the request of its name")]
    pub const PUSH: i32 = 1;
    pub const POP: i32 = 2;
    pub const GET_CHANNELS: i32 = 3;
    pub const GET_CHANNEL_SIZE: i32 = 4;
    pub const GET_SIZE: i32 = 5;
    pub const CONSUME: i32 = 6;
    pub const GET_NUM_CONNECTIONS: i32 = 8;
    pub const PUSH_MULTI: i32 = 9;
    pub const PRODUCE: i32 = 10;
    pub const PRODUCE_MULTI: i32 = 11;
    pub const REMOVE_CHANNEL: i32 = 12;
}

/// A request. Channels and values are as they came: nobody has checked them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Appends a value to a channel.
    Push {
        /// Where.
        channel: &'a [u8],
        /// What.
        value: &'a [u8],
    },
    /// Takes the oldest value of a channel; empty if there is none.
    Pop {
        /// Where.
        channel: &'a [u8],
    },
    /// The names of all channels.
    GetChannels,
    /// Records and bytes of a channel, those of all its subscribers.
    GetChannelSize {
        /// Which.
        channel: &'a [u8],
    },
    /// Records and bytes of all channels.
    GetSize,
    /// Takes each value of a channel, until the channel is removed.
    Consume {
        /// Where.
        channel: &'a [u8],
    },
    /// How many legacy connections are open. Newer published nodes answer [`super::Status::NotSupported`].
    GetNumConnections,
    /// Appends a value to several channels: to none of them if one has a bad name.
    PushMulti {
        /// Where.
        channels: Names<'a>,
        /// What.
        value: &'a [u8],
    },
    /// After the status the client sends a list of values ([`super::reply::item`]); nothing answers it.
    Produce {
        /// Where.
        channel: &'a [u8],
    },
    /// The same into several channels.
    ProduceMulti {
        /// Where.
        channels: Names<'a>,
    },
    /// Removes a channel, its subscribers and its values.
    RemoveChannel {
        /// Which.
        channel: &'a [u8],
    },
}

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
        code::PUSH => Request::Push { channel: cursor.array()?, value: cursor.array()? },
        code::POP => Request::Pop { channel: cursor.array()? },
        code::GET_CHANNELS => Request::GetChannels,
        code::GET_CHANNEL_SIZE => Request::GetChannelSize { channel: cursor.array()? },
        code::GET_SIZE => Request::GetSize,
        code::CONSUME => Request::Consume { channel: cursor.array()? },
        code::GET_NUM_CONNECTIONS => Request::GetNumConnections,
        code::PUSH_MULTI => Request::PushMulti { channels: Names::decode(cursor)?, value: cursor.array()? },
        code::PRODUCE => Request::Produce { channel: cursor.array()? },
        code::PRODUCE_MULTI => Request::ProduceMulti { channels: Names::decode(cursor)? },
        code::REMOVE_CHANNEL => Request::RemoveChannel { channel: cursor.array()? },
        unknown => return Err(ProtocolError::UnknownCode(unknown).into()),
    })
}

impl Request<'_> {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Push { .. } => code::PUSH,
            Self::Pop { .. } => code::POP,
            Self::GetChannels => code::GET_CHANNELS,
            Self::GetChannelSize { .. } => code::GET_CHANNEL_SIZE,
            Self::GetSize => code::GET_SIZE,
            Self::Consume { .. } => code::CONSUME,
            Self::GetNumConnections => code::GET_NUM_CONNECTIONS,
            Self::PushMulti { .. } => code::PUSH_MULTI,
            Self::Produce { .. } => code::PRODUCE,
            Self::ProduceMulti { .. } => code::PRODUCE_MULTI,
            Self::RemoveChannel { .. } => code::REMOVE_CHANNEL,
        }
    }

    /// The name in `stats.log` and in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } => "Push",
            Self::Pop { .. } => "Pop",
            Self::GetChannels => "GetChannels",
            Self::GetChannelSize { .. } => "GetChannelSize",
            Self::GetSize => "GetSize",
            Self::Consume { .. } => "Consume",
            Self::GetNumConnections => "GetNumConnections",
            Self::PushMulti { .. } => "PushMulti",
            Self::Produce { .. } => "Produce",
            Self::ProduceMulti { .. } => "ProduceMulti",
            Self::RemoveChannel { .. } => "RemoveChannel",
        }
    }

    /// What follows the status Ok.
    #[must_use]
    pub const fn reply(&self) -> Reply {
        match self {
            Self::Push { .. } | Self::PushMulti { .. } | Self::RemoveChannel { .. } => Reply::None,
            Self::Pop { .. } => Reply::Array,
            Self::GetChannels | Self::Consume { .. } => Reply::Items,
            Self::GetChannelSize { .. } | Self::GetSize => Reply::Size,
            Self::GetNumConnections => Reply::Connections,
            Self::Produce { .. } | Self::ProduceMulti { .. } => Reply::Sink,
        }
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code().to_le_bytes());
        match *self {
            Self::Push { channel, value } => {
                put_array(out, channel);
                put_array(out, value);
            }
            Self::Pop { channel }
            | Self::GetChannelSize { channel }
            | Self::Consume { channel }
            | Self::Produce { channel }
            | Self::RemoveChannel { channel } => put_array(out, channel),
            Self::GetChannels | Self::GetSize | Self::GetNumConnections => {}
            Self::PushMulti { channels, value } => {
                channels.encode(out);
                put_array(out, value);
            }
            Self::ProduceMulti { channels } => channels.encode(out),
        }
    }
}

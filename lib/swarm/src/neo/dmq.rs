//! The neo requests of the dmq (protocol §2.5).
//!
//! A Consume works by credit: the node sends one batch of records and then waits until the client says
//! [`ConsumeControl::Continue`] or [`ConsumeControl::Stop`]; a client that wants to pause says nothing.
//!
//! Bytes behind the last value of a first message are ignored; all later messages must be exact.

use super::message::{BadMessage, byte_messages, end, put_array_with};
use crate::wire::{Reader, Short, put_array};

/// Bytes of records after which the published node sends a batch.
pub const CONSUME_BATCH: usize = 100_000;

/// The codes of the requests.
pub mod code {
    #![allow(missing_docs, reason = "each is the code of the request of its name")]
    pub const PUSH: u8 = 1;
    pub const POP: u8 = 2;
    pub const CONSUME: u8 = 6;
}

/// The version of the request with this code, if there is one.
#[must_use]
pub const fn version(code: u8) -> Option<u8> {
    match code {
        code::PUSH => Some(3),
        code::POP => Some(1),
        code::CONSUME => Some(4),
        _ => None,
    }
}

/// A request: what follows code and version in its first message. Names and values are as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Appends a value to each of some channels ([`PushReply`]).
    Push {
        /// Where.
        channels: Channels<'a>,
        /// What.
        value: &'a [u8],
    },
    /// Takes the oldest value of a channel ([`PopReply`]).
    Pop {
        /// Where.
        channel: &'a [u8],
    },
    /// Takes each value of a channel, together with the other consumers of the subscriber ([`ConsumeMessage`]).
    Consume {
        /// Where.
        channel: &'a [u8],
        /// For whom; often empty.
        subscriber: &'a [u8],
    },
}

/// Up to 255 names of channels, as they lie on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels<'a> {
    encoded: &'a [u8],
    count: u8,
}

impl<'a> Channels<'a> {
    /// Makes a list of names in a buffer that it clears first; nothing if there are more than 255.
    #[must_use]
    pub fn new<'n>(names: impl IntoIterator<Item = &'n [u8]>, buffer: &'a mut Vec<u8>) -> Option<Self> {
        buffer.clear();
        let mut count = 0u8;
        for name in names {
            count = count.checked_add(1)?;
            put_array(buffer, name);
        }
        Some(Self { encoded: buffer, count })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The names, as they came.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        Records::new(self.encoded).map_while(Result::ok)
    }

    fn read(read: &mut Reader<'a>) -> Result<Self, Short> {
        let count = read.u8()?;
        let all = read.rest();
        for _ in 0..count {
            read.array()?;
        }
        let length = all.len() - read.len();
        Ok(Self { encoded: all.get(..length).unwrap_or_default(), count })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.count);
        out.extend_from_slice(self.encoded);
    }
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
            code::PUSH => Self::Push { channels: Channels::read(&mut read)?, value: read.array()? },
            code::POP => Self::Pop { channel: read.array()? },
            code::CONSUME => Self::Consume { channel: read.array()?, subscriber: read.array()? },
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        })
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Push { .. } => code::PUSH,
            Self::Pop { .. } => code::POP,
            Self::Consume { .. } => code::CONSUME,
        }
    }

    /// The name in `stats.log`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Pop { .. } => "pop",
            Self::Consume { .. } => "consume",
        }
    }

    /// Appends code, version and what follows.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        out.extend(version(self.code()));
        match self {
            Self::Push { channels, value } => {
                channels.write(out);
                put_array(out, value);
            }
            Self::Pop { channel } => put_array(out, channel),
            Self::Consume { channel, subscriber } => {
                put_array(out, channel);
                put_array(out, subscriber);
            }
        }
    }
}

byte_messages! {
    /// The end of a Push.
    PushReply {
        /// The value is in every channel.
        Pushed = 1,
        /// It failed.
        Error = 2,
    }

    /// What a client sends to a running Consume.
    ConsumeControl {
        /// Send the next batch.
        Continue = 1,
        /// End.
        Stop = 2,
    }
}

/// The end of a Pop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PopReply<'a> {
    /// The oldest value.
    Popped(&'a [u8]),
    /// There is none.
    Empty,
    /// It failed.
    Error,
    /// The channel has subscribers.
    Subscribed,
}

impl<'a> PopReply<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            1 => Self::Popped(read.array()?),
            2 => Self::Empty,
            3 => Self::Error,
            4 => Self::Subscribed,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Popped(value) => {
                out.push(1);
                put_array(out, value);
            }
            Self::Empty => out.push(2),
            Self::Error => out.push(3),
            Self::Subscribed => out.push(4),
        }
    }
}

/// A message of a node to a Consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeMessage<'a> {
    /// The request runs.
    Started,
    /// It failed, and is over.
    Error,
    /// A batch of records, not compressed, as [`Records`] reads it.
    Records(&'a [u8]),
    /// It was stopped, and is over.
    Stopped,
    /// The channel was removed; it is over.
    ChannelRemoved,
}

impl<'a> ConsumeMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            1 => Self::Started,
            2 => Self::Error,
            3 => Self::Records(read.array()?),
            4 => Self::Stopped,
            5 => Self::ChannelRemoved,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Started => out.push(1),
            Self::Error => out.push(2),
            Self::Records(batch) => Self::encode_records(out, |out| out.extend_from_slice(batch)),
            Self::Stopped => out.push(4),
            Self::ChannelRemoved => out.push(5),
        }
    }

    /// Appends a [`Self::Records`] whose records are appended by `fill`, each with [`put_array`], without a copy.
    pub fn encode_records(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        out.push(3);
        put_array_with(out, fill);
    }
}

/// The records of a batch. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    left: Reader<'a>,
}

impl<'a> Records<'a> {
    /// Begins at the front of a batch.
    #[must_use]
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { left: Reader::new(batch) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], Short>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let record = self.left.array();
        if record.is_err() {
            self.left = Reader::new(&[]);
        }
        Some(record)
    }
}

//! The messages of the dht requests that go on: GetHashRange, GetAll and Mirror (protocol §2.4, §2.7).

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::key::Key;
use crate::neo::message::{BadMessage, byte_messages, end, put_array_with};
use crate::wire::{Reader, put_array};

byte_messages! {
    /// What a client sends to a running GetAll or Mirror. The node answers the first three with the acknowledgement,
    /// and only then does what they say.
    Control {
        /// Send nothing until it is resumed.
        Suspend = 1,
        /// Go on.
        Resume = 2,
        /// End.
        Stop = 3,
        /// The end was seen (also what the node answers with).
        Ack = 4,
    }
}

const ACK: u8 = Control::Ack.code();
const STARTED: u8 = 5;
const ERROR: u8 = 6;

/// A message of a node to a GetAll. The codes of [`Control`] are below these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetAllMessage<'a> {
    /// A [`Control`] is in force.
    Ack,
    /// The request runs.
    Started,
    /// It failed, and is over.
    Error,
    /// A batch of pairs or of keys, as [`crate::batch`] reads it.
    RecordBatch(&'a [u8]),
    /// There are no more; the client acknowledges it.
    Finished,
}

impl<'a> GetAllMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            ACK => Self::Ack,
            STARTED => Self::Started,
            ERROR => Self::Error,
            7 => Self::RecordBatch(read.array()?),
            8 => Self::Finished,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ack => out.push(ACK),
            Self::Started => out.push(STARTED),
            Self::Error => out.push(ERROR),
            Self::RecordBatch(batch) => Self::encode_batch(out, |out| out.extend_from_slice(batch)),
            Self::Finished => out.push(8),
        }
    }

    /// Appends a [`Self::RecordBatch`] whose batch is appended by `fill`, without a copy.
    pub fn encode_batch(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        out.push(7);
        put_array_with(out, fill);
    }
}

/// A message of a node to a Mirror. The codes of [`Control`] are below these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorMessage<'a> {
    /// A [`Control`] is in force.
    Ack,
    /// The request runs.
    Started,
    /// It failed, and is over.
    Error,
    /// A record was put.
    RecordChanged {
        /// Its key.
        key: Key,
        /// Its newest value.
        value: &'a [u8],
    },
    /// A record was removed.
    RecordDeleted {
        /// Its key.
        key: Key,
    },
    /// A batch of records as they are, read by [`crate::batch::Refreshed`].
    RecordRefreshBatch(&'a [u8]),
    /// The channel was removed; the client acknowledges it.
    ChannelRemoved,
    /// Changes were lost.
    UpdateOverflow,
}

impl<'a> MirrorMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            ACK => Self::Ack,
            STARTED => Self::Started,
            ERROR => Self::Error,
            7 => Self::RecordChanged { key: Key(read.u64()?), value: read.array()? },
            8 => Self::RecordDeleted { key: Key(read.u64()?) },
            9 => Self::RecordRefreshBatch(read.array()?),
            10 => Self::ChannelRemoved,
            11 => Self::UpdateOverflow,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ack => out.push(ACK),
            Self::Started => out.push(STARTED),
            Self::Error => out.push(ERROR),
            Self::RecordChanged { key, value } => {
                out.push(7);
                out.extend_from_slice(&key.0.to_le_bytes());
                put_array(out, value);
            }
            Self::RecordDeleted { key } => {
                out.push(8);
                out.extend_from_slice(&key.0.to_le_bytes());
            }
            Self::RecordRefreshBatch(batch) => Self::encode_batch(out, |out| out.extend_from_slice(batch)),
            Self::ChannelRemoved => out.push(10),
            Self::UpdateOverflow => out.push(11),
        }
    }

    /// Appends a [`Self::RecordRefreshBatch`] whose batch is appended by `fill`, without a copy.
    pub fn encode_batch(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        out.push(9);
        put_array_with(out, fill);
    }
}

/// The limits of a hash range, as they came: they may be reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeLimits {
    /// The lowest position.
    pub min: u64,
    /// The highest position.
    pub max: u64,
}

impl RangeLimits {
    /// Reads the first message of a GetHashRange, which has no code: the node's own range.
    ///
    /// # Errors
    /// It has another length.
    pub fn decode(payload: &[u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let limits = Self::read(&mut read)?;
        end(read)?;
        Ok(limits)
    }

    /// Appends the first message of a GetHashRange.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.min.to_le_bytes());
        out.extend_from_slice(&self.max.to_le_bytes());
    }

    fn read(read: &mut Reader<'_>) -> Result<Self, BadMessage> {
        Ok(Self { min: read.u64()?, max: read.u64()? })
    }
}

/// A later message of a GetHashRange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashRangeUpdate {
    /// There is another node.
    NewNode {
        /// Where it listens: its neo port.
        address: SocketAddrV4,
        /// What it is responsible for.
        range: RangeLimits,
    },
    /// The node's own range is another one now.
    ChangeHashRange(RangeLimits),
}

impl HashRangeUpdate {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &[u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            1 => {
                // Address and port are the only numbers in network order.
                let address = Ipv4Addr::from(read.u32()?.to_le_bytes());
                let port = u16::from_be_bytes(read.u16()?.to_le_bytes());
                Self::NewNode { address: SocketAddrV4::new(address, port), range: RangeLimits::read(&mut read)? }
            }
            2 => Self::ChangeHashRange(RangeLimits::read(&mut read)?),
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::NewNode { address, range } => {
                out.push(1);
                out.extend_from_slice(&address.ip().octets());
                out.extend_from_slice(&address.port().to_be_bytes());
                range.encode(out);
            }
            Self::ChangeHashRange(range) => {
                out.push(2);
                range.encode(out);
            }
        }
    }
}

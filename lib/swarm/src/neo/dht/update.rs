//! The messages of the dht's Update (protocol §2.4).

use crate::neo::message::{BadMessage, end};
use crate::wire::{Reader, put_array};

/// What the client wants after [`UpdateReply::RecordValue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateAnswer<'a> {
    /// Replace the value, if it is still the same.
    UpdateRecord {
        /// [`crate::key::fnv1a`] of the value that the client read.
        original_hash: u64,
        /// The new value.
        value: &'a [u8],
    },
    /// Remove the record: it is at another node now.
    RemoveRecord,
    /// Leave it as it is.
    LeaveRecord,
}

impl<'a> UpdateAnswer<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            2 => Self::UpdateRecord { original_hash: read.u64()?, value: read.array()? },
            3 => Self::RemoveRecord,
            4 => Self::LeaveRecord,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::UpdateRecord { original_hash, value } => {
                out.push(2);
                out.extend_from_slice(&original_hash.to_le_bytes());
                put_array(out, value);
            }
            Self::RemoveRecord => out.push(3),
            Self::LeaveRecord => out.push(4),
        }
    }
}

/// A message of a node to an Update. All but [`Self::RecordValue`] end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateReply<'a> {
    /// The value; the client answers with an [`UpdateAnswer`].
    RecordValue(&'a [u8]),
    /// Done.
    Ok,
    /// There is no such record.
    NoRecord,
    /// The value is another one now.
    UpdateConflict,
    /// The node is not responsible for the key.
    WrongNode,
    /// It failed.
    Error,
}

impl<'a> UpdateReply<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not exactly one of these.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BadMessage> {
        let mut read = Reader::new(payload);
        let message = match read.u8()? {
            5 => Self::RecordValue(read.array()?),
            6 => Self::Ok,
            7 => Self::NoRecord,
            8 => Self::UpdateConflict,
            9 => Self::WrongNode,
            10 => Self::Error,
            unknown => return Err(BadMessage::UnknownCode(unknown)),
        };
        end(read)?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::RecordValue(value) => {
                out.push(5);
                put_array(out, value);
            }
            Self::Ok => out.push(6),
            Self::NoRecord => out.push(7),
            Self::UpdateConflict => out.push(8),
            Self::WrongNode => out.push(9),
            Self::Error => out.push(10),
        }
    }
}

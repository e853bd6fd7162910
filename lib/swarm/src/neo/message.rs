//! What the messages of all neo requests share (protocol §2.2): how they fail to decode, and the one-byte messages.
//! All requests of all nodes are listed in `docs/formats/swarm-requests.md`.

use crate::wire::{Reader, Short};

/// A message of a request is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// It ends too early.
    #[error("message too short")]
    Short,
    /// It goes on behind its last value.
    #[error("{0} bytes too many in a message")]
    Surplus(usize),
    /// Nothing has this code here.
    #[error("unknown code {0} in a message")]
    UnknownCode(u8),
}

impl From<Short> for BadMessage {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// Checks that nothing is left.
#[inline]
pub(crate) fn end(reader: Reader<'_>) -> Result<(), BadMessage> {
    match reader.len() {
        0 => Ok(()),
        surplus => Err(BadMessage::Surplus(surplus)),
    }
}

/// Appends an array whose bytes are appended by `fill`, without a copy: for batches.
pub fn put_array_with(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    fill(out);
    let length = out.len().saturating_sub(start + 8) as u64;
    if let Some(place) = out.get_mut(start..start + 8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// Makes an enum whose values are messages of one byte.
macro_rules! byte_messages {
    ($($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $code:literal),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$of])* $value = $code,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),*];

            /// The byte on the wire.
            #[inline]
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// Reads a message: exactly one byte.
            ///
            /// # Errors
            /// Another length, or nothing has this code.
            #[inline]
            pub const fn decode(payload: &[u8]) -> Result<Self, $crate::neo::message::BadMessage> {
                match payload {
                    $([$code] => Ok(Self::$value),)*
                    [] => Err($crate::neo::message::BadMessage::Short),
                    [code] => Err($crate::neo::message::BadMessage::UnknownCode(*code)),
                    [_, surplus @ ..] => Err($crate::neo::message::BadMessage::Surplus(surplus.len())),
                }
            }

            /// Appends the message.
            #[inline]
            pub fn encode(self, out: &mut Vec<u8>) {
                out.push(self.code());
            }
        }
    )*};
}
pub(crate) use byte_messages;

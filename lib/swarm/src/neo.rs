//! The neo protocol (protocol §2): authenticated, multiplexed; any number of requests run on a connection.
//!
//! A connection begins with a version byte each way ([`PROTOCOL_VERSION`]), then messages in [`frame`]s: those of
//! [`crate::auth`], then those of requests. A request message's body is the request id, chosen by the client, and a
//! payload; the first payload from the client is request code, request version and the request's own data, the first
//! from the node one byte that says whether both are known.

pub mod frame;
pub mod message;

pub mod dht;
pub mod dls;
pub mod dmq;

use frame::{HEADER, Kind};

use crate::wire::{Reader, Short};

/// The version byte that both sides send first, and have to agree on.
pub const PROTOCOL_VERSION: u8 = 1;

/// First reply to a request: code and version are known, the request's own messages follow.
pub const SUPPORTED: u8 = 0xFD;
/// First and last reply to a request: its code is known, its version is not.
pub const UNSUPPORTED_VERSION: u8 = 0xFE;
/// First and last reply to a request: its code is not known.
pub const UNSUPPORTED_CODE: u8 = 0xFF;

/// Requests that may be active on a connection at once; one more is a protocol error.
pub const MAX_ACTIVE_REQUESTS: usize = 5000;

/// Bytes of the request id at the front of a request message's body.
pub const REQUEST_ID: usize = 8;

/// Takes the body of a request message apart: request id and payload.
///
/// # Errors
/// The body is shorter than an id; [`frame::next`] lets no such message through.
#[inline]
pub fn split_body(body: &[u8]) -> Result<(u64, &[u8]), Short> {
    let mut reader = Reader::new(body);
    Ok((reader.u64()?, reader.rest()))
}

/// Appends the messages of one request: each a header, the request id and a payload.
///
/// The name is the node's view; a client's messages have the same form.
#[derive(Debug)]
pub struct Replies<'a> {
    out: &'a mut Vec<u8>,
    id: u64,
}

impl<'a> Replies<'a> {
    /// Appends to `out` for the request `id`.
    #[inline]
    pub const fn new(out: &'a mut Vec<u8>, id: u64) -> Self {
        Self { out, id }
    }

    /// The request that the messages are for.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Bytes in the output, messages of other requests included.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.out.len()
    }

    /// Sends a payload that `write` appends. It must only append.
    #[inline]
    pub fn message(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mark = frame::begin(self.out, Kind::Request);
        self.out.extend_from_slice(&self.id.to_le_bytes());
        write(self.out);
        frame::end(self.out, mark);
    }

    /// Sends a payload that `write` appends, or nothing if that answers false. It must only append.
    pub fn message_if(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.out.len();
        let mark = frame::begin(self.out, Kind::Request);
        self.out.extend_from_slice(&self.id.to_le_bytes());
        if write(self.out) {
            frame::end(self.out, mark);
        } else {
            self.out.truncate(start);
        }
    }

    /// Sends a payload of one byte.
    #[inline]
    pub fn byte(&mut self, byte: u8) {
        let mut message = ONE_BYTE;
        message[HEADER..HEADER + REQUEST_ID].copy_from_slice(&self.id.to_le_bytes());
        message[HEADER + REQUEST_ID] = byte;
        self.out.extend_from_slice(&message);
    }

    /// Sends a payload.
    #[inline]
    pub fn bytes(&mut self, payload: &[u8]) {
        self.concat(&[payload]);
    }

    /// Sends a payload that is one array: length and bytes.
    #[inline]
    pub fn array(&mut self, bytes: &[u8]) {
        const LENGTH: usize = 8;
        let size = REQUEST_ID + LENGTH + bytes.len();
        let mut front = [0; HEADER + REQUEST_ID + LENGTH];
        front[..HEADER].copy_from_slice(&frame::header(Kind::Request, size as u64));
        front[HEADER..HEADER + REQUEST_ID].copy_from_slice(&self.id.to_le_bytes());
        front[HEADER + REQUEST_ID..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.out.reserve(HEADER + size);
        self.out.extend_from_slice(&front);
        self.out.extend_from_slice(bytes);
    }

    /// Sends a payload that is the given pieces in a row.
    #[inline]
    pub fn concat(&mut self, pieces: &[&[u8]]) {
        let length = REQUEST_ID + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let mut front = [0; HEADER + REQUEST_ID];
        front[..HEADER].copy_from_slice(&frame::header(Kind::Request, length as u64));
        front[HEADER..].copy_from_slice(&self.id.to_le_bytes());
        self.out.reserve(HEADER + length);
        self.out.extend_from_slice(&front);
        for piece in pieces {
            self.out.extend_from_slice(piece);
        }
    }

    /// Sends [`SUPPORTED`].
    #[inline]
    pub fn supported(&mut self) {
        self.byte(SUPPORTED);
    }
}

/// A message with one byte of payload, request id and byte still 0.
const ONE_BYTE: [u8; HEADER + REQUEST_ID + 1] = {
    let header = frame::header(Kind::Request, REQUEST_ID as u64 + 1);
    let mut message = [0; HEADER + REQUEST_ID + 1];
    let mut index = 0;
    while index < HEADER {
        message[index] = header[index];
        index += 1;
    }
    message
};

#[cfg(test)]
mod tests;

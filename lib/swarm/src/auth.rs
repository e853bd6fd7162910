//! How the client of a neo connection proves who it is (protocol §2.1).
//!
//! After the version bytes, in [`frame`]s of type authentication:
//!
//! ```text
//! client  u64 its clock, Unix seconds
//! node    4 random bytes, the nonce
//! client  array name, 64 bytes code = HMAC-SHA512(key, clock (8 bytes, little-endian) + nonce)
//! node    u8 1: accepted; 0: rejected, the connection is closed
//! ```
//!
//! Limits: a key has 128 bytes, a name 1 to 100 printable ASCII characters without space, the clocks differ by at most
//! half an hour. Every rejection comes after the third message and looks the same from outside; the log gets the
//! reason. A code can be used again only with the same nonce within that half hour.

mod credentials;

pub use credentials::{Credentials, CredentialsError, MAX_CREDENTIALS, Problem};

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use thiserror::Error;

use crate::neo::frame::{self, Kind};
use crate::wire::{Reader, put_array};

/// Bytes of a client's key.
pub const KEY: usize = 128;
/// Bytes of a nonce.
pub const NONCE: usize = 4;
/// Bytes of a code.
pub const CODE: usize = 64;
/// Bytes that a client's name has at most.
pub const MAX_NAME: usize = 100;
/// Seconds that the clocks of client and node may differ, either way.
pub const MAX_CLOCK_DIFFERENCE: u64 = 1800;

/// The secret that a client and its nodes share. It is not shown, and overwritten when it is no longer used.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey(pub [u8; KEY]);

impl ClientKey {
    /// Reads 256 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        if text.len() != KEY * 2 {
            return None;
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut key = Self([0; KEY]);
        for (byte, digits) in key.0.iter_mut().zip(text.chunks_exact(2)) {
            let &[high, low] = digits else { return None };
            *byte = nibble(high)? << 4 | nibble(low)?;
        }
        Some(key)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(..)")
    }
}

impl Drop for ClientKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from leaving out a write that nobody reads.
        std::hint::black_box(&self.0);
    }
}

/// Why a client was rejected: the text for the log. The client learns only that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The name is empty.
    #[error("Empty client name")]
    EmptyName,
    /// The name has more than [`MAX_NAME`] bytes.
    #[error("Client name too long ({0} bytes)")]
    LongName(usize),
    /// No credentials for the name.
    #[error("Unknown client name")]
    UnknownName,
    /// The clock is 0 or does not fit into an `i64`.
    #[error("Invalid client time {0}")]
    InvalidTime(u64),
    /// The clocks differ by more than [`MAX_CLOCK_DIFFERENCE`]; by so many seconds.
    #[error("Client time differs by {0} seconds")]
    ClockDifference(u64),
    /// The code was not made with the client's key for this clock and nonce.
    #[error("Wrong authentication code")]
    WrongCode,
}

/// A message of the authentication that has not the form it must have; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed authentication message")]
pub struct Malformed;

/// The code with which a client proves that it has the key.
#[must_use]
pub fn code(key: &ClientKey, timestamp: u64, nonce: [u8; NONCE]) -> [u8; CODE] {
    keyed(key, timestamp, nonce).finalize().into_bytes().into()
}

/// Decides about a client: its name, the clock it sent first (Unix seconds), the nonce it was given, the code it made.
/// `now` is the node's clock. Compares codes in constant time, and takes as long for a name that it does not know.
///
/// # Errors
/// The client is rejected; see [`AuthError`].
pub fn verify(
    credentials: &Credentials,
    name: &[u8],
    timestamp: u64,
    nonce: [u8; NONCE],
    code: &[u8; CODE],
    now: u64,
) -> Result<(), AuthError> {
    if name.is_empty() {
        return Err(AuthError::EmptyName);
    }
    if name.len() > MAX_NAME {
        return Err(AuthError::LongName(name.len()));
    }
    let known = credentials.get(name);
    let nobody = ClientKey([0; KEY]);
    let right = keyed(known.unwrap_or(&nobody), timestamp, nonce).verify_slice(code).is_ok();
    let difference = timestamp.abs_diff(now);
    if known.is_none() {
        Err(AuthError::UnknownName)
    } else if timestamp == 0 || i64::try_from(timestamp).is_err() {
        Err(AuthError::InvalidTime(timestamp))
    } else if difference > MAX_CLOCK_DIFFERENCE {
        Err(AuthError::ClockDifference(difference))
    } else if right {
        Ok(())
    } else {
        Err(AuthError::WrongCode)
    }
}

fn keyed(key: &ClientKey, timestamp: u64, nonce: [u8; NONCE]) -> Hmac<Sha512> {
    let mut mac = Hmac::<Sha512>::new(&key.0.into());
    mac.update(&timestamp.to_le_bytes());
    mac.update(&nonce);
    mac
}

/// A client's name as it may stand in a log line, whatever bytes were sent for it: escaped and cut.
#[must_use]
pub fn printable(name: &[u8]) -> impl fmt::Display {
    name.get(..MAX_NAME).unwrap_or(name).escape_ascii()
}

/// Appends the client's first message: its clock, Unix seconds.
pub fn put_time(out: &mut Vec<u8>, timestamp: u64) {
    frame::put(out, Kind::Authentication, &timestamp.to_le_bytes());
}

/// Reads the body of the client's first message.
///
/// # Errors
/// It has not exactly 8 bytes.
pub fn read_time(body: &[u8]) -> Result<u64, Malformed> {
    body.try_into().map(u64::from_le_bytes).map_err(|_| Malformed)
}

/// Appends the node's first message.
pub fn put_nonce(out: &mut Vec<u8>, nonce: [u8; NONCE]) {
    frame::put(out, Kind::Authentication, &nonce);
}

/// Reads the body of the node's first message.
///
/// # Errors
/// It has not exactly 4 bytes.
pub fn read_nonce(body: &[u8]) -> Result<[u8; NONCE], Malformed> {
    body.try_into().map_err(|_| Malformed)
}

/// Appends the client's second message.
pub fn put_proof(out: &mut Vec<u8>, name: &[u8], code: &[u8; CODE]) {
    let mark = frame::begin(out, Kind::Authentication);
    put_array(out, name);
    out.extend_from_slice(code);
    frame::end(out, mark);
}

/// Reads the body of the client's second message: the name, of any length, and the code.
///
/// # Errors
/// It is not exactly an array and 64 bytes.
pub fn read_proof(body: &[u8]) -> Result<(&[u8], &[u8; CODE]), Malformed> {
    let mut reader = Reader::new(body);
    let name = reader.array().map_err(|_| Malformed)?;
    let code = reader.rest().try_into().map_err(|_| Malformed)?;
    Ok((name, code))
}

/// Appends the node's second message.
pub fn put_verdict(out: &mut Vec<u8>, accepted: bool) {
    frame::put(out, Kind::Authentication, &[u8::from(accepted)]);
}

/// Reads the body of the node's second message: whether the client was accepted.
///
/// # Errors
/// It has not exactly one byte.
pub fn read_verdict(body: &[u8]) -> Result<bool, Malformed> {
    match body {
        [verdict] => Ok(*verdict != 0),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests;

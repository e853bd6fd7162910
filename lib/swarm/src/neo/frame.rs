//! Messages on a neo connection (protocol §2.2).
//!
//! ```text
//! 0      1               9        10
//! +------+---------------+--------+--------------------+
//! | type | length        | parity | body (length)      |
//! +------+---------------+--------+--------------------+
//! type    1 request: the body has at least 8 bytes (the request id); 2 authentication: at most 999
//! length  u64
//! parity  makes the exclusive or of all ten bytes 0
//! ```

use thiserror::Error;

/// Bytes in front of a body.
pub const HEADER: usize = 10;

/// Bytes that a body may have at most, unless a caller sets a tighter bound. The published nodes have none.
pub const MAX_BODY: usize = 64 << 20;

/// Bytes that the body of an authentication message may have at most.
pub const MAX_AUTHENTICATION: usize = 999;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// It belongs to a request, whose id begins the body.
    Request = 1,
    /// It belongs to the authentication; nothing else may come before that is done, and none of these after.
    Authentication = 2,
}

/// What the input begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A message that is not complete: so many bytes of input in all are needed to get further.
    Need(usize),
    /// A message.
    Message {
        /// What it is for.
        kind: Kind,
        /// Its body.
        body: &'a [u8],
        /// Bytes of input that it took.
        consumed: usize,
    },
}

/// Something that is no message: the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The parity does not fit the header.
    #[error("wrong parity in a message header")]
    Parity,
    /// The type is none of the two.
    #[error("unknown message type {0}")]
    Kind(u8),
    /// The body is longer than allowed.
    #[error("a message of {length} bytes is announced, at most {limit} are allowed")]
    TooLong {
        /// What the header says.
        length: u64,
        /// What is allowed for this type.
        limit: usize,
    },
    /// The body has no room for a request id.
    #[error("a request message of {0} bytes has no request id")]
    NoRequestId(u64),
}

/// Looks at the front of what has arrived. A bad header is an error as soon as it is complete, whatever length it has.
///
/// # Errors
/// See [`FrameError`]; the stream cannot be read on.
#[inline]
pub fn next(input: &[u8], max_body: usize) -> Result<Step<'_>, FrameError> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER>() else {
        return Ok(Step::Need(HEADER));
    };
    let [kind, a, b, c, d, e, f, g, h, sent_parity] = *header;
    let length = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    if parity(kind, length) != sent_parity {
        return Err(FrameError::Parity);
    }
    let (kind, limit) = match kind {
        1 => (Kind::Request, max_body),
        2 => (Kind::Authentication, MAX_AUTHENTICATION.min(max_body)),
        other => return Err(FrameError::Kind(other)),
    };
    let size =
        usize::try_from(length).ok().filter(|&size| size <= limit).ok_or(FrameError::TooLong { length, limit })?;
    if kind == Kind::Request && size < super::REQUEST_ID {
        return Err(FrameError::NoRequestId(length));
    }
    let consumed = HEADER.saturating_add(size);
    Ok(match rest.get(..size) {
        Some(body) => Step::Message { kind, body, consumed },
        None => Step::Need(consumed),
    })
}

/// The header of a message whose body has so many bytes.
#[must_use]
#[inline]
pub const fn header(kind: Kind, length: u64) -> [u8; HEADER] {
    let [a, b, c, d, e, f, g, h] = length.to_le_bytes();
    [kind as u8, a, b, c, d, e, f, g, h, parity(kind as u8, length)]
}

/// Where a message begins whose length is not known yet.
#[derive(Debug)]
#[must_use = "the header is made by `end`"]
pub struct Mark {
    start: usize,
    kind: Kind,
}

/// Begins a message: what is appended until [`end`] is its body.
#[inline]
pub fn begin(out: &mut Vec<u8>, kind: Kind) -> Mark {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    Mark { start, kind }
}

/// Ends a message: writes the header for what was appended since [`begin`].
///
/// # Panics
/// If `out` was shortened in between.
#[inline]
pub fn end(out: &mut [u8], mark: Mark) {
    let (front, body) = out[mark.start..].split_first_chunk_mut::<HEADER>().expect("begin made room for the header");
    *front = header(mark.kind, body.len() as u64);
}

/// Appends a message whose body is there already.
#[inline]
pub fn put(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    out.reserve(HEADER + body.len());
    out.extend_from_slice(&header(kind, body.len() as u64));
    out.extend_from_slice(body);
}

/// The exclusive or of the type and the eight bytes of the length.
#[inline]
const fn parity(kind: u8, length: u64) -> u8 {
    let folded = length ^ (length >> 32);
    let folded = folded ^ (folded >> 16);
    let folded = folded ^ (folded >> 8);
    (folded & 0xff) as u8 ^ kind
}

#[cfg(test)]
mod tests;

//! The legacy protocol: one request at a time on a connection, without authentication (protocol §1).
//!
//! ```text
//! client:  code i32 | the request's own values
//! node:    status i32 | if that is Ok: the request's own reply
//! ```
//!
//! A request is decoded where it lies in the connection's input. [`Decoded::Need`] names the length at which the next
//! value is complete, so that a value is looked at once when it begins and once when it is there, however long it is.
//! The replies of all nodes are made of the same few shapes; [`reply`] writes and reads them.
//! `docs/formats/swarm-requests.md` lists all requests of all nodes.

mod cursor;
mod list;
pub mod reply;

pub mod dht;
pub mod dls;
pub mod dmq;

pub use cursor::Need;
pub use list::{Entry, Items, Names, NodeAddress, NodeRange, Nodes, Ranges};

use crate::wire::MAX_ARRAY;

/// What a node answers to each request (protocol §1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    /// Done; the request's own reply follows.
    Ok = 200,
    /// The request is not understood.
    InvalidRequest = 400,
    /// The node is not responsible for the key.
    WrongNode = 404,
    /// The node does not serve this request.
    NotSupported = 406,
    /// No room for the record.
    OutOfMemory = 407,
    /// A value without bytes.
    EmptyValue = 408,
    /// The channel's name is not one.
    BadChannelName = 409,
    /// The value is longer than this node stores.
    ValueTooBig = 410,
    /// It failed; the published client closes the connection when it reads this.
    Error = 500,
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The status with this number.
    #[must_use]
    pub const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            200 => Self::Ok,
            400 => Self::InvalidRequest,
            404 => Self::WrongNode,
            406 => Self::NotSupported,
            407 => Self::OutOfMemory,
            408 => Self::EmptyValue,
            409 => Self::BadChannelName,
            410 => Self::ValueTooBig,
            500 => Self::Error,
            _ => return None,
        })
    }

    /// The published name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "Ok",
            Self::InvalidRequest => "InvalidRequest",
            Self::WrongNode => "WrongNode",
            Self::NotSupported => "NotSupported",
            Self::OutOfMemory => "OutOfMemory",
            Self::EmptyValue => "EmptyValue",
            Self::BadChannelName => "BadChannelName",
            Self::ValueTooBig => "ValueTooBig",
            Self::Error => "Error",
        }
    }

    /// Appends it.
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code().to_le_bytes());
    }
}

/// What a decoder accepts. Everything above is a [`ProtocolError`], except for the value of a dht Put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one array (inclusive).
    pub array: usize,
    /// Bytes of one whole request, which bounds what a connection buffers.
    pub request: usize,
    /// Bytes of the value of a dht Put, [`Self::array`] at most; what is longer is thrown away and answered.
    pub value: usize,
    /// Entries of a list.
    pub list_items: usize,
    /// Bytes of a whole list.
    pub list_bytes: usize,
}

impl Limits {
    /// The published limit of arrays, the default batch size, and lists that no client comes near.
    pub const DEFAULT: Self = Self {
        array: MAX_ARRAY,
        request: MAX_ARRAY + (2 << 20),
        value: 65_536 - 32,
        list_items: 4096,
        list_bytes: 1 << 20,
    };

    /// The same with another limit of the values of dht Puts: `batch_size` - 32 (protocol §1.5).
    #[must_use]
    pub const fn with_value(self, value: usize) -> Self {
        Self { value, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a decoder of requests made of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<R> {
    /// Incomplete: it makes sense to decode again once so many bytes in all are there.
    Need(usize),
    /// A request, in the first `consumed` bytes.
    Request {
        /// The request; borrows from the input.
        request: R,
        /// Bytes of input that are the request.
        consumed: usize,
    },
}

/// The connection cannot go on: it is closed without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// No request has this code.
    #[error("unknown request code {0}")]
    UnknownCode(i32),
    /// No status has this code.
    #[error("unknown status {0}")]
    UnknownStatus(i32),
    /// An array longer than [`Limits::array`].
    #[error("an array of {0} bytes")]
    ArrayTooLong(u64),
    /// A request longer than [`Limits::request`].
    #[error("a request of more than {0} bytes")]
    RequestTooLong(usize),
    /// A list with more entries than [`Limits::list_items`], or longer than [`Limits::list_bytes`].
    #[error("a list of more than {0} entries or bytes")]
    ListTooLong(usize),
}

impl ProtocolError {
    /// What goes to a log that takes no figures.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::UnknownCode(_) => "unknown request code",
            Self::UnknownStatus(_) => "unknown status code",
            Self::ArrayTooLong(_) => "array too long",
            Self::RequestTooLong(_) => "request too long",
            Self::ListTooLong(_) => "list too long",
        }
    }
}

/// What follows the status Ok of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Nothing.
    None,
    /// One array ([`reply::array`]): a value, or the version.
    Array,
    /// One byte ([`reply::boolean`]).
    Boolean,
    /// A list of arrays ([`reply::item`]): names of channels, or values.
    Items,
    /// [`reply::size`].
    Size,
    /// [`reply::range`].
    Range,
    /// [`reply::connections`].
    Connections,
    /// A list of arrays ([`reply::item`]), each a batch of pairs.
    Batches,
    /// The same with batches of keys.
    KeyBatches,
    /// A list of pairs ([`reply::record`]) that ends when the channel is removed.
    Records,
    /// Nothing; the client goes on with a list of values.
    Sink,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_published_number() {
        let all = [200, 400, 404, 406, 407, 408, 409, 410, 500];
        for code in -1..1000 {
            assert_eq!(Status::from_code(code).map(Status::code), all.contains(&code).then_some(code));
        }
        let mut out = Vec::new();
        Status::Ok.encode(&mut out);
        assert_eq!(out, [0xc8, 0, 0, 0]);
        assert_eq!(Status::BadChannelName.name(), "BadChannelName");
    }
}

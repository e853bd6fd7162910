//! What can go wrong between us and the broker.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// Why the broker could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AmqpError {
    /// No connection came about.
    #[error("cannot connect to the broker at {broker}: {source}")]
    Connect {
        /// `host:port/vhost`.
        broker: String,
        /// Why not.
        source: lapin::Error,
    },
    /// The file with the authority's certificates cannot be read.
    #[error("cannot read the certificates in {path}: {source}")]
    Certificates {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The broker did not answer in time.
    #[error("the broker did not answer within {} s: {what}", .after.as_secs_f32())]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// A name is longer than the 255 bytes that the protocol can carry.
    #[error("{what} has {bytes} bytes, more than the 255 that AMQP can carry")]
    NameTooLong {
        /// Which name.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// There is no exchange or queue of that name.
    #[error("there is no {what} {name}")]
    NotFound {
        /// `exchange` or `queue`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The broker refused or broke off.
    #[error("{what}: {source}")]
    Broker {
        /// What was asked.
        what: &'static str,
        /// What it said.
        source: lapin::Error,
    },
}

impl AmqpError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Broker { source, .. } => !refused(source),
            Self::Timeout { .. } => true,
            Self::Certificates { .. } | Self::NameTooLong { .. } | Self::NotFound { .. } => false,
        }
    }
}

/// Whether the broker said no (login, permission, missing, other arguments) rather than went away.
fn refused(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => matches!(
            error.kind(),
            AMQPErrorKind::Soft(
                AMQPSoftError::ACCESSREFUSED | AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED
            ) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
        ),
        _ => false,
    }
}

/// Whether the broker closed the channel because a name is unknown.
pub(crate) fn is_not_found(error: &lapin::Error) -> bool {
    is_soft(error, &AMQPSoftError::NOTFOUND)
}

/// Whether the broker closed the channel because something exists with other properties.
pub(crate) fn is_precondition_failed(error: &lapin::Error) -> bool {
    is_soft(error, &AMQPSoftError::PRECONDITIONFAILED)
}

fn is_soft(error: &lapin::Error, wanted: &AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == wanted))
}

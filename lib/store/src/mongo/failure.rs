//! What the driver's errors mean to the callers.

use std::fmt;

use mongodb::bson;
use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure};

use super::CALL_TIMEOUT;
use crate::error::StoreError;

/// The server's number for a violated unique index.
pub(super) const DUPLICATE_KEY: i32 = 11000;
/// Numbers of errors that pass: a primary that steps down, a server that stops, a lock or a plan that was lost.
const PASSING: [i32; 13] = [6, 7, 24, 50, 89, 91, 112, 189, 262, 9001, 10107, 11600, 13435];

/// Why one attempt of a transaction failed.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The server or the driver says no.
    Server(Error),
    /// The data do.
    Store(StoreError),
}

impl Attempt {
    /// Whether the whole transaction may succeed when it is tried again at once. When no server was found, time has
    /// been spent on looking for one already.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Server(error) = self else { return false };
        error.contains_label(TRANSIENT_TRANSACTION_ERROR)
            && !matches!(error.kind.as_ref(), ErrorKind::ServerSelection { .. })
    }
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Attempt> for StoreError {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Server(error) => error.into(),
            Attempt::Store(error) => error,
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        if is_duplicate(&error) {
            return Self::Conflict(error.to_string());
        }
        if error.contains_label(TRANSIENT_TRANSACTION_ERROR)
            || error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
            || error.contains_label("RetryableWriteError")
        {
            return Self::Unavailable(Box::new(error));
        }
        match error.kind.as_ref() {
            ErrorKind::ServerSelection { .. }
            | ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. } => Self::Unavailable(Box::new(error)),
            ErrorKind::Command(failure) if PASSING.contains(&failure.code) => Self::Unavailable(Box::new(error)),
            // OutOfDiskSpace
            ErrorKind::Command(failure) if failure.code == 14031 => Self::Full(Box::new(error)),
            _ => Self::Failed(Box::new(error)),
        }
    }
}

/// Whether a unique index refused a document.
pub(super) fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(failure)) => failure.code == DUPLICATE_KEY,
        ErrorKind::InsertMany(failure) => {
            failure.write_errors.as_ref().is_some_and(|errors| errors.iter().any(|e| e.code == DUPLICATE_KEY))
        }
        ErrorKind::Command(failure) => failure.code == DUPLICATE_KEY,
        _ => false,
    }
}

/// Waits for a call, but not for ever.
pub(super) async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    within_store(async { call.await.map_err(StoreError::from) }).await
}

/// The same for a sequence of calls.
pub(super) async fn within_store<T>(calls: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(CALL_TIMEOUT, calls).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()).into()))
    })
}

/// A document that does not have its form.
pub(super) fn damaged(collection: &'static str, id: impl fmt::Display, error: impl fmt::Display) -> StoreError {
    StoreError::Damaged { collection, id: id.to_string(), reason: error.to_string() }
}

/// Reads a value from a document.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    collection: &'static str,
    document: bson::Document,
) -> Result<T, StoreError> {
    let id = document.get("_id").map(ToString::to_string).unwrap_or_default();
    bson::deserialize_from_document(document).map_err(|error| damaged(collection, id, error))
}

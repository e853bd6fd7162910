//! What SQLite's errors mean to the callers.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let Some(failure) = error.sqlite_error() else {
            return Self::Failed(Box::new(error));
        };
        match failure.code {
            ErrorCode::DiskFull => Self::Full(Box::new(error)),
            // The shared memory of the write-ahead log could not grow.
            ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
                Self::Full(Box::new(error))
            }
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::OperationInterrupted => Self::Unavailable(Box::new(error)),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Corrupt { file: "the database file".to_owned(), source: Box::new(error) }
            }
            ErrorCode::ConstraintViolation => Self::Conflict(error.to_string()),
            _ => Self::Failed(Box::new(error)),
        }
    }
}

/// Says which file it was.
pub(super) fn at(path: &Path) -> impl Fn(StoreError) -> StoreError + '_ {
    |error| match error {
        StoreError::Corrupt { source, .. } => StoreError::Corrupt { file: path.display().to_string(), source },
        other => other,
    }
}

/// A document that does not have its form.
pub(super) fn damaged(collection: &'static str, id: impl ToString, error: &serde_json::Error) -> StoreError {
    StoreError::Damaged { collection, id: id.to_string(), reason: error.to_string() }
}

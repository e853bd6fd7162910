//! The pool of reading connections.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connection::open_to_read;
use super::failure::at;
use super::schema::Schema;
use crate::error::StoreError;

/// Connections to one file that only read, each opened when first needed.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    schema: &'static Schema,
    idle: Mutex<Vec<Reader>>,
    /// One permit per connection that may be in use.
    permits: Semaphore,
}

#[derive(Debug)]
struct Reader {
    connection: Connection,
    /// The file that was opened; another of the same name may take its place.
    file: (u64, u64),
}

impl Readers {
    pub(super) fn new(path: PathBuf, schema: &'static Schema, limit: usize) -> Self {
        Self { path, schema, idle: Mutex::new(Vec::new()), permits: Semaphore::new(limit) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers `question` from one consistent view of the file, on a thread where it may block.
    pub(super) async fn read<T, F>(self: Arc<Self>, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let readers = Arc::clone(&self);
        let _permit = self.permits.acquire().await.map_err(|error| StoreError::Failed(Box::new(error)))?;
        tokio::task::spawn_blocking(move || readers.answer(question))
            .await
            .map_err(|error| StoreError::Failed(Box::new(error)))?
            .map_err(at(&self.path))
    }

    fn answer<T>(&self, question: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut reader = self.take()?;
        let transaction = reader.connection.transaction()?;
        let answer = question(&transaction)?;
        transaction.finish()?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(answer)
    }

    fn take(&self) -> Result<Reader, StoreError> {
        let file = std::fs::metadata(&self.path).map_or((0, 0), |data| (data.dev(), data.ino()));
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|reader| reader.file == file);
            if let Some(reader) = idle.pop() {
                return Ok(reader);
            }
        }
        Ok(Reader { connection: open_to_read(&self.path, self.schema)?, file })
    }
}

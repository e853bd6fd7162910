//! The thread that owns a file's writing connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

use super::failure::at;
use crate::error::StoreError;

/// How many calls may wait for the thread; further callers wait asynchronously.
const QUEUE: usize = 32;
/// After this time without a write the log is folded into the database and emptied.
const IDLE: Duration = Duration::from_secs(5);
/// How long emptying the log waits for readers.
const IDLE_PATIENCE: Duration = Duration::from_millis(100);

type Job<S> = Box<dyn FnOnce(&mut Connection, &mut S) + Send>;

/// Runs jobs one after the other on a connection, with a state that only they see.
#[derive(Debug)]
pub(super) struct Writer<S> {
    path: PathBuf,
    /// One permit per place in the queue, so that sending never blocks.
    places: Arc<Semaphore>,
    jobs: Option<SyncSender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Send + 'static> Writer<S> {
    pub(super) fn start(connection: Connection, path: &Path, state: S) -> Result<Self, StoreError> {
        let (jobs, queue) = sync_channel(QUEUE);
        let thread = Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(connection, state, &queue))
            .map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        Ok(Self {
            path: path.to_owned(),
            places: Arc::new(Semaphore::new(QUEUE)),
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `job` when its turn comes. It runs to its end even if the caller stops waiting.
    pub(super) async fn call<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut S) -> Result<T, StoreError> + Send + 'static,
    {
        let gone = || StoreError::Failed("the store's writing thread ended".into());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        let job: Job<S> = Box::new(move |connection, state| {
            drop(place);
            // Nobody may be waiting any more.
            let _ = answer.send(job(connection, state));
        });
        self.jobs.as_ref().ok_or_else(gone)?.try_send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(at(&self.path))
    }
}

impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writing thread panicked");
        }
    }
}

/// Runs `change` in a transaction that takes the write lock at once; an error undoes all of it.
pub(super) fn transact<T>(
    connection: &mut Connection,
    change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let result = change(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

fn run<S>(mut connection: Connection, mut state: S, queue: &Receiver<Job<S>>) {
    let mut is_folded = true;
    loop {
        match queue.recv_timeout(IDLE) {
            Ok(job) => {
                job(&mut connection, &mut state);
                is_folded = false;
            }
            Err(RecvTimeoutError::Timeout) if !is_folded => {
                is_folded = true;
                if let Err(error) = fold_log(&connection) {
                    tracing::warn!(%error, "cannot fold the write-ahead log into the database");
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn fold_log(connection: &Connection) -> rusqlite::Result<()> {
    let usual: i64 = connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0))?;
    connection.busy_timeout(IDLE_PATIENCE)?;
    // The row says whether somebody was in the way; the next quiet moment comes.
    let result = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(Duration::from_millis(u64::try_from(usual).unwrap_or(0)))?;
    result
}

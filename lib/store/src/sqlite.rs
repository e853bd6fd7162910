//! The embedded store: SQLite files in WAL mode. `docs/formats/store.md` describes the tables.
//!
//! All writes of a process go through one thread that owns the one writing connection; reads run on a small pool of
//! connections in short transactions. Several processes may have a file open: `BEGIN IMMEDIATE` and a busy timeout
//! make writers wait for each other, readers never wait.

mod accounts;
mod alarms;
mod commit;
mod connection;
mod entities;
mod failure;
mod maintain;
mod metrics;
mod outbox;
mod readers;
mod runs;
mod schema;
mod sql;
pub(crate) mod transfer;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use crate::error::StoreError;
use crate::probe::{Probe, StoreInfo};
use commit::EngineCaches;
use readers::Readers;
use writer::Writer;

/// How many reads of one process run at once; the others wait.
const ENGINE_READERS: usize = 2;
const WEB_READERS: usize = 4;

/// `engines.db`: alarms, entities, metrics, outbox, as one process sees it.
#[derive(Debug)]
pub(crate) struct EnginesDb {
    readers: Arc<Readers>,
    /// Absent in a process that only reads.
    writer: Option<Writer<EngineCaches>>,
}

impl EnginesDb {
    /// Opens the file in `dir` for writing, making both when they are not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = schema::ENGINES.path(dir);
        let writer = Writer::start(connection::create(&path, &schema::ENGINES)?, &path, EngineCaches::default())?;
        Ok(Self { readers: Arc::new(Readers::new(path, &schema::ENGINES, ENGINE_READERS)), writer: Some(writer) })
    }

    /// Looks at the file in `dir`, which the engines may make later: until then every call says that the store is not
    /// available.
    pub(crate) fn watch(dir: &Path) -> Self {
        let path = schema::ENGINES.path(dir);
        Self { readers: Arc::new(Readers::new(path, &schema::ENGINES, WEB_READERS)), writer: None }
    }

    fn writer(&self) -> Result<&Writer<EngineCaches>, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::Failed("this process only reads engines.db".into()))
    }

    async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Arc::clone(&self.readers).read(question).await
    }
}

/// `control.db`: accounts, as the web server sees it.
#[derive(Debug)]
pub(crate) struct ControlDb {
    readers: Arc<Readers>,
    writer: Writer<()>,
}

impl ControlDb {
    /// Opens the file in `dir`, making both when they are not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = schema::CONTROL.path(dir);
        let writer = Writer::start(connection::create(&path, &schema::CONTROL)?, &path, ())?;
        Ok(Self { readers: Arc::new(Readers::new(path, &schema::CONTROL, ENGINE_READERS)), writer })
    }

    async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        Arc::clone(&self.readers).read(question).await
    }

    async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.call(move |connection, ()| writer::transact(connection, |transaction| change(transaction))).await
    }
}

#[async_trait]
impl Probe for EnginesDb {
    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|connection| Ok(connection.query_row("SELECT count(*) FROM epochs", [], |_| Ok(()))?)).await
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let bytes = size_of_store(self.readers.path());
        let counts = self.read(|connection| schema::count(connection, schema::ENGINES.counted)).await?;
        Ok(StoreInfo { kind: "embedded", schema: schema::ENGINES.version(), bytes, counts })
    }
}

/// Answers for both files of the web server.
#[derive(Debug)]
pub(crate) struct WebProbe {
    pub(crate) engines: Arc<EnginesDb>,
    pub(crate) control: Arc<ControlDb>,
}

#[async_trait]
impl Probe for WebProbe {
    async fn ping(&self) -> Result<(), StoreError> {
        self.control.read(|connection| Ok(connection.query_row("SELECT count(*) FROM roles", [], |_| Ok(()))?)).await?;
        self.engines.ping().await
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut info = self.engines.info().await?;
        info.counts.extend(self.control.read(|connection| schema::count(connection, schema::CONTROL.counted)).await?);
        info.bytes += size_of_store(self.control.readers.path());
        Ok(info)
    }
}

/// The bytes of a database file and its write-ahead log.
fn size_of_store(path: &Path) -> u64 {
    let of = |path: PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
    of(path.to_owned()) + of(path.with_extension("db-wal"))
}

#[cfg(test)]
mod tests;

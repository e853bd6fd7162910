//! Opening database files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use overstory_runtime::lock::FileLock;
use rusqlite::{Connection, OpenFlags};

use super::failure::at;
use super::schema::Schema;
use crate::error::StoreError;

/// How long a statement waits for another process before the store counts as not available.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for pages, in KiB. What does not fit is in the system's cache, one short copy away.
const WRITER_CACHE_KIB: i64 = 8192;
const READER_CACHE_KIB: i64 = 2048;
/// The write-ahead log is folded into the database whenever it has this many pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 2000;
/// And is cut to this many bytes when it starts anew.
const LOG_BYTES: i64 = 16 * 1024 * 1024;
const CACHED_STATEMENTS: usize = 64;

/// Opens a file for writing; makes it, its directory and its tables when they are not there.
pub(super) fn create(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unavailable)?;
    // Changing a new file to WAL mode does not wait for other processes that do the same; this lock does.
    let _lock =
        FileLock::acquire(&path.with_extension("lock")).map_err(|error| StoreError::Unavailable(error.into()))?;
    let is_new = !path.exists();
    if is_new {
        // Alarms and hashes of passwords are nobody else's business. The log gets the same mode.
        File::options().write(true).create_new(true).mode(0o600).open(path).map_err(unavailable)?;
    }
    open_to_write(path, schema).map_err(at(path)).inspect(|_| {
        if is_new && let Err(error) = sync_directory(dir) {
            tracing::warn!(%error, "cannot make the new database file's name durable");
        }
    })
}

fn open_to_write(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    schema.check(&connection)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        let reason =
            format!("{} cannot have a write-ahead log (journal mode {mode}): use a local disk", path.display());
        return Err(StoreError::Failed(reason.into()));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    tune(&connection, WRITER_CACHE_KIB)?;
    schema.migrate(&mut connection)?;
    Ok(connection)
}

/// Opens a file for reading; it must be there.
pub(super) fn open_to_read(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    if !path.exists() {
        let reason = format!("{} is not there yet: the program that writes it has to run first", path.display());
        return Err(StoreError::Unavailable(reason.into()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    tune(&connection, READER_CACHE_KIB)?;
    let found = schema.check(&connection)?;
    if found < schema.version() {
        let reason = format!("{} has schema version {found} until its writer starts", path.display());
        return Err(StoreError::Unavailable(reason.into()));
    }
    Ok(connection)
}

fn tune(connection: &Connection, cache_kib: i64) -> Result<(), StoreError> {
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(())
}

pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn unavailable(error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::StorageFull {
        StoreError::Full(Box::new(error))
    } else {
        StoreError::Unavailable(Box::new(error))
    }
}

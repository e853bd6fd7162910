//! The tables of the two files and how older files are brought up to date.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::StoreError;

/// A file's layout.
#[derive(Debug)]
pub(super) struct Schema {
    file: &'static str,
    /// Marks the file as ours (`PRAGMA application_id`).
    application_id: i32,
    /// The n-th brings a file from version n to n + 1. Released ones are never changed.
    migrations: &'static [&'static str],
    /// Tables worth counting, with the word for what is in them.
    pub(super) counted: &'static [(&'static str, &'static str)],
}

/// `engines.db`.
pub(super) static ENGINES: Schema = Schema {
    file: "engines.db",
    application_id: 0x4f76_5345,
    migrations: &[include_str!("engines-1.sql")],
    counted: &[
        ("alarms", "alarms"),
        ("steps", "steps"),
        ("entities", "entities"),
        ("series", "series"),
        ("blocks", "new point blocks"),
        ("runs", "point runs"),
        ("five", "five-minute buckets"),
        ("hours", "one-hour buckets"),
        ("outbox", "outbox"),
        ("engine_runs", "engine reports"),
    ],
};

/// `control.db`.
pub(super) static CONTROL: Schema = Schema {
    file: "control.db",
    application_id: 0x4f76_5343,
    migrations: &[include_str!("control-1.sql")],
    counted: &[("accounts", "accounts"), ("roles", "roles"), ("api_keys", "API keys"), ("sessions", "sessions")],
};

impl Schema {
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.file)
    }

    /// The version that this program writes.
    pub(super) fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }

    /// Refuses files of others and of later versions; returns the version found, 0 for an empty file.
    pub(super) fn check(&self, connection: &Connection) -> Result<u32, StoreError> {
        let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application != self.application_id && (application != 0 || found != 0 || tables != 0) {
            return Err(StoreError::Failed(format!("{} was made by another program", self.file).into()));
        }
        if found > self.version() {
            return Err(StoreError::TooNew { found, known: self.version() });
        }
        Ok(found)
    }

    /// Makes the tables, or brings them up to date.
    pub(super) fn migrate(&self, connection: &mut Connection) -> Result<(), StoreError> {
        if self.check(connection)? == self.version() {
            return Ok(());
        }
        let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
        // Another process may have been first.
        let found = self.check(&transaction)?;
        for migration in self.migrations.iter().skip(found as usize) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", self.application_id)?;
        transaction.pragma_update(None, "user_version", self.version())?;
        Ok(transaction.commit()?)
    }
}

/// Counts the rows of `tables`.
pub(super) fn count(
    connection: &Connection,
    tables: &'static [(&'static str, &'static str)],
) -> Result<Vec<(&'static str, u64)>, StoreError> {
    tables
        .iter()
        .map(|(table, word)| {
            let count = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
            Ok((*word, count))
        })
        .collect()
}

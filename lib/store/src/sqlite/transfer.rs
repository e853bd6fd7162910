//! Reading all rows of the files, and filling new ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use overstory_model::{EntityId, SeriesKey, Timestamp};
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::commit::{write_alarm, write_entities};
use super::connection::{self, sync_directory};
use super::failure::{at, damaged};
use super::metrics::total_of;
use super::schema::{CONTROL, ENGINES, Schema};
use super::writer::transact;
use crate::commit::{AlarmWrite, Outgoing};
use crate::error::StoreError;
use crate::metrics::described::{Described, kind_number, kind_of};
use crate::outbox::OutboxEntry;
use crate::transfer::{
    BATCH, Block, Counters, RowSender, Rows, Run, SeenRecord, SeriesRow, TotalRow, Unit, nobody_listens,
};

/// Where a copy is made before it takes the store's place.
const UNFINISHED: &str = "unfinished-copy";

/// Reads everything of the store in `dir`; `alone`: only if no other process has it open.
pub(crate) fn read_all(dir: &Path, alone: bool, rows: &RowSender) -> Result<(), StoreError> {
    let path = ENGINES.path(dir);
    read_file(&path, &ENGINES, alone, |connection| read_engines(connection, rows))?;
    let path = CONTROL.path(dir);
    if !path.exists() {
        return Ok(());
    }
    read_file(&path, &CONTROL, alone, |connection| read_control(connection, rows))
}

fn read_file(
    path: &Path,
    schema: &Schema,
    alone: bool,
    read: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let open = if alone { open_alone } else { connection::open_to_read };
    let mut connection = open(path, schema).map_err(at(path))?;
    // One view of the whole file.
    let transaction = connection.transaction()?;
    read(&transaction).map_err(at(path))
}

/// Opens a file so that no other process can, if none has.
fn open_alone(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    match connection.execute_batch("BEGIN EXCLUSIVE; COMMIT") {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            Err(StoreError::Conflict(format!("{} is in use: stop the stack first", path.display())))
        }
        outcome => {
            outcome?;
            schema.check(&connection)?;
            Ok(connection)
        }
    }
}

fn read_engines(connection: &Connection, rows: &RowSender) -> Result<(), StoreError> {
    let send = |batch| rows.blocking_send(batch).map_err(|_| nobody_listens());
    each(connection, "SELECT unit, epoch, holder FROM epochs ORDER BY unit", Rows::Units, &send, |row| {
        Ok(Unit { unit: row.get(0)?, epoch: row.get(1)?, holder: row.get(2)? })
    })?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
    send(Rows::Counters(Counters {
        commit: number("SELECT n FROM counter")?,
        outbox: number("SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'")?,
        series: number("SELECT ifnull(max(n), 0) FROM series")?,
    }))?;
    each(connection, "SELECT n, at, ids FROM seen ORDER BY n", Rows::Seen, &send, |row| {
        Ok(SeenRecord { n: row.get(0)?, at: row.get(1)?, ids: row.get(2)? })
    })?;
    let sql = "SELECT n, exchange, routing_key, message_id, content_type, headers, body FROM outbox ORDER BY n";
    each(connection, sql, Rows::Outbox, &send, |row| {
        let message = Outgoing {
            exchange: row.get(1)?,
            routing_key: row.get(2)?,
            message_id: row.get(3)?,
            content_type: row.get(4)?,
            headers: document(row, 5, "outbox")?,
            body: row.get(6)?,
        };
        Ok(OutboxEntry { number: row.get(0)?, message })
    })?;
    let sql = "SELECT doc, at FROM entities JOIN heard ON entity = n ORDER BY n";
    each(connection, sql, Rows::Entities, &send, |row| {
        let mut entity: overstory_model::Entity = document(row, 0, "entities")?;
        entity.last_event_date = Timestamp(row.get(1)?);
        Ok(entity)
    })?;
    let mut steps = connection.prepare("SELECT doc FROM steps WHERE alarm = ? ORDER BY n")?;
    each(connection, "SELECT doc, n FROM alarms ORDER BY n", Rows::Alarms, &send, |row| {
        let number: i64 = row.get(1)?;
        let steps = super::sql::collect(steps.query([number])?, |row| document(row, 0, "steps"))?;
        Ok((document(row, 0, "alarms")?, steps))
    })?;
    let sql = "SELECT n, entity, metric, kind, unit, min, max, warn, crit, at, value \
               FROM series LEFT JOIN latest ON latest.series = n ORDER BY n";
    each(connection, sql, Rows::Series, &send, |row| {
        let at: Option<i64> = row.get(9)?;
        let value: Option<f64> = row.get(10)?;
        Ok(SeriesRow {
            key: SeriesKey { entity: EntityId(row.get(1)?), metric: row.get(2)? },
            described: Described {
                number: row.get(0)?,
                kind: kind_of(row.get(3)?),
                unit: row.get(4)?,
                limits: [row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?],
            },
            latest: at.zip(value),
        })
    })?;
    each(
        connection,
        "SELECT bucket, shard, n, points FROM blocks ORDER BY bucket, shard, n",
        Rows::Blocks,
        &send,
        |row| Ok(Block { bucket: row.get(0)?, shard: row.get(1)?, n: row.get(2)?, points: row.get(3)? }),
    )?;
    each(connection, "SELECT start, series, points FROM runs ORDER BY start, series", Rows::Runs, &send, |row| {
        Ok(Run { start: row.get(0)?, series: row.get(1)?, points: row.get(2)? })
    })?;
    let totals = |table: &str, wrap: fn(Vec<TotalRow>) -> Rows| {
        let sql =
            format!("SELECT start, series, count, sum, min, max, last, last_at FROM {table} ORDER BY start, series");
        each(connection, &sql, wrap, &send, |row| {
            Ok(TotalRow { start: row.get(0)?, series: row.get(1)?, total: total_of(row, 2)? })
        })
    };
    totals("five", Rows::FiveMinutes)?;
    totals("hours", Rows::Hours)?;
    let sql = "SELECT doc FROM engine_runs ORDER BY engine, instance";
    each(connection, sql, Rows::EngineRuns, &send, |row| document(row, 0, "engine_runs"))
}

fn read_control(connection: &Connection, rows: &RowSender) -> Result<(), StoreError> {
    let send = |batch| rows.blocking_send(batch).map_err(|_| nobody_listens());
    each(connection, "SELECT doc FROM roles", Rows::Roles, &send, |row| document(row, 0, "roles"))?;
    each(connection, "SELECT doc FROM accounts", Rows::Accounts, &send, |row| document(row, 0, "accounts"))?;
    each(connection, "SELECT doc FROM api_keys", Rows::ApiKeys, &send, |row| document(row, 0, "api_keys"))?;
    each(connection, "SELECT doc FROM sessions", Rows::Sessions, &send, |row| document(row, 0, "sessions"))
}

/// Sends the rows of a question in batches.
fn each<T>(
    connection: &Connection,
    sql: &str,
    wrap: fn(Vec<T>) -> Rows,
    send: &impl Fn(Rows) -> Result<(), StoreError>,
    mut make: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut batch = Vec::new();
    while let Some(row) = rows.next()? {
        batch.push(make(row)?);
        if batch.len() >= BATCH {
            send(wrap(std::mem::take(&mut batch)))?;
        }
    }
    if batch.is_empty() { Ok(()) } else { send(wrap(batch)) }
}

fn document<T: DeserializeOwned>(row: &Row<'_>, column: usize, collection: &'static str) -> Result<T, StoreError> {
    let doc = row.get_ref(column)?.as_str().unwrap_or_default();
    serde_json::from_str(doc).map_err(|error| damaged(collection, doc.chars().take(60).collect::<String>(), &error))
}

/// Asks SQLite about both files; returns what it finds wrong.
pub(crate) fn check_files(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    for schema in [&ENGINES, &CONTROL] {
        let path = schema.path(dir);
        match check_file(&path, schema).map_err(at(&path)) {
            Ok(found) => problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", path.display()))),
            Err(error @ StoreError::Corrupt { .. }) => problems.push(error.to_string()),
            Err(other) => return Err(other),
        }
    }
    Ok(problems)
}

fn check_file(path: &Path, schema: &Schema) -> Result<Vec<String>, StoreError> {
    let connection = connection::open_to_read(path, schema)?;
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let found: Vec<String> = super::sql::collect(statement.query([])?, |row| Ok(row.get(0)?))?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

/// New files that take a store's place once they are whole.
#[derive(Debug)]
pub(crate) struct Target {
    dir: PathBuf,
    unfinished: PathBuf,
    engines: Connection,
    control: Connection,
}

impl Target {
    /// Begins a copy into the store at `dir`.
    pub(crate) fn open(dir: &Path, replace: bool) -> Result<Self, StoreError> {
        let unfinished = dir.join(UNFINISHED);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(failed)?;
        }
        for schema in [&ENGINES, &CONTROL] {
            let path = schema.path(dir);
            if path.exists() {
                let found = open_alone(&path, schema)?;
                let counts = super::schema::count(&found, schema.counted)?;
                let holds: Vec<String> =
                    counts.iter().filter(|(_, n)| *n > 0).map(|(word, n)| format!("{n} {word}")).collect();
                if !holds.is_empty() && !replace {
                    let reason = format!("{} is not empty: it holds {}", path.display(), holds.join(", "));
                    return Err(StoreError::Conflict(reason));
                }
            }
        }
        let engines = connection::create(&ENGINES.path(&unfinished), &ENGINES)?;
        let control = connection::create(&CONTROL.path(&unfinished), &CONTROL)?;
        Ok(Self { dir: dir.to_owned(), unfinished, engines, control })
    }

    pub(crate) fn write(&mut self, rows: Rows) -> Result<(), StoreError> {
        let connection = match rows {
            Rows::Roles(_) | Rows::Accounts(_) | Rows::ApiKeys(_) | Rows::Sessions(_) => &mut self.control,
            _ => &mut self.engines,
        };
        transact(connection, |transaction| write(transaction, rows))
    }

    /// Puts the new files in the store's place.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        let Self { dir, unfinished, engines, control } = self;
        for (connection, schema) in [(control, &CONTROL), (engines, &ENGINES)] {
            // Closing folds the log into the database and removes it.
            connection.close().map_err(|(_, error)| StoreError::from(error))?;
            let place = schema.path(&dir);
            for suffix in ["-wal", "-shm"] {
                let mut name = place.clone().into_os_string();
                name.push(suffix);
                match fs::remove_file(name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
            }
            fs::rename(schema.path(&unfinished), place).map_err(failed)?;
        }
        fs::remove_dir_all(&unfinished).map_err(failed)?;
        sync_directory(&dir).map_err(failed)
    }
}

fn write(transaction: &Transaction<'_>, rows: Rows) -> Result<(), StoreError> {
    let prepare = |sql: &str| transaction.prepare_cached(sql);
    match rows {
        Rows::Units(rows) => {
            let mut put = prepare("INSERT INTO epochs VALUES (?, ?, ?)")?;
            rows.iter().try_for_each(|row| put.execute(params![row.unit, row.epoch, row.holder]).map(drop))?;
        }
        Rows::Counters(counters) => {
            transaction.execute("UPDATE counter SET n = ?", [counters.commit])?;
            transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'", [])?;
            transaction.execute("INSERT INTO sqlite_sequence VALUES ('outbox', ?)", [counters.outbox])?;
        }
        Rows::Seen(rows) => {
            let mut put = prepare("INSERT INTO seen VALUES (?, ?, ?)")?;
            rows.iter().try_for_each(|row| put.execute(params![row.n, row.at, row.ids]).map(drop))?;
        }
        Rows::Outbox(rows) => {
            let mut put = prepare("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)")?;
            for OutboxEntry { number, message } in rows {
                let Outgoing { exchange, routing_key, message_id, content_type, headers, body } = message;
                let headers = text(&headers)?;
                put.execute(params![number, exchange, routing_key, message_id, content_type, headers, body])?;
            }
        }
        Rows::Entities(rows) => {
            write_entities(transaction, &rows)?;
        }
        Rows::Alarms(rows) => {
            for (alarm, new_steps) in rows {
                write_alarm(transaction, &AlarmWrite { alarm, new_steps, is_new: true })?;
            }
        }
        Rows::Series(rows) => write_series(transaction, &rows)?,
        Rows::Blocks(rows) => {
            let mut put = prepare("INSERT INTO blocks VALUES (?, ?, ?, ?)")?;
            rows.iter().try_for_each(|row| put.execute(params![row.bucket, row.shard, row.n, row.points]).map(drop))?;
        }
        Rows::Runs(rows) => {
            let mut put = prepare("INSERT INTO runs VALUES (?, ?, ?)")?;
            rows.iter().try_for_each(|row| put.execute(params![row.start, row.series, row.points]).map(drop))?;
        }
        Rows::FiveMinutes(rows) => write_totals(transaction, "five", &rows)?,
        Rows::Hours(rows) => write_totals(transaction, "hours", &rows)?,
        Rows::EngineRuns(rows) => {
            let mut put = prepare("INSERT INTO engine_runs VALUES (?, ?, ?, ?)")?;
            for run in rows {
                put.execute(params![run.engine, run.instance, run.at.0, text(&run)?])?;
            }
        }
        Rows::Roles(rows) => {
            let mut put = prepare("INSERT INTO roles VALUES (?, ?)")?;
            for role in rows {
                put.execute(params![role.name, text(&role)?])?;
            }
        }
        Rows::Accounts(rows) => {
            let mut put = prepare("INSERT INTO accounts VALUES (?, ?, ?)")?;
            for account in rows {
                put.execute(params![account.name, account.generation, text(&account)?])?;
            }
        }
        Rows::ApiKeys(rows) => {
            let mut put = prepare("INSERT INTO api_keys VALUES (?, ?, ?)")?;
            for key in rows {
                put.execute(params![key.key_hash, key.account, text(&key)?])?;
            }
        }
        Rows::Sessions(rows) => {
            let mut put = prepare("INSERT INTO sessions VALUES (?, ?, ?, ?)")?;
            for session in rows {
                put.execute(params![session.token_hash, session.account, session.expires.0, text(&session)?])?;
            }
        }
    }
    Ok(())
}

fn write_series(transaction: &Transaction<'_>, rows: &[SeriesRow]) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached("INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    let mut put_latest = transaction.prepare_cached("INSERT INTO latest VALUES (?, ?, ?)")?;
    for SeriesRow { key, described, latest } in rows {
        let Described { number, kind, unit, limits: [min, max, warn, crit] } = described;
        let (entity, metric) = (key.entity.as_str(), &key.metric);
        put.execute(params![number, entity, metric, kind_number(*kind), unit, min, max, warn, crit])?;
        if let Some((at, value)) = latest {
            put_latest.execute(params![number, at, value])?;
        }
    }
    Ok(())
}

fn write_totals(transaction: &Transaction<'_>, table: &str, rows: &[TotalRow]) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached(&format!("INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"))?;
    for TotalRow { start, series, total } in rows {
        let t = total;
        put.execute(params![start, series, t.count, t.sum, t.min, t.max, t.last, t.last_at])?;
    }
    Ok(())
}

fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(Box::new(error)))
}

fn failed(error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::StorageFull {
        StoreError::Full(Box::new(error))
    } else {
        StoreError::Failed(Box::new(error))
    }
}

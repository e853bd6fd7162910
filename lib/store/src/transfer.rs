//! Moving everything from one store to another, and reading all of it to see whether it is sound.
//!
//! A copy goes into a place that nobody opens before it is whole: files beside the store's, a database marked as being
//! copied into. Started again after an interruption it begins anew.

use overstory_model::{Alarm, Entity, SeriesKey, Step};
use tokio::sync::mpsc;

use crate::accounts::{Account, ApiKey, Role, Session};
use crate::config::{StoreConfig, StoreKind};
use crate::error::StoreError;
use crate::metrics::described::Described;
use crate::metrics::stitch::Total;
use crate::outbox::OutboxEntry;
use crate::runs::EngineRun;
use crate::{mongo, sqlite};

/// How many batches of rows wait between reading and writing.
const QUEUE: usize = 4;
/// How many rows a batch has at most.
pub(crate) const BATCH: usize = 500;

/// How far a copy or a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being read.
    pub what: &'static str,
    /// How many of them have been read.
    pub done: u64,
}

/// A batch of rows; the kinds come one after the other.
#[derive(Debug)]
pub(crate) enum Rows {
    Units(Vec<Unit>),
    Counters(Counters),
    Seen(Vec<SeenRecord>),
    Outbox(Vec<OutboxEntry>),
    Entities(Vec<Entity>),
    Alarms(Vec<(Alarm, Vec<Step>)>),
    Series(Vec<SeriesRow>),
    Blocks(Vec<Block>),
    Runs(Vec<Run>),
    FiveMinutes(Vec<TotalRow>),
    Hours(Vec<TotalRow>),
    EngineRuns(Vec<EngineRun>),
    Roles(Vec<Role>),
    Accounts(Vec<Account>),
    ApiKeys(Vec<ApiKey>),
    Sessions(Vec<Session>),
}

/// Who may commit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) unit: String,
    pub(crate) epoch: u64,
    pub(crate) holder: String,
}

/// The highest numbers given so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) commit: u64,
    pub(crate) outbox: u64,
    pub(crate) series: u64,
}

/// The message ids of one commit.
#[derive(Debug)]
pub(crate) struct SeenRecord {
    pub(crate) n: u64,
    pub(crate) at: i64,
    pub(crate) ids: Vec<u8>,
}

/// A series and its latest packed point.
#[derive(Debug)]
pub(crate) struct SeriesRow {
    pub(crate) key: SeriesKey,
    pub(crate) described: Described,
    pub(crate) latest: Option<(i64, f64)>,
}

/// New points of a shard.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) bucket: i64,
    pub(crate) shard: i64,
    pub(crate) n: u64,
    pub(crate) points: Vec<u8>,
}

/// The points of a closed bucket of a series.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) start: i64,
    pub(crate) series: i64,
    pub(crate) points: Vec<u8>,
}

/// A roll-up.
#[derive(Debug)]
pub(crate) struct TotalRow {
    pub(crate) start: i64,
    pub(crate) series: i64,
    pub(crate) total: Total,
}

impl Rows {
    fn progress(&self) -> (&'static str, usize) {
        match self {
            Self::Units(rows) => ("units", rows.len()),
            Self::Counters(_) => ("counters", 1),
            Self::Seen(rows) => ("commits' message ids", rows.len()),
            Self::Outbox(rows) => ("outbox", rows.len()),
            Self::Entities(rows) => ("entities", rows.len()),
            Self::Alarms(rows) => ("alarms", rows.len()),
            Self::Series(rows) => ("series", rows.len()),
            Self::Blocks(rows) => ("new point blocks", rows.len()),
            Self::Runs(rows) => ("point runs", rows.len()),
            Self::FiveMinutes(rows) => ("five-minute buckets", rows.len()),
            Self::Hours(rows) => ("one-hour buckets", rows.len()),
            Self::EngineRuns(rows) => ("engine reports", rows.len()),
            Self::Roles(rows) => ("roles", rows.len()),
            Self::Accounts(rows) => ("accounts", rows.len()),
            Self::ApiKeys(rows) => ("API keys", rows.len()),
            Self::Sessions(rows) => ("sessions", rows.len()),
        }
    }
}

/// Where rows are sent that were read.
pub(crate) type RowSender = mpsc::Sender<Rows>;

/// The reader found that nobody wants more rows.
pub(crate) fn nobody_listens() -> StoreError {
    StoreError::Failed("the copy was given up".into())
}

/// Copies everything in `from` to `to`, which must be of the other kind, and empty unless it is to be replaced.
///
/// The programs that use an embedded store must have been stopped, and those that write to a server should be.
///
/// # Errors
/// A store is not available, the target holds something, an embedded store is in use, or a row is damaged.
pub async fn copy(
    from: &StoreConfig,
    to: &StoreConfig,
    replace: bool,
    mut report: impl FnMut(Progress),
) -> Result<(), StoreError> {
    let (sender, rows) = mpsc::channel(QUEUE);
    match (&from.kind, &to.kind) {
        (StoreKind::Embedded { path }, StoreKind::MongoDb { uri, database }) => {
            let path = path.clone();
            let reader = tokio::task::spawn_blocking(move || sqlite::transfer::read_all(&path, true, &sender));
            let target = mongo::transfer::Target::open(uri, database, replace).await?;
            pour(rows, &mut report, async |rows| target.write(rows).await).await?;
            ended(reader).await?;
            target.finish().await
        }
        (StoreKind::MongoDb { uri, database }, StoreKind::Embedded { path }) => {
            let source = mongo::MongoDb::open(uri, database).await?;
            let reader = tokio::spawn(async move { mongo::transfer::read_all(&source, &sender).await });
            let mut target = sqlite::transfer::Target::open(path, replace)?;
            pour(rows, &mut report, async |rows| target.write(rows)).await?;
            ended(reader).await?;
            target.finish()
        }
        _ => Err(StoreError::Failed("a copy goes from one kind of store to the other".into())),
    }
}

/// Reads everything in a store; returns what is wrong with it.
///
/// # Errors
/// The store is not available.
pub async fn check(config: &StoreConfig, mut report: impl FnMut(Progress)) -> Result<Vec<String>, StoreError> {
    let (sender, rows) = mpsc::channel(QUEUE);
    let mut problems = Vec::new();
    let read = match &config.kind {
        StoreKind::Embedded { path } => {
            let (of_files, of_rows) = (path.clone(), path.clone());
            let found = tokio::task::spawn_blocking(move || sqlite::transfer::check_files(&of_files));
            problems.extend(ended(found).await?);
            if !problems.is_empty() {
                return Ok(problems);
            }
            let reader = tokio::task::spawn_blocking(move || sqlite::transfer::read_all(&of_rows, false, &sender));
            pour(rows, &mut report, async |_| Ok(())).await?;
            ended(reader).await
        }
        StoreKind::MongoDb { uri, database } => {
            let source = mongo::MongoDb::open(uri, database).await?;
            let reader = tokio::spawn(async move { mongo::transfer::read_all(&source, &sender).await });
            pour(rows, &mut report, async |_| Ok(())).await?;
            ended(reader).await
        }
    };
    match read {
        Ok(()) => {}
        Err(error @ (StoreError::Damaged { .. } | StoreError::Corrupt { .. })) => problems.push(error.to_string()),
        Err(other) => return Err(other),
    }
    Ok(problems)
}

async fn pour(
    mut rows: mpsc::Receiver<Rows>,
    report: &mut impl FnMut(Progress),
    mut write: impl AsyncFnMut(Rows) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut progress = Progress { what: "", done: 0 };
    while let Some(batch) = rows.recv().await {
        let (what, count) = batch.progress();
        if what != progress.what {
            progress = Progress { what, done: 0 };
        }
        progress.done += count as u64;
        write(batch).await?;
        report(progress);
    }
    Ok(())
}

async fn ended<T>(reader: tokio::task::JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    reader.await.map_err(|error| StoreError::Failed(Box::new(error)))?
}

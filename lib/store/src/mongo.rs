//! The store on a MongoDB server. `docs/formats/store.md` describes the collections.
//!
//! Only documented operators are used, of servers from 5.0 on that are a replica set or sharded (transactions). Everything is
//! written with write concern majority; a commit is one transaction of a few commands.

mod accounts;
mod alarms;
mod bulk;
mod commit;
mod documents;
mod entities;
mod failure;
mod indexes;
mod maintain;
mod metrics;
mod outbox;
mod runs;
pub(crate) mod transfer;

use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession, Collection, Database};
use tokio::sync::Mutex;

use crate::dedup::SeenIndex;
use crate::error::StoreError;
use crate::probe::{Probe, StoreInfo};
use failure::{Attempt, within};

/// A server that does not answer within this time counts as not available.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A call that takes longer than this counts as failed, whatever the server is doing.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a transaction that lost against another one is tried.
const ATTEMPTS: u32 = 8;
/// Before the n-th new attempt n times this time passes.
const PAUSE: Duration = Duration::from_millis(10);
const MAX_CONNECTIONS: u32 = 8;
/// The layout this program knows.
const SCHEMA: u32 = 1;

/// The names of the collections; those that Canopsis has keep its names.
mod name {
    pub(super) const ALARMS: &str = "periodical_alarm";
    pub(super) const STEPS: &str = "alarm_steps";
    pub(super) const ENTITIES: &str = "default_entities";
    pub(super) const SERIES: &str = "metric_series";
    pub(super) const BLOCKS: &str = "metric_blocks";
    pub(super) const RUNS: &str = "metric_runs";
    pub(super) const FIVE: &str = "metric_five_minutes";
    pub(super) const HOURS: &str = "metric_hours";
    pub(super) const OUTBOX: &str = "outbox";
    pub(super) const SEEN: &str = "seen";
    pub(super) const UNITS: &str = "units";
    pub(super) const COUNTERS: &str = "counters";
    pub(super) const ENGINE_RUNS: &str = "engine_runs";
    pub(super) const ROLES: &str = "role";
    pub(super) const ACCOUNTS: &str = "user";
    pub(super) const API_KEYS: &str = "api_key";
    pub(super) const SESSIONS: &str = "session";
    pub(super) const META: &str = "overstory";
}

/// The database as one process sees it.
#[derive(Debug)]
pub(crate) struct MongoDb {
    client: Client,
    database: Database,
    seen: Mutex<SeenIndex>,
    series: Mutex<commit::SeriesCache>,
}

impl MongoDb {
    /// Connects, refuses databases of later versions and makes the indexes.
    pub(crate) async fn open(uri: &str, database: &str) -> Result<Self, StoreError> {
        let store = Self::connect(uri, database).await?;
        store.check_schema().await?;
        store.prepare().await?;
        Ok(store)
    }

    async fn connect(uri: &str, database: &str) -> Result<Self, StoreError> {
        let mut options = within(async { ClientOptions::parse(uri).await }).await?;
        options.app_name.get_or_insert_with(|| "overstory".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.max_pool_size.get_or_insert(MAX_CONNECTIONS);
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options)?;
        let database = client.database(database);
        Ok(Self { client, database, seen: Mutex::default(), series: Mutex::default() })
    }

    /// Makes the indexes and collections that are missing.
    async fn prepare(&self) -> Result<(), StoreError> {
        within(indexes::create(&self.database)).await
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    /// The same for writing documents that are bytes already.
    fn raw_collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let meta = self.collection(name::META);
        let wanted = doc! { "$setOnInsert": { "version": i64::from(SCHEMA) } };
        let found = async {
            meta.update_one(doc! { "_id": "schema" }, wanted).upsert(true).await?;
            meta.find_one(doc! { "_id": "schema" }).await
        };
        let found = within(found).await?.unwrap_or_default();
        if found.get_bool(transfer::UNFINISHED).unwrap_or(false) {
            return Err(StoreError::Failed("a copy into this database was not finished: start it again".into()));
        }
        let found = u32::try_from(found.get_i64("version").unwrap_or_default()).unwrap_or(u32::MAX);
        if found > SCHEMA { Err(StoreError::TooNew { found, known: SCHEMA }) } else { Ok(()) }
    }

    /// Runs `work` in a transaction; tries again, a few times, when it lost against another one.
    ///
    /// When the connection breaks while the server commits, the outcome stays unknown and the error says that the store
    /// is not available: whoever tries the same batch again finds its messages seen if it had been written.
    async fn transact<W: Work>(&self, work: &W) -> Result<W::Output, StoreError> {
        failure::within_store(async {
            let mut session = self.client.start_session().await?;
            for attempt in 1.. {
                session.start_transaction().write_concern(WriteConcern::majority()).await?;
                let error = match work.run(&mut session).await {
                    Ok(output) => match commit::finish(&mut session).await {
                        Ok(()) => return Ok(output),
                        Err(error) => Attempt::from(error),
                    },
                    Err(error) => {
                        // The server forgets the transaction by itself if this does not reach it.
                        let _ = session.abort_transaction().await;
                        error
                    }
                };
                if attempt >= ATTEMPTS || !error.is_transient() {
                    return Err(error.into());
                }
                tokio::time::sleep(PAUSE * attempt).await;
            }
            Err(StoreError::Failed("no attempt was made".into()))
        })
        .await
    }

    /// Runs `question` on one consistent view of the data.
    async fn read<W: Work>(&self, question: &W) -> Result<W::Output, StoreError> {
        failure::within_store(async {
            let mut session = self.client.start_session().await?;
            for attempt in 1.. {
                session.start_transaction().read_concern(ReadConcern::snapshot()).await?;
                let answer = question.run(&mut session).await;
                // Nothing was written.
                let _ = session.abort_transaction().await;
                match answer {
                    Err(error) if attempt < ATTEMPTS && error.is_transient() => {}
                    answer => return answer.map_err(StoreError::from),
                }
            }
            Err(StoreError::Failed("no attempt was made".into()))
        })
        .await
    }
}

/// What is done in one transaction, perhaps several times until it succeeds.
#[async_trait]
trait Work: Sync {
    type Output: Send;

    async fn run(&self, session: &mut ClientSession) -> Result<Self::Output, Attempt>;
}

#[async_trait]
impl Probe for MongoDb {
    async fn ping(&self) -> Result<(), StoreError> {
        within(async { self.database.run_command(doc! { "ping": 1 }).await }).await.map(drop)
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let stats = within(async { self.database.run_command(doc! { "dbStats": 1 }).await }).await?;
        let number = |key: &str| match stats.get(key) {
            Some(mongodb::bson::Bson::Int32(n)) => f64::from(*n),
            Some(mongodb::bson::Bson::Int64(n)) => *n as f64,
            Some(mongodb::bson::Bson::Double(n)) => *n,
            _ => 0.0,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are whole and positive")]
        let bytes = (number("storageSize") + number("indexSize")).max(0.0) as u64;
        let counted = [
            (name::ALARMS, "alarms"),
            (name::STEPS, "steps"),
            (name::ENTITIES, "entities"),
            (name::SERIES, "series"),
            (name::BLOCKS, "new point blocks"),
            (name::RUNS, "point runs"),
            (name::FIVE, "five-minute buckets"),
            (name::HOURS, "one-hour buckets"),
            (name::OUTBOX, "outbox"),
            (name::ENGINE_RUNS, "engine reports"),
            (name::ACCOUNTS, "accounts"),
            (name::ROLES, "roles"),
            (name::API_KEYS, "API keys"),
            (name::SESSIONS, "sessions"),
        ];
        let mut counts = Vec::with_capacity(counted.len());
        for (collection, word) in counted {
            let collection = self.collection(collection);
            counts.push((word, within(async { collection.count_documents(doc! {}).await }).await?));
        }
        Ok(StoreInfo { kind: "mongodb", schema: SCHEMA, bytes, counts })
    }
}

//! Many writes in few commands.

use mongodb::bson::raw::{CStr, cstr};
use mongodb::bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::{ClientSession, Database};

use super::failure::{Attempt, DUPLICATE_KEY};
use crate::error::StoreError;

/// A command has at most this many bytes of writes (a document may have 16 MiB) ...
const MAX_BYTES: usize = 12 * 1024 * 1024;
/// ... and at most this many writes.
const MAX_WRITES: usize = 1000;

/// Writes of one kind to one collection, in order.
#[derive(Debug)]
pub(super) struct Bulk<'a> {
    database: &'a Database,
    command: &'static str,
    collection: &'static str,
    /// The name of the array in the command.
    array: &'static CStr,
    writes: RawArrayBuf,
    bytes: usize,
    count: usize,
    outcome: Outcome,
}

/// What came of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Documents inserted, matched or removed.
    pub(super) n: u64,
}

impl<'a> Bulk<'a> {
    pub(super) fn inserts(database: &'a Database, collection: &'static str) -> Self {
        Self::new(database, "insert", collection, cstr!("documents"))
    }

    pub(super) fn updates(database: &'a Database, collection: &'static str) -> Self {
        Self::new(database, "update", collection, cstr!("updates"))
    }

    fn new(database: &'a Database, command: &'static str, collection: &'static str, array: &'static CStr) -> Self {
        let (writes, outcome) = (RawArrayBuf::new(), Outcome::default());
        Self { database, command, collection, array, writes, bytes: 0, count: 0, outcome }
    }

    /// Adds a document to insert.
    pub(super) async fn insert(
        &mut self,
        session: &mut ClientSession,
        document: RawDocumentBuf,
    ) -> Result<(), Attempt> {
        self.push(session, document).await
    }

    /// Adds an update of one document; `change` is a replacement or made of operators.
    pub(super) async fn update(
        &mut self,
        session: &mut ClientSession,
        filter: Document,
        change: RawDocumentBuf,
        upsert: bool,
    ) -> Result<(), Attempt> {
        let filter = RawDocumentBuf::try_from(&filter).map_err(unserializable)?;
        self.push(session, rawdoc! { "q": filter, "u": change, "upsert": upsert, "multi": false }).await
    }

    async fn push(&mut self, session: &mut ClientSession, write: RawDocumentBuf) -> Result<(), Attempt> {
        let bytes = write.as_bytes().len();
        if self.count >= MAX_WRITES || (self.count > 0 && self.bytes + bytes > MAX_BYTES) {
            self.send(session).await?;
        }
        self.writes.push(write);
        self.bytes += bytes;
        self.count += 1;
        Ok(())
    }

    /// Sends what is left; says how many documents were written or matched in all.
    pub(super) async fn finish(mut self, session: &mut ClientSession) -> Result<Outcome, Attempt> {
        if self.count > 0 {
            self.send(session).await?;
        }
        Ok(self.outcome)
    }

    async fn send(&mut self, session: &mut ClientSession) -> Result<(), Attempt> {
        let writes = std::mem::take(&mut self.writes);
        (self.bytes, self.count) = (0, 0);
        let mut command = RawDocumentBuf::try_from(&doc! { self.command: self.collection, "ordered": true })
            .map_err(unserializable)?;
        command.append(self.array, writes);
        let reply = self.database.run_raw_command(command).session(&mut *session).await?;
        check(&reply)?;
        self.outcome.n += count_of(&reply);
        Ok(())
    }
}

/// Removes the documents that match, in a transaction.
pub(super) async fn remove(
    database: &Database,
    collection: &str,
    filter: Document,
    session: &mut ClientSession,
) -> Result<u64, Attempt> {
    let result = database.collection::<Document>(collection).delete_many(filter).session(session).await?;
    Ok(result.deleted_count)
}

/// The bytes of a value's document.
pub(super) fn raw(value: &impl serde::Serialize) -> Result<RawDocumentBuf, StoreError> {
    mongodb::bson::serialize_to_raw_document_buf(value).map_err(unserializable)
}

fn unserializable(error: mongodb::bson::error::Error) -> StoreError {
    StoreError::Failed(Box::new(error))
}

fn check(reply: &Document) -> Result<(), StoreError> {
    let Ok(errors) = reply.get_array("writeErrors") else { return Ok(()) };
    let Some(error) = errors.first().and_then(|error| error.as_document()) else { return Ok(()) };
    let message = error.get_str("errmsg").unwrap_or("a write was refused").to_owned();
    match error.get_i32("code") {
        Ok(DUPLICATE_KEY) => Err(StoreError::Conflict(message)),
        _ => Err(StoreError::Failed(message.into())),
    }
}

fn count_of(reply: &Document) -> u64 {
    let n = reply.get_i32("n").map(i64::from).or_else(|_| reply.get_i64("n")).unwrap_or(0);
    u64::try_from(n).unwrap_or(0)
}

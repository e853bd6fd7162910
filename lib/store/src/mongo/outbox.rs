//! Messages that wait for the broker.

use async_trait::async_trait;
use mongodb::bson::{Bson, Document, doc};

use super::documents::int;
use super::failure::{damaged, within};
use super::{MongoDb, name};
use crate::commit::Outgoing;
use crate::error::StoreError;
use crate::outbox::{Outbox, OutboxEntry};

#[async_trait]
impl Outbox for MongoDb {
    async fn pending(&self, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let oldest = async {
            let mut found =
                self.collection(name::OUTBOX).find(doc! {}).sort(doc! { "_id": 1 }).limit(limit.into()).await?;
            let mut documents = Vec::new();
            while found.advance().await? {
                documents.push(found.deserialize_current()?);
            }
            Ok(documents)
        };
        within(oldest).await?.into_iter().map(entry).collect()
    }

    async fn done(&self, numbers: &[u64]) -> Result<(), StoreError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let numbers: Vec<i64> = numbers.iter().map(|number| int(*number)).collect();
        let outbox = self.collection(name::OUTBOX);
        within(async { outbox.delete_many(doc! { "_id": { "$in": numbers } }).await }).await.map(drop)
    }
}

pub(super) fn entry(document: Document) -> Result<OutboxEntry, StoreError> {
    let number = document.get_i64("_id").unwrap_or(0);
    let bad = |error: mongodb::bson::error::Error| damaged("outbox", number, error);
    let text = |key: &str| document.get_str(key).map(str::to_owned).map_err(bad);
    let pair = |pair: &Bson| {
        let pair = pair.as_array()?;
        Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()))
    };
    let headers: Option<Vec<_>> = document.get_array("headers").map_err(bad)?.iter().map(pair).collect();
    let message = Outgoing {
        exchange: text("exchange")?,
        routing_key: text("routing_key")?,
        message_id: text("message_id")?,
        content_type: text("content_type")?,
        headers: headers.ok_or_else(|| damaged("outbox", number, "headers are not pairs"))?,
        body: document.get_binary_generic("body").map_err(bad)?.clone(),
    };
    Ok(OutboxEntry { number: u64::try_from(number).unwrap_or(0), message })
}

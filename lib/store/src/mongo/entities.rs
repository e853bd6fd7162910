//! Reading entities, and what all lists have in common.

use async_trait::async_trait;
use mongodb::Cursor;
use mongodb::bson::{Bson, Document, doc};
use overstory_model::{Entity, EntityId};
use serde::de::DeserializeOwned;

use super::failure::{parse, within, within_store};
use super::{MongoDb, name};
use crate::entities::{Entities, EntityQuery, EntitySort};
use crate::error::StoreError;
use crate::page::{Page, PageRequest};

#[async_trait]
impl Entities for MongoDb {
    async fn by_ids(&self, ids: &[EntityId]) -> Result<Vec<Entity>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = ids.iter().map(EntityId::as_str).collect();
        let entities = self.collection(name::ENTITIES);
        collect("entities", async { entities.find(doc! { "_id": { "$in": ids } }).await }).await
    }

    async fn list(&self, query: &EntityQuery) -> Result<Page<Entity>, StoreError> {
        let mut filter = Document::new();
        if !query.kinds.is_empty() {
            let kinds: Vec<&str> = query.kinds.iter().map(|kind| kind.name()).collect();
            filter.insert("type", doc! { "$in": kinds });
        }
        if let Some(component) = &query.component {
            filter.insert("component", component);
        }
        if let Some(info) = &query.info {
            // It would be a path of its own; nothing is known by such a name.
            if info.is_empty() || info.contains(['.', '$', '\0']) {
                return Ok(Page { items: Vec::new(), total: 0 });
            }
            filter.insert(format!("infos.{info}.name"), info);
        }
        if let Some(text) = &query.search {
            filter.insert("$or", contains(&["_id", "name"], text));
        }
        let key = match query.sort_by {
            EntitySort::Id => "_id",
            EntitySort::Name => "name",
            EntitySort::Kind => "type",
            EntitySort::LastEvent => "last_event_date",
        };
        self.page("entities", name::ENTITIES, filter, order(key, query.descending), query.page).await
    }
}

impl MongoDb {
    /// A part of the documents that match, and how many there are in all.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        what: &'static str,
        collection: &str,
        filter: Document,
        order: Document,
        page: PageRequest,
    ) -> Result<Page<T>, StoreError> {
        let documents = self.collection(collection);
        let total = within(async { documents.count_documents(filter.clone()).await }).await?;
        let (offset, limit) = page.offset_and_limit();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX).max(1);
        let found = async { documents.find(filter).sort(order).skip(offset).limit(limit).await };
        Ok(Page { items: collect(what, found).await?, total })
    }
}

/// Reads all documents of a question.
pub(super) async fn collect<T: DeserializeOwned>(
    what: &'static str,
    question: impl Future<Output = mongodb::error::Result<Cursor<Document>>>,
) -> Result<Vec<T>, StoreError> {
    within_store(async {
        let mut found = question.await?;
        let mut items = Vec::new();
        while found.advance().await? {
            items.push(parse(what, found.deserialize_current()?)?);
        }
        Ok(items)
    })
    .await
}

/// Sorted by `key`, ties by id.
pub(super) fn order(key: &str, descending: bool) -> Document {
    let mut order = doc! { key: if descending { -1 } else { 1 } };
    if key != "_id" {
        order.insert("_id", 1);
    }
    order
}

/// One of `fields` contains `text`, letter case aside (ASCII).
pub(super) fn contains(fields: &[&str], text: &str) -> Vec<Bson> {
    let pattern = contains_pattern(text);
    fields.iter().map(|field| Bson::from(doc! { *field: { "$regex": &pattern } })).collect()
}

fn contains_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() * 4);
    for c in text.chars() {
        if c.is_ascii_alphabetic() {
            pattern.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
        } else {
            // Everything that could mean something is ASCII punctuation.
            if c.is_ascii_punctuation() {
                pattern.push('\\');
            }
            pattern.push(c);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_no_regular_expression() {
        assert_eq!(contains_pattern("a.*é1_"), r"[aA]\.\*é1\_");
    }
}

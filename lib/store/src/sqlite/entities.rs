//! Reading entities.

use async_trait::async_trait;
use overstory_model::{Entity, EntityId, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;

use super::EnginesDb;
use super::failure::damaged;
use super::sql::{Conditions, select_page};
use crate::entities::{Entities, EntityQuery, EntitySort};
use crate::error::StoreError;
use crate::page::Page;

#[async_trait]
impl Entities for EnginesDb {
    async fn by_ids(&self, ids: &[EntityId]) -> Result<Vec<Entity>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.to_vec();
        self.read(move |connection| {
            let sql = "SELECT doc, at FROM entities JOIN heard ON entity = n WHERE id = ?";
            let mut find = connection.prepare_cached(sql)?;
            let mut entities = Vec::with_capacity(ids.len());
            for id in &ids {
                let mut rows = find.query([id.as_str()])?;
                if let Some(row) = rows.next()? {
                    entities.push(entity(row)?);
                }
            }
            Ok(entities)
        })
        .await
    }

    async fn list(&self, query: &EntityQuery) -> Result<Page<Entity>, StoreError> {
        let query = query.clone();
        self.read(move |connection| {
            let mut conditions = Conditions::default();
            conditions.and_any_of("kind", query.kinds.iter().map(|kind| Value::Text(kind.name().to_owned())));
            if let Some(component) = &query.component {
                conditions.and("component = ?", [Value::Text(component.clone())]);
            }
            if let Some(info) = &query.info {
                // The first test spares the parsing of nearly every document.
                let key = serde_json::Value::from(info.as_str()).to_string();
                let known = "(instr(doc, ?) > 0 AND EXISTS (SELECT 1 FROM json_each(doc, '$.infos') WHERE key = ?))";
                conditions.and(known, [Value::Text(key), Value::Text(info.clone())]);
            }
            if let Some(text) = &query.search {
                conditions.and_contains(&["id", "name"], text);
            }
            let column = match query.sort_by {
                EntitySort::Id => "id",
                EntitySort::Name => "name",
                EntitySort::Kind => "kind",
                EntitySort::LastEvent => "at",
            };
            let order = format!("{column} {}, id", if query.descending { "DESC" } else { "ASC" });
            let source = "entities JOIN heard ON entity = n";
            select_page(connection, "doc, at", source, &conditions, &order, query.page, entity)
        })
        .await
    }
}

/// The entity of a row of its document and the time it was last heard of.
fn entity(row: &Row<'_>) -> Result<Entity, StoreError> {
    let doc = row.get_ref(0)?.as_str().unwrap_or_default();
    let mut entity: Entity = serde_json::from_str(doc).map_err(|error| {
        let start: String = doc.chars().take(60).collect();
        damaged("entities", start, &error)
    })?;
    entity.last_event_date = Timestamp(row.get(1)?);
    Ok(entity)
}

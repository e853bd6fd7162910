//! Reading alarms.

use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use overstory_model::{Alarm, AlarmId, EntityId, Step, Timestamp};
use serde::Deserialize;

use super::entities::{collect, contains, order};
use super::failure::{parse, within};
use super::{MongoDb, name};
use crate::alarms::{AlarmQuery, AlarmSort, Alarms, Openness};
use crate::error::StoreError;
use crate::page::{Page, PageRequest};

#[derive(Deserialize)]
struct StoredStep {
    step: Step,
}

#[async_trait]
impl Alarms for MongoDb {
    async fn open_of(&self, entities: &[EntityId]) -> Result<Vec<Alarm>, StoreError> {
        if entities.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = entities.iter().map(EntityId::as_str).collect();
        let open = doc! { "d": { "$in": ids }, "v.resolved": null };
        let alarms = self.collection(name::ALARMS);
        collect("alarms", async { alarms.find(open).await }).await
    }

    async fn settled(&self, before: Timestamp, limit: u32) -> Result<Vec<Alarm>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let settled = doc! { "v.resolved": null, "v.state.val": 0_i64, "last_step": { "$lte": before.0 } };
        let alarms = self.collection(name::ALARMS);
        collect("alarms", async { alarms.find(settled).sort(order("last_step", false)).limit(limit.into()).await })
            .await
    }

    async fn get(&self, id: &AlarmId) -> Result<Option<Alarm>, StoreError> {
        let alarms = self.collection(name::ALARMS);
        let found = within(async { alarms.find_one(doc! { "_id": &id.0 }).await }).await?;
        found.map(|document| parse("alarms", document)).transpose()
    }

    async fn steps(&self, id: &AlarmId, page: PageRequest) -> Result<Page<Step>, StoreError> {
        let filter = doc! { "alarm": &id.0 };
        let stored: Page<StoredStep> = self.page("steps", name::STEPS, filter, doc! { "n": 1 }, page).await?;
        Ok(Page { items: stored.items.into_iter().map(|stored| stored.step).collect(), total: stored.total })
    }

    async fn list(&self, query: &AlarmQuery) -> Result<Page<Alarm>, StoreError> {
        let sort = order(key(query.sort_by), query.descending);
        self.page("alarms", name::ALARMS, filter(query), sort, query.page).await
    }
}

fn filter(query: &AlarmQuery) -> Document {
    let mut filter = Document::new();
    match query.openness {
        Openness::OpenAndRecent => {
            let recent = doc! { "v.resolved": { "$gte": query.recent_since.0 } };
            filter.insert("$or", vec![doc! { "v.resolved": null }, recent]);
        }
        Openness::Open => {
            filter.insert("v.resolved", mongodb::bson::Bson::Null);
        }
        Openness::Resolved => {
            filter.insert("v.resolved", doc! { "$ne": null });
        }
    }
    if let Some(entity) = &query.entity {
        filter.insert("d", entity.as_str());
    }
    if !query.states.is_empty() {
        let states: Vec<i64> = query.states.iter().map(|state| i64::from(*state)).collect();
        filter.insert("v.state.val", doc! { "$in": states });
    }
    let mut made = Document::new();
    if let Some(from) = query.from {
        made.insert("$gte", from.0);
    }
    if let Some(to) = query.to {
        made.insert("$lte", to.0);
    }
    if !made.is_empty() {
        filter.insert("t", made);
    }
    if let Some(text) = &query.search {
        let fields =
            ["d", "v.connector", "v.connector_name", "v.component", "v.resource", "v.output", "v.display_name"];
        filter.insert("$and", vec![doc! { "$or": contains(&fields, text) }]);
    }
    filter
}

const fn key(sort: AlarmSort) -> &'static str {
    match sort {
        AlarmSort::T => "t",
        AlarmSort::State => "v.state.val",
        AlarmSort::Status => "v.status.val",
        AlarmSort::LastUpdate => "v.last_update_date",
        AlarmSort::LastEvent => "v.last_event_date",
        AlarmSort::Component => "v.component",
        AlarmSort::Resource => "v.resource",
        AlarmSort::Connector => "v.connector",
        AlarmSort::Output => "v.output",
    }
}

//! Reading alarms.

use async_trait::async_trait;
use overstory_model::{Alarm, AlarmId, EntityId, Step, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::EnginesDb;
use super::failure::damaged;
use super::sql::{Conditions, collect, select_page};
use crate::alarms::{AlarmQuery, AlarmSort, Alarms, Openness};
use crate::error::StoreError;
use crate::page::{Page, PageRequest};

#[async_trait]
impl Alarms for EnginesDb {
    async fn open_of(&self, entities: &[EntityId]) -> Result<Vec<Alarm>, StoreError> {
        if entities.is_empty() {
            return Ok(Vec::new());
        }
        let entities = entities.to_vec();
        self.read(move |connection| {
            let sql = "SELECT doc FROM alarms WHERE entity = ? AND resolved IS NULL";
            let mut find = connection.prepare_cached(sql)?;
            let mut alarms = Vec::new();
            for entity in &entities {
                let mut rows = find.query([entity.as_str()])?;
                if let Some(row) = rows.next()? {
                    alarms.push(alarm(row)?);
                }
            }
            Ok(alarms)
        })
        .await
    }

    async fn settled(&self, before: Timestamp, limit: u32) -> Result<Vec<Alarm>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT doc FROM alarms WHERE resolved IS NULL AND state = 0 AND last_step <= ? \
                       ORDER BY last_step, id LIMIT ?";
            collect(connection.prepare_cached(sql)?.query(params![before.0, limit])?, alarm)
        })
        .await
    }

    async fn get(&self, id: &AlarmId) -> Result<Option<Alarm>, StoreError> {
        let id = id.clone();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached("SELECT doc FROM alarms WHERE id = ?")?;
            let mut rows = statement.query([&id.0])?;
            rows.next()?.map(alarm).transpose()
        })
        .await
    }

    async fn steps(&self, id: &AlarmId, page: PageRequest) -> Result<Page<Step>, StoreError> {
        let id = id.clone();
        self.read(move |connection| {
            let number: Option<i64> = connection
                .prepare_cached("SELECT n FROM alarms WHERE id = ?")?
                .query_row([&id.0], |row| row.get(0))
                .optional()?;
            let Some(number) = number else {
                return Ok(Page { items: Vec::new(), total: 0 });
            };
            let mut conditions = Conditions::default();
            conditions.and("alarm = ?", [Value::Integer(number)]);
            select_page(connection, "doc", "steps", &conditions, "n", page, |row| {
                let doc = row.get_ref(0)?.as_str().unwrap_or_default();
                serde_json::from_str(doc).map_err(|error| damaged("steps", &id.0, &error))
            })
        })
        .await
    }

    async fn list(&self, query: &AlarmQuery) -> Result<Page<Alarm>, StoreError> {
        let query = query.clone();
        self.read(move |connection| list(connection, &query)).await
    }
}

fn list(connection: &Connection, query: &AlarmQuery) -> Result<Page<Alarm>, StoreError> {
    let mut conditions = Conditions::default();
    match query.openness {
        Openness::OpenAndRecent => {
            conditions.and("(resolved IS NULL OR resolved >= ?)", [Value::Integer(query.recent_since.0)]);
        }
        Openness::Open => conditions.and("resolved IS NULL", []),
        Openness::Resolved => conditions.and("resolved IS NOT NULL", []),
    }
    if let Some(entity) = &query.entity {
        conditions.and("entity = ?", [Value::Text(entity.0.clone())]);
    }
    conditions.and_any_of("state", query.states.iter().map(|state| Value::Integer((*state).into())));
    if let Some(from) = query.from {
        conditions.and("t >= ?", [Value::Integer(from.0)]);
    }
    if let Some(to) = query.to {
        conditions.and("t <= ?", [Value::Integer(to.0)]);
    }
    if let Some(text) = &query.search {
        let columns = ["entity", "connector", "connector_name", "component", "resource", "output", "display_name"];
        conditions.and_contains(&columns, text);
    }
    let direction = if query.descending { "DESC" } else { "ASC" };
    let order = format!("{} {direction}, id", column(query.sort_by));
    select_page(connection, "doc", "alarms", &conditions, &order, query.page, alarm)
}

const fn column(sort: AlarmSort) -> &'static str {
    match sort {
        AlarmSort::T => "t",
        AlarmSort::State => "state",
        AlarmSort::Status => "status",
        AlarmSort::LastUpdate => "last_update",
        AlarmSort::LastEvent => "last_event",
        AlarmSort::Component => "component",
        AlarmSort::Resource => "resource",
        AlarmSort::Connector => "connector",
        AlarmSort::Output => "output",
    }
}

/// The alarm of a row whose first column is the document.
fn alarm(row: &Row<'_>) -> Result<Alarm, StoreError> {
    let doc = row.get_ref(0)?.as_str().unwrap_or_default();
    serde_json::from_str(doc).map_err(|error| {
        let start: String = doc.chars().take(60).collect();
        damaged("alarms", start, &error)
    })
}

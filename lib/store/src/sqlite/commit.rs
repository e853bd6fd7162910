//! One durable commit per batch of events.

use std::collections::HashMap;

use async_trait::async_trait;
use overstory_model::ids::MessageId;
use overstory_model::{Entity, EntityId, SeriesKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::EnginesDb;
use super::failure::damaged;
use super::writer::transact;
use crate::commit::{AlarmWrite, Commit, DEDUP_LIMIT, DEDUP_SECONDS, DEDUP_WINDOW, Engines, Epoch, Outgoing, Point};
use crate::dedup::{self, SeenIndex, WindowEnd};
use crate::error::StoreError;
use crate::metrics::codec;
use crate::metrics::described::{Described, kind_number};

/// Beyond this many entries a cache starts anew.
const CACHE_LIMIT: usize = 200_000;

/// What the writing thread remembers of the file. Numbers are never given away again, so they stay right whatever other
/// processes do; the description of a series may be stale until the next takeover, and is then only written once more.
#[derive(Debug, Default)]
pub(super) struct EngineCaches {
    seen: SeenIndex,
    entities: HashMap<EntityId, i64>,
    series: HashMap<SeriesKey, Described>,
}

#[async_trait]
impl Engines for EnginesDb {
    async fn take_epoch(&self, unit: &str, holder: &str) -> Result<Epoch, StoreError> {
        let (unit, holder) = (unit.to_owned(), holder.to_owned());
        self.writer()?
            .call(move |connection, caches| {
                caches.entities.clear();
                caches.series.clear();
                let sql = "INSERT INTO epochs VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET epoch = epoch + 1, \
                           holder = excluded.holder RETURNING epoch";
                let take = |t: &Transaction<'_>| Ok(t.query_row(sql, [unit, holder], |row| row.get(0))?);
                transact(connection, take).map(Epoch)
            })
            .await
    }

    async fn commit(&self, unit: &str, epoch: Epoch, commit: Commit) -> Result<Vec<u64>, StoreError> {
        let unit = unit.to_owned();
        self.writer()?
            .call(move |connection, caches| {
                let mut learned = Learned::default();
                let (number, outbox) = transact(connection, |transaction| {
                    check_epoch(transaction, &unit, epoch)?;
                    write(transaction, caches, &mut learned, &commit)
                })?;
                learned.keep(caches);
                caches.seen.add_next(number, commit.seen);
                Ok(outbox)
            })
            .await
    }

    async fn seen(&self, ids: &[MessageId]) -> Result<Vec<bool>, StoreError> {
        let ids = ids.to_vec();
        self.writer()?
            .call(move |connection, caches| {
                catch_up(connection, &mut caches.seen)?;
                Ok(ids.iter().map(|id| caches.seen.contains(id)).collect())
            })
            .await
    }

    async fn forget_seen(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.writer()?.call(move |connection, caches| forget(connection, &mut caches.seen, now)).await
    }
}

fn check_epoch(transaction: &Transaction<'_>, unit: &str, held: Epoch) -> Result<(), StoreError> {
    let current: Option<u64> = transaction
        .prepare_cached("SELECT epoch FROM epochs WHERE unit = ?")?
        .query_row([unit], |row| row.get(0))
        .optional()?;
    if current == Some(held.0) {
        return Ok(());
    }
    Err(StoreError::Fenced { unit: unit.to_owned(), held: held.0, current: current.unwrap_or(0) })
}

/// Returns the commit's number and the numbers of the outbox entries.
fn write(
    transaction: &Transaction<'_>,
    caches: &EngineCaches,
    learned: &mut Learned,
    commit: &Commit,
) -> Result<(u64, Vec<u64>), StoreError> {
    let number =
        transaction.prepare_cached("UPDATE counter SET n = n + 1 RETURNING n")?.query_row([], |row| row.get(0))?;
    if !commit.seen.is_empty() {
        transaction.prepare_cached("INSERT INTO seen VALUES (?, ?, ?)")?.execute(params![
            number,
            commit.at.0,
            dedup::encode(&commit.seen)
        ])?;
    }
    let numbers = write_entities(transaction, &commit.entities)?;
    learned.entities.extend(commit.entities.iter().map(|entity| entity.id.clone()).zip(numbers));
    write_heard_of(transaction, caches, learned, &commit.heard_of)?;
    // An alarm that ends makes room for the next one of its entity, in whatever order they are listed.
    let (new, changed): (Vec<_>, Vec<_>) = commit.alarms.iter().partition(|alarm| alarm.is_new);
    for alarm in changed.into_iter().chain(new) {
        write_alarm(transaction, alarm)?;
    }
    write_points(transaction, caches, learned, number, &commit.points)?;
    Ok((number, write_outbox(transaction, &commit.outbox)?))
}

/// What a transaction found out; it counts once the transaction is durable.
#[derive(Debug, Default)]
struct Learned {
    entities: Vec<(EntityId, i64)>,
    series: HashMap<SeriesKey, Described>,
}

impl Learned {
    fn keep(self, caches: &mut EngineCaches) {
        if caches.entities.len() + self.entities.len() > CACHE_LIMIT {
            caches.entities = HashMap::new();
        }
        caches.entities.extend(self.entities);
        if caches.series.len() + self.series.len() > CACHE_LIMIT {
            caches.series = HashMap::new();
        }
        caches.series.extend(self.series);
    }
}

/// Returns the numbers of the entities.
pub(super) fn write_entities(transaction: &Transaction<'_>, entities: &[Entity]) -> Result<Vec<i64>, StoreError> {
    let mut numbers = Vec::with_capacity(entities.len());
    let mut put = transaction.prepare_cached(
        "INSERT INTO entities (id, name, kind, component, doc) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
         name = excluded.name, kind = excluded.kind, component = excluded.component, doc = excluded.doc RETURNING n",
    )?;
    let mut hear =
        transaction.prepare_cached("INSERT INTO heard VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at")?;
    for entity in entities {
        let doc = serde_json::to_string(entity).map_err(|error| damaged("entities", &entity.id, &error))?;
        let values = params![entity.id.as_str(), entity.name, entity.kind.name(), entity.component, doc];
        let number: i64 = put.query_row(values, |row| row.get(0))?;
        hear.execute([number, entity.last_event_date.0])?;
        numbers.push(number);
    }
    Ok(numbers)
}

fn write_heard_of(
    transaction: &Transaction<'_>,
    caches: &EngineCaches,
    learned: &mut Learned,
    heard_of: &[(EntityId, Timestamp)],
) -> Result<(), StoreError> {
    let mut find = transaction.prepare_cached("SELECT n FROM entities WHERE id = ?")?;
    let mut numbers = Vec::with_capacity(heard_of.len());
    for (id, at) in heard_of {
        if let Some(number) = caches.entities.get(id) {
            numbers.push((*number, at.0));
        } else if let Some(number) = find.query_row([id.as_str()], |row| row.get(0)).optional()? {
            learned.entities.push((id.clone(), number));
            numbers.push((number, at.0));
        }
    }
    // Neighbours lie on the same page.
    numbers.sort_unstable();
    let mut hear = transaction.prepare_cached("UPDATE heard SET at = ?2 WHERE entity = ?1 AND at < ?2")?;
    for (number, at) in numbers {
        hear.execute([number, at])?;
    }
    Ok(())
}

pub(super) fn write_alarm(transaction: &Transaction<'_>, write: &AlarmWrite) -> Result<(), StoreError> {
    let alarm = &write.alarm;
    let v = &alarm.v;
    let doc = serde_json::to_string(alarm).map_err(|error| damaged("alarms", &alarm.id.0, &error))?;
    let sql = if write.is_new {
        "INSERT INTO alarms (id, entity, t, state, status, resolved, last_step, last_update, last_event, component, \
         resource, connector, connector_name, display_name, output, doc) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) RETURNING n"
    } else {
        "UPDATE alarms SET entity = ?2, t = ?3, state = ?4, status = ?5, resolved = ?6, last_step = ?7, \
         last_update = ?8, last_event = ?9, component = ?10, resource = ?11, connector = ?12, connector_name = ?13, \
         display_name = ?14, output = ?15, doc = ?16 WHERE id = ?1 RETURNING n"
    };
    let values = params![
        alarm.id.0,
        alarm.entity.as_str(),
        alarm.t.0,
        v.state.val,
        v.status.val,
        v.resolved.map(|at| at.0),
        alarm.last_step_at().0,
        v.last_update_date.0,
        v.last_event_date.0,
        v.component,
        v.resource,
        v.connector,
        v.connector_name,
        v.display_name,
        v.output,
        doc,
    ];
    let number: Option<i64> = transaction.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
    let Some(number) = number else {
        return Err(StoreError::Conflict(format!("there is no alarm {}", alarm.id.0)));
    };
    append_steps(transaction, number, write)
}

fn append_steps(transaction: &Transaction<'_>, alarm: i64, write: &AlarmWrite) -> Result<(), StoreError> {
    if write.new_steps.is_empty() {
        return Ok(());
    }
    let stored: u32 = transaction
        .prepare_cached("SELECT ifnull(max(n), 0) FROM steps WHERE alarm = ?")?
        .query_row([alarm], |row| row.get(0))?;
    let mut put = transaction.prepare_cached("INSERT INTO steps VALUES (?, ?, ?)")?;
    for (number, step) in write.numbered_steps(stored) {
        let doc = serde_json::to_string(step).map_err(|error| damaged("steps", alarm, &error))?;
        put.execute(params![alarm, number, doc])?;
    }
    Ok(())
}

fn write_points(
    transaction: &Transaction<'_>,
    caches: &EngineCaches,
    learned: &mut Learned,
    number: u64,
    points: &[Point],
) -> Result<(), StoreError> {
    let mut placed = Vec::with_capacity(points.len());
    for point in points {
        placed.push((series_number(transaction, caches, learned, point)?, point.at.0, point.value));
    }
    let mut put = transaction.prepare_cached("INSERT INTO blocks VALUES (?, ?, ?, ?)")?;
    for (bucket, shard, block) in codec::blocks(placed.into_iter()) {
        put.execute(params![bucket, shard, number, block])?;
    }
    Ok(())
}

fn series_number(
    transaction: &Transaction<'_>,
    caches: &EngineCaches,
    learned: &mut Learned,
    point: &Point,
) -> Result<i64, StoreError> {
    let known = learned.series.get(&point.series).or_else(|| caches.series.get(&point.series));
    if let Some(known) = known
        && !known.is_news(point)
    {
        return Ok(known.number);
    }
    let described = describe(transaction, point)?;
    let number = described.number;
    learned.series.insert(point.series.clone(), described);
    Ok(number)
}

fn describe(transaction: &Transaction<'_>, point: &Point) -> Result<Described, StoreError> {
    let [min, max, warn, crit] = point.limits;
    let sql = "INSERT INTO series (entity, metric, kind, unit, min, max, warn, crit) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (entity, metric) DO UPDATE SET kind = excluded.kind, unit = ifnull(excluded.unit, unit), \
               min = ifnull(excluded.min, min), max = ifnull(excluded.max, max), warn = ifnull(excluded.warn, warn), \
               crit = ifnull(excluded.crit, crit) RETURNING n, unit, min, max, warn, crit";
    let SeriesKey { entity, metric } = &point.series;
    let kind = kind_number(point.kind);
    let values = params![entity.as_str(), metric, kind, point.unit, min, max, warn, crit];
    Ok(transaction.prepare_cached(sql)?.query_row(values, |row| {
        Ok(Described {
            number: row.get(0)?,
            kind: point.kind,
            unit: row.get(1)?,
            limits: [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?],
        })
    })?)
}

fn write_outbox(transaction: &Transaction<'_>, messages: &[Outgoing]) -> Result<Vec<u64>, StoreError> {
    let sql = "INSERT INTO outbox (exchange, routing_key, message_id, content_type, headers, body) \
               VALUES (?, ?, ?, ?, ?, ?) RETURNING n";
    let mut put = transaction.prepare_cached(sql)?;
    messages
        .iter()
        .map(|message| {
            let Outgoing { exchange, routing_key, message_id, content_type, headers, body } = message;
            let headers = serde_json::to_string(headers).map_err(|error| damaged("outbox", message_id, &error))?;
            let values = params![exchange, routing_key, message_id, content_type, headers, body];
            Ok(put.query_row(values, |row| row.get(0))?)
        })
        .collect()
}

fn catch_up(connection: &Connection, seen: &mut SeenIndex) -> Result<(), StoreError> {
    if seen.is_bloated() {
        *seen = SeenIndex::default();
    }
    let mut statement = connection.prepare_cached("SELECT n, ids FROM seen WHERE n > ? ORDER BY n")?;
    let mut rows = statement.query([seen.last()])?;
    while let Some(row) = rows.next()? {
        seen.add(row.get(0)?, dedup::decode(row.get_ref(1)?.as_blob().unwrap_or_default()));
    }
    Ok(())
}

fn forget(connection: &mut Connection, seen: &mut SeenIndex, now: Timestamp) -> Result<u64, StoreError> {
    let mut end = WindowEnd::new(DEDUP_WINDOW, DEDUP_LIMIT, now.plus(-DEDUP_SECONDS).0);
    let forgotten = transact(connection, |transaction| {
        let mut statement = transaction.prepare_cached("SELECT n, at, length(ids) / 16 FROM seen ORDER BY n DESC")?;
        let mut rows = statement.query([])?;
        let mut through = None;
        while let Some(row) = rows.next()? {
            if end.is_beyond(row.get(2)?, row.get(1)?) {
                through = Some(row.get::<_, u64>(0)?);
                break;
            }
        }
        drop(rows);
        let Some(through) = through else { return Ok(None) };
        let count: u64 = transaction.query_row(
            "SELECT ifnull(sum(length(ids) / 16), 0) FROM seen WHERE n <= ?",
            [through],
            |row| row.get(0),
        )?;
        transaction.execute("DELETE FROM seen WHERE n <= ?", [through])?;
        Ok(Some((through, count)))
    })?;
    Ok(forgotten.map_or(0, |(through, count)| {
        seen.forget_through(through);
        count
    }))
}

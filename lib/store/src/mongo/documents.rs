//! The documents that are not those of `lib/model` as they are.

use mongodb::bson::raw::cstr;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, RawDocumentBuf, doc};
use overstory_model::{EntityId, SeriesKey};

use super::bulk::raw;
use crate::commit::{AlarmWrite, Outgoing};
use crate::error::StoreError;
use crate::metrics::described::{Described, kind_number, kind_of};

/// The published document and what the index of settled alarms needs.
pub(super) fn alarm_document(write: &AlarmWrite) -> Result<RawDocumentBuf, StoreError> {
    let mut document = raw(&write.alarm)?;
    document.append(cstr!("last_step"), write.alarm.last_step_at().0);
    Ok(document)
}

pub(super) fn outbox_document(number: u64, message: &Outgoing) -> Document {
    let Outgoing { exchange, routing_key, message_id, content_type, headers, body } = message;
    let headers: Vec<Bson> = headers.iter().map(|(key, value)| Bson::from(vec![key, value])).collect();
    doc! {
        "_id": int(number),
        "exchange": exchange,
        "routing_key": routing_key,
        "message_id": message_id,
        "content_type": content_type,
        "headers": headers,
        "body": binary(body.clone()),
    }
}

pub(super) fn series_document(key: &SeriesKey, described: &Described) -> Document {
    let mut document = doc! { "_id": described.number, "entity": key.entity.as_str(), "metric": &key.metric };
    document.extend(description(described));
    document
}

pub(super) fn seen_document(number: u64, at: i64, ids: Vec<u8>) -> Document {
    doc! { "_id": int(number), "at": at, "count": int(ids.len() as u64 / 16), "ids": binary(ids) }
}

pub(super) fn description(described: &Described) -> Document {
    let limits: Vec<Bson> = described.limits.iter().map(|limit| Bson::from(*limit)).collect();
    doc! { "kind": kind_number(described.kind), "unit": described.unit.clone(), "limits": limits }
}

/// A series' key and description.
pub(super) fn series_of(series: &Document) -> (SeriesKey, Described) {
    let text = |key: &str| series.get_str(key).unwrap_or_default().to_owned();
    let mut limits = [None; 4];
    if let Ok(stored) = series.get_array("limits") {
        for (limit, stored) in limits.iter_mut().zip(stored) {
            *limit = stored.as_f64();
        }
    }
    let described = Described {
        number: series.get_i64("_id").unwrap_or(0),
        kind: kind_of(series.get_i32("kind").unwrap_or(0)),
        unit: series.get_str("unit").ok().map(str::to_owned),
        limits,
    };
    (SeriesKey { entity: EntityId(text("entity")), metric: text("metric") }, described)
}

/// A count as the server stores it.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

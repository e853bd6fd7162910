//! The JSON format, the same as that of collectd's write_http plugin.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::naming::Identity;
use super::types_db::kind_of;
use super::{DataValue, DecodeError, Decoded, Format, MAX_VALUES, Message, Reading, SkipReason, TypesDb, ValueList};
use super::{interval_of, time_of};
use crate::metric::MetricKind;

#[derive(Deserialize)]
struct List {
    values: Vec<Value>,
    dstypes: Vec<String>,
    dsnames: Vec<String>,
    time: Option<f64>,
    interval: Option<f64>,
    host: String,
    plugin: String,
    #[serde(default)]
    plugin_instance: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    type_instance: String,
}

pub(super) fn read(text: &str, message: &Message<'_>, types: &TypesDb, out: &mut Decoded) -> Result<(), DecodeError> {
    // One broken list must not cost its neighbours, so each is read by itself.
    let lists: Vec<&RawValue> =
        if text.starts_with('{') { vec![serde_json::from_str(text)?] } else { serde_json::from_str(text)? };
    for raw in lists {
        let outcome = serde_json::from_str::<List>(raw.get())
            .map_err(|_| SkipReason::Malformed)
            .and_then(|list| value_list(&list, message, types));
        if !out.take(message.routing_key, outcome) {
            break;
        }
    }
    Ok(())
}

fn value_list(list: &List, message: &Message<'_>, types: &TypesDb) -> Result<ValueList, SkipReason> {
    let identity =
        Identity::new(&list.host, (&list.plugin, &list.plugin_instance), (&list.type_name, &list.type_instance))?;
    let count = list.values.len();
    if count == 0 || count > MAX_VALUES || list.dstypes.len() != count || list.dsnames.len() != count {
        return Err(SkipReason::WrongCount);
    }
    let known = types.get(&identity.type_name);
    let mut values = Vec::with_capacity(count);
    for ((value, kind), name) in list.values.iter().zip(&list.dstypes).zip(&list.dsnames) {
        let kind = kind_of(kind).ok_or(SkipReason::Malformed)?;
        if name.is_empty() || name.len() > crate::perf::MAX_NAME || name.chars().any(char::is_control) {
            return Err(SkipReason::BadName);
        }
        let source = known.and_then(|sources| sources.iter().find(|source| source.name == *name));
        // Of a type that no table knows, a count that shrinks is taken for a restart, by far the more frequent cause.
        let min = source.map_or(Some(0.0), |source| source.min);
        values.push(DataValue { source: name.clone(), kind, min, reading: reading(value, kind)? });
    }
    let at = match list.time {
        Some(seconds) => time_of(seconds, message.received).ok_or(SkipReason::BadValue)?,
        None => message.received,
    };
    Ok(ValueList { identity, at, interval: list.interval.and_then(interval_of), values, format: Format::Json })
}

fn reading(value: &Value, kind: MetricKind) -> Result<Reading, SkipReason> {
    let number = match value {
        Value::Null => return Ok(Reading::Unknown),
        Value::Number(number) => number,
        _ => return Err(SkipReason::BadValue),
    };
    let count = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (count, kind) {
        (Some(count), MetricKind::Counter | MetricKind::Derive | MetricKind::Absolute) => Ok(Reading::Count(count)),
        _ => {
            let value = number.as_f64().filter(|value| value.is_finite()).ok_or(SkipReason::BadValue)?;
            Ok(if kind == MetricKind::Gauge { Reading::Gauge(value) } else { Reading::Rate(value) })
        }
    }
}

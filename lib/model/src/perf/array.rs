//! The array form: `[{"metric": "load1", "value": 0.25, "unit": "", "min": 0, ...}]`.

use serde_json::{Map, Value};

use super::{MAX_SAMPLES, MAX_TEXT, MAX_UNIT, PerfData, SkipReason, is_name};
use crate::metric::{MetricKind, Sample};

/// Reads `perf_data_array`: an array of items, or (as some sources send it) a string that holds one as JSON.
///
/// Numbers may be given as strings. A key that is null counts as absent, as do limits that are not finite numbers; an
/// unknown `type` counts as `GAUGE`; other keys (`retention`, ...) are ignored.
#[must_use]
pub fn parse_array(array: &Value) -> PerfData {
    let mut out = PerfData::default();
    match array {
        Value::Null => {}
        Value::Array(items) => take_items(items, &mut out),
        Value::String(text) if text.trim().is_empty() => {}
        Value::String(text) if text.len() <= MAX_TEXT => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => take_items(&items, &mut out),
            _ => out.skip("", SkipReason::Malformed),
        },
        _ => out.skip("", SkipReason::Malformed),
    }
    out
}

fn take_items(items: &[Value], out: &mut PerfData) {
    for item in items {
        let Value::Object(item) = item else {
            out.skip("", SkipReason::Malformed);
            continue;
        };
        let name = match item.get("metric") {
            Some(Value::String(name)) if is_name(name) => name.as_str(),
            Some(Value::String(name)) => {
                out.skip(name, SkipReason::BadName);
                continue;
            }
            _ => {
                out.skip("", SkipReason::BadName);
                continue;
            }
        };
        match item_sample(name, item) {
            Err(reason) => out.skip(name, reason),
            Ok(sample) => {
                if !out.keep(sample) {
                    return;
                }
            }
        }
    }
    debug_assert!(out.samples.len() <= MAX_SAMPLES, "keep() holds the bound");
}

fn item_sample(name: &str, item: &Map<String, Value>) -> Result<Sample, SkipReason> {
    let value = match item.get("value") {
        None => return Err(SkipReason::NoValue),
        Some(value) if is_unknown(value) => return Err(SkipReason::Unknown),
        Some(value) => number_of(value).ok_or(SkipReason::BadValue)?,
    };
    let unit = match item.get("unit") {
        Some(Value::String(unit)) if unit.len() > MAX_UNIT || unit.chars().any(char::is_control) => {
            return Err(SkipReason::BadUnit);
        }
        Some(Value::String(unit)) if !unit.is_empty() => Some(unit.clone()),
        _ => None,
    };
    let limit = |key: &str| item.get(key).and_then(number_of);
    Ok(Sample {
        unit,
        min: limit("min"),
        max: limit("max"),
        warn: limit("warn"),
        crit: limit("crit"),
        kind: item.get("type").and_then(Value::as_str).map_or(MetricKind::Gauge, kind_of),
        ..Sample::gauge(name, value)
    })
}

fn is_unknown(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => {
            let text = text.trim();
            text == "U" || ["nan", "-nan", "+nan"].iter().any(|nan| text.eq_ignore_ascii_case(nan))
        }
        _ => false,
    }
}

fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) if text.len() <= 64 => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn kind_of(name: &str) -> MetricKind {
    match name {
        name if name.eq_ignore_ascii_case("COUNTER") => MetricKind::Counter,
        name if name.eq_ignore_ascii_case("DERIVE") => MetricKind::Derive,
        name if name.eq_ignore_ascii_case("ABSOLUTE") => MetricKind::Absolute,
        _ => MetricKind::Gauge,
    }
}

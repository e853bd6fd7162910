//! The string form, in its two dialects.

use super::{MAX_TEXT, MAX_UNIT, PerfData, SkipReason, is_name};
use crate::metric::{MetricKind, Sample};

/// The units that v4 knows.
const V4_UNITS: [&str; 10] = ["%", "°C", "s", "us", "ms", "B", "KB", "MB", "TB", "c"];

/// Reads a perf data string as the platform of 2015 did.
#[must_use]
pub fn parse_classic(text: &str) -> PerfData {
    let mut out = PerfData::default();
    let mut rest = text;
    if text.len() > MAX_TEXT {
        out.skip("", SkipReason::Malformed);
        rest = "";
    }
    loop {
        rest = rest.trim_start_matches(is_separator);
        if rest.is_empty() {
            return out;
        }
        let (item, after) = classic_item(rest);
        rest = after;
        let kept = match item {
            Ok(sample) => out.keep(sample),
            Err((name, reason)) => {
                out.skip(&name, reason);
                true
            }
        };
        if !kept {
            return out;
        }
    }
}

/// Reads a perf data string as the fourth version of the API does: one bad item and all of it is refused.
#[must_use]
pub fn parse_v4(text: &str) -> PerfData {
    let mut out = PerfData::default();
    if text.len() > MAX_TEXT {
        out.skip("", SkipReason::Malformed);
        return out;
    }
    let mut rest = text.trim_matches(' ');
    while !rest.is_empty() {
        match v4_item(rest) {
            Ok((item, after)) => {
                rest = after.trim_start_matches(' ');
                match item {
                    Item::Unknown(name) => out.skip(&name, SkipReason::Unknown),
                    Item::Sample(sample) => {
                        if !out.keep(sample) {
                            return out;
                        }
                    }
                }
            }
            Err((name, reason)) => {
                out = PerfData::default();
                out.skip(&name, reason);
                return out;
            }
        }
    }
    out
}

enum Item {
    Sample(Sample),
    Unknown(String),
}

type Refusal = (String, SkipReason);

fn is_separator(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

/// Reads one item and returns what follows it; always advances.
fn classic_item(text: &str) -> (Result<Sample, Refusal>, &str) {
    let Some((label, after)) = take_label(text) else {
        // Nothing that could be a label: the next blank is where a reader can start again.
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (bad, rest) = text.split_at(end);
        return (Err((bad.to_owned(), SkipReason::Malformed)), rest);
    };
    let (fields, rest) = take_fields(after);
    (classic_sample(label, fields), rest)
}

fn classic_sample(label: String, fields: [&str; 5]) -> Result<Sample, Refusal> {
    let [value, warn, crit, min, max] = fields;
    let (name, label_unit) = match label.strip_suffix(']').and_then(|head| head.rsplit_once('[')) {
        Some((name, unit)) if !name.is_empty() => (name.to_owned(), Some(unit.to_owned())),
        _ => (label, None),
    };
    if !is_name(&name) {
        return Err((name, SkipReason::BadName));
    }
    let (number, unit) = split_number(value);
    if number.is_empty() {
        let reason = match unit {
            "" => SkipReason::NoValue,
            "U" | "u" | "NaN" | "nan" | "-nan" => SkipReason::Unknown,
            _ => SkipReason::BadValue,
        };
        return Err((name, reason));
    }
    let Some(value) = number_of(number) else { return Err((name, SkipReason::BadValue)) };
    let unit = if unit.is_empty() { label_unit.as_deref().unwrap_or_default() } else { unit };
    if unit.len() > MAX_UNIT || unit.chars().any(char::is_control) {
        return Err((name, SkipReason::BadUnit));
    }
    Ok(sample(name, value, unit, [warn, crit, min, max].map(range_start)))
}

fn sample(metric: String, value: f64, unit: &str, [warn, crit, min, max]: [Option<f64>; 4]) -> Sample {
    Sample {
        unit: (!unit.is_empty()).then(|| unit.to_owned()),
        warn,
        crit,
        min,
        max,
        kind: if unit == "c" { MetricKind::Counter } else { MetricKind::Gauge },
        ..Sample::gauge(metric, value)
    }
}

/// Takes a label up to its `=`; quoted labels may hold anything, `''` stands for a quote.
fn take_label(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let mut label = String::new();
        let mut rest = quoted;
        loop {
            let (part, after) = rest.split_once('\'')?;
            label.push_str(part);
            match after.strip_prefix('\'') {
                Some(more) => {
                    label.push('\'');
                    rest = more;
                }
                None => return Some((label, after.strip_prefix('=')?)),
            }
        }
    }
    // Looks no further than the item's end, so that a long text without any `=` is read once.
    let end = text.find(|c: char| c == '=' || c == ';' || is_separator(c))?;
    let (label, rest) = text.split_at(end);
    rest.strip_prefix('=').map(|rest| (label.to_owned(), rest))
}

/// Takes `value;warn;crit;min;max` up to the separator that ends the item.
fn take_fields(text: &str) -> ([&str; 5], &str) {
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        if c.is_whitespace() || (c == ',' && !is_decimal_comma(&text[..at], &text[at + 1..])) {
            end = at;
            break;
        }
    }
    let (item, rest) = text.split_at(end);
    let mut fields = [""; 5];
    for (slot, field) in fields.iter_mut().zip(item.split(';')) {
        *slot = field;
    }
    (fields, rest)
}

/// Tells a decimal comma (`12,5%`) from one that separates two metrics (`5968,/boot=1`, `1,2nd=3`).
fn is_decimal_comma(before: &str, after: &str) -> bool {
    let field = before.rsplit([';', ':', '@']).next().unwrap_or_default();
    let after_digit = field.ends_with(|c: char| c.is_ascii_digit());
    let before_digit = after.starts_with(|c: char| c.is_ascii_digit());
    let one_comma = !field.contains([',', '.']);
    let next_label = after.find(|c: char| c == '=' || c == ';' || is_separator(c));
    let label_follows = next_label.is_some_and(|at| after[at..].starts_with('='));
    after_digit && before_digit && one_comma && !label_follows
}

/// Splits `12.5%` into the number and what follows it.
fn split_number(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let mut end = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let whole = digits(end);
    end += whole;
    let mut fraction = 0;
    if matches!(bytes.get(end), Some(b'.' | b',')) {
        fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return ("", text);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    text.split_at(end)
}

fn number_of(text: &str) -> Option<f64> {
    let value = if text.contains(',') { text.replace(',', ".").parse::<f64>() } else { text.parse::<f64>() };
    value.ok().filter(|value| value.is_finite())
}

/// The first number of a range (`10`, `@10:20`, `~:30`, `10:`), if there is one.
fn range_start(text: &str) -> Option<f64> {
    let range = text.strip_prefix('@').unwrap_or(text);
    range.split(':').find_map(|part| {
        let (number, _unit) = split_number(part);
        number_of(number)
    })
}

fn v4_item(text: &str) -> Result<(Item, &str), Refusal> {
    let Some((label, after)) = take_label(text) else {
        return Err((text.split(' ').next().unwrap_or_default().to_owned(), SkipReason::Malformed));
    };
    let end = after.find(' ').unwrap_or(after.len());
    let (item, rest) = after.split_at(end);
    let mut fields = item.split(';');
    let value = fields.next().unwrap_or_default();
    let mut limits = [None; 4];
    for slot in &mut limits {
        *slot = fields.next().and_then(range_start);
    }
    if fields.next().is_some() {
        return Err((label, SkipReason::Malformed));
    }
    if !is_name(&label) {
        return Err((label, SkipReason::BadName));
    }
    if value == "U" {
        return Ok((Item::Unknown(label), rest));
    }
    let unit_at = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(unit_at);
    let Some(number) = number_of(number) else {
        let reason = if value.is_empty() { SkipReason::NoValue } else { SkipReason::BadValue };
        return Err((label, reason));
    };
    if unit.is_empty() {
        return Ok((Item::Sample(sample(label, number, unit, limits)), rest));
    }
    if !V4_UNITS.contains(&unit) {
        return Err((label, SkipReason::BadUnit));
    }
    let name = format!("{label}_{unit}");
    if !is_name(&name) {
        return Err((name, SkipReason::BadName));
    }
    Ok((Item::Sample(sample(name, number, unit, limits)), rest))
}

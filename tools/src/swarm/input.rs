//! Keys and records as people and scripts write them.

use std::io::{self, BufRead, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use overstory_swarm::key::{Key, fnv1a};
use serde::Deserialize;

use super::Format;

/// Bytes of a line, and of a value from standard input, at most.
pub(super) const MAX_VALUE: u64 = 16 << 20;

/// Something that was given wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadInput {
    #[error("`{0}` is no key: decimal, or 0x and up to 16 hexadecimal digits (--hash takes any text)")]
    Key(String),
    #[error("a record is `key TAB value`")]
    NoTab,
    #[error("a record is `timestamp TAB value`")]
    NoTabAfterTime,
    #[error("`{0}` is no time: a number, 0x and hexadecimal digits, 2026-01-31T23:59:59Z, now, -90s, -5m, -1h or -7d")]
    Time(String),
    #[error("the time is too far from 1970 for a timestamp that counts {0}")]
    NoTimestamp(&'static str),
    #[error("`\\{0}` is no escape: \\t, \\n, \\r, \\\\ and \\xHH are")]
    Escape(String),
    #[error("no base64")]
    Base64,
    #[error("a record is a JSON object with `key` (in a dht), `timestamp` (in logfiles) and `value` or `base64`: {0}")]
    Json(String),
    #[error("more than {MAX_VALUE} bytes")]
    TooLong,
    #[error("a record cannot be empty")]
    Empty,
    #[error("the input ends within a record")]
    Cut,
}

/// Reads a key.
pub(super) fn key(text: &str, hash: bool) -> Result<Key, BadInput> {
    if hash {
        return Ok(Key(fnv1a(text.as_bytes())));
    }
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // The standard parser takes a sign too.
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        None if text.bytes().all(|digit| digit.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    number.map(Key).ok_or_else(|| BadInput::Key(text.chars().take(100).collect()))
}

/// Reads all of standard input.
pub(super) fn value() -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    io::stdin().lock().take(MAX_VALUE + 1).read_to_end(&mut value)?;
    if value.len() as u64 > MAX_VALUE {
        return Err(BadInput::TooLong.into());
    }
    Ok(value)
}

/// Reads the next line without its end; none at the end of the input.
pub(super) fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // Escaped, a byte takes four.
    let read = input.take(MAX_VALUE * 4).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read as u64 == MAX_VALUE * 4 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, BadInput::TooLong));
    }
    Ok((read > 0).then_some(line))
}

/// Reads the next record with its length in front, a little-endian u32; none at the end of the input.
pub(super) fn frame(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut length = Vec::new();
    input.by_ref().take(4).read_to_end(&mut length)?;
    let length = match <[u8; 4]>::try_from(length.as_slice()) {
        Ok(length) => u64::from(u32::from_le_bytes(length)),
        Err(_) if length.is_empty() => return Ok(None),
        Err(_) => return Err(wrong(BadInput::Cut)),
    };
    // What follows cannot be found any more.
    if length > MAX_VALUE {
        return Err(wrong(BadInput::TooLong));
    }
    let mut record = Vec::new();
    input.by_ref().take(length).read_to_end(&mut record)?;
    if (record.len() as u64) < length {
        return Err(wrong(BadInput::Cut));
    }
    Ok(Some(record))
}

/// Reads the next record with its timestamp, a little-endian i64, and its length in front; none at the end of the input.
/// The timestamp stays in front.
pub(super) fn stamped_frame(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut time = Vec::new();
    input.by_ref().take(8).read_to_end(&mut time)?;
    if time.is_empty() {
        return Ok(None);
    }
    match frame(input)? {
        Some(value) if time.len() == 8 => {
            time.extend_from_slice(&value);
            Ok(Some(time))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, BadInput::Cut)),
    }
}

/// Reads a value without a key from a line.
pub(super) fn value_of(line: Vec<u8>, format: Format) -> Result<Vec<u8>, BadInput> {
    if format.json {
        let record: JsonValue = serde_json::from_slice(&line).map_err(|error| BadInput::Json(error.to_string()))?;
        return one_value(record.value, record.base64);
    }
    match (format.base64, format.raw) {
        (true, _) => BASE64.decode(line).map_err(|_| BadInput::Base64),
        (_, true) => Ok(line),
        _ if line.contains(&b'\\') => unescape(&line),
        _ => Ok(line),
    }
}

/// Splits a record of logfiles, `timestamp TAB value`, into its timestamp and its value.
pub(super) fn stamped(line: &[u8], format: Format) -> Result<(String, Vec<u8>), BadInput> {
    if format.json {
        let record: JsonStamped = serde_json::from_slice(line).map_err(|error| BadInput::Json(error.to_string()))?;
        let time = match record.timestamp {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        return Ok((time, one_value(record.value, record.base64)?));
    }
    let tab = line.iter().position(|&byte| byte == b'\t').ok_or(BadInput::NoTabAfterTime)?;
    let (time, rest) = line.split_at(tab);
    let value = value_of(rest.get(1..).unwrap_or_default().to_vec(), format)?;
    Ok((String::from_utf8_lossy(time).into_owned(), value))
}

/// Reads a record from a line.
pub(super) fn record(line: &[u8], format: Format, hash: bool) -> Result<(Key, Vec<u8>), BadInput> {
    if format.json {
        return json(line, hash);
    }
    let tab = line.iter().position(|&byte| byte == b'\t').ok_or(BadInput::NoTab)?;
    let (name, rest) = line.split_at(tab);
    let rest = rest.get(1..).unwrap_or_default();
    let key = match (hash, std::str::from_utf8(name)) {
        (true, _) => Key(fnv1a(name)),
        (false, Ok(text)) => key(text, false)?,
        (false, Err(_)) => return Err(BadInput::Key(String::from_utf8_lossy(name).into_owned())),
    };
    let value = match (format.base64, format.raw) {
        (true, _) => BASE64.decode(rest).map_err(|_| BadInput::Base64)?,
        (_, true) => rest.to_vec(),
        _ => unescape(rest)?,
    };
    Ok((key, value))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord {
    key: serde_json::Value,
    value: Option<String>,
    base64: Option<String>,
}

fn json(line: &[u8], hash: bool) -> Result<(Key, Vec<u8>), BadInput> {
    let record: JsonRecord = serde_json::from_slice(line).map_err(|error| BadInput::Json(error.to_string()))?;
    let text = match record.key {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let value = one_value(record.value, record.base64)?;
    Ok((key(&text, hash)?, value))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonStamped {
    timestamp: serde_json::Value,
    value: Option<String>,
    base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonValue {
    value: Option<String>,
    base64: Option<String>,
}

fn one_value(value: Option<String>, base64: Option<String>) -> Result<Vec<u8>, BadInput> {
    match (value, base64) {
        (Some(value), None) => Ok(value.into_bytes()),
        (None, Some(text)) => BASE64.decode(text).map_err(|_| BadInput::Base64),
        _ => Err(BadInput::Json("one of `value` and `base64` is needed".to_owned())),
    }
}

/// Undoes [`super::output::escape`].
fn unescape(text: &[u8]) -> Result<Vec<u8>, BadInput> {
    let bad = |escape: &[u8]| BadInput::Escape(String::from_utf8_lossy(escape).into_owned());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (byte, length) = match escape.get(1) {
            Some(b't') => (b'\t', 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => {
                let digits = escape.get(2..4).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or_else(|| bad(escape.get(1..4).unwrap_or(b"x")))?, 4)
            }
            other => return Err(bad(other.map_or(&[][..], std::slice::from_ref))),
        };
        out.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Ok(out)
}

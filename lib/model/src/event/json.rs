//! From bytes to a JSON object, with the repairs that real sources need.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::outcome::{Note, Reason, Reject};

/// Reads an object.
///
/// What is not JSON is tried again with `NaN` and `Infinity` outside strings as null and raw control characters inside
/// strings escaped; then, as in 2015, with backslashes doubled: all of them, or all that do not escape a quote.
pub(super) fn read_object(body: &[u8], notes: &mut Vec<Note>) -> Result<Map<String, Value>, Reject> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            notes.push(Note::InvalidUtf8);
            String::from_utf8_lossy(body)
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => read_repaired(text, notes).ok_or_else(|| Reject::new(Reason::BadJson, error.to_string()))?,
    };
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Reject::new(Reason::NotAnObject, format!("the body is {}", type_name(&other)))),
    }
}

/// Names a JSON type for messages.
pub(super) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Keep,
    Double,
    DoubleUnlessQuote,
}

fn read_repaired(text: &str, notes: &mut Vec<Note>) -> Option<Value> {
    for backslash in [Backslash::Keep, Backslash::Double, Backslash::DoubleUnlessQuote] {
        let repaired = repair(text, backslash);
        if let Ok(value) = serde_json::from_str(&repaired.text) {
            if repaired.non_finite {
                notes.push(Note::NonFiniteNumber);
            }
            if repaired.escaped || backslash != Backslash::Keep {
                notes.push(Note::RepairedJson);
            }
            return Some(value);
        }
    }
    None
}

struct Repaired {
    text: String,
    non_finite: bool,
    escaped: bool,
}

fn repair(text: &str, backslash: Backslash) -> Repaired {
    let mut out = Repaired { text: String::with_capacity(text.len() + 16), non_finite: false, escaped: false };
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        if in_string {
            rest = repair_in_string(c, after, backslash, &mut out);
            in_string = c != '"';
        } else if let Some(length) = non_finite_token(rest) {
            out.text.push_str("null");
            out.non_finite = true;
            rest = rest.get(length..).unwrap_or_default();
        } else {
            out.text.push(c);
            in_string = c == '"';
            rest = after;
        }
    }
    out
}

/// Copies one character of a string, or one escape; returns what follows.
fn repair_in_string<'a>(c: char, after: &'a str, backslash: Backslash, out: &mut Repaired) -> &'a str {
    if c == '\\' {
        let next = after.chars().next();
        let keep = match backslash {
            Backslash::Keep => true,
            Backslash::Double => false,
            Backslash::DoubleUnlessQuote => next == Some('"'),
        };
        out.text.push_str(if keep { "\\" } else { "\\\\" });
        if keep && let Some(next) = next {
            out.text.push(next);
            return after.get(next.len_utf8()..).unwrap_or_default();
        }
    } else if u32::from(c) < 0x20 {
        out.text.push_str(&format!("\\u{:04x}", u32::from(c)));
        out.escaped = true;
    } else {
        out.text.push(c);
    }
    after
}

/// The length of a token at the start of `text` that Python and JavaScript write for a number that is not finite.
fn non_finite_token(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let sign = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let word = bytes.get(sign..)?;
    let token = [&b"infinity"[..], b"inf", b"nan"].into_iter().find(|token| {
        let head = word.get(..token.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(token))
            && !word.get(token.len()).is_some_and(u8::is_ascii_alphanumeric)
    })?;
    Some(sign + token.len())
}

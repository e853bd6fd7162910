//! From text to requests: one event, an array, or one event per line, in batches that the server takes.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// Events per request; the server takes a thousand.
const BATCH_EVENTS: usize = 500;
/// Bytes per request, about; the server takes five times as many.
const BATCH_BYTES: usize = 1 << 20;

/// What events get that neither they nor the flags name.
const DEFAULTS: [(&str, &str); 3] = [("connector", "Cli"), ("connector_name", "Send_event"), ("event_type", "check")];

/// Makes arrays of events out of `text`; `said` fills in what they leave out.
pub(super) fn batches(text: &str, said: &Map<String, Value>) -> anyhow::Result<Vec<Value>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for event in parse(text)? {
        let Value::Object(mut event) = event else { bail!("an event is a JSON object, and {event} is not") };
        fill(&mut event, said);
        let size = Value::Object(event.clone()).to_string().len();
        if !batch.is_empty() && (batch.len() >= BATCH_EVENTS || bytes + size > BATCH_BYTES) {
            batches.push(Value::Array(std::mem::take(&mut batch)));
            bytes = 0;
        }
        batch.push(Value::Object(event));
        bytes += size;
    }
    if !batch.is_empty() {
        batches.push(Value::Array(batch));
    }
    if batches.is_empty() {
        bail!("there is no event");
    }
    Ok(batches)
}

/// Adds what is missing; numbers stay numbers.
fn fill(event: &mut Map<String, Value>, said: &Map<String, Value>) {
    for (name, value) in said {
        event.entry(name).or_insert_with(|| value.clone());
    }
    for (name, value) in DEFAULTS {
        event.entry(name).or_insert_with(|| value.into());
    }
}

fn parse(text: &str) -> anyhow::Result<Vec<Value>> {
    let text = text.trim_start_matches('\u{feff}').trim();
    match serde_json::from_str(text) {
        Ok(Value::Array(events)) => return Ok(events),
        Ok(event) => return Ok(vec![event]),
        // More than one line may be one event each.
        Err(error) if !text.contains('\n') => return Err(error).context("this is not JSON"),
        Err(_) => {}
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line)| serde_json::from_str(line).with_context(|| format!("line {} is not JSON", number + 1));
    lines.map(parse).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;

    fn filled(event: Value) -> Value {
        let mut event = event.as_object().unwrap().clone();
        fill(&mut event, &Map::new());
        Value::Object(event)
    }

    #[test]
    fn one_several_and_lines_are_the_same() {
        let (a, b) = (filled(json!({"component": "a"})), filled(json!({"component": "b"})));
        let none = Map::new();
        assert_eq!(batches("{\"component\":\"a\"}", &none).unwrap(), [json!([a])]);
        assert_eq!(
            batches("\u{feff}[{\"component\":\"a\"},\n{\"component\":\"b\"}]\n", &none).unwrap(),
            [json!([a, b])]
        );
        assert_eq!(batches("{\"component\":\"a\"}\n\n{\"component\":\"b\"}\n", &none).unwrap(), [json!([a, b])]);
        assert_eq!(batches("{\n\"component\": \"a\"\n}", &none).unwrap(), [json!([a])]);
    }

    #[test]
    fn an_event_says_more_than_a_flag_and_numbers_stay_numbers() {
        let said = json!({"connector": "flag", "component": "flag", "state": 1}).as_object().unwrap().clone();
        let batches = batches("{\"component\":\"own\",\"timestamp\":1700000000,\"state\":3}", &said).unwrap();
        let expected = json!([{"component": "own", "timestamp": 1_700_000_000, "state": 3, "connector": "flag",
            "connector_name": "Send_event", "event_type": "check"}]);
        assert_eq!(batches, [expected]);
    }

    #[test]
    fn many_events_go_in_several_requests() {
        let lines = "{}\n".repeat(1201);
        let sizes: Vec<_> =
            batches(&lines, &Map::new()).unwrap().iter().map(|batch| batch.as_array().unwrap().len()).collect();
        assert_eq!(sizes, [500, 500, 201]);
        let large = format!("{{\"x\":\"{}\"}}\n", "y".repeat(600_000)).repeat(3);
        assert_eq!(batches(&large, &Map::new()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_event_is_named() {
        for (text, message) in [
            ("", "this is not JSON"),
            ("{", "this is not JSON"),
            ("7", "an event is a JSON object, and 7 is not"),
            ("[]", "there is no event"),
            ("{}\n{\n", "line 2 is not JSON"),
        ] {
            assert_eq!(batches(text, &Map::new()).unwrap_err().to_string(), message, "{text:?}");
        }
    }
}

//! The recordings in `tests/vectors`, for this crate's tests.

use std::path::Path;

/// One line of a recorded conversation.
pub(crate) struct Line {
    pub(crate) conn: u64,
    pub(crate) port: String,
    pub(crate) from: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) note: String,
}

/// Reads `tests/vectors/NAME.jsonl`.
pub(crate) fn conversation(name: &str) -> Vec<Line> {
    objects(name)
        .into_iter()
        .map(|line| Line {
            conn: line["conn"].as_u64().expect("a connection number"),
            port: text(&line["port"]),
            from: text(&line["from"]),
            bytes: unhex(line["hex"].as_str().expect("bytes")),
            note: text(&line["note"]),
        })
        .collect()
}

/// Reads the objects of `tests/vectors/NAME.jsonl`.
pub(crate) fn objects(name: &str) -> Vec<serde_json::Value> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(format!("{name}.jsonl"));
    let content = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    content.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an even number of digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits")).collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

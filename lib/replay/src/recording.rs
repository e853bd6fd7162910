//! Reads the recorded conversations, which lie in `tests/vectors` of the repository.

use std::path::{Path, PathBuf};

/// A record of a batch; the value is empty in a batch of keys.
pub type Record = (Vec<u8>, Vec<u8>);

/// A line of a recording.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its place in the file, from 1.
    pub number: usize,
    /// The connection, from 1.
    pub conn: u64,
    /// Whether it is a neo connection.
    pub neo: bool,
    /// Whether the client sent it.
    pub from_client: bool,
    /// What was sent; nothing for an event.
    pub bytes: Vec<u8>,
    /// What it means.
    pub note: String,
}

/// A recorded conversation.
pub struct Recording {
    /// The file's name without `.jsonl`.
    pub name: String,
    /// In the order of time.
    pub lines: Vec<Line>,
}

/// Where the recordings lie.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// A file that a published node wrote.
#[must_use]
pub fn written(name: &str) -> Vec<u8> {
    std::fs::read(directory().join("files").join(name)).unwrap()
}

impl Recording {
    /// The names of all recordings.
    #[must_use]
    pub fn names() -> Vec<String> {
        let entries = std::fs::read_dir(directory()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned)).collect()
    }

    /// Reads a recording.
    #[must_use]
    pub fn read(name: &str) -> Self {
        let content = std::fs::read_to_string(directory().join(format!("{name}.jsonl"))).unwrap();
        let line = |(index, text): (usize, &str)| {
            let line: serde_json::Value = serde_json::from_str(text).unwrap();
            Line {
                number: index + 1,
                conn: line["conn"].as_u64().unwrap(),
                neo: line["port"] == "neo",
                from_client: line["from"] == "client",
                bytes: unhex(line["hex"].as_str().unwrap()),
                note: line["note"].as_str().unwrap_or_default().to_owned(),
            }
        };
        Self { name: name.to_owned(), lines: content.lines().enumerate().map(line).collect() }
    }
}

/// The request id and payload of a neo message.
#[must_use]
pub fn neo_message(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let body = bytes.get(10..).filter(|body| bytes[0] == 1 && body.len() >= 8)?;
    Some((u64::from_le_bytes(body[..8].try_into().unwrap()), &body[8..]))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Bytes as the recordings have them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The recordings in `tests/vectors` of the repository; the format is in its `README.md`.

use std::path::PathBuf;

/// Which published node was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Dht,
    Dmq,
    Dls,
}

impl Node {
    /// Files without the name of a node show what all nodes do; a dht was recorded.
    pub(crate) fn of(file: &str) -> Self {
        match file.trim_start_matches("client-").get(..3) {
            Some("dmq") => Self::Dmq,
            Some("dls") => Self::Dls,
            _ => Self::Dht,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Legacy,
    Neo,
}

/// One line: what one side sent, or an event if there are no bytes.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) place: String,
    pub(crate) connection: u64,
    pub(crate) port: Port,
    pub(crate) from_client: bool,
    pub(crate) bytes: Vec<u8>,
    /// Empty in the recordings between two nodes.
    pub(crate) note: String,
}

impl Line {
    /// Whether the note, if there is one, has this word.
    pub(crate) fn says(&self, word: &str) -> bool {
        self.note.is_empty() || self.note.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word)
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// The names of all recorded conversations, without their ending.
pub(crate) fn files() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned))
        .filter(|name| name != "lzo-vectors")
        .collect();
    names.sort();
    names
}

pub(crate) fn lines(file: &str) -> Vec<Line> {
    let text = std::fs::read_to_string(directory().join(format!("{file}.jsonl"))).unwrap();
    let line = |(index, line): (usize, &str)| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let note = value["note"].as_str().unwrap_or_default().to_owned();
        Line {
            place: format!("{file}:{}: {note}", index + 1),
            connection: value["conn"].as_u64().unwrap(),
            port: if value["port"] == "neo" { Port::Neo } else { Port::Legacy },
            from_client: value["from"] == "client",
            bytes: unhex(value["hex"].as_str().unwrap()),
            note,
        }
    };
    text.lines().enumerate().map(line).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

//! The index, `ofchannels.csv` (protocol §3.2).

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use overstory_swarm::channel::MAX_CHANNEL_NAME;

use super::files::{self, DiskFile};
use super::header::{HEADER, START};

/// The file.
pub(super) const NAME: &str = "ofchannels.csv";
const NEW: &str = "ofchannels.csv.new";
/// A longer index is not read; 10,000 queues need less than 1 MiB.
const LONGEST: u64 = 256 * 1024 * 1024;

/// A queue in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// By which an index is known again: its length and checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) size: u64,
    pub(super) crc: u32,
}

impl Identity {
    pub(super) fn of(content: &[u8]) -> Self {
        Self { size: content.len() as u64, crc: crc32fast::hash(content) }
    }
}

/// Adds a line.
pub(super) fn write_line(line: &Line, out: &mut String) {
    let Line { name, records, bytes, first, last } = line;
    let _ = writeln!(out, "{name} {records} {bytes} {first} {last}");
}

/// Reads the index; a missing one is empty, like that of a published node that runs for the first time.
pub(super) fn read(dir: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    match fs::File::open(dir.join(NAME)) {
        Ok(file) => file.take(LONGEST).read_to_end(&mut content).map(|_| content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(content),
        Err(error) => Err(error),
    }
}

/// Reads the lines. The second part tells the numbers, from 1, of those that are none.
pub(super) fn parse(content: &[u8]) -> (Vec<Line>, Vec<usize>) {
    let (mut lines, mut bad, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, text) in content.split(|byte| *byte == b'\n').enumerate() {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match parse_line(text).filter(|line| names.insert(line.name.clone())) {
            Some(line) => lines.push(line),
            None => bad.push(index + 1),
        }
    }
    (lines, bad)
}

fn parse_line(text: &[u8]) -> Option<Line> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let name = words.next().filter(|name| is_name(name))?.to_owned();
    let mut number = || words.next()?.parse::<u64>().ok();
    let line = Line { name, records: number()?, bytes: number()?, first: number()?, last: number()? };
    let one = (line.first == line.last) == (line.records == 1);
    // Between the first and the last record lie at least the others.
    let room = (line.records.checked_sub(1)?).checked_mul(HEADER)? <= line.last.checked_sub(line.first)?;
    let sane = line.first >= START && line.last < 1 << 62 && line.bytes < 1 << 62 && one && room;
    (sane && words.next().is_none()).then_some(line)
}

/// Whether a queue can have this name: a channel, or a subscriber and a channel.
pub(super) fn is_name(name: &str) -> bool {
    let part = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let (subscriber, channel) = name.split_once('@').unwrap_or(("", name));
    part(subscriber) && part(channel) && !channel.is_empty() && name.len() <= 2 * MAX_CHANNEL_NAME + 1
}

/// Replaces the index.
pub(super) fn replace(dir: &Path, content: &[u8]) -> io::Result<()> {
    let new = dir.join(NEW);
    let file = DiskFile::open(&new)?;
    file.set_len(0)?;
    file.write_at(content, 0)?;
    file.sync_all()?;
    files::rename(&new, &dir.join(NAME))?;
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_nonsense_is_not() {
        let (lines, bad) = parse(b"small_r 3 114 292 432\n  a@b  1 0 8 8\n\n@topic 2 9 8 90\n");
        assert_eq!(bad, [] as [usize; 0]);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], Line { name: "small_r".into(), records: 3, bytes: 114, first: 292, last: 432 });
        for text in [
            "x",
            "x 1 2 3",
            "x 0 0 8 8",
            "x 1 0 8 9",
            "x 2 0 8 8",
            "x 2 0 8 9",
            "x 1 0 7 7",
            "x@ 1 0 8 8",
            "a@b@c 1 0 8 8",
            "../x 1 0 8 8",
            "x 1 0 8 8 9",
            "x -1 0 8 8",
            "x 1 0 99999999999999999999 8",
            "\u{fc} 1 0 8 8",
        ] {
            assert_eq!(parse(text.as_bytes()), (vec![], vec![1]), "{text}");
        }
        assert_eq!(parse(b"x 1 0 8 8\nx 1 0 48 48\n").1, [2], "a name occurs once");
    }
}

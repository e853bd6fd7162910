//! Records as scripts read them, and progress as people see it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use overstory_runtime::terminal::{stderr_is_terminal, stdout_is_terminal};
use overstory_swarm::key::Key;
use serde_json::json;

use super::Format;

/// The time between two updates of a progress line.
const PROGRESS: Duration = Duration::from_millis(250);

/// Writes a record as a line: `key TAB value`; the value is left out if there is none.
pub(super) fn record(
    out: &mut impl Write,
    format: Format,
    kind: Option<&str>,
    key: Key,
    value: Option<&[u8]>,
) -> io::Result<()> {
    if format.json {
        let mut object = serde_json::Map::new();
        if let Some(kind) = kind {
            object.insert("change".to_owned(), kind.into());
        }
        object.insert("key".to_owned(), format!("0x{key}").into());
        if let Some(value) = value {
            let (name, text) = json_value(value);
            object.insert(name.to_owned(), text.into());
        }
        return writeln!(out, "{}", serde_json::Value::Object(object));
    }
    if let Some(kind) = kind {
        write!(out, "{kind}\t")?;
    }
    write!(out, "0x{key}")?;
    if let Some(value) = value {
        out.write_all(b"\t")?;
        write_value(out, format, value)?;
    }
    out.write_all(b"\n")
}

/// Writes a record of logfiles as a line: `timestamp TAB value`.
pub(super) fn stamped(out: &mut impl Write, format: Format, timestamp: i64, value: &[u8]) -> io::Result<()> {
    if format.json {
        let (name, text) = json_value(value);
        return writeln!(out, "{}", json!({ "timestamp": timestamp, name: text }));
    }
    write!(out, "{timestamp}\t")?;
    write_value(out, format, value)?;
    out.write_all(b"\n")
}

/// Writes a single value: as it is, unless asked for otherwise.
pub(super) fn value(out: &mut impl Write, format: Format, value: &[u8]) -> io::Result<()> {
    if format.json || format.base64 {
        return line(out, format, value);
    }
    out.write_all(value)?;
    // The prompt shall not follow the value on its line.
    if stdout_is_terminal() && !format.raw && value.last() != Some(&b'\n') {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes a value as a line.
pub(super) fn line(out: &mut impl Write, format: Format, value: &[u8]) -> io::Result<()> {
    if format.json {
        let (name, text) = json_value(value);
        return writeln!(out, "{}", json!({ name: text }));
    }
    write_value(out, format, value)?;
    out.write_all(b"\n")
}

/// Writes a value with its length in front, a little-endian u32.
pub(super) fn frame(out: &mut impl Write, value: &[u8]) -> io::Result<()> {
    let length = u32::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(value)
}

fn json_value(value: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(value) {
        Ok(text) => ("value", text.to_owned()),
        Err(_) => ("base64", BASE64.encode(value)),
    }
}

fn write_value(out: &mut impl Write, format: Format, value: &[u8]) -> io::Result<()> {
    match (format.base64, format.raw) {
        (true, _) => out.write_all(BASE64.encode(value).as_bytes()),
        (_, true) => out.write_all(value),
        _ => out.write_all(&escape(value)),
    }
}

/// Makes a value fit on a line and survive any terminal: text stays, the rest becomes `\t`, `\n`, `\r`, `\\`, `\xHH`.
pub(super) fn escape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => out.extend_from_slice(b"\\t"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\\' => out.extend_from_slice(b"\\\\"),
                control if control.is_control() => {
                    let mut bytes = [0; 4];
                    control.encode_utf8(&mut bytes).bytes().for_each(|byte| hex(&mut out, byte));
                }
                plain => out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|&byte| hex(&mut out, byte));
    }
    out
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
}

/// A line on standard error that says how far a long read or write is; only on a terminal, and only if the records
/// themselves do not run over it.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    records: u64,
    bytes: u64,
    begun: Instant,
    next: Instant,
}

impl Progress {
    pub(super) fn new(data_on_stdout: bool) -> Self {
        let shown = stderr_is_terminal() && !(data_on_stdout && stdout_is_terminal());
        let begun = Instant::now();
        Self { shown, records: 0, bytes: 0, begun, next: begun + PROGRESS }
    }

    pub(super) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        let now = Instant::now();
        if self.shown && now >= self.next {
            self.next = now + PROGRESS;
            eprint!("\r\x1b[K{} records, {} bytes, {} s", self.records, self.bytes, self.begun.elapsed().as_secs());
        }
    }

    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

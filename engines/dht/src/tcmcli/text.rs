//! The text form of dumps.

use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use overstory_swarm::key::Key;
use rand::RngExt;

use super::{Failure, LONGEST};
use crate::tcm::{Reason, Writer};

/// The longest line: a key, a colon, the longest value in base64, the end of the line.
const LONGEST_LINE: u64 = 17 + (LONGEST as u64).div_ceil(3) * 4 + 1;

pub(super) fn describe(reason: Reason) -> &'static str {
    match reason {
        Reason::BadKey => "a record whose key is neither 16 hexadecimal digits nor 8 bytes",
        Reason::EmptyValue => "a record without a value",
        Reason::TooLarge => "a record whose value is too long",
        Reason::Damaged => "damaged",
        Reason::Cut => "cut short, the end mark is missing",
    }
}

/// Appends the line of a record.
pub(super) fn put_line(line: &mut Vec<u8>, key: Key, value: &[u8]) {
    line.extend_from_slice(&key.hex16());
    line.push(b':');
    let from = line.len();
    line.resize(from + value.len().div_ceil(3) * 4, 0);
    if let Some(place) = line.get_mut(from..) {
        // The room is exact.
        let written = STANDARD.encode_slice(value, place).unwrap_or(0);
        line.truncate(from + written);
    }
    line.push(b'\n');
}

/// Reads the line of a record, without its end.
fn parse_line(line: &[u8], value: &mut Vec<u8>) -> Result<Key, &'static str> {
    const FORM: &str = "expected <16 hexadecimal digits>:<base64 value>";
    let (key, rest) = line.split_at_checked(16).ok_or(FORM)?;
    let key = Key::from_hex16(key).ok_or(FORM)?;
    let (colon, encoded) = rest.split_first().ok_or(FORM)?;
    if *colon != b':' {
        return Err(FORM);
    }
    if encoded.is_empty() {
        return Err("the value is empty");
    }
    value.clear();
    STANDARD.decode_vec(encoded, value).map_err(|_| "the value is not base64")?;
    if value.len() > LONGEST {
        return Err("the value is longer than 64 MiB");
    }
    Ok(key)
}

/// Makes a dump from text; the file is replaced only when it is complete and on the disk.
pub(super) fn write(path: &Path, input: &mut dyn BufRead) -> Result<(), Failure> {
    let failed = |source| Failure::Write { path: path.to_owned(), source };
    if path.file_name().is_none() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let (unfinished, file) = create_beside(path).map_err(failed)?;
    let result = write_all(&mut BufWriter::with_capacity(1 << 20, file), input, &failed).and_then(|()| {
        fs::rename(&unfinished, path)
            .and_then(|()| {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(parent)?.sync_all()
            })
            .map_err(failed)
    });
    if result.is_err() {
        // After a rename there is nothing to remove.
        let _gone = fs::remove_file(&unfinished);
    }
    result
}

fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut random = rand::rng();
    loop {
        let tail: String = (0..6).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect();
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{tail}.dumping"));
        let name = PathBuf::from(name);
        match File::create_new(&name) {
            Ok(file) => return Ok((name, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn write_all(
    file: &mut BufWriter<File>,
    input: &mut dyn BufRead,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let (mut text, mut value, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut written = 0;
    let mut line = 0;
    Writer::begin(&mut out);
    loop {
        file.write_all(&out).map_err(failed)?;
        written += out.len() as u64;
        out.clear();
        text.clear();
        line += 1;
        let count = input.take(LONGEST_LINE + 1).read_until(b'\n', &mut text).map_err(Failure::Input)?;
        if count == 0 {
            break;
        }
        if text.len() as u64 > LONGEST_LINE {
            return Err(Failure::Line { line, what: "the line is longer than a value of 64 MiB" });
        }
        let record = text.strip_suffix(b"\n").unwrap_or(&text);
        let key = parse_line(record, &mut value).map_err(|what| Failure::Line { line, what })?;
        Writer::record(&mut out, key, &value);
    }
    Writer::finish(&mut out, written);
    file.write_all(&out).and_then(|()| file.flush()).and_then(|()| file.get_ref().sync_all()).map_err(failed)
}

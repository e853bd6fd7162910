//! Writes a node's hash range back into its configuration file (protocol §3.1).
//!
//! Only the digits of `[Server] minval` and `maxval` change; the file keeps its length and every other byte. Both
//! change at once: the new content is written beside the file, synced, and renamed over it, so that a crash leaves the
//! old range or the new one. Where no file can be made beside it, both are written in place by one call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use overstory_runtime::ini::{Dialect, Ini, MAX_FILE_BYTES};

/// Digits of a value, besides the `0x` that may stand before them.
const DIGITS: usize = 16;

/// What became of a value that was to be rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// It stands in the file and on the disk.
    Written,
    /// The value in the file is not 16 digits long; it was left as it is.
    WrongLength {
        /// The key.
        key: &'static str,
        /// The value in the file.
        found: String,
    },
    /// The key is not in the file.
    Absent {
        /// The key.
        key: &'static str,
    },
}

/// Replaces `[Server] minval` and `maxval` by 16 digits of hexadecimal, keeping a `0x` where there is one. What was
/// left as it is gets a warning in the log, and is told in the answer, minval first.
///
/// # Errors
/// The file cannot be read or written; it then holds the old values.
pub fn set_range(file: &Path, min: u64, max: u64) -> io::Result<[Rewritten; 2]> {
    // Behind a link is the file to replace, not the link.
    let file = file.canonicalize()?;
    let mut content = Vec::new();
    File::open(&file)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content)?;
    let old = content.clone();
    let outcome = [("minval", min), ("maxval", max)].map(|(key, value)| replace(&mut content, key, value));
    for left in &outcome {
        match left {
            Rewritten::Written => {}
            Rewritten::WrongLength { key, found } => {
                tracing::warn!(target: "node.config", file = %file.display(), key, found, "value is not 16 digits long, left as it is");
            }
            Rewritten::Absent { key } => {
                tracing::warn!(target: "node.config", file = %file.display(), key, "key is not in the file, not written");
            }
        }
    }
    if content != old {
        check(&content, &outcome, [min, max])?;
        write(&file, &old, &content)?;
    }
    Ok(outcome)
}

fn replace(content: &mut [u8], key: &'static str, value: u64) -> Rewritten {
    let Some(place) = find(content, b"Server", key.as_bytes()) else { return Rewritten::Absent { key } };
    let found = content.get(place.clone()).unwrap_or_default();
    let prefix = if found.starts_with(b"0x") || found.starts_with(b"0X") { 2 } else { 0 };
    if found.len() != prefix + DIGITS {
        return Rewritten::WrongLength { key, found: String::from_utf8_lossy(found).into_owned() };
    }
    if let Some(digits) = content.get_mut(place.start + prefix..place.end) {
        digits.copy_from_slice(format!("{value:016x}").as_bytes());
    }
    Rewritten::Written
}

/// Where the value of a key stands, the last one when there are several, by the rules of the swarm dialect.
fn find(content: &[u8], section: &[u8], key: &[u8]) -> Option<Range<usize>> {
    let mut place: Option<Range<usize>> = None;
    let mut is_inside = false;
    // Whether lines that go on belong to the value that was found last.
    let mut is_open = false;
    let mut key_indent: Option<usize> = None;
    let mut at = 0;
    for raw in content.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += raw.len();
        let text = raw.trim_ascii();
        let is_comment = Dialect::SWARM.line_comments.iter().any(|mark| text.starts_with(mark.as_bytes()));
        if text.is_empty() || is_comment {
            continue;
        }
        let indent = raw.len() - raw.trim_ascii_start().len();
        if key_indent.is_some_and(|of_key| indent > of_key) {
            if let Some(place) = place.as_mut().filter(|_| is_open) {
                place.end = start + indent + text.len();
            }
            continue;
        }
        is_open = false;
        if let Some(name) = text.strip_prefix(b"[")
            && let Some(end) = name.iter().rposition(|byte| *byte == b']')
        {
            is_inside = name.get(..end) == Some(section);
            key_indent = None;
            continue;
        }
        key_indent = Some(indent);
        let Some(equals) = raw.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = raw.split_at(equals);
        if is_inside && name.trim_ascii() == key {
            let value = value.get(1..).unwrap_or_default();
            let blanks = value.len() - value.trim_ascii_start().len();
            let begin = start + equals + 1 + blanks;
            place = Some(begin..begin + value.trim_ascii().len());
            is_open = true;
        }
    }
    place
}

/// Reads the new content as the next start will: what was written must be what is read.
fn check(content: &[u8], outcome: &[Rewritten; 2], values: [u64; 2]) -> io::Result<()> {
    let unreadable = || io::Error::other("the file would not be read as it was written; it was left as it is");
    let ini = Ini::parse(&String::from_utf8_lossy(content), Dialect::SWARM).map_err(|_| unreadable())?;
    let server = ini.section("Server").ok_or_else(unreadable)?;
    for ((key, value), outcome) in ["minval", "maxval"].into_iter().zip(values).zip(outcome) {
        let read = server.get(key).map(|text| text.trim_start_matches("0x").trim_start_matches("0X"));
        if *outcome == Rewritten::Written && read != Some(format!("{value:016x}").as_str()) {
            return Err(unreadable());
        }
    }
    Ok(())
}

fn write(file: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    match replace_file(file, new) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            overwrite(file, old, new)
        }
        other => other,
    }
}

fn replace_file(file: &Path, new: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".rewrite");
    let beside = directory.join(name);
    let like = fs::metadata(file)?;
    // Left behind by a crash.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = out
        .write_all(new)
        .and_then(|()| out.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777)))
        .and_then(|()| fchown(&out, Some(like.uid()), Some(like.gid())))
        .and_then(|()| out.sync_all())
        .and_then(|()| fs::rename(&beside, file));
    if let Err(error) = written {
        // What is in the way of the first attempt is in the way of nothing else.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

/// Writes the bytes from the first to the last that differ.
fn overwrite(file: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    let differs = |(at, (a, b)): (usize, (&u8, &u8))| (a != b).then_some(at);
    let mut changes = old.iter().zip(new).enumerate().filter_map(differs);
    let Some(first) = changes.next() else { return Ok(()) };
    let last = changes.next_back().unwrap_or(first);
    let out = OpenOptions::new().write(true).open(file)?;
    out.write_all_at(new.get(first..=last).unwrap_or_default(), first as u64)?;
    out.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "; a node\n[Server]\naddress = 127.0.0.1\nminval = 0x0000000000000000\nmaxval=FFFFFFFFFFFFFFFF  \n// minval = 0x1111111111111111\n\n[Other]\nminval = 0x0000000000000000\n";

    fn rewritten(text: &str, min: u64, max: u64) -> (String, [Rewritten; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.ini");
        fs::write(&path, text).unwrap();
        let outcome = set_range(&path, min, max).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
        (fs::read_to_string(&path).unwrap(), outcome)
    }

    #[test]
    fn only_the_digits_change() {
        let (after, outcome) = rewritten(FILE, 0x12, 0xAB00_0000_0000_0000);
        assert_eq!(outcome, [Rewritten::Written, Rewritten::Written]);
        let expected = FILE
            .replacen("minval = 0x0000000000000000", "minval = 0x0000000000000012", 1)
            .replace("maxval=FFFFFFFFFFFFFFFF", "maxval=ab00000000000000");
        assert_eq!(after, expected);
    }

    #[test]
    fn a_line_that_only_looks_like_the_key_is_not_touched() {
        // Indented deeper than the key above it, maxval is a part of minval's value.
        let text = FILE.replace("address", "minval = 0000000000000000\n  maxval = 0000000000000000\naddress");
        let (after, outcome) = rewritten(&text, 1, 2);
        assert_eq!(outcome, [Rewritten::Written, Rewritten::Written], "the later ones are read");
        assert!(after.contains("// minval = 0x1111111111111111") && after.contains("  maxval = 0000000000000000"));
        let (after, outcome) = rewritten("[Server]\nminval = 0000000000000000\n  maxval = 0000000000000000\n", 1, 2);
        assert_eq!(outcome[1], Rewritten::Absent { key: "maxval" });
        assert!(matches!(outcome[0], Rewritten::WrongLength { .. }) && !after.contains('1'));
    }

    #[test]
    fn a_value_of_another_length_is_left() {
        let text = "[Server]\r\nminval = 0x00\r\nmaxval = ffffffffffffffff\r\n";
        let (after, outcome) = rewritten(text, 1, 2);
        assert_eq!(outcome, [Rewritten::WrongLength { key: "minval", found: "0x00".to_owned() }, Rewritten::Written]);
        assert_eq!(after, text.replace("ffffffffffffffff", "0000000000000002"));
    }

    #[test]
    fn of_two_entries_the_one_that_is_read_is_written() {
        let text = "[Server]\nminval = 0000000000000001\n[X]\n[Server]\nminval = 0000000000000002\n";
        let (after, _) = rewritten(text, 9, 9);
        assert_eq!(after, text.replace("0000000000000002", "0000000000000009"));
    }

    #[test]
    fn owner_mode_and_link_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.ini"), dir.path().join("link.ini"));
        fs::write(&real, FILE).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        set_range(&link, 1, 2).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::read_to_string(&real).unwrap().contains("0x0000000000000001"));
    }

    #[test]
    fn what_a_crash_left_behind_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.ini");
        fs::write(&path, FILE).unwrap();
        fs::write(dir.path().join("config.ini.rewrite"), "half of i").unwrap();
        set_range(&path, 3, 4).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("0x0000000000000003"));
    }

    #[test]
    fn in_place_only_the_range_between_the_changes_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.ini");
        fs::write(&path, FILE).unwrap();
        let mut new = FILE.as_bytes().to_vec();
        replace(&mut new, "minval", u64::MAX);
        overwrite(&path, FILE.as_bytes(), &new).unwrap();
        assert_eq!(fs::read(&path).unwrap(), new);
    }

    proptest! {
        /// Whatever the file looks like: what is found is what the reader of the next start finds, and only that changes.
        #[test]
        fn the_reader_of_the_next_start_finds_what_was_written(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("[Server]"), Just("[server]"), Just("[LOG.Root]"), Just("minval = 0x00000000000000aa"),
                    Just("maxval = ffffffffffffffff"), Just("  minval=0123456789abcdef"), Just("\tmaxval = 0Xffffffffffffffff "),
                    Just("# minval = 0x00000000000000aa"), Just(""), Just("x ="), Just("  more"), Just("maxval = 12"), Just("y = [a] b"),
                ],
                0..14,
            ),
            min in any::<u64>(), max in any::<u64>(),
        ) {
            let text = format!("[Server]\n{}\n", lines.join("\n"));
            let Ok(before) = Ini::parse(&text, Dialect::SWARM) else { return Ok(()) };
            let mut content = text.clone().into_bytes();
            let outcome = [replace(&mut content, "minval", min), replace(&mut content, "maxval", max)];
            prop_assert_eq!(content.len(), text.len());
            prop_assert!(check(&content, &outcome, [min, max]).is_ok());
            let after = Ini::parse(std::str::from_utf8(&content).unwrap(), Dialect::SWARM).unwrap();
            for (a, b) in before.sections().iter().zip(after.sections()) {
                for (a, b) in a.entries.iter().zip(&b.entries) {
                    prop_assert_eq!(&a.key, &b.key);
                    prop_assert!(a.value == b.value || a.key == "minval" || a.key == "maxval");
                }
            }
        }
    }
}

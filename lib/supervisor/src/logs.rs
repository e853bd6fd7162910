//! The end of a log, and what comes after it.
//!
//! Logs are read from the disk: supervisord refuses to hand out one that does not end with a whole character.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How much of a log is read for its last lines.
const TAIL_BYTES: u64 = 1 << 20;

/// The last `count` lines of a log, ready to be shown; empty when there is none.
#[must_use]
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let read = || -> io::Result<Vec<String>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
        let mut last = VecDeque::new();
        for line in BufReader::new(file.take(TAIL_BYTES)).split(b'\n') {
            if last.len() == count {
                last.pop_front();
            }
            last.push_back(showable(&line?));
        }
        Ok(last.into())
    };
    if count == 0 { Vec::new() } else { read().unwrap_or_default() }
}

/// The last bytes of a file as text.
pub(crate) fn last_bytes(path: &Path, length: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(length)))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line without the control characters that could change the terminal it is shown on.
#[must_use]
pub fn showable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let keep = |c: char| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c };
    text.trim_end_matches(['\r', '\n']).chars().map(keep).collect()
}

/// Reads what is added to a log, across its rotations.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    open: Option<(BufReader<File>, u64)>,
    partial: Vec<u8>,
}

impl Follower {
    /// Follows a log from its present end on; the file need not be there yet.
    #[must_use]
    pub fn from_end(path: &Path) -> Self {
        let mut follower = Self { path: path.to_owned(), open: None, partial: Vec::new() };
        if let Ok((mut file, inode)) = follower.open_file() {
            // A file that cannot be sought is read from its beginning.
            let _ = file.seek(SeekFrom::End(0));
            follower.open = Some((file, inode));
        }
        follower
    }

    fn open_file(&self) -> io::Result<(BufReader<File>, u64)> {
        let file = File::open(&self.path)?;
        let inode = file.metadata()?.ino();
        Ok((BufReader::new(file), inode))
    }

    /// The whole lines that were added since the last call.
    pub fn next_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.drain(&mut lines);
        let current = std::fs::metadata(&self.path).ok();
        let read_to = self.open.as_mut().and_then(|(file, _)| file.stream_position().ok());
        let rotated = match (&current, &self.open) {
            (Some(current), Some((_, inode))) => {
                current.ino() != *inode || read_to.is_some_and(|at| current.len() < at)
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        if rotated {
            self.open = self.open_file().ok();
            self.drain(&mut lines);
        }
        lines
    }

    fn drain(&mut self, lines: &mut Vec<String>) {
        let Some((file, _)) = &mut self.open else { return };
        while let Ok(read) = file.read_until(b'\n', &mut self.partial) {
            if read == 0 {
                break;
            }
            if self.partial.ends_with(b"\n") {
                lines.push(showable(&self.partial));
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_last_lines_are_shown_without_control_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"one\ntwo \x1b[31mred\x00\nthree\xff\r\n").unwrap();
        assert_eq!(last_lines(&path, 2), ["two \u{FFFD}[31mred\u{FFFD}", "three\u{FFFD}"]);
        assert_eq!(last_lines(&path, 9).len(), 3);
        assert_eq!(last_lines(&dir.path().join("none"), 9), Vec::<String>::new());
    }

    #[test]
    fn a_log_is_followed_across_its_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old\n").unwrap();
        let mut follower = Follower::from_end(&path);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"a\nb").unwrap();
        assert_eq!(follower.next_lines(), ["a"]);
        file.write_all(b"c\n").unwrap();
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        std::fs::write(&path, "d\n").unwrap();
        assert_eq!(follower.next_lines(), ["bc", "d"]);
        assert_eq!(follower.next_lines(), Vec::<String>::new());
    }
}

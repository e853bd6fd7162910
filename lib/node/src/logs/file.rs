//! A log file: lines are appended in batches, and a file that is long enough is begun anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::settings::{Layout, Rotation};
use super::writer::BATCH_BYTES;

/// A file that lines go to.
pub(super) struct LogFile {
    path: PathBuf,
    layout: Layout,
    rotation: Rotation,
    file: File,
    /// Bytes that are in it, as far as this process knows; less if it could not be rotated.
    length: u64,
    pending: Vec<u8>,
    pending_lines: u64,
    /// Whether the last write ended inside a line.
    is_torn: bool,
    is_failing: bool,
}

impl LogFile {
    pub(super) fn open(path: PathBuf, layout: Layout, rotation: Rotation) -> io::Result<Self> {
        let (file, length) = open(&path)?;
        let (pending, pending_lines) = (Vec::new(), 0);
        Ok(Self { path, layout, rotation, file, length, pending, pending_lines, is_torn: false, is_failing: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn layout(&self) -> Layout {
        self.layout
    }

    /// Begins the file again, if it was moved away.
    pub(super) fn reopen(&mut self) -> Result<(), String> {
        (self.file, self.length) = open(&self.path).map_err(|error| error.to_string())?;
        self.is_torn = false;
        Ok(())
    }

    /// Takes a line; writes when enough of them wait.
    pub(super) fn take(&mut self, line: &str, lost: &AtomicU64) {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending_lines += 1;
        if self.pending.len() >= BATCH_BYTES {
            self.write(lost);
        }
    }

    /// Writes what waits. Lines that cannot be written are counted.
    pub(super) fn write(&mut self, lost: &AtomicU64) {
        if self.pending.is_empty() {
            return;
        }
        self.rotate();
        if self.is_torn {
            self.pending.insert(0, b'\n');
        }
        let mut rest = self.pending.as_slice();
        let outcome = loop {
            match self.file.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if rest.is_empty() {
                break Ok(());
            }
        };
        let written = self.pending.len() - rest.len();
        self.length = self.length.saturating_add(written as u64);
        if let Some(last) = self.pending.get(..written).and_then(<[u8]>::last) {
            self.is_torn = *last != b'\n';
        }
        match outcome {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                lost.fetch_add(self.pending_lines, Ordering::Relaxed);
                if !self.is_failing {
                    self.is_failing = true;
                    // The log itself cannot say it.
                    let _ = writeln!(io::stderr(), "cannot write {}: {error}", self.path.display());
                }
            }
        }
        self.pending.clear();
        self.pending.shrink_to(BATCH_BYTES);
        self.pending_lines = 0;
    }

    /// Moves a file that would become too long to `PATH.1`, that one to `PATH.2` and so on, and begins a new one.
    fn rotate(&mut self) {
        let Rotation { max_bytes, backups } = self.rotation;
        let more = self.pending.len() as u64;
        let is_long = |length: u64| max_bytes > 0 && length > 0 && length.saturating_add(more) > max_bytes;
        if !is_long(self.length) {
            return;
        }
        let Ok(open) = self.file.metadata() else { return };
        // Somebody else may have cut it; a pipe or a device has no length.
        self.length = open.len();
        if !open.is_file() || !is_long(self.length) {
            return;
        }
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|at| (at.dev(), at.ino()) == (open.dev(), open.ino()));
        // What somebody else has moved away is not moved again.
        let moved = if is_ours { shift(&self.path, backups) } else { Ok(()) };
        if let Err(error) = moved.and_then(|()| self.reopen().map_err(io::Error::other)) {
            // Not again before it has grown by as much once more.
            self.length = 0;
            let _ = writeln!(io::stderr(), "cannot rotate {}: {error}", self.path.display());
        }
    }
}

/// `PATH` becomes `PATH.1`, `PATH.1` becomes `PATH.2`; the last one goes.
fn shift(path: &Path, backups: u32) -> io::Result<()> {
    if backups == 0 {
        return fs::remove_file(path);
    }
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..backups).rev() {
        match fs::rename(name(number), name(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, name(1))
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let at = |error: io::Error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()));
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(at)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path).map_err(at)?;
    let length = file.metadata().map_err(at)?.len();
    Ok((file, length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]
mod tests {
    use super::*;

    fn written(file: &mut LogFile, text: &str) {
        let lost = AtomicU64::new(0);
        file.take(text, &lost);
        file.write(&lost);
        assert_eq!(lost.into_inner(), 0);
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = LogFile::open(path.clone(), Layout::Date, Rotation::NEVER).unwrap();
        written(&mut file, "half of a li");
        written(&mut file, "whole\n");
        assert_eq!(read(&path), "half of a li\nwhole\n");
    }

    #[test]
    fn a_long_file_is_begun_anew_between_two_lines_and_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.log");
        fs::write(&path, "of before\n").unwrap();
        let mut file = LogFile::open(path.clone(), Layout::Date, Rotation { max_bytes: 20, backups: 2 }).unwrap();
        for line in ["second\n", "third line\n", "a line that is longer than a file\n", "fifth\n", "sixth\n"] {
            written(&mut file, line);
        }
        let old = |number: u32| read(&dir.path().join(format!("root.log.{number}")));
        assert_eq!(read(&path), "fifth\nsixth\n");
        assert_eq!(old(1), "a line that is longer than a file\n");
        assert_eq!(old(2), "third line\n");
        assert_eq!(old(3), "", "no more than two");
    }

    #[test]
    fn without_backups_only_the_new_file_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.log");
        let mut file = LogFile::open(path.clone(), Layout::Date, Rotation { max_bytes: 8, backups: 0 }).unwrap();
        written(&mut file, "one two\n");
        written(&mut file, "three\n");
        assert_eq!(read(&path), "three\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_somebody_else_has_moved_or_cut_is_left_to_him() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.log");
        let mut file = LogFile::open(path.clone(), Layout::Date, Rotation { max_bytes: 20, backups: 3 }).unwrap();
        written(&mut file, "twelve bytes\n");
        fs::write(&path, "").unwrap();
        written(&mut file, "cut, as copytruncate\n");
        assert_eq!(read(&path), "cut, as copytruncate\n", "it was empty again");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        written(&mut file, "new\n");
        assert_eq!(read(&path), "new\n");
        assert!(!dir.path().join("root.log.1").exists());
    }

    #[test]
    fn a_file_that_cannot_be_moved_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.log");
        fs::create_dir_all(dir.path().join("root.log.1/in the way")).unwrap();
        let mut file = LogFile::open(path.clone(), Layout::Date, Rotation { max_bytes: 4, backups: 1 }).unwrap();
        written(&mut file, "one\n");
        written(&mut file, "two\n");
        assert_eq!(read(&path), "one\ntwo\n");
    }
}

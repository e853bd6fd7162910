//! Files of `/proc` and `/sys` that are read every tick: opened once, read into one buffer that is used again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// No file that is read here is longer than this; what is beyond is not looked at.
const MAX_BYTES: usize = 1024 * 1024;

/// Where the kernel shows itself; another place in tests.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    /// `/proc`.
    pub(crate) proc: PathBuf,
    /// `/sys`.
    pub(crate) sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys") }
    }
}

/// A file that stays open between readings.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    file: Option<File>,
    /// Whether the latest reading failed, so that a lasting failure is said once.
    failed: bool,
}

impl KeptFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, failed: false }
    }

    /// Reads the whole file as it is now; `buffer` holds the text.
    ///
    /// A file that cannot be read is opened again next time. The first failure in a row is logged.
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Option<&'b str> {
        match self.fill(buffer) {
            Ok(()) => {
                if self.failed {
                    tracing::info!(file = %self.path.display(), "readable again");
                    self.failed = false;
                }
                std::str::from_utf8(buffer).ok()
            }
            Err(error) => {
                self.file = None;
                if !self.failed {
                    tracing::warn!(file = %self.path.display(), %error, "cannot read, its metrics are missing");
                    self.failed = true;
                }
                None
            }
        }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(File::open(&self.path)?);
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        // The buffer keeps its full length between readings: growing it each time would clear it each time.
        buffer.resize(buffer.capacity().max(4096), 0);
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                if filled >= MAX_BYTES {
                    break;
                }
                buffer.resize(filled * 2, 0);
            }
            let Some(space) = buffer.get_mut(filled..) else { break };
            match file.read_at(space, filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(())
    }
}

/// Reads a small file that is looked at rarely.
pub(crate) fn read_small(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let mut bytes = vec![0; 8192];
    let filled = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(filled);
    String::from_utf8(bytes).ok()
}

/// Takes the next blank-separated number, 0 where there is none.
pub(crate) fn next_number<'a>(words: &mut impl Iterator<Item = &'a str>) -> u64 {
    words.next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_grows_shrinks_vanishes_and_returns_is_read_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let (mut kept, mut buffer) = (KeptFile::new(&path), Vec::new());
        assert_eq!(kept.read(&mut buffer), None);
        fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(kept.read(&mut buffer).map(str::len), Some(10_000));
        fs::write(&path, "short").unwrap();
        assert_eq!(kept.read(&mut buffer), Some("short"));
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(kept.read(&mut buffer), None);
        fs::write(&path, "y".repeat(MAX_BYTES * 2)).unwrap();
        assert_eq!(kept.read(&mut buffer).map(str::len), Some(MAX_BYTES));
    }

    #[test]
    fn a_real_file_of_the_kernel_is_read_again_through_the_same_descriptor() {
        let (mut kept, mut buffer) = (KeptFile::new("/proc/self/stat"), Vec::new());
        assert!(kept.read(&mut buffer).is_some());
        assert!(kept.read(&mut buffer).is_some_and(|text| text.contains('(')));
    }
}

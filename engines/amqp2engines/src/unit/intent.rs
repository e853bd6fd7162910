//! Notes which message is being worked on alone, so that one that ends the process is found by the next process.
//!
//! The file holds one line, `<message id in hexadecimal> <earlier attempts>`. It lies below the prefix, which all
//! processes of a host share. Losing it with the machine costs nothing but attempts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use overstory_model::ids::MessageId;

/// The note.
#[derive(Debug)]
pub struct Intent {
    file: PathBuf,
}

impl Intent {
    /// Keeps the note in `file`.
    #[must_use]
    pub const fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Notes that `message` is about to be worked on; returns how often that was noted and never cleared before.
    ///
    /// A note that cannot be written is not worth stopping for: it only delays finding the culprit.
    pub fn begin(&self, message: MessageId) -> u32 {
        let name = format!("{message:?}");
        let earlier = match fs::read_to_string(&self.file) {
            Ok(text) => attempts_of(&text, &name),
            Err(_) => 0,
        };
        if let Err(error) = write(&self.file, &format!("{name} {}\n", earlier.saturating_add(1))) {
            tracing::warn!(%error, file = %self.file.display(), "cannot note the message at hand");
        }
        earlier
    }

    /// The message at hand did no harm.
    pub fn clear(&self) {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %self.file.display(), "cannot clear the note");
            }
            _ => {}
        }
    }
}

fn attempts_of(text: &str, name: &str) -> u32 {
    text.trim()
        .split_once(' ')
        .filter(|(noted, _)| *noted == name)
        .and_then(|(_, times)| times.parse().ok())
        .unwrap_or(0)
}

fn write(file: &Path, line: &str) -> io::Result<()> {
    // Replaced as a whole, so that a process that ends meanwhile leaves the old note or the new one.
    let new = file.with_extension("new");
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&new, line)?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn attempts_that_nobody_cleared_are_counted_per_message() {
        let dir = tempfile::tempdir().unwrap();
        let intent = || Intent::new(dir.path().join("engines/queue.intent"));
        let (a, b) = (MessageId([1; 16]), MessageId([2; 16]));
        assert_eq!(intent().begin(a), 0);
        assert_eq!(intent().begin(a), 1);
        assert_eq!(intent().begin(a), 2);
        assert_eq!(intent().begin(b), 0);
        intent().clear();
        intent().clear();
        assert_eq!(intent().begin(b), 0);
        fs::write(dir.path().join("engines/queue.intent"), "nonsense").unwrap();
        assert_eq!(intent().begin(b), 0);
    }
}

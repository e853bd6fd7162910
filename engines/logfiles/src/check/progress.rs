//! How far it is, on the standard error, when that is a terminal.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::find::Bucket;
use crate::disk::File;

const EVERY: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;
/// Columns of the line; a terminal with fewer cuts it.
const COLUMNS: usize = 79;

/// Counts what was read.
pub(super) struct Progress {
    /// None: nothing is shown.
    total: Option<u64>,
    done: AtomicU64,
    shown: Mutex<Shown>,
}

struct Shown {
    at: Option<Instant>,
    file: String,
}

impl Progress {
    /// Shows how much of so many bytes was read, if they are known.
    pub(super) const fn new(total: Option<u64>) -> Self {
        Self { total, done: AtomicU64::new(0), shown: Mutex::new(Shown { at: None, file: String::new() }) }
    }

    /// Says which file is being read.
    pub(super) fn file(&self, bucket: &Bucket) {
        if self.total.is_some() {
            self.shown.lock().unwrap_or_else(PoisonError::into_inner).file =
                format!("{}/{}", bucket.channel, bucket.number);
        }
    }

    fn read(&self, bytes: u64) {
        let Some(total) = self.total else { return };
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.at.is_none_or(|at| at.elapsed() >= EVERY) {
            shown.at = Some(Instant::now());
            // A terminal that is gone takes nothing: the work goes on.
            let _ = show(&mut io::stderr().lock(), &line(done, total, &shown.file));
        }
    }

    /// Takes the line away, for another one.
    pub(super) fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.at.take().is_some() {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

/// Puts a line in the place of the last one. A narrow terminal would wrap it, and leave a part behind each time: it cuts
/// it instead. In one write, so that whoever ends the program leaves the terminal as it was.
fn show(out: &mut impl Write, line: &str) -> io::Result<()> {
    out.write_all(format!("\r\x1b[K\x1b[?7l{line}\x1b[?7h").as_bytes())
}

fn line(done: u64, total: u64, file: &str) -> String {
    let done = done.min(total);
    let part = |of: u64| u128::from(done) * u128::from(of) / u128::from(total.max(1));
    let bar: String = (0..WIDTH).map(|at| if u128::from(at) < part(WIDTH) { '#' } else { '.' }).collect();
    let front = format!("[{bar}] {:>3} % of {} MB  ", part(100), total / 1_000_000);
    // Channels and buckets are ASCII.
    let file: String = file.chars().take(COLUMNS.saturating_sub(front.len())).collect();
    front + &file
}

/// A file whose reads are counted.
pub(super) struct Counted<'a> {
    file: Arc<dyn File>,
    progress: &'a Progress,
}

impl<'a> Counted<'a> {
    pub(super) const fn new(file: Arc<dyn File>, progress: &'a Progress) -> Self {
        Self { file, progress }
    }
}

impl File for Counted<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        self.progress.read(read as u64);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert_eq!(line(0, 0, "a"), format!("[{}]   0 % of 0 MB  a", ".".repeat(30)));
        assert_eq!(
            line(50, 100, "log/0000000057/275"),
            format!("[{}{}]  50 % of 0 MB  log/0000000057/275", "#".repeat(15), ".".repeat(15))
        );
        assert_eq!(line(1, u64::MAX, &"a".repeat(300)).len(), COLUMNS);
        assert_eq!(line(u64::MAX, 7_000_000, ""), format!("[{}] 100 % of 7 MB  ", "#".repeat(30)));
    }

    /// Each write by itself.
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_write_that_no_terminal_wraps() {
        let mut writes = Writes(Vec::new());
        assert!(show(&mut writes, "[##..] log/275").is_ok());
        assert_eq!(writes.0, [b"\r\x1b[K\x1b[?7l[##..] log/275\x1b[?7h"]);
    }
}

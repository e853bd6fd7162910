//! Log files and console output in the published formats (protocol §4.3).

mod file;
mod layer;
pub(crate) mod local_time;
pub mod settings;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overstory_model::{Clock, Millis, SystemClock};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use settings::{Level, LogSettings};

use layer::{Counts, LogLayer, Names};
use settings::Layout;
use writer::{FileId, Line, Outputs, Writer};

/// The logs of a program. Clones share them.
#[derive(Debug, Clone)]
pub struct Logs {
    writer: Writer,
    counts: Arc<Counts>,
}

/// A file of lines that are not log lines, such as `stats.log`. It is reopened like the logs.
#[derive(Debug, Clone)]
pub struct LineFile {
    writer: Writer,
    file: FileId,
}

impl Logs {
    /// Opens the files and takes what `tracing` says from now on, unless somebody took it before.
    ///
    /// `app` is the program's name; targets `node.x` and those in `crates` are modules of it.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn start(settings: &LogSettings, app: &'static str, crates: &'static [&'static str]) -> io::Result<Self> {
        let (logs, layer) = Self::prepare(settings, Names { app, crates }, Arc::new(SystemClock))?;
        // Taken already in a test with several programs.
        let _ = tracing_subscriber::registry().with(layer).try_init();
        if settings.wants_syslog {
            tracing::warn!(target: "node.main", "syslog is not served, lines go to files and console");
        }
        Ok(logs)
    }

    fn prepare(settings: &LogSettings, names: Names, clock: Arc<dyn Clock>) -> io::Result<(Self, LogLayer)> {
        let (writer, counts) = (Writer::start(settings.rotation)?, Arc::new(Counts::default()));
        let layer = LogLayer::new(settings, names, writer.clone(), Arc::clone(&counts), clock)?;
        Ok((Self { writer, counts }, layer))
    }

    /// Opens a file for lines.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn line_file(&self, path: &Path) -> io::Result<LineFile> {
        let file = self.writer.open(path, Layout::Date)?;
        Ok(LineFile { writer: self.writer.clone(), file })
    }

    /// Opens files anew, all without `paths`; waits some seconds at most.
    ///
    /// # Errors
    /// A file is none of ours or cannot be opened; it then stays as it is. The text is for the one who asked.
    pub fn reopen(&self, paths: Option<Vec<PathBuf>>) -> Result<(), String> {
        self.writer.reopen(paths)
    }

    /// Shows the console's block, in place of the one before.
    pub fn show(&self, block: Vec<String>) {
        self.writer.block(block);
    }

    /// The number of lines by [`Level::ALL`] since this was last asked.
    #[must_use]
    pub fn take_counts(&self) -> [u64; Level::ALL.len()] {
        self.counts.take()
    }

    /// Waits until what was logged is written, some seconds at most.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

impl LineFile {
    /// Appends a line `YYYY-MM-DD HH:MM:SS,mmm REST`. Never waits.
    pub fn write(&self, at: Millis, rest: &str) {
        let mut text = String::with_capacity(rest.len() + 32);
        local_time::stamp(&mut text, at, 3);
        text.push(' ');
        text.push_str(rest.trim_start());
        text.push('\n');
        let to = Outputs { files: 1 << self.file.0, console: None };
        self.writer.line(Line { to, text, simple_at: 0, is_bad: false });
    }
}

//! The thread that writes log lines, so that a slow disk or terminal never holds up what is logged.
//!
//! Lines wait in a queue that is bounded by number and bytes; one that does not fit is counted and told of later. A
//! file that cannot be written (disk full) loses lines, not the program.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::file::LogFile;
use super::settings::{Layout, Rotation};

const MAX_LINES: usize = 8192;
const MAX_BYTES: usize = 32 << 20;
/// A batch is written when it is so long, or when nothing waits.
pub(super) const BATCH_BYTES: usize = 64 << 10;
/// How long the end waits for lines to be written.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// Where a line goes: a set of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outputs {
    /// One bit per file.
    pub(crate) files: u64,
    /// The console's layout, if it goes there.
    pub(crate) console: Option<Layout>,
}

/// A file among the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(pub(crate) u8);

/// A line on its way.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) to: Outputs,
    /// The line with its line break.
    pub(crate) text: String,
    /// Where in it the simple layout begins.
    pub(crate) simple_at: usize,
    /// Whether the console takes it on standard error.
    pub(crate) is_bad: bool,
}

enum Command {
    Line(Line),
    Open(PathBuf, Layout, SyncSender<io::Result<FileId>>),
    Reopen(Option<Vec<PathBuf>>, SyncSender<Result<(), String>>),
    Block(Vec<String>),
    Flush(SyncSender<()>),
}

/// Hands lines to the thread. The thread ends when all clones are gone.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    commands: SyncSender<Command>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread, whose files are rotated so.
    pub(crate) fn start(rotation: Rotation) -> io::Result<Self> {
        let (commands, receiver) = sync_channel(MAX_LINES);
        let (waiting, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let writing = Writing {
            receiver,
            waiting: Arc::clone(&waiting),
            lost: Arc::clone(&lost),
            rotation,
            files: Vec::new(),
            console: Console::default(),
        };
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || writing.run())?;
        Ok(Self { commands, waiting, lost })
    }

    /// Writes a line, or loses it when too much waits.
    pub(crate) fn line(&self, line: Line) {
        let bytes = line.text.len();
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_BYTES
            || self.commands.try_send(Command::Line(line)).is_err()
        {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens a file for appending, its directory as well; one that is open already is answered again.
    pub(crate) fn open(&self, path: &Path, layout: Layout) -> io::Result<FileId> {
        let gone = || io::Error::other("the log thread ended");
        let (reply, answer) = sync_channel(1);
        self.commands.send(Command::Open(path.to_owned(), layout, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Opens files anew, all of them without `paths`, so that a file that was moved away is begun again. Waits for it
    /// at most [`FLUSH_DEADLINE`].
    pub(crate) fn reopen(&self, paths: Option<Vec<PathBuf>>) -> Result<(), String> {
        let (reply, answer) = sync_channel(1);
        match self.commands.try_send(Command::Reopen(paths, reply)) {
            Ok(()) => answer.recv_timeout(FLUSH_DEADLINE).map_err(|_| "the disk does not answer".to_owned())?,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err("too many lines wait".to_owned()),
        }
    }

    /// Shows `block` below the lines of the terminal, in place of the one before. Never waits.
    pub(crate) fn block(&self, block: Vec<String>) {
        // Another one comes in a second.
        let _ = self.commands.try_send(Command::Block(block));
    }

    /// Waits until everything handed over is written, for a bounded time.
    pub(crate) fn flush(&self) {
        let (reply, answer) = sync_channel(1);
        if self.commands.try_send(Command::Flush(reply)).is_ok() {
            let _ = answer.recv_timeout(FLUSH_DEADLINE);
        }
    }

    /// Lines that found no room or could not be written.
    #[cfg(test)]
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Writing {
    receiver: Receiver<Command>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    rotation: Rotation,
    files: Vec<LogFile>,
    console: Console,
}

impl Writing {
    fn run(mut self) {
        let mut told = 0;
        loop {
            // Nothing is written while more waits, so that many lines cost one write.
            let command = match self.receiver.try_recv() {
                Ok(command) => Ok(command),
                Err(_) => {
                    self.write();
                    let lost = self.lost.load(Ordering::Relaxed);
                    if lost > told {
                        told = lost;
                        self.console.out(true, &format!("Warn [logs] - {lost} log lines were lost so far\n"));
                        self.console.write();
                    }
                    self.receiver.recv_timeout(Duration::from_secs(3600))
                }
            };
            match command {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.write();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Line(line) => self.line(&line),
            Command::Open(path, layout, reply) => {
                // Whoever asked may have gone away.
                let _ = reply.send(self.open(path, layout));
            }
            Command::Reopen(paths, reply) => {
                self.write();
                let _ = reply.send(self.reopen(paths.as_deref()));
            }
            Command::Block(block) => self.console.set_block(block),
            Command::Flush(reply) => {
                self.write();
                let _ = reply.send(());
            }
        }
    }

    fn line(&mut self, line: &Line) {
        self.waiting.fetch_sub(line.text.len(), Ordering::Relaxed);
        let simple = line.text.get(line.simple_at..).unwrap_or(&line.text);
        let layouts = |layout| if layout == Layout::Simple { simple } else { line.text.as_str() };
        for (bit, file) in self.files.iter_mut().enumerate() {
            if line.to.files >> bit & 1 == 1 {
                file.take(layouts(file.layout()), &self.lost);
            }
        }
        if let Some(layout) = line.to.console {
            self.console.out(line.is_bad, layouts(layout));
        }
    }

    fn open(&mut self, path: PathBuf, layout: Layout) -> io::Result<FileId> {
        let known = self.files.iter().position(|file| file.path() == path);
        let index = match known {
            Some(index) => index,
            None if self.files.len() >= 64 => return Err(io::Error::other("more than 64 log files")),
            None => {
                self.files.push(LogFile::open(path, layout, self.rotation)?);
                self.files.len() - 1
            }
        };
        u8::try_from(index).map(FileId).map_err(io::Error::other)
    }

    fn reopen(&mut self, paths: Option<&[PathBuf]>) -> Result<(), String> {
        let Some(paths) = paths else {
            let failures: Vec<_> = self.files.iter_mut().filter_map(|file| file.reopen().err()).collect();
            return if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) };
        };
        for path in paths {
            let file = self.files.iter_mut().find(|file| file.path() == path);
            file.ok_or_else(|| format!("no log file is called '{}'", path.display()))?.reopen()?;
        }
        Ok(())
    }

    fn write(&mut self) {
        for file in &mut self.files {
            file.write(&self.lost);
        }
        self.console.write();
    }
}

/// The terminal or pipe: lines, and below them the block that is refreshed.
#[derive(Debug, Default)]
struct Console {
    out: Vec<u8>,
    bad: Vec<u8>,
    block: Vec<String>,
    /// Lines of the block that stand on the terminal.
    shown: usize,
    is_stale: bool,
}

impl Console {
    fn out(&mut self, is_bad: bool, text: &str) {
        // Below a block everything goes to the terminal it is on, or the two would overwrite each other.
        let to = if is_bad && self.block.is_empty() { &mut self.bad } else { &mut self.out };
        to.extend_from_slice(text.as_bytes());
    }

    fn set_block(&mut self, block: Vec<String>) {
        self.block = block;
        self.is_stale = true;
    }

    fn write(&mut self) {
        if self.out.is_empty() && self.bad.is_empty() && !self.is_stale {
            return;
        }
        let mut text = Vec::new();
        if self.shown > 0 {
            // To the beginning of the block, and clear from there.
            text.extend_from_slice(format!("\x1b[{}F\x1b[J", self.shown).as_bytes());
        }
        text.append(&mut self.out);
        if !self.block.is_empty() {
            // A line that the terminal wrapped would count as one and be two: it cuts them instead.
            text.extend_from_slice(b"\x1b[?7l");
            for line in &self.block {
                text.extend_from_slice(line.as_bytes());
                text.push(b'\n');
            }
            text.extend_from_slice(b"\x1b[?7h");
        }
        self.shown = self.block.len();
        self.is_stale = false;
        // Nobody may be there to read it.
        let _ = io::stdout().write_all(&text).and_then(|()| io::stdout().flush());
        let _ = io::stderr().write_all(&self.bad);
        self.bad.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]
mod tests {
    use super::*;

    fn line(to: FileId, text: &str) -> Line {
        let to = Outputs { files: 1 << to.0, console: None };
        Line { to, text: text.to_owned(), simple_at: 0, is_bad: false }
    }

    #[test]
    fn a_moved_file_is_begun_again_when_it_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/root.log");
        let writer = Writer::start(Rotation::NEVER).unwrap();
        let id = writer.open(&path, Layout::Date).unwrap();
        assert_eq!(writer.open(&path, Layout::Date).unwrap(), id, "one file, one descriptor");
        writer.line(line(id, "one\n"));
        writer.flush();
        std::fs::rename(&path, dir.path().join("root.1")).unwrap();
        writer.line(line(id, "two\n"));
        writer.reopen(Some(vec![path.clone()])).unwrap();
        writer.line(line(id, "three\n"));
        writer.flush();
        assert_eq!(std::fs::read_to_string(dir.path().join("root.1")).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert!(writer.reopen(Some(vec!["other.log".into()])).unwrap_err().contains("other.log"));
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_file_that_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/root.log");
        let writer = Writer::start(Rotation::NEVER).unwrap();
        let id = writer.open(&path, Layout::Date).unwrap();
        std::fs::rename(dir.path().join("log"), dir.path().join("old")).unwrap();
        std::fs::write(dir.path().join("log"), "in the way").unwrap();
        assert!(writer.reopen(None).is_err());
        writer.line(line(id, "still here\n"));
        writer.flush();
        assert_eq!(std::fs::read_to_string(dir.path().join("old/root.log")).unwrap(), "still here\n");
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let writer = Writer::start(Rotation::NEVER).unwrap();
        let id = writer.open(Path::new("/dev/full"), Layout::Date).unwrap();
        writer.line(line(id, "lost\n"));
        writer.flush();
        writer.line(line(id, "lost too\n"));
        writer.flush();
        assert_eq!(writer.lost(), 2);
    }

    #[test]
    fn a_queue_that_is_full_never_holds_up_the_writer_of_a_line() {
        let (commands, _receiver) = sync_channel(2);
        let writer = Writer { commands, waiting: Arc::default(), lost: Arc::default() };
        (0..5).for_each(|_| writer.line(line(FileId(0), "x\n")));
        assert_eq!(writer.lost(), 3);
        assert_eq!(writer.waiting.load(Ordering::Relaxed), 4, "bytes of the two that wait");
        writer.line(line(FileId(0), &"x".repeat(MAX_BYTES)));
        assert_eq!(writer.lost(), 4);
    }

    #[test]
    fn lines_scroll_above_the_block() {
        let mut console = Console::default();
        console.set_block(vec!["a".into(), "b".into()]);
        console.write();
        assert_eq!(console.shown, 2);
        console.out(true, "bad\n");
        assert!(console.bad.is_empty(), "it goes where the block is");
    }
}

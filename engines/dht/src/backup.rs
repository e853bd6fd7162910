//! Daily compressed copies of the dumps (protocol §4.6: `backup-data/`).
//!
//! A backup copies every `<channel>.tcm` of the data directory to `<channel>.YYYY-MM-DD.tcm.gz`, under a temporary name
//! until it is complete and on the disk. One of the same day is replaced. Then the copies older than `keep_days` are
//! removed, of the files with such names alone, and only if every channel's copy of today succeeded.
//!
//! It runs on a thread of its own that gives way to everything else.

pub mod date;
mod system;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use overstory_swarm::channel;

pub use date::{Date, Schedule, next_run};

/// What the name of a backup ends with.
const SUFFIX: &str = ".tcm.gz";
/// What the name of one that is being written ends with.
const UNFINISHED: &str = ".tcm.gz.unfinished";
/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// How to back up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// The directory of the dumps.
    pub data: PathBuf,
    /// Where the backups go; made when it is not there.
    pub directory: PathBuf,
    /// Days for which backups are kept; at least 1.
    pub keep_days: u32,
}

/// A backup that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct BackupError {
    /// What failed, as a verb.
    pub what: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What a backup did.
#[derive(Debug, Default)]
pub struct BackupReport {
    /// Copies that were made.
    pub files: u64,
    /// Bytes of the dumps.
    pub bytes: u64,
    /// Bytes of the copies.
    pub compressed: u64,
    /// Old copies that were removed.
    pub removed: u64,
    /// What failed; the rest was done all the same.
    pub failures: Vec<BackupError>,
    /// From beginning to end.
    pub took: Duration,
}

/// Makes the backup of a day; blocks.
pub fn back_up(options: &BackupOptions, today: Date) -> BackupReport {
    let begun = Instant::now();
    let mut report = BackupReport::default();
    if let Err(error) = copy_all(options, today, &mut report) {
        report.failures.push(error);
    }
    // Better old copies than none.
    if report.failures.is_empty()
        && let Err(error) = remove_old(options, today, &mut report)
    {
        report.failures.push(error);
    }
    report.took = begun.elapsed();
    report
}

/// Makes the backup of a day on a thread of low priority; the report is sent from there.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    options: BackupOptions,
    today: Date,
    report: impl FnOnce(BackupReport) + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("backup".into()).spawn(move || {
        system::enter();
        report(back_up(&options, today));
    })
}

fn copy_all(options: &BackupOptions, today: Date, report: &mut BackupReport) -> Result<(), BackupError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| BackupError { what, path, source }
    };
    fs::create_dir_all(&options.directory).map_err(failed("make", &options.directory))?;
    let entries = fs::read_dir(&options.data).map_err(failed("read", &options.data))?;
    let mut channels = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read", &options.data))?.file_name();
        let channel = name.as_encoded_bytes().strip_suffix(b".tcm").and_then(|name| channel::check(name).ok());
        channels.extend(channel.map(str::to_owned));
    }
    channels.sort();
    for channel in channels {
        let from = options.data.join(format!("{channel}.tcm"));
        match copy(&from, &options.directory, &channel, today) {
            Ok((bytes, compressed)) => {
                report.files += 1;
                report.bytes += bytes;
                report.compressed += compressed;
            }
            // Removed since it was listed.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound && !from.exists() => {}
            Err(error) => report.failures.push(error),
        }
    }
    File::open(&options.directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync", &options.directory))
}

fn copy(from: &Path, directory: &Path, channel: &str, today: Date) -> Result<(u64, u64), BackupError> {
    let unfinished = directory.join(format!("{channel}.{today}{UNFINISHED}"));
    let place = directory.join(format!("{channel}.{today}{SUFFIX}"));
    let mut source = File::open(from).map_err(|source| BackupError { what: "read", path: from.to_owned(), source })?;
    let copied = compress(&mut source, &unfinished);
    match copied.and_then(|sizes| fs::rename(&unfinished, &place).map(|()| sizes)) {
        Ok(sizes) => Ok(sizes),
        Err(source) => {
            let _gone = fs::remove_file(&unfinished);
            Err(BackupError { what: "write", path: place, source })
        }
    }
}

/// Compresses a file to the disk; the bytes read and written.
fn compress(from: &mut File, to: &Path) -> io::Result<(u64, u64)> {
    let mut encoder = GzEncoder::new(File::create(to)?, Compression::fast());
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        encoder.write_all(buffer.get(..count).unwrap_or_default())?;
        bytes += count as u64;
    }
    let file = encoder.finish()?;
    file.sync_all()?;
    Ok((bytes, file.metadata()?.len()))
}

/// Removes the copies that are too old, and unfinished ones of other days.
fn remove_old(options: &BackupOptions, today: Date, report: &mut BackupReport) -> Result<(), BackupError> {
    let failed = |what, path: &Path, source| BackupError { what, path: path.to_owned(), source };
    let entries = fs::read_dir(&options.directory).map_err(|source| failed("read", &options.directory, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| failed("read", &options.directory, source))?;
        let name = entry.file_name();
        let Some((date, finished)) = name.to_str().and_then(backup_date) else { continue };
        let age = today.days() - date.days();
        let old = if finished { age >= i64::from(options.keep_days.max(1)) } else { age != 0 };
        if old {
            match fs::remove_file(entry.path()) {
                Ok(()) => report.removed += u64::from(finished),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("remove", &entry.path(), source)),
            }
        }
    }
    Ok(())
}

/// The date in the name of a backup, and whether it is finished.
fn backup_date(name: &str) -> Option<(Date, bool)> {
    let (stem, finished) = match name.strip_suffix(SUFFIX) {
        Some(stem) => (stem, true),
        None => (name.strip_suffix(UNFINISHED)?, false),
    };
    let (channel, date) = stem.split_once('.')?;
    channel::check(channel.as_bytes()).ok()?;
    Some((date.parse().ok()?, finished))
}

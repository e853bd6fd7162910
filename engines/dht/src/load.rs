//! Reads the dumps of a data directory at the start of a node (protocol §3.1).
//!
//! What is loaded: every `<channel>.tcm` that is a file and has a valid channel name. If it cannot be used at all (it
//! is empty, of another version, or cannot be opened) and there is a `<channel>.tcm.backup`, that one is loaded in its
//! place, because the next dump would make the unusable file the backup. A damaged file is loaded as far as its
//! records are whole, without the backup: that would bring back records that were removed. A backup without a `.tcm`
//! is not loaded: the name of a dump is never absent unless somebody removed it. Whatever is not loaded, the log says so.
//!
//! What was stored before is loaded whatever `size_limit` is. A file from which not everything was loaded is kept in
//! `damaged/`, because the next dumps replace it.

mod keep;
mod reading;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use overstory_node::data_lock;
use overstory_swarm::channel;
use overstory_swarm::key::HashRange;

use crate::dump::DataDir;
use crate::dump::data_dir::{BACKUP_SUFFIX, DAMAGED, DELETED, DUMPING_SUFFIX, SUFFIX};
use crate::storage::Store;
use crate::tcm::{Reader, Reason, TcmError};
use reading::{Batch, Reading, Wanted};

/// The name under which the log shows this module.
const TARGET: &str = "dhtnode.storage.DumpManager";

/// What to do with records whose keys the node is not responsible for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Load them.
    #[default]
    Load,
    /// End the start.
    Fatal,
    /// Leave them out.
    Ignore,
}

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// The keys that the node is responsible for.
    pub range: HashRange,
    /// What to do with others.
    pub allow_out_of_range: OutOfRange,
    /// The load fails if there are more records than this and none of them is in the range; 0: never.
    pub abort_after_all_out_of_range: u64,
    /// The longest value that is loaded, in bytes (`batch_size`).
    pub max_value: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            range: HashRange::FULL,
            allow_out_of_range: OutOfRange::Load,
            abort_after_all_out_of_range: 10_000,
            max_value: 65_536,
        }
    }
}

/// Records and stretches that were not loaded, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejected {
    /// Keys that are neither 16 hexadecimal digits nor 8 bytes.
    pub bad_keys: u64,
    /// Records without a value.
    pub empty_values: u64,
    /// Records whose value is longer than the limit.
    pub too_large: u64,
    /// Damaged stretches that were passed over.
    pub damaged: u64,
    /// Bytes in them, and behind the last whole record of files that were cut.
    pub damaged_bytes: u64,
    /// Files that end without the end mark.
    pub cut: u64,
    /// Records that were left out because of their range.
    pub out_of_range: u64,
    /// Records for which the system had no memory; `size_limit` does not count here.
    pub no_memory: u64,
}

impl Rejected {
    /// Whether anything was not loaded, those out of range aside.
    #[must_use]
    pub fn any(&self) -> bool {
        Self { out_of_range: 0, ..*self } != Self::default()
    }

    /// The reasons by name, with their counts.
    fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("bad_keys", self.bad_keys),
            ("empty_values", self.empty_values),
            ("too_large", self.too_large),
            ("damaged", self.damaged),
            ("damaged_bytes", self.damaged_bytes),
            ("cut", self.cut),
            ("out_of_range", self.out_of_range),
            ("no_memory", self.no_memory),
        ]
    }

    fn count(&mut self, reason: Reason, length: u64) {
        match reason {
            Reason::BadKey => self.bad_keys += 1,
            Reason::EmptyValue => self.empty_values += 1,
            Reason::TooLarge => self.too_large += 1,
            Reason::Damaged => {
                self.damaged += 1;
                self.damaged_bytes += length;
            }
            Reason::Cut => {
                self.cut += 1;
                self.damaged_bytes += length;
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.bad_keys += other.bad_keys;
        self.empty_values += other.empty_values;
        self.too_large += other.too_large;
        self.damaged += other.damaged;
        self.damaged_bytes += other.damaged_bytes;
        self.cut += other.cut;
        self.out_of_range += other.out_of_range;
        self.no_memory += other.no_memory;
    }
}

impl fmt::Display for Rejected {
    /// `reason=count` of those that are not 0, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (reason, count) in self.named().into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{between}{reason}={count}")?;
            between = " ";
        }
        f.write_str(if between.is_empty() { "none" } else { "" })
    }
}

/// What became of one file.
#[derive(Debug)]
pub struct FileReport {
    /// The channel.
    pub channel: String,
    /// The file that was read.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Records that were loaded.
    pub records: u64,
    /// Records whose keys the node is responsible for, loaded or not.
    pub in_range: u64,
    /// Records whose keys it is not responsible for, loaded or not.
    pub out_of_range: u64,
    /// What was not loaded.
    pub rejected: Rejected,
    /// Why it could not be read, or not to its end.
    pub error: Option<TcmError>,
    /// Where it stays as it was, if not everything was loaded.
    pub kept: Option<PathBuf>,
}

/// What a load did.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Every file that was opened, a backup that took its place among them.
    pub files: Vec<FileReport>,
    /// Names in the directory that were ignored, and why.
    pub ignored: Vec<(PathBuf, &'static str)>,
    /// Records that were loaded.
    pub records: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Records whose keys the node is responsible for, loaded or not.
    pub in_range: u64,
    /// Records whose keys it is not responsible for, loaded or not.
    pub out_of_range: u64,
    /// What was not loaded.
    pub rejected: Rejected,
    /// From beginning to end.
    pub took: Duration,
}

impl LoadReport {
    /// Files that could not be read, or not to their ends.
    pub fn failures(&self) -> impl Iterator<Item = (&Path, &TcmError)> {
        self.files.iter().filter_map(|file| file.error.as_ref().map(|error| (&*file.path, error)))
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The channel that is being read.
    pub channel: &'a str,
    /// Bytes of all files read so far.
    pub bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Records loaded so far.
    pub records: u64,
}

/// Why a node must not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record is out of the range, and the policy is [`OutOfRange::Fatal`].
    #[error("{}: key {key} is outside of the hash range {:#018x} to {:#018x} (allow_out_of_range = fatal)", path.display(), range.min(), range.max())]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The first such key.
        key: overstory_swarm::key::Key,
        /// The node's range.
        range: HashRange,
    },
    /// Every record is out of the range, and there are many.
    #[error("all of {records} records are outside of the hash range {:#018x} to {:#018x} (abort_after_all_out_of_range)", range.min(), range.max())]
    AllOutOfRange {
        /// How many there are.
        records: u64,
        /// The node's range.
        range: HashRange,
    },
    /// The thread that reads cannot be started.
    #[error("cannot start the thread that reads: {0}")]
    Thread(io::Error),
}

/// Loads every dump of the directory.
///
/// # Errors
/// The directory cannot be read, or records are out of the range and the options say that this is fatal. A file that
/// cannot be read is none: see the report.
pub fn load(dir: &DataDir, options: &LoadOptions, store: &mut Store) -> Result<LoadReport, LoadError> {
    load_with(dir, options, store, &mut |progress| {
        tracing::info!(
            target: TARGET, channel = progress.channel, records = progress.records, bytes = progress.bytes,
            total_bytes = progress.total_bytes, "loading"
        );
    })
}

/// [`load`], telling every five seconds how far it is.
///
/// # Errors
/// See [`load`].
pub fn load_with(
    dir: &DataDir,
    options: &LoadOptions,
    store: &mut Store,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LoadReport, LoadError> {
    let begun = Instant::now();
    let mut report = LoadReport::default();
    let found = find(dir, &mut report)?;
    let total_bytes = found.iter().map(|(_, size)| size).sum();
    let mut load = Load { options, store, report, told: begun, total_bytes, progress };
    for (channel, _) in found {
        load.channel(dir, &channel)?;
    }
    let mut report = std::mem::take(&mut load.report);
    report.took = begun.elapsed();
    let (records, out_of_range) = (report.records, report.out_of_range);
    tracing::info!(
        target: TARGET, channels = report.files.len(), records, bytes = report.bytes, out_of_range,
        rejected = %report.rejected, milliseconds = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX), "loaded"
    );
    let (memory, size_limit) = (load.store.memory(), load.store.size_limit());
    if size_limit > 0 && memory > size_limit {
        tracing::warn!(target: TARGET, memory, size_limit, "more loaded than size_limit allows: puts are refused until there is room");
    }
    let limit = options.abort_after_all_out_of_range;
    if limit != 0 && report.in_range == 0 && out_of_range > limit {
        return Err(LoadError::AllOutOfRange { records: out_of_range, range: options.range });
    }
    Ok(report)
}

/// The channels that have a dump, sorted, with the sizes of the files.
fn find(dir: &DataDir, report: &mut LoadReport) -> Result<Vec<(String, u64)>, LoadError> {
    let failed = |source| LoadError::Directory { path: dir.path().to_owned(), source };
    let mut found = Vec::new();
    let mut backups = Vec::new();
    for entry in fs::read_dir(dir.path()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        // Follows links: a dump may lie elsewhere.
        let metadata = fs::metadata(entry.path());
        let mut ignore = |why: &'static str| {
            tracing::warn!(target: TARGET, file = %entry.path().display(), why, "ignored in the data directory");
            report.ignored.push((entry.path(), why));
        };
        let directory = metadata.as_ref().is_ok_and(fs::Metadata::is_dir);
        if directory {
            if bytes != DELETED.as_bytes() && bytes != DAMAGED.as_bytes() {
                ignore("a directory");
            }
        } else if bytes.ends_with(DUMPING_SUFFIX.as_bytes()) {
            ignore("an unfinished dump");
        } else if let Some(channel) = bytes.strip_suffix(BACKUP_SUFFIX.as_bytes()) {
            if let Ok(channel) = channel::check(channel) {
                backups.push((channel.to_owned(), entry.path()));
            }
        } else if let Some(channel) = bytes.strip_suffix(SUFFIX.as_bytes()) {
            match (channel::check(channel), metadata) {
                (Err(_), _) => ignore("not the name of a channel"),
                (Ok(_), Ok(metadata)) if !metadata.is_file() => ignore("not a file"),
                (Ok(channel), metadata) => {
                    found.push((channel.to_owned(), metadata.map_or(0, |metadata| metadata.len())))
                }
            }
        } else if bytes != data_lock::FILE.as_bytes() {
            ignore("another kind of file");
        }
    }
    found.sort();
    for (channel, path) in backups {
        if found.binary_search_by(|(found, _)| found.cmp(&channel)).is_err() {
            tracing::warn!(target: TARGET, file = %path.display(), "ignored: a backup whose dump is gone");
            report.ignored.push((path, "a backup whose dump is gone"));
        }
    }
    Ok(found)
}

struct Load<'a> {
    options: &'a LoadOptions,
    store: &'a mut Store,
    report: LoadReport,
    told: Instant,
    total_bytes: u64,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Load<'_> {
    fn channel(&mut self, dir: &DataDir, channel: &str) -> Result<(), LoadError> {
        if self.file(channel, dir.file(channel))? {
            return Ok(());
        }
        let backup = dir.backup_file(channel);
        if backup.exists() {
            tracing::warn!(target: TARGET, channel, file = %backup.display(), "loading the backup in place of the unusable dump");
            self.file(channel, backup)?;
        }
        Ok(())
    }

    /// Loads one file; false if it cannot be used at all.
    fn file(&mut self, channel: &str, path: PathBuf) -> Result<bool, LoadError> {
        let limit = self.options.max_value;
        let opened = File::open(&path).map_err(|source| TcmError::Io { offset: 0, source });
        let mut file = FileReport {
            channel: channel.to_owned(),
            path,
            size: 0,
            records: 0,
            in_range: 0,
            out_of_range: 0,
            rejected: Rejected::default(),
            error: None,
            kept: None,
        };
        let reader = match opened.and_then(|opened| Reader::new(opened, limit)) {
            Ok(reader) => reader,
            Err(error) => {
                tracing::warn!(target: TARGET, file = %file.path.display(), %error, "dump not loaded");
                file.error = Some(error);
                file.kept = keep::keep(&file.path);
                self.report.files.push(file);
                return Ok(false);
            }
        };
        file.size = reader.size();
        self.store.create_channel(channel);
        let LoadOptions { range, allow_out_of_range, .. } = *self.options;
        let wanted = Wanted { range, foreign: allow_out_of_range == OutOfRange::Load };
        let mut reading = Reading::start(reader, wanted).map_err(LoadError::Thread)?;
        while let Some(batch) = reading.next_batch() {
            self.batch(&mut file, batch)?;
            if self.told.elapsed() >= Duration::from_secs(5) {
                self.told = Instant::now();
                (self.progress)(Progress {
                    channel,
                    bytes: self.report.bytes + batch.offset,
                    total_bytes: self.total_bytes,
                    records: self.report.records + file.records,
                });
            }
        }
        file.error = reading.finish();
        self.over(file);
        Ok(true)
    }

    fn batch(&mut self, file: &mut FileReport, batch: &Batch) -> Result<(), LoadError> {
        let LoadOptions { range, allow_out_of_range, .. } = *self.options;
        for &(reason, length) in &batch.rejected {
            file.rejected.count(reason, length);
        }
        file.in_range += batch.in_range;
        file.out_of_range += batch.out_of_range;
        match (allow_out_of_range, batch.foreign) {
            (OutOfRange::Fatal, Some(key)) => {
                return Err(LoadError::OutOfRange { path: file.path.clone(), key, range });
            }
            (OutOfRange::Ignore, Some(_)) => file.rejected.out_of_range += batch.out_of_range,
            _ => {}
        }
        let refused = self.store.put_many(&file.channel, &batch.entries, &batch.bytes);
        file.rejected.no_memory += refused;
        file.records += batch.entries.len() as u64 - refused;
        Ok(())
    }

    fn over(&mut self, mut file: FileReport) {
        let report = &mut self.report;
        report.records += file.records;
        report.bytes += file.size;
        report.in_range += file.in_range;
        report.out_of_range += file.out_of_range;
        report.rejected.add(&file.rejected);
        let path = file.path.display();
        match &file.error {
            Some(error) => {
                tracing::error!(target: TARGET, file = %path, records = file.records, %error, "dump read in part");
            }
            None if file.rejected.any() => {
                tracing::warn!(target: TARGET, file = %path, records = file.records, rejected = %file.rejected, "dump loaded, not all of it usable");
            }
            None => tracing::info!(target: TARGET, file = %path, records = file.records, "dump loaded"),
        }
        if file.error.is_some() || file.rejected != Rejected::default() {
            file.kept = keep::keep(&file.path);
        }
        if (file.error.is_some() || file.rejected.damaged + file.rejected.cut > 0)
            && let Some(backup) = file.path.to_str().map(|path| PathBuf::from(format!("{path}.backup")))
            && backup.exists()
        {
            tracing::warn!(target: TARGET, file = %file.path.display(), backup = %backup.display(), "the backup may hold what is missing");
            keep::keep(&backup);
        }
        report.files.push(file);
    }
}

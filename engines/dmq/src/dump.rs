//! Writes what is in memory only to `.rq` files at the end of a node (`docs/formats/rq.md`).
//!
//! Of each queue that is: its records in memory up to the last one that is not on disk. What is on disk stays there, unless
//! it lies before such a record: then it goes to the file, too, so that the order is kept, and the disk is told so.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::load;
use crate::rq::{HEADER, SUFFIX, Writer};
use crate::store::{Store, Unsaved};

/// Why a queue could not be dumped; its records are in memory still.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct DumpError {
    /// What failed, as a verb.
    pub what: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What became of a queue in a dump.
#[derive(Debug)]
pub struct QueueDump {
    /// Its name.
    pub queue: String,
    /// Its file.
    pub path: PathBuf,
    /// Records in the file.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Why there is no file.
    pub error: Option<DumpError>,
}

/// What a dump did.
#[derive(Debug, Default)]
pub struct DumpReport {
    /// The queues that had records in memory only.
    pub queues: Vec<QueueDump>,
    /// What the disk said when it was told what it need not keep any more.
    pub disk: Option<DiskError>,
}

impl DumpReport {
    /// Whether every record is in a file.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.disk.is_none() && self.queues.iter().all(|queue| queue.error.is_none())
    }
}

/// Dumps every queue that has records in memory only; one that fails does not stop the others. Consumers and producers
/// are gone by then: what they gave back is in the queues.
///
/// A file is written under a temporary name, brought to the disk and renamed; a file that is in its place already, because
/// it could not be deleted at the start, goes to [`load::DAMAGED`]. An empty queue has no file.
pub fn dump(dir: &Path, store: &mut Store) -> DumpReport {
    let mut report = DumpReport::default();
    for name in store.queue_names() {
        let unsaved = store.unsaved(&name, &mut |_| ());
        if unsaved.records == 0 {
            continue;
        }
        let path = dir.join(format!("{name}{SUFFIX}"));
        let error = dump_queue(dir, &path, &name, store, unsaved).err();
        let queue = name.to_string();
        let (records, bytes) = (unsaved.records, HEADER + unsaved.bytes);
        report.queues.push(QueueDump { queue, path, records, bytes, error });
    }
    if report.queues.is_empty() {
        return report;
    }
    // Only now the files have their names for good; until then the disk keeps what it has.
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    for queue in &mut report.queues {
        if queue.error.is_some() {
            continue;
        }
        if let Err(error) = &synced {
            let source = io::Error::new(error.kind(), error.to_string());
            queue.error = Some(DumpError { what: "sync the directory of", path: queue.path.clone(), source });
            continue;
        }
        let unsaved = store.unsaved(&queue.queue, &mut |_| ());
        let saved = store.saved(&queue.queue, unsaved);
        report.disk = report.disk.take().or(saved.err());
    }
    let settled = store.settle();
    report.disk = report.disk.take().or(settled.err());
    report
}

fn dump_queue(dir: &Path, path: &Path, name: &str, store: &Store, unsaved: Unsaved) -> Result<(), DumpError> {
    let failed = |what| move |source| DumpError { what, path: path.to_owned(), source };
    let mut writer = Writer::create(dir, name, unsaved.records, unsaved.bytes).map_err(failed("create"))?;
    let mut written = Ok(());
    store.unsaved(name, &mut |records| {
        if written.is_ok() {
            written = writer.write(records);
        }
    });
    written.map_err(failed("write"))?;
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
        load::move_away(dir, path).map_err(failed("move away"))?;
    }
    writer.finish().map_err(failed("write"))
}

#[cfg(test)]
mod tests;

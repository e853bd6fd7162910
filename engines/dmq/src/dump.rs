//! Writes what is in memory only to `.rq` files at the end of a node (`docs/formats/rq.md`).
//!
//! Of each queue that is: its records in memory up to the last one that is not on disk. What is on disk stays there, unless
//! it lies before such a record: then it goes to the file, too, so that the order is kept, and the disk is told so.

mod pending;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::load;
use crate::persistence::staging;
use crate::rq::{Finished, HEADER, SUFFIX, Writer};
use crate::store::{Store, Unsaved};
use pending::Saved;
pub use pending::{Pending, done};

/// Files up to which each is brought to the disk by itself.
const FEW: usize = 32;

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
/// The files are written under temporary names and brought to the disk; then a list of them ([`Pending`]) says that they
/// hold, and they are renamed. A file that is in the place of one already, because it could not be deleted at the
/// start, goes to [`load::DAMAGED`]. An empty queue has no file. [`done`] ends it.
pub fn dump(dir: &Path, store: &mut Store) -> DumpReport {
    let mut report = DumpReport::default();
    let mut names: Vec<_> =
        store.queue_names().into_iter().map(|name| (store.unsaved(&name, &mut |_| ()), name)).collect();
    names.retain(|(unsaved, _)| unsaved.records > 0);
    if names.is_empty() {
        return report;
    }
    // Thousands of files are brought to the disk together, rather than one after the other. The directory is open before
    // they are written: errors are told to those who were there.
    let few = names.len() <= FEW;
    let opened = File::open(dir);
    report.disk = store.settle().err();
    let mut list = Vec::with_capacity(names.len());
    let mut files = Vec::with_capacity(names.len());
    for (unsaved, name) in names {
        let path = dir.join(format!("{name}{SUFFIX}"));
        let file = write(dir, &path, &name, store, unsaved, few);
        let (records, bytes) = (unsaved.records, HEADER + unsaved.bytes);
        if file.is_ok() {
            list.push(Saved { queue: name.to_string(), left: store.left(&name, unsaved), bytes });
        }
        files.push(file);
        report.queues.push(QueueDump { queue: name.into(), path, records, bytes, error: None });
    }
    let together = |dir: &File| if few { Ok(()) } else { Ok(nix::unistd::syncfs(dir)?) };
    staging::step(dir);
    let synced = opened.as_ref().map_err(again).and_then(together).and_then(|()| pending::write(dir, &list));
    staging::step(dir);
    for (queue, file) in report.queues.iter_mut().zip(files) {
        let placed = file.and_then(|file| {
            synced.as_ref().map_err(again).map_err(failed("sync", &queue.path))?;
            place(dir, &queue.path, file)
        });
        queue.error = placed.err();
        staging::step(dir);
    }
    // Only now the files have their names for good; until then the disk behind the store keeps what it has.
    let synced = opened.and_then(|dir| dir.sync_all());
    for queue in report.queues.iter_mut().filter(|queue| queue.error.is_none()) {
        if let Err(error) = synced.as_ref().map_err(again) {
            queue.error = Some(failed("sync the directory of", &queue.path)(error));
            continue;
        }
        let unsaved = store.unsaved(&queue.queue, &mut |_| ());
        let saved = store.saved(&queue.queue, unsaved);
        report.disk = report.disk.take().or(saved.err());
    }
    let settled = store.settle();
    report.disk = report.disk.take().or(settled.err());
    staging::step(dir);
    report
}

/// Writes the file of a queue under its temporary name.
fn write(
    dir: &Path,
    path: &Path,
    name: &str,
    store: &Store,
    unsaved: Unsaved,
    sync: bool,
) -> Result<Finished, DumpError> {
    let mut writer = Writer::create(dir, name, unsaved.records, unsaved.bytes).map_err(failed("create", path))?;
    let mut written = Ok(());
    store.unsaved(name, &mut |records| {
        if written.is_ok() {
            written = writer.write(records);
        }
    });
    written.and_then(|()| writer.finish(sync)).map_err(failed("write", path))
}

/// Gives a file its name.
fn place(dir: &Path, path: &Path, file: Finished) -> Result<(), DumpError> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
        load::move_away(dir, path).map_err(failed("move away", path))?;
    }
    file.place().map_err(failed("rename", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DumpError {
    let path = path.to_owned();
    move |source| DumpError { what, path, source }
}

/// The same error, for another file.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests;

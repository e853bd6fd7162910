//! Writes what is in memory only to `.rq` files at the end of a node.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::store::Store;

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
#[expect(unused_variables, reason = "signatures first")]
pub fn dump(dir: &Path, store: &mut Store) -> DumpReport {
    unimplemented!()
}

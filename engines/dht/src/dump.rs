//! Writes the channels to their files (protocol §3.1, `docs/formats/tcm.md`).
//!
//! A dump is no snapshot: records are read slice by slice while requests go on, so it holds every record that was there
//! from beginning to end, and of those that came, changed or went meanwhile the state at some moment of the dump.
//!
//! The node's thread encodes a slice into a buffer (a fraction of a millisecond), one other thread writes the buffers;
//! there are never more than [`CHUNKS`] of them. A file is written under a temporary name, brought to the disk, and
//! then takes the place of the old one, which stays as `.tcm.backup`; whatever happens before that leaves the old file
//! as it was.

mod chunk;
pub mod data_dir;
mod dumper;
pub mod file;
#[cfg(test)]
mod tests;
mod writer;

pub use data_dir::DataDir;
pub use dumper::{Dumper, Step};
pub use file::DumpFile;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::storage::Store;

/// Bytes of a buffer between the node's thread and the writing one.
pub const CHUNK: usize = 512 * 1024;

/// Buffers of a dump: 4 MiB in all.
pub const CHUNKS: usize = 8;

/// A dump file that could not be written; the old one, if any, is untouched.
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

/// How to dump.
#[derive(Debug, Clone, Copy, Default)]
pub struct DumpOptions {
    /// Whether files are written through the page cache rather than past it.
    pub disable_direct_io: bool,
}

/// What became of a channel in a dump.
#[derive(Debug)]
pub enum Outcome {
    /// Its file is complete and on the disk.
    Written,
    /// It was removed meanwhile; nothing was left behind.
    Removed,
    /// It could not be written.
    Failed(DumpError),
}

/// A channel in a dump.
#[derive(Debug)]
pub struct ChannelDump {
    /// Its name.
    pub channel: String,
    /// Records written.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// How it went.
    pub outcome: Outcome,
}

/// What a dump did.
#[derive(Debug, Default)]
pub struct DumpReport {
    /// Every channel, in the order of their dumps.
    pub channels: Vec<ChannelDump>,
    /// Bytes written of all complete files.
    pub bytes: u64,
    /// Records in all complete files.
    pub records: u64,
    /// From beginning to end.
    pub took: Duration,
}

impl DumpReport {
    /// Whether no channel failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The channels that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &DumpError)> {
        self.channels.iter().filter_map(|channel| match &channel.outcome {
            Outcome::Failed(error) => Some((&*channel.channel, error)),
            _ => None,
        })
    }

    fn new(channels: Vec<ChannelDump>, took: Duration) -> Self {
        let mut report = Self { took, ..Self::default() };
        for channel in channels.iter().filter(|channel| matches!(channel.outcome, Outcome::Written)) {
            report.bytes += channel.bytes;
            report.records += channel.records;
        }
        report.channels = channels;
        report
    }
}

/// Dumps every channel while requests go on: gives way after each slice.
///
/// The store is borrowed only within a slice. Dropping the future ends the dump; complete files stay.
pub async fn dump(store: &RefCell<Store>, dir: &DataDir, options: DumpOptions) -> DumpReport {
    let begun = Instant::now();
    let ready = Arc::new(Notify::new());
    let notify = Arc::clone(&ready);
    let names = store.borrow().channel_names();
    let mut dumper = Dumper::start(names, dir, options, Arc::new(move || notify.notify_one()));
    loop {
        let step = dumper.step(&store.borrow());
        match step {
            Step::Again => tokio::task::yield_now().await,
            Step::Wait => ready.notified().await,
            Step::Done => return DumpReport::new(dumper.finish(), begun.elapsed()),
        }
    }
}

/// Dumps every channel and returns when all is on the disk: for the end of the node.
pub fn dump_all(store: &Store, dir: &DataDir, options: DumpOptions) -> DumpReport {
    let begun = Instant::now();
    let mut dumper = Dumper::start(store.channel_names(), dir, options, Arc::new(|| ()));
    loop {
        match dumper.step(store) {
            Step::Again => {}
            Step::Wait => dumper.wait(),
            Step::Done => return DumpReport::new(dumper.finish(), begun.elapsed()),
        }
    }
}

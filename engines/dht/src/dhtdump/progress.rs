//! What `dhtdump` has done, for `stats.log` and the platform.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use overstory_node::inspect::{DumpFacts, Totals};
use overstory_node::stats::Fields;

/// Bytes that each record is counted with beside key and value: their lengths.
pub(super) const RECORD_OVERHEAD: u64 = 16;
/// Bytes of a key in the file.
pub(super) const KEY_LENGTH: u64 = 16;

/// A channel as it was dumped last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Since the last line of `stats.log`.
    written: Cell<(u64, u64)>,
    last_time: Cell<Duration>,
    channels: RefCell<BTreeMap<String, Written>>,
    /// What is being dumped.
    pub(super) current: RefCell<Option<String>>,
    pub(super) dump: RefCell<DumpFacts>,
}

impl Progress {
    /// Counts records that are on their way to the disk.
    pub(super) fn add(&self, records: u64, bytes: u64) {
        let (before_records, before_bytes) = self.written.get();
        self.written.set((before_records.saturating_add(records), before_bytes.saturating_add(bytes)));
    }

    /// Notes that a channel is complete.
    pub(super) fn done(&self, channel: &str, written: Written) {
        self.channels.borrow_mut().insert(channel.to_owned(), written);
    }

    /// Notes that a cycle is complete: channels that the node no longer has are forgotten.
    pub(super) fn complete(&self, channels: &[String], took: Duration) {
        self.last_time.set(took);
        self.channels.borrow_mut().retain(|name, _| channels.contains(name));
    }

    /// Fills in the line of `stats.log` and begins a new interval.
    pub(super) fn stats(&self, fields: &mut Fields) {
        let (records, bytes) = self.written.take();
        fields.int("records_written", records);
        fields.int("bytes_written", bytes);
        fields.int("last_time_ms", u64::try_from(self.last_time.get().as_millis()).unwrap_or(u64::MAX));
        for (name, written) in &*self.channels.borrow() {
            fields.of("channel", name, "records_written", written.records);
            fields.of("channel", name, "bytes_written", written.bytes);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.channels.borrow().values().fold(Totals::default(), |sum, written| Totals {
            records: sum.records.saturating_add(written.records),
            bytes: sum.bytes.saturating_add(written.bytes),
        })
    }

    pub(super) fn channels(&self) -> u64 {
        self.channels.borrow().len() as u64
    }
}

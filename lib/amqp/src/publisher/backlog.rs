//! What waits in the spool, and how far it was sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use overstory_model::clock::{Clock, SystemClock};
use overstory_runtime::spool::{Spool, SpoolError};

use super::Shared;
use crate::message::Outgoing;

/// Bytes that are read ahead at most.
const READ_BYTES: usize = 1 << 20;

/// A message as the spool keeps it.
pub(super) fn encoded(message: &Outgoing) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.body.len() + 256);
    message.encode(&mut payload);
    payload
}

/// The spool of a publisher. Files are touched on blocking threads only.
pub(super) struct Backlog {
    spool: Arc<Mutex<Spool>>,
    shared: Arc<Shared>,
    /// Read and not sent.
    fetched: VecDeque<(u64, Outgoing)>,
    /// Read or sent and not released, with the time when they were written.
    sent: BTreeMap<u64, i64>,
    /// Confirmed, while one before them is not.
    done: BTreeSet<u64>,
    /// The greatest number that was read or sent since the last rewind.
    seen: u64,
    next_sequence: u64,
    released: u64,
    oldest_unread_ms: i64,
}

impl Backlog {
    pub(super) fn open(dir: &Path, max_bytes: u64, shared: &Arc<Shared>) -> Result<Self, SpoolError> {
        let mut spool = Spool::open(dir, max_bytes)?;
        let oldest = spool.read(1, 1)?.first().map_or(0, |record| record.at_ms);
        spool.rewind();
        let backlog = Self {
            shared: Arc::clone(shared),
            fetched: VecDeque::new(),
            sent: BTreeMap::new(),
            done: BTreeSet::new(),
            seen: spool.released(),
            next_sequence: spool.next_sequence(),
            released: spool.released(),
            oldest_unread_ms: oldest,
            spool: Arc::new(Mutex::new(spool)),
        };
        backlog.tell();
        Ok(backlog)
    }

    /// Whether nothing waits in the spool.
    pub(super) const fn is_empty(&self) -> bool {
        self.released + 1 >= self.next_sequence
    }

    /// Whether everything in the spool is under way.
    pub(super) fn all_sent(&self) -> bool {
        self.seen + 1 >= self.next_sequence && self.fetched.is_empty()
    }

    /// Runs `work` on the spool where it may block.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = Arc::clone(&self.spool);
        let work = move || work(&mut spool.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            // Only a runtime that ends does this; nothing was promised to anybody.
            Err(error) => {
                Err(SpoolError::Io { path: Path::new("spool").to_owned(), source: std::io::Error::other(error) })
            }
        }
    }

    /// Writes messages to the disk and says which numbers the first of them got; the spool may be too full for the
    /// rest.
    pub(super) async fn append(&mut self, payloads: Vec<Vec<u8>>) -> Result<Range<u64>, SpoolError> {
        let now = SystemClock.now().0;
        let taken = self.on_disk(move |spool| spool.append(&payloads, now)).await? as u64;
        if self.all_sent() {
            self.oldest_unread_ms = now;
        }
        let first = self.next_sequence;
        self.next_sequence += taken;
        self.shared.spooled.fetch_add(taken, Ordering::Relaxed);
        self.tell();
        Ok(first..first + taken)
    }

    /// Notes that the message with this number, just appended, is under way already.
    pub(super) fn is_under_way(&mut self, sequence: u64) {
        self.sent.insert(sequence, self.oldest_unread_ms);
        self.seen = self.seen.max(sequence);
    }

    /// The next message to send.
    pub(super) async fn next(&mut self, read_ahead: usize) -> Result<Option<(u64, Outgoing)>, SpoolError> {
        while self.fetched.is_empty() && !self.all_sent() {
            let records = self.on_disk(move |spool| spool.read(read_ahead, READ_BYTES)).await?;
            if records.is_empty() {
                // What is left cannot be read; it was logged and kept aside.
                self.seen = self.next_sequence - 1;
                if self.sent.is_empty() {
                    self.release(self.seen, u64::MAX).await?;
                }
            }
            for record in records {
                self.seen = self.seen.max(record.sequence);
                self.oldest_unread_ms = record.at_ms;
                if self.sent.insert(record.sequence, record.at_ms).is_some() || self.done.contains(&record.sequence) {
                    continue;
                }
                match Outgoing::decode(Bytes::from(record.payload)) {
                    Some(message) => self.fetched.push_back((record.sequence, message)),
                    None => {
                        tracing::error!(sequence = record.sequence, "a spooled record is no message, passed over");
                        self.done.insert(record.sequence);
                    }
                }
            }
        }
        Ok(self.fetched.pop_front())
    }

    /// Notes that the broker has the message with this number.
    pub(super) fn confirmed(&mut self, sequence: u64) {
        self.done.insert(sequence);
    }

    /// Releases what is confirmed without a gap.
    pub(super) async fn advance(&mut self) -> Result<(), SpoolError> {
        let (mut last, mut count) = (None, 0);
        while let Some(first) = self.sent.first_entry() {
            if !self.done.remove(first.key()) {
                break;
            }
            last = Some(first.remove_entry().0);
            count += 1;
        }
        match last {
            // Unreadable records at the end go with the last one that could be read.
            Some(_) if self.sent.is_empty() && self.all_sent() => self.release(self.next_sequence - 1, u64::MAX).await,
            Some(last) => self.release(last, count).await,
            None => Ok(()),
        }
    }

    async fn release(&mut self, sequence: u64, count: u64) -> Result<(), SpoolError> {
        self.released = sequence;
        self.on_disk(move |spool| spool.release(sequence, count)).await?;
        self.tell();
        Ok(())
    }

    /// Starts over with the oldest message that is not confirmed.
    pub(super) fn rewind(&mut self) {
        self.fetched.clear();
        self.sent.clear();
        self.seen = self.released;
        self.spool.lock().unwrap_or_else(PoisonError::into_inner).rewind();
    }

    fn tell(&self) {
        let spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.sent.first_key_value().map_or(self.oldest_unread_ms, |(_, at)| *at);
        let oldest = if self.is_empty() { 0 } else { oldest };
        self.shared.spool_messages.store(spool.len(), Ordering::Relaxed);
        self.shared.spool_bytes.store(spool.bytes(), Ordering::Relaxed);
        self.shared.spool_oldest_ms.store(oldest, Ordering::Relaxed);
    }
}

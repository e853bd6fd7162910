//! What a reader is told of the buckets: the seam between the owner of the buckets and the threads that read them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bucket::{BucketNumber, Ranges};
use crate::format::Format;
use crate::record::Framing;
pub use crate::rewrites::AsOf;

/// The place in an answer behind a bucket: the index of the range in [`Ranges::iter`], and the bucket.
pub type After = (usize, BucketNumber);

/// The records of a bucket at one moment: those in its file up to a length, then those that are only in memory yet.
///
/// It stays true while puts go on. When the file is replaced by another one meanwhile, a reader that has not opened it
/// yet asks for a new view.
#[derive(Debug, Clone)]
pub struct BucketView {
    /// The channel.
    pub channel: Arc<str>,
    /// The channel's directory.
    pub dir: Arc<Path>,
    /// The bucket.
    pub number: BucketNumber,
    /// The format of the file; none if nobody has looked into it since the start.
    pub format: Option<Format>,
    /// The bytes of the file that hold records, from its front; 0 if there is no file yet.
    pub length: u64,
    /// What follows in memory, oldest first.
    pub tail: Vec<Tail>,
    /// When that was so.
    pub as_of: AsOf,
}

impl BucketView {
    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(self.number.to_string())
    }

    /// The bytes of what is in memory: its share of what others hold as well, the storage or other requests.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail.iter().map(|tail| tail.bytes.len() / Arc::strong_count(&tail.bytes).max(1)).sum()
    }

    /// Whether the file may be another one than the view is of; asked behind its opening.
    pub(crate) fn is_outdated(&self) -> bool {
        self.as_of.is_outdated(&self.channel, self.number)
    }
}

/// Whole records in memory that are not in the file yet.
#[derive(Debug, Clone)]
pub struct Tail {
    /// How they follow each other.
    pub framing: Framing,
    /// The records.
    pub bytes: Arc<[u8]>,
}

/// Knows the buckets; on the node's thread.
pub trait Views {
    /// Appends the views of the next buckets of a channel that have keys of the ranges, in the order of the ranges and in
    /// each of them by number: those behind `after`, from the first one on if there is none, `max` at most.
    ///
    /// Appends nothing when there are no more, or no such channel. Opens nothing and waits for nothing.
    fn views(&self, channel: &str, ranges: &Ranges, after: Option<After>, max: usize, out: &mut Vec<BucketView>);
}

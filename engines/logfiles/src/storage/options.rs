//! How the storage is set up.

use std::time::Duration;

use crate::config::rules::Rules;
use crate::format::Format;

/// When a put is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Once it is in the write buffer: a crash of the node costs at most the buffers, a power cut what came since the
    /// last checkpoint.
    #[default]
    Interval,
    /// Once it is durable: nothing that was answered is lost. Puts that come while others are made durable are made
    /// durable together.
    Always,
}

/// How the storage is set up.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// When a put is answered.
    pub sync: SyncMode,
    /// Bytes of a bucket's write buffer, 4 KiB to 1 MiB. A larger record is a buffer of its own.
    pub write_buffer_size: usize,
    /// How long a record is in the write buffer at most.
    pub write_after: Duration,
    /// From one checkpoint to the next.
    pub checkpoint: Duration,
    /// How many buckets have a write buffer, and how many files are open for writing, at most.
    pub open_files: usize,
    /// The channels whose new buckets have format 2.
    pub format_v2: Rules<bool>,
    /// How hard blocks of format 2 are compressed (zstd level, 1 to 19).
    pub level: i32,
    /// Bytes handed to the writer and not written yet from which on replies wait; at twice as much puts are refused.
    pub queue_bytes: usize,
    /// How long after a failed write it is tried again.
    pub retry: Duration,
    /// Tells one run of the machine from another: after a restart of the machine only what is proved is kept.
    pub boot_id: String,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            sync: SyncMode::Interval,
            write_buffer_size: 64 << 10,
            write_after: Duration::from_secs(1),
            checkpoint: Duration::from_secs(300),
            open_files: 256,
            format_v2: Rules::default(),
            level: 3,
            queue_bytes: 64 << 20,
            retry: Duration::from_secs(1),
            boot_id: String::new(),
        }
    }
}

impl StorageOptions {
    /// The format of a channel's new buckets.
    pub(crate) fn format(&self, channel: &str) -> Format {
        if self.format_v2.of(channel).copied().unwrap_or(false) { Format::V2 } else { Format::V1 }
    }
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The channel's name is none, the record is too large, or it could not be told from zeros.
    #[error("the channel's name or the record is not acceptable")]
    Invalid,
    /// The disk is full; once there is room, records are taken again.
    #[error("there is no room on the disk")]
    NoSpace,
    /// More came in than the disk takes; worth trying again at once.
    #[error("too much is waiting to be written")]
    Overloaded,
    /// The file of its bucket cannot be opened or written; it is in the log and among the findings. Others are.
    #[error("the bucket's file cannot be written")]
    Bucket,
    /// Writing fails, or nothing can be made durable any more; it is in the log and among the findings.
    #[error("the disk fails")]
    Failed,
}

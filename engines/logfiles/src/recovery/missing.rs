//! Files that are shorter than the catalogue says: whoever cut them, what was there is gone.

use std::fmt;
use std::path::Path;

use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::disk::Disk;

use super::{DAMAGED, Settled};

/// Why bytes are missing.
pub(crate) const SHORTER: &str = "the file is shorter than it was";
/// Why all of them are.
pub(crate) const GONE: &str = "the file is missing";
/// So many repairs, one after the other, are looked for.
const REPAIRS: usize = 16;

/// The end of a file, that is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The channel.
    pub channel: Box<str>,
    /// The bucket.
    pub number: BucketNumber,
    /// Where the file ends now.
    pub offset: u64,
    /// Bytes that were behind that.
    pub bytes: u64,
    /// Records that were in them, about; none if they were never counted.
    pub records: Option<u64>,
    /// What became of the file.
    pub why: &'static str,
}

impl Missing {
    /// What is gone from a file that has `length` bytes now. None: it is as long as it was, or `logfiles_check` has made it
    /// shorter, and has kept what it took.
    pub(crate) fn of_length(
        disk: &dyn Disk,
        dir: &Path,
        (channel, number): (&str, BucketNumber),
        was: &Entry,
        length: u64,
    ) -> Option<Self> {
        if length >= was.length || is_kept(disk, dir, (channel, number), was.length, length) {
            return None;
        }
        let bytes = was.length - length;
        let records = was.counted.then(|| share(was, bytes));
        Some(Self { channel: channel.into(), number, offset: length, bytes, records, why: SHORTER })
    }

    /// The same of a file that was read: if all records are there that were known, nothing is gone.
    pub(crate) fn of_settled(
        disk: &dyn Disk,
        dir: &Path,
        (channel, number): (&str, BucketNumber),
        was: &Entry,
        settled: &Settled,
    ) -> Option<Self> {
        let length = settled.length();
        let missing = Self::of_length(disk, dir, (channel, number), was, length)?;
        let records = was.counted.then(|| was.records.saturating_sub(settled.entry.records));
        let offset = settled.entry.length;
        (records != Some(0)).then_some(Self { offset, bytes: was.length.saturating_sub(offset), records, ..missing })
    }

    /// A file that is gone. None: there was nothing in it.
    pub(crate) fn of_gone((channel, number): (&str, BucketNumber), was: &Entry) -> Option<Self> {
        let (bytes, records) = (was.length, was.counted.then_some(was.records));
        (bytes > 0).then(|| Self { channel: channel.into(), number, offset: 0, bytes, records, why: GONE })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, number, bytes, records, why, .. } = self;
        write!(formatter, "{channel}/{number}: {}: {why}", Lost { bytes: *bytes, records: *records })
    }
}

/// How much is gone, in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) bytes: u64,
    pub(crate) records: Option<u64>,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.records {
            Some(records) => write!(formatter, "{} bytes and about {records} records are missing", self.bytes),
            None => write!(formatter, "{} bytes are missing", self.bytes),
        }
    }
}

/// The records that some bytes of a bucket hold, about.
pub(crate) fn share(entry: &Entry, bytes: u64) -> u64 {
    let records = (u128::from(entry.records) * u128::from(bytes)).div_ceil(u128::from(entry.length.max(1)));
    u64::try_from(records).unwrap_or(u64::MAX).min(entry.records)
}

/// Whether `logfiles_check` has cut a file from one length to another, or written it anew: its backups tell.
fn is_kept(disk: &dyn Disk, dir: &Path, (channel, number): (&str, BucketNumber), was: u64, length: u64) -> bool {
    let dir = dir.join(DAMAGED).join(channel).join(number.slot().to_string());
    let Ok(names) = disk.list(&dir) else { return false };
    let name = number.file_name();
    let mut cuts = Vec::new();
    for named in names.iter().filter(|named| !named.is_dir) {
        let Some(label) = named.name.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let Ok(kept) = disk.stat(&dir.join(&named.name)).map(|stat| stat.length) else { continue };
        let mut parts = label.split('.');
        match parts.next().unwrap_or_default() {
            "whole" if kept == was => return true,
            label => {
                let offset = label.strip_prefix("from-").and_then(|offset| offset.parse::<u64>().ok());
                cuts.extend(offset.map(|offset| (offset, offset.saturating_add(kept))));
            }
        }
    }
    // One cut after the other, from the last one back.
    let mut at = length;
    for _ in 0..REPAIRS {
        let Some((_, end)) = cuts.iter().find(|(from, end)| *from == at && end > from) else { return false };
        if *end == was {
            return true;
        }
        at = *end;
    }
    false
}

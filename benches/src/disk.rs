//! The disk's own limits: what a plain loop reads and writes.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::value::text;

/// Who the peer is when a figure stands next to a plain loop.
pub(crate) const NAME: &str = "this disk, sequential";

/// Writes a file of so many bytes, durably, as plainly as it can be done: `block` bytes at once.
pub(crate) fn write_file(path: &Path, bytes: u64, block: usize) -> Result<Duration> {
    let content = text(block);
    let began = Instant::now();
    let mut file = fs::File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left)?.min(block);
        file.write_all(&content[..part])?;
        left -= part as u64;
    }
    file.sync_all()?;
    Ok(began.elapsed())
}

/// Reads a file from start to end, `block` bytes at once.
pub(crate) fn read_file(path: &Path, block: usize) -> Result<Duration> {
    let mut content = vec![0; block];
    let began = Instant::now();
    let mut file = fs::File::open(path)?;
    while file.read(&mut content)? > 0 {}
    Ok(began.elapsed())
}

/// Waits until nothing of what was done before is still on its way to the disk.
pub(crate) fn settle() -> Result<()> {
    let status = std::process::Command::new("sync").status()?;
    ensure!(status.success(), "sync failed");
    Ok(())
}

/// Makes the system forget what it has read of the disk, where we may.
pub(crate) fn forget_pages() -> Result<()> {
    settle()?;
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "1") {
        eprintln!("overstory-bench: reading comes from memory, not from the disk: {error}");
    }
    Ok(())
}

/// Millions of bytes per second.
pub(crate) fn megabytes_per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

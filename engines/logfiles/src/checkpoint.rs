//! `checkpoint.dat`: how far the buckets are durable that were written to last, in the form of the published node
//! (protocol §3.3, §10.1).
//!
//! A line for each bucket: channel, first key of the bucket in decimal, bytes of the file. At its start a published node
//! cuts each of these files to these bytes. This node writes the file for that one; its own starts read it only when there
//! is no catalogue, and cut nothing that holds.

use std::io;
use std::path::Path;

use crate::bucket::BucketNumber;
use crate::disk::Disk;

/// The name in the data directory.
pub const FILE: &str = "checkpoint.dat";
const TEMPORARY: &str = "checkpoint.dat.tmp";

/// Bytes of a file that is read: above it something else is in it.
const MAX_BYTES: u64 = 256 << 20;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The channel; its name is a good one.
    pub channel: Box<str>,
    /// The bucket.
    pub number: BucketNumber,
    /// Bytes of the bucket that were durable.
    pub offset: u64,
}

/// Writes the file anew; it is there in one piece or not at all.
///
/// # Errors
/// The disk's; the old file is still there then.
pub fn write<'a>(
    disk: &dyn Disk,
    dir: &Path,
    lines: impl Iterator<Item = (&'a str, BucketNumber, u64)>,
) -> io::Result<()> {
    use std::fmt::Write;

    let mut text = String::new();
    for (channel, number, offset) in lines {
        let _ = writeln!(text, "{channel} {} {offset}", number.first_key());
    }
    let temporary = dir.join(TEMPORARY);
    let file = disk.create(&temporary)?;
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync()?;
    disk.rename(&temporary, &dir.join(FILE))?;
    disk.sync_dir(dir)
}

/// Reads the file; none if there is none. Lines that say nothing are counted.
///
/// # Errors
/// The disk's.
pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<(Vec<Line>, usize)>> {
    let file = match disk.open(&dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?;
    if length > MAX_BYTES {
        return Ok(Some((Vec::new(), 1)));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let mut had = 0;
    while had < bytes.len() {
        match file.read_at(&mut bytes[had..], had as u64)? {
            0 => break,
            read => had += read,
        }
    }
    let lines: Vec<_> = bytes[..had].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect();
    let all = lines.len();
    let good: Vec<_> = lines.into_iter().flatten().collect();
    let bad = all - good.len();
    Ok(Some((good, bad)))
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let (channel, key, offset) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    overstory_swarm::channel::check(channel.as_bytes()).ok()?;
    let line = Line { channel: channel.into(), number: BucketNumber::of(key), offset };
    fields.next().is_none().then_some(line)
}

/// Removes the file, and what an interrupted write has left.
///
/// # Errors
/// The disk's; a file that is not there is none.
pub fn remove(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for name in [TEMPORARY, FILE] {
        match disk.remove(&dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::disk::SystemDisk;

    const PUBLISHED: &[u8] = include_bytes!("../../../tests/vectors/files/dls.checkpoint.dat");

    #[test]
    fn the_file_of_a_published_node_is_read_and_written_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), PUBLISHED).unwrap();
        let (lines, bad) = read(&SystemDisk, dir.path()).unwrap().unwrap();
        let seen: Vec<_> = lines.iter().map(|line| (&*line.channel, line.number.to_string(), line.offset)).collect();
        let expected = [("log", "0000000057/275", 104), ("log", "0000000057/276", 44), ("log", "0000000058/275", 0)];
        assert_eq!(seen, expected.map(|(channel, number, offset)| (channel, number.to_owned(), offset)));
        assert_eq!(bad, 0);
        write(&SystemDisk, dir.path(), lines.iter().map(|line| (&*line.channel, line.number, line.offset))).unwrap();
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), PUBLISHED);
        remove(&SystemDisk, dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(read(&SystemDisk, dir.path()).unwrap(), None);
    }

    #[test]
    fn lines_that_say_nothing_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"log 4096 7\n\n../x 1 2\nlog 1\nlog x 1\nlog 1 2 3\n\xff 1 2\nlog 18446744073709551616 1\nlog 1";
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let (lines, bad) = read(&SystemDisk, dir.path()).unwrap().unwrap();
        assert_eq!(lines, [Line { channel: "log".into(), number: BucketNumber::of(4096), offset: 7 }]);
        assert_eq!(bad, 7);
    }
}

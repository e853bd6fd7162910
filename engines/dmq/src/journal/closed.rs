//! What an orderly stop leaves: the segments and where each ends. Without it nobody could tell that the end of the log is
//! gone, or a whole segment: what is not there looks like what was never written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::format::FIRST_ENTRY;
use super::log::Log;
use super::segment;

/// The file.
pub(super) const NAME: &str = "closed";
/// The same, being written.
pub(super) const UNFINISHED: &str = "closed.new";

impl Log {
    /// Writes it. Nothing is appended any more.
    pub(super) fn note_closed(&self) {
        let last = self.last_serial();
        let ends = self.segments.iter().map(|one| (one.serial, if one.serial == last { self.end() } else { one.end }));
        // One without entries is removed at the start.
        let ends: Vec<_> = ends.filter(|(_, end)| *end > FIRST_ENTRY).collect();
        if let Err(error) = write(&self.dir, &ends) {
            tracing::warn!(target: "dmqnode.journal", %error, "cannot note what a start should find");
        }
    }
}

fn write(dir: &Path, ends: &[(u64, u64)]) -> io::Result<()> {
    let mut content = String::new();
    ends.iter().for_each(|(serial, end)| content.push_str(&format!("{serial} {end}\n")));
    content.push_str(&format!("{:08x}", crc32fast::hash(content.as_bytes())));
    let mut file = File::create(dir.join(UNFINISHED))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(dir.join(UNFINISHED), dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

/// What has to be there: serials and ends. Nothing after a kill.
pub(super) fn read(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    match fs::read(dir.join(NAME)) {
        Ok(content) => Ok(parse(&content).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes it, before anything is appended.
pub(super) fn remove(dir: &Path, names: &File) -> io::Result<()> {
    match fs::remove_file(dir.join(NAME)) {
        Ok(()) => names.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Says of a segment that it is not there.
pub(super) fn missing(dir: &Path, serial: u64, end: u64) -> String {
    format!("{}: missing or empty; {end} bytes of it were there at the last stop", segment::path(dir, serial).display())
}

fn parse(content: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (lines, crc) = content.split_at_checked(content.len().checked_sub(8)?)?;
    if std::str::from_utf8(crc).ok()? != format!("{:08x}", crc32fast::hash(lines)) {
        return None;
    }
    let line = |line: &str| {
        let (serial, end) = line.split_once(' ')?;
        Some((serial.parse().ok()?, end.parse().ok()?))
    };
    std::str::from_utf8(lines).ok()?.lines().map(line).collect()
}

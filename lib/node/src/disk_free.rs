//! What is free of the disk that has a directory.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use crate::inspect::Finding;
use crate::levels::Levels;

/// From one look at the disk to the next.
const LOOK: Duration = Duration::from_secs(10);

/// Looks at a disk now and then.
#[derive(Debug)]
pub struct DiskFree {
    directory: PathBuf,
    /// When it was looked at, and what was free then.
    seen: Cell<Option<(Instant, Option<f64>)>>,
}

impl DiskFree {
    /// Of the disk that has `directory`.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory, seen: Cell::new(None) }
    }

    /// What is free, in percent; nothing where the system does not tell.
    pub fn percent(&self) -> Option<f64> {
        let now = Instant::now();
        match self.seen.get() {
            Some((at, free)) if now.saturating_duration_since(at) < LOOK => free,
            _ => {
                let free = free_of(&self.directory);
                self.seen.set(Some((now, free)));
                free
            }
        }
    }

    /// Adds what is to be said of it.
    pub fn check(&self, levels: &Levels, findings: &mut Vec<Finding>) {
        let Some(free) = self.percent() else { return };
        findings.extend(levels.reached(free).map(|state| Finding {
            check: "disk_free",
            state,
            text: format!("{free:.1} % of the disk with the data directory is free"),
        }));
    }
}

/// What a program without privileges may still write to a disk, in percent of what it may use.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
fn free_of(directory: &Path) -> Option<f64> {
    let disk = statvfs(directory).ok()?;
    let available = disk.blocks_available();
    let usable = disk.blocks().saturating_sub(disk.blocks_free()).saturating_add(available);
    (usable > 0).then(|| available as f64 * 100.0 / usable as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_directory_has_something_free() {
        let free = DiskFree::new(PathBuf::from("/"));
        assert_eq!(free.percent().map(|free| (0.0..=100.0).contains(&free)), Some(true));
        assert_eq!(DiskFree::new(PathBuf::from("/no/such/directory")).percent(), None);
        let mut findings = Vec::new();
        free.check(&Levels::falling([100.0, 0.0, 0.0]), &mut findings);
        assert_eq!(findings.first().map(|finding| finding.check), Some("disk_free"));
    }
}

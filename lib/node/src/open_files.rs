//! How many files the process has open, and may have.

use std::cell::Cell;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::inspect::Finding;
use crate::levels::Levels;
use crate::stats::Fields;

/// From one look to the next: it takes a millisecond for thousands of connections.
const LOOK: Duration = Duration::from_secs(10);

/// Looks at the open files of the process now and then.
#[derive(Debug, Default)]
pub struct OpenFiles {
    seen: Cell<Option<(Instant, Files)>>,
}

/// Open files, and the limit that the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// Open ones, connections among them.
    pub open: u64,
    /// How many there may be.
    pub limit: u64,
}

impl OpenFiles {
    /// How many there are; nothing where the system does not tell.
    pub fn look(&self) -> Option<Files> {
        let now = Instant::now();
        match self.seen.get() {
            Some((at, files)) if now.saturating_duration_since(at) < LOOK => Some(files),
            _ => {
                let files = count()?;
                self.seen.set(Some((now, files)));
                Some(files)
            }
        }
    }

    /// Adds what is to be said of them.
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
    pub fn check(&self, levels: &Levels, findings: &mut Vec<Finding>) {
        let Some(Files { open, limit }) = self.look() else { return };
        let state = if limit == 0 { None } else { levels.reached(open as f64 * 100.0 / limit as f64) };
        findings.extend(state.map(|state| Finding {
            check: "open_files",
            state,
            text: format!("{open} of {limit} files are open"),
        }));
    }

    /// Adds `open_fds_limit` and `open_fds_currently`, as they are now.
    pub fn add_to(&self, fields: &mut Fields) {
        if let Some(Files { open, limit }) = count() {
            fields.int("open_fds_limit", limit);
            fields.int("open_fds_currently", open);
        }
    }
}

fn count() -> Option<Files> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).ok()?.0;
    // The directory that is being read is one of them.
    let open = (std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    Some(Files { open, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_open_files() {
        let files = OpenFiles::default();
        assert!(files.look().is_some_and(|files| files.open >= 3 && files.limit >= files.open));
        let mut findings = Vec::new();
        files.check(&Levels::rising([0.0, 100.0, 100.0]), &mut findings);
        assert!(findings.first().is_some_and(|finding| finding.text.ends_with("files are open")));
        let mut fields = Fields::default();
        files.add_to(&mut fields);
        let keys: Vec<_> = fields.entries().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["open_fds_limit", "open_fds_currently"]);
    }
}

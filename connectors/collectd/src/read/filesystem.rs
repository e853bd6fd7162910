//! Space and inodes of each mounted disk.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use sysinfo::{DiskRefreshKind, Disks};

use super::devices::matches;
use super::percent;
use crate::batch::{Batch, Prefix};

/// The most file systems that are watched.
const MAX_MOUNTS: usize = 256;

/// Tells which disks are mounted where, and how full they are.
pub(crate) trait Mounts {
    /// The mount points of the disks.
    fn list(&mut self) -> Vec<PathBuf>;

    /// How full the file system at `path` is.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Space {
    /// Which file system it is.
    pub(crate) id: u64,
    /// The size of a block in bytes.
    pub(crate) block: u64,
    /// Blocks.
    pub(crate) blocks: u64,
    /// Free ones, those kept for root included.
    pub(crate) free: u64,
    /// Free ones that anyone can have.
    pub(crate) available: u64,
    /// Inodes; 0 where they are not limited.
    pub(crate) inodes: u64,
    /// Free inodes.
    pub(crate) inodes_free: u64,
}

/// The machine's disks: found by `sysinfo`, measured by the system call, which also tells what is kept for root.
#[derive(Debug, Default)]
pub(crate) struct SystemMounts;

impl Mounts for SystemMounts {
    fn list(&mut self) -> Vec<PathBuf> {
        // Network file systems are not in this list: one whose server is away would hold up every tick.
        let disks = match Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing()) {
            Ok(disks) => disks,
            Err(error) => {
                tracing::warn!(%error, "cannot list the disks");
                return Vec::new();
            }
        };
        let is_local = |disk: &&sysinfo::Disk| !disk.file_system().as_encoded_bytes().starts_with(b"fuse");
        disks.iter().filter(is_local).map(|disk| disk.mount_point().to_owned()).collect()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = statvfs(path)?;
        Ok(Space {
            id: found.filesystem_id(),
            block: found.fragment_size(),
            blocks: found.blocks(),
            free: found.blocks_free(),
            available: found.blocks_available(),
            inodes: found.files(),
            inodes_free: found.files_free(),
        })
    }
}

/// The mounted disks.
#[derive(Debug)]
pub(crate) struct Filesystems<M> {
    mounts: M,
    ignored: Vec<String>,
    known: Vec<Mounted>,
    /// Ticks of this many milliseconds until the list is made again.
    list_every_ms: i64,
    listed_at: Option<i64>,
}

#[derive(Debug)]
struct Mounted {
    path: PathBuf,
    name: String,
    prefix: Prefix,
    /// The file system that was here when the list was made: below the mount point of an unmounted one there is
    /// another, and its numbers must not pass for those of the first.
    id: Option<u64>,
}

/// How full a file system is, for the thresholds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fullness {
    /// The mount point.
    pub(crate) path: PathBuf,
    /// Its name in metrics and resources: `root`, `var-lib`.
    pub(crate) name: String,
    /// How full it is, unless it could not be asked in this tick.
    pub(crate) full: Option<Full>,
}

/// Two ways of being full.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Full {
    /// Space that users cannot have, in percent of what they could have.
    pub(crate) space: f64,
    /// Inodes in use, in percent.
    pub(crate) inodes: f64,
}

impl<M: Mounts> Filesystems<M> {
    pub(crate) fn new(mounts: M, ignored: Vec<String>, list_every_s: u32) -> Self {
        let list_every_ms = i64::from(list_every_s) * 1000;
        Self { mounts, ignored, known: Vec::new(), list_every_ms, listed_at: None }
    }

    /// Reads once, at `now_ms` of a clock that never jumps.
    ///
    /// A file system that cannot be asked, or is no longer where it was, has no numbers in this tick, and the list is
    /// made again in the next.
    pub(crate) fn read(&mut self, batch: &mut Batch, now_ms: i64, show: bool) -> Vec<Fullness> {
        if self.listed_at.is_none_or(|at| now_ms - at >= self.list_every_ms) {
            self.listed_at = Some(now_ms);
            self.list();
        }
        let (mounts, listed_at) = (&self.mounts, &mut self.listed_at);
        let mut measure = |mounted: &mut Mounted| {
            let space = mounts.space(&mounted.path).ok();
            let space = space.filter(|space| *mounted.id.get_or_insert(space.id) == space.id);
            // One that never could be asked does not have the list made in every tick.
            if space.is_none() && mounted.id.is_some() {
                *listed_at = None;
            }
            let full = space.filter(|space| space.blocks > 0).map(|space| show_space(mounted, space, batch, show));
            Fullness { path: mounted.path.clone(), name: mounted.name.clone(), full }
        };
        self.known.iter_mut().map(&mut measure).collect()
    }

    fn list(&mut self) {
        let mut found = self.mounts.list();
        found.retain(|path| path.to_str().is_some_and(|path| !self.ignored.iter().any(|p| matches(p, path))));
        found.sort_unstable();
        // The same place mounted over counts once: the upper one is what users see.
        found.dedup();
        found.truncate(MAX_MOUNTS);
        if found.iter().eq(self.known.iter().map(|mounted| &mounted.path)) {
            self.known.iter_mut().for_each(|mounted| mounted.id = None);
            return;
        }
        let new = |path: PathBuf| {
            let name = mount_name(&path);
            Mounted { prefix: Prefix::new("df", &name), name, path, id: None }
        };
        self.known = found.into_iter().map(new).collect();
    }
}

fn show_space(mounted: &Mounted, space: Space, batch: &mut Batch, show: bool) -> Full {
    let used = space.blocks.saturating_sub(space.free);
    let reserved = space.free.saturating_sub(space.available);
    let inodes_used = space.inodes.saturating_sub(space.inodes_free);
    if show {
        for (bytes_name, percent_name, blocks) in [
            ("df_complex-used", "percent_bytes-used", used),
            ("df_complex-free", "percent_bytes-free", space.available),
            ("df_complex-reserved", "percent_bytes-reserved", reserved),
        ] {
            batch.count(&mounted.prefix, bytes_name, blocks.saturating_mul(space.block));
            batch.rate(&mounted.prefix, percent_name, percent(blocks, space.blocks));
        }
        batch.rate(&mounted.prefix, "percent_inodes-used", percent(inodes_used, space.inodes));
    }
    Full {
        // A disk without any block for users is full, unless nothing is on it.
        space: percent(used, used.saturating_add(space.available)).unwrap_or(0.0),
        inodes: percent(inodes_used, space.inodes).unwrap_or(0.0),
    }
}

/// Makes collectd's name of a mount point: `/` is `root`, `/var/lib` is `var-lib`.
pub(crate) fn mount_name(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.trim_matches('/') {
        "" => "root".to_owned(),
        inner => inner.replace('/', "-"),
    }
}

//! What is kept of damaged segments, for people.

use std::fs;
use std::path::Path;

use super::format::Salt;

/// So many are kept; the oldest goes first.
const KEPT: usize = 5;

/// Keeps a segment as it is in `dir/damaged`, under a name of its own; says in a few words what was done.
///
/// A hard link takes no room until the journal lets go of the segment. Where there are no links it is copied, unless
/// that would take more than half of the room that is left.
pub(super) fn keep(dir: &Path, path: &Path, serial: u64, salt: Option<Salt>) -> String {
    let damaged = dir.join("damaged");
    let seed = salt.map_or(0, |salt| salt.seed);
    let name = format!("{serial:08}-{seed:08x}.journal");
    let kept = damaged.join(&name);
    if kept.exists() {
        return format!("kept as damaged/{name}");
    }
    if let Err(error) = fs::create_dir_all(&damaged) {
        return format!("no copy is kept: {error}");
    }
    make_room(&damaged);
    if fs::hard_link(path, &kept).is_ok() {
        return format!("kept as damaged/{name}");
    }
    let size = fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len());
    let free = nix::sys::statvfs::statvfs(&damaged).map_or(0, |disk| disk.blocks_available() * disk.fragment_size());
    if size > free / 2 {
        return format!("no copy is kept: it has {size} bytes, and {free} are free");
    }
    match fs::copy(path, &kept) {
        Ok(_) => format!("kept as damaged/{name}"),
        Err(error) => {
            let _gone = fs::remove_file(&kept);
            format!("no copy is kept: {error}")
        }
    }
}

fn make_room(damaged: &Path) {
    let Ok(entries) = fs::read_dir(damaged) else { return };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".journal"))
        .collect();
    names.sort_unstable_by_key(|name| (name.len(), name.clone()));
    for name in names.iter().take((names.len() + 1).saturating_sub(KEPT)) {
        let _gone = fs::remove_file(damaged.join(name));
    }
}

//! Files that nobody ever sees half of.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Writes a new file with `mode` and has it on disk.
pub(in crate::overstory_admin) fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Writes a file in the place of what is there, all or nothing.
pub(in crate::overstory_admin) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let next = replacement(path);
    remove_file(&next)?;
    create(&next, text, mode)?;
    fs::rename(&next, path)?;
    sync_parent(path)
}

/// Removes what a [`replace`] that was killed left behind.
pub(in crate::overstory_admin) fn remove_replacement(path: &Path) -> io::Result<()> {
    remove_file(&replacement(path))
}

fn replacement(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    // Ends in something else than `.conf`: supervisord and we read every `*.conf`.
    next.push(".adding");
    next.into()
}

/// Makes a directory for the owner and its group.
pub(in crate::overstory_admin) fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o750).create(path)
}

/// Removes a file, which may be gone.
pub(in crate::overstory_admin) fn remove_file(path: &Path) -> io::Result<()> {
    gone(fs::remove_file(path))
}

/// Removes a directory with all that is in it; it may be gone.
pub(in crate::overstory_admin) fn remove_dir(path: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(path))
}

/// Has the names in the directory of `path` on disk.
pub(in crate::overstory_admin) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        other => other,
    }
}

//! Whose the files are that are made in a data directory: its owner's, under whom the node runs, whoever makes them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

/// Gives what was just made to the owner of a directory or file. Nothing that was there before is given away: a link in
/// the directory could lead anywhere.
///
/// # Errors
/// The system's; who may not give anything away keeps it.
pub(super) fn give(made: &Path, like: &Path) -> io::Result<()> {
    let (owner, now) = (fs::metadata(like)?, fs::symlink_metadata(made)?);
    if (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    match lchown(made, Some(owner.uid()), Some(owner.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

//! Whose the files are that are made in a data directory: its owner's, under whom the node runs, whoever makes them.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown, lchown};
use std::path::Path;

/// Gives what was just made to the owner of a directory or file. Nothing that was there before is given away: a link in
/// the directory could lead anywhere.
///
/// # Errors
/// The system's; who may not give anything away keeps it.
pub(super) fn give(made: &Path, like: &Path) -> io::Result<()> {
    give_as(&fs::symlink_metadata(made)?, like, |uid, gid| lchown(made, uid, gid))
}

/// The same for what is open.
///
/// # Errors
/// The system's; who may not give anything away keeps it.
pub(super) fn give_file(made: &File, like: &Path) -> io::Result<()> {
    give_as(&made.metadata()?, like, |uid, gid| fchown(made, uid, gid))
}

fn give_as(
    now: &Metadata,
    like: &Path,
    give: impl FnOnce(Option<u32>, Option<u32>) -> io::Result<()>,
) -> io::Result<()> {
    let owner = fs::metadata(like)?;
    if (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    match give(Some(owner.uid()), Some(owner.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

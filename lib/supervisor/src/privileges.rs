//! Giving up root's rights: what belongs to a prefix is run and written by the prefix's owner.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, initgroups, setgid, setuid};

/// Becomes the owner of the prefix when called as root and the prefix belongs to somebody else. Must be called before
/// other threads are started. Returns the user's name when it changed.
///
/// # Errors
/// When the prefix is not there, its owner is unknown to the system, or the change is refused.
pub fn become_owner(prefix: &Path) -> io::Result<Option<String>> {
    let owner = Uid::from_raw(std::fs::metadata(prefix)?.uid());
    if !Uid::effective().is_root() || owner.is_root() {
        return Ok(None);
    }
    let user = User::from_uid(owner)?.ok_or_else(|| {
        let text = format!("{} belongs to user number {owner}, which has no name on this system", prefix.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let name = CString::new(user.name.as_str())?;
    let group: Gid = user.gid;
    initgroups(&name, group)?;
    setgid(group)?;
    setuid(owner)?;
    Ok(Some(user.name))
}

/// Whether this process may write to the prefix: its owner, or root.
///
/// # Errors
/// When the prefix is not there.
pub fn is_owner(prefix: &Path) -> io::Result<bool> {
    let user = Uid::effective();
    Ok(user.is_root() || std::fs::metadata(prefix)?.uid() == user.as_raw())
}

/// The name of the owner of `path`, or of the innermost folder above it that can be looked at.
pub(crate) fn owner_of(path: &Path) -> String {
    let Some(meta) = path.ancestors().find_map(|at| std::fs::metadata(at).ok()) else {
        return "its owner".to_owned();
    };
    let owner = Uid::from_raw(meta.uid());
    User::from_uid(owner).ok().flatten().map_or_else(|| format!("user number {owner}"), |user| user.name)
}

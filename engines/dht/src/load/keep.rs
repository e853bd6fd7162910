//! Keeps files from which not everything could be loaded, before the next dumps replace them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use overstory_model::{Clock as _, SystemClock};

use super::TARGET;
use crate::dump::data_dir::DAMAGED;

/// So many are kept of each name; the oldest goes first.
pub(super) const KEPT: usize = 5;

/// Gives a dump a second name in `damaged/`, on which dumps have no hold; returns it.
///
/// It is `<name>.<YYYYMMDDThhmmssZ>.<two digits>`, the time of keeping in UTC. A file that is kept already, or that has
/// no bytes, is not kept again. A failure is logged: the node is of more use with what was loaded than not at all.
pub(super) fn keep(file: &Path) -> Option<PathBuf> {
    match try_keep(file) {
        Ok(kept) => kept,
        Err(error) => {
            tracing::error!(
                target: TARGET, file = %file.display(), %error,
                "the file cannot be kept: the second dump from now destroys what was not loaded, copy it before"
            );
            None
        }
    }
}

fn try_keep(file: &Path) -> io::Result<Option<PathBuf>> {
    let metadata = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let (Some(parent), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(None);
    }
    let directory = parent.join(DAMAGED);
    fs::create_dir_all(&directory)?;
    let mut others = of_name(&directory, name)?;
    let same = |other: &PathBuf| fs::metadata(other).is_ok_and(|other| is_same(&other, &metadata));
    if let Some(kept) = others.iter().rev().find(|other| same(other)) {
        return Ok(Some(kept.clone()));
    }
    let stamp: String = SystemClock.now().secs().utc().replace(['-', ':'], "").replace(' ', "T");
    // Behind those of the same second, so that the names stay in their order.
    let names = (0..100).rev().map(|number| directory.join(format!("{name}.{stamp}.{number:02}")));
    let Some(kept) = names.take_while(|path| fs::symlink_metadata(path).is_err()).last() else {
        return Err(io::ErrorKind::AlreadyExists.into());
    };
    // What a link leads to, not the link.
    let source = fs::canonicalize(file)?;
    if fs::hard_link(&source, &kept).is_err() {
        copy(&source, &kept, &metadata).inspect_err(|_| drop(fs::remove_file(&kept)))?;
    }
    for directory in [&*directory, parent] {
        File::open(directory)?.sync_all()?;
    }
    tracing::warn!(target: TARGET, file = %file.display(), kept = %kept.display(), "kept as it is, because the next dumps replace it");
    while others.len() >= KEPT {
        let oldest = others.remove(0);
        fs::remove_file(&oldest)?;
        tracing::warn!(target: TARGET, file = %oldest.display(), "the oldest kept file is removed");
    }
    Ok(Some(kept))
}

/// For file systems without hard links, and files that may not have any.
fn copy(from: &Path, to: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    fs::copy(from, to)?;
    let copy = File::options().write(true).open(to)?;
    copy.set_modified(metadata.modified()?)?;
    copy.sync_all()
}

/// Whether both are one file, or one is a copy of the other.
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    let time = |file: &fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec());
    (one.dev(), one.ino()) == (other.dev(), other.ino()) || time(one) == time(other)
}

/// The files that are kept of a name, oldest first.
fn of_name(directory: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let other = entry.file_name();
        let stamp = other.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        if stamp.is_some_and(|stamp| stamp.starts_with(|first: char| first.is_ascii_digit())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

//! Finds the bucket files of what was named: a file, a slot, a channel or a data directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::bucket::{BucketNumber, Slot};

/// What the published node's cron adds to a name.
const GZIP: &str = ".gz";

/// A bucket file, or what a cron made of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) path: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) channel: String,
    pub(super) number: BucketNumber,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bucket,
    Gzip,
}

/// What is at a place where buckets are.
pub(super) enum Found {
    Bucket(Bucket),
    /// A file of another name: not for this program.
    Other,
    Problem(PathBuf, String),
}

/// Shows all files of a path, in the order of names.
pub(super) fn each(path: &Path, visit: &mut impl FnMut(Found)) {
    let found = path.canonicalize().and_then(|path| {
        if path.is_dir() {
            return directory(&path, visit);
        }
        let slot = path.parent().and_then(slot_of);
        let bucket = slot.and_then(|slot| bucket(&path, slot));
        visit(bucket.map_or_else(
            || Found::Problem(path.clone(), "not a bucket: those are called CHANNEL/SLOT/BUCKET".into()),
            Found::Bucket,
        ));
        Ok(())
    });
    if let Err(error) = found {
        visit(Found::Problem(path.to_path_buf(), error.to_string()));
    }
}

fn directory(path: &Path, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    let entries = entries(path)?;
    if let Some(slot) = slot_of(path)
        && entries.iter().any(|path| bucket(path, slot).is_some())
    {
        return self::slot(path, slot, visit);
    }
    // A channel may be called like a slot: then there are slots in it again.
    let first_slot = entries.iter().find(|path| path.is_dir() && slot_of(path).is_some());
    let is_channel = match first_slot {
        Some(path) => !self::entries(path)?.iter().any(|path| path.is_dir()),
        None => false,
    };
    if is_channel {
        return channel(path, visit);
    }
    for path in entries.iter().filter(|path| path.is_dir() && !is_hidden(path)) {
        part(path, visit, channel);
    }
    Ok(())
}

fn channel(path: &Path, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    for path in entries(path)?.iter().filter(|path| path.is_dir()) {
        if let Some(number) = slot_of(path) {
            part(path, visit, |path, visit| slot(path, number, visit));
        }
    }
    Ok(())
}

fn slot(path: &Path, slot: Slot, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    for path in entries(path)? {
        visit(bucket(&path, slot).map_or(Found::Other, Found::Bucket));
    }
    Ok(())
}

/// A directory that cannot be read does not end the others.
fn part<V: FnMut(Found)>(path: &Path, visit: &mut V, read: impl FnOnce(&Path, &mut V) -> io::Result<()>) {
    if let Err(error) = read(path, visit) {
        visit(Found::Problem(path.to_path_buf(), error.to_string()));
    }
}

fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable();
    Ok(entries)
}

fn slot_of(path: &Path) -> Option<Slot> {
    Slot::parse(path.file_name()?.to_str()?)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn bucket(path: &Path, slot: Slot) -> Option<Bucket> {
    let name = path.file_name()?.to_str()?;
    let (name, kind) = name.strip_suffix(GZIP).map_or((name, Kind::Bucket), |name| (name, Kind::Gzip));
    let number = slot.bucket(name)?;
    let channel = path.parent()?.parent()?;
    Some(Bucket {
        path: path.to_path_buf(),
        data_dir: channel.parent()?.to_path_buf(),
        channel: channel.file_name()?.to_str()?.to_owned(),
        number,
        kind,
    })
}

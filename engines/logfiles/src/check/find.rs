//! Finds the bucket files of what was named: a file, a slot, a channel or a data directory.
//!
//! Links are not followed: who may write to a data directory must not lead whoever checks it elsewhere. Only what was named
//! itself may be a link, to a data directory.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use crate::bucket::{BucketNumber, Slot};
use crate::checkpoint;

/// What the published node's cron adds to a name.
const GZIP: &str = ".gz";
const NOT_REGULAR: &str = "no regular file: it is left alone";
const NO_DIRECTORY: &str = "no directory: it is left alone";

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
    /// A directory that is none of a channel or slot.
    OtherDirectory,
    Problem(PathBuf, String),
}

/// A name in a directory; a link is itself.
struct Named {
    path: PathBuf,
    kind: FileType,
}

/// Shows all files of a path, in the order of names.
pub(super) fn each(path: &Path, visit: &mut impl FnMut(Found)) {
    // Without a slash at the end, which would follow a link.
    let path: PathBuf = path.components().collect();
    if let Err(error) = named(&path, visit) {
        visit(Found::Problem(path, error.to_string()));
    }
}

/// The data directory that what was named is of, without links in its name. None: what was named cannot be read, or is
/// no bucket.
pub(super) fn data_dir(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    if !real.is_dir() {
        return Some(bucket(&real, slot_of(real.parent()?)?)?.data_dir);
    }
    let above = match level(&real, &entries(&real).ok()?).ok()? {
        Level::Data => 0,
        Level::Channel => 1,
        Level::Slot(_) => 2,
    };
    real.ancestors().nth(above).map(Path::to_path_buf)
}

fn named(path: &Path, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    let real = path.canonicalize()?;
    if real.is_dir() {
        let entries = entries(&real)?;
        if kind.is_symlink() && !matches!(level(&real, &entries)?, Level::Data) {
            visit(Found::Problem(path.to_path_buf(), NO_DIRECTORY.into()));
            return Ok(());
        }
        return directory(&real, &entries, visit);
    }
    let found = real.parent().and_then(slot_of).and_then(|slot| bucket(&real, slot));
    visit(match found {
        _ if !kind.is_file() => Found::Problem(path.to_path_buf(), NOT_REGULAR.into()),
        None => Found::Problem(real, "not a bucket: those are called CHANNEL/SLOT/BUCKET".into()),
        Some(bucket) => Found::Bucket(bucket),
    });
    Ok(())
}

/// What a directory is.
enum Level {
    Data,
    Channel,
    Slot(Slot),
}

fn level(path: &Path, names: &[Named]) -> io::Result<Level> {
    if let Some(slot) = slot_of(path)
        && names.iter().any(|named| !named.kind.is_dir() && bucket(&named.path, slot).is_some())
    {
        return Ok(Level::Slot(slot));
    }
    // A channel may be called like a slot: then there are slots in it again.
    let first_slot = names.iter().find(|named| named.kind.is_dir() && slot_of(&named.path).is_some());
    let is_channel = match first_slot {
        Some(slot) => !entries(&slot.path)?.iter().any(|named| named.kind.is_dir()),
        None => false,
    };
    Ok(if is_channel { Level::Channel } else { Level::Data })
}

fn directory(path: &Path, names: &[Named], visit: &mut impl FnMut(Found)) -> io::Result<()> {
    match level(path, names)? {
        Level::Slot(slot) => return self::slot(path, slot, visit),
        Level::Channel => return channel(path, visit),
        Level::Data => {}
    }
    for named in names {
        let name = named.path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".") || name.starts_with(checkpoint::FILE.as_bytes()) {
            continue;
        }
        let is_channel = overstory_swarm::channel::check(name).is_ok();
        if named.kind.is_dir() && is_channel {
            part(&named.path, visit, channel);
        } else {
            visit(other(named, is_channel));
        }
    }
    Ok(())
}

fn channel(path: &Path, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    for named in entries(path)? {
        match slot_of(&named.path) {
            Some(number) if named.kind.is_dir() => part(&named.path, visit, |path, visit| slot(path, number, visit)),
            number => visit(other(&named, number.is_some())),
        }
    }
    Ok(())
}

fn slot(path: &Path, slot: Slot, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    for named in entries(path)? {
        visit(match bucket(&named.path, slot) {
            Some(_) if !named.kind.is_file() => Found::Problem(named.path, NOT_REGULAR.into()),
            Some(bucket) => Found::Bucket(bucket),
            None => other(&named, false),
        });
    }
    Ok(())
}

/// What is left alone. A link in the place of a directory that would be read is told: what is behind it is not read.
fn other(named: &Named, is_expected: bool) -> Found {
    if named.kind.is_symlink() && is_expected {
        Found::Problem(named.path.clone(), NO_DIRECTORY.into())
    } else if named.kind.is_dir() {
        Found::OtherDirectory
    } else {
        Found::Other
    }
}

/// A directory that cannot be read does not end the others.
fn part<V: FnMut(Found)>(path: &Path, visit: &mut V, read: impl FnOnce(&Path, &mut V) -> io::Result<()>) {
    if let Err(error) = read(path, visit) {
        visit(Found::Problem(path.to_path_buf(), error.to_string()));
    }
}

fn entries(path: &Path) -> io::Result<Vec<Named>> {
    let named = |entry: fs::DirEntry| Ok(Named { kind: entry.file_type()?, path: entry.path() });
    let mut entries = fs::read_dir(path)?.map(|entry| named(entry?)).collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(entries)
}

fn slot_of(path: &Path) -> Option<Slot> {
    Slot::parse(path.file_name()?.to_str()?)
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

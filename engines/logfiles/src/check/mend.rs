//! Cuts damage off or out.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Action;
use super::backup::Backups;
use super::find::Bucket;
use super::inspect::Inspection;
use super::owner;
use crate::disk::{Disk, File, SystemDisk};
use crate::format::{BucketWriter, FRONT, Format, HEADER};
use crate::walk::{Walker, read_file};

/// The level of zstd for blocks that are written anew.
const LEVEL: i32 = 3;

/// What is added to a bucket's name: for a file that comes and goes while the bucket is changed where it is, and for the
/// one that is written anew.
const MARK: &str = "repair";
const NEW: &str = "salvage";

/// What is done with a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// The header of the file is set right; nothing else is damaged.
    Header,
    /// The file ends there; its header is set right as well if that is damaged.
    Cut(u64),
    /// The file is written anew.
    Rewrite(Format),
}

/// What would help; none if nothing is to be done, or nothing can be.
pub(super) fn plan(inspection: &Inspection, action: Action) -> Option<Plan> {
    let format = inspection.format?;
    let damages = &inspection.summary.damages;
    match action {
        Action::Check => None,
        _ if inspection.header_only && inspection.summary.damage_count == 1 => Some(Plan::Header),
        Action::Repair if inspection.header_only => damages.get(1).map(|damage| Plan::Cut(damage.offset)),
        Action::Repair => Some(Plan::Cut(inspection.summary.good_len)),
        Action::Salvage => Some(Plan::Rewrite(format)),
    }
}

/// Does it, and says where the backup is.
///
/// # Errors
/// It could not be backed up, or not be done: then the file is as it was, unless the system says otherwise.
pub(super) fn mend(bucket: &Bucket, inspection: &Inspection, plan: Plan, backups: &Backups) -> io::Result<PathBuf> {
    let end = inspection.summary.end;
    let metadata = fs::symlink_metadata(&bucket.path)?;
    if !metadata.is_file() || metadata.len() != end {
        return Err(io::Error::other("not changed: the file has changed since it was read"));
    }
    // Under its other names, those of a snapshot, the file must not change.
    let plan = match (plan, inspection.format) {
        (Plan::Header, Some(format)) if metadata.nlink() > 1 => Plan::Rewrite(format),
        (Plan::Cut(_), _) if metadata.nlink() > 1 => {
            let text = "not changed: the file has other names (hard links) and would be cut under those; --salvage writes it anew";
            return Err(io::Error::other(text));
        }
        (plan, _) => plan,
    };
    match plan {
        Plan::Header => {
            let backup = backups.save(bucket, "header", 0, HEADER as u64)?;
            in_place(bucket, |file| set_header(file, inspection))?;
            Ok(backup)
        }
        Plan::Cut(offset) => {
            let (label, from) =
                if inspection.header_only { ("whole".to_owned(), 0) } else { (format!("from-{offset}"), offset) };
            let backup = backups.save(bucket, &label, from, end - from)?;
            in_place(bucket, |file| {
                set_header(file, inspection)?;
                file.set_len(offset)
            })?;
            Ok(backup)
        }
        Plan::Rewrite(format) => {
            let backup = backups.save(bucket, "whole", 0, end)?;
            let new = beside(&bucket.path, NEW);
            let done = rewrite(bucket, inspection, format, &new);
            if done.is_err() {
                // The file itself was not touched.
                let _ = fs::remove_file(&new);
            }
            done.map(|()| backup)
        }
    }
}

/// Takes away what an interrupted run has left beside a bucket.
pub(super) fn tidy(bucket: &Bucket) {
    for suffix in [MARK, NEW] {
        // What cannot be removed is in nobody's way but the next repair's, which tells of it.
        let _ = fs::remove_file(beside(&bucket.path, suffix));
    }
}

/// Writes the header that the file should have, where that is what is wrong.
fn set_header(file: &dyn File, inspection: &Inspection) -> io::Result<()> {
    match inspection.format {
        Some(format) if inspection.header_only => file.write_all_at(format.header(), 0),
        _ => Ok(()),
    }
}

/// Changes a file where it is. A name that comes and goes beside it changes the time of the directory: by that the node
/// knows which files to look at when it starts.
fn in_place(bucket: &Bucket, change: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
    let mark = beside(&bucket.path, MARK);
    drop(fresh(&mark)?);
    let file = SystemDisk.create(&bucket.path);
    let changed = file.and_then(|file| {
        change(&*file)?;
        file.sync()
    });
    fs::remove_file(&mark)?;
    bucket.path.parent().map_or(Ok(()), |dir| SystemDisk.sync_dir(dir))?;
    changed
}

fn rewrite(bucket: &Bucket, inspection: &Inspection, format: Format, path: &Path) -> io::Result<()> {
    let old = SystemDisk.open(&bucket.path)?;
    let made = fresh(path)?;
    let new = SystemDisk.create(path)?;
    let mut writer = BucketWriter::new(&*new, format, LEVEL)?;
    let mut front = [0; FRONT];
    let front_len = old.read_at(&mut front, 0)?;
    // It begins as the inspection did: what follows a destroyed front is found again.
    let begin = front.get(..front_len).and_then(Format::of).unwrap_or(format);
    let mut walker = Walker::new(begin, bucket.number, inspection.summary.end);
    let mut failed = None;
    read_file(&*old, &mut walker, &mut |key, value| {
        if failed.is_none() {
            failed = writer.push(key, value).err();
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let written = writer.finish()?;
    let mut walker = Walker::new(format, bucket.number, written.length);
    let summary = read_file(&*new, &mut walker, &mut |_, _| {})?;
    let expected = &inspection.summary;
    if summary.damage_count != 0 || (summary.records, summary.bytes) != (expected.records, expected.bytes) {
        return Err(io::Error::other("not changed: what was written is not what was read"));
    }
    let metadata = fs::symlink_metadata(&bucket.path)?;
    made.set_permissions(metadata.permissions())?;
    owner::give_file(&made, &bucket.path)?;
    SystemDisk.rename(path, &bucket.path)?;
    bucket.path.parent().map_or(Ok(()), |dir| SystemDisk.sync_dir(dir))
}

/// A new file, in place of what an interrupted run has left. Never what a link leads to.
fn fresh(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::options().write(true).create_new(true).open(path)
}

/// A file in the same directory, of a name that is no bucket's.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

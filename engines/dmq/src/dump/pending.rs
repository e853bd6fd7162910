//! The list of what a dump has saved, from when it holds until everything is in its place.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::load;
use crate::rq::{SUFFIX, UNFINISHED_SUFFIX};

/// The list.
const NAME: &str = "dump.pending";
const UNFINISHED: &str = "dump.pending.new";
/// What it begins with.
const TITLE: &str = "overstory dump 1";
/// What it ends with.
const END: &str = "end";

/// A queue whose file is complete under its temporary name.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) queue: String,
    /// So many of its records stay on the disk behind the store.
    pub(super) left: u64,
    /// Bytes of the file.
    pub(super) bytes: u64,
}

/// A dump that held when the process was killed, before each file had its name and the disk behind the store knew what it need
/// not keep.
#[derive(Debug)]
pub struct Pending {
    left: HashMap<String, u64>,
}

impl Pending {
    /// Looks for one, and gives its files their names. The disk's part is the caller's, then [`done`].
    ///
    /// A queue whose file is not there as it was written is passed over: another program has been here.
    ///
    /// # Errors
    /// Files cannot be read or renamed.
    pub fn find(dir: &Path) -> io::Result<Option<Self>> {
        let content = match fs::read_to_string(dir.join(NAME)) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let unknown = || {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: not a list of a dump", dir.join(NAME).display()))
        };
        let list = parse(&content).ok_or_else(unknown)?;
        let mut left = HashMap::new();
        for saved in list {
            let path = dir.join(format!("{}{SUFFIX}", saved.queue));
            let unfinished = dir.join(format!("{}{UNFINISHED_SUFFIX}", saved.queue));
            let is_it = |path: &Path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == saved.bytes);
            if is_it(&unfinished) {
                if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_dir()) {
                    load::move_away(dir, &path)?;
                }
                fs::rename(&unfinished, &path)?;
            }
            if is_it(&path) {
                left.insert(saved.queue, saved.left);
            }
        }
        File::open(dir)?.sync_all()?;
        Ok(Some(Self { left }))
    }

    /// How many records of a queue belong on the disk behind the store; nothing for one that was not saved.
    #[must_use]
    pub fn left(&self, queue: &str) -> Option<u64> {
        self.left.get(queue).copied()
    }
}

/// Removes the list: everything is in its place.
///
/// # Errors
/// It cannot be removed.
pub fn done(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(NAME)) {
        Ok(()) => File::open(dir)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes the list. From here on the files hold.
pub(super) fn write(dir: &Path, list: &[Saved]) -> io::Result<()> {
    let mut content = format!("{TITLE}\n");
    for Saved { queue, left, bytes } in list {
        content.push_str(&format!("{queue} {left} {bytes}\n"));
    }
    content.push_str(END);
    let path = dir.join(UNFINISHED);
    let mut file = File::create(&path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&path, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

fn parse(content: &str) -> Option<Vec<Saved>> {
    let lines = content.strip_prefix(TITLE)?.strip_suffix(END)?;
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let queue = words.next().filter(|queue| !queue.contains('/'))?.to_owned();
            let saved = Saved { queue, left: words.next()?.parse().ok()?, bytes: words.next()?.parse().ok()? };
            words.next().is_none().then_some(saved)
        })
        .collect()
}

//! Another mode's records are taken over all at once or not at all.
//!
//! A data directory with everything is made beside the old files, in `takeover.new`. Its new name, `takeover`, is what counts:
//! before it the old files hold, and what was begun is thrown away; behind it they go, and the new ones get
//! their places. A process that is killed in between does the rest at its next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A data directory that is being filled.
const UNFINISHED: &str = "takeover.new";
/// One that has everything.
const COMPLETE: &str = "takeover";
/// The file in it that names what it replaces, line by line.
const REPLACED: &str = "replaced";

/// Whether a name in a data directory is one of these.
pub(crate) fn is_ours(name: &str) -> bool {
    name == UNFINISHED || name == COMPLETE
}

/// Makes an empty directory for what is taken over.
pub(super) fn begin(dir: &Path) -> io::Result<PathBuf> {
    give_up(dir)?;
    let staging = dir.join(UNFINISHED);
    fs::create_dir(&staging)?;
    Ok(staging)
}

/// Removes what was begun.
pub(super) fn give_up(dir: &Path) -> io::Result<()> {
    remove(&dir.join(UNFINISHED))
}

/// Lets what is in the directory hold instead of these files in `dir`.
pub(super) fn commit(dir: &Path, replaced: &[String]) -> io::Result<()> {
    let staging = dir.join(UNFINISHED);
    step(dir);
    fs::write(staging.join(REPLACED), replaced.join("\n"))?;
    File::open(staging.join(REPLACED))?.sync_all()?;
    sync(&staging)?;
    step(dir);
    fs::rename(&staging, dir.join(COMPLETE))?;
    sync(dir)?;
    step(dir);
    Ok(())
}

/// Finishes what was committed, and removes what was only begun.
pub(super) fn finish(dir: &Path) -> io::Result<()> {
    give_up(dir)?;
    let complete = dir.join(COMPLETE);
    let list = complete.join(REPLACED);
    match fs::read_to_string(&list) {
        Ok(replaced) => {
            for name in replaced.lines().filter(|name| !name.is_empty() && !name.contains('/') && *name != "..") {
                remove(&dir.join(name))?;
                step(dir);
            }
            sync(dir)?;
            fs::remove_file(&list)?;
            sync(&complete)?;
            step(dir);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let entries = match fs::read_dir(&complete) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        fs::rename(entry.path(), dir.join(entry.file_name()))?;
        step(dir);
    }
    sync(dir)?;
    fs::remove_dir(&complete)?;
    sync(dir)?;
    step(dir);
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(test))]
pub(crate) fn step(_dir: &Path) {}

#[cfg(test)]
pub(crate) use watched::{step, watch};

/// Tests look at the directory after each step.
#[cfg(test)]
mod watched {
    use std::cell::RefCell;
    use std::path::Path;

    type Watcher = Box<dyn FnMut(&Path)>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    pub(crate) fn step(dir: &Path) {
        WATCHER.with_borrow_mut(|watcher| watcher.iter_mut().for_each(|watcher| watcher(dir)));
    }

    /// Has every step from here on shown, until it is called with nothing.
    pub(crate) fn watch(watcher: Option<Watcher>) {
        WATCHER.set(watcher);
    }
}

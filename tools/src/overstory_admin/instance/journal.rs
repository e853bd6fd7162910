//! Marks that make adding and removing all or nothing, also when the command is killed in between.
//!
//! A new instance (of a dht, say) is written to `srv/.adding-dht-NAME` and renamed to `srv/dht-NAME` with the mark `.adding`; then
//! its program file is written, and the mark taken away. One that is removed gets the mark `.removing`, then its program
//! file goes, then its directory. Whoever holds the lock first finishes or undoes what another left half done: the
//! program file decides, for nothing runs without it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use overstory_model::{Clock as _, SystemClock};
use overstory_runtime::Home;
use overstory_runtime::lock::FileLock;
use overstory_supervisor::{Services, lock};

use super::{Place, files, names, nodes_file, srv};

const ADDING: &str = ".adding";
const REMOVING: &str = ".removing";
/// What a removed instance's directory is moved below.
pub(in crate::overstory_admin) const REMOVED: &str = "removed";

/// What becomes of the data of a removed instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::overstory_admin) enum Data {
    Kept,
    Purged,
}

/// Whether an action on the instance is under way, or was left half done.
pub(in crate::overstory_admin) fn is_under_way(dir: &Path) -> bool {
    [ADDING, REMOVING].iter().any(|mark| dir.join(mark).exists())
}

/// Where the directory of an instance is written before it takes its place.
pub(in crate::overstory_admin) fn staging(home: &Home, place: &Place) -> PathBuf {
    srv(home.root()).join(format!("{ADDING}-{}", place.service()))
}

/// Marks a directory as one that is being added.
pub(in crate::overstory_admin) fn mark_adding(dir: &Path) -> io::Result<()> {
    files::create(&dir.join(ADDING), "", 0o640)
}

/// The instance is there.
pub(in crate::overstory_admin) fn added(dir: &Path) -> io::Result<()> {
    files::remove_file(&dir.join(ADDING))
}

/// Marks an instance as one that is being removed.
pub(in crate::overstory_admin) fn mark_removing(dir: &Path, data: Data) -> io::Result<()> {
    files::replace(&dir.join(REMOVING), if data == Data::Purged { "purge" } else { "keep" }, 0o640)
}

/// The instance stays.
pub(in crate::overstory_admin) fn keeps(dir: &Path) -> io::Result<()> {
    files::remove_file(&dir.join(REMOVING))
}

/// Removes what is left of an instance whose program file is gone; says where its data is, if it was kept.
pub(in crate::overstory_admin) fn remove_rest(home: &Home, place: &Place, stamp: &str) -> io::Result<Option<PathBuf>> {
    let dir = place.dir();
    let kept = match fs::read_to_string(dir.join(REMOVING)) {
        Ok(text) if text == "purge" => {
            place.output_logs().iter().try_for_each(|log| files::remove_file(log))?;
            discard(home, place)?;
            None
        }
        _ => {
            for log in place.output_logs() {
                if let Some(name) = log.file_name() {
                    fs::rename(&log, dir.join("log").join(name))?;
                }
            }
            let removed = srv(home.root()).join(REMOVED);
            if !removed.exists() {
                files::make_dir(&removed)?;
            }
            let to = free_name(&removed, &format!("{}-{stamp}", place.service()));
            fs::rename(&dir, &to)?;
            keeps(&to)?;
            Some(to)
        }
    };
    files::sync_parent(&dir)?;
    Ok(kept)
}

/// Deletes the directory of an instance: out of the way first, for what is deleted halfway has lost its mark.
pub(in crate::overstory_admin) fn discard(home: &Home, place: &Place) -> io::Result<()> {
    let gone = staging(home, place);
    files::remove_dir(&gone)?;
    files::remove_replacement(&place.program_file())?;
    match fs::rename(place.dir(), &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => {
            other?;
            files::remove_dir(&gone).map_err(|error| io::Error::new(error.kind(), undeletable(&gone, &error)))
        }
    }
}

/// What is said of a directory that cannot be deleted, such as one in which something is mounted.
fn undeletable(dir: &Path, error: &io::Error) -> String {
    format!("{} cannot be deleted ({error}): unmount what is mounted there, and delete it by hand", dir.display())
}

fn free_name(dir: &Path, name: &str) -> PathBuf {
    let candidates = std::iter::once(name.to_owned()).chain((2_u32..).map(|n| format!("{name}-{n}")));
    let mut paths = candidates.map(|name| dir.join(name));
    paths.find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| dir.join(name))
}

/// Takes the lock under which instances are added and removed, and finishes or undoes what was left half done.
///
/// # Errors
/// The lock cannot be taken, a directory or file cannot be changed, or supervisord refuses.
pub(in crate::overstory_admin) async fn begin(
    home: &Home,
    services: &Services,
    out: &mut impl Write,
) -> anyhow::Result<FileLock> {
    let path = home.run_dir().join("instances.lock");
    let tell = |holder: &str| eprintln!("overstory: waiting for {holder}");
    let held = lock::acquire(&path, tell).await.with_context(|| path.display().to_string())?;
    let recovered = recover(home, &stamp())?;
    if !recovered.is_empty() {
        nodes_file::write_all(home)?;
    }
    for (place, told) in recovered {
        if !place.program_file().exists() {
            for name in place.services() {
                services.forget(&name).await?;
            }
        }
        writeln!(out, "{}: {told}", place.service())?;
    }
    Ok(held)
}

/// The time as the name of a directory has it, UTC.
pub(in crate::overstory_admin) fn stamp() -> String {
    SystemClock.now().secs().utc().chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Finishes or undoes what a command that was killed left half done; says of which instance and what it did.
fn recover(home: &Home, stamp: &str) -> anyhow::Result<Vec<(Place, String)>> {
    let srv = srv(home.root());
    let mut done = Vec::new();
    for entry in fs::read_dir(&srv).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(ADDING)) {
            // It is nobody's any more, and must not keep the others from being added and removed.
            if let Err(error) = files::remove_dir(&entry.path()) {
                eprintln!("overstory: warning: {}", undeletable(&entry.path(), &error));
            }
        }
    }
    for (kind, name) in names(home.root())? {
        let place = Place::new(home, kind, name);
        let dir = place.dir();
        let told = dir.display().to_string();
        let has_program = place.program_file().exists();
        if dir.join(ADDING).exists() {
            if has_program {
                added(&dir).context(told)?;
                done.push((place, "its addition was interrupted at the end and is complete now".to_owned()));
            } else {
                discard(home, &place).context(told)?;
                done.push((place, "its addition was interrupted and is undone".to_owned()));
            }
        } else if dir.join(REMOVING).exists() {
            if has_program {
                keeps(&dir).context(told)?;
                done.push((place, "its removal was interrupted; it is still there".to_owned()));
            } else {
                let kept = remove_rest(home, &place, stamp).context(told)?;
                let kept = kept.map_or_else(String::new, |to| format!(", its data is in {}", to.display()));
                done.push((place, format!("its removal was interrupted and is complete now{kept}")));
            }
        }
    }
    Ok(done)
}

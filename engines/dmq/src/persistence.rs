//! What a queue node does with its data directory: opening, loading, taking over what another mode left, saving.
//!
//! | durability | behind the queues | at the start | at the end |
//! |---|---|---|---|
//! | memory | nothing | `.rq` | `.rq` |
//! | overflow | [`crate::overflow`] | `.rq`, then the overflow | `.rq`, the overflow's index |
//! | journal | [`crate::journal`] | the journal | the journal is synced |
//!
//! Files of another mode than the configured one are taken over and then deleted, once and as a whole, whenever the process
//! is killed. A node without a disk behind it does not start if their records do not fit into memory.

mod moving;
mod shared;
pub(crate) mod staging;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail};
use overstory_node::commit::Commits;
use tracing::{error, info, warn};

use crate::config::{DmqSettings, Durability};
use crate::disk::{Disk, DiskError};
use crate::dump;
use crate::journal::{self, Driver, Journal};
use crate::load::{self, LoadReport};
use crate::overflow::{self, Overflow};
use crate::store::{Options, Sizes, Store};
use shared::Shared;

/// What was opened.
pub struct Opened {
    /// The queues.
    pub store: Store,
    /// What a journal makes durable.
    pub commits: Option<Rc<Commits>>,
    /// Everything that is damaged; each text names its file.
    pub damaged: Vec<String>,
    /// What saves the data at the end.
    pub persistence: Persistence,
}

/// The disk behind the queues, in the hands of the program.
pub struct Persistence {
    dir: PathBuf,
    backend: Backend,
}

enum Backend {
    Memory,
    Overflow(Shared<Overflow>),
    Journal(Driver),
}

/// Opens a data directory, which is made if it is not there.
///
/// # Errors
/// Files cannot be read or written, or records have no place in memory. Damaged files are no error.
pub fn open(settings: &DmqSettings, dir: &Path) -> anyhow::Result<Opened> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the data directory {}", dir.display()))?;
    staging::finish(dir).context("cannot finish what was taken over from another durability mode")?;
    let mut damaged = finish_stop(dir).context("cannot finish the last stop")?;
    let mut subscribers = Vec::new();
    if moving::is_wanted(settings.durability, dir)? {
        let taken = moving::take_over(settings, dir);
        if taken.is_err() {
            staging::give_up(dir).context("cannot remove what was begun")?;
        }
        let taken = taken?;
        staging::finish(dir).context("cannot finish what was taken over from another durability mode")?;
        damaged.extend(taken.damaged);
        subscribers = taken.subscribers;
    }
    let mut opened = open_own(settings, dir)?;
    damaged.append(&mut opened.damaged);
    opened.damaged = damaged;
    for (channel, subscriber) in subscribers {
        // One without records stays a subscriber.
        opened.store.subscribe(&channel, &subscriber)?;
    }
    opened.store.settle()?;
    Ok(opened)
}

/// Does what a process that was killed had left of its orderly stop: see [`dump::Pending`].
fn finish_stop(dir: &Path) -> anyhow::Result<Vec<String>> {
    let Some(pending) = dump::Pending::find(dir)? else { return Ok(Vec::new()) };
    let mut damaged = Vec::new();
    if moving::has_overflow(dir) {
        let (mut overflow, found) = Overflow::open(dir, &overflow::Options::default())?;
        damaged = complain(found.problems);
        for queue in found.queues {
            if let Some(saved) = pending.left(&queue.name).and_then(|left| queue.records.checked_sub(left)) {
                overflow.release(queue.queue, 0, saved)?;
            }
        }
        overflow.close()?;
    }
    dump::done(dir)?;
    Ok(damaged)
}

/// Opens a directory that has files of the configured mode only.
fn open_own(settings: &DmqSettings, dir: &Path) -> anyhow::Result<Opened> {
    let options = Options {
        sizes: Sizes { default: settings.channel_size, by_prefix: settings.channel_sizes.clone() },
        redeliver: settings.redeliver,
    };
    let (mut store, commits, backend, mut damaged) = match settings.durability {
        Durability::Memory => (Store::new(options, None), None, Backend::Memory, Vec::new()),
        Durability::Overflow => {
            let opened = Overflow::open(dir, &overflow::Options::default());
            let (overflow, found) = opened.context("cannot open the overflow")?;
            let overflow = Shared::new(overflow);
            let mut store = Store::new(options, Some(Box::new(overflow.clone())));
            store.recover(found.queues)?;
            (store, None, Backend::Overflow(overflow), complain(found.problems))
        }
        Durability::Journal => {
            let commits = Rc::new(Commits::new());
            let options_of_journal = journal::Options { segment_bytes: settings.segment_bytes };
            let opened = Journal::open(dir, &options_of_journal, Rc::clone(&commits));
            let (journal, found) = opened.context("cannot open the journal")?;
            let driver = journal.driver();
            let mut store = Store::new(options, Some(Box::new(journal)));
            store.recover(found.queues)?;
            (store, Some(commits), Backend::Journal(driver), complain(found.problems))
        }
    };
    let loaded = load::load(dir, &mut store)?;
    damaged.extend(report(&loaded));
    store.settle()?;
    if let Backend::Journal(driver) = &backend {
        driver.sync_now().context("cannot write the journal")?;
    }
    delete(&loaded)?;
    Ok(Opened { store, commits, damaged, persistence: Persistence { dir: dir.to_owned(), backend } })
}

/// Says in the log what became of the `.rq` files. Returns what is damaged.
fn report(loaded: &LoadReport) -> Vec<String> {
    for (path, why) in &loaded.ignored {
        error!(target: "node.storage", file = %path.display(), why, "file ignored and left where it is");
    }
    if !loaded.files.is_empty() {
        info!(target: "node.storage", files = loaded.files.len(), records = loaded.records, "queues loaded");
    }
    let damaged = loaded.files.iter().filter_map(|file| {
        let damage = file.damage.as_ref()?;
        let kept = file.kept.as_ref().unwrap_or(&file.path);
        Some(format!(
            "{}: {damage}; {} records were read, the file is kept as {}",
            file.path.display(),
            file.records,
            kept.display()
        ))
    });
    complain(damaged.collect())
}

fn complain(problems: Vec<String>) -> Vec<String> {
    for problem in &problems {
        error!(target: "node.storage", problem, "damaged data");
    }
    problems
}

/// Deletes what was loaded, or the records would come again at the next start.
fn delete(loaded: &LoadReport) -> anyhow::Result<()> {
    match loaded.delete_loaded().into_iter().next() {
        Some((path, error)) => Err(error).with_context(|| format!("{}: loaded, but cannot be deleted", path.display())),
        None => Ok(()),
    }
}

impl Persistence {
    /// Makes durable in the background what the journal has, if there is one. Never ends by itself.
    pub fn drive(&self) -> Option<impl Future<Output = ()> + use<>> {
        match &self.backend {
            Backend::Journal(driver) => Some(journal::run(driver.clone())),
            Backend::Memory | Backend::Overflow(_) => None,
        }
    }

    /// Writes the index of the overflow, if there is one.
    ///
    /// # Errors
    /// It, or the one before it, could not be written.
    pub fn save_index(&self) -> Result<(), DiskError> {
        match &self.backend {
            Backend::Overflow(overflow) => overflow.with(Overflow::save_index),
            Backend::Memory | Backend::Journal(_) => Ok(()),
        }
    }

    /// Saves everything as the last thing; consumers are gone by then.
    ///
    /// # Errors
    /// Names what could not be saved. All that can be is saved nevertheless.
    pub fn close(&self, store: &mut Store) -> anyhow::Result<()> {
        let report = dump::dump(&self.dir, store);
        let mut problems = Vec::new();
        for queue in &report.queues {
            match &queue.error {
                None => info!(
                    target: "storage:", of = queue.queue.as_str(),
                    "Closing -- saving in file \"{}\"", queue.path.display()
                ),
                Some(problem) => {
                    error!(target: "storage:", of = queue.queue.as_str(), %problem, "queue not saved");
                    problems.push(format!("queue {}: {problem}", queue.queue));
                }
            }
        }
        problems.extend(report.disk.as_ref().map(ToString::to_string));
        problems.extend(store.settle().err().map(|problem| problem.to_string()));
        problems.extend(self.close_backend().err().map(|problem| problem.to_string()));
        staging::step(&self.dir);
        if report.disk.is_none() && problems.len() == report.queues.iter().filter(|queue| queue.error.is_some()).count()
        {
            problems.extend(dump::done(&self.dir).err().map(|problem| problem.to_string()));
        }
        match problems.as_slice() {
            [] => Ok(()),
            [first, others @ ..] => {
                others.iter().for_each(|problem| warn!(target: "node.storage", problem, "not saved"));
                bail!("{} of the queues' data could not be saved: {first}", problems.len())
            }
        }
    }

    fn close_backend(&self) -> Result<(), DiskError> {
        match &self.backend {
            Backend::Memory => Ok(()),
            Backend::Overflow(overflow) => overflow.close().map_or(Ok(()), Overflow::close),
            Backend::Journal(driver) => driver.close(),
        }
    }
}

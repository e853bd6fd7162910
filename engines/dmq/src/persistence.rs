//! What a queue node does with its data directory: opening, loading, taking over what another mode left, saving.
//!
//! | durability | behind the queues | at the start | at the end |
//! |---|---|---|---|
//! | memory | nothing | `.rq` | `.rq` |
//! | overflow | [`crate::overflow`] | `.rq`, then the overflow | `.rq`, the overflow's index |
//! | journal | [`crate::journal`] | the journal | the journal is synced |
//!
//! Files of another mode than the configured one are taken over and then deleted. A node without a disk behind it does
//! not start if their records do not fit into memory.

mod moving;
mod shared;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail};
use overstory_node::commit::Commits;
use tracing::{error, info, warn};

use crate::config::{DmqSettings, Durability};
use crate::disk::DiskError;
use crate::dump;
use crate::journal::{self, Driver, Journal};
use crate::load::{self, LoadReport};
use crate::overflow::{self, Overflow};
use crate::store::{Options, Sizes, Store};
use moving::Source;
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
    let options = Options {
        sizes: Sizes { default: settings.channel_size, by_prefix: settings.channel_sizes.clone() },
        redeliver: settings.redeliver,
    };
    match settings.durability {
        Durability::Memory => open_memory(options, dir),
        Durability::Overflow => open_overflow(options, dir),
        Durability::Journal => open_journal(options, settings.segment_bytes, dir),
    }
}

fn open_memory(options: Options, dir: &Path) -> anyhow::Result<Opened> {
    let sizes = options.sizes.clone();
    let mut store = Store::new(options, None);
    let loaded = load::load(dir, &mut store)?;
    let mut damaged = report(&loaded);
    let sources: Vec<Source> = [Source::overflow(dir)?, Source::journal(dir)?].into_iter().flatten().collect();
    for source in &sources {
        source.check_fit(&sizes, &store)?;
    }
    for mut source in sources {
        damaged.extend(complain(std::mem::take(&mut source.problems)));
        source.check_fit(&sizes, &store)?;
        source.copy_to(&mut store)?;
        source.remove()?;
    }
    delete(&loaded)?;
    Ok(Opened { store, commits: None, damaged, persistence: Persistence::new(dir, Backend::Memory) })
}

fn open_overflow(options: Options, dir: &Path) -> anyhow::Result<Opened> {
    let (overflow, found) = Overflow::open(dir, &overflow::Options::default()).context("cannot open the overflow")?;
    let overflow = Shared::new(overflow);
    let mut store = Store::new(options, Some(Box::new(overflow.clone())));
    let mut damaged = complain(found.problems);
    store.recover(found.queues)?;
    let loaded = load::load(dir, &mut store)?;
    damaged.extend(report(&loaded));
    if let Some(mut source) = Source::journal(dir)? {
        damaged.extend(complain(std::mem::take(&mut source.problems)));
        source.copy_to(&mut store)?;
        overflow.with(Overflow::save_index)?;
        source.remove()?;
    }
    delete(&loaded)?;
    Ok(Opened { store, commits: None, damaged, persistence: Persistence::new(dir, Backend::Overflow(overflow)) })
}

fn open_journal(options: Options, segment_bytes: u64, dir: &Path) -> anyhow::Result<Opened> {
    let commits = Rc::new(Commits::new());
    let opened = Journal::open(dir, &journal::Options { segment_bytes }, Rc::clone(&commits));
    let (journal, found) = opened.context("cannot open the journal")?;
    let driver = journal.driver();
    let mut store = Store::new(options, Some(Box::new(journal)));
    let mut damaged = complain(found.problems);
    store.recover(found.queues)?;
    let loaded = load::load(dir, &mut store)?;
    damaged.extend(report(&loaded));
    let source = Source::overflow(dir)?;
    let source = match source {
        Some(mut source) => {
            damaged.extend(complain(std::mem::take(&mut source.problems)));
            source.copy_to(&mut store)?;
            Some(source)
        }
        None => None,
    };
    store.settle()?;
    driver.sync_now().context("cannot write the journal")?;
    delete(&loaded)?;
    source.map_or(Ok(()), Source::remove)?;
    let persistence = Persistence::new(dir, Backend::Journal(driver));
    Ok(Opened { store, commits: Some(commits), damaged, persistence })
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
    fn new(dir: &Path, backend: Backend) -> Self {
        Self { dir: dir.to_owned(), backend }
    }

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
            Backend::Journal(driver) => driver.sync_now(),
        }
    }
}

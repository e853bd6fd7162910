//! Brings records from the files of one durability mode into a node of another one.
//!
//! A directory of the new mode is made of all files there are, and then replaces them: see [`staging`].

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail};
use overstory_node::commit::Commits;
use overstory_swarm::neo::dmq::Records;
use tracing::info;

use super::staging;
use crate::config::{DmqSettings, Durability};
use crate::disk::{Disk, RecoveredQueue};
use crate::journal::{self, Journal};
use crate::load;
use crate::overflow::{self, Overflow};
use crate::store::names::QueueName;
use crate::store::{Sizes, Store};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Queues that do not fit and are named.
const NAMED: usize = 3;

/// What was taken over.
pub(super) struct TakenOver {
    /// Everything that is damaged.
    pub(super) damaged: Vec<String>,
    /// Channels with their subscribers.
    pub(super) subscribers: Vec<(String, String)>,
}

/// Whether there are files that a node of this durability does not keep.
pub(super) fn is_wanted(durability: Durability, dir: &Path) -> anyhow::Result<bool> {
    let has_journal = dir.join(JOURNAL).exists();
    Ok(match durability {
        Durability::Memory => has_overflow(dir) || has_journal,
        Durability::Overflow => has_journal,
        Durability::Journal => has_overflow(dir) || load::has_files(dir)?,
    })
}

/// Whether there are files of the overflow.
pub(super) fn has_overflow(dir: &Path) -> bool {
    OVERFLOW_FILES.iter().any(|name| dir.join(name).exists())
}

/// Makes a directory of the new mode that holds all records, and commits it; [`staging::finish`] puts it in its place.
pub(super) fn take_over(settings: &DmqSettings, dir: &Path) -> anyhow::Result<TakenOver> {
    let mut new = super::open_own(settings, &staging::begin(dir)?)?;
    let mut taken = TakenOver { damaged: Vec::new(), subscribers: Vec::new() };
    // What was pushed first comes first: a node that keeps all on disk has the files of other modes from later, others
    // have what was in memory before what was on disk.
    let mut replaced: Vec<String> = OVERFLOW_FILES.iter().map(|&name| name.to_owned()).collect();
    replaced.extend(OVERFLOW_SPARES.iter().map(|&name| name.to_owned()));
    replaced.push(JOURNAL.to_owned());
    let mut journal = Source::journal(dir)?;
    if settings.durability == Durability::Journal
        && let Some(journal) = journal.take()
    {
        journal.copy_to(&mut new.store, &mut taken)?;
    }
    let loaded = load::load(dir, &mut new.store)?;
    taken.damaged.extend(super::report(&loaded));
    for file in &loaded.files {
        if file.damage.is_some() && file.kept.is_none() {
            bail!("{}: damaged, and no copy of it can be kept; move it elsewhere", file.path.display());
        }
        replaced.extend(file.path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
    }
    let sources: Vec<Source> = [Source::overflow(dir)?, journal].into_iter().flatten().collect();
    let in_memory = settings.durability == Durability::Memory;
    if in_memory {
        let sizes = Sizes { default: settings.channel_size, by_prefix: settings.channel_sizes.clone() };
        check_fit(&sources, &sizes, &new.store)?;
    }
    for source in sources {
        source.copy_to(&mut new.store, &mut taken)?;
    }
    new.persistence.close(&mut new.store)?;
    drop(new);
    staging::commit(dir, &replaced).context("cannot put what was taken over in its place")?;
    Ok(taken)
}

/// Files of another mode, opened.
struct Source {
    disk: Files,
    queues: Vec<RecoveredQueue>,
    /// What is damaged in them.
    problems: Vec<String>,
    paths: Vec<PathBuf>,
}

enum Files {
    Overflow(Box<Overflow>),
    Journal(Journal),
}

impl Source {
    /// The overflow in `dir`; nothing if there is none.
    fn overflow(dir: &Path) -> anyhow::Result<Option<Self>> {
        let paths: Vec<PathBuf> =
            OVERFLOW_FILES.iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect();
        if paths.is_empty() {
            return Ok(None);
        }
        let (overflow, found) =
            Overflow::open(dir, &overflow::Options::default()).context("cannot open the overflow")?;
        Ok(Some(Self {
            disk: Files::Overflow(Box::new(overflow)),
            queues: found.queues,
            problems: found.problems,
            paths,
        }))
    }

    /// The journal in `dir`; nothing if there is none.
    fn journal(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(JOURNAL);
        if !path.exists() {
            return Ok(None);
        }
        let opened = Journal::open(dir, &journal::Options { segment_bytes: 0 }, Rc::new(Commits::new()));
        let (journal, found) = opened.context("cannot open the journal")?;
        let disk = Files::Journal(journal);
        Ok(Some(Self { disk, queues: found.queues, problems: found.problems, paths: vec![path] }))
    }

    /// Appends all records to the queues of `store`.
    fn copy_to(mut self, store: &mut Store, taken: &mut TakenOver) -> anyhow::Result<()> {
        taken.damaged.extend(super::complain(std::mem::take(&mut self.problems)));
        let disk: &mut dyn Disk = match &mut self.disk {
            Files::Overflow(overflow) => &mut **overflow,
            Files::Journal(journal) => journal,
        };
        let (mut records, mut buffer) = (0_u64, Vec::new());
        for found in &self.queues {
            let mut at = 0;
            while at < found.records {
                buffer.clear();
                let read = disk.read(found.queue, at, CHUNK, &mut buffer)?;
                for record in Records::new(&buffer) {
                    store.import(&found.name, record?)?;
                    records += 1;
                }
                store.settle()?;
                if read.records + read.lost == 0 {
                    bail!("records of the queue {} are missing", found.name);
                }
                at += read.records + read.lost;
            }
            if let Some(QueueName { channel, subscriber: Some(subscriber) }) = QueueName::parse(&found.name) {
                store.subscribe(channel, subscriber)?;
                taken.subscribers.push((channel.to_owned(), subscriber.to_owned()));
            }
        }
        info!(
            target: "node.storage",
            files = self.named(), queues = self.queues.len(), records, "records of another durability mode taken over"
        );
        Ok(())
    }

    /// The files.
    fn named(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        paths.join(", ")
    }
}

/// Checks that all records fit into memory beside what `store` holds.
fn check_fit(sources: &[Source], sizes: &Sizes, store: &Store) -> anyhow::Result<()> {
    let mut held = HashMap::new();
    store.queues(None, &mut |name, totals| {
        held.insert(name.to_owned(), totals.bytes_memory);
        ControlFlow::Continue(())
    });
    let (mut queues, mut records, mut worst) = (0_u64, 0_u64, String::new());
    for found in sources.iter().flat_map(|source| &source.queues) {
        let channel = QueueName::parse(&found.name).map_or(found.name.as_str(), |name| name.channel);
        let limit = sizes.of(channel);
        let all = held.entry(found.name.clone()).or_insert(0);
        *all = all.saturating_add(found.bytes).saturating_add(found.records.saturating_mul(8));
        if found.records > 0 && *all > limit {
            if queues < NAMED as u64 {
                // Writing to a string cannot fail.
                let _ = write!(worst, "; {}: {all} bytes of at most {limit}", found.name);
            }
            queues += 1;
            records += found.records;
        }
    }
    if queues == 0 {
        return Ok(());
    }
    let named: Vec<String> = sources.iter().map(Source::named).collect();
    bail!(
        "[Queue] durability = memory, but {} hold {records} records of {queues} queues that do not fit into memory \
         ({}). Nothing was changed. Start with the durability that wrote them until the queues are shorter, or make \
         channel_size_limit or [ChannelSizeById] larger, or move these files elsewhere",
        named.join(", "),
        worst.trim_start_matches("; "),
    );
}

/// The files of the overflow.
const OVERFLOW_FILES: [&str; 3] = ["overflow.dat", "ofchannels.csv", "overflow.positions"];

/// What it may leave beside them when it is killed.
const OVERFLOW_SPARES: [&str; 2] = ["overflow.positions.new", "ofchannels.csv.new"];

/// The directory of the journal.
const JOURNAL: &str = "journal";

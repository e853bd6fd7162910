//! Brings records from the files of one durability mode into a node of another one.
//!
//! What was taken over is as safe as the new mode makes it before the old files go; what is interrupted in between is
//! taken over again at the next start.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail};
use overstory_node::commit::Commits;
use overstory_swarm::neo::dmq::Records;
use tracing::info;

use crate::disk::{Disk, RecoveredQueue};
use crate::journal::{self, Driver, Journal};
use crate::overflow::{self, Overflow};
use crate::store::names::QueueName;
use crate::store::{Sizes, Store};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Queues that do not fit and are named.
const NAMED: usize = 3;

/// Files of another mode, opened.
pub(super) struct Source {
    disk: Files,
    queues: Vec<RecoveredQueue>,
    /// What is damaged in them.
    pub(super) problems: Vec<String>,
    paths: Vec<PathBuf>,
}

enum Files {
    Overflow(Box<Overflow>),
    Journal(Journal, Driver),
}

impl Source {
    /// The overflow in `dir`; nothing if there is none.
    pub(super) fn overflow(dir: &Path) -> anyhow::Result<Option<Self>> {
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
    pub(super) fn journal(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(JOURNAL);
        if !path.exists() {
            return Ok(None);
        }
        let opened = Journal::open(dir, &journal::Options::default(), Rc::new(Commits::new()));
        let (journal, found) = opened.context("cannot open the journal")?;
        let driver = journal.driver();
        let disk = Files::Journal(journal, driver);
        Ok(Some(Self { disk, queues: found.queues, problems: found.problems, paths: vec![path] }))
    }

    /// Appends all records to the queues of `store`.
    pub(super) fn copy_to(&mut self, store: &mut Store) -> anyhow::Result<()> {
        let disk: &mut dyn Disk = match &mut self.disk {
            Files::Overflow(overflow) => &mut **overflow,
            Files::Journal(journal, _) => journal,
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
                // A subscriber without records stays one.
                store.subscribe(channel, subscriber)?;
            }
        }
        info!(
            target: "node.storage",
            files = self.named(), queues = self.queues.len(), records, "records of another durability mode taken over"
        );
        Ok(())
    }

    /// Deletes the files, whose records are elsewhere by now.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        let named = self.named();
        self.remove_files().with_context(|| {
            format!("{named}: taken over, but not deleted: they would be taken over again at the next start")
        })
    }

    fn remove_files(self) -> anyhow::Result<()> {
        match self.disk {
            Files::Overflow(mut overflow) => {
                for found in &self.queues {
                    overflow.release(found.queue, 0, found.records)?;
                }
                // Without records no file stays.
                overflow.close()?;
            }
            Files::Journal(journal, driver) => {
                drop((journal, driver));
                for path in &self.paths {
                    fs::remove_dir_all(path)?;
                }
            }
        }
        Ok(())
    }

    /// The files.
    fn named(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        paths.join(", ")
    }

    /// Checks that all records fit into memory beside what `store` holds.
    pub(super) fn check_fit(&self, sizes: &Sizes, store: &Store) -> anyhow::Result<()> {
        let mut held = HashMap::new();
        store.queues(None, &mut |name, totals| {
            held.insert(name.to_owned(), totals.bytes_memory);
            ControlFlow::Continue(())
        });
        let (mut queues, mut records, mut worst) = (0_u64, 0_u64, String::new());
        for found in &self.queues {
            let channel = QueueName::parse(&found.name).map_or(found.name.as_str(), |name| name.channel);
            let limit = sizes.of(channel);
            let bytes = found.bytes.saturating_add(found.records.saturating_mul(8));
            let all = bytes.saturating_add(held.get(&found.name).copied().unwrap_or(0));
            if found.records > 0 && all > limit {
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
        bail!(
            "[Queue] durability = memory, but {} hold {records} records of {queues} queues that do not fit into memory \
             ({}). Nothing was changed. Start with the durability that wrote them until the queues are shorter, or make \
             channel_size_limit or [ChannelSizeById] larger, or move these files elsewhere",
            self.named(),
            worst.trim_start_matches("; "),
        );
    }
}

/// The files of the overflow.
const OVERFLOW_FILES: [&str; 3] = ["overflow.dat", "ofchannels.csv", "overflow.positions"];

/// The directory of the journal.
const JOURNAL: &str = "journal";

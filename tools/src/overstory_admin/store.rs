//! `overstory store`: what is in the store, whether it is sound, and moving it.

use std::io::Write;

use anyhow::{bail, ensure};
use clap::{Subcommand, ValueEnum};
use overstory_model::{Clock as _, SystemClock};
use overstory_runtime::{Home, terminal};
use overstory_store::transfer::{self, Progress};
use overstory_store::{StoreConfig, StoreKind, open_web};

/// Engines report each minute: a report younger than this many seconds means that they are at work.
const AT_WORK_S: i64 = 90;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Its size, its version and how much of what is in it
    Info,
    /// Reads everything in it; exit code 1 when something is damaged
    Check,
    /// Copies everything from the other kind of store, with the stack stopped; then set [store] kind in etc/store.conf
    Copy {
        /// The kind of store to copy to, from the other one; both are described in etc/store.conf
        #[arg(long)]
        to: Kind,
        /// Replaces what the target holds
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Embedded,
    Mongodb,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mongodb => "mongodb",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Embedded => Self::Mongodb,
            Self::Mongodb => Self::Embedded,
        }
    }

    /// The store of this kind, whichever one is in use.
    fn config(self, home: &Home) -> anyhow::Result<StoreConfig> {
        Ok(StoreConfig::load(home, &[("store.kind", self.word().to_owned())])?)
    }
}

pub(super) async fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Info => info(&StoreConfig::load(home, &[])?, home, out).await,
        Command::Check => check(&StoreConfig::load(home, &[])?, out).await,
        Command::Copy { to, replace } => {
            let (from, target) = (to.other().config(home)?, to.config(home)?);
            copy(&from, &target, *replace, home, out).await?;
            writeln!(
                out,
                "done; set [store] kind = \"{}\" in {}",
                to.word(),
                home.config_file("store.conf").display()
            )?;
            Ok(())
        }
    }
}

async fn info(config: &StoreConfig, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let info = open_web(config, home).await?.probe.info().await?;
    writeln!(out, "kind      {}", info.kind)?;
    if let StoreKind::Embedded { path } = &config.kind {
        writeln!(out, "path      {}", path.display())?;
    }
    writeln!(out, "schema    {}", info.schema)?;
    writeln!(out, "bytes     {}", info.bytes)?;
    for (word, count) in &info.counts {
        writeln!(out, "{count:>9} {word}")?;
    }
    Ok(())
}

async fn check(config: &StoreConfig, out: &mut impl Write) -> anyhow::Result<()> {
    let mut lines = Lines::new();
    let problems = transfer::check(config, |progress| lines.show(progress)).await?;
    lines.end(out)?;
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    ensure!(problems.is_empty(), "the store is damaged");
    writeln!(out, "the store is sound")?;
    Ok(())
}

async fn copy(
    from: &StoreConfig,
    to: &StoreConfig,
    replace: bool,
    home: &Home,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // Of files the store itself sees whether they are in use, of a database nobody does.
    for config in [from, to] {
        if let StoreKind::MongoDb { database, .. } = &config.kind
            && let Ok(store) = open_web(config, home).await
        {
            let runs = store.runs.list(SystemClock.now().secs(), AT_WORK_S).await?;
            if let Some(run) = runs.iter().find(|run| run.active) {
                bail!("the database {database} is in use by {}: stop the stack first", run.instance);
            }
        }
    }
    let mut lines = Lines::new();
    let copied = transfer::copy(from, to, replace, |progress| lines.show(progress)).await;
    lines.end(out)?;
    Ok(copied?)
}

/// Progress: one line per kind of row, and on a terminal how it grows.
struct Lines {
    present: Option<Progress>,
    done: Vec<Progress>,
}

impl Lines {
    const fn new() -> Self {
        Self { present: None, done: Vec::new() }
    }

    fn show(&mut self, progress: Progress) {
        if let Some(present) = self.present.filter(|present| present.what != progress.what) {
            self.done.push(present);
        }
        self.present = Some(progress);
        if terminal::stderr_is_terminal() {
            eprint!("\r\x1b[K{} {}", progress.done, progress.what);
        }
    }

    fn end(mut self, out: &mut impl Write) -> std::io::Result<()> {
        if terminal::stderr_is_terminal() {
            eprint!("\r\x1b[K");
        }
        self.done.extend(self.present);
        self.done.iter().try_for_each(|progress| writeln!(out, "{:>9} {}", progress.done, progress.what))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use overstory_store::open_engines;

    use super::*;

    fn prefix() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/store.conf"), "").unwrap();
        let home = Home::at(dir.path());
        (dir, home)
    }

    async fn output(command: Command, home: &Home) -> anyhow::Result<String> {
        let mut out = Vec::new();
        run(&command, home, &mut out).await?;
        Ok(String::from_utf8(out)?)
    }

    #[tokio::test]
    async fn info_and_check_tell_what_is_there() {
        let (_dir, home) = prefix();
        let error = output(Command::Info, &home).await.unwrap_err();
        assert!(overstory_runtime::program::chain(error.as_ref()).contains("engines.db"), "{error:?}");
        let config = StoreConfig::load(&home, &[]).unwrap();
        let store = open_engines(&config, &home).await.unwrap();
        store.engines.take_epoch("Engine_events", "host/0").await.unwrap();
        let info = output(Command::Info, &home).await.unwrap();
        assert!(info.starts_with("kind      embedded\npath      /") && info.contains("        0 alarms\n"), "{info}");
        let check = output(Command::Check, &home).await.unwrap();
        assert_eq!(check, "        1 units\n        1 counters\nthe store is sound\n");
    }

    #[tokio::test]
    async fn a_copy_needs_both_stores_described() {
        let (_dir, home) = prefix();
        let error = output(Command::Copy { to: Kind::Mongodb, replace: false }, &home).await.unwrap_err();
        assert!(error.to_string().contains("mongodb-uri"), "{error:?}");
    }
}

//! `overstory remove`: takes an instance of a node away. Its data is moved aside unless it is to be deleted.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use overstory_runtime::Home;
use overstory_supervisor::Services;
use overstory_supervisor::services::Done;

use crate::service::text;

use super::instance::journal::{self, Data};
use super::instance::kind::{DHT, DMQ, KINDS, Kind, LOGFILES, QUEUE};
use super::instance::{self, Instance, Name, Place, farewell, files, nodes_file};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A node of the distributed hash table
    Dht(Removal),
    /// A node of the message queue
    Dmq(Removal),
    /// A logfiles node
    Logfiles(Removal),
    /// A node of a queue in memory
    Queue(Removal),
}

impl Command {
    const fn parts(&self) -> (&'static Kind, &Removal) {
        match self {
            Self::Dht(args) => (&DHT, args),
            Self::Dmq(args) => (&DMQ, args),
            Self::Logfiles(args) => (&LOGFILES, args),
            Self::Queue(args) => (&QUEUE, args),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Removal {
    /// Its name
    name: Name,
    /// Moves its directory to srv/removed (this is what happens anyway)
    #[arg(long, conflicts_with = "purge")]
    keep_data: bool,
    /// Deletes its directory with all records, dumps and backups
    #[arg(long)]
    purge: bool,
    /// Removes it although it did not end well, so that its files may lack records
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    remove(command, home, &Services::open(home.root()), out).await
}

async fn remove(command: &Command, home: &Home, services: &Services, out: &mut impl Write) -> anyhow::Result<()> {
    let (kind, args) = command.parts();
    let data = if args.purge { Data::Purged } else { Data::Kept };
    let _held = journal::begin(home, services, out).await?;
    let place = Place::new(home, kind, args.name.clone());
    let (dir, file) = (place.dir(), place.program_file());
    if !dir.exists() && !file.exists() {
        let names = instance::names(home.root())?.into_iter().filter(|(other, _)| *other == kind);
        let names: Vec<_> = names.map(|(_, name)| name.to_string()).collect();
        let known =
            if names.is_empty() { "there is none".to_owned() } else { format!("there are: {}", names.join(", ")) };
        bail!("there is no {} {}; {known}", kind.name, place.name);
    }
    // A broken instance can be removed, too.
    let (group, names) = match Instance::read(place.clone()) {
        Ok(instance) => {
            let dump = kind.dump.as_ref().filter(|_| instance.has_dump_process);
            let dump = dump.and_then(|dump| Some((dump.name, place.dump_service()?)));
            (instance.group, std::iter::once((kind.name, instance.reports_as)).chain(dump).collect())
        }
        Err(_) => (kind.default_group(place.name.as_str()).to_owned(), vec![(kind.name, place.service())]),
    };
    let services = services.reloaded();
    stop(&place, &services, args.force || args.purge, out).await?;
    if let Some(user) = user_of(&dir) {
        bail!("process {user} still works in {}: end it first; nothing was removed", dir.display());
    }
    if dir.exists() {
        journal::mark_removing(&dir, data).with_context(|| dir.display().to_string())?;
    }
    unload(&place, &services).await?;
    let kept = if dir.exists() {
        match journal::remove_rest(home, &place, &journal::stamp()) {
            // The instance is gone; some of its files are not.
            Err(error) if data == Data::Purged && !dir.exists() => {
                writeln!(out, "warning: {error}")?;
                None
            }
            other => other.with_context(|| dir.display().to_string())?,
        }
    } else {
        None
    };
    nodes_file::write(home, &group)?;
    writeln!(out, "{} is removed", place.service())?;
    if let Some(to) = kept {
        writeln!(out, "  its data is in {}", to.display())?;
        if *kind == LOGFILES && home.config_file(&format!("nodes/{group}.nodes")).exists() {
            writeln!(out, "  the other nodes of the group {group} do not have these records: see docs/OPERATIONS.md")?;
        }
    }
    if let Err(error) = farewell::say(home, &names).await {
        writeln!(out, "warning: the platform could not be told and goes on showing it: {error:#}")?;
    }
    Ok(())
}

/// Stops the dump process, then the node, which writes its records. One that did not end well, now or the last time, may
/// not have written them: it stays, unless that does not matter (`anyhow`).
async fn stop(place: &Place, services: &Services, anyhow: bool, out: &mut impl Write) -> anyhow::Result<()> {
    for name in place.services() {
        for outcome in services.stop(&services.catalogue().resolve(&name)).await? {
            let result = match (outcome.result, services.catalogue().process(&outcome.name)) {
                (Ok(Done::AlreadyStopped), Some(process)) => {
                    let earlier = services.failed_stop(process, &services.infos().await?).await;
                    earlier.map_or(Ok(Done::AlreadyStopped), Err)
                }
                (result, _) => result,
            };
            match result {
                Ok(done) => writeln!(out, "{}: {}", outcome.name, text::done(done))?,
                Err(failure) if failure.exit.is_none() => {
                    bail!("{} {}; nothing was removed", outcome.name, failure.reason)
                }
                Err(failure) => {
                    eprint!("{}", text::failure(&outcome.name.to_string(), &failure, services.layout()));
                    if anyhow {
                        continue;
                    }
                    bail!(
                        "{} may not have written its last records; nothing was removed. Mend what its log names, then \
                         `service {} start` and remove it again; with --force it is removed as it is and its files are \
                         kept, with --purge they are deleted",
                        outcome.name,
                        name
                    );
                }
            }
        }
    }
    Ok(())
}

/// Takes the programs away. One that somebody has started again meanwhile stays, and all else with it.
async fn unload(place: &Place, services: &Services) -> anyhow::Result<()> {
    let file = place.program_file();
    let text = fs::read_to_string(&file);
    files::remove_file(&file).with_context(|| file.display().to_string())?;
    files::sync_parent(&file)?;
    for name in place.services() {
        if let Err(error) = services.forget(&name).await {
            if let Ok(text) = text {
                files::replace(&file, &text, 0o644)?;
                journal::keeps(&place.dir())?;
            }
            return Err(error).with_context(|| format!("supervisord does not let {name} go; nothing was removed"));
        }
    }
    Ok(())
}

/// A process whose working directory is in `dir`: one that a dead supervisord left behind, for instance.
fn user_of(dir: &Path) -> Option<u32> {
    let works_there = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    // A shell that stands there does no harm. The name of a file that was replaced ends in ` (deleted)`.
    let is_ours = |pid: &u32| {
        let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = executable.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut programs = KINDS.iter().flat_map(|kind| kind.programs()).chain(["overstory"]);
        programs.any(|program| name.starts_with(program))
    };
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(works_there).find(is_ours)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

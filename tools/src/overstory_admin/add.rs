//! `overstory add`: sets up an instance of a node, all of it or nothing.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_supervisor::Services;
use overstory_supervisor::control::{Applied, Pace};
use overstory_supervisor::readiness::ProbeContext;
use tokio::time::Instant;

use super::instance::kind::Shares;
use super::instance::layout::Plan;
use super::instance::ports::{self, Addresses, Taken};
use super::instance::{self, ADMIN, Place, files, journal, nodes_file, ranges};
use crate::service::text;
use options::Wish;

mod options;

pub(super) use options::Command;

/// How long `--start` waits until the node is ready; a large one goes on loading.
const READY_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    add(&command.wish()?, home, &Services::open(home.root()), out).await
}

async fn add(wish: &Wish, home: &Home, services: &Services, out: &mut impl Write) -> anyhow::Result<()> {
    let _held = journal::begin(home, services, out).await?;
    // As it is now that nobody else adds anything.
    let services = &services.reloaded();
    let plan = plan(wish, home, services, out)?;
    let made = Made::new(home, &plan);
    if let Err(error) = made.perform(services).await {
        return match made.undo(services).await {
            Ok(()) => Err(error.context("nothing was added")),
            Err(more) => Err(error.context(format!("and undoing it failed: {more:#}; run the command again"))),
        };
    }
    describe(&plan, home, services, wish.start, out)?;
    if wish.start { start(&plan, &services.reloaded(), out).await } else { Ok(()) }
}

fn plan(wish: &Wish, home: &Home, services: &Services, out: &mut impl Write) -> anyhow::Result<Plan> {
    let kind = wish.kind;
    let place = Place::new(home, kind, wish.name.clone());
    instance::check_free(&place)?;
    let program = home.bin_dir().join(kind.program);
    if !program.exists() {
        bail!("{} is missing: install this version's package {}", program.display(), kind.package);
    }
    let (others, problems) = instance::all(home)?;
    for problem in problems.iter().chain(&wish.warnings) {
        writeln!(out, "warning: {problem}")?;
    }
    // Its nodes files and its key are for the nodes of one protocol.
    let group = wish.group.as_str();
    if let Some(other) = others.iter().find(|other| other.group == group && other.place.kind != kind) {
        bail!("the group {group} is that of {}, a node of another kind: choose another --group", other.place.service());
    }
    if let Some(range) = wish.range {
        match ranges::check_overlap(kind, range, group, &others) {
            Err(error) if wish.force => writeln!(out, "warning: {error}")?,
            other => other?,
        }
    }
    let taken = Taken::find(home, &others, services.catalogue());
    let addresses = Addresses { neo: wish.address, legacy: wish.legacy_address };
    Ok(Plan {
        ports: ports::choose(kind, wish.ports, addresses, &taken)?,
        group: wish.group.clone(),
        address: wish.address,
        legacy_address: wish.legacy_address,
        range: wish.range,
        settings: wish.settings.clone(),
        dump: wish.dump.clone(),
        place,
    })
}

/// What an addition makes, so that it can be undone.
struct Made<'a> {
    home: &'a Home,
    plan: &'a Plan,
    group: String,
    had_credentials: bool,
}

impl<'a> Made<'a> {
    fn new(home: &'a Home, plan: &'a Plan) -> Self {
        let group = plan.group.to_string();
        let had_credentials = nodes_file::credentials(home, &group).exists();
        Self { home, plan, group, had_credentials }
    }

    async fn perform(&self, services: &Services) -> anyhow::Result<()> {
        let (home, place) = (self.home, &self.plan.place);
        let srv = instance::srv(home.root());
        if !srv.exists() {
            files::make_dir(&srv).with_context(|| srv.display().to_string())?;
        }
        let key = nodes_file::admin_key(home, &self.group)?;
        let (staging, dir) = (journal::staging(home, place), place.dir());
        let told = || staging.display().to_string();
        self.plan.write_dir(home, &staging, &key).with_context(told)?;
        self.plan.check_configurations(home, &staging).await?;
        journal::mark_adding(&staging).with_context(told)?;
        fs::rename(&staging, &dir).with_context(|| dir.display().to_string())?;
        files::sync_parent(&dir)?;
        let file = place.program_file();
        files::replace(&file, &self.plan.program_file(), 0o644).with_context(|| file.display().to_string())?;
        self.load(services).await?;
        nodes_file::write(home, &self.group)?;
        journal::added(&dir).with_context(|| dir.display().to_string())
    }

    /// Has supervisord load the new programs and nothing else; one that does not run reads them when it starts.
    async fn load(&self, services: &Services) -> anyhow::Result<()> {
        let services = services.reloaded();
        for name in self.plan.services() {
            let service = services.catalogue().service(&name);
            let service = service.with_context(|| format!("{name} cannot be read back"))?;
            match services.supervisor().state().await {
                Err(error) if error.is_not_running() => return Ok(()),
                other => other?,
            };
            match services.apply(service).await? {
                Applied::Loaded | Applied::Current => {}
                Applied::Postponed => bail!("supervisord runs another {name}; stop it first"),
                Applied::Unread(text) => bail!("supervisord cannot read its configuration: {text}"),
            }
            if !services.infos().await?.iter().any(|info| info.name.group == name) {
                bail!("supervisord does not see {name}: its configuration does not include etc/supervisord.d");
            }
        }
        Ok(())
    }

    async fn undo(&self, services: &Services) -> anyhow::Result<()> {
        let (home, place) = (self.home, &self.plan.place);
        files::remove_file(&place.program_file())?;
        for name in self.plan.services() {
            // What supervisord does not answer about cannot be loaded by it either when it reads its files again.
            let _ = services.forget(&name).await;
        }
        journal::discard(home, place)?;
        if !self.had_credentials {
            files::remove_file(&nodes_file::credentials(home, &self.group))?;
        }
        nodes_file::write(home, &self.group)
    }
}

fn describe(plan: &Plan, home: &Home, services: &Services, starts: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (place, group) = (&plan.place, plan.group.to_string());
    let shorten = |path: PathBuf| services.layout().shorten(&path).display().to_string();
    writeln!(out, "{} is added, its files are in {}", place.service(), place.dir().display())?;
    let credentials = shorten(nodes_file::credentials(home, &group));
    writeln!(out, "  neo         {}:{}, as {ADMIN} with the key in {credentials}", plan.address, plan.ports.neo)?;
    writeln!(out, "  legacy      {}:{}, no authentication", plan.legacy_address, plan.ports.legacy)?;
    writeln!(out, "  metrics     http://127.0.0.1:{}/metrics", plan.ports.admin)?;
    if let Some(range) = plan.range {
        let title = if place.kind.shares == Shares::Timestamps { "takes" } else { "hash range" };
        writeln!(out, "  {title:<10}  {}", ranges::show(place.kind, range))?;
    }
    writeln!(out, "  nodes file  {}", shorten(nodes_file::neo(home, &group)))?;
    if !plan.legacy_address.is_loopback() {
        let address = plan.legacy_address;
        writeln!(
            out,
            "warning: everybody who reaches {address} can read and change its records by the legacy protocol"
        )?;
    }
    for problem in ranges::describe(place.kind, &group, &instance::ranges_of(&instance::all(home)?.0, &group)) {
        writeln!(out, "warning: {problem}")?;
    }
    if !starts {
        writeln!(out, "  start       service {} start", place.service())?;
    }
    Ok(())
}

async fn start(plan: &Plan, services: &Services, out: &mut impl Write) -> anyhow::Result<()> {
    for name in plan.services() {
        for outcome in services.start(&services.catalogue().resolve(&name)).await? {
            if let Err(failure) = &outcome.result {
                eprint!("{}", text::failure(&outcome.name.to_string(), failure, services.layout()));
                bail!("{name} is added and did not start");
            }
        }
        writeln!(out, "{name}: {}", if is_ready(services, &name).await? { "ready" } else { "started, still loading" })?;
    }
    Ok(())
}

/// Waits until a service's probes pass.
async fn is_ready(services: &Services, name: &str) -> anyhow::Result<bool> {
    let deadline = Instant::now() + READY_LIMIT;
    let mut pace = Pace::new();
    let Some(service) = services.catalogue().service(name) else { return Ok(false) };
    for probe in service.processes.iter().flat_map(|process| &process.ready) {
        while let Err(problem) = probe.check(&ProbeContext::default()).await {
            let infos = services.infos().await?;
            if infos.iter().any(|info| info.name.group == name && info.state.is_failed()) {
                bail!("{name} is added and crashed: {problem}; `service {name} logs` shows why");
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            pace.wait().await;
        }
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
pub(super) mod tests;

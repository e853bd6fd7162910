//! `overstory add`: sets up an instance of a node, all of it or nothing.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use overstory_runtime::Home;
use overstory_supervisor::Services;
use overstory_supervisor::control::{Applied, Pace};
use overstory_supervisor::readiness::ProbeContext;
use overstory_swarm::key::HashRange;
use tokio::time::Instant;

use super::instance::layout::Plan;
use super::instance::ports::{self, Addresses, Taken};
use super::instance::ranges::{self, Range, Share};
use super::instance::{self, ADMIN, DEFAULT_GROUP, Name, Place, files, journal, nodes_file};
use crate::service::text;

/// How long `--start` waits until the node is ready; a large one goes on loading.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The highest port of the legacy protocol: the neo protocol's must fit above it.
const MAX_PORT: i64 = 65_435;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A node of the distributed hash table
    Dht(Box<Dht>),
}

#[derive(Debug, Args)]
pub(super) struct Dht {
    /// Its name: the service is dht-NAME, its files are in srv/dht-NAME
    name: Name,
    /// Port of the legacy protocol, 21000 or the next free one if not given; the neo protocol has the port + 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_PORT))]
    port: Option<u16>,
    /// Port for metrics and health, 21200 or the next free one if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: Option<u16>,
    /// The part of the hash space that it keeps, in hexadecimal digits; also: all, empty
    #[arg(long, value_name = "MIN-MAX", conflicts_with = "share")]
    range: Option<Range>,
    /// The part I of N equal ones that it keeps
    #[arg(long, value_name = "I/N")]
    share: Option<Share>,
    /// The nodes that share the hash space with it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_GROUP)]
    group: Name,
    /// Address of the neo protocol
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST)]
    address: Ipv4Addr,
    /// Address of the legacy protocol, which has no authentication
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST)]
    legacy_address: Ipv4Addr,
    /// The most bytes of records, as in 1000000, 512K, 64M or 2G; 0 for no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    size_limit: Option<u64>,
    /// A process of its own, dhtdump-NAME, writes the records to the files
    #[arg(long)]
    dump_process: bool,
    /// Seconds between two dumps; 0: only when it ends
    #[arg(long, value_name = "S")]
    dump_period: Option<u32>,
    /// Accepts a range that another node of the group has a part of
    #[arg(long)]
    force: bool,
    /// Starts it
    #[arg(long)]
    start: bool,
}

pub(super) async fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let Command::Dht(args) = command;
    add(args, home, &Services::open(home.root()), out).await
}

async fn add(args: &Dht, home: &Home, services: &Services, out: &mut impl Write) -> anyhow::Result<()> {
    check(args)?;
    let _held = journal::begin(home, services, out).await?;
    // As it is now that nobody else adds anything.
    let services = &services.reloaded();
    let plan = plan(args, home, services, out)?;
    let made = Made::new(home, &plan);
    if let Err(error) = made.perform(services).await {
        return match made.undo(services).await {
            Ok(()) => Err(error.context("nothing was added")),
            Err(more) => Err(error.context(format!("and undoing it failed: {more:#}; run the command again"))),
        };
    }
    describe(&plan, home, services, args.start, out)?;
    if args.start { start(&plan, &services.reloaded(), out).await } else { Ok(()) }
}

fn check(args: &Dht) -> anyhow::Result<()> {
    if args.dump_process && args.dump_period == Some(0) {
        bail!("--dump-process with --dump-period 0 would never dump");
    }
    for (address, option) in [(args.address, "--address"), (args.legacy_address, "--legacy-address")] {
        if address.is_broadcast() || address.is_multicast() {
            bail!("{option}: {address} is no address to listen on");
        }
    }
    Ok(())
}

fn plan(args: &Dht, home: &Home, services: &Services, out: &mut impl Write) -> anyhow::Result<Plan> {
    let place = Place::new(home, args.name.clone());
    instance::check_free(&place)?;
    let program = home.bin_dir().join("dhtnode");
    if !program.exists() {
        bail!("{} is missing: install this version's package dht", program.display());
    }
    let (others, problems) = instance::all(home)?;
    for problem in problems {
        writeln!(out, "warning: {problem}")?;
    }
    let range = match (args.range, args.share) {
        (Some(Range(range)), _) => range,
        (None, Some(share)) => share.range(),
        (None, None) => HashRange::FULL,
    };
    let group = args.group.to_string();
    match ranges::check_overlap(range, &group, &others) {
        Err(error) if args.force => writeln!(out, "warning: {error}")?,
        other => other?,
    }
    let taken = Taken::find(home, &others, services.catalogue());
    let addresses = Addresses { neo: args.address, legacy: args.legacy_address };
    Ok(Plan {
        ports: ports::choose(args.port, args.admin_port, addresses, &taken)?,
        group: args.group.clone(),
        address: args.address,
        legacy_address: args.legacy_address,
        range,
        size_limit: args.size_limit,
        dump_process: args.dump_process,
        dump_period_s: args.dump_period,
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
        for name in self.services() {
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

    fn services(&self) -> Vec<String> {
        let place = &self.plan.place;
        let dump = self.plan.dump_process.then(|| place.dump_service());
        std::iter::once(place.service()).chain(dump).collect()
    }

    async fn undo(&self, services: &Services) -> anyhow::Result<()> {
        let (home, place) = (self.home, &self.plan.place);
        files::remove_file(&place.program_file())?;
        for name in self.services() {
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

/// Reads a number of bytes; K, M and G stand for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at).unwrap_or_default(), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at).unwrap_or_default(), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at).unwrap_or_default(), 1 << 30),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| "not a number of bytes such as 1000000, 512K, 64M or 2G".to_owned())
}

fn describe(plan: &Plan, home: &Home, services: &Services, starts: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (place, group) = (&plan.place, plan.group.to_string());
    let shorten = |path: PathBuf| services.layout().shorten(&path).display().to_string();
    writeln!(out, "{} is added, its files are in {}", place.service(), place.dir().display())?;
    let credentials = shorten(nodes_file::credentials(home, &group));
    writeln!(out, "  neo         {}:{}, as {ADMIN} with the key in {credentials}", plan.address, plan.ports.neo())?;
    writeln!(out, "  legacy      {}:{}, no authentication", plan.legacy_address, plan.ports.legacy)?;
    writeln!(out, "  metrics     http://127.0.0.1:{}/metrics", plan.ports.admin)?;
    writeln!(out, "  hash range  {}", plan.range)?;
    writeln!(out, "  nodes file  {}", shorten(nodes_file::neo(home, &group)))?;
    if !plan.legacy_address.is_loopback() {
        let address = plan.legacy_address;
        writeln!(
            out,
            "warning: everybody who reaches {address} can read and change its records by the legacy protocol"
        )?;
    }
    for problem in ranges::describe(&group, &instance::ranges_of(&instance::all(home)?.0, &group)) {
        writeln!(out, "warning: {problem}")?;
    }
    if !starts {
        writeln!(out, "  start       service {} start", place.service())?;
    }
    Ok(())
}

async fn start(plan: &Plan, services: &Services, out: &mut impl Write) -> anyhow::Result<()> {
    let dump = plan.dump_process.then(|| plan.place.dump_service());
    for name in std::iter::once(plan.place.service()).chain(dump) {
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

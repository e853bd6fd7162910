//! Instances: the nodes that `overstory add` sets up in a prefix, where their files are, and reading them back.
//!
//! An instance `NAME` of a [`Kind`] such as the dht is the directory `srv/dht-NAME` and the program file
//! `etc/supervisord.d/dht-NAME.conf`. It exists when both are there ([`journal`] tells how that is all or nothing).

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_runtime::ini::{Dialect, Ini, Section};
use overstory_swarm::key::HashRange;

use kind::{Kind, NEO_OFFSET, Shares};

pub(super) mod farewell;
pub(super) mod files;
pub(super) mod journal;
pub(super) mod kind;
pub(super) mod layout;
pub(super) mod nodes_file;
pub(super) mod ports;
pub(super) mod ranges;

/// Most instances that are looked at.
const MAX_INSTANCES: usize = 1000;
/// The longest name of an instance or a group.
const MAX_NAME: usize = 32;
/// The client whose key `add` makes.
pub(super) const ADMIN: &str = "admin";

/// The name of an instance or of a group: lower-case letters, digits and `-`, at most 32.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=MAX_NAME).contains(&text.len());
        if fits && text.chars().all(|c| plain(c) || c == '-') && text.starts_with(plain) && text.ends_with(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "a name has 1 to {MAX_NAME} lower-case letters, digits and -, and begins and ends with a letter or digit"
        ))
    }
}

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where the files of an instance are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    prefix: PathBuf,
    pub(super) kind: &'static Kind,
    pub(super) name: Name,
}

impl Place {
    pub(super) fn new(home: &Home, kind: &'static Kind, name: Name) -> Self {
        Self { prefix: home.root().to_owned(), kind, name }
    }

    /// The node's service.
    pub(super) fn service(&self) -> String {
        self.kind.service(self.name.as_str())
    }

    /// The service of its dump process, if nodes of its kind can have one.
    pub(super) fn dump_service(&self) -> Option<String> {
        self.kind.dump.as_ref().map(|dump| format!("{}-{}", dump.name, self.name))
    }

    /// The services that it can have, in the order in which they end.
    pub(super) fn services(&self) -> Vec<String> {
        self.dump_service().into_iter().chain([self.service()]).collect()
    }

    /// The instance's directory.
    pub(super) fn dir(&self) -> PathBuf {
        srv(&self.prefix).join(self.service())
    }

    /// The node's configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir().join("etc/config.ini")
    }

    /// What tells supervisord of it.
    pub(super) fn program_file(&self) -> PathBuf {
        self.prefix.join("etc/supervisord.d").join(format!("{}.conf", self.service()))
    }

    /// What its programs wrote to their standard output.
    pub(super) fn output_logs(&self) -> Vec<PathBuf> {
        let names: Vec<_> = self.services().into_iter().map(|name| format!("{name}.log")).collect();
        let entries = fs::read_dir(self.prefix.join("var/log")).into_iter().flatten().flatten();
        let is_its = |file: &str| {
            let rest = names.iter().find_map(|name| file.strip_prefix(name.as_str()));
            // `.log` and what supervisord rotated: `.log.1`.
            rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.parse::<u8>().is_ok()))
        };
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_its)).map(|entry| entry.path()).collect()
    }
}

/// Where all instances are.
pub(super) fn srv(prefix: &Path) -> PathBuf {
    prefix.join("srv")
}

/// An instance as its files have it now: a node changes its hash range itself.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) place: Place,
    pub(super) group: String,
    pub(super) address: Ipv4Addr,
    pub(super) legacy_address: Ipv4Addr,
    pub(super) port: u16,
    pub(super) neo_port: u16,
    pub(super) admin_port: Option<u16>,
    /// The part of what its group shares that it keeps, if its kind has one.
    pub(super) range: Option<HashRange>,
    pub(super) has_dump_process: bool,
    /// The name under which it reports itself.
    pub(super) reports_as: String,
}

impl Instance {
    /// Reads one.
    pub(super) fn read(place: Place) -> anyhow::Result<Self> {
        let kind = place.kind;
        let ini = Ini::read(&place.config(), Dialect::SWARM)?;
        let server = ini.section("Server").with_context(|| format!("{}: no [Server]", place.config().display()))?;
        let value = |key: &str| {
            let missing = || format!("{}: [Server] {key} is missing", place.config().display());
            server.get(key).map(str::trim).with_context(missing)
        };
        let wrong = |key: &str| format!("{}: [Server] {key} cannot be read", place.config().display());
        let limit = |key: &str, default: Option<u64>| {
            if let (None, Some(default)) = (server.get(key), default) {
                return Ok(default);
            }
            let text = value(key)?;
            let digits = text.strip_prefix("0x").unwrap_or(text);
            u64::from_str_radix(digits, 16).with_context(|| wrong(key))
        };
        let limits = match kind.shares {
            Shares::Nothing => None,
            Shares::HashSpace => Some((limit("minval", None)?, limit("maxval", None)?)),
            Shares::Timestamps => Some((limit("minval", Some(0))?, limit("maxval", Some(u64::MAX))?)),
        };
        let range = limits.map(|(min, max)| HashRange::new(min, max).with_context(|| wrong("minval"))).transpose()?;
        let address: Ipv4Addr = value("address")?.parse().with_context(|| wrong("address"))?;
        let legacy_address = server.get("legacy_address").map_or(Ok(Ipv4Addr::LOCALHOST), |a| a.trim().parse());
        let port = value("port")?.parse().with_context(|| wrong("port"))?;
        let neo_key = kind.neo_key.unwrap_or("port");
        value(neo_key)?;
        let programs = Ini::read(&place.program_file(), Dialect::SUPERVISORD)?;
        let program = programs.section(&format!("program:{}", place.service()));
        let group = program.and_then(|section| section.get("hyp_group"));
        let dump = place.dump_service().map(|name| format!("program:{name}"));
        Ok(Self {
            group: group.map_or_else(|| kind.default_group(place.name.as_str()), str::trim).to_owned(),
            address,
            legacy_address: legacy_address.with_context(|| wrong("legacy_address"))?,
            port,
            neo_port: neo_port(kind, server, port).with_context(|| wrong(neo_key))?,
            admin_port: admin_port(server),
            range,
            reports_as: ini
                .section("Report")
                .and_then(|report| report.get("instance"))
                .map_or_else(|| place.service(), |name| name.trim().to_owned()),
            has_dump_process: dump.is_some_and(|section| programs.section(&section).is_some()),
            place,
        })
    }

    /// The ports that it takes.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        [Some(self.port), Some(self.neo_port), self.admin_port].into_iter().flatten()
    }
}

/// The port of the neo protocol, as a configuration has it.
fn neo_port(kind: &Kind, server: &Section, port: u16) -> Option<u16> {
    match kind.neo_key {
        Some(key) => server.get(key)?.trim().parse().ok(),
        None => port.checked_add(NEO_OFFSET),
    }
}

fn admin_port(server: &Section) -> Option<u16> {
    server.get("admin")?.trim().rsplit_once(':')?.1.parse().ok()
}

/// The ports that a configuration names, as far as they can be read.
pub(super) fn ports_in(config: &Path, kind: &Kind) -> Vec<u16> {
    let Ok(ini) = Ini::read(config, Dialect::SWARM) else { return Vec::new() };
    let Some(server) = ini.section("Server") else { return Vec::new() };
    let port = server.get("port").and_then(|port| port.trim().parse().ok());
    let neo = port.and_then(|port| neo_port(kind, server, port));
    [port, neo, admin_port(server)].into_iter().flatten().collect()
}

/// The kinds and names of the instances of a prefix, in order, whatever state they are in.
pub(super) fn names(prefix: &Path) -> io::Result<Vec<(&'static Kind, Name)>> {
    let entries = match fs::read_dir(srv(prefix)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let named = |entry: fs::DirEntry| {
        let file = entry.file_name();
        let (kind, name) = Kind::of(file.to_str()?)?;
        Some((kind, name.parse().ok()?))
    };
    let mut names: Vec<(&Kind, Name)> = entries.flatten().filter_map(named).take(MAX_INSTANCES).collect();
    names.sort_by(|(kind, name), (other, another)| (kind.name, name).cmp(&(other.name, another)));
    Ok(names)
}

/// Every instance that exists, and what is wrong with those that cannot be read.
pub(super) fn all(home: &Home) -> anyhow::Result<(Vec<Instance>, Vec<String>)> {
    let (mut instances, mut problems) = (Vec::new(), Vec::new());
    for (kind, name) in names(home.root()).with_context(|| srv(home.root()).display().to_string())? {
        let place = Place::new(home, kind, name);
        if !place.program_file().exists() {
            if journal::is_under_way(&place.dir()) {
                continue;
            }
            let (dir, file) = (place.dir(), place.program_file());
            problems.push(format!("{} is there without {}", dir.display(), file.display()));
            continue;
        }
        match Instance::read(place) {
            Ok(instance) => instances.push(instance),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    Ok((instances, problems))
}

/// The ranges of the instances of a group, of those that have one.
pub(super) fn ranges_of(instances: &[Instance], group: &str) -> Vec<(String, HashRange)> {
    let of_group = instances.iter().filter(|instance| instance.group == group);
    of_group.filter_map(|instance| Some((instance.place.service(), instance.range?))).collect()
}

/// Refuses a name that is taken.
pub(super) fn check_free(place: &Place) -> anyhow::Result<()> {
    if place.program_file().exists() && place.dir().exists() {
        bail!("there is a {} already; `overstory list` shows it", place.service());
    }
    for path in [place.dir(), place.program_file()] {
        if fs::symlink_metadata(&path).is_ok() {
            bail!("{} is there already: move it away, or choose another name", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "0", "main-1", &"x".repeat(32)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "../x", "a b", "a/b", "é", "a\n", "a*", &"x".repeat(33)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}

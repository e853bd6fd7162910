//! Instances: the nodes that `overstory add` sets up in a prefix, where their files are, and reading them back.
//!
//! An instance `NAME` of the dht is the directory `srv/dht-NAME` and the program file `etc/supervisord.d/dht-NAME.conf`.
//! It exists when both are there ([`journal`] tells how that is all or nothing).

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_runtime::ini::{Dialect, Ini};
use overstory_swarm::key::HashRange;

pub(super) mod farewell;
pub(super) mod files;
pub(super) mod journal;
pub(super) mod layout;
pub(super) mod nodes_file;
pub(super) mod ports;
pub(super) mod ranges;

/// Most instances that are looked at.
const MAX_INSTANCES: usize = 1000;
/// The longest name of an instance or a group.
const MAX_NAME: usize = 32;
/// The group of instances that were not given another one.
pub(super) const DEFAULT_GROUP: &str = "dht";
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

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where the files of an instance are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    prefix: PathBuf,
    pub(super) name: Name,
}

impl Place {
    pub(super) fn new(home: &Home, name: Name) -> Self {
        Self { prefix: home.root().to_owned(), name }
    }

    /// The node's service.
    pub(super) fn service(&self) -> String {
        format!("dht-{}", self.name)
    }

    /// The service of its dump process.
    pub(super) fn dump_service(&self) -> String {
        format!("dhtdump-{}", self.name)
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
        let names = [self.service(), self.dump_service()].map(|name| format!("{name}.log"));
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
    pub(super) admin_port: Option<u16>,
    pub(super) range: HashRange,
    pub(super) has_dump_process: bool,
    /// The name under which it reports itself.
    pub(super) reports_as: String,
}

impl Instance {
    /// Reads one.
    pub(super) fn read(place: Place) -> anyhow::Result<Self> {
        let ini = Ini::read(&place.config(), Dialect::SWARM)?;
        let server = ini.section("Server").with_context(|| format!("{}: no [Server]", place.config().display()))?;
        let value = |key: &str| {
            let missing = || format!("{}: [Server] {key} is missing", place.config().display());
            server.get(key).map(str::trim).with_context(missing)
        };
        let wrong = |key: &str| format!("{}: [Server] {key} cannot be read", place.config().display());
        let limit = |key: &str| {
            let text = value(key)?;
            let digits = text.strip_prefix("0x").unwrap_or(text);
            u64::from_str_radix(digits, 16).with_context(|| wrong(key))
        };
        let range = HashRange::new(limit("minval")?, limit("maxval")?).with_context(|| wrong("minval"))?;
        let address: Ipv4Addr = value("address")?.parse().with_context(|| wrong("address"))?;
        let legacy_address = server.get("legacy_address").map_or(Ok(Ipv4Addr::LOCALHOST), |a| a.trim().parse());
        let admin = server.get("admin").and_then(|a| a.trim().rsplit_once(':')?.1.parse().ok());
        let programs = Ini::read(&place.program_file(), Dialect::SUPERVISORD)?;
        let program = programs.section(&format!("program:{}", place.service()));
        let group = program.and_then(|section| section.get("hyp_group")).map_or(DEFAULT_GROUP, str::trim);
        Ok(Self {
            group: group.to_owned(),
            address,
            legacy_address: legacy_address.with_context(|| wrong("legacy_address"))?,
            port: value("port")?.parse().with_context(|| wrong("port"))?,
            admin_port: admin,
            range,
            reports_as: ini
                .section("Report")
                .and_then(|report| report.get("instance"))
                .map_or_else(|| place.service(), |name| name.trim().to_owned()),
            has_dump_process: programs.section(&format!("program:{}", place.dump_service())).is_some(),
            place,
        })
    }

    /// The ports that it takes.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        [Some(self.port), self.port.checked_add(layout::NEO_OFFSET), self.admin_port].into_iter().flatten()
    }
}

/// The names of the instances of a prefix, in order, whatever state they are in.
pub(super) fn names(prefix: &Path) -> io::Result<Vec<Name>> {
    let entries = match fs::read_dir(srv(prefix)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let named = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("dht-")?.parse().ok();
    let mut names: Vec<Name> = entries.flatten().filter_map(named).take(MAX_INSTANCES).collect();
    names.sort();
    Ok(names)
}

/// Every instance that exists, and what is wrong with those that cannot be read.
pub(super) fn all(home: &Home) -> anyhow::Result<(Vec<Instance>, Vec<String>)> {
    let (mut instances, mut problems) = (Vec::new(), Vec::new());
    for name in names(home.root()).with_context(|| srv(home.root()).display().to_string())? {
        let place = Place::new(home, name);
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

/// The ranges of the instances of a group.
pub(super) fn ranges_of(instances: &[Instance], group: &str) -> Vec<(String, HashRange)> {
    let of_group = instances.iter().filter(|instance| instance.group == group);
    of_group.map(|instance| (instance.place.service(), instance.range)).collect()
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

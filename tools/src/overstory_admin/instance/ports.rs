//! The ports of a new instance: chosen so that neither another instance, another installation nor anything that listens
//! has them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_runtime::ini::{Dialect, Ini};
use overstory_supervisor::Catalogue;

use super::layout::NEO_OFFSET;
use super::{Instance, names, srv};

/// The first port of the legacy protocol that is tried.
const FIRST: u16 = 21_000;
/// The first admin port that is tried.
const FIRST_ADMIN: u16 = 21_200;
/// How many are tried.
const TRIES: u16 = 100;
/// Where the installer keeps the list of the machine's installations.
const MACHINE_REGISTRY: &str = "/var/lib/overstory-prefixes";
/// Most installations that are looked at.
const MAX_PREFIXES: usize = 64;

/// The ports of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Ports {
    pub(in crate::overstory_admin) legacy: u16,
    pub(in crate::overstory_admin) admin: u16,
}

impl Ports {
    pub(in crate::overstory_admin) const fn neo(self) -> u16 {
        self.legacy.saturating_add(NEO_OFFSET)
    }
}

/// Who has which port, as far as files tell.
#[derive(Debug, Default)]
pub(in crate::overstory_admin) struct Taken(BTreeMap<u16, String>);

impl Taken {
    /// Looks at the instances and services of this prefix and at the instances of the machine's other installations.
    pub(in crate::overstory_admin) fn find(home: &Home, instances: &[Instance], catalogue: &Catalogue) -> Self {
        let mut taken = Self::default();
        for instance in instances {
            instance.ports().for_each(|port| taken.add(port, instance.place.service()));
        }
        for service in catalogue.services() {
            for listen in &service.listens {
                if let Some(port) = port_of(&listen.address) {
                    taken.add(port, service.name.clone());
                }
            }
        }
        for prefix in other_prefixes(home) {
            taken.add_prefix(&prefix);
        }
        taken
    }

    fn add(&mut self, port: u16, owner: String) {
        self.0.entry(port).or_insert(owner);
    }

    /// Another installation's files may not be ours to read; what it has running is seen by listening.
    fn add_prefix(&mut self, prefix: &Path) {
        for name in names(prefix).unwrap_or_default() {
            let config = srv(prefix).join(format!("dht-{name}/etc/config.ini"));
            let Ok(ini) = Ini::read(&config, Dialect::SWARM) else { continue };
            let Some(server) = ini.section("Server") else { continue };
            let port = server.get("port").and_then(|port| port.trim().parse::<u16>().ok());
            let admin = server.get("admin").and_then(port_of);
            for port in [port, port.and_then(|p| p.checked_add(NEO_OFFSET)), admin].into_iter().flatten() {
                self.add(port, format!("dht-{name} of the installation in {}", prefix.display()));
            }
        }
    }

    /// What speaks against a port.
    fn problem(&self, address: Ipv4Addr, port: u16) -> Option<String> {
        if let Some(owner) = self.0.get(&port) {
            return Some(format!("port {port} belongs to {owner}"));
        }
        match TcpListener::bind((address, port)) {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::AddrInUse => Some(format!("something listens on port {port}")),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                Some(format!("this machine does not have the address {address}"))
            }
            Err(error) => Some(format!("{address}:{port}: {error}")),
        }
    }
}

/// The addresses that an instance listens on.
#[derive(Debug, Clone, Copy)]
pub(in crate::overstory_admin) struct Addresses {
    pub(in crate::overstory_admin) neo: Ipv4Addr,
    pub(in crate::overstory_admin) legacy: Ipv4Addr,
}

/// Chooses the ports; those that were asked for are taken or refused.
///
/// # Errors
/// What was asked for is taken, or nothing is free.
pub(in crate::overstory_admin) fn choose(
    port: Option<u16>,
    admin: Option<u16>,
    addresses: Addresses,
    taken: &Taken,
) -> anyhow::Result<Ports> {
    let problem_of_pair = |legacy: u16| {
        let neo = legacy.checked_add(NEO_OFFSET)?;
        taken.problem(addresses.legacy, legacy).or_else(|| taken.problem(addresses.neo, neo))
    };
    let problem_of_admin = |port: u16| taken.problem(Ipv4Addr::LOCALHOST, port);
    // An address that this machine does not have is not a matter of the port.
    for address in [addresses.neo, addresses.legacy] {
        TcpListener::bind((address, 0)).with_context(|| format!("cannot listen on {address}"))?;
    }
    let legacy = match port {
        Some(port) => {
            if let Some(problem) = problem_of_pair(port) {
                bail!("--port {port}: {problem} (a node takes the port and the port + {NEO_OFFSET})");
            }
            port
        }
        None => {
            let free = |i: &u16| {
                let paired = admin.is_some() || problem_of_admin(FIRST_ADMIN + i).is_none();
                paired && problem_of_pair(FIRST + i).is_none()
            };
            let found = (0..TRIES).find(free).map(|i| FIRST + i);
            found.with_context(|| format!("no free port from {FIRST} on; choose one with --port"))?
        }
    };
    let admin = match admin {
        Some(port) => {
            if let Some(problem) = problem_of_admin(port) {
                bail!("--admin-port {port}: {problem}");
            }
            port
        }
        None => {
            let beside = legacy.checked_sub(FIRST).filter(|i| *i < TRIES).into_iter();
            let mut tried = beside.chain(0..TRIES).map(|i| FIRST_ADMIN + i);
            let found = tried.find(|port| problem_of_admin(*port).is_none());
            found.with_context(|| format!("no free admin port from {FIRST_ADMIN} on; choose one with --admin-port"))?
        }
    };
    let ports = Ports { legacy, admin };
    if [ports.legacy, ports.neo()].contains(&admin) {
        bail!("--admin-port {admin} is the node's own port");
    }
    Ok(ports)
}

fn port_of(address: &str) -> Option<u16> {
    address.trim().rsplit_once(':')?.1.parse().ok()
}

/// The installations that the installer noted; each file holds a prefix.
fn other_prefixes(home: &Home) -> Vec<PathBuf> {
    let variable = overstory_runtime::program::variable;
    let registry = match variable("OVERSTORY_REGISTRY") {
        Some(dir) => PathBuf::from(dir),
        None if Path::new(MACHINE_REGISTRY).is_dir() => PathBuf::from(MACHINE_REGISTRY),
        None => match variable("HOME") {
            Some(home) => Path::new(&home).join(".local/state/overstory-prefixes"),
            None => return Vec::new(),
        },
    };
    let files = fs::read_dir(registry).into_iter().flatten().flatten().take(MAX_PREFIXES);
    let prefixes = files.filter_map(|file| Some(PathBuf::from(fs::read_to_string(file.path()).ok()?.lines().next()?)));
    prefixes.filter(|prefix| prefix != home.root()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const LOCAL: Addresses = Addresses { neo: Ipv4Addr::LOCALHOST, legacy: Ipv4Addr::LOCALHOST };

    #[test]
    fn what_others_have_is_passed_over() {
        let first = choose(None, None, LOCAL, &Taken::default()).unwrap();
        let mut taken = Taken::default();
        taken.add(first.neo(), "dht-a".to_owned());
        let second = choose(None, None, LOCAL, &taken).unwrap();
        assert!(second.legacy > first.legacy && second.admin > first.admin, "{first:?} {second:?}");
        let refused = choose(Some(first.legacy), None, LOCAL, &taken).unwrap_err().to_string();
        let expected = format!("--port {}: port {} belongs to dht-a", first.legacy, first.neo());
        assert!(refused.starts_with(&expected), "{refused}");
    }

    #[test]
    fn what_listens_has_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = choose(None, Some(port), LOCAL, &Taken::default()).unwrap_err().to_string();
        assert_eq!(refused, format!("--admin-port {port}: something listens on port {port}"));
        let nowhere = Addresses { neo: Ipv4Addr::new(192, 0, 2, 1), ..LOCAL };
        assert!(choose(None, None, nowhere, &Taken::default()).unwrap_err().to_string().contains("192.0.2.1"));
    }
}

//! The ports of a new instance: chosen so that neither another instance, another installation nor anything that listens
//! has them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_supervisor::Catalogue;

use super::kind::{Kind, NEO_OFFSET};
use super::{Instance, names, ports_in, srv};

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
    pub(in crate::overstory_admin) neo: u16,
    pub(in crate::overstory_admin) admin: u16,
}

/// The ports that were asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::overstory_admin) struct Wanted {
    pub(in crate::overstory_admin) legacy: Option<u16>,
    pub(in crate::overstory_admin) neo: Option<u16>,
    pub(in crate::overstory_admin) admin: Option<u16>,
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
        for (kind, name) in names(prefix).unwrap_or_default() {
            let service = kind.service(name.as_str());
            let config = srv(prefix).join(&service).join("etc/config.ini");
            for port in ports_in(&config, kind) {
                self.add(port, format!("{service} of the installation in {}", prefix.display()));
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

/// Chooses the ports of an instance; those that were asked for are taken or refused.
///
/// # Errors
/// What was asked for is taken, or nothing is free.
pub(in crate::overstory_admin) fn choose(
    kind: &Kind,
    wanted: Wanted,
    addresses: Addresses,
    taken: &Taken,
) -> anyhow::Result<Ports> {
    // An address that this machine does not have is not a matter of the port.
    for address in [addresses.neo, addresses.legacy] {
        TcpListener::bind((address, 0)).with_context(|| format!("cannot listen on {address}"))?;
    }
    let problem_of_legacy = |port: u16| taken.problem(addresses.legacy, port);
    let problem_of_neo = |port: u16| taken.problem(addresses.neo, port);
    let problem_of_admin = |port: u16| taken.problem(Ipv4Addr::LOCALHOST, port);
    let refuse = |option: &str, port: Option<u16>, problem: &dyn Fn(u16) -> Option<String>| match port {
        Some(port) => problem(port).map_or(Ok(()), |problem| bail!("{option} {port}: {problem}")),
        None => Ok(()),
    };
    refuse("--port", wanted.legacy, &problem_of_legacy)?;
    refuse("--neo-port", wanted.neo, &problem_of_neo)?;
    refuse("--admin-port", wanted.admin, &problem_of_admin)?;
    let legacy = if let Some(port) = wanted.legacy {
        port
    } else {
        let (first, asked) = (kind.first_port, [wanted.neo, wanted.admin]);
        let free = |i: &u16| {
            let port = first + i;
            (wanted.admin.is_some() || problem_of_admin(kind.first_admin + i).is_none())
                && (wanted.neo.is_some() || problem_of_neo(port + NEO_OFFSET).is_none())
                && !asked.contains(&Some(port))
                && problem_of_legacy(port).is_none()
        };
        let found = (0..TRIES).find(free).map(|i| first + i);
        found.with_context(|| format!("no free port from {first} on; choose one with --port"))?
    };
    let neo = if let Some(port) = wanted.neo {
        port
    } else {
        let choice = if kind.neo_key.is_some() { "; --neo-port chooses another" } else { "" };
        let pair = || format!("(a node takes the port and the port + {NEO_OFFSET}{choice})");
        let port = legacy.checked_add(NEO_OFFSET);
        let port = port.with_context(|| format!("--port {legacy}: there is no port + {NEO_OFFSET} {}", pair()))?;
        if let Some(problem) = problem_of_neo(port) {
            bail!("--port {legacy}: {problem} {}", pair());
        }
        port
    };
    let admin = if let Some(port) = wanted.admin {
        port
    } else {
        let first = kind.first_admin;
        let beside = legacy.checked_sub(kind.first_port).filter(|i| *i < TRIES).into_iter();
        let mut tried = beside.chain(0..TRIES).map(|i| first + i);
        let found = tried.find(|port| ![legacy, neo].contains(port) && problem_of_admin(*port).is_none());
        found.with_context(|| format!("no free admin port from {first} on; choose one with --admin-port"))?
    };
    if legacy == neo || [legacy, neo].contains(&admin) {
        bail!("port {}: the protocols and the metrics need a port each", if legacy == neo { neo } else { admin });
    }
    Ok(Ports { legacy, neo, admin })
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
    use super::super::kind::{DMQ, KINDS};
    use super::*;

    const LOCAL: Addresses = Addresses { neo: Ipv4Addr::LOCALHOST, legacy: Ipv4Addr::LOCALHOST };

    fn found(kind: &Kind, taken: &Taken) -> Ports {
        choose(kind, Wanted::default(), LOCAL, taken).unwrap()
    }

    #[test]
    fn what_others_have_is_passed_over() {
        for kind in KINDS {
            let first = found(kind, &Taken::default());
            let mut taken = Taken::default();
            taken.add(first.neo, "dht-a".to_owned());
            let second = found(kind, &taken);
            assert!(second.legacy > first.legacy && second.admin > first.admin, "{first:?} {second:?}");
            let wanted = Wanted { legacy: Some(first.legacy), ..Wanted::default() };
            let refused = choose(kind, wanted, LOCAL, &taken).unwrap_err().to_string();
            let expected = format!("--port {}: port {} belongs to dht-a (", first.legacy, first.neo);
            assert!(refused.starts_with(&expected), "{refused}");
            assert_eq!(refused.contains("--neo-port"), kind.neo_key.is_some(), "{refused}");
            // With another one for the neo protocol it is free.
            let wanted = Wanted { neo: Some(second.neo), ..wanted };
            let third = choose(kind, wanted, LOCAL, &taken).unwrap();
            assert_eq!((third.legacy, third.neo), (first.legacy, second.neo));
        }
    }

    #[test]
    fn what_listens_has_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let of = |wanted| choose(&DMQ, wanted, LOCAL, &Taken::default()).unwrap_err().to_string();
        let none = Wanted::default();
        for (option, wanted) in [
            ("--port", Wanted { legacy: Some(port), ..none }),
            ("--neo-port", Wanted { neo: Some(port), ..none }),
            ("--admin-port", Wanted { admin: Some(port), ..none }),
        ] {
            assert_eq!(of(wanted), format!("{option} {port}: something listens on port {port}"));
        }
        let nowhere = Addresses { neo: Ipv4Addr::new(192, 0, 2, 1), ..LOCAL };
        let refused = choose(&DMQ, none, nowhere, &Taken::default()).unwrap_err();
        assert!(refused.to_string().contains("192.0.2.1"));
    }

    #[test]
    fn no_port_is_used_twice() {
        let free = found(&DMQ, &Taken::default());
        let of = |wanted| choose(&DMQ, wanted, LOCAL, &Taken::default());
        for wanted in [
            Wanted { legacy: Some(free.legacy), neo: Some(free.legacy), admin: None },
            Wanted { legacy: Some(free.legacy), neo: None, admin: Some(free.neo) },
            Wanted { legacy: None, neo: Some(free.neo), admin: Some(free.neo) },
        ] {
            let refused = of(wanted).unwrap_err().to_string();
            assert!(refused.contains("need a port each"), "{refused}");
        }
        // What is asked for one thing is not chosen for another.
        let chosen = of(Wanted { neo: Some(free.legacy), ..Wanted::default() }).unwrap();
        assert_ne!(chosen.legacy, free.legacy);
        assert!(of(Wanted { legacy: Some(65_500), ..Wanted::default() }).is_err());
        assert!(of(Wanted { legacy: Some(65_500), neo: Some(free.neo), admin: None }).is_ok());
    }
}

//! Ports that the services are to listen on and that somebody else has.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};

use overstory_supervisor::ProcessInfo;

use super::Finding;
use crate::hypcontrol::plan::Plan;

const SUBJECT: &str = "ports";

/// Looks at the address of each service that does not run: one that runs has its port.
pub(super) fn check_ports(plan: &Plan<'_>, infos: &[ProcessInfo]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    let mut free = Vec::new();
    for (_, node) in plan.nodes() {
        let service = node.service;
        let runs = infos.iter().any(|i| i.name.group == service.name && i.state.has_process());
        for listen in &service.listens {
            if let Some(other) = taken.insert(&listen.address, &service.name)
                && other != service.name
            {
                let message = format!("{other} and {} are both to listen on {}", service.name, listen.address);
                findings.push(Finding::failure(SUBJECT, message, format!("change {}", listen.changed_by)));
            }
            if runs {
                continue;
            }
            match try_listen(&listen.address) {
                Ok(()) => free.push(listen.address.as_str()),
                Err(problem) => {
                    let message = format!("{} cannot listen on {}: {problem}", service.name, listen.address);
                    let remedy = format!("end what uses it, or change {}", listen.changed_by);
                    findings.push(Finding::failure(SUBJECT, message, remedy));
                }
            }
        }
    }
    if findings.is_empty() && !free.is_empty() {
        findings.push(Finding::ok(SUBJECT, format!("free: {}", free.join(", "))));
    }
    findings
}

fn try_listen(address: &str) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|error| error.to_string())?;
    for address in resolved {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(in_use_by(address)),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                return Err("this machine does not have that address".to_owned());
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err("only root may use ports below 1024".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Names the process that listens on a port, as far as we may see it.
fn in_use_by(address: SocketAddr) -> String {
    let owner = listening_inode(address.port()).and_then(|inode| owner_of(&inode));
    match owner {
        Some((pid, command)) => format!("{command} (process {pid}) uses it"),
        None => "another user's process uses it".to_owned(),
    }
}

/// The inode of the socket that listens on a port, from `/proc/net/tcp` and `/proc/net/tcp6`.
fn listening_inode(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|file| {
        let table = fs::read_to_string(file).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let matches = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
            matches.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
    })
}

fn owner_of(inode: &str) -> Option<(u32, String)> {
    let target = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = files.flatten().any(|f| fs::read_link(f.path()).is_ok_and(|link| *link.as_os_str() == *target));
        if holds {
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some((pid, command.trim().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_names_its_user_and_a_free_one_is_fine() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let problem = try_listen(&address).unwrap_err();
        assert!(problem.contains(&format!("(process {}) uses it", std::process::id())), "{problem}");
        drop(listener);
        // A process that another test starts has all our sockets until it is what it is to be.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while try_listen(&address).is_err() {
            assert!(std::time::Instant::now() < deadline, "{:?}", try_listen(&address));
            std::thread::yield_now();
        }
        assert_eq!(try_listen("192.0.2.1:80"), Err("this machine does not have that address".to_owned()));
    }
}

//! Disk, memory, and who owns what.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};

use super::Finding;

const MIB: u64 = 1 << 20;
/// How many entries of a folder are looked at.
const MAX_ENTRIES: usize = 256;
/// Free space in `var` below which a start is refused: the broker stops taking messages there.
const DISK_FAILURE: u64 = 200 * MIB;
/// Free space in `var` below which somebody should look.
const DISK_WARNING: u64 = 1024 * MIB;
/// Free memory below which a start is refused: the broker alone takes about 150 MB.
const MEMORY_FAILURE: u64 = 192 * MIB;
/// Free memory below which somebody should look.
const MEMORY_WARNING: u64 = 512 * MIB;

/// Looks at the free space below `var`.
pub(super) fn check_disk(var: &Path) -> Finding {
    let subject = "disk";
    match statvfs(var) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let message = format!("{} MiB are free in {}", free / MIB, var.display());
            let remedy = "make room, or put var on another disk";
            if free < DISK_FAILURE {
                Finding::failure(subject, message, remedy)
            } else if free < DISK_WARNING {
                Finding::warning(subject, message, remedy)
            } else {
                Finding::ok(subject, message)
            }
        }
        Err(error) => {
            Finding::failure(subject, format!("{}: {error}", var.display()), "install into this prefix again")
        }
    }
}

/// Looks at the memory that is left, unless the stack already runs and has taken its part.
pub(super) fn check_memory(nothing_runs: bool) -> Option<Finding> {
    let subject = "memory";
    let free = available_memory()?;
    let message = format!("{} MiB are available", free / MIB);
    let remedy = "end what is not needed, or give the machine or container more";
    Some(if nothing_runs && free < MEMORY_FAILURE {
        Finding::failure(subject, message, remedy)
    } else if nothing_runs && free < MEMORY_WARNING {
        Finding::warning(subject, message, remedy)
    } else {
        Finding::ok(subject, message)
    })
}

/// The memory that is available to us: the machine's, or what is left of the container's limit.
fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok()?;
    let line = machine.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let machine = line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    let container = limit.map(|(limit, used)| {
        // Pages of files count as used and are given back at once.
        let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
        limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0)))
    });
    Some(container.map_or(machine, |container| container.min(machine)))
}

/// Looks at the owner and the rights of the folders that are written, and of what is secret.
pub(super) fn check_permissions(prefix: &Path) -> Vec<Finding> {
    let subject = "permissions";
    let mut findings = Vec::new();
    let us = Uid::effective();
    let name = User::from_uid(us).ok().flatten().map_or_else(|| us.to_string(), |user| user.name);
    for folder in ["var", "var/log", "var/run", "var/lib", "var/spool", "tmp"] {
        let path = prefix.join(folder);
        let remedy = format!("mkdir -p {0} && chown -R {name} {0}", path.display());
        match fs::metadata(&path) {
            Err(error) => findings.push(Finding::failure(subject, format!("{}: {error}", path.display()), remedy)),
            Ok(meta) if !meta.is_dir() => {
                findings.push(Finding::failure(subject, format!("{} is not a folder", path.display()), remedy));
            }
            Ok(meta) if meta.uid() != us.as_raw() => {
                let owner = User::from_uid(Uid::from_raw(meta.uid())).ok().flatten();
                let owner = owner.map_or_else(|| meta.uid().to_string(), |user| user.name);
                let message = format!("{} belongs to {owner}, not to {name}", path.display());
                findings.push(Finding::failure(subject, message, remedy));
            }
            Ok(meta) if meta.mode() & 0o700 != 0o700 => {
                let message = format!("{} has mode {:03o}", path.display(), meta.mode() & 0o777);
                findings.push(Finding::failure(subject, message, format!("chmod u+rwx {}", path.display())));
            }
            Ok(_) => {}
        }
    }
    for path in below(prefix) {
        // What ends while we look is nobody's fault.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let needed = if meta.is_dir() { 0o700 } else { 0o600 };
        if meta.uid() != us.as_raw() {
            let owner = User::from_uid(Uid::from_raw(meta.uid())).ok().flatten();
            let owner = owner.map_or_else(|| meta.uid().to_string(), |user| user.name);
            let message = format!("{} belongs to {owner}, not to {name}", path.display());
            findings.push(Finding::failure(subject, message, format!("chown -R {name} {}", path.display())));
        } else if !meta.is_symlink() && meta.mode() & needed != needed {
            let message = format!("{} has mode {:03o}", path.display(), meta.mode() & 0o777);
            findings.push(Finding::failure(subject, message, format!("chmod u+rwX {}", path.display())));
        }
    }
    for path in secrets(prefix) {
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.mode() & 0o077 != 0 {
            let message = format!("{} can be read by others (mode {:03o})", path.display(), meta.mode() & 0o777);
            findings.push(Finding::failure(subject, message, format!("chmod 600 {}", path.display())));
        } else if meta.uid() != us.as_raw() {
            let message = format!("{} does not belong to {name}", path.display());
            findings.push(Finding::failure(subject, message, format!("chown {name} {}", path.display())));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(subject, format!("folders belong to {name}, secrets are its own")));
    }
    findings
}

/// What our own programs write below the folders: the store and its files, the engines' state, the spools, the nodes.
fn below(prefix: &Path) -> Vec<PathBuf> {
    let entries = |folder: &str| {
        let entries = fs::read_dir(prefix.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).take(MAX_ENTRIES).collect::<Vec<_>>()
    };
    let folders = ["var/lib/store", "var/lib/engines"].map(|folder| prefix.join(folder));
    let nodes = entries("srv").into_iter().flat_map(|node| [node.join("data"), node.join("log"), node]);
    folders.into_iter().chain(entries("var/lib/store")).chain(entries("var/spool")).chain(nodes).collect()
}

fn secrets(prefix: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(prefix.join("etc/secrets")).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.push(prefix.join("etc/initial-admin-password"));
    let nodes = fs::read_dir(prefix.join("srv")).into_iter().flatten().flatten().take(MAX_ENTRIES);
    files.extend(nodes.map(|node| node.path().join("etc/credentials")));
    files
}

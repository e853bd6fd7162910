//! What clients need to reach the instances of a group: `etc/nodes/GROUP.nodes` (neo ports) and
//! `etc/nodes/GROUP.legacy.nodes` (legacy ports), written anew with every change, and `etc/secrets/GROUP.credentials`.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use overstory_runtime::Home;

use super::layout::{random_key, reachable};
use super::{ADMIN, all, files};

/// The file of the nodes' legacy ports.
pub(in crate::overstory_admin) fn legacy(home: &Home, group: &str) -> PathBuf {
    home.etc().join("nodes").join(format!("{group}.legacy.nodes"))
}

/// The file of the nodes' neo ports.
pub(in crate::overstory_admin) fn neo(home: &Home, group: &str) -> PathBuf {
    home.etc().join("nodes").join(format!("{group}.nodes"))
}

/// The file with the name and the key of our client.
pub(in crate::overstory_admin) fn credentials(home: &Home, group: &str) -> PathBuf {
    home.etc().join("secrets").join(format!("{group}.credentials"))
}

/// Writes the nodes files of all groups that have instances or files.
pub(in crate::overstory_admin) fn write_all(home: &Home) -> anyhow::Result<()> {
    let mut groups: Vec<String> = all(home)?.0.into_iter().map(|instance| instance.group).collect();
    for entry in fs::read_dir(home.etc().join("nodes")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let group = name.to_str().and_then(|name| name.strip_suffix(".nodes"));
        groups.extend(group.map(|group| group.strip_suffix(".legacy").unwrap_or(group).to_owned()));
    }
    groups.sort();
    groups.dedup();
    groups.iter().try_for_each(|group| write(home, group))
}

/// Writes the nodes files of a group; a group without instances has none, and no credentials.
pub(in crate::overstory_admin) fn write(home: &Home, group: &str) -> anyhow::Result<()> {
    let (instances, _) = all(home)?;
    let members: Vec<_> = instances.iter().filter(|instance| instance.group == group).collect();
    if members.is_empty() {
        for path in [legacy(home, group), neo(home, group), credentials(home, group)] {
            files::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        return Ok(());
    }
    let dir = home.etc().join("nodes");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let text = |line: &dyn Fn(&super::Instance) -> String| {
        let lines = members.iter().map(|member| format!("{} # {}\n", line(member), member.place.service()));
        let head = "# Written by `overstory add` and `overstory remove`: the nodes of this prefix.\n".to_owned();
        std::iter::once(head).chain(lines).collect::<String>()
    };
    let of_legacy = text(&|member| format!("{}:{}", reachable(member.legacy_address), member.port));
    let of_neo = text(&|member| format!("{}:{}", reachable(member.address), member.neo_port));
    for (path, text) in [(legacy(home, group), of_legacy), (neo(home, group), of_neo)] {
        files::replace(&path, &text, 0o644).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The key of our client, the same for all nodes of a group; made with the first one.
pub(in crate::overstory_admin) fn admin_key(home: &Home, group: &str) -> anyhow::Result<String> {
    let path = credentials(home, group);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let key = text.lines().find_map(|line| line.trim().strip_prefix(ADMIN)?.strip_prefix(':'));
            let key = key.with_context(|| format!("{}: has no line {ADMIN}:KEY", path.display()))?;
            Ok(key.trim().to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random_key();
            let written = files::replace(&path, &format!("{ADMIN}:{key}\n"), 0o600);
            written.with_context(|| path.display().to_string())?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

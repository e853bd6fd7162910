//! What is written for an instance: its configuration from the template, its credentials, its program file.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use overstory_runtime::Home;
use overstory_swarm::key::HashRange;

use super::ports::Ports;
use super::{ADMIN, Name, Place, files};

/// The neo protocol's port is the legacy protocol's and this.
pub(in crate::overstory_admin) const NEO_OFFSET: u16 = 100;
/// A client's key has so many bytes (protocol §2.1).
const KEY_BYTES: usize = 128;
/// How long supervisord waits for the dump at the end. The published node is waited for without end, which supervisord
/// cannot do; an hour is enough for hundreds of gigabytes, and what is killed then has its last complete dump.
const STOP_WAIT_S: u32 = 3600;
/// How long a node may take to load its files until it is ready.
const READY_TIMEOUT_S: u32 = 3600;

const CONFIG_TEMPLATE: &str = include_str!("../../../../etc/dht/config.ini");
const DUMP_TEMPLATE: &str = include_str!("../../../../etc/dht/dump.ini");

/// What an instance is to be.
#[derive(Debug, Clone)]
pub(in crate::overstory_admin) struct Plan {
    pub(in crate::overstory_admin) place: Place,
    pub(in crate::overstory_admin) group: Name,
    pub(in crate::overstory_admin) ports: Ports,
    pub(in crate::overstory_admin) address: Ipv4Addr,
    pub(in crate::overstory_admin) legacy_address: Ipv4Addr,
    pub(in crate::overstory_admin) range: HashRange,
    pub(in crate::overstory_admin) size_limit: Option<u64>,
    pub(in crate::overstory_admin) dump_process: bool,
    pub(in crate::overstory_admin) dump_period_s: Option<u32>,
}

impl Plan {
    /// Writes the directory of the instance at `dir`, which must not exist.
    pub(in crate::overstory_admin) fn write_dir(&self, home: &Home, dir: &Path, admin_key: &str) -> io::Result<()> {
        files::make_dir(dir)?;
        for sub in ["etc", "data", "log", "backup-data"] {
            files::make_dir(&dir.join(sub))?;
        }
        let config = self.config(&template(home, "config.ini", CONFIG_TEMPLATE)?);
        files::create(&dir.join("etc/config.ini"), &config, 0o640)?;
        files::create(&dir.join("etc/credentials"), &format!("{ADMIN}:{admin_key}\n"), 0o600)?;
        if self.dump_process {
            for sub in ["dump", "dump/etc", "dump/log"] {
                files::make_dir(&dir.join(sub))?;
            }
            let config = self.dump_config(&template(home, "dump.ini", DUMP_TEMPLATE)?);
            files::create(&dir.join("dump/etc/config.ini"), &config, 0o640)?;
        }
        Ok(())
    }

    fn config(&self, template: &str) -> String {
        let mut text = template.to_owned();
        let mut put = |section: &str, key: &str, value: &str| text = set(&text, section, key, value);
        put("Server", "address", &self.address.to_string());
        put("Server", "port", &self.ports.legacy.to_string());
        put("Server", "legacy_address", &self.legacy_address.to_string());
        put("Server", "minval", &format!("{:016x}", self.range.min()));
        put("Server", "maxval", &format!("{:016x}", self.range.max()));
        put("Server", "admin", &format!("127.0.0.1:{}", self.ports.admin));
        if let Some(limit) = self.size_limit {
            put("Options_Memory", "size_limit", &limit.to_string());
        }
        if self.dump_process {
            put("Dump", "period_s", "0");
        } else if let Some(period) = self.dump_period_s {
            put("Dump", "period_s", &period.to_string());
        }
        put("Report", "instance", &self.place.service());
        if self.group.to_string() != super::DEFAULT_GROUP {
            put("Report", "group", &self.group.to_string());
        }
        text
    }

    fn dump_config(&self, template: &str) -> String {
        let mut text = template.to_owned();
        let mut put = |section: &str, key: &str, value: &str| text = set(&text, section, key, value);
        put("Dht", "address", &reachable(self.legacy_address).to_string());
        put("Dht", "port", &self.ports.legacy.to_string());
        put("Dump", "data_dir", "../data");
        if let Some(period) = self.dump_period_s {
            put("Dump", "period_s", &period.to_string());
        }
        put("Report", "instance", &self.place.dump_service());
        // It belongs to its node; by itself it would be of a group `dhtdump`.
        put("Report", "group", &self.group.to_string());
        text
    }

    /// The file in `etc/supervisord.d`: the lone program of the node, and that of its dump process.
    pub(in crate::overstory_admin) fn program_file(&self) -> String {
        let (service, group) = (self.place.service(), &self.group);
        let Ports { legacy, admin } = self.ports;
        let neo = self.ports.neo();
        let key = format!("srv/{service}/etc/config.ini");
        let mut text = format!(
            "; Made by `overstory add`, taken away by `overstory remove dht {name}`.\n\
             \n\
             [program:{service}]\n\
             command=%(here)s/../../bin/dhtnode -c etc/config.ini\n\
             directory=%(here)s/../../srv/{service}\n\
             autostart=false\n\
             autorestart=true\n\
             startsecs=1\n\
             ; When it ends it writes every record to its files; what is killed before loses what came since its last dump.\n\
             stopwaitsecs={STOP_WAIT_S}\n\
             priority=20\n\
             {LOG}\
             hyp_check=%(here)s/../../bin/dhtnode --check-config -c etc/config.ini\n\
             ; [Server] admin in {key}\n\
             hyp_ready=http:127.0.0.1:{admin}/readyz\n\
             ; It is ready when its files are loaded.\n\
             hyp_timeout={READY_TIMEOUT_S}\n\
             hyp_listen={legacy_address}:{legacy} [Server] port in {key}\n    \
             {address}:{neo} [Server] port in {key}, this is the port + {NEO_OFFSET}\n\
             ; Nodes of a group share the hash space.\n\
             hyp_group={group}\n",
            name = self.place.name,
            legacy_address = self.legacy_address,
            address = self.address,
        );
        if self.dump_process {
            let _ = write!(
                text,
                "\n; Writes the records of {service} to its files.\n\
                 [program:{dump}]\n\
                 command=%(here)s/../../bin/dhtdump -c etc/config.ini\n\
                 directory=%(here)s/../../srv/{service}/dump\n\
                 autostart=false\n\
                 autorestart=true\n\
                 startsecs=1\n\
                 stopwaitsecs=30\n\
                 priority=25\n\
                 {LOG}\
                 hyp_check=%(here)s/../../bin/dhtdump --check-config -c etc/config.ini\n\
                 hyp_after={service}\n",
                dump = self.place.dump_service(),
            );
        }
        text
    }
}

const LOG: &str = "redirect_stderr=true\n\
    stdout_logfile=%(here)s/../../var/log/%(program_name)s.log\n\
    stdout_logfile_maxbytes=10MB\n\
    stdout_logfile_backups=3\n";

/// Where a client on this machine reaches what listens on `address`.
pub(in crate::overstory_admin) const fn reachable(address: Ipv4Addr) -> Ipv4Addr {
    if address.is_unspecified() { Ipv4Addr::LOCALHOST } else { address }
}

/// The operator's template, or ours.
fn template(home: &Home, file: &str, ours: &str) -> io::Result<String> {
    match fs::read_to_string(home.etc().join("dht").join(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ours.to_owned()),
        other => other,
    }
}

/// A key for a client, in hexadecimal digits.
pub(in crate::overstory_admin) fn random_key() -> String {
    let key: [u8; KEY_BYTES] = std::array::from_fn(|_| rand::random());
    key.iter().fold(String::with_capacity(2 * KEY_BYTES), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The section that a line begins.
fn header(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.strip_suffix(']').map(str::trim)
}

/// Sets a key of a section: in the place of the one that is there, be it as a comment, else at the section's end.
fn set(text: &str, section: &str, key: &str, value: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let line = format!("{key} = {value}");
    let Some(begin) = lines.iter().position(|l| header(l) == Some(section)) else {
        return format!("{}\n\n[{section}]\n{line}\n", text.trim_end());
    };
    let end = lines.iter().skip(begin + 1).position(|l| header(l).is_some()).map_or(lines.len(), |n| begin + 1 + n);
    let is_key = |line: &str| line.split_once('=').is_some_and(|(k, _)| k.trim() == key);
    let within = || (begin + 1..end).filter_map(|at| lines.get(at).map(|line| (at, *line)));
    let present = within().find(|(_, line)| is_key(line));
    let commented = || within().find(|(_, line)| line.trim_start().strip_prefix(';').is_some_and(is_key));
    match present.or_else(commented) {
        Some((at, _)) => {
            if let Some(slot) = lines.get_mut(at) {
                *slot = &line;
            }
        }
        None => {
            let blank = |line: &str| line.trim().is_empty();
            let last = (begin..end).rev().find(|at| lines.get(*at).is_some_and(|l| !blank(l))).unwrap_or(begin);
            lines.insert(last + 1, &line);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_runtime::ini::{Dialect, Ini};

    use super::*;

    fn plan(dump_process: bool) -> Plan {
        let home = Home::at("/p");
        Plan {
            place: Place::new(&home, "a".parse().unwrap()),
            group: "dht".parse().unwrap(),
            ports: Ports { legacy: 21_003, admin: 21_203 },
            address: Ipv4Addr::UNSPECIFIED,
            legacy_address: Ipv4Addr::LOCALHOST,
            range: HashRange::new(0, 0xff).unwrap(),
            size_limit: Some(1 << 30),
            dump_process,
            dump_period_s: Some(600),
        }
    }

    #[test]
    fn a_key_is_set_where_it_stands_or_at_the_end_of_its_section() {
        let text = "[A]\nx = 1\n;y = 2\n\n[B]\ny = 3\n";
        assert_eq!(set(text, "A", "x", "7"), "[A]\nx = 7\n;y = 2\n\n[B]\ny = 3\n");
        assert_eq!(set(text, "A", "y", "7"), "[A]\nx = 1\ny = 7\n\n[B]\ny = 3\n");
        assert_eq!(set(text, "A", "z", "7"), "[A]\nx = 1\n;y = 2\nz = 7\n\n[B]\ny = 3\n");
        assert_eq!(set(text, "C", "z", "7"), "[A]\nx = 1\n;y = 2\n\n[B]\ny = 3\n\n[C]\nz = 7\n");
    }

    #[test]
    fn the_configuration_of_an_instance_holds_what_was_planned() {
        let plan = plan(false);
        let ini = Ini::parse(&plan.config(CONFIG_TEMPLATE), Dialect::SWARM).unwrap();
        let value = |section: &str, key: &str| ini.section(section).unwrap().get(key).unwrap().to_owned();
        assert_eq!(value("Server", "port"), "21003");
        assert_eq!(value("Server", "maxval"), "00000000000000ff");
        assert_eq!(
            (value("Server", "address"), value("Server", "legacy_address")),
            ("0.0.0.0".into(), "127.0.0.1".into())
        );
        assert_eq!(value("Options_Memory", "size_limit"), "1073741824");
        assert_eq!((value("Dump", "period_s"), value("Report", "instance")), ("600".into(), "dht-a".into()));
        assert_eq!(ini.duplicates().count(), 0);
        let other = Plan { group: "cache".parse().unwrap(), dump_process: true, ..plan };
        let text = other.config(CONFIG_TEMPLATE);
        assert!(text.contains("\nperiod_s = 0\n") && text.contains("\ngroup = cache\n"), "{text}");
        let dump = Ini::parse(&other.dump_config(DUMP_TEMPLATE), Dialect::SWARM).unwrap();
        assert_eq!(dump.section("Dump").unwrap().get("period_s"), Some("600"));
        assert_eq!(dump.section("Dht").unwrap().get("port"), Some("21003"));
        assert_eq!(dump.section("Report").unwrap().get("group"), Some("cache"));
    }

    #[test]
    fn the_program_file_is_one_that_supervision_reads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = overstory_supervisor::Layout::new(dir.path());
        fs::create_dir_all(layout.program_dir()).unwrap();
        fs::write(layout.program_dir().join("dht-a.conf"), plan(true).program_file()).unwrap();
        let catalogue = overstory_supervisor::Catalogue::load(&layout);
        assert_eq!(catalogue.problems, [""; 0]);
        let node = catalogue.service("dht-a").unwrap();
        assert_eq!(node.directory.as_deref(), Some(dir.path().join("srv/dht-a").as_path()));
        let listens: Vec<_> = node.listens.iter().map(|listen| listen.address.as_str()).collect();
        assert_eq!(listens, ["127.0.0.1:21003", "0.0.0.0:21103", "127.0.0.1:21203"]);
        assert_eq!(node.processes[0].stop_wait.as_secs(), u64::from(STOP_WAIT_S));
        assert_eq!(catalogue.service("dhtdump-a").unwrap().after, ["dht-a"]);
    }

    #[test]
    fn keys_have_the_published_length() {
        let key = random_key();
        assert_eq!(key.len(), 256);
        assert_ne!(key, random_key());
    }
}

//! What is written for an instance: its configuration from the template, its credentials, its program file.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_swarm::key::HashRange;
use tokio::process::Command;
use tokio::time::timeout;

use super::kind::{Dump, Kind, NEO_OFFSET};
use super::ports::Ports;
use super::{ADMIN, Name, Place, files};

/// A client's key has so many bytes (protocol §2.1).
const KEY_BYTES: usize = 128;
/// How long a program may take to check its configuration.
const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// A key of a configuration, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::overstory_admin) struct Setting {
    section: &'static str,
    key: String,
    value: String,
}

impl Setting {
    pub(in crate::overstory_admin) fn new(section: &'static str, key: impl Into<String>, value: impl ToString) -> Self {
        Self { section, key: key.into(), value: value.to_string() }
    }
}

/// What an instance is to be.
#[derive(Debug, Clone)]
pub(in crate::overstory_admin) struct Plan {
    pub(in crate::overstory_admin) place: Place,
    pub(in crate::overstory_admin) group: Name,
    pub(in crate::overstory_admin) ports: Ports,
    pub(in crate::overstory_admin) address: Ipv4Addr,
    pub(in crate::overstory_admin) legacy_address: Ipv4Addr,
    /// The part of what its group shares that it keeps, if its kind has one.
    pub(in crate::overstory_admin) range: Option<HashRange>,
    /// What else its configuration is to say.
    pub(in crate::overstory_admin) settings: Vec<Setting>,
    /// What the configuration of its dump process is to say, if it has one.
    pub(in crate::overstory_admin) dump: Option<Vec<Setting>>,
}

impl Plan {
    const fn kind(&self) -> &'static Kind {
        self.place.kind
    }

    /// The dump process that it is to have.
    fn dump(&self) -> Option<(&'static Dump, String, &[Setting])> {
        Some((self.kind().dump.as_ref()?, self.place.dump_service()?, self.dump.as_deref()?))
    }

    /// Its services, in the order in which they start.
    pub(in crate::overstory_admin) fn services(&self) -> Vec<String> {
        std::iter::once(self.place.service()).chain(self.dump().map(|(_, service, _)| service)).collect()
    }

    /// Writes the directory of the instance at `dir`, which must not exist.
    pub(in crate::overstory_admin) fn write_dir(&self, home: &Home, dir: &Path, admin_key: &str) -> io::Result<()> {
        files::make_dir(dir)?;
        for sub in ["etc", "data", "log"].iter().chain(self.kind().folders) {
            files::make_dir(&dir.join(sub))?;
        }
        let config = self.config(&self.template(home, "config.ini", self.kind().template)?);
        files::create(&dir.join("etc/config.ini"), &config, 0o640)?;
        files::create(&dir.join("etc/credentials"), &format!("{ADMIN}:{admin_key}\n"), 0o600)?;
        if let Some((dump, service, settings)) = self.dump() {
            for sub in ["dump", "dump/etc", "dump/log"] {
                files::make_dir(&dir.join(sub))?;
            }
            let template = self.template(home, "dump.ini", dump.template)?;
            let config = self.dump_config(&template, dump, service, settings);
            files::create(&dir.join("dump/etc/config.ini"), &config, 0o640)?;
        }
        Ok(())
    }

    /// Lets the programs check the configurations that [`Self::write_dir`] wrote at `dir`: the operator's templates can
    /// say what contradicts the options.
    pub(in crate::overstory_admin) async fn check_configurations(&self, home: &Home, dir: &Path) -> anyhow::Result<()> {
        self.check(home, self.kind().program, dir, "config.ini").await?;
        match self.dump() {
            Some((dump, ..)) => self.check(home, dump.name, &dir.join("dump"), "dump.ini").await,
            None => Ok(()),
        }
    }

    async fn check(&self, home: &Home, program: &str, dir: &Path, template: &str) -> anyhow::Result<()> {
        let mut command = Command::new(home.bin_dir().join(program));
        command.args(["--check-config", "-c", "etc/config.ini"]).current_dir(dir).env("OVERSTORY_HOME", home.root());
        let output = timeout(CHECK_LIMIT, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
        let output = output.with_context(|| format!("{program} --check-config does not end"))?;
        let output = output.with_context(|| format!("cannot run {program} --check-config"))?;
        if output.status.success() {
            return Ok(());
        }
        let template = self.template_file(home, template);
        let from = if template.exists() { format!(" (from {})", template.display()) } else { String::new() };
        let said = [output.stdout, output.stderr].concat();
        bail!("{program} refuses the configuration{from}: {}", String::from_utf8_lossy(&said).trim())
    }

    fn template_file(&self, home: &Home, file: &str) -> PathBuf {
        home.etc().join(self.kind().name).join(file)
    }

    /// The operator's template, or ours.
    fn template(&self, home: &Home, file: &str, ours: &str) -> io::Result<String> {
        match fs::read_to_string(self.template_file(home, file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ours.to_owned()),
            other => other,
        }
    }

    fn config(&self, template: &str) -> String {
        let server = |key: &str, value: &dyn ToString| Setting::new("Server", key, value.to_string());
        let mut settings = vec![
            server("address", &self.address),
            server("port", &self.ports.legacy),
            server("legacy_address", &self.legacy_address),
            server("admin", &format!("127.0.0.1:{}", self.ports.admin)),
            Setting::new("Report", "instance", self.place.service()),
        ];
        settings.extend(self.kind().neo_key.map(|key| server(key, &self.ports.neo)));
        if let Some(range) = self.range {
            settings.push(server("minval", &format!("{:016x}", range.min())));
            settings.push(server("maxval", &format!("{:016x}", range.max())));
        }
        // By itself it reports its type.
        if self.group.as_str() != self.kind().name {
            settings.push(Setting::new("Report", "group", &self.group));
        }
        apply(template, settings.iter().chain(&self.settings))
    }

    fn dump_config(&self, template: &str, dump: &Dump, service: String, settings: &[Setting]) -> String {
        let own = [
            Setting::new(dump.section, "address", reachable(self.legacy_address)),
            Setting::new(dump.section, "port", self.ports.legacy),
            Setting::new("Dump", "data_dir", "../data"),
            Setting::new("Report", "instance", service),
            // It belongs to its node; by itself it would be of a group of its own type.
            Setting::new("Report", "group", &self.group),
        ];
        apply(template, own.iter().chain(settings))
    }

    /// The file in `etc/supervisord.d`: the lone program of the node, and that of its dump process.
    pub(in crate::overstory_admin) fn program_file(&self) -> String {
        let (kind, service) = (self.kind(), self.place.service());
        let Ports { legacy, neo, admin } = self.ports;
        let key = format!("srv/{service}/etc/config.ini");
        let neo_key = kind.neo_key.map_or_else(
            || format!("[Server] port in {key}, this is the port + {NEO_OFFSET}"),
            |name| format!("[Server] {name} in {key}"),
        );
        let mut text = format!(
            "; Made by `overstory add`, taken away by `overstory remove {kind_name} {name}`.\n\
             \n\
             [program:{service}]\n\
             command=%(here)s/../../bin/{program} -c etc/config.ini\n\
             directory=%(here)s/../../srv/{service}\n\
             autostart=false\n\
             autorestart=true\n\
             startsecs=1\n\
             ; {stop_note}\n\
             stopwaitsecs={stop_wait}\n\
             priority=20\n\
             {LOG}\
             hyp_check=%(here)s/../../bin/{program} --check-config -c etc/config.ini\n\
             ; [Server] admin in {key}\n\
             hyp_ready=http:127.0.0.1:{admin}/readyz\n\
             ; {ready_note}\n\
             hyp_timeout={ready_timeout}\n\
             hyp_listen={legacy_address}:{legacy} [Server] port in {key}\n    \
             {address}:{neo} {neo_key}\n\
             ; {group_note}\n\
             hyp_group={group}\n",
            kind_name = kind.name,
            name = self.place.name,
            program = kind.program,
            stop_note = kind.stop_note,
            stop_wait = kind.stop_wait_s,
            ready_note = kind.ready_note,
            ready_timeout = kind.ready_timeout_s,
            legacy_address = self.legacy_address,
            address = self.address,
            group_note = kind.group_note,
            group = self.group,
        );
        if let Some((Dump { name: program, .. }, dump, _)) = self.dump() {
            let _ = write!(
                text,
                "\n; Writes the records of {service} to its files.\n\
                 [program:{dump}]\n\
                 command=%(here)s/../../bin/{program} -c etc/config.ini\n\
                 directory=%(here)s/../../srv/{service}/dump\n\
                 autostart=false\n\
                 autorestart=true\n\
                 startsecs=1\n\
                 stopwaitsecs=30\n\
                 priority=25\n\
                 {LOG}\
                 hyp_check=%(here)s/../../bin/{program} --check-config -c etc/config.ini\n\
                 hyp_after={service}\n"
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

fn apply<'a>(template: &str, settings: impl Iterator<Item = &'a Setting>) -> String {
    settings.fold(template.to_owned(), |text, Setting { section, key, value }| set(&text, section, key, value))
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

    use super::super::kind::{DHT, KINDS, Shares};
    use super::*;

    fn plan(kind: &'static Kind, dump_process: bool) -> Plan {
        let home = Home::at("/p");
        let period = |seconds: u32| Setting::new("Dump", "period_s", seconds);
        Plan {
            place: Place::new(&home, kind, "a".parse().unwrap()),
            group: kind.name.parse().unwrap(),
            ports: Ports { legacy: 21_003, neo: 21_103, admin: 21_203 },
            address: Ipv4Addr::UNSPECIFIED,
            legacy_address: Ipv4Addr::LOCALHOST,
            range: (kind.shares != Shares::Nothing).then(|| HashRange::new(0, 0xff).unwrap()),
            settings: vec![period(if dump_process { 0 } else { 600 })],
            dump: dump_process.then(|| vec![period(600)]),
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
        for kind in KINDS {
            let plan = plan(kind, false);
            let ini = Ini::parse(&plan.config(kind.template), Dialect::SWARM).unwrap();
            let value = |section: &str, key: &str| ini.section(section).unwrap().get(key).unwrap().to_owned();
            assert_eq!(value("Server", "port"), "21003");
            let addresses = (value("Server", "address"), value("Server", "legacy_address"));
            assert_eq!(addresses, ("0.0.0.0".into(), "127.0.0.1".into()));
            assert_eq!(value("Server", "admin"), "127.0.0.1:21203");
            assert_eq!(value("Report", "instance"), kind.service("a"));
            assert_eq!(value("Dump", "period_s"), "600");
            let key = |key| ini.section("Server").unwrap().get(key);
            assert_eq!(key("maxval"), (kind.shares != Shares::Nothing).then_some("00000000000000ff"), "{}", kind.name);
            assert_eq!(key("neoport"), kind.neo_key.map(|_| "21103"), "{}", kind.name);
            assert_eq!(ini.section("Report").unwrap().get("group"), None);
            assert_eq!(ini.duplicates().count(), 0);
            let other = Plan { group: "cache".parse().unwrap(), ..plan };
            let text = other.config(kind.template);
            assert!(text.contains("\ngroup = cache\n"), "{text}");
        }
    }

    #[test]
    fn the_dump_process_has_the_node_and_the_period() {
        let other = Plan { group: "cache".parse().unwrap(), ..plan(&DHT, true) };
        assert!(other.config(DHT.template).contains("\nperiod_s = 0\n"));
        let (dump, service, settings) = other.dump().unwrap();
        let text = other.dump_config(dump.template, dump, service, settings);
        let dump = Ini::parse(&text, Dialect::SWARM).unwrap();
        assert_eq!(dump.section("Dump").unwrap().get("period_s"), Some("600"));
        assert_eq!(dump.section("Dht").unwrap().get("port"), Some("21003"));
        assert_eq!(dump.section("Dht").unwrap().get("address"), Some("127.0.0.1"));
        let report = dump.section("Report").unwrap();
        assert_eq!((report.get("group"), report.get("instance")), (Some("cache"), Some("dhtdump-a")));
    }

    #[test]
    fn the_program_file_is_one_that_supervision_reads() {
        for kind in KINDS {
            let dir = tempfile::tempdir().unwrap();
            let layout = overstory_supervisor::Layout::new(dir.path());
            fs::create_dir_all(layout.program_dir()).unwrap();
            let (service, has_dump) = (kind.service("a"), kind.dump.is_some());
            let file = layout.program_dir().join(format!("{service}.conf"));
            fs::write(file, plan(kind, has_dump).program_file()).unwrap();
            let catalogue = overstory_supervisor::Catalogue::load(&layout);
            assert_eq!(catalogue.problems, [""; 0]);
            let node = catalogue.service(&service).unwrap();
            let directory = dir.path().join("srv").join(&service);
            assert_eq!(node.directory.as_deref(), Some(directory.as_path()));
            let listens: Vec<_> = node.listens.iter().map(|listen| listen.address.as_str()).collect();
            assert_eq!(listens, ["127.0.0.1:21003", "0.0.0.0:21103", "127.0.0.1:21203"]);
            assert_eq!(node.processes[0].stop_wait.as_secs(), u64::from(kind.stop_wait_s));
            let dump = kind.dump.as_ref().map(|dump| format!("{}-a", dump.name));
            let services: Vec<_> = catalogue.services().map(|service| service.name.clone()).collect();
            assert_eq!(services, std::iter::once(service.clone()).chain(dump).collect::<Vec<_>>());
            assert!(catalogue.service("dhtdump-a").is_none_or(|dump| dump.after == [service]));
        }
    }

    #[test]
    fn keys_have_the_published_length() {
        let key = random_key();
        assert_eq!(key.len(), 256);
        assert_ne!(key, random_key());
    }
}

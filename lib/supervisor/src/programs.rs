//! What `etc/supervisord.d/*.conf` defines: services, their processes, and what hypcontrol must know about them.
//!
//! supervisord ignores keys that it does not know, so our own stand beside its own in a program's section:
//!
//! | key | meaning |
//! |---|---|
//! | `hyp_ready` | probes that must all pass before the service is ready, one per line, see [`Probe`] |
//! | `hyp_timeout` | seconds until a service that is not ready has failed (60) |
//! | `hyp_requires` | services that are started with it, before it |
//! | `hyp_after` | services it waits for when they are started, too |
//! | `hyp_check` | command that checks the program's configuration |
//! | `hyp_listen` | `HOST:PORT what changes it`, one per line: addresses it listens on besides those it is probed at |
//! | `hyp_group` | of a node: the nodes that share its hash space; for `overstory add` |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use overstory_runtime::ini::{Dialect, Ini, Section};

use crate::api::ProcessName;
use crate::layout::Layout;
use crate::readiness::Probe;

mod expand;

pub use expand::ExpandError;
use expand::{Var, expand};

/// Most processes that one program may have.
const MAX_PROCESSES: u32 = 256;

/// Is every service that the prefix defines, and what is wrong with the definitions.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    services: BTreeMap<String, ServiceDef>,
    /// What could not be read, each with its file; the services of the other files are there all the same.
    pub problems: Vec<String>,
}

/// Defines a service: what supervisord calls a group, or a lone program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDef {
    /// Its name.
    pub name: String,
    /// The file that defines it.
    pub file: PathBuf,
    /// Its processes, at least one.
    pub processes: Vec<ProcessDef>,
    /// Services to start before it.
    pub requires: Vec<String>,
    /// Services to wait for, if they are started.
    pub after: Vec<String>,
    /// How long it may take to become ready.
    pub timeout: Duration,
    /// Commands that check its configuration.
    pub checks: Vec<String>,
    /// Where it and its checks run; the prefix when its definition names none.
    pub directory: Option<PathBuf>,
    /// Addresses that it listens on.
    pub listens: Vec<Listen>,
}

/// Defines one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessDef {
    /// Its name.
    pub name: ProcessName,
    /// The command, expanded as far as its names are known here.
    pub command: String,
    /// When it is ready.
    pub ready: Vec<Probe>,
    /// Where its output goes.
    pub stdout_log: Option<PathBuf>,
    /// How long it must stay up to count as started.
    pub start_secs: u32,
    /// How long supervisord waits before it kills it.
    pub stop_wait: Duration,
    /// The signal that stops it.
    pub stop_signal: String,
    /// The exit codes with which it says that all is well (`exitcodes`).
    pub exit_codes: Vec<i32>,
}

impl ProcessDef {
    /// The stop signal without `SIG`.
    #[must_use]
    pub fn stop_signal_name(&self) -> &str {
        let name = self.stop_signal.trim();
        name.strip_prefix("SIG").unwrap_or(name)
    }

    /// Whether an end with `code` after a stop is a good one: one of the exit codes, or 128 and the number of the stop
    /// signal, as shells tell of an end by that signal.
    #[must_use]
    pub fn is_good_end(&self, code: i32) -> bool {
        let signal = match self.stop_signal_name() {
            "TERM" => 15,
            "INT" => 2,
            "QUIT" => 3,
            "HUP" => 1,
            "USR1" => 10,
            "USR2" => 12,
            "KILL" => 9,
            number => number.parse().unwrap_or_default(),
        };
        code == 0 || self.exit_codes.contains(&code) || (signal > 0 && code == 128 + signal)
    }
}

/// Is an address that a service listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// `HOST:PORT`.
    pub address: String,
    /// Which setting changes it.
    pub changed_by: String,
}

/// Is what a name given by an operator stands for: processes of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The service.
    pub service: &'a ServiceDef,
    /// The processes that are meant.
    pub processes: Vec<&'a ProcessDef>,
}

impl Target<'_> {
    /// Whether all processes of the service are meant.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.processes.len() == self.service.processes.len()
    }
}

impl Catalogue {
    /// Reads every definition of the prefix. Files that cannot be read end up in [`Catalogue::problems`].
    #[must_use]
    pub fn load(layout: &Layout) -> Self {
        let mut loader = Loader { layout, programs: BTreeMap::new(), groups: Vec::new(), problems: Vec::new() };
        let dir = layout.program_dir();
        match std::fs::read_dir(&dir) {
            Ok(entries) => {
                let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
                files.retain(|path| path.extension().is_some_and(|e| e == "conf"));
                files.sort();
                files.iter().for_each(|file| loader.read(file));
            }
            Err(error) => loader.problems.push(format!("{}: {error}", dir.display())),
        }
        loader.finish()
    }

    /// Every service, by name.
    pub fn services(&self) -> impl Iterator<Item = &ServiceDef> {
        self.services.values()
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceDef> {
        self.services.get(name)
    }

    /// The definition of a process.
    #[must_use]
    pub fn process(&self, name: &ProcessName) -> Option<&ProcessDef> {
        self.services.get(&name.group)?.processes.iter().find(|p| p.name == *name)
    }

    /// What `name` stands for: a service, `SERVICE:PROCESS`, a prefix that ends in `*`, or a file of definitions.
    /// Empty when there is nothing of that name.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Vec<Target<'_>> {
        let whole = |service| Target { service, processes: service.processes.iter().collect() };
        if let Some(service) = self.services.get(name.strip_suffix(":*").unwrap_or(name)) {
            return vec![whole(service)];
        }
        if let Some((group, member)) = name.split_once(':') {
            let Some(service) = self.services.get(group) else { return Vec::new() };
            let processes: Vec<_> = service.processes.iter().filter(|p| matches(member, &p.name.name)).collect();
            return if processes.is_empty() { Vec::new() } else { vec![Target { service, processes }] };
        }
        if name.contains('*') {
            return self.services.values().filter(|s| matches(name, &s.name)).map(whole).collect();
        }
        let by_file = |s: &&ServiceDef| s.file.file_stem().is_some_and(|stem| stem == name);
        self.services.values().filter(by_file).map(whole).collect()
    }
}

/// Whether `name` is `pattern`, or begins as `pattern` does up to its `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((head, tail)) => name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail),
        None => pattern == name,
    }
}

/// Is a `[group:x]` section: its name, its file, its programs, its own keys.
struct GroupSection {
    name: String,
    file: PathBuf,
    programs: Vec<String>,
    section: Section,
}

struct Loader<'a> {
    layout: &'a Layout,
    programs: BTreeMap<String, ServiceDef>,
    groups: Vec<GroupSection>,
    problems: Vec<String>,
}

impl Loader<'_> {
    fn read(&mut self, file: &Path) {
        let ini = match Ini::read(file, Dialect::SUPERVISORD) {
            Ok(ini) => ini,
            Err(error) => return self.problems.push(error.to_string()),
        };
        for section in ini.sections() {
            if let Some(name) = section.name.strip_prefix("program:") {
                match self.program(file, name.trim(), section) {
                    Ok(service) => {
                        // supervisord would mix the two sections without a word.
                        if let Some(other) = self.programs.insert(service.name.clone(), service) {
                            let problem = format!("is also defined in {}", other.file.display());
                            self.problem(file, section, &problem);
                        }
                    }
                    Err(problem) => self.problem(file, section, &problem),
                }
            } else if let Some(name) = section.name.strip_prefix("group:") {
                let programs = words(section.get_ignore_case("programs").unwrap_or_default());
                let (name, file) = (name.trim().to_owned(), file.to_owned());
                self.groups.push(GroupSection { name, file, programs, section: section.clone() });
            }
        }
    }

    fn problem(&mut self, file: &Path, section: &Section, problem: &str) {
        self.problems.push(format!("{}:{}: [{}] {problem}", file.display(), section.line, section.name));
    }

    fn program(&mut self, file: &Path, name: &str, section: &Section) -> Result<ServiceDef, String> {
        let number = |key: &str, default: u32| match section.get_ignore_case(key).map(str::trim) {
            None | Some("") => Ok(default),
            Some(text) => text.parse::<u32>().map_err(|_| format!("{key}={text} is not a number")),
        };
        if name.is_empty() || name.contains([':', '*']) || name.contains(char::is_whitespace) {
            return Err("is not a name for a program".to_owned());
        }
        let command = section.get_ignore_case("command").ok_or("has no command")?;
        let count = number("numprocs", 1)?;
        if count > MAX_PROCESSES {
            return Err(format!("numprocs={count} is more than {MAX_PROCESSES}"));
        }
        let first = number("numprocs_start", 0)?;
        let here = file.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let mut service = ServiceDef {
            name: name.to_owned(),
            file: file.to_owned(),
            processes: Vec::new(),
            requires: Vec::new(),
            after: Vec::new(),
            timeout: Duration::from_secs(u64::from(number("hyp_timeout", 60)?)),
            checks: Vec::new(),
            directory: None,
            listens: Vec::new(),
        };
        read_relations(section, &mut service);
        for index in first..first.saturating_add(count) {
            let vars = |key: &str| match key {
                "here" => Some(Var::Text(here.clone())),
                "program_name" | "group_name" => Some(Var::Text(name.to_owned())),
                "process_num" => Some(Var::Number(index)),
                "numprocs" => Some(Var::Number(count)),
                "host_node_name" => {
                    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|h| Var::Text(h.trim().to_owned()))
                }
                "ENV_OVERSTORY_HOME" => Some(Var::Text(self.layout.prefix().to_string_lossy().into_owned())),
                _ => None,
            };
            let expanded = |text: &str| expand(text, &vars).map_err(|e| e.to_string());
            // supervisord sees variables of its environment that we do not: such a value is kept as written.
            let lenient = |text: &str| expand(text, &vars).unwrap_or_else(|_| text.to_owned());
            let directory = section.get_ignore_case("directory").map(&lenient);
            service.directory = directory.map(|path| normalise(&self.layout.resolve(&path)));
            let own = section.get_ignore_case("process_name").unwrap_or("%(program_name)s");
            let stdout_log = section.get_ignore_case("stdout_logfile").map(&lenient);
            let stdout_log =
                stdout_log.filter(|p| !matches!(p.to_ascii_uppercase().as_str(), "AUTO" | "NONE" | "SYSLOG"));
            let ready =
                lines(section.get_ignore_case("hyp_ready")).map(|line| Probe::parse(&expanded(line)?, self.layout));
            let ready: Vec<Probe> = ready.collect::<Result<_, _>>().map_err(|e| format!("hyp_ready: {e}"))?;
            for line in lines(section.get_ignore_case("hyp_listen")) {
                service.listens.push(Listen::parse(&expanded(line)?)?);
            }
            for line in lines(section.get_ignore_case("hyp_check")) {
                push_new(&mut service.checks, tidy(&expanded(line)?));
            }
            service.processes.push(ProcessDef {
                name: ProcessName::new(name, expanded(own)?),
                command: tidy(&lenient(command)),
                ready,
                stdout_log: stdout_log.map(|path| normalise(&self.layout.resolve(&path))),
                start_secs: number("startsecs", 1)?,
                stop_wait: Duration::from_secs(u64::from(number("stopwaitsecs", 10)?)),
                stop_signal: section.get_ignore_case("stopsignal").unwrap_or("TERM").to_owned(),
                exit_codes: exit_codes(section.get_ignore_case("exitcodes"))?,
            });
        }
        if service.processes.is_empty() {
            return Err("has numprocs=0".to_owned());
        }
        self.add_probed_addresses(&mut service);
        Ok(service)
    }

    /// A service listens where it is probed.
    fn add_probed_addresses(&self, service: &mut ServiceDef) {
        let file = self.layout.shorten(&service.file).display().to_string();
        let probed: Vec<String> =
            service.processes.iter().flat_map(|p| &p.ready).filter_map(|p| p.address().map(str::to_owned)).collect();
        for address in probed {
            if !service.listens.iter().any(|l| l.address == address) {
                let changed_by = format!("{}'s own configuration, and hyp_ready in {file}", service.name);
                service.listens.push(Listen { address, changed_by });
            }
        }
    }

    fn finish(mut self) -> Catalogue {
        for group in std::mem::take(&mut self.groups) {
            let mut merged: Option<ServiceDef> = None;
            for program in &group.programs {
                let Some(mut service) = self.programs.remove(program) else {
                    let problem = format!("names the program {program:?}, which is not defined");
                    self.problem(&group.file, &group.section, &problem);
                    continue;
                };
                service.processes.iter_mut().for_each(|p| p.name.group.clone_from(&group.name));
                match &mut merged {
                    None => merged = Some(ServiceDef { name: group.name.clone(), file: group.file.clone(), ..service }),
                    Some(merged) => merge(merged, service),
                }
            }
            match merged {
                Some(mut service) => {
                    read_relations(&group.section, &mut service);
                    let members = |name: &String| !group.programs.contains(name);
                    service.requires.retain(members);
                    service.after.retain(members);
                    self.programs.insert(group.name, service);
                }
                None => self.problem(&group.file, &group.section, "has no programs"),
            }
        }
        Catalogue { services: self.programs, problems: self.problems }
    }
}

fn merge(into: &mut ServiceDef, other: ServiceDef) {
    into.processes.extend(other.processes);
    into.timeout = into.timeout.max(other.timeout);
    other.requires.into_iter().for_each(|name| push_new(&mut into.requires, name));
    other.after.into_iter().for_each(|name| push_new(&mut into.after, name));
    other.checks.into_iter().for_each(|command| push_new(&mut into.checks, command));
    into.listens.extend(other.listens);
}

fn read_relations(section: &Section, service: &mut ServiceDef) {
    let named = |key: &str| words(section.get_ignore_case(key).unwrap_or_default());
    named("hyp_requires").into_iter().for_each(|name| push_new(&mut service.requires, name));
    named("hyp_after").into_iter().for_each(|name| push_new(&mut service.after, name));
}

/// supervisord's `exitcodes`; 0 when there are none.
fn exit_codes(text: Option<&str>) -> Result<Vec<i32>, String> {
    let codes: Result<Vec<i32>, String> = words(text.unwrap_or_default())
        .iter()
        .map(|word| word.parse().map_err(|_| format!("exitcodes: {word} is not a number")))
        .collect();
    codes.map(|codes| if codes.is_empty() { vec![0] } else { codes })
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn words(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn lines(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Makes a command shorter to read: takes `x/..` out of the path of its executable.
fn tidy(command: &str) -> String {
    let (executable, rest) = command.split_once(' ').unwrap_or((command, ""));
    if !executable.starts_with('/') {
        return command.to_owned();
    }
    let executable = normalise(Path::new(executable));
    format!("{} {rest}", executable.display()).trim_end().to_owned()
}

/// Takes `x/..` out of a path without looking at the disk, as supervisord does with its log files.
pub(crate) fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => _ = out.pop(),
            std::path::Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

impl Listen {
    fn parse(line: &str) -> Result<Self, String> {
        let (address, changed_by) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(format!("hyp_listen: {address:?} is not HOST:PORT"));
        }
        Ok(Self { address: address.to_owned(), changed_by: changed_by.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests;

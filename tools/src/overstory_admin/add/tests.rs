//! Adding on the fake supervisor; `remove/tests.rs` goes on to a real one.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use clap::Parser;
use overstory_supervisor::fake::{FakeProgram, FakeSupervisor};
use overstory_supervisor::{Catalogue, Layout, Supervisor as _};

use super::*;
use crate::overstory_admin::instance::Instance;
use crate::overstory_admin::instance::kind::{DHT, KINDS, QUEUE, Shares};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// A prefix with a supervisor that has `web` loaded and whose files also define what `files` names.
pub(in crate::overstory_admin) struct Bench {
    pub(in crate::overstory_admin) dir: tempfile::TempDir,
    pub(in crate::overstory_admin) home: Home,
    pub(in crate::overstory_admin) fake: Arc<FakeSupervisor>,
    pub(in crate::overstory_admin) services: Services,
}

pub(in crate::overstory_admin) fn bench(files: &[&str]) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["bin", "etc/supervisord.d", "etc/secrets", "var/run", "var/log"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for program in KINDS.iter().flat_map(|kind| kind.programs()) {
        // It accepts every configuration.
        symlink("/bin/true", dir.path().join("bin").join(program)).unwrap();
    }
    let fake = Arc::new(FakeSupervisor::new(vec![FakeProgram::new("web")]));
    let programs = std::iter::once(&"web").chain(files).map(|name| FakeProgram::new(name)).collect();
    fake.write_files(programs);
    let layout = Layout::new(dir.path());
    let services = Services::with_supervisor(layout.clone(), Catalogue::load(&layout), fake.clone());
    Bench { home: Home::at(dir.path()), dir, fake, services }
}

impl Bench {
    /// Adds an instance of the dht.
    async fn add(&self, line: &str) -> Result<String, String> {
        self.add_any(&format!("dht {line}")).await
    }

    /// Adds an instance; the line begins with its kind.
    pub(in crate::overstory_admin) async fn add_any(&self, line: &str) -> Result<String, String> {
        add_to(&self.home, &self.services, line).await
    }

    pub(in crate::overstory_admin) async fn loaded(&self) -> Vec<String> {
        self.fake.processes().await.unwrap().into_iter().map(|info| info.name.to_string()).collect()
    }

    /// Every file and directory of the prefix but the lock.
    pub(in crate::overstory_admin) fn tree(&self) -> Vec<String> {
        fn visit(dir: &std::path::Path, root: &std::path::Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
                if entry.path().is_dir() {
                    visit(&entry.path(), root, found);
                }
            }
        }
        let mut found = Vec::new();
        visit(self.dir.path(), self.dir.path(), &mut found);
        found.retain(|path| !path.ends_with(".lock"));
        found.sort();
        found
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap()
    }
}

fn wish(line: &str) -> Result<Wish, String> {
    let line = Line::try_parse_from(format!("add {line}").split_ascii_whitespace());
    line.map_err(|error| error.to_string())?.command.wish().map_err(|error| format!("{error:#}"))
}

pub(in crate::overstory_admin) async fn add_to(home: &Home, services: &Services, line: &str) -> Result<String, String> {
    let wish = wish(line)?;
    let mut out = Vec::new();
    match add(&wish, home, services, &mut out).await {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[tokio::test]
async fn an_instance_is_set_up_and_loaded_and_nothing_else_is() {
    let bench = bench(&["dht-a", "other"]);
    let told = bench.add("a").await.unwrap();
    assert!(told.starts_with("dht-a is added, its files are in "), "{told}");
    assert!(!told.contains("warning"), "{told}");
    assert_eq!(bench.loaded().await, ["dht-a", "web"]);
    let config = bench.read("srv/dht-a/etc/config.ini");
    assert!(config.contains("minval = 0000000000000000\nmaxval = ffffffffffffffff\n"), "{config}");
    let credentials = bench.read("srv/dht-a/etc/credentials");
    assert_eq!(credentials, bench.read("etc/secrets/dht.credentials"));
    assert_eq!(credentials.trim().len(), "admin:".len() + 256);
    for secret in ["srv/dht-a/etc/credentials", "etc/secrets/dht.credentials"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(bench.dir.path().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let nodes = bench.read("etc/nodes/dht.nodes");
    assert!(nodes.ends_with(" # dht-a\n"), "{nodes}");
    for folder in ["data", "log", "backup-data"] {
        assert!(bench.dir.path().join("srv/dht-a").join(folder).is_dir(), "{folder}");
    }
    assert!(!bench.tree().iter().any(|path| path.contains(".adding")), "{:?}", bench.tree());
}

#[tokio::test]
async fn instances_of_a_group_share_the_key_and_have_ports_of_their_own() {
    let bench = bench(&["dht-a", "dht-b", "dhtdump-b"]);
    let told = bench.add("a --share 1/2 --size-limit 1000").await.unwrap();
    assert!(told.contains("warning: no node of the group dht has 0x8000000000000000..0xffffffffffffffff"), "{told}");
    let told = bench.add("b --share 2/2 --dump-process --dump-period 60").await.unwrap();
    assert!(!told.contains("warning"), "{told}");
    assert_eq!(bench.loaded().await, ["dht-a", "dht-b", "dhtdump-b", "web"]);
    assert_eq!(bench.read("srv/dht-a/etc/credentials"), bench.read("srv/dht-b/etc/credentials"));
    let (instances, problems) = instance::all(&bench.home).unwrap();
    assert_eq!(problems, [""; 0]);
    let mut ports: Vec<u16> = instances.iter().flat_map(|instance| instance.ports().collect::<Vec<_>>()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6);
    assert_eq!(bench.read("etc/nodes/dht.legacy.nodes").lines().count(), 3);
    assert!(bench.read("srv/dht-b/dump/etc/config.ini").contains("\nperiod_s = 60\n"));
    assert!(bench.read("srv/dht-b/etc/config.ini").contains("\nperiod_s = 0\n"));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let bench = bench(&["dht-a", "dht-b"]);
    bench.add("a --share 1/2").await.unwrap();
    let before = bench.tree();
    let taken = instance::all(&bench.home).unwrap().0[0].port;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = listener.local_addr().unwrap().port();
    for (line, expected) in [
        ("a".to_owned(), "there is a dht-a already; `overstory list` shows it".to_owned()),
        ("b".to_owned(), "overlaps: dht-a has 0x0000000000000000..0x7fffffffffffffff".to_owned()),
        (format!("b --share 2/2 --port {taken}"), format!("port {taken} belongs to dht-a")),
        (format!("b --share 2/2 --admin-port {used}"), format!("something listens on port {used}")),
        ("b --share 2/2 --address 192.0.2.1".to_owned(), "cannot listen on 192.0.2.1".to_owned()),
        ("b --share 2/2 --dump-process --dump-period 0".to_owned(), "would never dump".to_owned()),
        ("B".to_owned(), "lower-case letters".to_owned()),
        ("../b".to_owned(), "lower-case letters".to_owned()),
        ("b --share 3/2".to_owned(), "a share is I/N".to_owned()),
        ("b --range 2-1".to_owned(), "above its maximum".to_owned()),
        ("b --range all --share 1/2".to_owned(), "cannot be used with".to_owned()),
        ("b --share 2/2 --port 65436".to_owned(), "--port 65436: there is no port + 100".to_owned()),
        ("b --share 2/2 --neo-port 21500".to_owned(), "unexpected argument".to_owned()),
    ] {
        let error = bench.add(&line).await.unwrap_err();
        assert!(error.contains(&expected), "{line}: {error}");
        assert_eq!(bench.tree(), before, "{line}");
    }
    let forced = bench.add("b --force").await.unwrap();
    assert!(forced.contains("warning: the hash range") && forced.contains("both have"), "{forced}");
}

#[tokio::test]
async fn another_group_is_a_dht_of_its_own() {
    let bench = bench(&["dht-a", "dht-b"]);
    bench.add("a").await.unwrap();
    let told = bench.add("b --group cache").await.unwrap();
    assert!(!told.contains("warning"), "{told}");
    assert_ne!(bench.read("etc/secrets/dht.credentials"), bench.read("etc/secrets/cache.credentials"));
    assert!(bench.read("etc/nodes/cache.nodes").contains("# dht-b"));
    assert!(!bench.read("etc/nodes/dht.nodes").contains("dht-b"));
    assert!(bench.read("srv/dht-b/etc/config.ini").contains("\ngroup = cache\n"));
}

#[tokio::test]
async fn a_supervisor_that_refuses_leaves_nothing_behind() {
    let bench = bench(&["dht-a"]);
    let before = bench.tree();
    bench.fake.set_syntax_error(Some("File contains no section headers"));
    let error = bench.add("a").await.unwrap_err();
    assert!(error.starts_with("nothing was added: supervisord cannot read its configuration"), "{error}");
    let mut after = bench.tree();
    after.retain(|path| !["srv", "etc/nodes"].contains(&path.as_str()));
    assert_eq!(after, before);
    assert_eq!(bench.loaded().await, ["web"]);
    bench.fake.set_syntax_error(None);
    bench.add("a").await.unwrap();
}

#[tokio::test]
async fn a_configuration_that_its_program_refuses_is_not_added() {
    let bench = bench(&["dht-a", "dhtdump-a"]);
    let bin = bench.dir.path().join("bin");
    let before = bench.tree();
    let refused = async |program: &str, like: &str, expected: &str| {
        let file = bin.join(program);
        fs::remove_file(&file).unwrap();
        symlink(like, &file).unwrap();
        let error = bench.add("a --dump-process").await.unwrap_err();
        assert!(error.starts_with(&format!("nothing was added: {expected}")), "{error}");
        let mut after = bench.tree();
        after.retain(|path| !["srv", "etc/nodes"].contains(&path.as_str()));
        assert_eq!(after, before);
        assert_eq!(bench.loaded().await, ["web"]);
        fs::remove_file(&file).unwrap();
        symlink("/bin/true", &file).unwrap();
    };
    refused("dhtnode", "/bin/false", "dhtnode refuses the configuration: ").await;
    // An interpreter that does not know the option says so.
    refused("dhtnode", "/bin/sh", "dhtnode refuses the configuration: ").await;
    refused("dhtdump", "/bin/false", "dhtdump refuses the configuration: ").await;
    refused("dhtdump", "/etc/passwd", "cannot run dhtdump --check-config: ").await;
    bench.add("a --dump-process").await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_leaves_nothing_behind() {
    let bench = bench(&["dht-a"]);
    let place = Place::new(&bench.home, &DHT, "a".parse().unwrap());
    // What stands in the way is met after everything else was made.
    fs::write(bench.dir.path().join("etc/nodes"), "in the way").unwrap();
    let error = bench.add("a").await.unwrap_err();
    assert!(error.starts_with("nothing was added: "), "{error}");
    assert!(!place.dir().exists() && !place.program_file().exists());
    assert!(!nodes_file::credentials(&bench.home, "dht").exists());
    fs::remove_file(bench.dir.path().join("etc/nodes")).unwrap();
    bench.fake.write_files(vec![FakeProgram::new("web")]);
    assert!(bench.services.forget("dht-a").await.unwrap());
}

/// The states in which a command that was killed leaves the prefix, made with the steps of the command itself.
#[tokio::test]
async fn an_addition_that_was_killed_is_undone_or_finished_by_the_next_command() {
    for kind in KINDS {
        let (one, two) = (kind.service("a"), kind.service("b"));
        let bench = bench(&[&one, &two]);
        let options = |name: &str, share: &str| match kind.shares == Shares::HashSpace {
            true => format!("{} {name} --share {share}", kind.name),
            false => format!("{} {name}", kind.name),
        };
        let plan = wish(&options("a", "1/2")).unwrap();
        let plan = plan_of(&plan, &bench);
        let (staging, dir) = (journal::staging(&bench.home, &plan.place), plan.place.dir());
        fs::create_dir_all(instance::srv(bench.dir.path())).unwrap();

        // While the directory was written.
        plan.write_dir(&bench.home, &staging, "00").unwrap();
        let told = bench.add_any(&options("b", "2/2")).await.unwrap();
        assert!(told.starts_with(&format!("{two} is added")), "{told}");
        assert!(!staging.exists());
        let there = format!("there is a {two} already");

        // Before the program file: nothing can have run.
        plan.write_dir(&bench.home, &staging, "00").unwrap();
        journal::mark_adding(&staging).unwrap();
        fs::rename(&staging, &dir).unwrap();
        assert_eq!(instance::all(&bench.home).unwrap().0.len(), 1);
        let error = bench.add_any(&options("b", "2/2")).await.unwrap_err();
        assert!(error.contains(&there), "{error}");
        assert!(!dir.exists());

        // After it: it is complete but for the mark.
        plan.write_dir(&bench.home, &dir, "00").unwrap();
        journal::mark_adding(&dir).unwrap();
        fs::write(plan.place.program_file(), plan.program_file()).unwrap();
        let error = bench.add_any(&options("b", "2/2")).await.unwrap_err();
        assert!(error.contains(&there), "{error}");
        assert!(dir.exists() && !journal::is_under_way(&dir));
        assert_eq!(instance::all(&bench.home).unwrap().0.len(), 2);
    }
}

fn plan_of(wish: &Wish, bench: &Bench) -> Plan {
    plan(wish, &bench.home, &bench.services, &mut Vec::new()).unwrap()
}

/// What a killed command of one kind left is finished by that of another.
#[tokio::test]
async fn additions_of_all_kinds_that_were_killed_are_undone_at_once() {
    let bench = bench(&["queue-b"]);
    fs::create_dir_all(instance::srv(bench.dir.path())).unwrap();
    for kind in KINDS {
        let plan = plan_of(&wish(&format!("{} a", kind.name)).unwrap(), &bench);
        plan.write_dir(&bench.home, &plan.place.dir(), "00").unwrap();
        journal::mark_adding(&plan.place.dir()).unwrap();
    }
    let told = bench.add_any("queue b").await.unwrap();
    for service in KINDS.map(|kind| kind.service("a")) {
        assert!(told.contains(&format!("{service}: its addition was interrupted and is undone\n")), "{told}");
    }
    let names: Vec<_> = instance::names(bench.dir.path()).unwrap();
    assert_eq!(names, [(&QUEUE, "b".parse().unwrap())]);
}

#[tokio::test]
async fn two_at_once_wait_for_each_other() {
    let bench = bench(&["dht-a", "dht-b"]);
    let (a, b) = tokio::join!(bench.add("a --share 1/2"), bench.add("b --share 2/2"));
    a.unwrap();
    b.unwrap();
    let (instances, _) = instance::all(&bench.home).unwrap();
    assert_ne!(instances[0].port, instances[1].port);
    let (c, d) = tokio::join!(bench.add("c --range empty"), bench.add("c --range empty"));
    // The fake's files know of no dht-c: both are refused, each for itself.
    for error in [c.unwrap_err(), d.unwrap_err()] {
        assert!(error.starts_with("nothing was added: supervisord does not see dht-c"), "{error}");
    }
}

#[tokio::test]
async fn instances_of_all_kinds_have_names_ports_and_groups_of_their_own() {
    let bench = bench(&["dht-a", "dmq-a", "dmq-b", "logfiles-a", "queue-a", "queue-b"]);
    for line in ["queue a", "dmq a", "logfiles a", "dht a", "dmq b", "queue b"] {
        let told = bench.add_any(line).await.unwrap();
        assert!(!told.contains("warning"), "{told}");
        assert_eq!(told.contains("hash range"), line.starts_with("dht"), "{told}");
    }
    let (instances, problems) = instance::all(&bench.home).unwrap();
    assert_eq!(problems, [""; 0]);
    let of = |i: &Instance| (i.place.service(), i.group.clone());
    let found: Vec<_> = instances.iter().map(of).collect();
    let expected = [
        ("dht-a", "dht"),
        ("dmq-a", "dmq"),
        ("dmq-b", "dmq"),
        ("logfiles-a", "logfiles"),
        ("queue-a", "a"),
        ("queue-b", "b"),
    ];
    assert_eq!(found, expected.map(|(service, group)| (service.to_owned(), group.to_owned())));
    for instance in &instances {
        let (kind, service) = (instance.place.kind, instance.place.service());
        assert!(instance.port >= kind.first_port && instance.port < kind.first_port + 100, "{service}");
        assert_eq!(instance.neo_port, instance.port + 100, "{service}");
        assert_eq!(instance.range.is_some(), kind.shares != Shares::Nothing, "{service}");
        assert_eq!(bench.dir.path().join("srv").join(&service).join("backup-data").exists(), *kind == DHT);
        let nodes = bench.read(&format!("etc/nodes/{}.nodes", instance.group));
        assert!(nodes.contains(&format!("127.0.0.1:{} # {service}\n", instance.neo_port)), "{nodes}");
        let legacy = bench.read(&format!("etc/nodes/{}.legacy.nodes", instance.group));
        assert!(legacy.contains(&format!("127.0.0.1:{} # {service}\n", instance.port)), "{legacy}");
        let key = bench.read(&format!("etc/secrets/{}.credentials", instance.group));
        assert_eq!(bench.read(&format!("srv/{service}/etc/credentials")), key);
        let config = bench.read(&format!("srv/{service}/etc/config.ini"));
        // The node's own default is its type.
        assert_eq!(config.contains(&format!("\ngroup = {}\n", instance.group)), *kind == QUEUE, "{service}");
    }
    let mut ports: Vec<u16> = instances.iter().flat_map(|instance| instance.ports().collect::<Vec<_>>()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 18);
    // One group, one protocol, one key.
    let error = bench.add_any("queue c --group dmq").await.unwrap_err();
    assert!(error.starts_with("the group dmq is that of dmq-a, a node of another kind"), "{error}");
}

#[tokio::test]
async fn a_queue_has_the_sizes_and_the_durability_that_were_asked_for() {
    let bench = bench(&["dmq-a", "queue-a", "queue-b"]);
    let wished = "--channel-size 64M --size log_=1G --size x-=1000 --durability journal --neo-port 22345 --group q";
    bench.add_any(&format!("dmq a {wished}")).await.unwrap();
    let config = bench.read("srv/dmq-a/etc/config.ini");
    for line in [
        "channel_size_limit = 67108864",
        "durability = journal",
        "log_ = 1073741824",
        "x- = 1000",
        "neoport = 22345",
        "group = q",
        "instance = dmq-a",
    ] {
        assert!(config.lines().any(|found| found == line), "{line} is not in {config}");
    }
    let section = config.split("[ChannelSizeById]").nth(1).unwrap().split("\n[").next().unwrap();
    assert!(section.contains("\nlog_ = ") && section.contains("\nx- = "), "{section}");
    assert!(
        bench.read("etc/supervisord.d/dmq-a.conf").contains(":22345 [Server] neoport in srv/dmq-a/etc/config.ini\n")
    );
    bench.add_any("queue a").await.unwrap();
    assert!(bench.read("srv/queue-a/etc/config.ini").contains("\ndurability = memory\n"));
    bench.add_any("queue b --group a").await.unwrap();
    assert_eq!(bench.read("etc/nodes/a.nodes").lines().count(), 3);
    for (line, expected) in [
        ("--size a=1 --size ab=1", "can begin with both a and ab"),
        ("--size a=1 --size a=2", "can begin with both a and a"),
        ("--size a=0", "takes nothing"),
        ("--size a", "PREFIX=BYTES"),
        ("--channel-size 0", "takes nothing"),
        ("--durability disk", "memory, overflow, journal"),
        ("--share 1/2", "unexpected argument"),
        ("--neo-port 22345", "--neo-port 22345: port 22345 belongs to dmq-a"),
        ("--port 22399 --neo-port 22399", "need a port each"),
    ] {
        let error = bench.add_any(&format!("queue c {line}")).await.unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[tokio::test]
async fn a_logfiles_node_has_the_timestamps_the_formats_and_the_ages_that_were_asked_for() {
    let bench = bench(&["logfiles-a", "logfiles-b", "logfiles-c", "logfiles-old"]);
    let told = bench.add_any("logfiles a").await.unwrap();
    assert!(told.contains("\n  takes       all timestamps\n") && !told.contains("warning"), "{told}");
    let config = bench.read("srv/logfiles-a/etc/config.ini");
    assert!(config.contains("minval = 0000000000000000\nmaxval = ffffffffffffffff\n"), "{config}");
    // A second one of the same timestamps is used in turn with the first.
    let told = bench.add_any("logfiles b --sync always").await.unwrap();
    assert!(!told.contains("warning"), "{told}");
    assert_eq!(bench.read("etc/nodes/logfiles.nodes").lines().count(), 3);
    assert!(bench.read("srv/logfiles-b/etc/config.ini").contains("\nmode = always\n"));

    let wished = "--maxval 1699999999 --group events --format v2 --format raw_=v1 --compress-after 90 --delete-after \
                  log_=397 --delete-after log_keep=never --unit ms --neo-port 23177";
    let told = bench.add_any(&format!("logfiles old {wished}")).await.unwrap();
    assert!(told.contains("warning: no node of the group events has timestamps from 1700000000 on"), "{told}");
    let config = bench.read("srv/logfiles-old/etc/config.ini");
    for (section, line) in [
        ("Server", "maxval = 000000006553f0ff"),
        ("Server", "neoport = 23177"),
        ("Report", "group = events"),
        ("ChannelFormat", "* = v2"),
        ("ChannelFormat", "raw_ = v1"),
        ("CompressAfterDays", "* = 90"),
        ("DeleteAfterDays", "log_ = 397"),
        ("DeleteAfterDays", "log_keep = never"),
        ("Retention", "unit = ms"),
    ] {
        let text = config.split(&format!("\n[{section}]\n")).nth(1).unwrap().split("\n[").next().unwrap();
        assert!(text.lines().any(|found| found == line), "{line} is not in [{section}] of {config}");
    }
    for (line, expected) in [
        ("--minval 1000 --group events", "overlap: logfiles-old has timestamps up to 1699999999"),
        ("--minval 2 --maxval 1", "--minval 2 is above --maxval 1"),
        ("--minval 0000000000000001", "a timestamp is a number"),
        ("--format v3", "a format is v1 or v2"),
        ("--format v1 --format *=v2", "--format is given twice for all channels"),
        ("--delete-after a=1 --delete-after a=2", "--delete-after is given twice for a"),
        ("--delete-after 0", "an age is"),
        ("--sync never", "interval, always"),
        ("--unit h", "s, ms, us, ns"),
        ("--share 1/2", "unexpected argument"),
        ("--group dht-x --neo-port 23177", "--neo-port 23177: port 23177 belongs to logfiles-old"),
    ] {
        let error = bench.add_any(&format!("logfiles c {line}")).await.unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
    let told = bench.add_any("logfiles c --minval 1700000000 --group events").await.unwrap();
    assert!(told.contains("\n  takes       timestamps from 1700000000 on\n") && !told.contains("warning"), "{told}");
}

/// A configuration may leave the limits out: then it takes all timestamps.
#[tokio::test]
async fn a_logfiles_node_without_limits_takes_everything() {
    let bench = bench(&["logfiles-a"]);
    bench.add_any("logfiles a --maxval 5").await.unwrap();
    let file = bench.dir.path().join("srv/logfiles-a/etc/config.ini");
    let text = fs::read_to_string(&file).unwrap();
    let left: Vec<_> = text.lines().filter(|line| !line.starts_with("minval") && !line.starts_with("maxval")).collect();
    fs::write(&file, left.join("\n")).unwrap();
    let (instances, problems) = instance::all(&bench.home).unwrap();
    assert_eq!(problems, [""; 0]);
    let range = instances[0].range.unwrap();
    assert_eq!((range.min(), range.max()), (0, u64::MAX));
}

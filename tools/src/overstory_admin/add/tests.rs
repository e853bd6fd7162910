//! Adding on the fake supervisor; `remove/tests.rs` goes on to a real one.

use std::sync::Arc;

use clap::Parser;
use overstory_supervisor::fake::{FakeProgram, FakeSupervisor};
use overstory_supervisor::{Catalogue, Layout, Supervisor as _};

use super::*;

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
    fs::write(dir.path().join("bin/dhtnode"), "").unwrap();
    let fake = Arc::new(FakeSupervisor::new(vec![FakeProgram::new("web")]));
    let programs = std::iter::once(&"web").chain(files).map(|name| FakeProgram::new(name)).collect();
    fake.write_files(programs);
    let layout = Layout::new(dir.path());
    let services = Services::with_supervisor(layout.clone(), Catalogue::load(&layout), fake.clone());
    Bench { home: Home::at(dir.path()), dir, fake, services }
}

impl Bench {
    pub(in crate::overstory_admin) async fn add(&self, line: &str) -> Result<String, String> {
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

pub(in crate::overstory_admin) async fn add_to(home: &Home, services: &Services, line: &str) -> Result<String, String> {
    let line = Line::try_parse_from(format!("add dht {line}").split_ascii_whitespace());
    let Command::Dht(args) = line.map_err(|error| error.to_string())?.command;
    let mut out = Vec::new();
    match add(&args, home, services, &mut out).await {
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
        ("b --port 65436".to_owned(), "65436 is not in 1..=65435".to_owned()),
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
async fn a_directory_that_cannot_be_written_leaves_nothing_behind() {
    let bench = bench(&["dht-a"]);
    let place = Place::new(&bench.home, "a".parse().unwrap());
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
    let bench = bench(&["dht-a", "dht-b"]);
    let args = Line::try_parse_from(["add", "dht", "a", "--share", "1/2"]).unwrap();
    let Command::Dht(args) = args.command;
    let plan = plan(&args, &bench.home, &bench.services, &mut Vec::new()).unwrap();
    let (staging, dir) = (journal::staging(&bench.home, &plan.place), plan.place.dir());
    fs::create_dir_all(instance::srv(bench.dir.path())).unwrap();

    // While the directory was written.
    plan.write_dir(&bench.home, &staging, "00").unwrap();
    let told = bench.add("b --share 2/2").await.unwrap();
    assert!(told.starts_with("dht-b is added"), "{told}");
    assert!(!staging.exists());

    // Before the program file: nothing can have run.
    plan.write_dir(&bench.home, &staging, "00").unwrap();
    journal::mark_adding(&staging).unwrap();
    fs::rename(&staging, &dir).unwrap();
    assert_eq!(instance::all(&bench.home).unwrap().0.len(), 1);
    let error = bench.add("b").await.unwrap_err();
    assert!(error.contains("there is a dht-b already"), "{error}");
    assert!(!dir.exists());

    // After it: it is complete but for the mark.
    plan.write_dir(&bench.home, &dir, "00").unwrap();
    journal::mark_adding(&dir).unwrap();
    fs::write(plan.place.program_file(), plan.program_file()).unwrap();
    let error = bench.add("b").await.unwrap_err();
    assert!(error.contains("there is a dht-b already"), "{error}");
    assert!(dir.exists() && !journal::is_under_way(&dir));
    assert_eq!(instance::all(&bench.home).unwrap().0.len(), 2);
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

#[test]
fn a_limit_may_have_a_unit() {
    for (text, expected) in [("0", 0), ("1000", 1000), ("512K", 512 << 10), ("10M", 10 << 20), ("2g", 2 << 30)] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
    for text in ["", "M", "-1", "1T", "10MB", "1.5G", "99999999999999999G", "5\u{e9}"] {
        assert!(bytes(text).is_err(), "{text}");
    }
}

//! Removing on the fake supervisor, and both on a real one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use overstory_supervisor::{Daemon, Layout};
use overstory_testkit::supervisord::SupervisordPrefix;

use super::*;
use crate::overstory_admin::add::tests::{add_to, bench};
use crate::overstory_admin::instance::kind::KINDS;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

async fn remove_from(home: &Home, services: &Services, line: &str) -> Result<String, String> {
    let line = Line::try_parse_from(format!("remove {line}").split_ascii_whitespace());
    let command = line.map_err(|error| error.to_string())?.command;
    let mut out = Vec::new();
    match remove(&command, home, services, &mut out).await {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[tokio::test]
async fn data_is_moved_aside_unless_it_is_to_be_deleted() {
    let bench = bench(&["dht-a"]);
    let before = bench.tree();
    bench.add_any("dht a").await.unwrap();
    let root = bench.dir.path();
    fs::write(root.join("srv/dht-a/data/x.tcm"), "records").unwrap();
    fs::write(root.join("var/log/dht-a.log"), "said").unwrap();
    fs::write(root.join("var/log/dht-ab.log"), "another's").unwrap();
    bench.fake.write_files(vec![overstory_supervisor::fake::FakeProgram::new("web")]);
    let told = remove_from(&bench.home, &bench.services, "dht a").await.unwrap();
    let kept = told.lines().find_map(|line| line.strip_prefix("  its data is in ")).unwrap().to_owned();
    let kept = PathBuf::from(kept);
    assert_eq!(fs::read_to_string(kept.join("data/x.tcm")).unwrap(), "records");
    assert_eq!(fs::read_to_string(kept.join("log/dht-a.log")).unwrap(), "said");
    assert!(kept.starts_with(root.join("srv/removed")), "{}", kept.display());
    assert_eq!(bench.loaded().await, ["web"]);
    fs::remove_dir_all(root.join("srv")).unwrap();
    fs::remove_dir(root.join("etc/nodes")).unwrap();
    fs::remove_file(root.join("var/log/dht-ab.log")).unwrap();
    assert_eq!(bench.tree(), before);
}

#[tokio::test]
async fn a_purge_leaves_nothing() {
    let bench = bench(&["dht-a"]);
    bench.add_any("dht a --dump-period 60").await.unwrap();
    fs::write(bench.dir.path().join("srv/dht-a/data/x.tcm"), "records").unwrap();
    bench.fake.write_files(vec![overstory_supervisor::fake::FakeProgram::new("web")]);
    let told = remove_from(&bench.home, &bench.services, "dht a --purge").await.unwrap();
    assert_eq!(told, "dht-a: already stopped\ndht-a is removed\n");
    assert_eq!(fs::read_dir(bench.dir.path().join("srv")).unwrap().count(), 0);
    assert!(!bench.tree().iter().any(|path| path.contains("dht-a") || path.ends_with("credentials")));
    let again = remove_from(&bench.home, &bench.services, "dht a").await.unwrap_err();
    assert_eq!(again, "there is no dht a; there is none");
    assert!(remove_from(&bench.home, &bench.services, "dht a --purge --keep-data").await.is_err());
}

/// The same for each kind; what is of the same name in another kind stays.
#[tokio::test]
async fn an_instance_of_each_kind_is_removed_and_no_other() {
    for kind in KINDS {
        let services = KINDS.map(|kind| kind.service("a"));
        let names: Vec<&str> = services.iter().map(String::as_str).collect();
        let bench = bench(&names);
        for other in KINDS {
            bench.add_any(&format!("{} a", other.name)).await.unwrap();
        }
        let (service, group) = (kind.service("a"), kind.default_group("a"));
        let log = bench.dir.path().join("var/log").join(format!("{service}.log.2"));
        fs::write(&log, "said").unwrap();
        fs::write(bench.dir.path().join("srv").join(&service).join("data/x.rq"), "records").unwrap();
        let left = names.iter().filter(|name| **name != service).chain([&"web"]);
        let programs = left.clone().map(|name| overstory_supervisor::fake::FakeProgram::new(name)).collect();
        bench.fake.write_files(programs);
        let told = remove_from(&bench.home, &bench.services, &format!("{} a --purge", kind.name)).await.unwrap();
        assert_eq!(told, format!("{service}: already stopped\n{service} is removed\n"));
        assert!(!bench.tree().iter().any(|path| path.contains(&service)), "{:?}", bench.tree());
        for gone in ["nodes", "legacy.nodes"].map(|end| format!("etc/nodes/{group}.{end}")) {
            assert!(!bench.dir.path().join(&gone).exists(), "{gone}");
        }
        assert!(!log.exists());
        assert_eq!(instance::all(&bench.home).unwrap().0.len(), KINDS.len() - 1);
        let mut left: Vec<_> = left.map(|name| (*name).to_owned()).collect();
        left.sort();
        assert_eq!(bench.loaded().await, left);
        let again = remove_from(&bench.home, &bench.services, &format!("{} a", kind.name)).await.unwrap_err();
        assert_eq!(again, format!("there is no {} a; there is none", kind.name));
    }
}

/// What a killed removal of any kind left is finished by the next command, of whatever kind that is.
#[tokio::test]
async fn removals_of_all_kinds_that_were_killed_are_finished() {
    let bench = bench(&["dht-a", "dmq-a", "logfiles-a", "queue-a", "queue-b"]);
    for kind in KINDS {
        bench.add_any(&format!("{} a", kind.name)).await.unwrap();
    }
    for kind in KINDS {
        let place = Place::new(&bench.home, kind, "a".parse().unwrap());
        journal::mark_removing(&place.dir(), Data::Kept).unwrap();
        fs::remove_file(place.program_file()).unwrap();
    }
    let left = ["web", "queue-b"].map(overstory_supervisor::fake::FakeProgram::new);
    bench.fake.write_files(left.into());
    let told = bench.add_any("queue b").await.unwrap();
    for service in KINDS.map(|kind| kind.service("a")) {
        assert!(told.contains(&format!("{service}: its removal was interrupted and is complete now")), "{told}");
    }
    assert_eq!(fs::read_dir(bench.dir.path().join("srv/removed")).unwrap().count(), KINDS.len());
    assert_eq!(bench.loaded().await, ["queue-b", "web"]);
    let mut nodes: Vec<_> = fs::read_dir(bench.dir.path().join("etc/nodes")).unwrap().flatten().collect();
    nodes.sort_by_key(fs::DirEntry::file_name);
    let nodes: Vec<_> = nodes.iter().map(fs::DirEntry::file_name).collect();
    assert_eq!(nodes, ["b.legacy.nodes", "b.nodes"]);
}

#[tokio::test]
async fn a_removal_that_was_killed_is_finished_or_forgotten_by_the_next_command() {
    let bench = bench(&["dht-a", "dht-b"]);
    bench.add_any("dht a --share 1/2").await.unwrap();
    bench.add_any("dht b --share 2/2").await.unwrap();
    let place = Place::new(&bench.home, &DHT, "a".parse().unwrap());
    // Before anything was removed: it stays.
    journal::mark_removing(&place.dir(), Data::Purged).unwrap();
    let told = bench.add_any("dht b").await.unwrap_err();
    assert!(told.contains("there is a dht-b already"), "{told}");
    assert!(place.dir().exists() && !journal::is_under_way(&place.dir()));
    // After the program file: it goes, its data is kept.
    journal::mark_removing(&place.dir(), Data::Kept).unwrap();
    fs::remove_file(place.program_file()).unwrap();
    bench.fake.write_files(vec![
        overstory_supervisor::fake::FakeProgram::new("web"),
        overstory_supervisor::fake::FakeProgram::new("dht-b"),
    ]);
    let gone = remove_from(&bench.home, &bench.services, "dht a").await.unwrap_err();
    assert_eq!(gone, "there is no dht a; there are: b");
    assert!(!place.dir().exists());
    assert_eq!(fs::read_dir(bench.dir.path().join("srv/removed")).unwrap().count(), 1);
    assert_eq!(bench.loaded().await, ["dht-b", "web"]);
}

/// A prefix with a real supervisord, a bystander that runs, and a stand-in for the node that writes a file when it is
/// stopped.
async fn real() -> (SupervisordPrefix, Home, Services) {
    let prefix = SupervisordPrefix::new().unwrap();
    prefix.program("bystander", "exec sleep 1000", &[]).unwrap();
    let check = "#!/bin/sh\n[ \"$1\" = --check-config ] && exit 0\n";
    let node = "trap 'echo dumped >data/x.tcm; exit 0' TERM\nwhile :; do sleep 0.05; done\n";
    for (name, text) in [("dhtnode", node), ("dhtdump", "exec sleep 1000\n")] {
        use std::os::unix::fs::PermissionsExt as _;
        let path = prefix.path().join("bin").join(name);
        fs::write(&path, format!("{check}{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Daemon::new(Layout::new(prefix.path())).ensure_up().await.unwrap();
    let home = Home::at(prefix.path());
    let services = Services::open(prefix.path());
    services.start(&services.catalogue().resolve("bystander")).await.unwrap();
    (prefix, home, services)
}

async fn pid(services: &Services, name: &str) -> Option<i32> {
    services.infos().await.unwrap().into_iter().find(|info| info.name.group == name).and_then(|info| info.pid)
}

#[tokio::test]
async fn a_real_supervisord_runs_it_stops_it_orderly_and_forgets_it() {
    let (prefix, home, services) = real().await;
    let bystander = pid(&services, "bystander").await.unwrap();
    let (a, b) = tokio::join!(
        add_to(&home, &services, "dht a --share 1/2 --dump-process"),
        add_to(&home, &services, "dht b --share 2/2")
    );
    a.unwrap();
    b.unwrap();
    let fresh = services.reloaded();
    for name in ["dht-a", "dhtdump-a", "dht-b"] {
        let outcomes = fresh.start(&fresh.catalogue().resolve(name)).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    }
    let node = pid(&services, "dht-a").await.unwrap();
    assert_eq!(fs::read_link(format!("/proc/{node}/cwd")).unwrap(), prefix.path().join("srv/dht-a"));

    let told = remove_from(&home, &services, "dht a").await.unwrap();
    assert!(told.contains("dhtdump-a: stopped\ndht-a: stopped\n"), "{told}");
    let kept = fs::read_dir(prefix.path().join("srv/removed")).unwrap().flatten().next().unwrap().path();
    assert_eq!(fs::read_to_string(kept.join("data/x.tcm")).unwrap(), "dumped\n");
    let groups: Vec<_> = services.infos().await.unwrap().into_iter().map(|info| info.name.group).collect();
    assert_eq!(groups, ["bystander", "dht-b"]);
    assert_eq!(pid(&services, "bystander").await, Some(bystander));
    assert!(pid(&services, "dht-b").await.is_some());
    remove_from(&home, &services, "dht b --purge").await.unwrap();
    assert!(!prefix.path().join("srv/dht-b").exists());
    assert_eq!(pid(&services, "bystander").await, Some(bystander));
}

#[tokio::test]
async fn without_a_supervisord_it_is_added_and_removed_all_the_same() {
    let prefix = SupervisordPrefix::new().unwrap();
    std::os::unix::fs::symlink("/bin/true", prefix.path().join("bin/dhtnode")).unwrap();
    let (home, services) = (Home::at(prefix.path()), Services::open(prefix.path()));
    add_to(&home, &services, "dht a").await.unwrap();
    assert_eq!(services.reloaded().catalogue().problems, [""; 0]);
    let told = tokio::time::timeout(Duration::from_secs(10), remove_from(&home, &services, "dht a --purge")).await;
    assert!(told.unwrap().unwrap().ends_with("dht-a is removed\n"));
}

//! The layout of the workspace: who may depend on whom, and who may name what.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use overstory_tests::repository;
use serde_json::Value;

/// Every crate of the workspace and its rank: a crate depends on crates of a lower rank only.
const RANKS: [(&str, u8); 20] = [
    ("overstory-model", 0),
    ("overstory-runtime", 1),
    ("overstory-swarm", 1),
    ("overstory-amqp", 2),
    ("overstory-client", 2),
    ("overstory-store", 2),
    ("overstory-supervisor", 2),
    ("overstory-node", 3),
    ("overstory-replay", 4),
    ("overstory-testkit", 4),
    ("overstory-amqp2engines", 5),
    ("overstory-dht", 5),
    ("overstory-dmq", 5),
    ("overstory-logfiles", 5),
    ("overstory-collectd", 5),
    ("overstory-webserver", 5),
    ("overstory-tools", 5),
    ("overstory-bench", 5),
    ("overstory", 6),
    ("overstory-tests", 7),
];

/// Libraries that one crate alone may depend on, so that they can be exchanged in one place.
const OWNED: [(&str, &[&str]); 7] = [
    ("lapin", &["overstory-amqp", "overstory-testkit"]),
    ("mongodb", &["overstory-store"]),
    ("rusqlite", &["overstory-store"]),
    ("roxmltree", &["overstory-supervisor"]),
    ("actix-web", &["overstory-webserver"]),
    ("config", &["overstory-runtime"]),
    ("tracing-subscriber", &["overstory-runtime", "overstory-node"]),
];

/// The normal dependencies of each crate of the workspace, by package name.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), normal)
        })
        .collect()
}

#[test]
fn a_crate_depends_on_crates_of_a_lower_rank_only() {
    let ranks: BTreeMap<_, _> = RANKS.into_iter().collect();
    for (name, needs) in dependencies() {
        let rank = ranks.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no rank: give it one"));
        for need in needs.iter().filter(|need| need.starts_with("overstory")) {
            assert!(
                ranks[need.as_str()] < *rank,
                "{name} (rank {rank}) depends on {need} (rank {})",
                ranks[need.as_str()]
            );
        }
    }
}

#[test]
fn a_library_behind_a_seam_is_named_by_its_owner_only() {
    for (name, needs) in dependencies() {
        for (library, owners) in OWNED {
            assert!(
                !needs.iter().any(|need| need == library) || owners.contains(&name.as_str()),
                "{name} depends on {library}, which belongs to {}",
                owners[0]
            );
        }
    }
}

#[test]
fn test_fixtures_stay_out_of_what_is_shipped() {
    for (name, needs) in dependencies() {
        let may = ["overstory-bench", "overstory-tests"].contains(&name.as_str());
        let fixture = |need: &String| ["overstory-replay", "overstory-testkit"].contains(&need.as_str());
        assert!(may || !needs.iter().any(fixture), "{name} would ship the test fixtures");
    }
}

/// The source files of what is shipped, without test modules kept in files of their own.
fn shipped_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in ["lib", "engines", "connectors", "webserver", "tools", "overstory"] {
        collect(&repository().join(top), &mut found);
    }
    found.retain(|path| {
        let text = path.to_string_lossy();
        text.contains("/src/") && !text.contains("/lib/runtime/") && !text.contains("/lib/testkit/")
    });
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The part of a file that is compiled into the program: unit tests stand at the end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn only_the_runtime_reads_the_environment_installs_handlers_and_exits() {
    let forbidden =
        ["std::env::var", "env::var(", "env::vars", "env::args", "process::exit", "signal::unix", "ctrl_c("];
    for path in shipped_sources() {
        let text = fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!without_tests(&text).contains(word), "{} uses {word}: that is lib/runtime's", path.display());
        }
    }
}

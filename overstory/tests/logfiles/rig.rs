//! Nodes of the executable that is tested, and records that tell whether they are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use overstory_testkit::node::{LOGFILES, NodeInstance, until};

/// What a killed node may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Interval,
    Always,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Interval, Self::Always];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Always => "always",
        }
    }
}

/// An instance of a logfiles node, whose channels that begin with `v2_` have buckets of format 2.
pub(crate) fn instance(mode: Mode) -> NodeInstance {
    let node = NodeInstance::new(Path::new(env!("CARGO_BIN_EXE_overstory")), LOGFILES);
    node.set("Report", "enabled", "false").set("Sync", "mode", mode.name()).set("ChannelFormat", "v2_", "v2");
    node
}

/// What `logfiles_check` says of the data directory: its exit code and what it printed.
pub(crate) fn check(node: &NodeInstance, args: &[&str]) -> (i32, String) {
    let output = node.run("logfiles_check", &[args, &["data"]].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

/// The line of `root.log` that says something about something, once it is there.
pub(crate) fn logged(node: &NodeInstance, about: &str, says: &str) -> String {
    let mut found = None;
    until(&format!("{says:?} is said of {about:?}"), || {
        let log = node.log();
        found = log.lines().find(|line| line.contains(about) && line.contains(says)).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// A number that is another one at each call.
pub(crate) fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}

/// Waits for a condition, though not for long.
pub(crate) fn for_a_while(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_millis(700);
    until("it holds, or the time is over", || holds() || Instant::now() >= deadline);
}

/// Lets a random time pass, so that a kill meets the process anywhere.
pub(crate) fn some_microseconds(at_most: u64) {
    let until = Instant::now() + Duration::from_micros(random(at_most));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// The state of a finding: 1 minor, 2 major, 3 critical.
pub(crate) fn finding(node: &NodeInstance, check: &str) -> Option<f64> {
    node.metric(&format!("overstory_node_finding_state{{check=\"{check}\"}}"))
}

/// A small file system in memory; unmounted when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; this takes root, as the tests have in the pipeline.
    pub(crate) fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).status();
        assert!(status.unwrap().success(), "root mounts file systems");
        Self(at.to_owned())
    }

    pub(crate) fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node of a test that failed may still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

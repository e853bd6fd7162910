//! What happens to nodes at any moment: kills, disks that are full; and what they say of it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::node::{NodeInstance, until};

/// A number that is another one at each call.
#[must_use]
pub fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// How often something that depends on luck is tried: more often when `OVERSTORY_TEST_LONG` is set.
#[must_use]
pub fn rounds(usual: u32, long: u32) -> u32 {
    if std::env::var_os("OVERSTORY_TEST_LONG").is_some() { long } else { usual }
}

/// Lets a random time pass, so that a kill meets the process anywhere.
pub fn some_microseconds(at_most: u64) {
    let until = Instant::now() + Duration::from_micros(random(at_most));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Waits for a condition, though not for long: 0.7 s.
pub fn for_a_while(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_millis(700);
    until("it holds, or the time is over", || holds() || Instant::now() >= deadline);
}

/// The line of `root.log` that says something about something, once it is there.
pub fn logged(node: &NodeInstance, about: &str, says: &str) -> String {
    let mut found = None;
    until(&format!("{says:?} is said of {about:?}"), || {
        let log = node.log();
        found = log.lines().find(|line| line.contains(about) && line.contains(says)).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// The state of a finding: 1 minor, 2 major, 3 critical.
#[must_use]
pub fn finding(node: &NodeInstance, check: &str) -> Option<f64> {
    node.metric(&format!("overstory_node_finding_state{{check=\"{check}\"}}"))
}

/// A small file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of a size that `mount` understands, such as `1m`; this takes root, as the tests have in the pipeline.
    #[must_use]
    pub fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], at);
        Self(at.to_owned())
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0);
    }
}

fn mount(args: &[&str], at: &Path) {
    let status = Command::new("mount").args(args).arg(at).status().unwrap();
    assert!(status.success(), "root mounts file systems");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node of a test that failed may still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

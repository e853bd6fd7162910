//! Nodes of the executable that is tested, and values that tell whether they are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use overstory_testkit::node::{DMQ, NodeInstance, NodeKind, until};

/// What is on disk of a record that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Memory,
    Overflow,
    Journal,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Overflow, Self::Journal];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Overflow => "overflow",
            Self::Journal => "journal",
        }
    }
}

/// An instance of a queue node, with so many bytes in memory for each queue.
pub(crate) fn instance(mode: Mode, queue_bytes: u64) -> NodeInstance {
    let node = instance_of(DMQ);
    node.set("Queue", "durability", mode.name()).set("Server", "channel_size_limit", &queue_bytes.to_string());
    node
}

/// An instance of this kind as it is.
pub(crate) fn instance_of(kind: NodeKind) -> NodeInstance {
    NodeInstance::new(Path::new(env!("CARGO_BIN_EXE_overstory")), kind)
}

/// A value that tells which of a channel's it is; 8 to 300 bytes, and now and then some thousands.
pub(crate) fn value(channel: &str, number: u32) -> Vec<u8> {
    let mixed = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ channel.len() as u64;
    let filler = usize::try_from(if mixed >> 58 == 7 { mixed >> 51 & 0x1fff } else { mixed >> 40 & 0xff }).unwrap();
    let mut value = number.to_le_bytes().to_vec();
    value.extend_from_slice(&channel.as_bytes()[channel.len().saturating_sub(4)..]);
    value.resize(value.len() + filler, value[0] ^ 0x5a);
    value
}

/// Which value of a channel this is; panics if it is none.
pub(crate) fn number(channel: &str, stored: &[u8]) -> u32 {
    let number = u32::from_le_bytes(stored[..4].try_into().unwrap());
    assert!(stored == value(channel, number), "{channel}: the value {number} is as it was pushed");
    number
}

/// The values of a channel with these numbers.
pub(crate) fn values(channel: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<Vec<u8>> {
    numbers.into_iter().map(|number| value(channel, number)).collect()
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

/// The queues that have a file.
pub(crate) fn saved(node: &NodeInstance) -> Vec<String> {
    files(node, "data", ".rq")
}

/// The names in a directory that end so, without the end; not the one that every node locks.
pub(crate) fn files(node: &NodeInstance, directory: &str, end: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.path(directory)) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries
        .map(name)
        .filter_map(|name| name.strip_suffix(end).map(str::to_owned))
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
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

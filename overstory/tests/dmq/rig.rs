//! Nodes of the executable that is tested, and values that tell whether they are right.

use std::fs;
use std::path::Path;

use overstory_testkit::node::{DMQ, NodeInstance, NodeKind};

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

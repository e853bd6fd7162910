//! Nodes of the executable that is tested, and records that tell whether they are right.

use std::path::Path;

use overstory_testkit::node::{LOGFILES, NodeInstance};

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

//! Raw clients of swarm nodes, and recorded conversations that are played against an engine in this process.
//!
//! [`client`] has clients of both protocols that read and write bytes, for nodes in this process and for others; a
//! [`Node`] is an engine behind real sockets, on a thread of its own; a [`Replay`] plays the client's side of a [`Recording`] and compares what the node sends, byte
//! for byte. What may differ in each protocol (order of an iteration, compression) its [`Protocol`] says; whatever
//! differs on purpose is a [`Difference`], with the reason.
//!
//! For tests only: everything here panics where something is not as it should be.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

pub mod client;
pub mod node;
pub mod recording;
pub mod replay;

use std::time::Duration;

pub use client::{Connection, NeoClient, Request, system_time};
pub use node::{Host, Node};
pub use recording::{Line, Record, Recording};
pub use replay::{Difference, Ours, Protocol, Replay};

/// The time at which every test happens, Unix seconds: that of the recordings.
pub const NOW: u64 = 1_795_240_300;

/// Time that is waited for what has to come, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "in time: {what}");
        std::thread::yield_now();
    }
}

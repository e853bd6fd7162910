//! Recorded conversations of swarm nodes, played against an engine in this process.
//!
//! A [`Node`] is an engine behind real sockets, on a thread of its own; [`client`] has clients of both protocols that
//! read and write bytes; a [`Replay`] plays the client's side of a [`Recording`] and compares what the node sends, byte
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

pub use client::{Connection, NeoClient, Request};
pub use node::{Host, Node};
pub use recording::{Line, Record, Recording};
pub use replay::{Difference, Ours, Protocol, Replay};

/// The time at which every test happens, Unix seconds: that of the recordings.
pub const NOW: u64 = 1_795_240_300;

/// Time that is waited for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "in time: {what}");
        std::thread::yield_now();
    }
}

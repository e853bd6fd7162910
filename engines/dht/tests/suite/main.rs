//! A dht node in this process, seen from its ports.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod defects;
mod dumps;
mod iteration;
mod redistribution;
mod rig;
mod streams;
mod vectors;

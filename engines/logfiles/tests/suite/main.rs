//! A logfiles node in this process, seen from its ports and its files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod defects;
mod files;
mod matrix;
mod model;
mod redistribution;
mod rig;
mod streams;
mod vectors;

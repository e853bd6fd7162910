//! A queue node in this process, seen from its ports and its files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod connections;
mod defects;
mod files;
mod limits;
mod matrix;
mod model;
mod redelivery;
mod rig;
mod vectors;

//! `logfilesnode` as a process: killed at any moment, on full and damaged disks, with many channels, buckets and records,
//! and operated.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod crash;
mod damage;
mod disk;
mod load;
mod operation;
mod redistribution;
mod retention;
mod rig;

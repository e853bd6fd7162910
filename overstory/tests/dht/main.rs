//! `dhtnode`, `dhtdump`, `dhtredist` and `tcmcli` as processes: killed at any moment, given damaged files and full
//! disks, talked to by clients that mean no good, and operated.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod crash;
mod disk;
mod files;
mod hostile;
mod operation;
mod redistribution;
mod rig;
mod tools;

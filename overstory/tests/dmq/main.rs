//! `dmqnode` and `queuenode` as processes: killed at any moment, given damaged files and full disks, talked to by
//! clients that mean no good, and operated.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod crash;
mod damage;
mod disk;
mod hostile;
mod model;
mod operation;
mod rig;

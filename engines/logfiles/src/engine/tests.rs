#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod legacy;
mod neo;
mod redistribution;
mod rig;
mod watching;

//! The server half of a swarm node.
//!
//! [`engine`] says what an engine gives; [`server`] accepts connections of both protocols and drives it; the rest is
//! what makes it a program that operators run: configuration, logs, statistics, console, control sockets, reports.
//!
//! A node's data lives on one thread, as one task after another: no locks, no copies between threads, and a put that
//! was answered is there for the next request whatever connection it comes on. A machine's other cores are used by
//! other nodes, each with a part of the hash range.

pub mod app;
mod cli;
pub mod commit;
pub mod config;
mod console;
mod control;
pub mod cpu;
pub mod data_lock;
pub mod disk_free;
pub mod engine;
pub mod heap;
pub mod inspect;
pub mod levels;
pub mod logs;
mod metrics;
pub mod open_files;
pub mod peer_node;
mod pid;
pub mod replies;
mod report;
pub mod server;
mod side;
pub mod stats;
pub mod throttle;
pub mod wake;
mod watch;

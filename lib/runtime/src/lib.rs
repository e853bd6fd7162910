//! What every program shares: where it lives, its configuration, logs, metrics, signals and files.
//!
//! This crate alone reads the environment, installs signal handlers and ends processes.

pub mod admin;
pub mod backoff;
pub mod config;
pub mod home;
pub mod host;
pub mod ini;
pub mod lock;
pub mod logging;
pub mod program;
pub mod shutdown;
pub mod spool;
pub mod terminal;
pub mod watchdog;

pub use prometheus;

pub use home::Home;
pub use shutdown::Shutdown;

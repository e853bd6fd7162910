//! Supervision: supervisord over its unix socket, what it runs, and whether that is really up.
//!
//! [`Supervisor`] is the seam: [`UnixClient`] speaks XML-RPC to a real supervisord, [`fake::FakeSupervisor`] keeps its
//! rules in memory. Above it [`services::Services`] starts and stops one service as `service` and the web server do.

pub mod api;
pub mod client;
pub mod control;
pub mod daemon;
pub mod fake;
mod http;
pub mod journal;
pub mod layout;
pub mod lock;
pub mod logs;
pub mod privileges;
pub mod process_table;
pub mod programs;
pub mod readiness;
pub mod services;
pub mod settle;
pub mod xmlrpc;

pub use api::{ProcessInfo, ProcessName, ProcessState, Supervisor, SupervisorError};
pub use client::UnixClient;
pub use daemon::{Daemon, DaemonError};
pub use http::HttpError;
pub use layout::Layout;
pub use programs::{Catalogue, ProcessDef, ServiceDef, Target};
pub use readiness::Probe;
pub use services::Services;

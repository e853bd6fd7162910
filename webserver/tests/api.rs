//! The REST API over a real port and the embedded store; broker and supervisord are played.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "api/accounts.rs"]
mod accounts;
#[path = "api/alarms.rs"]
mod alarms;
#[path = "api/archive.rs"]
mod archive;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/events.rs"]
mod events;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/metrics.rs"]
mod metrics;
#[path = "api/nodes.rs"]
mod nodes;
#[path = "api/platform.rs"]
mod platform;
#[path = "api/support.rs"]
mod support;

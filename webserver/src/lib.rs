//! The web server: the REST API over the store, the broker and the supervised services.
//!
//! A request passes `access` (id, log, counters, headers), the table in `routes` (who may) and a handler below `routes`.
//! Handlers run on actix' workers; what outlives a request runs on the program's runtime (`shared`).

mod access;
pub mod archive;
pub mod auth;
mod body;
pub mod broker;
pub mod config;
pub mod engines;
mod error;
mod health;
mod incoming;
pub mod metrics;
pub mod openapi;
pub mod paging;
mod program;
mod query;
pub mod routes;
pub mod server;
mod shared;
pub mod sink;
pub mod state;
pub mod supervised;

pub use program::run;

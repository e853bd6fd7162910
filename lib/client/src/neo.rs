//! The neo protocol: one authenticated connection per node that carries any number of requests (protocol §2).

pub(crate) mod conn;
pub(crate) mod core;
mod handshake;
mod identity;
pub(crate) mod link;
pub mod pipeline;
mod table;

pub use identity::{Identity, IdentityError};

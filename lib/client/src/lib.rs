//! A client of swarm nodes.
//!
//! [`Registry`] names the nodes, [`DhtClient`] is what applications use: it connects, learns which node is responsible
//! for which keys, and sends requests by either protocol. [`Pipeline`] is one neo connection for one thread that keeps
//! very many requests in flight.
//!
//! A request whose connection broke is reported as such ([`Error::Broken`]): nobody knows whether the node still did
//! it. Nothing is repeated behind the caller's back, except what cannot have had an effect.

pub mod dht;
pub mod error;
pub mod legacy;
pub mod neo;
pub mod ranges;
pub mod registry;
mod socket;

pub use dht::{ClientConfig, DhtClient, Protocol};
pub use error::Error;
pub use neo::Identity;
pub use neo::pipeline::{Outcome, Pipeline};
pub use ranges::RangeTable;
pub use registry::Registry;

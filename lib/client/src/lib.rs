//! A client of swarm nodes.
//!
//! [`Registry`] names the nodes. [`DhtClient`], [`DmqClient`] and [`DlsClient`] are what applications use: they connect
//! and send requests by either protocol, the first to the node that is responsible for a key, the second to the nodes in
//! turn, the third to the nodes that take records of a time, in turn. [`Pipeline`] is one neo connection for one thread
//! that keeps very many requests in flight.
//!
//! A request whose connection broke is reported as such ([`Error::Broken`]): nobody knows whether the node still did
//! it. Nothing is repeated behind the caller's back, except what cannot have had an effect.

mod answers;
mod config;
pub mod dht;
pub mod dls;
pub mod dmq;
pub mod error;
mod failover;
pub mod files;
mod group;
pub mod legacy;
pub mod neo;
pub mod ranges;
pub mod registry;
mod socket;
mod stream;
mod turns;

pub use answers::{Answers, Size};
pub use config::{ClientConfig, Protocol};
pub use dht::DhtClient;
pub use dls::DlsClient;
pub use dmq::DmqClient;
pub use error::Error;
pub use files::GroupFiles;
pub use neo::Identity;
pub use neo::pipeline::{Outcome, Pipeline};
pub use ranges::RangeTable;
pub use registry::Registry;
pub use stream::StreamControl;

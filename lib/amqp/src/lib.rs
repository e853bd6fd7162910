//! RabbitMQ for every program: topology, confirmed publisher with a spool, consumer, dead letters.
//!
//! Nothing is recovered behind our back: a connection that is lost, or a channel that the broker closed, is thrown
//! away and a new one is built from nothing, topology included. So a delivery tag belongs to one subscription (its
//! generation says which) and can never acknowledge a message of another.
//!
//! Publishing and consuming use connections of their own: while the broker's memory alarm holds a publishing
//! connection still, acknowledgements keep flowing on the other.

pub mod config;
pub mod consumer;
pub mod dead;
pub mod delivery;
pub mod error;
pub mod fanout;
mod link;
pub mod message;
pub mod publisher;
pub mod queues;
pub mod topology;

pub use config::{AmqpConfig, ArchiveLimits, QueueLimits, TlsConfig};
pub use consumer::{ConsumeError, Consumed, Consumer, ConsumerOptions};
pub use delivery::{Delivery, DeliveryTag};
pub use error::AmqpError;
pub use message::Outgoing;
pub use publisher::{PublishError, Publisher, PublisherOptions, PublisherStats, Receipt, SpoolOptions};
pub use topology::Topology;

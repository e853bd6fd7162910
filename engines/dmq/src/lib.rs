//! The queue node: queues of fixed size in memory, with subscribers, and what of them is kept on disk.
//!
//! `store` holds the queues and decides what goes where; behind it stands one of the [`disk::Disk`]s, or none.

pub mod config;
pub mod disk;
pub mod dmqnode;
pub mod dump;
pub mod engine;
pub mod journal;
pub mod load;
pub mod overflow;
pub mod persistence;
pub mod queuenode;
pub mod ring;
pub mod rq;
pub mod store;

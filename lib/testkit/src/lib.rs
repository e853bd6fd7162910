//! Real brokers, stores, supervisors and nodes for tests.

pub mod broker;
pub mod mongo;
pub mod node;
pub mod ports;
pub mod supervisord;
pub mod trouble;

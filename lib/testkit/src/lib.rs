//! Real brokers, stores and supervisors for tests.

pub mod broker;
pub mod mongo;
pub mod supervisord;

//! The dht node and its tools.

pub mod storage;
pub mod tcm;

//! The dht node and its tools.

pub mod engine;
pub mod dump;
pub mod load;
pub mod storage;
pub mod tcm;

//! The dht node and its tools.

pub mod backup;
pub mod config;
pub mod dhtdump;
pub mod dhtnode;
pub mod dhtredist;
pub mod dump;
pub mod engine;
pub mod load;
pub mod storage;
pub mod tcm;
pub mod tcmcli;

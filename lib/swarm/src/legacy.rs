//! The legacy protocol: one request at a time on a connection.

pub mod dht;
pub mod dls;
pub mod dmq;
